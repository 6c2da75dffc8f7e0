"""Chosen edits as the core writes them (llmlab.inspection.edits), and as people read them. Knows no Qt."""

from __future__ import annotations

from llmlab_gui.inspection.selection import ChosenEdit

PARTS = (
    ("head", "Head"),
    ("attention", "Attention"),
    ("feed_forward", "Feed-forward"),
    ("layer", "Layer"),
    ("token", "Token"),
)
HOWS = (("zero", "zero"), ("mean", "mean"), ("scale", "scale by"), ("patch", "patch from the source"))
_DONE = {"zero": "set to zero", "mean": "replaced by its mean", "patch": "patched from the source"}


def written(edit: ChosenEdit) -> str:
    """`zero head:3.2`, `scale:0.5 feed_forward:3@5`, `patch token:5`."""
    how = f"scale:{edit.factor:g}" if edit.how == "scale" else edit.how
    if edit.part == "token":
        return f"{how} token:{max(edit.token, 0)}"
    head = f".{max(edit.head, 0)}" if edit.part == "head" else ""
    at = f"@{edit.token}" if edit.token >= 0 else ""
    return f"{how} {edit.part}:{edit.layer}{head}{at}"


def words(edit: ChosenEdit, tokens: list[str]) -> str:
    """`Layer 3, head 2: set to zero`, with the place where only one token is meant."""
    done = f"scaled by {edit.factor:g}" if edit.how == "scale" else _DONE[edit.how]
    where = f" at token {edit.token}"
    if 0 <= edit.token < len(tokens):
        where += f" “{tokens[edit.token]}”"
    match edit.part:
        case "token":
            return f"Embedding{where}: {done}"
        case "head":
            part = f"Layer {edit.layer}, head {max(edit.head, 0)}"
        case "layer":
            part = f"Layer {edit.layer}, whole block"
        case _:
            part = f"Layer {edit.layer}, {edit.part.replace('_', '-')}"
    return f"{part}{where if edit.token >= 0 else ''}: {done}"
