"""What could come after the prompt, and in place of a token: by the model's own distribution."""

from __future__ import annotations

import html
import math
from functools import partial
from typing import NamedTuple

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QLabel, QWidget

from llmlab.core.errors import LabError
from llmlab.models.replies import BigramShares, Expected, WrittenToken
from llmlab_gui.host.messages import Generation
from llmlab_gui.host.process import ModelHost, Request
from llmlab_gui.widgets.alternatives import AlternativeList, percent, plain_tip, visible
from llmlab_gui.widgets.labels import QuietLabel, labelled
from llmlab_gui.widgets.layouts import column
from llmlab_gui.widgets.one_line import OneLineBox
from llmlab_gui.widgets.veil import Veil


class Asked(NamedTuple):
    """What a distribution is of. name: of the model, as people read it."""

    model: str
    prompt: str
    chat: bool
    name: str


class NextTokens(QWidget):
    """Words on how certain the model is, and the list. One question at a time: the later one counts."""

    answered = Signal()  # or it could not be
    unread = Signal(int)  # how many of the prompt's first tokens the model does not read

    def __init__(self, host: ModelHost) -> None:
        super().__init__()
        self._host = host
        self._waiting: Request | None = None
        self.of: Asked | None = None  # what is shown
        self.list, self.words = AlternativeList(), QLabel(textFormat=Qt.TextFormat.PlainText, wordWrap=True)
        self.list.setAccessibleName("Next token after the prompt")
        self.heading = QuietLabel()  # of the second column
        self.heading.setTextFormat(Qt.TextFormat.PlainText)
        self.heading.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.heading.hide()
        column(self.words, self.heading, (self.list, 1), into=self, margins=(0, 4, 0, 0))
        self.veil = Veil(self)

    def ask(self, asked: Asked) -> None:
        """Shows what comes next as soon as it is known."""
        self.forget()
        self._waiting = self._host.ask_next(asked.model, asked.prompt, chat=asked.chat)
        self._waiting.answered.connect(partial(self._take, asked))
        self._waiting.failed.connect(self._take_failure)

    def forget(self) -> None:
        """An answer to an earlier prompt, or of an earlier model, is not waited for."""
        if self._waiting is not None:
            self._waiting.drop()
            self._waiting = None

    def clear(self) -> None:
        """Another model: nothing is known of it yet."""
        self.forget()
        self._show_nothing("")

    def mark_stale(self, model: str, prompt: str, chat: bool) -> None:
        """Dims what is of another model or prompt than these, and says of which."""
        words = ""
        if self.of is not None and self.of[:3] != (model, prompt, chat):
            words = f"of {self.of.name}" if self.of.model != model else "of another prompt"
        self.veil.say(words)

    def _take(self, asked: Asked, answer: Expected) -> None:
        self._waiting, self.of = None, asked
        bigrams = answer.bigrams
        self.list.show_pairs(answer.top, beside=bigrams.shares if bigrams is not None else ())
        bits, equal = answer.entropy / math.log(2), math.exp(answer.entropy)
        self.words.setText(
            f"{'The answer would start with' if asked.chat else 'After the prompt'}. Entropy {answer.entropy:.2f} nats "
            f"= {bits:.2f} bits: as uncertain as a choice among {equal:,.1f} equally likely tokens."
            f"{'' if asked.chat else ' Click one to append it.'}"
        )
        self._explain(bigrams, answer.no_bigrams)
        self.unread.emit(answer.unread)
        self.answered.emit()

    def _explain(self, bigrams: BigramShares | None, why_none: str = "") -> None:
        """The heading of the bigrams' column, and how they were counted; or why there are none."""
        self.heading.setVisible(bigrams is not None or bool(why_none))
        if bigrams is None:
            self.heading.setText(f"No bigrams: {why_none}.")
            self.heading.setToolTip("")
            return
        last = f"“{visible(bigrams.last)}”"
        if not bigrams.shares:
            self.heading.setText(f"Nothing ever follows {last} in its training text.")
            self.heading.setToolTip("")
            return
        where = (
            f"the first {bigrams.beginning:,} tokens of the training text" if bigrams.beginning else "the training text"
        )
        most = ", ".join(f"“{visible(text)}” ({percent(share)})" for text, share in bigrams.most)
        self.heading.setText(f"Bigrams after {last} in its text: {100 * bigrams.overlap:.0f} % overlap")
        tip = (
            f"Second column, outlined: count({last}, token) / count({last}). A token follows {last} "
            f"{bigrams.occurrences:,} times in {where}, most often {most}.\n"
            "Overlap: the sum of the smaller of both shares over all tokens. It is 100 % for a model that has learned "
            "bigrams and nothing else; one that uses earlier tokens differs."
        )
        self.heading.setToolTip(plain_tip(tip))

    def _take_failure(self, error: LabError) -> None:
        """Typing goes on; a message bar at each key would not help."""
        self._waiting = None
        self._show_nothing(str(error))
        self.answered.emit()

    def _show_nothing(self, why: str) -> None:
        self.of = None
        self.list.show_pairs(())
        self._explain(None)
        self.words.setText(why)
        self.unread.emit(0)


class TokenAlternatives(QWidget):
    """Words, a box that chooses the distribution where settings changed it, and the list."""

    def __init__(self) -> None:
        super().__init__()
        self.words = QLabel(wordWrap=True)
        self.steps = labelled(OneLineBox(), "Distribution at the chosen token")
        self.steps.setToolTip("The model's own distribution, or what each setting of sampling made of it, in order")
        self.list = labelled(AlternativeList(), "Alternatives at the chosen token")
        self._shown: tuple[int, WrittenToken, Generation] | None = None
        self.steps.currentIndexChanged.connect(self._show)
        column(self.words, self.steps, (self.list, 1), into=self, margins=(0, 4, 0, 0))
        self.clear()

    def clear(self) -> None:
        """No token."""
        self._shown = None
        self.steps.hide()
        self.list.show_pairs(())
        self.words.setText("Point at a token in the text, or use the arrow keys.")

    def show_token(self, index: int, token: WrittenToken, how: Generation) -> None:
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
            self.list.show_pairs(token.top, token.text)
        self.words.setText(words)


def _name(setting: str) -> str:
    """top_k -> top-k, repetition_penalty -> repetition penalty."""
    return setting.replace("_", " " if setting == "repetition_penalty" else "-")
