"""The unit in which a chart shows losses: nats per token, or bits per byte, which compare whatever cuts the text."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llmlab.store.events import BITS, NATS, Started, tokens_differ
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.widgets.buttons import toggle_button

BITS_TIP = (
    "Bits per byte: loss / ln 2 / bytes per token of the validation text.\n"
    "They can be compared between runs whose tokens differ, and are switched on where such runs are shown together."
)
NO_BYTES = "bytes per token unknown"


class LossUnit:
    """As chosen by hand, until runs are shown whose tokens differ, or no longer do; then as they need it.

    button: to choose by. in_bits: bits per byte. differ: whether the losses that are shown are per different tokens.
    """

    def __init__(self, chart: LineChart, chosen: Callable[[], object]) -> None:
        """chosen: called when another unit was chosen."""
        self.button = toggle_button("bits/byte", BITS_TIP)
        self.in_bits = self.differ = False
        self._chart, self._tell = chart, chosen
        self._chosen: tuple[bool, bool] | None = None  # by hand: bits per byte, and whether the tokens differed then
        self.button.clicked.connect(self._choose)

    def settle(self, runs: Iterable[Started | None]) -> None:
        """Names the chart's axis for what is shown now. runs: how each began; None for one that has not."""
        began = [started for started in runs if started is not None]
        self.differ = tokens_differ(began)
        if self._chosen is not None and self._chosen[1] != self.differ:
            self._chosen = None
        known = all(started.bits_per_byte is not None for started in began)
        self.in_bits = self._chosen[0] if self._chosen is not None else self.differ and known
        unit = BITS if self.in_bits else NATS
        if unit != self._chart.y_unit:
            self._chart.name_y(self._chart.y_label, unit)
            self._chart.set_follow(True)
        self.button.setChecked(self.in_bits)

    def scale(self, started: Started | None) -> float | None:
        """What the run's losses are multiplied by; None where they cannot be said in the unit."""
        if not self.in_bits:
            return 1.0
        return started.bits_per_byte if started is not None else None

    @property
    def note(self) -> str:
        """What a reader has to know of the unit; empty where all tokens are the same."""
        return f"tokens differ: {BITS if self.in_bits else 'losses cannot be compared'}" if self.differ else ""

    def _choose(self, in_bits: bool) -> None:
        self._chosen = (in_bits, self.differ)
        self._tell()
