"""The question before checkpoints are deleted."""

from __future__ import annotations

from PySide6.QtWidgets import QMessageBox, QWidget

from llmlab_gui.train.checkpoint_rows import Deletion


def confirm_deletion(parent: QWidget, plan: Deletion, left: int) -> bool:
    """Asks, and says what stays. left: how many checkpoints the run has afterwards."""
    names = ", ".join(row.name for row in plan.rows[:8]) + (" and more" if len(plan.rows) > 8 else "")
    last = " The run has no other: it can then neither be resumed nor prompted." if left <= 0 else ""
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Warning)
    box.setWindowTitle("Delete")
    box.setText(f"Delete {len(plan.rows)} checkpoint{'s' if len(plan.rows) != 1 else ''}?")
    box.setInformativeText(f"{names}.{last} This cannot be undone. {' '.join(plan.kept)}".strip())
    delete = box.addButton("Delete", QMessageBox.ButtonRole.DestructiveRole)
    box.setDefaultButton(box.addButton(QMessageBox.StandardButton.Cancel))
    box.exec()
    chosen = box.clickedButton() is delete
    box.deleteLater()
    return chosen
