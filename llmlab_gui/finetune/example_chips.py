"""One example, token by token: what is trained on is coloured, what is only read is grey, what is cut is struck out."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QSize, Qt
from PySide6.QtGui import QColor, QFont, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from llmlab.data.example_preview import IN_LOSS, MASKED, TRUNCATED, PreviewToken
from llmlab_gui.host.selection import PromptToken
from llmlab_gui.inside.token_chips import TokenChips
from llmlab_gui.widgets.theme import current_theme, mix, theme_notifier

STATE_WORDS = {
    IN_LOSS: "in the loss: the model is trained to predict it",
    MASKED: "masked: read, but not in the loss",
    TRUNCATED: "truncated: beyond the maximum length, not read",
}
_LINES = 5  # at least so many are in sight
_SHORT_WORDS = {IN_LOSS: "in the loss", MASKED: "masked", TRUNCATED: "truncated"}


def state_colors(state: str, place: int) -> tuple[QColor, QColor]:
    """Ground and text of a token. place: neighbours differ a little, so that their border can be seen."""
    theme = current_theme()
    if state == IN_LOSS:
        return mix(theme.surface, theme.accent, (0.28, 0.40)[place % 2]), QColor(theme.text)
    if state == TRUNCATED:
        return QColor(theme.surface), QColor(theme.bad)
    return mix(theme.surface, theme.quiet, (0.10, 0.18)[place % 2]), QColor(theme.quiet)


class ExampleChips(TokenChips):
    """Shows `PreviewToken`s."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Tokens of the example")
        self.setMinimumHeight(self.fontMetrics().height() * _LINES)
        self.states: list[str] = []
        self._struck = QFont(self.font())
        self._struck.setStrikeOut(True)

    def show_example(self, tokens: Sequence[PreviewToken]) -> None:
        """Replaces all of them; none is chosen, and what is trained on first is in sight."""
        self.states = [token.state for token in tokens]
        self.chosen = -1
        self.verticalScrollBar().setValue(0)
        self.show_tokens([PromptToken(token.id, token.text) for token in tokens])
        self._show_trained()

    def resizeEvent(self, event: QEvent) -> None:
        super().resizeEvent(event)
        if self.chosen < 0:
            self._show_trained()

    def _show_trained(self) -> None:
        if IN_LOSS in self.states:
            self._show(self.states.index(IN_LOSS))

    def colors_of(self, token: int) -> tuple[QColor, QColor]:
        return state_colors(self.states[token], token)

    def font_of(self, token: int) -> QFont:
        return self._struck if self.states[token] == TRUNCATED else self.font()

    def words(self, token: int) -> str:
        return f"{super().words(token)}, {STATE_WORDS[self.states[token]]}"


class StateLegend(QWidget):
    """What the colours of the tokens mean."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Legend: " + ", ".join(_SHORT_WORDS.values()))
        self.setToolTip("\n".join(words.capitalize() for words in STATE_WORDS.values()))
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        theme_notifier.changed.connect(self.update)

    def sizeHint(self) -> QSize:
        metrics = self.fontMetrics()
        width = sum(metrics.horizontalAdvance(words) + 18 for words in _SHORT_WORDS.values())
        return QSize(width, metrics.height() + 6)

    def paintEvent(self, event: QPaintEvent) -> None:
        with QPainter(self) as painter:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            metrics, left = self.fontMetrics(), 0
            for state, words in _SHORT_WORDS.items():
                ground, text = state_colors(state, 1)
                width = metrics.horizontalAdvance(words) + 12
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(ground)
                painter.drawRoundedRect(left, 1, width, self.height() - 2, 4, 4)
                font = QFont(self.font())
                font.setStrikeOut(state == TRUNCATED)
                painter.setFont(font)
                painter.setPen(text)
                painter.drawText(left, 0, width, self.height(), Qt.AlignmentFlag.AlignCenter, words)
                left += width + 6
