"""What `inspect`, `intervene`, `compare` and `evolve` share: their words, their files, how they say what was found."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llmlab.cli import text
from llmlab.cli.output import print_answer, terminal_progress
from llmlab.cli.words import Parser, parts_of
from llmlab.core.errors import UsageError, explained
from llmlab.core.files import read_json, write_json
from llmlab.core.paths import expanded

if TYPE_CHECKING:
    from llmlab.inspection.archive import Archive
    from llmlab.inspection.summary import Likely, Summary

S = TypeVar("S", bound="Summary")
# Tokens of a prompt that are printed; all of them are in summary.json.
_MOST_LISTED = 64
# No command writes nothing for so long: after it, its writer is gone.
_LITTER_SECONDS = 6 * 3600.0
_SUMMARY = "summary.json"
# Of `inspect`, `intervene`, `compare` and `evolve`: an answer is one of them, its summary, and the summary's figures.
_ARCHIVES = tuple(f"{name}.safetensors" for name in ("inspection", "intervention", "comparison", "evolution"))


def add_prompt(parser: Parser, *, required: bool = True, help: str = "the text that the model reads") -> None:
    parser.add_argument("--prompt", required=required, default="", help=help)
    said = "put the beginning-of-sequence (BOS) token before it"
    parser.add_argument("--bos", "--beginning", dest="beginning", action="store_true", help=said)


def add_what(parser: Parser, default: str) -> None:
    parser.add_argument(
        "--what", type=parts_of, default=default, help=f"parts, separated by commas (default: {default})"
    )


def add_out(parser: Parser, kept: str) -> None:
    """--top, --plots, --out and --force. kept: of what --top tokens are kept."""
    parser.add_argument("--top", type=int, default=5, help=f"{kept} at each position (default: 5)")
    parser.add_argument("--plots", action="store_true", help="figures too, as PNG and SVG")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="a new or empty folder for the results")
    parser.add_argument("--force", action="store_true", help="replace the results in DIR, with their figures")


def add_target(parser: Parser, most_likely: str) -> None:
    """--position, --answer and --against. most_likely: whose most likely token is the answer if none is named."""
    parser.add_argument(
        "--position", type=int, default=-1, help="position of the token whose prediction is explained (default: -1)"
    )
    parser.add_argument("--answer", default="", help=f"the token looked for (default: the {most_likely}'s most likely)")
    parser.add_argument("--against", default="", help="counterfactual token: the logit difference is explained")


def _out_of(args: argparse.Namespace) -> Path:
    """The folder of --out, made if need be. UsageError when it is a file, or holds something and --force is not said.

    Hidden files do not count: of a killed command, or of a file manager.
    """
    out = expanded(args.out).resolve()
    try:
        out.mkdir(parents=True, exist_ok=True)
        held = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UsageError(
            f"{out} cannot be a folder for the results.", f"{error.strerror}.", "Choose another --out."
        ) from error
    if held and not args.force:
        more = f" and {text.counted(len(held) - 1, 'other')}" if len(held) > 1 else ""
        why = f"It has {text.printable(held[0])}{more}, and old figures beside new numbers would mislead."
        raise UsageError(
            f"{out} is not empty.", why, "Choose another --out, or replace the results in it with --force."
        )
    return out


def _forget_others(archive: Path) -> None:
    """Removes the answers that its folder had before, with their figures; what the lab did not write stays."""
    folder = archive.parent
    figures = (read_json(folder / _SUMMARY) or {}).get("figures")
    drawn = [name for name in figures if isinstance(name, str)] if isinstance(figures, list) else []
    # Names alone: a damaged summary leads nowhere else.
    had = [*_ARCHIVES, *(name for name in drawn if name == Path(name).name and name.endswith((".png", ".svg")))]
    for path in (folder / name for name in had if name != archive.name):
        if path.is_file():
            path.unlink()


def _clear_litter(folder: Path) -> None:
    """Removes what commands that were killed left half-written in the folder of --out, and touches nothing else."""
    for litter in (*folder.glob(".tmp-*.safetensors-*"), *folder.glob(".tmp-compare-*"), *folder.glob(".tmp-evolve-*")):
        with contextlib.suppress(OSError):
            if time.time() - litter.stat().st_mtime < _LITTER_SECONDS:
                continue  # its writer may live
            if litter.is_dir():
                shutil.rmtree(litter, ignore_errors=True)
            else:
                litter.unlink()


class Answered:
    """What a question of the command line leaves: DIR/NAME, DIR/summary.json, and the lines on the terminal."""

    def __init__(self, args: argparse.Namespace, name: str) -> None:
        """Makes the folder of --out and clears it of what killed commands left. UsageError when it cannot be one."""
        self.path = _out_of(args) / name
        _clear_litter(self.path.parent)
        self._args, self._begin = args, time.perf_counter()
        self.progress = terminal_progress(not args.json)  # to be entered for the work

    def report(self, summarise: Callable[[Archive], S], lines: Callable[[S], Iterable[str]]) -> int:
        """Reads the archive back, draws the figures, writes summary.json, and prints. -> the exit code."""
        from llmlab.inspection.archive import read_archive

        archive, folder, figures = read_archive(self.path), self.path.parent, []
        summary = summarise(archive)
        with explained(f"Earlier results in {folder} could not be removed."):
            _forget_others(self.path)
        if self._args.plots:
            from llmlab.inspection.figures import plot

            whole = f"What they are drawn from is whole, in {self.path.name}."
            with explained(f"The figures could not be written to {folder}.", whole):
                figures = [figure.name for figure in plot(archive, folder)]
        seconds = time.perf_counter() - self._begin
        values = summary.as_dict() | {"seconds": seconds, "figures": figures}
        with explained(f"{folder / _SUMMARY} could not be written."):
            write_json(folder / _SUMMARY, values)
        drawn = f", {len(figures)} figures" if figures else ""
        file = f"{self.path} ({text.size(summary.bytes)}), {seconds:.1f} s{drawn}"
        notes = [f"Note: {note}" for note in summary.notes]
        return print_answer(self._args, values | {"archive": str(self.path)}, (*lines(summary), *notes, file))


def values_of(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The question's values, by their names in llmlab.inspection: the prompt, and these arguments."""
    return {"text": args.prompt, "beginning": args.beginning} | {name: getattr(args, name) for name in names}


def listed(tokens: Sequence[str]) -> str:
    """The tokens of a prompt, as they are cut; of a long one, how it begins and ends."""
    shown = list(tokens) if len(tokens) <= _MOST_LISTED else [*tokens[: _MOST_LISTED - 9], "...", *tokens[-8:]]
    return f"{text.counted(len(tokens), 'token')}: {text.printable(' | '.join(shown))}"


def likely(tokens: Sequence[Likely]) -> str:
    return ", ".join(f"{text.printable(repr(token.text))} {100 * token.probability:.2f} %" for token in tokens)
