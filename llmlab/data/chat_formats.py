"""Which format a model's conversations have.

A model that has a chat template is fine-tuned in it (`llmlab.data.chat_template`). The lab's own models have
none; they get the plainest format there is:

    User: Which word comes first? sea sky
    Assistant: sea<|endoftext|>
"""

from __future__ import annotations

from collections.abc import Sequence

from llmlab.core.errors import LabError, UsageError
from llmlab.data.chat import ChatFormat, plain_template
from llmlab.data.chat_template import TemplateFormat
from llmlab.data.examples import Message
from llmlab.data.hf_tokenizer import HuggingFaceTokenizer
from llmlab.data.tokenizers import TextTokenizer, Tokenizer

_OPENING = "Assistant:"  # the space after it belongs to the answer


def chat_format(tokenizer: TextTokenizer) -> ChatFormat:
    """The format of a model by its tokenizer. UsageError when it came without one."""
    if isinstance(tokenizer, Tokenizer):
        return PlainFormat(tokenizer)
    if isinstance(tokenizer, HuggingFaceTokenizer):
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
