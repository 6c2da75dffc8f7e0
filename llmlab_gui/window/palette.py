"""The command palette: everything that the window can do, found by its words, by others for it, or by a few letters."""

from __future__ import annotations

import heapq
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PySide6.QtCore import QAbstractListModel, QEvent, QModelIndex, QObject, QPersistentModelIndex, QRect, QSize, Qt
from PySide6.QtGui import QColor, QKeyEvent, QPainter
from PySide6.QtWidgets import QDialog, QLineEdit, QListView, QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from llmlab_gui.pages.search import SMALL
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import column
from llmlab_gui.widgets.theme import current_theme, mix

_ROOT = QModelIndex()
_MOST = 200
_ROW_PADDING = 12
_GAP = 14  # between the kind of a command and its text
_ROWS = 14  # in sight at once

# Where fewer commands have the words, those with the letters follow, and pages with the words.
_FEW = 6
_WORD = re.compile(r"[^\W_]+(?:'t\b)?")
_PLURAL = re.compile("..+[^s]s")
_NUMBERS = r"(?P<layer>\d{1,4})\.(?P<head>\d{1,4})\b(?!\.\d)"
# How people write a head: "head 1.2" and "remove 1.2" (not "remove 0.1 dropout"), "layer 1 head 2", "L1H2" and "L1.H2",
# "head 2 of layer 1".
_HEADS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\bheads? {_NUMBERS}",
        rf"(?<=remove |ablate ){_NUMBERS}(?=\W*(?:$|and\b|from\b|in\b))",
        r"\bl(?:ayer )?(?P<layer>\d{1,4})[,.]? ?h(?:ead )?(?P<head>\d{1,4})\b",
        r"\bhead (?P<head>\d{1,4}) (?:of|in) layer (?P<layer>\d{1,4})\b",
    )
]
# What a word is worth where it stands: the whole word, and its beginning.
_IN_TEXT, _IN_ALSO, _IN_ABOUT = (12.0, 9.0), (8.0, 5.0), (3.0, 1.0)
# Of equal matches, a workspace comes before its panel, what is done or shown before what is read, and runs, of which
# there are many, last.
_FIRST = {"Do": 3.0, "Show": 2.0, "Workspace": 2.5, "Theme": 1.5, "Term": 1.0, "Setting": 0.8, "Open run": -4.0}


@dataclass(frozen=True)
class Command:
    """text: what it does. kind: the quiet word before it. hint: a shortcut or a place, at the right.

    also: other words for it, unseen. about: what it means, quietly behind the text. at_head: the same at a head, called
    with its layer and its number.
    """

    text: str
    run: Callable[[], object]
    kind: str = ""
    hint: str = ""
    also: str = ""
    about: str = ""
    at_head: Callable[[int, int], object] | None = None

    def at(self, layer: int, head: int) -> Command:
        """The same at a head; as it is where it leads to none."""
        if self.at_head is None:
            return self
        return replace(self, text=f"{self.text}: head {layer}.{head}", run=partial(self.at_head, layer, head))


