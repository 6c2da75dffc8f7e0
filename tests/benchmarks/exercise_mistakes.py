"""What `llmlab-run exercise check` says of code that is right, and of every listed mistake.

    python tests/benchmarks/exercise_mistakes.py [PIECE ...] [--write FILE.md]

Each piece as a learner would write it (tests/exercises/written_pieces.py) is checked by the command itself; each listed
mistake by the same steps in this process, in place of its function: the step that catches it, whether it is named, and
the first fact that does not hold. The table has one row for each piece.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "exercises"))

from written_pieces import WRITTEN

from llmlab.core.paths import module_command
from llmlab.exercises.checking import Wrong, load_parts, steps_of, take
from llmlab.exercises.parts import Mistake, Part
from llmlab.exercises.pieces import Piece, Workbook, all_pieces, find_piece


def checked(piece: Piece, outputs: Path) -> tuple[int, int]:
    """How many steps the written piece passes, and of how many, by the command."""
    file = Workbook(outputs).file(piece)
    file.parent.mkdir(exist_ok=True)
    file.write_text(WRITTEN[piece.name], encoding="utf-8")
    command = [*module_command("llmlab"), "exercise", "check", piece.name, "--json", "--outputs", str(outputs)]
    steps = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)["steps"]
    return sum(step["state"] == "passed" for step in steps), len(steps)


def caught(parts: tuple[Part, ...], part: Part, mistake: Mistake) -> tuple[str, str, str]:
    """The step that catches a mistake, the name that it is given, and the fact; "" for each where none does."""
    functions = {one.name: one.right for one in parts} | {part.name: mistake.function}
    for step in steps_of(parts):
        if step.name == "speed":  # wrong is not slow
            continue
        try:
            take(step, parts, functions, Path("yours.py"))
        except Wrong as wrong:
            return step.name, wrong.mistake.name if wrong.mistake else "", str(wrong)
    return "", "", ""


def main() -> None:
    """Prints a line for each mistake, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pieces", nargs="*", default=[piece.name for piece in all_pieces()])
    parser.add_argument("--write", type=Path, help="the table as Markdown")
    args = parser.parse_args()
    rows = [("piece", "written from its page", "mistakes", "named", "caught at"), ("---",) * 5]
    with tempfile.TemporaryDirectory() as outputs:
        for piece in map(find_piece, args.pieces):
            passed, of = checked(piece, Path(outputs))
            parts, at, named = load_parts(piece.folder), Counter[str](), 0
            for part in parts:
                for mistake in part.mistakes:
                    step, name, fact = caught(parts, part, mistake)
                    at[step], named = at[step] + 1, named + (name == mistake.name)
                    print(piece.name, part.name, mistake.name, step, name == mistake.name, fact, sep=" | ")
            where = ", ".join(f"{step} {count}" for step, count in at.most_common())
            rows.append((piece.name, f"{passed} of {of} steps", f"{at.total()}", f"{named}", where))
            print("=", *rows[-1], sep=" | ", flush=True)
    if args.write:
        args.write.write_text("".join(f"| {' | '.join(row)} |\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
