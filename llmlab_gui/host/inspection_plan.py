"""What an inspection asks for at once, so that a long prompt stays cheap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmlab.core.errors import LabError
from llmlab.data.token_bytes import spelled
from llmlab.inspection.questions import ASPECTS, REFUSED_BY
from llmlab_gui.host.messages import ModelAbout
from llmlab_gui.widgets.numbers import bytes_text

# Beyond this the patterns of all heads are not kept; a head that someone looks at is asked for by itself.
PATTERNS_LIMIT = 64_000_000
# The same for the rollout, which is one pattern a layer.
_ROLLOUT_LIMIT = 2_000_000_000
_FLOAT = 4
# Multiplications and additions of a lens beyond which it comes after everything else: about a second of one core.
_QUICK_LENS = 5e10


def what_to_ask(about: ModelAbout | None, tokens: int, wanted: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
    """The aspects to ask for, of those wanted, and sentences that say what is left out and why.

    Aspects that the model refuses are never asked for: the panels say why by themselves.
    """
    if about is None:
        return (), []
    asked = {aspect for aspect in wanted if refusal_of(about, aspect) is None}
    said = []
    size = about.pattern_bytes(tokens)
    if "attention" in asked and size > PATTERNS_LIMIT:
        asked.discard("attention")
        said.append(f"All patterns would take {bytes_text(size)}: each head is computed when you choose it.")
    rollout = about.n_layer * tokens * tokens * _FLOAT
    if "rollout" in asked and rollout > _ROLLOUT_LIMIT:
        asked.discard("rollout")
        said.append(f"The rollout would take {bytes_text(rollout)} and is left out.")
    return tuple(aspect for aspect in ASPECTS if aspect in asked), said


def slow_aspects(about: ModelAbout, tokens: int) -> tuple[str, ...]:
    """Slow for the other panels: the lens unembeds every token at 2 L + 1 points of the residual stream."""
    cost = 2.0 * (2 * about.n_layer + 1) * tokens * about.n_embd * about.vocab_size
    return ("lens",) if cost > _QUICK_LENS else ()


def refusal_of(about: ModelAbout, aspect: str) -> str | None:
    """Why the model cannot be asked for an aspect; None when it can."""
    return next((about.refusals[field] for field in REFUSED_BY[aspect] if field in about.refusals), None)


def first_tokens(text: str, texts: Sequence[str]) -> str:
    """The part of a text that its first tokens are, by their own texts; always shorter than a text that has more."""
    part = spelled(texts)
    if not text.startswith(" "):
        part = part.removeprefix(" ")  # that a tokenizer put there
    return text[: min(len(part), max(len(text) - 1, 0))]


def too_long(about: ModelAbout, tokens: int) -> LabError:
    """What is said of a prompt beyond the model's context."""
    return LabError(
        f"The prompt is longer than {about.name} can read.",
        f"It has {tokens:,} tokens; the model reads {about.context:,}.",
        "Shorten it.",
    )
