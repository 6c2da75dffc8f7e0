"""What an open model is, in plain values: what the window shows of it and what `models` and `open` answer."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from llmlab.anatomy.anatomy import Refusals
from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, quiet
from llmlab.core.settings import ModelSettings, PretrainSettings
from llmlab.core.task_settings import TRANSFORMER, TaskSettings, shape_of
from llmlab.data.synthetic.tasks import task_of
from llmlab.gpt.shapes import block_layers, padded_vocab_size, parameter_count
from llmlab.models.gguf_header import count_gguf_parameters
from llmlab.models.hub import hub_snapshot
from llmlab.models.huggingface import read_config
from llmlab.models.model import OpenModel
from llmlab.models.reference import (
    AdaptedModel,
    GgufFile,
    HubModel,
    LiveRun,
    ModelFolder,
    Reference,
    SavedRun,
    is_fine_tuned,
    is_task,
)
from llmlab.models.scratch import described_model, read_tokenizer
from llmlab.models.tuned import base_of
from llmlab.models.weights import count_parameters
from llmlab.store.checkpoints import select

_FLOAT = 4  # bytes of a weight
# How often a run that has not begun is looked at.
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class About:
    """A model's identity and shape.

    bytes: of its weights in memory. memory_bytes: resident memory of the process that holds it. refusals: panels
    that cannot be trusted, each with its reason. begins: texts are usually put after the beginning-of-text token.
    """

    reference: str
    name: str
    kind: str
    step: int | None
    parameters: int
    bytes: int
    family: str
    n_layer: int
    n_head: int
    width: int
    vocab_size: int
    context: int
    refusals: dict[str, str] = field(default_factory=dict)
    begins: bool = False
    memory_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As it goes through JSON."""
        return asdict(self)


def about(opened: OpenModel) -> About:
    """Describes an open model; one whose insides cannot be trusted is described by its settings, with the reason."""
    common: dict[str, Any] = {
        "reference": opened.reference,
        "name": opened.name,
        "kind": opened.kind,
        "step": opened.step,
        "parameters": opened.parameters,
        "bytes": opened.bytes,
        "begins": bool(getattr(opened.tokenizer, "adds_beginning", False)),
    }
    try:
        anatomy = opened.anatomy
    except LabError as error:
        refusals = dict.fromkeys(_PANELS, str(error))
        return About(
            **common, **_from_config(getattr(opened.model, "config", None)), refusals=refusals, memory_bytes=_resident()
        )
    return About(
        **common,
        memory_bytes=_resident(),
        family=anatomy.family,
        n_layer=anatomy.n_layer,
        n_head=anatomy.n_head,
        width=anatomy.n_embd,
        vocab_size=anatomy.vocab_size,
        context=anatomy.context,
        refusals={name: reason for name, reason in asdict(anatomy.refusals).items() if reason},
    )


def about_live(reference: LiveRun, progress: Progress = quiet) -> About:
    """Describes a live run from its folder: one that fine-tunes by its base, another once it has made its tokenizer.

    A worker that reads its text is waited for. LabError when the run ends before that, or its base is not here.
    Cancelled when `progress` says so.
    """
    run = reference.run
    if is_fine_tuned(run):  # a base has its tokenizer
        return About(**_of_live(reference), **_of_base(base_of(run)), memory_bytes=_resident())
    if is_task(run):
        return About(**_of_live(reference), **_of_task(run.info().settings_as(TaskSettings)), memory_bytes=_resident())
    while not run.tokenizer_json.is_file():
        status = run.status()
        if not status.live:
            raise LabError(f"{run.id} has not begun to train.", f"It is {status.state}.", "Resume it, then look again.")
        progress(status.doing or f"Waiting for {run.id} to begin", 0, 0)
        time.sleep(_POLL_SECONDS)
    settings, vocab_size = run.info().settings_as(PretrainSettings).model, read_tokenizer(run).vocab_size
    return About(**_of_live(reference), **_of_gpt(settings, vocab_size), memory_bytes=_resident())


def _of_live(reference: LiveRun) -> dict[str, Any]:
    run = reference.run
    return {"reference": str(reference), "name": f"{run.id} (live)", "kind": "live", "step": run.status().step}


def _of_gpt(settings: ModelSettings, vocab_size: int) -> dict[str, Any]:
    """The shape of the lab's own GPT."""
    parameters = parameter_count(settings, vocab_size)
    return {
        "parameters": parameters,
        "bytes": parameters * _FLOAT,
        "family": "scratch GPT",
        "n_layer": settings.n_layer,
        "n_head": settings.n_head,
        "width": settings.n_embd,
        "vocab_size": padded_vocab_size(settings, vocab_size),
        "context": settings.block_size,
    }


def _of_task(settings: TaskSettings) -> dict[str, Any]:
    """The shape of a GPT that learns a task. LabError for another model: the panels look at attention."""
    model = settings.model
    if model.kind != TRANSFORMER:
        raise LabError(f"A model of the kind {model.kind} cannot be looked into.", "It has no attention.")
    shape = shape_of(model, settings.time)
    about = _of_gpt(shape, task_of(settings.data).layout.vocab_size)
    if not model.feed_forward:
        missing = sum(inside * outside for attention, inside, outside in block_layers(shape) if not attention)
        about["parameters"] -= model.n_layer * missing
        about["bytes"] -= model.n_layer * missing * _FLOAT
    return about


def _of_base(base: Reference) -> dict[str, Any]:
    """The shape of a model that is not opened, from its settings and the headers of its files."""
    file: str | None = None
    match base:
        case SavedRun() if is_fine_tuned(base.run):
            return _of_base(base_of(base.run))
        case SavedRun():
            checkpoint = select(base.run.checkpoints, base.which)
            settings, vocab_size = described_model(base.run, checkpoint)
            return _of_gpt(settings, vocab_size)
        case AdaptedModel():
            return _of_base(base.base)
        case LiveRun():
            raise LabError(f"{base} cannot be a base.", "It changes from step to step.")
        case GgufFile(path):
            folder, file, numbers = path.parent, path.name, count_gguf_parameters(path, path.stem)
        case ModelFolder(path):
            folder, numbers = path, count_parameters(path, path.name)
        case HubModel(name):
            folder = hub_snapshot(name)
            numbers = count_parameters(folder, name)
    config = read_config(folder, str(base), file)
    return {"parameters": numbers, "bytes": numbers * _FLOAT, **_from_config(config)}


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


_PANELS = tuple(Refusals.__dataclass_fields__)


def _from_config(config: Any) -> dict[str, Any]:
    """The shape as transformers' settings give it, 0 where a family calls it otherwise."""

    def number(*names: str) -> int:
        return next((value for name in names if isinstance(value := getattr(config, name, None), int)), 0)

    return {
        "family": str(getattr(config, "model_type", "unknown")),
        "n_layer": number("num_hidden_layers", "n_layer"),
        "n_head": number("num_attention_heads", "n_head"),
        "width": number("hidden_size", "n_embd"),
        "vocab_size": number("vocab_size"),
        "context": number("max_position_embeddings", "n_positions"),
    }
