"""A conversation as tokens, with the loss mask; `llmlab.data.chat_formats` has the ways to write one.

Trained on are the assistant's words (with the space before them, which most vocabularies hold in the word) and the
token that ends them, so that the model learns to stop. In a vocabulary without an end of text, the line end is it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from llmlab.data.examples import Example, Message

ANSWERS, ALL = "answers", "all"
# How much of a plain text stands for the question, where a model is asked to go on with it.
_TEXT_PROMPT = 8


@dataclass(frozen=True)
class Encoded:
    """The tokens of an example, and for each whether it is predicted in training.

    The first is never trained on: nothing comes before it. cut: how many tokens the maximal length cost.
    """

    ids: list[int]
    trained: list[bool]
    cut: int

    def cut_to(self, tokens: int) -> Encoded:
        """Its first tokens; all where it has no more."""
        return Encoded(self.ids[:tokens], self.trained[:tokens], self.cut + max(0, len(self.ids) - tokens))


class ChatFormat(ABC):
    """Conversations as one model reads them.

    name: for people. end_ids: tokens that end an answer. pad_id: fills rows of a batch, and is never looked at.
    template: writes the same conversations in transformers' `apply_chat_template`; several by their names where the
    model came with several.
    """

    name: str
    template: str | dict[str, str]
    end_ids: tuple[int, ...]
    pad_id: int

    @abstractmethod
    def tokens(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Ids, and whether each belongs to an answer or ends one. LabError when the format cannot say it."""

    @abstractmethod
    def opening(self, messages: Sequence[Message]) -> list[int]:
        """Ids of all that stands before an answer to these messages. LabError as above."""

    @abstractmethod
    def text_tokens(self, text: str) -> list[int]:
        """Ids of a plain text with what texts begin and end with. LabError as above."""

    @abstractmethod
    def byte_count(self, id: int) -> int | None:
        """Bytes, in UTF-8, of the text that a token stands for; 0 for a special token, which stands for none.

        None where the tokenizer cannot tell.
        """

    def encode(self, example: Example, max_length: int, train_on: str) -> Encoded:
        """At most `max_length` tokens of an example; the end is cut. train_on: `answers` or `all`.

        LabError when the format cannot say it: a character that a vocabulary lacks, a turn that a template refuses.
        """
        if example.is_text:
            ids = self.text_tokens(example.messages[0].content)
            trained = [True] * len(ids)
        else:
            ids, trained = self.tokens(example.messages)
            if train_on == ALL:
                trained = [True] * len(ids)
        trained[:1] = [False] * len(trained[:1])
        return Encoded(ids, trained, 0).cut_to(max_length)

    def prompt_ids(self, example: Example) -> list[int]:
        """Everything up to where the last message begins, which is an answer, exactly as it stands there in training.

        An example that does not end with an answer is a question: all of it. Of a plain text, its first 8 tokens.
        """
        if example.is_text:
            return self.text_tokens(example.messages[0].content)[:_TEXT_PROMPT]
        before = example.messages[:-1] if example.messages[-1].role == "assistant" else example.messages
        return self.opening(before)


def plain_template(*, begins: bool, ends: bool) -> str:
    """What `PlainFormat` writes, in the language of templates.

    begins: a text begins with the beginning-of-text token. ends: the end-of-text token ends an answer, not a line end.
    """
    end, between = ("{{ eos_token }}", "{{ '\\n' }}") if ends else ("{{ '\\n' }}", "")
    return (
        f"{'{{ bos_token }}' if begins else ''}"
        "{% for message in messages %}"
        "{% if message.role == 'assistant' %}"
        f"Assistant: {{{{ message.content | trim }}}}{end}{{% if not loop.last %}}{between}{{% endif %}}"
        "{% else %}{{ message.role | capitalize }}: {{ message.content | trim }}{{ '\\n' }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    )
