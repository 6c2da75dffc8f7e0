"""Questions to one open model: one dataclass per question, as in JSON and in an archive's header. No torch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llmlab.core.errors import UsageError
from llmlab.core.records import field_types, fits, shaped

if TYPE_CHECKING:
    from llmlab.models.model import OpenModel

T = TypeVar("T")

MOST_KEPT = 100  # tokens or neurons; their names stand in an archive's header, which has to stay small
# What can be asked of a prompt, in the order in which an answer has it, with the fields of
# `llmlab.anatomy.anatomy.Refusals` that speak against it.
REFUSED_BY = {
    "attention": ("attention",),
    "heads": ("attention",),
    "residual": ("contributions",),
    "contributions": ("contributions",),
    "attribution": ("contributions", "attribution"),
    "lens": ("attribution",),
    "rollout": ("attention",),
}
ASPECTS = tuple(REFUSED_BY)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The text that the model reads. ids win over text; beginning: put the BOS token before it."""

    text: str = ""
    ids: tuple[int, ...] = ()
    beginning: bool = False

    def token_ids(self, opened: OpenModel) -> list[int]:
        """What the model is given. UsageError when there is nothing, or no beginning to add."""
        if self.ids:
            if not all(0 <= id < opened.vocab_size for id in self.ids):
                raise UsageError(
                    f"The prompt holds token ids that {opened.name} does not know.",
                    f"They run from 0 to {opened.vocab_size - 1:,}.",
                )
            return list(self.ids)
        ids = opened.tokenizer.encode(_whole(self.text))
        if self.beginning:
            if opened.tokenizer.beginning is None:
                raise UsageError(f"{opened.name} has no beginning-of-sequence (BOS) token.", "", "Ask without one.")
            ids = [opened.tokenizer.beginning, *ids]
        if not ids:
            raise UsageError("The prompt is empty.", "A model needs at least one token to read.")
        return ids


@dataclass(frozen=True, kw_only=True)
class Target(Prompt):
    """A position in the prompt and what is predicted there: the logit of `answer`, minus that of `against` if given.

    position: from 0, negative from the end. answer and against: one token's text; "" for answer is the model's own
    most likely token, "" for against is none.
    """

    position: int = -1
    answer: str = ""
    against: str = ""


@dataclass(frozen=True, kw_only=True)
class Inspect(Target):
    """The panels' question: any of ASPECTS, in one forward pass. top: tokens kept by the lens at each position.

    parts: the lens is told layer by layer to an asker that listens, before the answer (`llmlab.inspection.lens`).
    """

    what: tuple[str, ...] = ASPECTS
    top: int = 5
    parts: bool = False


@dataclass(frozen=True, kw_only=True)
class Pattern(Prompt):
    """One head's whole attention pattern."""

    layer: int
    head: int


@dataclass(frozen=True, kw_only=True)
class Stages(Prompt):
    """One head's way from queries and keys to its pattern."""

    layer: int
    head: int


@dataclass(frozen=True, kw_only=True)
class Neurons(Target):
    """The neurons of one feed-forward with the largest logit attribution, either sign."""

    layer: int
    top: int = 20


def from_values(kind: type[T], values: Mapping[str, Any]) -> T:
    """A question from JSON. UsageError names the field that is unknown, missing, of another type, or out of range."""
    hints, asked = field_types(cast(type, kind)), _called(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise UsageError(f"{asked} has no {unknown[0]!r}.", f"It takes {', '.join(known)}.")
    for name, field in known.items():
        if name not in values and field.default is dataclasses.MISSING:
            raise UsageError(f"{asked} needs {name}.")
    typed = {name: shaped(value, hints[name]) for name, value in values.items()}
    if wrong := next((name for name, value in typed.items() if not fits(value, hints[name])), None):
        raise UsageError(f"{wrong} of {asked} cannot be {values[wrong]!r}.", "It is of another kind.")
    if not 1 <= typed.get("top", 1) <= MOST_KEPT:
        raise UsageError(f"top of {asked} cannot be {typed['top']}.", f"It runs from 1 to {MOST_KEPT}.")
    return kind(**typed)


def to_values(question: Any) -> dict[str, Any]:
    """The inverse: plain values for JSON, those at their default left out."""
    return {
        field.name: list(value) if isinstance(value, tuple) else value
        for field in dataclasses.fields(question)
        if (value := getattr(question, field.name)) != field.default
    }


def _called(kind: type) -> str:
    """`PatchingSweep` -> `patching sweep`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()


def _whole(text: str) -> str:
    """Text that can be encoded: half of a surrogate pair, as a terminal makes it of broken UTF-8, is a "?"."""
    return text.encode(errors="replace").decode()


def token_of(opened: OpenModel, text: str, field: str) -> int:
    """The one token that `text` is. UsageError when it is several, with what they are."""
    ids = opened.tokenizer.encode(_whole(text))
    if len(ids) != 1:
        parts = ", ".join(repr(opened.tokenizer.token_text(id)) for id in ids) or "nothing"
        raise UsageError(
            f"{field} {text!r} is not one token of {opened.name}.",
            f"It is tokenized into {parts}.",
            "A leading space often matters: ' Paris' is one token where 'Paris' is two.",
        )
    return ids[0]


def position_of(position: int, time: int) -> int:
    """A position in a prompt of `time` tokens, counted from 0. UsageError when it is outside."""
    counted = position + time if position < 0 else position
    if not 0 <= counted < time:
        raise UsageError(f"The prompt has no token {position}.", f"It has {time}: 0 to {time - 1}, or -{time} to -1.")
    return counted
