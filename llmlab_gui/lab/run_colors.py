"""The colours of runs in charts and lists: each keeps its own in one outputs folder, where its slot is kept."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtGui import QColor

from llmlab_gui.widgets.theme import current_theme, mix

_SECOND_SHADE = 0.4  # of the text's colour in a run's: told apart from the hue itself, and as easily seen


class RunColors:
    """A slot for each run: a hue, and behind them all the same hues in a second shade, and so on in turn."""

    def __init__(self) -> None:
        self.slots: dict[str, int] = {}  # by the runs' ids in the window

    def color(self, run_id: str) -> QColor:
        """The colour of a run, by its id in the window; the first of all for one that has none yet."""
        theme = current_theme()
        turn, hue = divmod(self.slots.get(run_id, 0), len(theme.series))
        return mix(theme.series[hue], theme.text, _SECOND_SHADE) if turn % 2 else QColor(theme.series[hue])

    def rename(self, run_id: str, new_id: str) -> None:
        """The same run has another id now."""
        if run_id in self.slots:
            self.slots[new_id] = self.slots.pop(run_id)

    def give(self, shown: Sequence[str], by_age: Sequence[str]) -> None:
        """Colours for those shown that have none. by_age: all runs, the oldest first.

        Runs that began one after another differ, and tomorrow's colours are today's: the place by age decides. Unless
        a run that is shown beside it has that hue. Once all hues are given away, they come in a second shade.
        """
        hues = len(current_theme().series)
        for run_id in shown:
            if run_id in self.slots:
                continue
            beside = {self.slots[other] % hues for other in shown if other in self.slots}
            age = by_age.index(run_id)
            wanted = [(age + number) % hues for number in range(hues)]
            slot = next((hue for hue in wanted if hue not in beside), wanted[0])
            while slot in self.slots.values():
                slot += hues
            self.slots[run_id] = slot
