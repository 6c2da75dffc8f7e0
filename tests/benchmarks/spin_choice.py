"""How near the spin that the lab chooses comes to the best fixed one, on a quiet machine and beside a busy process.

    python tests/benchmarks/spin_choice.py [--neighbours 0 1] [--rounds 2] [--seconds 5] [--spins 300000 10000 1000]

Runs of the preset `baby` as the window and the command line start them, the ways in turn, each round in another
order: `chosen` (`llmlab.training.thread_spin`), and GOMP_SPINCOUNT fixed. Bar: on a quiet machine 97 % of the best
way. The defaults take about three minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from training_speed import COMMON, WARM_UP, events_of, neighbours

from llmlab.core.config import with_values
from llmlab.core.presets import of_preset
from llmlab.core.settings import PretrainSettings
from llmlab.jobs.launcher import create_run, request, start_worker

CHOSEN = "chosen"
BAR = 0.97


def main() -> int:
    """Prints each run, then a table for each number of neighbours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--neighbours", type=int, nargs="+", default=[0, 1], help="other processes that use a core each"
    )
    parser.add_argument("--spins", nargs="+", default=["300000", "10000", "1000"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="that each run trains after its first steps")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    wanted = COMMON | {"train.steps": 100_000, "train.threads": arguments.threads}
    settings = with_values(of_preset(PretrainSettings, "baby"), wanted)
    sys.stdout.reconfigure(line_buffering=True)  # each case as it comes, in a file, too
    missed = False
    for count in arguments.neighbours:
        steps: dict[str, list[float]] = {way: [] for way in (CHOSEN, *arguments.spins)}
        for number in range(arguments.rounds):
            ways = list(steps)
            for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                fixed = {} if way == CHOSEN else {"GOMP_SPINCOUNT": way}
                with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, fixed), neighbours(count):
                    steps[way].append(_seconds_a_step(Path(folder), settings, arguments.seconds))
                print(f"{count} neighbours, round {number + 1}: {way:>7}  {1e3 * steps[way][-1]:.1f} ms a step")
        best = min(statistics.median(seconds) for seconds in steps.values())
        print(f"{count} neighbours: ms a step, the median of {arguments.rounds} runs (all of them)")
        for way, seconds in steps.items():
            share = best / statistics.median(seconds)
            listed = ", ".join(f"{1e3 * one:.1f}" for one in seconds)
            print(f"  {way:>7}  {1e3 * statistics.median(seconds):6.1f}  {100 * share:4.0f} % of the best  ({listed})")
            missed |= count == 0 and way == CHOSEN and share < BAR
    print(f"bar: {100 * BAR:.0f} % on a quiet machine: {'MISSED' if missed else 'met'}")
    return missed


def _seconds_a_step(folder: Path, settings: PretrainSettings, seconds: float) -> float:
    """The median of a run that is stopped after `seconds`: where threads wait for a core that others spin on, a step
    takes twenty times as long."""
    run = create_run(folder, settings, name="ours")
    worker = start_worker(run)
    while run.status().live and run.recorded_status().step <= WARM_UP + 1:
        time.sleep(0.2)
    time.sleep(seconds)
    request(run, "stop")
    assert worker.wait() == 0, run.log.read_text()[-2000:]
    steps = events_of(run, "step")[WARM_UP:]
    return statistics.median(after["time"] - before["time"] for before, after in itertools.pairwise(steps))


if __name__ == "__main__":
    sys.exit(main())
