"""What the model host says, as the window understands it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmlab_gui.host.selection import PromptToken

Alternatives = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Generation:
    """How text is drawn. temperature 0 takes the likeliest token; top_k 0 means all; one seed gives one text.

    chat: the prompt is a user's turn, and the model answers it.
    """

    tokens: int = 120
    temperature: float = 0.8
    top_k: int = 50
    seed: int = 1337
    chat: bool = False


@dataclass(frozen=True)
class Token:
    """One generated token. probability and alternatives are the model's own, at temperature 1."""

    text: str
    probability: float
    alternatives: Alternatives = ()


@dataclass(frozen=True)
class NextToken:
    """What the model expects next. entropy: of the whole distribution, in nats."""

    alternatives: Alternatives
    entropy: float


@dataclass(frozen=True)
class HostProgress:
    """How far a request is. done of total, in any unit; total 0 if unknown. eta_seconds: until it is answered."""

    what: str
    done: float = 0.0
    total: float = 0.0
    eta_seconds: float | None = None

    @property
    def share(self) -> float | None:
        """From 0 to 1; None if unknown."""
        return min(max(self.done / self.total, 0.0), 1.0) if self.total > 0 else None


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as a model's tokenizer cuts it. beginning: the id that texts begin with, if the model has one."""

    tokens: tuple[PromptToken, ...]
    beginning: int | None = None


@dataclass(frozen=True)
class ModelRow:
    """Something that can be opened. detail: what it is, in a few words."""

    reference: str
    name: str
    kind: str
    detail: str = ""


def progress_from(values: Mapping[str, Any]) -> HostProgress:
    """A `progress` line."""
    eta = values.get("eta_seconds")
    return HostProgress(
        str(values.get("what") or ""),
        float(values.get("done") or 0.0),
        float(values.get("total") or 0.0),
        None if eta is None else float(eta),
    )


def cut_from(values: Mapping[str, Any]) -> TokenizedPrompt:
    """A `tokens` line."""
    pairs = zip(values["ids"], values["texts"], strict=True)
    beginning = values.get("beginning")
    cuts = tuple(PromptToken(int(number), text_of(text)) for number, text in pairs)
    return TokenizedPrompt(cuts, None if beginning is None else int(beginning))


def rows_from(values: Mapping[str, Any]) -> list[ModelRow]:
    """A `models` line."""
    return [
        ModelRow(str(row["reference"]), str(row["name"]), str(row["kind"]), str(row.get("detail") or ""))
        for row in values["rows"]
    ]


def alternatives_from(pairs: Any) -> Alternatives:
    """Tokens with their probabilities."""
    return tuple((text_of(text), float(probability)) for text, probability in pairs)


def text_of(value: Any) -> str:
    """A token's text; half a surrogate pair, which no widget can show, becomes the replacement sign."""
    return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
