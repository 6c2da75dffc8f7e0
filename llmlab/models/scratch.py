"""Opening a checkpoint of a run: the lab's own GPT and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import safetensors
import safetensors.torch
from torch import nn

from llmlab.core.errors import LabError, brief
from llmlab.core.files import read_json
from llmlab.core.memory import require_memory
from llmlab.core.progress import Progress, quiet
from llmlab.core.task_settings import TaskSettings
from llmlab.data.synthetic.known_tasks import task_of
from llmlab.data.synthetic.tasks import Task, TaskTokenizer
from llmlab.data.tokenizers import TextTokenizer, Tokenizer, tokenizer_from_json
from llmlab.gpt.model import GPT
from llmlab.gpt.shapes import parameter_count
from llmlab.models.base_shape import described_model
from llmlab.models.model import OpenModel, require_finite
from llmlab.models.task_models import make_model
from llmlab.store.checkpoints import MODEL_FILE, Checkpoint, require_whole
from llmlab.store.run_folder import RunFolder

_FLOAT = 4  # bytes of a weight


def open_checkpoint(
    run: RunFolder,
    checkpoint: Checkpoint,
    named: str | None = None,
    progress: Progress = quiet,
    *,
    with_bytes: int = 0,
    rebuild: Callable[[GPT], None] | None = None,
) -> OpenModel:
    """Loads a checkpoint on the CPU. named: how the run is called in the reference; its id if not given. rebuild: makes
    of a fresh GPT the one that was trained, where that is another.

    LabError when it or its run is damaged, or when it does not fit into memory.
    """
    what = f"{run.id}@{checkpoint.step}"
    progress(f"Checking {what}", 0, 3)
    require_whole(checkpoint, what)
    tokenizer = read_tokenizer(run)
    settings, vocab_size = described_model(run, checkpoint)
    size = parameter_count(settings, vocab_size) * _FLOAT
    if tokenizer.key() != checkpoint.about.get("tokenizer"):
        why = f"{run.tokenizer_json.name} is not the tokenizer that it was trained with."
        raise LabError(f"{what} cannot be opened.", why)
    require_memory(2 * size + with_bytes, what)  # the file's weights and the model's, for a moment
    progress("Loading the weights", 1, 3)
    model = GPT(settings, vocab_size)
    if rebuild is not None:
        rebuild(model)
    load_weights(checkpoint.path, model)
    require_finite(model, what)
    progress("Loading the weights", 3, 3)
    return _opened(run, checkpoint, named, model.eval(), tokenizer)


def read_tokenizer(run: RunFolder) -> Tokenizer:
    """A run's own tokenizer. LabError when it is missing or damaged."""
    values = read_json(run.tokenizer_json)
    if values is None:
        raise LabError(f"The tokenizer of {run.id} is missing or damaged.", f"It should be {run.tokenizer_json}.")
    return tokenizer_from_json(values)


def text_tokenizer(run: RunFolder) -> TextTokenizer:
    """What a run from scratch reads text with: its own tokenizer, or its task's words. LabError as `read_tokenizer`."""
    return TaskTokenizer(task_of(run.info().settings_as(TaskSettings).data)) if run.on_task else read_tokenizer(run)


def open_task_checkpoint(run: RunFolder, checkpoint: Checkpoint, named: str) -> OpenModel:
    """The same of a run that learns a task; its tokenizer reads the task's own words. LabError as `open_checkpoint`."""
    model, task = open_task(run, checkpoint)
    return _opened(run, checkpoint, named, model, TaskTokenizer(task))


def _opened(
    run: RunFolder, checkpoint: Checkpoint, named: str | None, model: nn.Module, tokenizer: TextTokenizer
) -> OpenModel:
    return OpenModel(
        reference=f"{named or run.id}@{checkpoint.step}",
        name=f"{run.id}, step {checkpoint.step:,}",
        kind="scratch",
        model=model,
        tokenizer=tokenizer,
        step=checkpoint.step,
    )


def open_task(run: RunFolder, checkpoint: Checkpoint) -> tuple[nn.Module, Task]:
    """A checkpoint's model in eval mode, on the CPU, and its task. LabError when either is damaged."""
    settings = run.info().settings_as(TaskSettings)
    require_whole(checkpoint, f"{run.id}@{checkpoint.step}")
    task = task_of(settings.data)
    model = make_model(settings.model, task.layout)
    load_weights(checkpoint.path, model)
    return model.eval(), task


def load_weights(folder: Path, model: nn.Module) -> None:
    """Fills `model` from model.safetensors. LabError when the file does not fit it."""
    path = folder / MODEL_FILE
    try:
        weights = safetensors.torch.load_file(path)
        model.load_state_dict(weights)
    except (safetensors.SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise LabError(
            f"The weights of {folder.name} do not fit this model or are damaged.",
            brief(error),
            "Choose another checkpoint.",
        ) from error
