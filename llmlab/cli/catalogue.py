"""`corpora`, `presets` and `settings`: what there is to choose from."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llmlab.cli import text
from llmlab.cli.output import print_answer, say, terminal_progress
from llmlab.cli.words import Commands
from llmlab.core.config import to_mapping, with_values
from llmlab.core.errors import UsageError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.kinds import FINETUNING, PRETRAINING
from llmlab.core.paths import outputs_dir
from llmlab.core.presets import DEFAULT_PRESET, FINETUNE_PRESET, Preset, of_preset, preset_names, presets_of
from llmlab.core.run_settings import RunSettings
from llmlab.core.setting_info import SettingInfo, describe
from llmlab.core.settings import PretrainSettings
from llmlab.core.signs import count_text
from llmlab.gpt.estimate import estimate_pretraining
from llmlab.training.kinds import kind_of

if TYPE_CHECKING:
    from llmlab.data.corpus import Corpus

# The bpe of a corpus that is built is learned from its first 20 million tokens, about 90 MB: more changes little.
_LEARNED_FROM = 20_000_000


def add_commands(commands: Commands) -> None:
    parser = commands.add("corpora", corpora, "list the texts to learn from, fetch or build one")
    parser.add_argument("action", nargs="?", default="list", choices=("list", "fetch", "build"))
    parser.add_argument("name", nargs="?", metavar="NAME|SOURCE", help="the corpus to fetch, or the text to build from")
    parser.add_argument("--shards", action="store_true", help="build: write shards (the default)")
    parser.add_argument("--name", dest="built", metavar="N", help="build: the corpus's name (default: the source's)")
    parser.add_argument(
        "--tokenizer", choices=("gpt2", "bpe"), default="gpt2", help="build: gpt2, or bpe learned from the text's start"
    )
    parser.add_argument("--vocab-size", metavar="N", type=int, help="build: tokens that bpe learns (default: 2048)")
    parser.add_argument(
        "--field", metavar="F", default="text", help="build: the field that holds the text (default: text)"
    )
    parser.add_argument("--processes", metavar="P", type=int, default=0, help="build: default, one per core")
    commands.add("presets", presets, "list the presets: model sizes with all their settings")
    parser = commands.add("settings", settings, "list every setting: value, range, meaning")
    parser.add_argument("--preset", metavar="NAME", help="show this preset's values instead of the defaults")
    parser.add_argument("--finetune", action="store_true", help="the settings of fine-tuning instead of pretraining")


def corpora(args: argparse.Namespace) -> int:
    if args.action == "fetch":
        return _fetch(args)
    if args.action == "build":
        return _build(args)
    from llmlab.data import corpora as registry  # brings numpy, which `--help` should not wait for

    every = registry.corpora()
    header = ("corpus", "size", "here", "licence", "what it is")
    rows = [
        (
            corpus.name,
            text.size(corpus.bytes) if corpus.bytes else "endless",
            "yes" if corpus.here() else "fetch",
            corpus.licence,
            corpus.description,
        )
        for corpus in every
    ]
    return print_answer(args, [_corpus_dict(corpus) for corpus in every], text.table(header, rows, right=(1,)))


def presets(args: argparse.Namespace) -> int:
    every, fine_tuned = presets_of(PretrainSettings), presets_of(FinetuneSettings)
    values = []
    for preset in every:
        needed, minutes = estimate_pretraining(preset.settings), _whole_minutes(preset.settings)
        values.append(_preset_dict(preset, PRETRAINING, minutes) | {"estimate": asdict(needed) | {"minutes": minutes}})
    values += [_preset_dict(preset, FINETUNING, preset.minutes) for preset in fine_tuned]
    return print_answer(args, values, _preset_lines(every, fine_tuned))


def _whole_minutes(settings: PretrainSettings) -> float:
    """Of a run as a command trains it, on all cores: its start, steps and evaluations."""
    return kind_of(settings).seconds(settings, outputs_dir()) / 60


def _preset_lines(every: list[Preset[PretrainSettings]], fine_tuned: list[Preset[FinetuneSettings]]) -> Iterator[str]:
    rows = []
    for preset in every:
        needed, model = estimate_pretraining(preset.settings), preset.settings.model
        shape = f"{model.n_layer} x {model.n_embd}, {model.n_head} heads, context {model.block_size}"
        time = _minutes(_whole_minutes(preset.settings))
        numbers = (count_text(needed.parameters), shape, text.size(needed.memory_bytes), time)
        rows.append((preset.name, *numbers, preset.description))
    yield from text.table(("preset", "parameters", "shape", "memory", "time", "what it is"), rows, right=(1, 3, 4))
    yield ""
    fine_tuned_rows = [
        (preset.name, preset.settings.model.method, preset.settings.model.base or "(yours)", preset.description)
        for preset in fine_tuned
    ]
    yield from text.table(("to fine-tune", "method", "base", "what it is"), fine_tuned_rows)


def settings(args: argparse.Namespace) -> int:
    values = _values(args)
    every = list(describe(type(values)))
    return print_answer(args, [_setting_dict(info, values) for info in every], _setting_lines(args, values, every))


def _setting_lines(args: argparse.Namespace, values: RunSettings, every: list[SettingInfo]) -> Iterator[str]:
    rows = [(info.key, text.value(_value(info, values)), info.range_text, _meaning(info)) for info in every]
    shown = "default" if args.preset is None else args.preset
    yield from text.table(("setting", shown, "takes", "meaning"), rows)
    if args.preset is None:
        command, preset = ("finetune", FINETUNE_PRESET) if args.finetune else ("pretrain", DEFAULT_PRESET)
        yield f"\nA preset changes some of these; without one, {command} uses {preset}'s:"
        yield f"  llmlab-run settings --preset {preset}"


def _values(args: argparse.Namespace) -> RunSettings:
    """Those of a preset of either kind, or the defaults."""
    if args.preset is None:
        return FinetuneSettings() if args.finetune else PretrainSettings()
    fine_tunes = args.finetune or args.preset in preset_names(FinetuneSettings)
    return of_preset(FinetuneSettings if fine_tunes else PretrainSettings, args.preset)


def _fetch(args: argparse.Namespace) -> int:
    from llmlab.data import corpora as registry

    if args.name is None:
        names = [corpus.name for corpus in registry.corpora() if corpus.kind == "fetched"]
        raise UsageError("Which corpus should be fetched?", "", f"One of: {', '.join(names)}.")
    corpus = registry.find_corpus(args.name)
    if corpus.here():
        say(f"{corpus.name} is already here.")
    else:
        say(f"Fetching {corpus.title}: {text.size(corpus.bytes)}, {corpus.licence}, from {corpus.origin}")
        with terminal_progress() as progress:
            registry.fetch(corpus, progress)
        say(f"{corpus.name} is here.")
    return print_answer(args, _corpus_dict(corpus), ())


def _build(args: argparse.Namespace) -> int:
    """Tokenizes a text into shards, or goes on with that."""
    if args.name is None:
        raise UsageError(
            "What should the corpus be built from?", "", "Name a file, a folder, or owner/name of the hub."
        )
    from llmlab.data import corpora as registry
    from llmlab.data.build_tokenizer import build_tokenizer
    from llmlab.data.shard_build import build_shards, pinned
    from llmlab.data.shard_sources import shard_source

    begin = time.monotonic()
    with terminal_progress() as progress:
        source = shard_source(args.name, args.field, progress)
        name = args.built or re.sub(r"[^\w.-]+", "-", source.title.partition(".")[0]).strip("-")
        if any(corpus.name == name and corpus.kind != "built" for corpus in registry.corpora()):
            raise UsageError(f"There is already a corpus named {name}.", "", "Choose another --name.")
        if args.vocab_size is not None and args.tokenizer != "bpe":
            raise UsageError(
                f"{args.tokenizer} has a vocabulary of its own.", "--vocab-size is for bpe.", "Add --tokenizer bpe."
            )
        values = {"data.tokenizer": args.tokenizer, "data.max_tokens": _LEARNED_FROM}
        if args.vocab_size is not None:
            values["data.bpe_vocab_size"] = args.vocab_size
        source = pinned(source, name)
        tokenizer = build_tokenizer(with_values(PretrainSettings(), values).data, source, progress)
        try:
            corpus = build_shards(source, name, tokenizer, progress, processes=args.processes)
        except KeyboardInterrupt:
            say("Finished shards are kept: the same command resumes after them.")
            raise
    tokens, seconds = corpus.manifest.tokens, time.monotonic() - begin
    values = asdict(corpus.manifest) | {"tokens": tokens, "documents": corpus.manifest.documents}
    chosen = f"--corpus {name} --set data.tokenizer={args.tokenizer}"
    if args.vocab_size is not None:
        chosen += f" --set data.bpe_vocab_size={args.vocab_size}"
    lines = [
        f"{name}: {text.counted(tokens, 'token')} of {text.counted(corpus.manifest.documents, 'document')} in "
        f"{text.counted(len(corpus.manifest.shards), 'shard')}, after {text.duration(seconds)}, in {corpus.folder}",
        f"  llmlab-run pretrain {chosen}",
    ]
    return print_answer(args, _corpus_dict(corpus) | {"folder": str(corpus.folder)} | values, lines)


def _corpus_dict(corpus: Corpus) -> dict[str, Any]:
    names = ("name", "title", "description", "kind", "licence", "origin", "bytes")
    return {name: getattr(corpus, name) for name in names} | {"here": corpus.here()}


def _setting_dict(info: SettingInfo, values: RunSettings) -> dict[str, Any]:
    named = {"key": info.key, "type": info.kind.__name__, "value": _value(info, values), "default": info.default}
    names = ("low", "high", "choices", "unit", "help", "advanced", "exact")
    return named | {name: getattr(info, name) for name in names}


def _preset_dict(preset: Preset[Any], track: str, minutes: float) -> dict[str, Any]:
    about = {"name": preset.name, "title": preset.title, "description": preset.description, "minutes": minutes}
    return about | {"track": track, "settings": to_mapping(preset.settings)}


def _value(info: SettingInfo, values: RunSettings) -> Any:
    return getattr(getattr(values, info.section), info.name)


def _meaning(info: SettingInfo) -> str:
    return f"{info.help} [{info.unit}]" if info.unit else info.help


def _minutes(minutes: float) -> str:
    if minutes < 90:
        return f"{minutes:.2g} min"
    years = minutes / 60 / 24 / 365
    return f"{minutes / 60:.0f} h" if years < 1 else f"{years:.0f} years"
