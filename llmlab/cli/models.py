"""`models`, `generate` and `export`: what can be opened, and using what was trained."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from llmlab.cli import text
from llmlab.cli.output import DONE, print_answer, print_json, say, terminal_progress
from llmlab.cli.words import Commands, add_model, add_outputs, outputs_of
from llmlab.core.files import read_json
from llmlab.core.paths import expanded
from llmlab.core.run_settings import SampleSettings
from llmlab.core.setting_info import describe, parse_value
from llmlab.core.settings import Sampling
from llmlab.models.available import ADAPTER_FILE, GGUF_SUFFIX, available_models
from llmlab.models.file_sources import Files
from llmlab.models.reference import Reference, SavedRun, parse
from llmlab.models.source import open_model, source_of
from llmlab.store.checkpoints import checkpoint_name, select


def add_commands(commands: Commands) -> None:
    parser = commands.add("models", models, "list the models that can be opened")
    add_outputs(parser)

    parser = commands.add("generate", generate, "generate text with a model")
    add_model(parser)
    parser.add_argument("--prompt", default="\n", help="text to continue (default: a new line)")
    parser.add_argument(
        "--chat", action="store_true", help="the prompt is a question: answer it in the model's chat form"
    )
    for word, key, metavar in (("tokens", "tokens", "N"), ("temperature", "temperature", "T"), ("top-k", "top_k", "K")):
        parser.add_argument(f"--{word}", metavar=metavar, help=f"default: the run's samples.{key}")
    for info in describe(Sampling, "sampling")[2:]:  # after temperature and top-k, of which runs have their own
        word, about = info.name.replace("_", "-"), info.help.rstrip(".")
        parser.add_argument(f"--{word}", metavar="X", help=f"{about[0].lower()}{about[1:]} (default: {info.default:g})")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="equal seeds write equal texts (default: 0)")

    parser = commands.add("export", export, "export a trained model for other programs")
    add_model(parser)
    parser.add_argument("--to", choices=("hf", "adapter", "gguf"), default="hf", help="what to write (default: hf)")
    parser.add_argument(
        "--precision", choices=("f16", "f32"), default="f16", help="of a GGUF file's matrices (default: f16)"
    )
    parser.add_argument(
        "--out", metavar="PATH", type=Path, required=True, help="a new or empty folder, or a .gguf file"
    )


def models(args: argparse.Namespace) -> int:
    found = available_models(outputs_of(args))
    rows = [(text.printable(model.reference), model.kind, text.printable(model.detail)) for model in found]
    none = ["There are no models here yet. Train one (llmlab-run pretrain), or put some into $LLMLAB_MODELS."]
    return print_answer(
        args, [vars(model) for model in found], text.table(("reference", "kind", ""), rows) if found else none
    )


def generate(args: argparse.Namespace) -> int:
    reference = parse(args.reference, outputs_of(args))
    recorded = reference.run.info().settings.samples if isinstance(reference, SavedRun) else SampleSettings()
    samples = _samples_of(args, recorded)
    sampling = _sampling_of(args, samples)
    from llmlab.models.generation import unread, write  # brings torch

    model = open_model(reference, outputs_of(args))
    if missed := unread(model, args.prompt, chat=args.chat):
        say(f"warning: the prompt is longer than the model's context: it does not see the first {missed:,} tokens.")
    begin = time.perf_counter()
    tokens = write(model, args.prompt, samples.tokens, sampling, seed=args.seed, chat=args.chat)
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
    if not args.chat:
        print(args.prompt, end="", flush=True)
    for token in tokens:
        print(shown(token.text), end="", flush=True)
    print()
    return DONE


def export(args: argparse.Namespace) -> int:
    """Writes a model for other programs: all of it, or nothing."""
    outputs = outputs_of(args)
    reference, out = parse(args.reference, outputs), expanded(args.out).resolve()
    from llmlab.models.export.merge import export as write  # brings torch
    from llmlab.models.export.merge import require_new

    require_new(out, args.to)
    with terminal_progress(not args.json) as progress:
        write(str(reference), outputs, out, args.to, precision=args.precision, progress=progress)
    exported = _exported(reference)
    python = (f"  {line}" for line in _python(args.to, out, outputs))
    lines = (f"{exported['model']} is in {out}. In Python:", *python)
    return print_answer(args, {**exported, "to": args.to, "out": str(out)}, lines)


def _exported(reference: Reference) -> dict[str, str]:
    """What was written; of a run, which checkpoint."""
    if not isinstance(reference, SavedRun):
        return {"model": str(reference)}
    checkpoint = select(reference.run.checkpoints, reference.which)
    return {"model": f"{reference.named}@{checkpoint.step}", "run": reference.run.id, "checkpoint": checkpoint.name}


def _python(to: str, out: Path, outputs: Path) -> list[str]:
    """How other programs open it."""
    if to == "adapter":
        return _python_of_adapter(out, outputs)
    place = _place(out)
    return [f"transformers.{kind}.from_pretrained({place})" for kind in ("AutoModelForCausalLM", "AutoTokenizer")]


def _python_of_adapter(out: Path, outputs: Path) -> list[str]:
    """On its base; one of the lab's own has to be exported as well, where it can be."""
    base = source_of(parse(str((read_json(out / ADAPTER_FILE) or {})["base_model_name_or_path"]), outputs))
    lines = [
        f"model = peft.PeftModel.from_pretrained(base, {str(out)!r})",
        f"model.generation_config = transformers.GenerationConfig.from_pretrained({str(out)!r})",
        f"tokenizer = transformers.AutoTokenizer.from_pretrained({str(out)!r})",
    ]
    if isinstance(base, Files):
        return [f"base = transformers.AutoModelForCausalLM.from_pretrained({_place(Path(str(base)))})", *lines]
    from llmlab.gpt.gpt2_settings import refusal

    own = base.own_settings()
    if own is not None and (why := refusal(own)):
        return [f"# Only the lab opens it, as {base}+{out}: {why}"]
    opened = "base = transformers.AutoModelForCausalLM.from_pretrained('base-hf')"
    return [f"{opened}  # llmlab-run export {base} --to hf --out base-hf", *lines]


def _place(path: Path) -> str:
    return f"{str(path.parent)!r}, gguf_file={path.name!r}" if path.suffix == GGUF_SUFFIX else repr(str(path))


def _run_of(reference: Reference, step: int | None) -> dict[str, str]:
    """Which run and checkpoint wrote, where it was one."""
    if not isinstance(reference, SavedRun) or step is None:
        return {}
    return {"run": reference.run.id, "checkpoint": checkpoint_name(step)}


def _sampling_of(args: argparse.Namespace, samples: SampleSettings) -> Sampling:
    """How tokens are drawn; UsageError for bad values."""
    said = ((info, getattr(args, info.name)) for info in describe(Sampling, "sampling")[2:])
    values = {info.name: info.default if value is None else parse_value(info, value) for info, value in said}
    return Sampling(samples.temperature, samples.top_k, **values)


def _samples_of(args: argparse.Namespace, recorded: SampleSettings) -> SampleSettings:
    """The run's own settings for samples, with what the command line says instead; UsageError for bad values."""
    values = {}
    for info in describe(SampleSettings, "samples"):
        said = getattr(args, info.name, None)
        values[info.name] = getattr(recorded, info.name) if said is None else parse_value(info, said)
    return SampleSettings(**values)
