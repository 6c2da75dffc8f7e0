"""Conversations in a model's own chat template (transformers), rendered as one text and cut into tokens once.

Where the answers are in that text is found by rendering the conversation up to each of them: it must be how the
whole begins. A template for which it is not, because later turns change how earlier ones are written, cannot be
trained on there, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmlab.errors import LabError
from llmlab.finetuning.chat import ChatFormat
from llmlab.finetuning.examples import Message
from llmlab.sessions.hf_tokenizer import HuggingFaceTokenizer

# What a template says, by a piece of it that no other family has.
_FAMILIES = (
    ("<|im_start|>", "ChatML"),
    ("<|start_header_id|>", "Llama 3"),
    ("<start_of_turn>", "Gemma"),
    ("[INST]", "Mistral"),
)
# For a tokenizer without a template: what `PlainFormat` writes, in the language of templates.
_PLAIN = (
    "{% if begins %}{{ bos_token }}{% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}"
    "Assistant: {{ message.content | trim }}{{ ending }}{% if not loop.last and ending != '\n' %}{{ '\n' }}{% endif %}"
    "{% else %}{{ message.role | capitalize }}: {{ message.content | trim }}{{ '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
# Llama 3.1's own default. Its later templates write today's date, and a run resumed tomorrow would read other tokens.
_DATE = "26 Jul 2024"
# White space that a template may put before an answer.
_LONGEST_GAP = 64
_ANY_ANSWER = "a"


class TemplateFormat(ChatFormat):
    """A tokenizer's chat template, or the lab's plain one where it has none."""

    def __init__(self, tokenizer: HuggingFaceTokenizer) -> None:
        """LabError for a tokenizer that cannot say which letters its tokens are."""
        inner = self._inner = tokenizer.inner
        if not inner.is_fast:
            raise LabError(
                "This model's tokenizer cannot say which part of a text each token is.",
                "It is none of the `tokenizers` library, so answers cannot be told from questions.",
                "Save it again as a tokenizer.json.",
            )
        self._adds_beginning = tokenizer.adds_beginning
        own = inner.chat_template
        self._ending = inner.eos_token or "\n"
        self._options: dict[str, Any] = {"date_string": _DATE}
        if own is None:
            begins = tokenizer.adds_beginning and inner.bos_token is not None
            self._options = {"chat_template": _PLAIN, "begins": begins, "ending": self._ending}
            self.name = "User: … Assistant: …, the lab's own, since the model has none"
        else:
            text = own.get("default", "") if isinstance(own, dict) else own
            family = next((name for mark, name in _FAMILIES if mark in text), "")
            self.name = f"{family}, the model's own" if family else "the model's own"
        added = (str(token) for token in inner.added_tokens_decoder.values() if token.special)
        self._special = sorted({*inner.all_special_tokens, *added}, key=len, reverse=True)
        self.end_ids = self._find_ends()
        pad = inner.pad_token_id if inner.pad_token_id is not None else inner.eos_token_id
        self.pad_id = 0 if pad is None else int(pad)

    def tokens(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        text = self._render(messages)
        spans = [
            self._answer_span(messages, place, text)
            for place, message in enumerate(messages)
            if message.role == "assistant"
        ]
        ids, places = self._cut(text)
        answers = [False] * len(ids)
        for begin, end in spans:
            inside = [index for index, (first, last) in enumerate(places) if first < end and last > begin]
            if inside:  # every token between the first and the last, also one of no width
                answers[inside[0] : inside[-1] + 1] = [True] * (inside[-1] + 1 - inside[0])
        return ids, answers

    def opening(self, messages: Sequence[Message]) -> list[int]:
        # Cut as it stands before an answer: at the end of a text, white space is often cut otherwise.
        ids, answers = self.tokens([*messages, Message("assistant", _ANY_ANSWER)])
        end = max(place for place, answer in enumerate(answers) if answer)
        return ids[: max((place for place in range(end) if not answers[place]), default=-1) + 1]

    def text_tokens(self, text: str) -> list[int]:
        self._refuse_special([Message("text", text)])
        ids, _ = self._cut(text)
        bos, eos = self._inner.bos_token_id, self._inner.eos_token_id
        begin = [bos] if self._adds_beginning and bos is not None else []
        return [*begin, *ids, *([] if eos is None else [eos])]

    def _render(self, messages: Sequence[Message], *, opening: bool = False, thinking: bool = False) -> str:
        """The text of a conversation. opening: with what the assistant's turn begins with. LabError when refused.

        thinking: Qwen 3's templates write an empty thought before an answer unless this is on.
        """
        self._refuse_special(messages)
        turns = [{"role": message.role, "content": message.content} for message in messages]
        extra = self._options if thinking else {**self._options, "enable_thinking": False}
        try:
            text = self._inner.apply_chat_template(turns, tokenize=False, add_generation_prompt=opening, **extra)
        except Exception as error:  # a template is a program, and refuses in its own ways
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise LabError(f"The model's chat template refuses it: {why.rstrip('.')}.") from error
        return str(text)

    def _answer_span(self, messages: Sequence[Message], place: int, text: str) -> tuple[int, int]:
        """Where in `text` the answer `messages[place]` begins, and where the token that ends it does.

        White space that the template puts before the answer, and not into the assistant's opening, is the answer's:
        the model has to write it.
        """
        before = messages[:place]
        heads = (
            {
                self._render(before, opening=opening, thinking=thinking)
                for opening, thinking in ((True, False), (True, True), (False, False))
            }
            if before
            else {""}
        )
        for head in sorted(heads, key=len, reverse=True):
            if text.startswith(head):
                for content in (messages[place].content, messages[place].content.strip()):
                    begin = self._find(content, text, len(head))
                    if begin is not None:
                        space = text[len(head) : begin]
                        blank = len(space) - len(space.rstrip()) if space.strip() else len(space)
                        end = self._end_after(begin + len(content), messages[: place + 1], text)
                        return begin - blank, end
        raise LabError(
            "The model's chat template writes earlier turns differently when later ones follow, "
            f"so the answer in message {place + 1} cannot be found in what it makes."
        )

    def _find(self, content: str, text: str, start: int) -> int | None:
        """Where `content` begins, with nothing but white space and special tokens between it and `start`."""
        begin = text.find(content, start)
        while begin >= 0:
            between = text[start:begin]
            for token in self._special:
                between = between.replace(token, "")
            if not between.strip():
                return begin
            if begin - start > max(map(len, self._special), default=0) + _LONGEST_GAP:
                return None
            begin = text.find(content, begin + 1)
        return None

    def _end_after(self, end: int, messages: Sequence[Message], text: str) -> int:
        """Behind the special token that ends an answer; where there is none, behind what the template puts there."""
        rest = text[end:]
        space = len(rest) - len(rest.lstrip())
        for token in self._special:
            if rest.startswith(token, space):
                return end + space + len(token)
        upto = self._render(messages)
        return len(upto) if text.startswith(upto) and len(upto) >= end else end

    def _cut(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and for each the letters that it covers: [begin, end) in `text`."""
        cut = self._inner(text, add_special_tokens=False, return_offsets_mapping=True)
        places: list[tuple[int, int]] = []
        last = 0
        for begin, end in cut["offset_mapping"]:
            # Some tokenizers leave the white space out of a token's place: it is the token's that follows.
            places.append((min(begin, last), end))
            last = max(last, end)
        return [int(id) for id in cut["input_ids"]], places

    def _refuse_special(self, messages: Sequence[Message]) -> None:
        for message in messages:
            spelled = next((token for token in self._special if token in message.content), None)
            if spelled is not None:
                raise LabError(f"It spells {spelled}, which the model's tokenizer reads as a sign of its own.")

    def _find_ends(self) -> tuple[int, ...]:
        """The tokens that end an answer: the template's, and the tokenizer's end of text."""
        found = [] if self._inner.eos_token_id is None else [int(self._inner.eos_token_id)]
        try:
            ids, answers = self.tokens([Message("user", "a"), Message("assistant", "b")])
        except LabError:  # every example will say so
            return tuple(found)
        last = max((place for place, answer in enumerate(answers) if answer), default=0)
        return tuple(dict.fromkeys([ids[last], *found]))
