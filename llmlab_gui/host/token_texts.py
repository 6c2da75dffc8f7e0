"""What token ids of an archive read like: asked of the model's own tokenizer when somebody looks at them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from PySide6.QtCore import QObject, Signal

from llmlab_gui.host.messages import TokenizedPrompt
from llmlab_gui.host.session import InspectionSession
from llmlab_gui.widgets.layouts import settling_timer

UNKNOWN = "…"  # until the tokenizer has answered
_MOST_MODELS = 4  # whose vocabularies are remembered


class TokenTexts(QObject):
    """A memory of token texts by model. `arrived`: texts that were asked for are here."""

    arrived = Signal()

    def __init__(self, session: InspectionSession) -> None:
        super().__init__(session)
        self._host = session.host
        self._known: dict[str, dict[int, str]] = {}
        self._wanted: dict[str, set[int]] = {}
        self._asked: set[tuple[str, int]] = set()  # and not answered yet
        self._ask = settling_timer(self, 0, self._send)  # all cells of a frame ask together

    def text(self, model: str, token: int) -> str:
        """One token's text; UNKNOWN at first, and `arrived` then tells when to look again."""
        known = self._vocabulary(model).get(token)
        if known is not None:
            return known
        pending = self._wanted.setdefault(model, set())
        if token >= 0 and token not in pending:
            pending.add(token)
            self._ask.start()
        return UNKNOWN

    def remember(self, model: str, pairs: Iterable[tuple[int, str]]) -> None:
        """Texts that came with something else."""
        self._vocabulary(model).update(pairs)

    def _vocabulary(self, model: str) -> dict[int, str]:
        if model not in self._known and len(self._known) >= _MOST_MODELS:
            self._known.pop(next(iter(self._known)))
        return self._known.setdefault(model, {})

    def _send(self) -> None:
        for model, tokens in self._wanted.items():
            fresh = {(model, token) for token in tokens} - self._asked
            if fresh:
                self._asked |= fresh
                request = self._host.texts(model, sorted(token for _, token in fresh))
                request.ended.connect(partial(self._asked.difference_update, fresh))
                request.answered.connect(partial(self._take, model))
        self._wanted = {}

    def _take(self, model: str, prompt: TokenizedPrompt) -> None:
        self.remember(model, ((token.id, token.text) for token in prompt.tokens))
        self.arrived.emit()


def texts_of(session: InspectionSession) -> TokenTexts:
    """The session's one memory."""
    found = session.findChild(TokenTexts)
    return found if isinstance(found, TokenTexts) else TokenTexts(session)
