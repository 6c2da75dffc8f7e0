"""The menu of a right click in any inspection panel: change what was clicked, and see what the model says then."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QPoint
from PySide6.QtWidgets import QMenu, QWidget

from llmlab_gui.docks.edit_words import words
from llmlab_gui.inspection.selection import ChosenEdit
from llmlab_gui.lab import Lab


def edit_menu(lab: Lab, edits: Sequence[ChosenEdit], parent: QWidget) -> QMenu:
    """An action for each edit; choosing one adds it and shows Interventions. The menu deletes itself."""
    session = lab.inspection
    menu = QMenu(parent)
    menu.aboutToHide.connect(menu.deleteLater)
    tokens = [token.text for token in session.tokens]
    for edit in edits:
        action = menu.addAction(words(edit, tokens))

        def add(_checked: bool = False, edit: ChosenEdit = edit) -> None:
            session.add_edit(edit)
            lab.dock_requested.emit("interventions")

        action.triggered.connect(add)
    return menu


def offer_edits(lab: Lab, edits: Sequence[ChosenEdit], parent: QWidget, where: QPoint) -> None:
    """Opens the menu at a place of the screen, if there is anything to change."""
    if edits and lab.inspection.about is not None:
        edit_menu(lab, edits, parent).popup(where)


def edits_of_part(part: str, layer: int, head: int = -1) -> list[ChosenEdit]:
    """What can be done to a part of a layer."""
    return [ChosenEdit(part, layer, head, how=how) for how in ("zero", "mean", "patch")]  # type: ignore[arg-type]


def edits_of_cell(layer: int, token: int) -> list[ChosenEdit]:
    """What can be done to one layer at one token."""
    parts = ("layer", "attention", "feed_forward")
    silenced = [ChosenEdit(part, layer, token=token) for part in parts]  # type: ignore[arg-type]
    return [*silenced, ChosenEdit("layer", layer, token=token, how="patch")]