class Finder:
    """Commands by their words. All texts are cut into words once: a key then costs a few look-ups."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self.commands = list(commands)
        self._lower = [_plain(command.text) for command in self.commands]
        self._also = [command.also.lower() for command in self.commands]
        worth: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
        for place, command in enumerate(self.commands):
            also = f"{command.kind} {command.also}"
            for text, points in ((command.about, _IN_ABOUT), (also, _IN_ALSO), (command.text, _IN_TEXT)):
                for word in _words(text):
                    worth[word][place] = points  # the text's own words come last, and count most
        self._worth = dict(worth)
        self._sorted = sorted(worth)

    def find(self, wanted: str, search: Callable[[str], list[Command]] = lambda _: []) -> list[Command]:
        """Those that fit, best first; all of them, as they come, when nothing is wanted. Where a head is named, those
        that lead to one come first, and lead to that one; to the first, where there are several.

        search: pages that have the words, and last a search in all of them; asked where few commands fit. Commands
        that have but the letters come between the two.
        """
        if not wanted.strip():
            return self.commands[:_MOST]
        named = min(filter(None, (pattern.search(wanted) for pattern in _HEADS)), key=re.Match.start, default=None)
        if named is None:
            return self._find(wanted, search)
        for pattern in _HEADS:
            wanted = pattern.sub("head", wanted)
        at = [command.at(int(named["layer"]), int(named["head"])) for command in self._find(wanted, search)]
        return sorted(at, key=lambda command: command.at_head is None)

    def _find(self, wanted: str, search: Callable[[str], list[Command]]) -> list[Command]:
        places = self.by_words(wanted)
        if len(places) >= _FEW:
            return [self.commands[place] for place in places]
        places += [place for place in self.by_most_words(wanted) if place not in places]
        found, more = [self.commands[place] for place in places], search(wanted)
        if len(places) < _FEW:
            letters = [self.commands[place] for place in self.by_letters(wanted) if place not in places]
            more = [*more[:-1], *letters, *more[-1:]]
        listed = {command.text for command in found}
        found += [command for command in more if command.text not in listed]
        return found

    def by_words(self, wanted: str) -> list[int]:
        """The places of the commands that have all words of `wanted`, whole or begun, best first."""
        words = _words(wanted)
        words = meant(words)
        if not words:
            return []
        found = self._with(words[0])
        for word in words[1:]:
            more = self._with(word)
            found = {place: points + more[place] for place, points in found.items() if place in more}
        phrase = _plain(wanted).strip().rstrip("?!. ")
        scored = ((points + self._rank(place, phrase), -place) for place, points in found.items())
        return [-place for _, place in heapq.nlargest(_MOST, scored)]

    def by_most_words(self, wanted: str) -> list[int]:
        """The places of the commands that have at least half of the words of a question, best first; a question has
        three words or more that mean something. A number that stands in it is any number."""
        words = meant(_words(wanted))
        if len(words) < 3:
            return []
        words = [word for word in words if not word.isdigit()] or words
        found: dict[int, list[float]] = defaultdict(list)
        for word in words:
            for place, points in self._with(word).items():
                found[place].append(points)
        scored = (
            (sum(points) * len(points) + _FIRST.get(self.commands[place].kind, 0.0), -place)
            for place, points in found.items()
            if 2 * len(points) >= len(words)
        )
        return [-place for _, place in heapq.nlargest(_MOST, scored)]

    def by_letters(self, wanted: str) -> list[int]:
        """The places of the commands whose text has the letters of `wanted` in order, best first."""
        letters = "".join(_plain(wanted).split())
        scored = ((points, -place) for place, text in enumerate(self._lower) if (points := score(letters, text)))
        return [-place for _, place in heapq.nlargest(_MOST, scored)]

    def _with(self, word: str) -> dict[int, float]:
        """What each command with that word, or one that begins so, is worth."""
        found: dict[int, float] = {}
        for at in range(bisect_left(self._sorted, word), len(self._sorted)):
            known = self._sorted[at]
            if not known.startswith(word):
                break
            begun = known != word
            for place, points in self._worth[known].items():
                if points[begun] > found.get(place, 0.0):
                    found[place] = points[begun]
        return found

    def _rank(self, place: int, phrase: str) -> float:
        text, command = self._lower[place], self.commands[place]
        points = _FIRST.get(command.kind, 0.0) - 0.01 * len(text)
        if phrase in (text.partition(":")[0], self._also[place]):  # its name, or the one other name for it
            points += {"Setting": 8.5, "Learn": 9.5}.get(command.kind, 8.0)  # before the glossary's entry of its name
        elif phrase in text:
            points += 4.0 if text.startswith(phrase) else 2.0
        elif phrase in self._also[place]:  # the more of its words, the less by chance
            points += 2.0 * len(phrase.split())
        return points


def meant(words: list[str]) -> list[str]:
    """These words without those that every sentence has."""
    return [word for word in words if word not in SMALL] or words


def _plain(text: str) -> str:
    """In small letters, a setting's name in words: n_layer as n layer."""
    return text.lower().replace("_", " ")


def _words(text: str) -> list[str]:
    """In small letters, without the s of a plural."""
    found = _WORD.findall(_plain(text))
    return [word[:-1] if _PLURAL.fullmatch(word) and word not in SMALL else word for word in found]


def score(letters: str, text: str) -> float | None:
    """How well `text` has `letters`, in order; None when it lacks some. Higher is better. Both are in small letters.

    At each letter the next one that begins a word is taken, else the next one at all. The start of a word counts most,
    then a letter right after the one before; a third at most may do neither, or any long text would have any letters.
    """
    for leap in (True, False):  # a leap to the start of a word can pass what the letters after it need
        at, points, scattered = -1, 0.0, 0
        for letter in letters:
            before, at = at, text.find(letter, at + 1)
            start = at
            while leap and start > 0 and start != before + 1 and text[start - 1].isalnum():
                start = text.find(letter, start + 1)
            at = start if start >= 0 else at
            if at < 0:
                break
            follows, begins = at == before + 1, at == 0 or not text[at - 1].isalnum()
            points += (2.0 if follows else -0.1 * (at - before)) + (3.0 if begins else 0.0)
            scattered += not follows and not begins
            if 3 * scattered > len(letters):
                break
        else:
            return points - 0.01 * len(text) + 100.0  # above zero for any text that fits a row
    return None


