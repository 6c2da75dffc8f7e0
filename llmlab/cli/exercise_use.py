"""`exercise use`: runs with the learner's pieces, and the lab's own beside them; their lens and LoRA on a model."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmlab.cli import text
from llmlab.cli.follow import train
from llmlab.cli.output import DONE, answer, say, terminal_progress
from llmlab.cli.progress import make_report
from llmlab.cli.words import assignments_of, finetuning_assignments_of, outputs_of
from llmlab.core.config import with_overrides
from llmlab.core.errors import UsageError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.presets import default_preset, of_preset
from llmlab.core.progress import Progress
from llmlab.core.settings import PretrainSettings
from llmlab.exercises.pieces import Workbook, find_piece
from llmlab.exercises.rebuilding import LENS, LORA, ON_A_MODEL, require_passed
from llmlab.jobs.rebuilt import Beside, beside, make_ours, make_yours, twin_of
from llmlab.models.reference import Reference, parse
from llmlab.store.history import read_history
from llmlab.store.run_folder import RunFolder

if TYPE_CHECKING:
    from llmlab.exercises.functions import Functions
    from llmlab.models.model import OpenModel


def use(args: argparse.Namespace) -> int:
    """Trains with the pieces named, or with all that have passed; then the lab's own run, unless it is there."""
    alone = args.names[0] if len(args.names) == 1 and args.names[0] in ON_A_MODEL else ""
    if alone == LENS or (alone == LORA and args.prompt):
        return _on_a_model(args, alone)
    if not alone and (args.model or args.prompt):
        words = " or ".join(ON_A_MODEL)
        raise UsageError(f"--model and --prompt belong to {words}, used alone.", "", "Leave them out.")
    kind: type[PretrainSettings] | type[FinetuneSettings] = FinetuneSettings if alone else PretrainSettings
    preset = args.preset or default_preset(kind)
    assignments = finetuning_assignments_of(args) if alone else assignments_of(args)
    settings = with_overrides(of_preset(kind, preset), None, assignments)
    yours = make_yours(outputs_of(args), args.names, settings, name=args.name, preset=preset)
    say(f"Training with your {yours.info().settings.words.facts['yours']}. Copies are in {yours.pieces}.")
    code = train(yours, make_report(yours, args.json))
    if code != DONE:
        return code
    ours = twin_of(yours)
    if ours is None:
        say("Now the lab's own run of the same seed.")
        ours = make_ours(yours)
        code = train(ours, make_report(ours, args.json))
        if code != DONE:
            return code
    found = beside(read_history(yours), read_history(ours))
    return answer(args, {"yours": yours.id, "ours": ours.id, **vars(found)}, _lines(yours, ours, found))


def _on_a_model(args: argparse.Namespace, name: str) -> int:
    """The learner's lens or adapters, in this process, which runs their code."""
    if not (args.model and args.prompt):
        do = f'llmlab-run exercise use {name} --model RUN --prompt "The king"'
        raise UsageError(f"{name} is used on a model and a prompt.", "", do)
    workbook, piece = Workbook(outputs_of(args)), find_piece(name)
    require_passed(workbook, name)
    from llmlab.exercises.functions import load_functions  # brings torch

    reference = parse(args.model, outputs_of(args))
    with _printing_aside():
        functions = load_functions(name, workbook.file(piece))
    with terminal_progress(not args.json) as progress:
        return (_lens if name == LENS else _lora)(args, reference, functions, progress)


def _lens(args: argparse.Namespace, reference: Reference, functions: Functions, progress: Progress) -> int:
    from llmlab.exercises.own_lens import lens_beside_ours
    from llmlab.models.source import open_model

    opened = open_model(reference, outputs_of(args), progress)
    with _printing_aside():
        found = lens_beside_ours(opened, opened.tokenizer.encode(args.prompt), functions["logit_lens"])
    rows = [
        (
            str(row.layer),
            f"{_token(opened, row.yours)} {row.your_probability:.4f}",
            f"{_token(opened, row.ours)} {row.our_probability:.4f}",
            f"{row.apart:.1g}",
        )
        for row in found
    ]
    table = text.table(("after layer", "yours", "ours", "largest difference"), rows, right=(0, 3))
    named = [
        vars(row) | {"your_token": _token(opened, row.yours), "our_token": _token(opened, row.ours)} for row in found
    ]
    return answer(args, {"model": opened.reference, "rows": named}, table)


def _lora(args: argparse.Namespace, reference: Reference, functions: Functions, progress: Progress) -> int:
    from llmlab.exercises.own_lora import lora_beside_ours, open_both

    base, fine_tuned, adapters = open_both(reference, progress)
    with _printing_aside():
        found = lora_beside_ours(base, fine_tuned, adapters, fine_tuned.tokenizer.encode(args.prompt), functions)
    rows = [(_token(fine_tuned, id), *(f"{p:.4f}" for p in probabilities)) for id, *probabilities in found.rows]
    lines = [
        *text.table(("next token", "yours", "ours", "without the adapters"), rows, right=(1, 2, 3)),
        f"Your lora computed {found.layers} layers. Probabilities differ by at most {found.apart:.1g}, "
        f"weights of your merged matrices by {found.merged:.1g}.",
    ]
    tokens = [_token(fine_tuned, id) for id, *_ in found.rows]
    return answer(args, {"model": fine_tuned.reference, **vars(found), "tokens": tokens}, lines)


def _printing_aside() -> contextlib.AbstractContextManager[object]:
    """What the learner's code prints is a remark: the answer on stdout may be JSON."""
    return contextlib.redirect_stdout(sys.stderr)


def _token(opened: OpenModel, id: int) -> str:
    return text.printable(repr(opened.tokenizer.token_text(id)))


def _lines(yours: RunFolder, ours: RunFolder, found: Beside) -> Iterator[str]:
    yield ""
    rows = [
        (f"{step:,}", f"{mine:.4f}", f"{theirs:.4f}", f"{mine - theirs:+.4f}") for step, mine, theirs in found.losses
    ]
    yield from text.table(("step", f"yours ({yours.id})", f"ours ({ours.id})", "difference"), rows)
    if found.our_speed:
        share = found.your_speed / found.our_speed
        yield f"Speed: yours {found.your_speed:,.0f} tokens/s, ours {found.our_speed:,.0f}: {share:.2f} times as fast."
