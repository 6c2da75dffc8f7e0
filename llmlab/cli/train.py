"""`pretrain`, `finetune` and `resume`: training in a terminal."""

from __future__ import annotations

import argparse
import shlex
import shutil
from pathlib import Path
from typing import TypeVar

from llmlab.cli import text
from llmlab.cli import words as options
from llmlab.cli.follow import Interrupts, train
from llmlab.cli.output import DONE, say, terminal_progress
from llmlab.cli.progress import StartTimes, make_report
from llmlab.core.config import parse_assignments, with_overrides, with_values
from llmlab.core.errors import UsageError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.memory import available_bytes
from llmlab.core.presets import DEFAULT_PRESET, FINETUNE_PRESET, of_preset
from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import PretrainSettings
from llmlab.gpt.estimate import estimate_pretraining
from llmlab.jobs.launcher import already_trained, create_run, prepare_resume
from llmlab.models.source import base_named
from llmlab.store.checkpoints import Checkpoint
from llmlab.store.registry import resolve_run
from llmlab.store.run_folder import RunFolder
from llmlab.training.kinds import kind_of
from llmlab.training.room import computes_in_main_memory, crowded, require_room

S = TypeVar("S", bound=RunSettings)


def add_commands(commands: options.Commands) -> None:
    parser = commands.add("pretrain", pretrain, "train a GPT from scratch")
    parser.add_argument("--preset", metavar="NAME", help=f"where to start from (default: {DEFAULT_PRESET})")
    parser.add_argument("--corpus", metavar="NAME|PATH", help="what to read: data.corpus (`llmlab-run corpora`)")
    _add_new_run(parser, seeded="weights", learns_from="corpus", parent="run")

    parser = commands.add("resume", resume, "resume a run that ended or was interrupted")
    options.add_run(parser)
    options.add_take_over(parser)
    options.add_settings(parser)

    about = "fine-tune an existing model: LoRA, QLoRA or all weights"
    parser = commands.add("finetune", finetune, about)
    parser.add_argument("--preset", metavar="NAME", help=f"where to start from (default: {FINETUNE_PRESET})")
    parser.add_argument("--model", metavar="REF", help="the base: model.base (`llmlab-run models` lists what is here)")
    parser.add_argument("--data", metavar="NAME|PATH", help="examples: data.source (tasks, a file, or a hub name)")
    parser.add_argument("--method", metavar="lora|qlora|full", help="model.method")
    _add_new_run(parser, seeded="adapters", learns_from="examples", parent="fine-tuning run")


def _add_new_run(parser: options.Parser, *, seeded: str, learns_from: str, parent: str) -> None:
    """--steps to --outputs. seeded: what --seed is of, besides batches and dropout. learns_from: what --name tells
    by default. parent: the kind of run that --from takes."""
    options.add_settings(parser)
    parser.add_argument("--seed", metavar="N", help=f"seed of {seeded}, batches and dropout: train.seed")
    options.add_settings_file(parser)
    parser.add_argument("--name", help=f"the run's id (default: made from date, preset and {learns_from})")
    parser.add_argument(
        "--from",
        metavar="RUN@WHICH",
        dest="parent",
        help=f"branch: start from a checkpoint of another {parent}, with its settings, as a new run",
    )
    parser.add_argument(
        "--no-start", action="store_true", help="make the run's folder only; `resume`, or torchrun, trains it later"
    )
    options.add_predict(parser)
    options.add_outputs(parser)


def pretrain(args: argparse.Namespace) -> int:
    from llmlab.data.corpora import find_corpus  # brings numpy, which `--help` should not wait for

    outputs = options.outputs_of(args)
    preset, settings, parent = _chosen(args, PretrainSettings, DEFAULT_PRESET, options.assignments_of(args))
    corpus = find_corpus(settings.data.corpus)
    if not corpus.here():
        next(corpus.pieces())  # raises the error that says where it comes from, and which file to put where
    counted = settings
    if parent is not None and settings.train.precision == "auto":  # a branch computes as its parent does
        taken = parent[0].info().precision_on_a_processor
        counted = with_values(settings, {"train.precision": taken or "auto"})
    needed = estimate_pretraining(counted)
    _check_shortages(counted, outputs, needed.memory_bytes, needed.checkpoint_bytes)
    return _make_and_train(args, preset, settings, parent)


def finetune(args: argparse.Namespace) -> int:
    preset, settings, parent = _chosen(args, FinetuneSettings, FINETUNE_PRESET, options.finetuning_assignments_of(args))
    _check_finetuning(settings, options.outputs_of(args))
    return _make_and_train(args, preset, settings, parent)


