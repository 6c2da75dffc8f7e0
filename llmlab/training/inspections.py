"""A worker answers questions about its own model: at a step boundary, or while it is paused.

Nothing of the training is touched: random generators and the model's mode are put back as they were, gradients and
weights are only read, and the time is not counted as training. No error in here ends a run, but one while several
processes collect their parts of a model; it goes to whoever asked. `llmlab.models.live` is the other side.
"""

from __future__ import annotations

import re
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from llmlab.anatomy.modules import evaluating
from llmlab.core.errors import Cancelled, LabError
from llmlab.core.files import write_json
from llmlab.core.progress import Every
from llmlab.store.events import Inspected
from llmlab.training.state import random_state, restore_random

if TYPE_CHECKING:
    from llmlab.training.run import TrainingRun

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,120}")
# What `ask_live` calls its answers; anything else in the folder is not for us to delete.
_ASKED = re.compile(r"[a-z]+-[0-9a-f]{12}\.[a-z.]+")
# How often the one who waits is told how far it is, and asked whether it still waits.
_TELL_SECONDS = 0.25
# What nobody fetched for so long is deleted.
_KEPT_SECONDS = 3600.0


def answer_request(trainer: TrainingRun, options: dict[str, Any], stop_wanted: Callable[[], bool]) -> Inspected | None:
    """Answers an `inspect` request into inspections/; None when it was cancelled or failed.

    options: question, values and out (a name), as `llmlab.models.live` sends them. stop_wanted: the run should
    end, so the work is given up.
    """
    question, values, name = (options.get(key) for key in ("question", "values", "out"))
    if not (isinstance(question, str) and isinstance(values, dict) and isinstance(name, str) and _NAME.fullmatch(name)):
        return None  # not from this lab; there is nobody to tell
    stem, together = trainer.run.inspections / name, trainer.processes.sharded
    out = stem.with_name(f"{name}.safetensors")
    try:
        stem.parent.mkdir(exist_ok=True)
        _tidy(stem.parent)
        model = unwrapped(trainer.plain_model())
        together = False
        _answer(trainer, model, question, values, out, _Teller(stem, stop_wanted))
        return Inspected(trainer.progress.step, time.time(), out.relative_to(trainer.run.path).as_posix())
    except Cancelled:
        if stop_wanted():
            _say(stem, LabError(f"{trainer.run.id} was asked to stop before it could answer."))
    except LabError as error:
        _say(stem, error)
    except Exception as error:  # whatever a question causes: the run goes on
        print(traceback.format_exc(), file=sys.stderr)
        _say(stem, LabError("The run could not answer.", f"{type(error).__name__}: {error}", "See its worker.log."))
        if together:  # the other processes still wait for their part of the model to be taken
            raise
    finally:
        with suppress(OSError):
            for ending in ("progress.json", "cancel"):
                stem.with_name(f"{name}.{ending}").unlink(missing_ok=True)
    return None


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile and DistributedDataParallel."""
    for attribute in ("_orig_mod", "module"):
        inner = getattr(model, attribute, None)
        if isinstance(inner, nn.Module):
            return unwrapped(inner)
    return model


def _answer(
    trainer: TrainingRun, model: nn.Module, question: str, values: dict[str, Any], out: Path, progress: _Teller
) -> None:
    from llmlab.inspection.answers import answer_question  # not before somebody asks
    from llmlab.models.model import OpenModel

    step, random = trainer.progress.step, random_state()
    try:
        with evaluating(model):
            opened = OpenModel(
                reference=f"{trainer.run.id}@live",
                name=f"{trainer.run.id}, step {step:,}",
                kind="live",
                model=model,
                tokenizer=trainer.tokenizer,
                step=step,
            )
            answer_question(opened, question, values, out, progress)
    finally:
        restore_random(random)


class _Teller:
    """Progress that goes to a file, and hears of a cancel by another."""

    def __init__(self, stem: Path, stop_wanted: Callable[[], bool]) -> None:
        self._progress = stem.with_name(f"{stem.name}.progress.json")
        self._cancel = stem.with_name(f"{stem.name}.cancel")
        self._stop_wanted = stop_wanted
        self._news = Every(_TELL_SECONDS)

    def __call__(self, what: str, done: float, total: float) -> None:
        if not self._news.due():
            return
        if self._cancel.exists() or self._stop_wanted():
            raise Cancelled()
        with suppress(OSError, ValueError):
            write_json(self._progress, {"what": what, "done": done, "total": total}, durable=False)


def _say(stem: Path, error: LabError) -> None:
    with suppress(OSError):
        write_json(stem.with_name(f"{stem.name}.error.json"), error.as_dict(), durable=False)


def _tidy(folder: Path) -> None:
    oldest = time.time() - _KEPT_SECONDS
    for path in folder.iterdir():
        if not _ASKED.fullmatch(path.name):
            continue  # somebody's own
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
