"""Turns a conversation into tokens, with the loss mask.

A model that has a chat template is fine-tuned in it (`llmlab.data.chat_template`). The lab's own models have
none; they get the plainest format there is:

    User: Which word comes first? sea sky
    Assistant: sea<|endoftext|>

Trained on are the assistant's words (with the space before them, which most vocabularies hold in the word) and the
token that ends them, so that the model learns to stop. In a vocabulary without an end of text, the line end is it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from llmlab.core.errors import LabError, UsageError
from llmlab.data.examples import Example, Message
from llmlab.data.hf_tokenizer import HuggingFaceTokenizer
from llmlab.data.tokenizers import TextTokenizer, Tokenizer

ANSWERS, ALL = "answers", "all"
# How much of a plain text stands for the question, where a model is asked to go on with it.
_TEXT_PROMPT = 8
_OPENING = "Assistant:"  # the space after it belongs to the answer


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


def chat_format(tokenizer: TextTokenizer) -> ChatFormat:
    """The format of a model by its tokenizer. UsageError when it came without one."""
    if isinstance(tokenizer, Tokenizer):
        return PlainFormat(tokenizer)
    if isinstance(tokenizer, HuggingFaceTokenizer):
        from llmlab.data.chat_template import TemplateFormat

        return TemplateFormat(tokenizer)
    raise UsageError(
        "This model came without a tokenizer, so no example can be tokenized for it.",
        "Without one nobody knows which tokens a text is.",
        "Put the tokenizer's files (tokenizer.json, say) into its folder.",
    )


class PlainFormat(ChatFormat):
    """The lab's own format, for the lab's own tokenizers. Parts are tokenized one by one, as when it answers."""

    name = "User: … Assistant: …, the lab's own"

    def __init__(self, tokenizer: Tokenizer) -> None:
        end, beginning = tokenizer.end_of_text, tokenizer.beginning
        self._encode, self._byte_count = tokenizer.encode, tokenizer.byte_count
        self._bos = [] if beginning is None else [beginning]
        self._end = tokenizer.encode("\n") if end is None else [end]
        self._line_ends = end is None
        self.end_ids = tuple(self._end)
        self.template = plain_template(begins=beginning is not None, ends=end is not None)
        self.pad_id = 0 if end is None else end

    def tokens(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        ids = [*self._bos]
        answers = [False] * len(ids)
        for place, message in enumerate(messages):
            words = message.content.strip()
            before, answer = self._before(messages[:place]), list[int]()
            if message.role == "assistant":
                if self._line_ends and "\n" in words:
                    raise LabError("Its answer has several lines, and in this vocabulary a line end ends an answer.")
                before += self._encode(_OPENING)
                answer = [*self._encode(f" {words}"), *self._end]
            else:
                before += self._encode(f"{message.role.capitalize()}: {words}\n")
            ids += before + answer
            answers += [False] * len(before) + [True] * len(answer)
        return ids, answers

    def opening(self, messages: Sequence[Message]) -> list[int]:
        return self.tokens(messages)[0] + self._before(messages) + self._encode(_OPENING)

    def text_tokens(self, text: str) -> list[int]:
        return [*self._bos, *self._encode(text), *([] if self._line_ends else self._end)]

    def byte_count(self, id: int) -> int:
        return self._byte_count(id) if self._line_ends or id not in self._end else 0

    def _before(self, messages: Sequence[Message]) -> list[int]:
        """The line end between an answer and the next turn, where the answer's end is none."""
        follows_answer = bool(messages) and messages[-1].role == "assistant"
        return self._encode("\n") if follows_answer and not self._line_ends else []
