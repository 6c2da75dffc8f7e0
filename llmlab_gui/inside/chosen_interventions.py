"""Chosen interventions: as the core writes them, in words, and in the menu of a right click."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QPoint
from PySide6.QtWidgets import QMenu, QWidget

from llmlab.core.signs import minus
from llmlab_gui.host.selection import ChosenIntervention
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.alternatives import visible

PARTS = (
    ("head", "Head"),
    ("attention", "Attention"),
    ("feed_forward", "Feed-forward"),
    ("layer", "Layer"),
    ("token", "Token"),
)
HOWS = (("zero", "zero"), ("mean", "mean"), ("scale", "scale by"), ("patch", "patch from the source"))
_DONE = {"zero": "set to zero", "mean": "replaced by its mean", "patch": "patched from the source"}


def written(edit: ChosenIntervention) -> str:
    """`zero head:3.2`, `scale:0.5 feed_forward:3@5`, `patch token:5`."""
    how = f"scale:{edit.factor:g}" if edit.how == "scale" else edit.how
    if edit.part == "token":
        return f"{how} token:{max(edit.token, 0)}"
    head = f".{max(edit.head, 0)}" if edit.part == "head" else ""
    at = f"@{edit.token}" if edit.token >= 0 else ""
    return f"{how} {edit.part}:{edit.layer}{head}{at}"


def words(edit: ChosenIntervention, tokens: list[str]) -> str:
    """`Layer 3, head 2: set to zero`, with the position where only one token is meant."""
    done = f"scaled by {minus(f'{edit.factor:g}')}" if edit.how == "scale" else _DONE[edit.how]
    where = f" at token {edit.token}"
    if 0 <= edit.token < len(tokens):
        where += f" “{visible(tokens[edit.token])}”"
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


def edit_menu(lab: Lab, edits: Sequence[ChosenIntervention], parent: QWidget) -> QMenu:
    """An action for each edit; choosing one adds it and shows Interventions. The menu deletes itself."""
    session = lab.inspection
    menu = QMenu(parent)
    menu.aboutToHide.connect(menu.deleteLater)
    tokens = [token.text for token in session.tokens]
    for edit in edits:
        action = menu.addAction(words(edit, tokens))

        def add(_checked: bool = False, edit: ChosenIntervention = edit) -> None:
            session.add_intervention(edit)
            lab.dock_requested.emit("interventions")

        action.triggered.connect(add)
    return menu


def offer_interventions(lab: Lab, edits: Sequence[ChosenIntervention], parent: QWidget, where: QPoint) -> None:
    """Opens the menu at a place of the screen, if there is anything to change."""
    if edits and lab.inspection.about is not None:
        edit_menu(lab, edits, parent).popup(where)


def interventions_of_part(part: str, layer: int, head: int = -1) -> list[ChosenIntervention]:
    """What can be done to a part of a layer."""
    return [ChosenIntervention(part, layer, head, how=how) for how in ("zero", "mean", "patch")]  # type: ignore[arg-type]


def interventions_of_cell(layer: int, token: int) -> list[ChosenIntervention]:
    """What can be done to one layer at one token."""
    parts = ("layer", "attention", "feed_forward")
    silenced = [ChosenIntervention(part, layer, token=token) for part in parts]  # type: ignore[arg-type]
    return [*silenced, ChosenIntervention("layer", layer, token=token, how="patch")]
