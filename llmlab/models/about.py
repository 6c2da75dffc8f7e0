"""What an open model is, in plain values (`llmlab.models.replies.About`)."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import psutil

from llmlab.anatomy.anatomy import Anatomy, Refusals
from llmlab.anatomy.sizes import context_length, size_of
from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, quiet
from llmlab.models.base_shape import BaseShape
from llmlab.models.file_sources import Folder
from llmlab.models.model import OpenModel
from llmlab.models.reference import LiveRun
from llmlab.models.replies import About
from llmlab.models.source import source_of

_FLOAT = 4  # bytes of a weight
# How often a run that has not begun is looked at.
_POLL_SECONDS = 0.05


def about(opened: OpenModel) -> About:
    """Describes an open model; one whose insides cannot be trusted is described by its settings, with the reason."""
    try:
        anatomy = opened.anatomy
        sizes, refusals = _sizes(anatomy), {name: why for name, why in asdict(anatomy.refusals).items() if why}
    except LabError as error:
        sizes = _from_config(getattr(opened.model, "config", None))
        refusals = dict.fromkeys(Refusals.__dataclass_fields__, str(error))
    return About(
        reference=opened.reference,
        name=opened.name,
        kind=opened.kind,
        step=opened.step,
        parameters=opened.parameters,
        bytes=opened.bytes,
        begins=bool(getattr(opened.tokenizer, "adds_bos", False)),
        refusals=refusals,
        memory_bytes=_resident(),
        **sizes,
    )


def about_live(reference: LiveRun, progress: Progress = quiet) -> About:
    """Describes a live run from its folder: one that fine-tunes by its base, another once it has made its tokenizer.

    A worker that reads its text is waited for. LabError when the run ends before that, or its base is not here.
    Cancelled when `progress` says so.
    """
    run = reference.run
    needs_tokenizer = not (run.fine_tunes or run.on_task)
    while needs_tokenizer and not run.tokenizer_json.is_file():
        status = run.status()
        if not status.live:
            raise LabError(f"{run.id} has not begun to train.", f"It is {status.state}.", "Resume it, then look again.")
        progress(status.doing or f"Waiting for {run.id} to begin", 0, 0)
        time.sleep(_POLL_SECONDS)
    source = source_of(reference)
    if isinstance(source.bottom, Folder):
        source.bottom.fetched(progress)  # its worker may still be downloading it
    shape = source.shape()
    return About(
        reference=str(reference),
        name=f"{run.id} (live)",
        kind="live",
        step=run.status().step,
        parameters=shape.parameters,
        bytes=shape.parameters * _FLOAT,
        memory_bytes=_resident(),
        **_sizes(shape),
    )


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _sizes(of: Anatomy | BaseShape) -> dict[str, Any]:
    names = ("family", "n_layer", "n_head", "n_embd", "vocab_size", "context")
    return {name: getattr(of, name) for name in names}


def _from_config(config: Any) -> dict[str, Any]:
    """The shape as transformers' settings give it, 0 where a family calls it otherwise."""
    config = config.get_text_config() if config is not None else config
    return {
        "family": str(getattr(config, "model_type", "unknown")),
        "n_layer": size_of(config, "num_hidden_layers"),
        "n_head": size_of(config, "num_attention_heads"),
        "n_embd": size_of(config, "hidden_size"),
        "vocab_size": size_of(config, "vocab_size"),
        "context": 0 if config is None else context_length(config),
    }
