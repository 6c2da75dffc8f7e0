"""What the window knows of the active model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmlab_gui.widgets.numbers import bytes_text, count_text

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
class ModelAbout:
    """An open model as its host describes it.

    reference: opens exactly this model again. parameters: how many numbers. bytes: of its weights in memory.
    memory_bytes: of the host's process. refusals: why something cannot be shown, by the fields of
    `llmlab.anatomy.anatomy.Refusals`.
    """

    reference: str
    name: str
    kind: str
    step: int | None = None
    parameters: int = 0
    bytes: int = 0
    family: str = ""
    n_layer: int = 0
    n_head: int = 0
    n_embd: int = 0
    vocab_size: int = 0
    context: int = 0
    refusals: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 0

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


def about_from(values: Mapping[str, Any]) -> ModelAbout:
    """The host's description. KeyError, TypeError or ValueError when it is none; unknown fields are passed over."""
    numbers = {
        name: int(values.get(name) or 0)
        for name in ("parameters", "bytes", "n_layer", "n_head", "n_embd", "vocab_size", "context", "memory_bytes")
    }
    step = values.get("step")
    return ModelAbout(
        reference=str(values["reference"]),
        name=str(values["name"]),
        kind=str(values["kind"]),
        step=None if step is None else int(step),
        family=str(values.get("family") or ""),
        refusals={str(aspect): str(reason) for aspect, reason in dict(values.get("refusals") or {}).items()},
        **numbers,
    )
