"""Whether each fault of a mystery changes what its page says, over seeds, and what the reference solver makes of it.

    python tests/benchmarks/mystery_tells.py [OUTPUTS] [--seeds 1 2] [--faults no-mask bf16] [--write FILE.md]

Trains each fault and a healthy twin for each seed, at the size that mysteries have: under a minute each on two free
cores. What is in OUTPUTS already is not trained again, so that it can be stopped. The table has each tell-tale's
reading for the fault, for healthy runs, and the bound between the two.
"""

from __future__ import annotations

import argparse
import math
import sys
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "mysteries"))

from telltales import TELLS, Readings, curves_of, showing, solve

from llmlab.core.config import with_values
from llmlab.core.mystery_settings import MysterySettings
from llmlab.core.paths import outputs_dir
from llmlab.jobs.launcher import create_run, start_worker
from llmlab.mysteries.faults import NOTHING, candidates, faults, seal
from llmlab.mysteries.readings import data_of, measures_of
from llmlab.store.run_folder import RunFolder


def trained(outputs: Path, fault: str, seed: int, changes: dict[str, object]) -> RunFolder:
    """The run of a fault and a seed, finished."""
    run = RunFolder(outputs / MysterySettings.track / f"{fault}-{seed}")
    if not run.run_json.exists():
        settings = with_values(MysterySettings(), {"mystery.token": seal(fault), "train.seed": seed, **changes})
        create_run(outputs, settings, name=run.id)
    if run.status().state != "finished":
        start_worker(run, follow_parent=True).wait()
        if run.status().state != "finished":
            print(f"{run.id} ended as {run.status().state}: {run.recorded_status().error}")
    return run


def read(run: RunFolder) -> Readings:
    """What can be read off it."""
    data = data_of(run)
    return Readings(curves_of(run, data), measures_of(run, data))


def main() -> None:
    """Trains what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", type=Path, nargs="?", default=outputs_dir())
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--faults", nargs="+", default=[name for name in faults() if name != NOTHING])
    parser.add_argument("--threads", type=int, default=0, help="of a run; 0 means all")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of a run, to try it out")
    parser.add_argument("--train", action="store_true", help="train these faults, and read nothing")
    parser.add_argument("--write", type=Path, help="the table as Markdown")
    args = parser.parse_args()
    seeds, names = args.seeds, args.faults
    changes = {"train.threads": args.threads, **dict(words.split("=") for words in args.set)}
    if args.train:
        for name, seed in product(names, seeds):
            trained(args.outputs, name, seed, changes)
        return
    healthy = {seed: read(trained(args.outputs, NOTHING, seed, changes)) for seed in seeds}
    rows, bits = [], []
    for name in names:
        tell, among = TELLS[name], candidates(faults()[name].level)
        broken = {seed: read(trained(args.outputs, name, seed, changes)) for seed in seeds}
        values = [tell.value(broken[seed], healthy[seed]) for seed in seeds]
        # Against the healthy run of another seed: against itself it would be the best that there is.
        others = [tell.value(healthy[seed], healthy[seeds[at - 1]]) for at, seed in enumerate(seeds)]
        shown = [showing(broken[seed], healthy[seed], among) for seed in seeds]
        found = [-math.log2(solve(broken[seed], healthy[seed], among)[name]) for seed in seeds]
        bits += found
        cells = (
            faults()[name].title,
            ", ".join(f"{value:.3g}" for value in values),
            ", ".join(f"{value:.3g}" for value in others),
            f"{'above' if tell.above else 'below'} {tell.bound:g}",
            ", ".join(f"{value:.3f}" for value in (broken[seed].curves.val for seed in seeds)),
            f"{sum(found) / len(found):.2f} of {math.log2(len(among)):.0f}",
        )
        rows.append(cells)
        print(*cells, shown if any(each != [name] for each in shown) else "", sep=" | ", flush=True)
    for level in (1, 2, 3):
        among = candidates(level)
        found = [-math.log2(solve(h, healthy[seeds[at - 1]], among)[NOTHING]) for at, h in enumerate(healthy.values())]
        bits += found
        print(f"nothing broken, level {level}: {sum(found) / len(found):.2f} bits")
    print(f"all: {sum(bits) / len(bits):.2f} bits on average, {max(bits):.2f} at worst")
    if args.write:
        header = ("fault", "tell-tale", "healthy", "shows", "validation loss", "solver's bits, of chance's")
        lines = [header, ("---",) * len(header), *rows]
        args.write.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
