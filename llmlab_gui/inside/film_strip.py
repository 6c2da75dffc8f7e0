"""Moving through a film: play, a slider with a place for each step, and what the step was."""

from __future__ import annotations

from PySide6.QtCore import QSignalBlocker, Qt, QTimer, Signal
from PySide6.QtWidgets import QLabel, QSlider, QWidget

from llmlab_gui.inside.film import Film
from llmlab_gui.widgets.buttons import toggle_button
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import beside

# A frame long enough to be read, short enough to see it move.
_FRAME_MS = 500


class FilmStrip(QWidget):
    """`moved(place)`: another frame is to be shown."""

    moved = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._film = Film("")
        self.play = toggle_button("Play", "Show one step after the other")
        self.slider = labelled(QSlider(Qt.Orientation.Horizontal), "Training step")
        self.slider.setTickPosition(QSlider.TickPosition.TicksBelow)
        self.slider.setTickInterval(1)
        self.slider.setPageStep(1)
        self.words = QLabel()
        self.words.setMinimumWidth(
            self.fontMetrics().horizontalAdvance("step 100,000 · validation loss 0.000 · 100 of 100")
        )
        beside(self.play, self.slider, self.words, grows=self.slider, into=self)
        self._timer = QTimer(self, interval=_FRAME_MS)
        self._timer.timeout.connect(self._advance)
        self.play.toggled.connect(self._play)
        self.slider.valueChanged.connect(self._move)
        self.show_film(self._film)

    @property
    def place(self) -> int:
        """The frame that is shown."""
        return self.slider.value()

    def show_film(self, film: Film) -> None:
        """Another film, or one more frame: whoever stood at the last one stays at the last one."""
        at_end = self.slider.value() >= self.slider.maximum()
        same = film.run == self._film.run and bool(self._film.frames)
        step = self._film.steps[self.slider.value()] if same and not at_end else None
        self._film = film
        with QSignalBlocker(self.slider):
            self.slider.setRange(0, max(0, len(film.frames) - 1))
            self.slider.setValue(film.steps.index(step) if step in film.steps else self.slider.maximum())
        several = len(film.frames) > 1
        self.slider.setEnabled(several)
        self.play.setEnabled(several)
        if not several:
            self.play.setChecked(False)
        self._tell()

    def stop(self) -> None:
        """Ends playing."""
        self.play.setChecked(False)

    def _play(self, on: bool) -> None:
        self.play.setText("Pause" if on else "Play")
        if on:
            if self.slider.value() == self.slider.maximum():
                self.slider.setValue(0)
            self._timer.start()
        else:
            self._timer.stop()

    def _advance(self) -> None:
        if self.slider.value() >= self.slider.maximum():
            self.play.setChecked(False)
        else:
            self.slider.setValue(self.slider.value() + 1)

    def _move(self, place: int) -> None:
        self._tell()
        self.moved.emit(place)

    def _tell(self) -> None:
        frames = self._film.frames
        if not frames:
            self.words.setText("")
            return
        frame = frames[self.slider.value()]
        loss = f" · validation loss {frame.val_loss:.3f}" if frame.val_loss is not None else ""
        self.words.setText(f"step {frame.step:,}{loss} · {self.slider.value() + 1} of {len(frames)}")
