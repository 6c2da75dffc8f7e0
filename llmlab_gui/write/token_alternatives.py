"""What else could have come at a token, by the model's own distribution and after each setting of sampling."""

from __future__ import annotations

import html

from PySide6.QtWidgets import QLabel, QWidget

from llmlab_gui.host.messages import Generation, Token
from llmlab_gui.widgets.alternatives import AlternativeList, percent, visible
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import column
from llmlab_gui.widgets.one_line import OneLineBox


class TokenAlternatives(QWidget):
    """Words, a box that chooses the distribution where settings changed it, and the list."""

    def __init__(self) -> None:
        super().__init__()
        self.words = QLabel(wordWrap=True)
        self.steps = labelled(OneLineBox(), "Distribution at the chosen token")
        self.steps.setToolTip("The model's own distribution, or what each setting of sampling made of it, in order")
        self.list = AlternativeList()
        self.list.setAccessibleName("Alternatives at the chosen token")
        self._shown: tuple[int, Token, Generation] | None = None
        self.steps.currentIndexChanged.connect(self._show)
        column(self.words, self.steps, (self.list, 1), into=self, margins=(0, 4, 0, 0))
        self.clear()

    def clear(self) -> None:
        """No token."""
        self._shown = None
        self.steps.hide()
        self.list.show_pairs(())
        self.words.setText("Point at a token in the text, or use the arrow keys.")

    def show_token(self, index: int, token: Token, how: Generation) -> None:
        """how: the settings that it was sampled with. The step that was chosen stays where they have it too."""
        self._shown = index, token, how
        offers = ["The model's own", *(f"After {_name(step.name)} {getattr(how, step.name):g}" for step in token.steps)]
        if offers != [words for _, words in self.steps.entries()]:
            self.steps.fill([(words, words) for words in offers], self.steps.currentData())
        self.steps.setVisible(bool(token.steps))
        self._show()

    def _show(self) -> None:
        if self._shown is None:
            return
        index, token, how = self._shown
        words = (
            f"Token {index + 1}: <b>{html.escape(visible(token.text))}</b> was sampled; its probability was "
            f"{percent(token.probability)}."
        )
        if not how.chat:
            words += " Click another to continue with it from here."
        place = self.steps.currentIndex()
        if place > 0:
            step = token.steps[place - 1]
            pairs = [(text, after) for text, _, after in step.rows]
            self.list.show_pairs(pairs, token.text, [before for _, before, _ in step.rows])
            left = "1 token is left" if step.left == 1 else f"{step.left:,} tokens are left"
            words += f" Outlined: before {_name(step.name)}; filled: after it. {left}."
        else:
            self.list.show_pairs(token.alternatives, token.text)
        self.words.setText(words)


def _name(setting: str) -> str:
    """top_k -> top-k, repetition_penalty -> repetition penalty."""
    return setting.replace("_", " " if setting == "repetition_penalty" else "-")