class CommandPalette(QDialog):
    """A line to type in, and the commands that fit. Enter runs the chosen one, Escape closes."""

    def __init__(
        self, commands: Sequence[Command], parent: QWidget, search: Callable[[str], list[Command]] = lambda _: []
    ) -> None:
        """search: what else there is for some words; asked where few commands have them."""
        super().__init__(parent, Qt.WindowType.Popup | Qt.WindowType.FramelessWindowHint)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._finder, self._search = Finder(commands), search
        self.line = QLineEdit(placeholderText="Type to find a command, panel, setting, run, term or page")
        self.line.setAccessibleName("Command")
        self.list = labelled(QListView(), "Commands")
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.list.setUniformItemSizes(True)
        self.list.setItemDelegate(_CommandDelegate({command.kind for command in commands}, self.list))
        self._model = _CommandModel(self)
        self.list.setModel(self._model)
        column(self.line, self.list, into=self, margins=(8, 8, 8, 8))
        self.line.installEventFilter(self)
        self.line.textChanged.connect(self._filter)
        self.list.clicked.connect(lambda _: self._run())
        width = min(640, parent.width() - 40)
        self.setFixedWidth(width)
        self._filter()
        corner = parent.mapToGlobal(parent.rect().topLeft())
        self.move(corner.x() + (parent.width() - width) // 2, corner.y() + 60)
        self.line.setFocus()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            steps = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1, Qt.Key.Key_PageDown: 8, Qt.Key.Key_PageUp: -8}
            distance = steps.get(Qt.Key(event.key()))
            if distance is not None:
                last = self._model.rowCount() - 1
                place = self.list.currentIndex().row() + distance
                # One step beyond an end goes to the other.
                place = place % (last + 1) if abs(distance) == 1 and last >= 0 else min(max(place, 0), last)
                self.list.setCurrentIndex(self._model.index(place))
                return True
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self._run()
                return True
        return super().eventFilter(watched, event)

    def _filter(self) -> None:
        self._model.show(self._finder.find(self.line.text(), self._search))
        self.list.setCurrentIndex(self._model.index(0))
        rows = min(max(1, self._model.rowCount()), _ROWS)
        row_height = self.fontMetrics().height() + _ROW_PADDING
        self.list.setFixedHeight(rows * row_height + 2 * self.list.frameWidth() + 2)
        self.adjustSize()

    def _run(self) -> None:
        place = self.list.currentIndex().row()
        if 0 <= place < len(self._model.commands):
            command = self._model.commands[place]
            self.close()
            command.run()


class _CommandModel(QAbstractListModel):
    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.commands: list[Command] = []

    def show(self, commands: list[Command]) -> None:
        self.beginResetModel()
        self.commands = commands
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex = _ROOT) -> int:
        return 0 if parent.isValid() else len(self.commands)

    def data(self, index: QModelIndex | QPersistentModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        command = self.commands[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return command.text
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return f"{command.kind} {command.text} {command.about}".strip()
        return command if role == Qt.ItemDataRole.UserRole else None


class _CommandDelegate(QStyledItemDelegate):
    """Kind, text, and the shortcut at the right."""

    def __init__(self, kinds: Collection[str], parent: QWidget) -> None:
        """kinds: whose longest is left room for."""
        super().__init__(parent)
        self.kind_width = max((parent.fontMetrics().horizontalAdvance(kind) for kind in kinds), default=0) + _GAP

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        return QSize(200, option.fontMetrics.height() + _ROW_PADDING)

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        command: Command = index.data(Qt.ItemDataRole.UserRole)
        theme = current_theme()
        selected = bool(option.state & QStyle.StateFlag.State_Selected)
        rect: QRect = option.rect
        painter.save()
        if selected:
            painter.fillRect(rect, mix(theme.surface, theme.accent, 0.2))
        inside = rect.adjusted(8, 0, -8, 0)
        middle = Qt.AlignmentFlag.AlignVCenter
        hint_width = painter.fontMetrics().horizontalAdvance(command.hint) + 12
        shade = QColor(theme.text if selected else theme.quiet)
        painter.setPen(shade)
        painter.drawText(inside, middle | Qt.AlignmentFlag.AlignLeft, command.kind)
        painter.drawText(inside, middle | Qt.AlignmentFlag.AlignRight, command.hint)
        words = inside.adjusted(self.kind_width, 0, -hint_width, 0)
        for part, color in ((command.text, theme.text), (command.about, shade)):
            text = painter.fontMetrics().elidedText(part, Qt.TextElideMode.ElideRight, words.width())
            painter.setPen(QColor(color))
            painter.drawText(words, middle | Qt.AlignmentFlag.AlignLeft, text)
            words.setLeft(words.left() + painter.fontMetrics().horizontalAdvance(f"{text}   "))
        painter.restore()
