"""The status bar: the current run's state, progress, speed and time left; and that another one trains."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import QEvent, QObject, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPalette, QResizeEvent
from PySide6.QtWidgets import QLabel, QProgressBar, QStatusBar, QStyle, QStyleOption, QWidget

from llmlab.core.signs import count_text
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.widgets.buttons import tool_button
from llmlab_gui.widgets.icons import state_color, state_icon
from llmlab_gui.widgets.numbers import time_left_text
from llmlab_gui.widgets.theme import current_theme, theme_notifier

_SAID_MS = 8000
# Of the bar's thousandths; a run may have more steps than the 32 bits that a QProgressBar counts in.
_WHOLE = 1000
_LEAST_NAME, _MOST_NAME = 100, 440  # pixels of a run's name
_MOST_OTHER_NAME = 160  # and of that beside it
_MIDDLE = Qt.TextElideMode.ElideMiddle
_AROUND_MESSAGE = 6  # pixels at both ends of a message


class StateLabel(QLabel):
    """What a run is called and what it does: the name is cut in its middle where the bar has no room for it."""

    def __init__(self) -> None:
        super().__init__()
        self.setTextFormat(Qt.TextFormat.PlainText)
        self._name = self._word = ""

    def say(self, name: str, word: str) -> None:
        """Replaces both. No name: there is no run."""
        word = f" · {word}" if name else word
        if (name, word) != (self._name, self._word):
            self._name, self._word = name, word
            self.setToolTip(name)
            self.updateGeometry()
            self._cut()

    def sizeHint(self) -> QSize:
        return self._size(_MOST_NAME)

    def minimumSizeHint(self) -> QSize:
        return self._size(_LEAST_NAME)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._cut()

    def _size(self, most: int) -> QSize:
        return QSize(min(most, self._advance(self._name)) + self._advance(self._word), super().sizeHint().height())

    def _advance(self, text: str) -> int:
        return self.fontMetrics().horizontalAdvance(text) + 1 if text else 0

    def _cut(self) -> None:
        room = max(_LEAST_NAME, self.width() - self._advance(self._word))
        self.setText(self.fontMetrics().elidedText(self._name, _MIDDLE, room) + self._word)


class StatusBar(QStatusBar):
    """Follows the lab's current run."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._lab = lab
        self._sign = QLabel()
        self.state, self.steps, self.speed, self.left = StateLabel(), QLabel(), QLabel(), QLabel()
        self.waiting = tool_button("", "Show the queue", partial(lab.dock_requested.emit, "queue"))
        self._other_id = ""
        self.other = tool_button("", "", lambda: lab.set_current(self._other_id))
        self.other.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        for button in (self.waiting, self.other):
            button.setAutoRaise(True)
            button.setMaximumHeight(self.state.sizeHint().height())  # the bar stays as low as it is without
        self.other.hide()
        self.bar = QProgressBar()
        self.bar.setRange(0, _WHOLE)
        self.bar.setTextVisible(False)
        self.bar.setFixedWidth(160)
        self.bar.setMaximumHeight(10)
        for widget, name in (
            (self.state, "State of the run"),
            (self.bar, "Progress"),
            (self.steps, "Steps done"),
            (self.speed, "Speed"),
            (self.left, "Time left"),
            (self.waiting, "Runs in the queue"),
        ):
            widget.setAccessibleName(name)
        self.addPermanentWidget(self.other)
        for widget in (self._sign, self.state, self.bar, self.steps, self.speed, self.left, self.waiting):
            self.addPermanentWidget(widget)
        self.setSizeGripEnabled(False)
        self.setContentsMargins(8, 0, 10, 0)
        lab.runs_changed.connect(self._draw)
        lab.current_changed.connect(self._draw)
        lab.controller.stopping_changed.connect(self._draw)
        lab.queue.changed.connect(self._draw_queue)
        lab.said.connect(lambda sentence: self.showMessage(sentence, _SAID_MS))
        self.messageChanged.connect(self.setToolTip)  # whole, where it is cut
        theme_notifier.changed.connect(self._draw)
        self.state.installEventFilter(self)
        self._draw()
        self._draw_queue()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.state and event.type() == QEvent.Type.StyleChange:  # with it, Qt takes back its colour
            self._draw()
        return super().eventFilter(watched, event)

    def paintEvent(self, event: QPaintEvent) -> None:
        """The message, which Qt would cut within a letter."""
        option = QStyleOption()
        with QPainter(self) as painter:
            option.initFrom(self)
            self.style().drawPrimitive(QStyle.PrimitiveElement.PE_PanelStatusBar, option, painter, self)
            painter.setPen(self.palette().color(QPalette.ColorRole.WindowText))
            painter.drawText(
                _AROUND_MESSAGE, 0, self.width(), self.height(), Qt.AlignmentFlag.AlignVCenter, self.seen()
            )

    def seen(self) -> str:
        """The message as far as it has room, left of what is always there."""
        first = self.other if self.other.isVisibleTo(self) else self._sign
        room = first.x() - 2 * _AROUND_MESSAGE
        return self.fontMetrics().elidedText(self.currentMessage(), Qt.TextElideMode.ElideRight, room)

    def _draw_queue(self) -> None:
        state = self._lab.queue.state
        count = len(state.items)
        self.waiting.setText(f"{count} in the queue{', paused' if state.paused else ''}" if count else "")
        self.waiting.setVisible(count > 0)

    def _draw_other(self, current: RunRow | None) -> None:
        """The newest run that trains beside the current one, and a way to it."""
        others = [row for row in self._lab.runs() if row.status.state == "running" and row != current]
        self.other.setVisible(bool(others))
        if others:
            row = min(others, key=lambda other: other.status.silent_since is not None)
            self._other_id = row.id
            name = self.fontMetrics().elidedText(row.name, _MIDDLE, _MOST_OTHER_NAME)
            left = row.status.eta_seconds
            silent = row.status.silent_since is not None
            parts = [f"{name}: {row.status.words.removeprefix('running, ')}" if silent else f"{name} trains"]
            parts += [f"{time_left_text(left)} left"] if left is not None and not silent else []
            parts += [f"{len(others) - 1} more"] if len(others) > 1 else []
            self.other.setText(", ".join(parts).replace("&", "&&"))
            self.other.setIcon(state_icon("running"))
            does = f"is {row.status.words}" if silent else "trains"
            done = f"{row.name} {does}: step {row.status.step:,} of {row.status.steps:,}."
            self.other.setToolTip(f"{done} Shows it, with its Pause and Stop.")

    def _draw(self) -> None:
        row = self._lab.current()
        self._draw_other(row)
        if row is None:
            self.bar.hide()
            for label in (self._sign, self.steps, self.speed, self.left):
                label.clear()
            self.state.say("", "No run is selected" if self._lab.looked else "")
            return
        status = row.status
        self._sign.setPixmap(state_icon(status.state).pixmap(16, 16))
        word = self._lab.controller.stopping_text(row.run) or status.doing
        if not word or status.silent_since is not None:
            word = status.words.capitalize()
        self.state.say(row.name, word)
        palette = QPalette(self.state.palette())
        color = current_theme().text if status.state == "running" else state_color(status.state, current_theme())
        palette.setColor(QPalette.ColorRole.WindowText, QColor(color))
        self.state.setPalette(palette)
        self.bar.setValue(round(_WHOLE * status.step / status.steps) if status.steps else 0)
        self.steps.setText(f"step {status.step:,} of {status.steps:,}" if status.state != "queued" else "")
        going = status.state == "running" and status.silent_since is None and status.step > 0
        speed, left = status.tokens_per_second, status.eta_seconds
        self.speed.setText(f"{count_text(speed)} tokens/s" if going and speed else "")
        self.left.setText(f"{time_left_text(left)} left" if going and left is not None else "")
        self.bar.show()  # last: what is shown lays out the whole window at once, and a bar in sight is painted at once
