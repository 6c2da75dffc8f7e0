"""Generates into a view: one generation at a time, token by token, with its state in words."""

from __future__ import annotations

import math

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.models.replies import WrittenToken
from llmlab_gui.host.messages import Generation
from llmlab_gui.host.process import LOADING, ModelHost, Request
from llmlab_gui.host.selection import Working
from llmlab_gui.widgets.layouts import settling_timer
from llmlab_gui.write.token_view import TokenView

# Tokens that come faster are shown together: one relayout a frame.
_FRAME_MS = 33


class Writer(QObject):
    """Asks the host and fills the view. After `begin` comes exactly one `ended`."""

    said = Signal(str)  # rich text
    ended = Signal(bool)  # whether it was written to the end
    failed = Signal(object)  # LabError, before `ended`

    def __init__(self, host: ModelHost, view: TokenView, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._host, self.view = host, view
        self._request: Request | None = None
        self._stopping = False
        self._most = 0  # tokens that were asked for
        self._fresh: list[WrittenToken] = []
        self._frame = settling_timer(self, _FRAME_MS, self._flush)

    @property
    def busy(self) -> bool:
        """Whether a text is being written."""
        return self._request is not None

    def begin(self, model: str, prompt: str, how: Generation) -> None:
        """Continues a prompt, or answers it in a chat; what the view held is gone."""
        self.view.begin(f"{prompt}\n" if how.chat else prompt)
        request = self._request = self._host.generate(model, prompt, how)
        self._stopping, self._most = False, how.tokens
        request.progressed.connect(self._on_progress)
        request.token.connect(self._on_token)
        request.answered.connect(self._on_done)
        request.cancelled.connect(self._on_cancelled)
        request.failed.connect(self._on_failed)
        self.said.emit("Asking the model…")

    def stop(self) -> None:
        """Ends the generation; what is written stays."""
        if self._request is not None:
            self._stopping = True
            self._request.cancel()
            self.said.emit("Stopping…")

    def shutdown(self) -> None:
        """Draws nothing any more."""
        self._frame.stop()

    def _on_progress(self, news: Working) -> None:
        if news == LOADING and not self._stopping:
            self.said.emit(f"{news.what}…")

    def _on_token(self, token: WrittenToken) -> None:
        if not (self.view.tokens or self._fresh or self._stopping):
            self.said.emit("Generating…")
        self._fresh.append(token)
        if not self._frame.isActive():
            self._frame.start()

    def _flush(self) -> None:
        fresh, self._fresh = self._fresh, []
        if fresh:
            self.view.append_tokens(fresh)
            if not self._stopping:
                self.said.emit(f"Generating… {len(self.view.tokens)} of {self._most} tokens")

    def _on_done(self, seconds: float) -> None:
        self._flush()
        tokens = self.view.tokens
        surprise = sum(-math.log(max(token.probability, 1e-12)) for token in tokens)
        speed = f", {len(tokens) / seconds:,.0f} tokens/s" if seconds > 0 else ""
        mean = f" Mean surprise {surprise / len(tokens):.2f} nats per token." if tokens else ""
        self._end(f"{len(tokens)} tokens in {seconds:.2g} s{speed}.{mean}", whole=True)

    def _on_cancelled(self) -> None:
        self._flush()
        self._end(f"Stopped after {len(self.view.tokens)} tokens.")

    def _on_failed(self, error: LabError) -> None:
        self._flush()
        self.failed.emit(error)
        self._end(error.what)

    def _end(self, words: str, *, whole: bool = False) -> None:
        self._request = None
        self.said.emit(words)
        self.ended.emit(whole)
