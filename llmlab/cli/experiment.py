"""What `compare`, `evolve` and `intervene` share: the files they write, and how they say what was found."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llmlab.cli import text
from llmlab.cli.inspect import out_of
from llmlab.cli.output import DONE, print_json
from llmlab.cli.task import terminal_progress
from llmlab.errors import LabError
from llmlab.files import write_json
from llmlab.progress import Progress

if TYPE_CHECKING:
    from llmlab.inspection.archive import Archive
    from llmlab.inspection.experiment_summary import Experiment as Summary
    from llmlab.inspection.experiment_summary import Likely

S = TypeVar("S", bound="Summary")


class Experiment:
    """One experiment of a command: DIR/NAME, DIR/summary.json, and the lines on the terminal."""

    def __init__(self, args: argparse.Namespace, name: str) -> None:
        """Makes the folder of --out. UsageError when it cannot be one."""
        self.path = out_of(args) / name
        self._json, self._plots = args.json, args.plots
        self._begin = time.perf_counter()

    def progress(self) -> AbstractContextManager[Progress]:
        """What to hand to the work."""
        return terminal_progress(not self._json)

    def report(self, summarise: Callable[[Archive], S], lines: Callable[[S], list[str]]) -> int:
        """Reads the archive back, draws the figures, writes summary.json, and prints. -> the exit code."""
        from llmlab.inspection.archive import read_archive

        archive = read_archive(self.path)
        summary = summarise(archive)
        figures: list[Path] = []
        if self._plots:
            from llmlab.inspection.experiment_plots import plot_experiment

            figures = plot_experiment(archive, self.path.parent)
        seconds = time.perf_counter() - self._begin
        values = summary.as_dict() | {"seconds": seconds, "figures": [figure.name for figure in figures]}
        try:
            write_json(self.path.with_name("summary.json"), values)
        except OSError as error:
            raise LabError(
                f"{self.path.with_name('summary.json')} could not be written.", f"{error.strerror or error}."
            ) from error
        if self._json:
            print_json(values | {"archive": str(self.path)})
            return DONE
        for line in lines(summary):
            print(line)
        for note in summary.notes:
            print(f"Note: {note}")
        drawn = f", {len(figures)} figures" if figures else ""
        print(f"{self.path} ({text.size(summary.bytes)}), {seconds:.1f} s{drawn}")
        return DONE


def parts_of(words: str) -> list[str]:
    """`heads, lens` -> its parts."""
    return [part.strip() for part in words.split(",") if part.strip()]


def listed(tokens: Sequence[str]) -> str:
    """The tokens of a prompt, as they are cut."""
    return f"{len(tokens)} tokens: {text.printable(' | '.join(tokens))}"


def likely(tokens: Sequence[Likely]) -> str:
    """Likeliest tokens with their probabilities."""
    return ", ".join(f"{text.printable(repr(token.text))} {token.probability:.1%}" for token in tokens)