def resume(args: argparse.Namespace) -> int:
    """Goes on with a run from its newest checkpoint."""
    run = resolve_run(args.run, options.outputs_of(args)).run
    if args.take_over:
        run.take_over()
    status = run.recorded_status()
    if status.live and run.has_worker(status):
        raise already_trained(run, status)
    assignments = options.assignments_of(args)
    changes = prepare_resume(run, parse_assignments(assignments))
    if args.json:  # else the report has them, as the worker finds them changed since its checkpoint
        for sentence in changes:
            say(sentence)
    _tell_unused(assignments, run.info().settings)
    return _train_and_tell(run, args)


def _chosen(
    args: argparse.Namespace, kind: type[S], default: str, assignments: list[str]
) -> tuple[str, S, tuple[RunFolder, Checkpoint] | None]:
    """The preset's name, the settings, and the run and checkpoint of --from; None without it."""
    if args.parent is None:
        preset = args.preset or default
        settings = with_overrides(of_preset(kind, preset), args.settings, assignments)
        _tell_unused(assignments, settings)
        return preset, settings, None
    if args.preset is not None:
        raise UsageError(
            "--preset and --from exclude each other.",
            "A branch keeps the settings of the run that it comes from.",
            "Change single ones with --set.",
        )
    reference = resolve_run(args.parent, options.outputs_of(args))
    info = reference.run.info()
    settings = with_overrides(info.settings_as(kind), args.settings, assignments)
    _tell_unused(assignments, settings)
    return info.preset, settings, (reference.run, reference.checkpoint())


def _tell_unused(assignments: list[str], settings: RunSettings) -> None:
    """Warns of a number of processes that was asked for and is not used."""
    asked = parse_assignments(assignments).get("distributed.processes", "1")
    if settings.distributed.strategy == "none" and asked != "1":
        say("warning: one process trains it: distributed.strategy is none. Set distributed.strategy=ddp for several.")


def _make_and_train(
    args: argparse.Namespace, preset: str, settings: RunSettings, parent: tuple[RunFolder, Checkpoint] | None
) -> int:
    outputs, name, predictions = options.outputs_of(args), args.name, args.predictions
    with Interrupts() as interrupts:
        run = create_run(outputs, settings, name=name, preset=preset, parent=parent, predictions=predictions)
        if not args.no_start:
            return _train_and_tell(run, args, interrupts)
    say(f"Made {run.path}. Train it with: llmlab-run resume {options.spoken(run)}")
    if settings.distributed.strategy != "none":
        by = f"torchrun --standalone --nproc-per-node {settings.distributed.processes} -m llmlab.jobs.worker"
        say(f"Or start its processes with torchrun: {by} {shlex.quote(str(run.path))}")
    return DONE


def _train_and_tell(run: RunFolder, args: argparse.Namespace, listening: Interrupts | None = None) -> int:
    """Trains a run to its end; then says what became of what was predicted of it. Returns the exit code."""
    code = train(run, make_report(run, args.json), StartTimes() if args.debug else None, listening)
    from llmlab.cli.notebook import tell_outcomes  # now that nobody waits for the first step

    tell_outcomes(run, run.info().created, as_json=args.json)
    return code


def _check_finetuning(settings: FinetuneSettings, outputs: Path) -> None:
    """Refuses before anything is made what cannot work: a base that is not here, a rank that it has no room for,
    examples that cannot be read, a backend that is missing. Warns where the machine may be too small."""
    # Only when the command runs: `--help` should not wait for them.
    from llmlab.data.examples import read_source
    from llmlab.training.finetuning.estimate import estimate_finetuning
    from llmlab.training.finetuning.unsloth import require_unsloth

    if base_named(settings.model.base, outputs).is_here:  # the size of another is known once it was downloaded
        needed = estimate_finetuning(settings, outputs)
        _check_shortages(settings, outputs, needed.memory_bytes, needed.checkpoint_bytes)
    if settings.model.backend == "unsloth":
        require_unsloth()
    with terminal_progress() as progress:
        read_source(settings.data.source, progress, settings.data.max_examples)


def _check_shortages(settings: RunSettings, outputs: Path, memory_bytes: int, checkpoint_bytes: int) -> None:
    """Warns on stderr where a run may need more memory or disk than there is. Both numbers are estimates.

    LabError, with what would fit, when its memory cannot suffice.
    """
    if sentence := crowded(settings):
        say(f"warning: {sentence}")
    disk = settings.checkpoints.at_once(settings.train.steps) * checkpoint_bytes
    existing = next(folder for folder in (outputs, *outputs.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if disk > free:
        say(f"warning: its checkpoints may need {text.size(disk)}, and {existing} has {text.size(free)} free.")
    memory = available_bytes()
    if memory_bytes > memory and computes_in_main_memory(settings):
        if (need := kind_of(settings).memory(settings, outputs)) is not None:
            require_room(settings, need, memory, outputs)
        say(f"warning: training may need {text.size(memory_bytes)} of memory, and {text.size(memory)} are free.")
