"""Conversations in a model's own chat template, rendered as one text (`template_rendering`) and tokenized once.

Where the answers are in that text is found by rendering the conversation up to each of them: it must be how the
whole begins. A template for which it is not, because later turns change how earlier ones are written, cannot be
trained on there, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from llmlab.core.errors import LabError
from llmlab.data.chat import ChatFormat, plain_template
from llmlab.data.examples import Message
from llmlab.data.hf_tokenizer import HuggingFaceTokenizer, readable
from llmlab.data.template_rendering import render, rendered

# What a template says, by a piece of it that no other family has.
_FAMILIES = (
    ("<|im_start|>", "ChatML"),
    ("<|start_header_id|>", "Llama 3"),
    ("<start_of_turn>", "Gemma"),
    ("[INST]", "Mistral"),
)
# Of several templates transformers takes the one of that name.
_DEFAULT = "default"
_NO_DEFAULT = "{{ raise_exception('There are several, and none is the default') }}"
# Llama 3.1's own default. Its later templates write today's date, and a run resumed tomorrow would read other tokens.
_DATE = {"date_string": "26 Jul 2024"}
# Qwen 3's templates write an empty thought before an answer where it is false.
_THINKING = "enable_thinking"
# White space that a template may put before an answer.
_LONGEST_GAP = 64
# Of what is rendered at once for one conversation; a few bytes a character in either process.
_CHARACTERS_AT_ONCE = 8 << 20
_ANY_ANSWER = "a"  # a letter that every vocabulary has in which `Assistant:` can be written

# The ways in which a template may begin an answer: with the assistant's opening or without, with a thought or without.
_HEADS = ((True, False), (True, None), (True, True), (False, False))
_PLAIN_HEADS = ((True, None),)  # the lab's own knows one


@dataclass(frozen=True)
class _Call:
    """A conversation to render. opening: with what the assistant's turn begins with.

    thinking: what the template is told of it; None for nothing, which is its own default.
    """

    messages: Sequence[Message]
    opening: bool = False
    thinking: bool | None = False


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
        self._adds_bos, self._byte_count = tokenizer.adds_bos, tokenizer.byte_count
        own = inner.chat_template
        self._template = own.get(_DEFAULT, _NO_DEFAULT) if isinstance(own, dict) else own
        self._options = {**inner.special_tokens_map, **_DATE}
        self._plain = self._template is None
        self._heads = _PLAIN_HEADS if self._plain else _HEADS
        if self._template is None:
            self._template = self.template = plain_template(
                begins=self._adds_bos and inner.bos_token is not None, ends=bool(inner.eos_token)
            )
            self.name = "User: … Assistant: …, the lab's own, since the model has none"
        elif isinstance(self._template, str):
            family = next((name for mark, name in _FAMILIES if mark in self._template), "")
            self.name = f"{family}, the model's own" if family else "the model's own"
            several = isinstance(own, dict)
            self.template = {name: _with_options(one) for name, one in own.items()} if several else _with_options(own)
        else:
            raise LabError("This model's chat template is not text.", "Its tokenizer_config.json is damaged.")
        added = (str(token) for token in inner.added_tokens_decoder.values() if token.special)
        self._special = sorted({*inner.all_special_tokens, *added}, key=len, reverse=True)
        self.end_ids = self._find_ends()
        pad = inner.pad_token_id if inner.pad_token_id is not None else inner.eos_token_id
        self.pad_id = 0 if pad is None else int(pad)

    def tokens(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        answered = [place for place, message in enumerate(messages) if message.role == "assistant"]
        # Many answers at once, since each way to the process that renders costs as much as a rendering; but what is
        # rendered grows with the square of the turns.
        each, length = len(self._heads), sum(len(message.content) for message in messages)
        at_once = max(1, _CHARACTERS_AT_ONCE // (each * max(length, 1)))
        text, spans = "", list[tuple[int, int]]()
        for first in range(0, max(len(answered), 1), at_once):
            some = answered[first : first + at_once]
            calls = [_Call(messages[:place], opening, thinking) for place in some for opening, thinking in self._heads]
            if not first:
                text, *heads = self._render([_Call(messages), *calls])
            else:
                heads = self._render(calls)
            spans += [
                self._answer_span(messages, place, text, heads[index * each : (index + 1) * each])
                for index, place in enumerate(some)
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
        begin = [bos] if self._adds_bos and bos is not None else []
        return [*begin, *ids, *([] if eos is None else [eos])]

    def byte_count(self, id: int) -> int | None:
        return self._byte_count(id)

    def _render(self, calls: Sequence[_Call]) -> list[str]:
        """The texts of conversations; of none, an empty one. LabError when the template refuses one."""
        for call in calls:
            self._refuse_special(call.messages)
        wanted = [
            {
                **self._options,
                "conversation": [{"role": message.role, "content": message.content} for message in call.messages],
                "add_generation_prompt": call.opening,
                **({} if call.thinking is None else {_THINKING: call.thinking}),
            }
            for call in calls
            if call.messages
        ]
        # The lab's own template needs no process of its own.
        made = [rendered(self._template, call) for call in wanted] if self._plain else render(self._template, wanted)
        texts = iter(made)
        return [next(texts) if call.messages else "" for call in calls]

    def _answer_span(self, messages: Sequence[Message], place: int, text: str, heads: Sequence[str]) -> tuple[int, int]:
        """Where in `text` the answer `messages[place]` begins, and where the token that ends it does.

        heads: what the template makes of all before it. White space that it puts before the answer, and not into the
        assistant's opening, is the answer's: the model has to write it.
        """
        for head in sorted(set(heads), key=len, reverse=True):
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
        (upto,) = self._render([_Call(messages)])
        return len(upto) if text.startswith(upto) and len(upto) >= end else end

    def _cut(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and for each the letters that it covers: [begin, end) in `text`."""
        with readable():
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
            ids, answers = self.tokens([Message("user", _ANY_ANSWER), Message("assistant", _ANY_ANSWER)])
        except LabError:  # every example will say so
            return tuple(found)
        last = max((place for place, answer in enumerate(answers) if answer), default=0)
        return tuple(dict.fromkeys([ids[last], *found]))


def _with_options(template: str) -> str:
    """The template as `TemplateFormat` uses it: what it is told here is its default elsewhere."""
    defaults = "".join(
        f"{{% if {name} is not defined %}}{{% set {name} = {json.dumps(value)} %}}{{% endif %}}"
        for name, value in {**_DATE, _THINKING: False}.items()
        if name in template
    )
    # A line end after a block is not written (transformers sets trim_blocks).
    return f"{defaults}\n{template}" if defaults and not template.startswith(defaults) else template
