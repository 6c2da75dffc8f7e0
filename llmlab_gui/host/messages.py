"""What the model host says, as the window understands it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.core.records import from_plain
from llmlab.data.example_preview import BatchText, Preview
from llmlab.practice.question import question_from
from llmlab_gui.host.about import about_from
from llmlab_gui.host.selection import PromptToken, Working

Alternatives = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Generation:
    """How text is drawn (`llmlab.core.settings.Sampling`); one seed gives one text.

    chat: the prompt is a user's turn, and the model answers it.
    """

    tokens: int = 120
    temperature: float = 0.8
    top_k: int = 50
    seed: int = 1337
    chat: bool = False
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class SamplingStep:
    """What one setting made of the distribution. left: how many tokens could be drawn after it.

    rows: the most likely tokens before it, with their probabilities before and after.
    """

    name: str
    left: int
    rows: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Token:
    """One generated token. probability and alternatives are the model's own, at temperature 1.

    steps: what the settings of sampling made of them, in order.
    """

    text: str
    probability: float
    alternatives: Alternatives = ()
    steps: tuple[SamplingStep, ...] = ()


@dataclass(frozen=True)
class BigramShares:
    """How a model's training text goes on after the token `last` (`llmlab.models.bigrams.BigramShares`)."""

    last: str
    occurrences: int
    shares: tuple[float, ...]
    overlap: float
    most: Alternatives
    beginning: int


@dataclass(frozen=True)
class NextToken:
    """What the model expects next. entropy: of the whole distribution, in nats. unread: how many tokens at the
    beginning of the prompt are beyond the model's context. bigrams: None for a model without a text of its own here;
    no_bigrams: why, where someone may expect them."""

    alternatives: Alternatives
    entropy: float
    unread: int = 0
    bigrams: BigramShares | None = None
    no_bigrams: str = ""


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as a model's tokenizer cuts it. beginning: the id that texts begin with, if the model has one."""

    tokens: tuple[PromptToken, ...]
    beginning: int | None = None


def progress_from(values: Mapping[str, Any]) -> Working:
    """A `progress` line: done of total, in any unit; total 0 if unknown."""
    done, total = float(values.get("done") or 0.0), float(values.get("total") or 0.0)
    eta = values.get("eta_seconds")
    return Working(
        str(values.get("what") or ""),
        min(max(done / total, 0.0), 1.0) if total > 0 else None,
        None if eta is None else float(eta),
    )


def token_from(values: Mapping[str, Any]) -> Token:
    """A `token` line."""
    alternatives, steps = alternatives_from(values.get("top", ())), map(_step_from, values.get("steps", ()))
    return Token(text_of(values["text"]), float(values["probability"]), alternatives, tuple(steps))


def _step_from(values: Mapping[str, Any]) -> SamplingStep:
    rows = ((text_of(text), float(before), float(after)) for text, before, after in values["rows"])
    return SamplingStep(str(values["name"]), int(values["left"]), tuple(rows))


def cut_from(values: Mapping[str, Any]) -> TokenizedPrompt:
    """A `tokens` line."""
    pairs = zip(values["ids"], values["texts"], strict=True)
    beginning = values.get("beginning")
    cuts = tuple(PromptToken(int(number), text_of(text)) for number, text in pairs)
    return TokenizedPrompt(cuts, None if beginning is None else int(beginning))


def alternatives_from(pairs: Any) -> Alternatives:
    """Tokens with their probabilities."""
    return tuple((text_of(text), float(probability)) for text, probability in pairs)


def _bigrams_from(values: Mapping[str, Any]) -> BigramShares:
    return BigramShares(
        text_of(values["last"]),
        int(values["occurrences"]),
        tuple(map(float, values["shares"])),
        float(values["overlap"]),
        alternatives_from(values["most"]),
        int(values["beginning"]),
    )


def text_of(value: Any) -> str:
    """A token's text; half a surrogate pair, which no widget can show, becomes the replacement sign."""
    return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# What the lines hold that end a request well, by their event.
ANSWERS: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
    "next": lambda values: NextToken(
        alternatives_from(values["top"]),
        float(values["entropy"]),
        int(values.get("unread", 0)),
        _bigrams_from(values["bigrams"]) if values.get("bigrams") else None,
        str(values.get("no_bigrams", "")),
    ),
    "opened": lambda values: about_from(values["about"]),
    "tokens": cut_from,
    "answered": lambda values: Path(values["path"]),
    "asked": lambda values: None if values["question"] is None else question_from(values["question"]),
    "read": lambda values: tuple(
        BatchText(text_of(text), None if loss is None else float(loss)) for text, loss in values["rows"]
    ),
    "previewed": lambda values: from_plain(Preview, values["preview"]),
    "done": lambda values: float(values.get("seconds", 0.0)),
}
