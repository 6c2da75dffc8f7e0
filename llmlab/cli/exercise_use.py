"""`exercise use`: training with the learner's pieces, and the lab's own run beside it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from llmlab.cli import text
from llmlab.cli.follow import train
from llmlab.cli.output import DONE, print_json, say
from llmlab.cli.progress import make_report
from llmlab.cli.words import assignments_of, outputs_of
from llmlab.core.config import with_overrides
from llmlab.core.presets import DEFAULT_PRESET, of_preset
from llmlab.core.rebuilt_settings import RebuiltSettings
from llmlab.core.settings import PretrainSettings
from llmlab.jobs.rebuilt import Beside, beside, make_ours, make_yours, twin_of
from llmlab.store.history import read_history
from llmlab.store.run_folder import RunFolder


def use(args: argparse.Namespace) -> int:
    """Trains with the pieces named, or with all that have passed; then the lab's own run, unless it is there."""
    preset = args.preset or DEFAULT_PRESET
    settings = with_overrides(of_preset(PretrainSettings, preset), None, assignments_of(args))
    yours = make_yours(outputs_of(args), args.names, settings, name=args.name, preset=preset)
    names = yours.info().settings_as(RebuiltSettings).pieces.yours
    say(f"Training with your {', '.join(names)}. Copies are in {yours.path / 'pieces'}.")
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
    if args.json:
        print_json({"yours": yours.id, "ours": ours.id, **vars(found)})
    else:
        for line in _lines(yours, ours, found):
            print(line)
    return DONE


def _lines(yours: RunFolder, ours: RunFolder, found: Beside) -> Iterator[str]:
    yield ""
    rows = [
        (f"{step:,}", f"{mine:.4f}", f"{theirs:.4f}", f"{mine - theirs:+.4f}") for step, mine, theirs in found.losses
    ]
    yield from text.table(("step", f"yours ({yours.id})", f"ours ({ours.id})", "difference"), rows)
    if found.our_speed:
        share = found.your_speed / found.our_speed
        yield f"Speed: yours {found.your_speed:,.0f} tokens/s, ours {found.our_speed:,.0f}: {share:.2f} times as fast."
