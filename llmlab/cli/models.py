"""`models`, `generate` and `export`: what can be opened, and using what was trained."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
import uuid
from pathlib import Path

from llmlab.cli import text
from llmlab.cli.output import DONE, print_json
from llmlab.cli.words import Commands, add_outputs, add_run, outputs_of
from llmlab.config import describe, parse_value
from llmlab.errors import LabError, UsageError
from llmlab.paths import expanded
from llmlab.runs.checkpoints import Checkpoint, checkpoint_name
from llmlab.runs.folder import RunFolder
from llmlab.runs.registry import resolve_run
from llmlab.sessions.available import available_models
from llmlab.sessions.reference import Reference, SavedRun, parse
from llmlab.settings import SampleSettings

_GENERATE_DETAILS = """REF is a run (bar, bar@final, bar@best, bar@150, or its folder; alone, its latest checkpoint), a
Hugging Face folder or hub name, a GGUF file, or BASE+ADAPTER. At temperature 0 it always takes the likeliest token.

examples:
  llmlab-run generate bar --prompt "The king"
  llmlab-run generate bar@final --prompt "The king" --tokens 24 --temperature 0
  llmlab-run generate bar@500 --prompt "ROMEO:" --temperature 0.9 --top-k 40 --seed 7 --json
  llmlab-run generate my-model/ --prompt "The capital of France is" --tokens 5"""

_EXPORT_DETAILS = """hf writes a folder that transformers' AutoModelForCausalLM and AutoTokenizer open. The model must
be a GPT-2 in its settings: LayerNorm, learned positions, GELU, full heads.

examples:
  llmlab-run export bar --to hf --out bar-hf
  llmlab-run export bar@500 --to hf --out bar-500"""


_MODELS_DETAILS = """Runs with their checkpoints, folders and GGUF files in $LLMLAB_MODELS, exported folders in the
outputs folder, models in the Hugging Face cache, and those of installed packages. The first column is what other
commands take as REF.

examples:
  llmlab-run models
  LLMLAB_MODELS=~/models llmlab-run models --json"""


def add_commands(commands: Commands) -> None:
    """Adds the commands."""
    parser = commands.add("models", models, "list the models that can be opened", _MODELS_DETAILS)
    add_outputs(parser)

    parser = commands.add("generate", generate, "let a model write", _GENERATE_DETAILS)
    parser.add_argument("reference", metavar="REF", help="a run or a model; see below")
    add_outputs(parser)
    parser.add_argument("--prompt", default="\n", help="text to continue (default: a new line)")
    for word, key, metavar in (("tokens", "tokens", "N"), ("temperature", "temperature", "T"), ("top-k", "top_k", "K")):
        parser.add_argument(f"--{word}", metavar=metavar, help=f"default: the run's samples.{key}")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="equal seeds write equal texts (default: 0)")

    parser = commands.add("export", export, "write a trained model for other programs", _EXPORT_DETAILS)
    add_run(parser, checkpoint=True)
    parser.add_argument("--to", choices=("hf",), default="hf", help="hf: a Hugging Face folder")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="a new or empty folder")


def models(args: argparse.Namespace) -> int:
    """Prints what is here."""
    found = available_models(outputs_of(args))
    if args.json:
        print_json([vars(model) for model in found])
    elif not found:
        print("There are no models here yet. Train one (llmlab-run pretrain), or put some into $LLMLAB_MODELS.")
    else:
        rows = [(text.printable(model.reference), model.kind, text.printable(model.detail)) for model in found]
        for line in text.table(("reference", "kind", ""), rows):
            print(line)
    return DONE


def generate(args: argparse.Namespace) -> int:
    """Writes with a checkpoint, token by token."""
    reference = parse(args.reference, outputs_of(args))
    recorded = reference.run.info().settings.samples if isinstance(reference, SavedRun) else SampleSettings()
    samples = _samples_of(args, recorded)
    from llmlab.sessions.open import open_model  # these bring torch
    from llmlab.sessions.writing import write

    model = open_model(reference, outputs_of(args))
    begin = time.perf_counter()
    tokens = write(
        model, args.prompt, samples.tokens, temperature=samples.temperature, top_k=samples.top_k, seed=args.seed
    )
    if args.json:
        written = list(tokens)
        print_json(
            {
                **_run_of(reference, model.step),
                "model": model.reference,
                "prompt": args.prompt,
                "text": "".join(token.text for token in written),
                "tokens": [{"text": token.text, "probability": token.probability} for token in written],
                "seconds": time.perf_counter() - begin,
            }
        )
        return DONE
    shown = text.printable if sys.stdout.isatty() else str
    print(args.prompt, end="", flush=True)
    for token in tokens:
        print(shown(token.text), end="", flush=True)
    print()
    return DONE


def export(args: argparse.Namespace) -> int:
    """Writes a checkpoint for transformers: all of the folder, or nothing."""
    run, checkpoint = _checkpoint_of(args)
    out = expanded(args.out).resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already.", "An export never overwrites.", "Choose another --out folder.")
    from transformers.utils import logging  # these bring torch and transformers

    from llmlab.corpora.tokenizers import save_hf_tokenizer
    from llmlab.gpt.hf import save_hf
    from llmlab.sessions.scratch import load_checkpoint, read_tokenizer

    logging.disable_progress_bar()
    model, tokenizer = load_checkpoint(run, checkpoint), read_tokenizer(run)
    staging = out.with_name(f".tmp-{out.name}-{uuid.uuid4().hex[:8]}")
    try:
        staging.mkdir(parents=True)
        save_hf(model, staging)
        save_hf_tokenizer(tokenizer, staging)
        if out.exists():
            out.rmdir()
        os.replace(staging, out)
    except OSError as error:
        raise LabError(f"The export could not be written to {out}.", f"{error}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if args.json:
        print_json({"run": run.id, "checkpoint": checkpoint.name, "to": args.to, "out": str(out)})
    else:
        print(f"{run.id}@{checkpoint.step} is in {out}. In Python:")
        print(f"  transformers.AutoModelForCausalLM.from_pretrained({str(out)!r})")
        print(f"  transformers.AutoTokenizer.from_pretrained({str(out)!r})")
    return DONE


def _checkpoint_of(args: argparse.Namespace) -> tuple[RunFolder, Checkpoint]:
    reference = resolve_run(args.run, outputs_of(args))
    return reference.run, reference.checkpoint()


def _run_of(reference: Reference, step: int | None) -> dict[str, str]:
    """Which run and checkpoint wrote, where it was one."""
    if not isinstance(reference, SavedRun) or step is None:
        return {}
    return {"run": reference.run.id, "checkpoint": checkpoint_name(step)}


def _samples_of(args: argparse.Namespace, recorded: SampleSettings) -> SampleSettings:
    """The run's own settings for samples, with what the command line says instead; UsageError for bad values."""
    values = {}
    for info in describe(SampleSettings, "samples"):
        said = getattr(args, info.name, None)
        values[info.name] = getattr(recorded, info.name) if said is None else parse_value(info, said)
    return SampleSettings(**values)
