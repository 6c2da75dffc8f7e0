"""`pretrain` and `resume`: training in a terminal."""

from __future__ import annotations

import argparse
import dataclasses

from llmlab.cli.follow import train
from llmlab.cli.new_run import add_new_run, branch_point
from llmlab.cli.output import say
from llmlab.cli.predict import predictions_of, tell_outcomes
from llmlab.cli.progress import make_report
from llmlab.cli.shortages import check_shortages
from llmlab.cli.words import Commands, add_run, add_settings, assignments_of, outputs_of, spoken
from llmlab.core.errors import LabError
from llmlab.core.paths import expanded
from llmlab.core.settings import DEFAULT_PRESET, PretrainSettings, parse_assignments, resolve_settings, with_overrides
from llmlab.gpt.estimate import estimate
from llmlab.jobs.launcher import create_run, prepare_resume
from llmlab.store.checkpoints import Checkpoint
from llmlab.store.registry import resolve_run
from llmlab.store.run_folder import RunFolder

_PRETRAIN_DETAILS = """Settings come from the preset, then from --settings FILE.toml, then from --corpus, --steps and
--seed, then from --set. Ctrl-C stops after the current step and saves; a second one ends at once.

examples:
  llmlab-run pretrain
  llmlab-run pretrain --preset nano --corpus tiny --steps 150 --set train.eval_interval=50 --seed 1 --name bar --json
  llmlab-run pretrain --steps 300 --predict val_loss=1.9..2.2@80%
  llmlab-run pretrain --corpus stories --set data.tokenizer=bpe --set model.position=rotary
  llmlab-run pretrain --from bar@best --steps 400 --set train.learning_rate=3e-4"""

_RESUME_DETAILS = """A resumed run is bit for bit what it would have been without the interruption, unless settings
change; what changes, and what that does to exactness, is said.

examples:
  llmlab-run resume bar
  llmlab-run resume bar --steps 300
  llmlab-run resume outputs/pretraining/bar --set train.eval_interval=100 --json"""


def add_commands(commands: Commands) -> None:
    """Adds both commands."""
    parser = commands.add("pretrain", pretrain, "train a GPT from scratch", _PRETRAIN_DETAILS)
    parser.add_argument("--preset", metavar="NAME", help=f"where to start from (default: {DEFAULT_PRESET})")
    parser.add_argument("--corpus", metavar="NAME|PATH", help="what to read: data.corpus (`llmlab-run corpora`)")
    add_new_run(parser, seeded="weights", learns_from="corpus", parent="run")

    parser = commands.add("resume", resume, "resume a run that ended or was interrupted", _RESUME_DETAILS)
    add_run(parser)
    add_settings(parser)


def pretrain(args: argparse.Namespace) -> int:
    """Makes a run and trains it."""
    outputs = outputs_of(args)
    parent = branch_point(args, outputs)
    preset, chosen = _chosen(args, parent)
    settings = _with_readable_corpus(chosen)
    needed = estimate(settings)
    check_shortages(settings, outputs, needed.memory_bytes, needed.checkpoint_bytes)
    predictions = predictions_of(args)
    run = create_run(outputs, settings, name=args.name, preset=preset, parent=parent, predictions=predictions)
    return train_and_tell(run, args)


def resume(args: argparse.Namespace) -> int:
    """Goes on with a run from its newest checkpoint."""
    run = resolve_run(args.run, outputs_of(args)).run
    status = run.recorded_status()
    if status.live and run.has_worker(status):
        paused = status.state == "paused"
        raise LabError(
            f"{run.id} is being trained already (it is {status.state}).",
            f"Process {status.pid} holds it.",
            f"Ask it: llmlab-run request {spoken(run)} {'resume' if paused else 'stop'}",
        )
    for sentence in prepare_resume(run, parse_assignments(assignments_of(args))):
        say(sentence)
    return train_and_tell(run, args)


def train_and_tell(run: RunFolder, args: argparse.Namespace) -> int:
    """Trains a run to its end; then says what became of what was predicted of it. Returns the exit code."""
    code = train(run, make_report(run, args.json))
    tell_outcomes(run, run.info().created, as_json=args.json)
    return code


def _chosen(args: argparse.Namespace, parent: tuple[RunFolder, Checkpoint] | None) -> tuple[str, PretrainSettings]:
    """The preset's name, and the settings."""
    assignments = assignments_of(args)
    if parent is None:
        preset = args.preset or DEFAULT_PRESET
        return preset, resolve_settings(preset, args.settings, assignments)
    info = parent[0].info()
    return info.preset, with_overrides(info.settings_as(PretrainSettings), args.settings, assignments)


def _with_readable_corpus(settings: PretrainSettings) -> PretrainSettings:
    """Refuses a corpus that is not here before a folder is made for the run; makes a path absolute, so that a later
    resume finds it from anywhere."""
    from llmlab.data.corpora import find_corpus  # brings numpy, which `--help` should not wait for

    corpus = find_corpus(settings.data.corpus)
    if not corpus.here():
        next(corpus.pieces())  # raises the error that says where it comes from, and which file to put where
    if corpus.kind != "yours":
        return settings
    path = expanded(settings.data.corpus).resolve()
    return dataclasses.replace(settings, data=dataclasses.replace(settings.data, corpus=str(path)))
