"""What the window knows of the active model."""

from __future__ import annotations

from dataclasses import dataclass

from llmlab.models.replies import About
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
