"""Kills a training run many times and checks that it ends bitwise equal to one left alone.

python tests/benchmarks/random_kills.py --kills 200
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from kills import compare_with_kills, small_settings


def main() -> None:
    """Several runs, so that kills fall into short runs again and again, until all kills are spent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--kills-per-run", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--longest", type=float, default=4.0, help="seconds that a worker may live")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        left, seed = arguments.kills, 0
        while left > 0:
            settings = small_settings(arguments.steps, train__seed=seed)
            line = compare_with_kills(
                Path(folder), settings, min(left, arguments.kills_per_run), seed, arguments.longest
            )
            print(f"run {seed}: {line}", flush=True)
            left -= int(line.split()[0])
            seed += 1


if __name__ == "__main__":
    main()
