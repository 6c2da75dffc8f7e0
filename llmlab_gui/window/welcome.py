"""The welcome page before the first run: one button that trains something within a minute."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QLabel, QVBoxLayout, QWidget

from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.labels import PrimaryButton, QuietLabel, demi_bold
from llmlab_gui.widgets.layouts import beside
from llmlab_gui.widgets.theme import current_theme, theme_notifier

_WORDS = (
    "A small GPT reads Shakespeare letter by letter. At first it knows nothing; within a minute you see its loss fall, "
    "and words, names and verse appear in what it writes. Then change one setting, guess what will happen, and see."
)


class WelcomePanel(QWidget):
    """Lies over the docks. Whoever owns it hides it when the first run is there."""

    train_wanted = Signal()
    setup_wanted = Signal()
    tour_wanted = Signal()
    hour_wanted = Signal()

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self.setAccessibleName("Welcome")
        self.setAutoFillBackground(True)
        title = QLabel("Train your first language model")
        demi_bold(title, 2.0)
        title.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        title.setWordWrap(True)
        words = QuietLabel(_WORDS)
        words.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        words.setMaximumWidth(560)
        self.train_button = PrimaryButton("Train a small GPT (a minute or two)", self.train_wanted)
        self.train_button.setMinimumHeight(40)
        self.setup_button = push_button("Choose the settings first", self.setup_wanted)
        self.tour_button = push_button("Take the tour", self.tour_wanted)
        self.hour_button = push_button("Begin a guided first hour", self.hour_wanted)
        for button in (self.setup_button, self.tour_button, self.hour_button):
            button.setFlat(True)
        picture = _LossSketch()
        others = beside(1, self.setup_button, self.tour_button, self.hour_button, 1)
        hint = QuietLabel("You can also drop a text file of your own onto this window.")
        hint.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        middle = Qt.AlignmentFlag.AlignHCenter
        layout = QVBoxLayout(self)
        layout.addStretch(2)
        layout.addWidget(picture, 0, middle)
        layout.addSpacing(12)
        layout.addWidget(title)
        layout.addSpacing(6)
        layout.addLayout(beside(1, (words, 3), 1))
        layout.addSpacing(14)
        layout.addWidget(self.train_button, 0, middle)
        layout.addLayout(others)
        layout.addSpacing(10)
        layout.addWidget(hint)
        layout.addStretch(3)


class _LossSketch(QWidget):
    """A falling curve, drawn in the theme's colours."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedSize(260, 120)
        theme_notifier.changed.connect(self.update)

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        with QPainter(self) as painter:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            area = QRectF(self.rect()).adjusted(10, 6, -10, -10)
            painter.setPen(QPen(QColor(theme.grid), 1.2))
            for share in (0.0, 0.33, 0.66, 1.0):
                height = area.top() + share * area.height()
                painter.drawLine(QPointF(area.left(), height), QPointF(area.right(), height))
            curve = QPainterPath()
            for number in range(101):
                share = number / 100
                fallen = 1 - (1 + share * 18) ** -0.6
                point = (area.left() + share * area.width(), area.top() + (0.06 + 0.94 * fallen) * area.height())
                if number:
                    curve.lineTo(*point)
                else:
                    curve.moveTo(*point)
            painter.setPen(QPen(QColor(theme.accent), 3, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
            painter.drawPath(curve)
