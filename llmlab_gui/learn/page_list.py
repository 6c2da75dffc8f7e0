"""The list of pages beside a page, in groups, and the combo box that takes its place where there is no room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtWidgets import QComboBox, QListWidget, QListWidgetItem

from llmlab_gui.pages.page import Page

_NAME = int(Qt.ItemDataRole.UserRole)


class PageList(QListWidget):
    """Titles under the names of their groups, which cannot be chosen: the arrow keys pass over them."""

    chosen = Signal(str)  # the name of a page

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Pages")
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)  # titles are cut, and whole in tips
        self.currentItemChanged.connect(self._moved)

    def fill(self, pages: Sequence[Page], current: str, counts: Mapping[str, int] | None = None) -> None:
        """Lists these pages. counts: how often each has what was searched for."""
        with QSignalBlocker(self):
            self.clear()
            group = ""
            for page in pages:
                if page.group != group:
                    group = page.group
                    self.addItem(_heading(group))
                item = QListWidgetItem(f"{page.title}  ({counts[page.name]})" if counts else page.title)
                item.setData(_NAME, page.name)
                item.setToolTip(page.title)
                self.addItem(item)
        self.mark(current)

    def mark(self, name: str) -> None:
        """Shows which page is read, without choosing it."""
        with QSignalBlocker(self):
            for row in range(self.count()):
                if self.item(row).data(_NAME) == name:
                    self.setCurrentRow(row)

    def titles(self) -> list[str]:
        """What it lists, headings left out."""
        items = [self.item(row) for row in range(self.count())]
        return [item.text() for item in items if item.data(_NAME)]

    def _moved(self, item: QListWidgetItem | None) -> None:
        if item is not None and item.data(_NAME):
            self.chosen.emit(item.data(_NAME))


def fill_combo(combo: QComboBox, pages: Sequence[Page]) -> None:
    """The same in a combo box, with a line between groups; each entry's data is its page's name."""
    group = ""
    for page in pages:
        if group and page.group != group:
            combo.insertSeparator(combo.count())
        group = page.group
        combo.addItem(page.title, page.name)


def _heading(group: str) -> QListWidgetItem:
    item = QListWidgetItem(group)
    font = item.font()
    font.setBold(True)
    item.setFont(font)
    item.setFlags(Qt.ItemFlag.NoItemFlags)
    return item
