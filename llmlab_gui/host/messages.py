"""What the model host says, as the window understands it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.core.records import from_plain
from llmlab.core.settings import Sampling
from llmlab.core.signs import count_text
from llmlab.data.example_preview import BatchText, Preview
from llmlab.models.replies import About, Expected
from llmlab.practice.question import Question
from llmlab_gui.host.selection import PromptToken, Working
from llmlab_gui.widgets.numbers import bytes_text

# The kinds of models as people call them.
KIND_NAMES = {
    "scratch": "trained here",
    "huggingface": "Hugging Face",
    "gguf": "GGUF",
    "adapter": "with adapter",
    "finetuned": "fine-tuned here",
    "live": "live run",
}
_FLOAT = 4  # bytes of a number in an archive


@dataclass(frozen=True)
class ModelAbout(About):
    """An open model as its process describes it, in the window's words."""

    @property
    def live(self) -> bool:
        """Whether it is a run's own model while it trains."""
        return self.kind == "live"

    @property
    def fine_tuned(self) -> bool:
        """Whether it is a base and what fine-tuning changed in it."""
        return self.kind in ("adapter", "finetuned")

    @property
    def kind_name(self) -> str:
        """Its kind in words."""
        return KIND_NAMES.get(self.kind, self.kind)

    @property
    def size_text(self) -> str:
        """`135M parameters · 538 MB`."""
        return f"{count_text(self.parameters)} parameters · {bytes_text(self.bytes)}"

    def pattern_bytes(self, tokens: int) -> int:
        """What all attention patterns of a prompt take on the disk: layers x heads x tokens² floats."""
        return self.n_layer * self.n_head * tokens * tokens * _FLOAT


@dataclass(frozen=True)
class Generation(Sampling):
    """How text is drawn; one seed gives one text. chat: the prompt is a user's turn, and the model answers it."""

    tokens: int = 120
    seed: int = 1337
    chat: bool = False
    temperature: float = 0.8
    top_k: int = 50


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


def cut_from(values: Mapping[str, Any]) -> TokenizedPrompt:
    """A `tokens` line."""
    cuts = map(PromptToken, values["ids"], values["texts"])
    return TokenizedPrompt(tuple(cuts), values["beginning"])


def readable(values: Any) -> Any:
    """Values of a line; half a surrogate pair in a token's text, which no widget can show, is the replacement sign."""
    if isinstance(values, str):
        return values if values.isascii() else values.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(values, dict):
        return {name: readable(value) for name, value in values.items()}
    return [readable(value) for value in values] if isinstance(values, list) else values


# What the lines hold that end a request well, by their event.
ANSWERS: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
    "next": lambda values: from_plain(Expected, readable(values)),
    "opened": lambda values: from_plain(ModelAbout, values["about"]),
    "tokens": lambda values: cut_from(readable(values)),
    "answered": lambda values: Path(values["path"]),
    "asked": lambda values: None if values["question"] is None else from_plain(Question, values["question"]),
    "read": lambda values: tuple(BatchText(*row) for row in readable(values["rows"])),
    "previewed": lambda values: from_plain(Preview, values["preview"]),
    "done": lambda values: float(values.get("seconds", 0.0)),
}
