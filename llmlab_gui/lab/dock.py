"""What every dock has: its name, a caption that says what it shows, and an empty state that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from PySide6.QtCore import QEvent, QPoint, QRect, QSize, QSortFilterProxyModel, Qt, Signal
from PySide6.QtGui import QKeyEvent, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QBoxLayout,
    QDockWidget,
    QFrame,
    QMenu,
    QScrollArea,
    QSizePolicy,
    QStackedWidget,
    QStyle,
    QWidget,
)

from llmlab_gui.host.progress_strip import ProgressStrip
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.pages.library import load_pages, with_terms
from llmlab_gui.pages.places import pages_of
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.labels import EmptyState, QuietLabel
from llmlab_gui.widgets.layouts import beside, column, settling_timer
from llmlab_gui.widgets.row_tables import RowsModel
from llmlab_gui.widgets.saving import save_csv
from llmlab_gui.widgets.tab_order import give_keyboard, main_part, move_on, stops

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")

_MORE = "more:"
_KEEP_MS = 2000  # after the last change, so that no file is written at each key
# Pixels of content that a dock keeps. Two docks above each other, with their titles and tabs, then fit 640 of height.
_LEAST = QSize(120, 64)


class LabDock(QDockWidget):
    """A dock named `dock.<id>`. Subclasses call `set_body` once, then `show_body` and `show_empty` as they need."""

    def __init__(self, lab: Lab, dock_id: str, title: str, parent: QWidget | None = None) -> None:
        super().__init__(title, parent)
        self.lab = lab
        self._settings: WindowSettings | None = None
        self._keeping = settling_timer(self, _KEEP_MS, self.keep)
        self.setObjectName(f"dock.{dock_id}")
        self.setAccessibleName(title)
        self._background = Background(self)
        self._body: QWidget | None = None
        self._empty = EmptyState()
        self._stack = _Pages()
        self._stack.addWidget(self._empty)
        self._caption = _Caption()
        self._caption.followed.connect(self._follow_caption)
        self._caption.hide()
        self._room = _Room(self._stack)
        self._whole = column((self._room, 1), self._caption, spacing=4, margins=(8, 4, 8, 6))
        self.setWidget(self._whole)
        float_button = self.findChild(QAbstractButton, "qt_dockwidget_floatbutton")
        self._docked_at = QRect()  # on the screen, before its button is pressed
        if float_button is not None:
            float_button.pressed.connect(self._note_place)
            float_button.clicked.connect(self._come_beside)  # after Qt's own slot

    def event(self, event: QEvent) -> bool:
        """A double click on the title lets it float, as its button does."""
        if event.type() != QEvent.Type.MouseButtonDblClick:
            return super().event(event)
        self._note_place()
        done = super().event(event)
        self._come_beside()
        return done

    def set_body(self, widget: QWidget) -> None:
        """The dock's content. What has a minimum width is never scrolled sideways: the dock keeps that width."""
        self._body = widget
        self._stack.addWidget(widget)
        self._room.updateGeometry()  # which may have another least width now
        self.show_body()

    def set_foot(self, widget: QWidget) -> None:
        """What stays in sight under the content, however low the dock is."""
        cast("QBoxLayout", self._whole.layout()).insertWidget(1, widget)

    def caption(self, text: str, concept: str) -> None:
        """The quiet line under the content: what it shows, linked to its terms and to the pages that explain it."""
        links = f'<a href="concept:{concept}">Learn more</a>'
        if self._other_pages(concept):
            links += f' · <a href="{_MORE}{concept}">Other pages</a>'
        self._caption.say(text, links)
        self._caption.show()

    def show_body(self) -> None:
        """Shows the content again after `show_empty`."""
        if self._body is not None:
            self._leave_empty()
            self._stack.setCurrentWidget(self._body)
            self._hand_on()

    def show_empty(
        self, title: str, hint: str, action_text: str = "", slot: Callable[[], object] | None = None
    ) -> None:
        """Shows, instead of the content, why there is none and what to do; with a button when there is a `slot`."""
        if not action_text:
            self._leave_empty()
        self._empty.say(title, hint, action_text, slot)
        self._stack.setCurrentWidget(self._empty)
        if action_text:
            self._hand_on()

    def _leave_empty(self) -> None:
        """Takes the keyboard from a button that goes, which Qt would give to the next stop of Tab."""
        if self._empty.isAncestorOf(self.window().focusWidget()):
            self._stack.setFocus()

    def _hand_on(self) -> None:
        """The keyboard to what has come, where the button that was pressed for it had it, and nobody has moved it; as
        soon as the window has it, where that is not active."""
        if self.window().focusWidget() is self._stack:
            give_keyboard(self.main_part() or self.widget(), Qt.FocusReason.ShortcutFocusReason)

    def show_no_run(self, hint: str, title: str = "No run is selected") -> None:
        """Shows, instead of the content, that there is no run to show, and the way to one."""
        self.show_empty(title, hint, "Set up a run", lambda: self.lab.dock_requested.emit("setup"))

    def page_menu(self, shown: str) -> QMenu:
        """The dock's concept pages by their titles, without the one that is linked already."""
        menu = QMenu(self)
        titles = {page.name: page.title for page in load_pages()}
        for name in self._other_pages(shown):
            menu.addAction(titles.get(name, name).replace("&", "&&"), partial(self.lab.concept_requested.emit, name))
        return menu

    def _note_place(self) -> None:
        self._docked_at = QRect() if self.isFloating() else QRect(self.mapToGlobal(QPoint(0, 0)), self.size())

    def _come_beside(self) -> None:
        """What begins to float does not lie over its old place, which others have taken."""
        if self.isFloating() and self._docked_at.isValid():
            frame = self.frameSize() - self.size()
            place = place_beside(self._docked_at, self.frameSize(), self.screen().availableGeometry())
            self.resize(place.size() - frame)
            self.move(place.topLeft())
        self._docked_at = QRect()

    def _other_pages(self, shown: str) -> list[str]:
        return [name for name in pages_of(self.objectName().removeprefix("dock.")) if name != shown]

    def _follow_caption(self, link: str) -> None:
        if link.startswith(_MORE):
            menu = self.page_menu(link.removeprefix(_MORE))
            menu.aboutToHide.connect(menu.deleteLater)
            links = self._caption.links
            menu.popup(links.mapToGlobal(links.rect().bottomLeft()))
        else:
            self.lab.concept_requested.emit(link.removeprefix("concept:").replace("glossary:", "glossary#"))

    def main_part(self) -> QWidget | None:
        """What the panel is for, which gets the keyboard when someone comes here for it; None: nothing is there."""
        return main_part(self.widget())

    def take_keyboard(self, *, again: bool = False) -> None:
        """Gives the keyboard to the main part. again: to what had it here last, if that is still there and no caption,
        at which Tab leaves a panel."""
        last = self.widget().focusWidget() if again else None
        if last is None or self._caption.isAncestorOf(last) or last not in stops(self.widget()):
            last = self.main_part()
        if QApplication.activeModalWidget() is None:
            self.window().activateWindow()  # a floating panel is one of its own
        give_keyboard(last or self.widget(), Qt.FocusReason.ShortcutFocusReason)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Escape is the window's, also from a panel that floats: a message is dismissed before work is ended."""
        window = self.parentWidget()
        if event.key() == Qt.Key.Key_Escape and self.isFloating() and window is not None:
            QApplication.sendEvent(window, event)
        else:
            super().keyPressEvent(event)

    def cancel_work(self) -> bool:
        """Ends the one piece of work that can be cancelled here; False where there is none, or more than one."""
        buttons = [strip.cancel_button for strip in self.findChildren(ProgressStrip)]
        running = [button for button in buttons if button.isVisible()]
        if len(running) != 1:
            return False
        running[0].click()
        return True

    def focusNextPrevChild(self, forward: bool) -> bool:
        """Tab; in a window that is the panel's own, in the same order."""
        return move_on(self, forward=forward) if self.isWindow() else super().focusNextPrevChild(forward)

    def remember(self, settings: WindowSettings) -> None:
        """Takes up what was chosen here at an earlier start, and keeps what is chosen from now on."""
        self._settings = settings

    def keep(self) -> None:
        """Writes what `remember` takes up: when the window closes and, where `keep_later` is called, before."""

    def keep_later(self, *_: object) -> None:
        """Something was changed: that is kept as soon as nothing more is changed for a moment."""
        self._keeping.start()

    def save_draft(self, name: str, draft: DataclassInstance) -> None:
        """Keeps what a form was left with, for this outputs folder; nothing before `remember`."""
        if self._settings is not None:
            self._settings.save_choices(self._settings.draft_key(name, self.lab.outputs), draft)

    def draft_left(self, name: str, kind: type[T]) -> T | None:
        """What `save_draft` kept; None where there is nothing that fits."""
        if self._settings is None:
            return None
        return self._settings.choices(self._settings.draft_key(name, self.lab.outputs), kind)

    def write_file(self, work: Callable[[], object], path: Path) -> None:
        """Calls `work`, which writes the file, in the background; and says so."""
        self._background.run(work, lambda _: self.lab.said.emit(f"Saved {path}."), self.lab.error_raised.emit)

    def write_table(self, model: RowsModel[Any], path: Path, shown: QSortFilterProxyModel | None = None) -> None:
        """A table, as CSV, in the background. shown: which of its rows, in which order."""
        self.write_file(partial(save_csv, *model.table(shown), path), path)

    def shutdown(self) -> None:
        """Ends what still works for this dock, and for anything in it, and waits for it. Called once, before the window
        goes.
        """
        self._keeping.stop()
        self.keep()
        for work in self.findChildren(Background):
            work.shutdown()


class _Pages(QStackedWidget):
    """The content, and what stands in its place while there is none."""

    def focusNextPrevChild(self, forward: bool) -> bool:
        """Tab. Qt also asks where a page with the keyboard is turned, and then gives it to the other page itself; it
        stays here where that page had it at what is disabled now."""
        page = self.currentWidget()
        if page is not None and page.isHidden():
            self.setFocus()
            return True
        return super().focusNextPrevChild(forward)


class _Room(QScrollArea):
    """What a dock shows, scrolled where the dock is smaller than its content's least size."""

    def __init__(self, pages: QStackedWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._content = _Filled(pages)
        self.setWidget(self._content)

    def minimumSizeHint(self) -> QSize:
        """Small; but as wide as a page says that it has to be, which scrolls up and down only."""
        least = self._content.minimumSizeHint().boundedTo(_LEAST)
        if self._content.least_width:
            bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
            least.setWidth(self._content.least_width + bar)
        return least


class _Filled(QWidget):
    """Filled by the pages of a stack, and as large as the one in sight needs.

    It has no layout: a scroll area would ask one with wrapped text for the height that it likes best, and scroll what
    can be smaller.
    """

    def __init__(self, pages: QStackedWidget) -> None:
        super().__init__()
        self._pages = pages
        pages.setParent(self)
        pages.currentChanged.connect(lambda _: self.updateGeometry())

    @property
    def least_width(self) -> int:
        """What the widest of the pages has as its minimum width; 0 where none has one."""
        pages = (self._pages.widget(place) for place in range(self._pages.count()))
        return max((page.minimumWidth() for page in pages if page is not None), default=0)

    def sizeHint(self) -> QSize:
        return self._page().sizeHint()

    def minimumSizeHint(self) -> QSize:
        return self._page().minimumSizeHint()

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.LayoutRequest:  # the page needs another size; a layout would pass that on
            self.updateGeometry()
        return super().event(event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._pages.setGeometry(self.rect())

    def _page(self) -> QWidget:
        return self._pages.currentWidget() or self._pages


class _Caption(QWidget):
    """One quiet line, and the links behind it; the tool tip has what does not fit."""

    followed = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._words = ""
        self.text, self.links = QuietLabel(), QuietLabel()
        for label in (self.text, self.links):
            label.setWordWrap(False)
            label.linkActivated.connect(self.followed)
        self.text.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.links.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        beside(self.text, self.links, grows=self.text, into=self)

    def say(self, words: str, links: str) -> None:
        """Replaces both."""
        self._words = words
        self.text.setToolTip(words)
        self.text.setAccessibleName(words)  # all of them, also those that have no room
        self.links.setText(links)
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        shown = self.text.fontMetrics().elidedText(self._words, Qt.TextElideMode.ElideRight, self.text.width())
        self.text.setText(with_terms(shown))


def place_beside(taken: QRect, size: QSize, screen: QRect) -> QRect:
    """A place of that size inside the screen, right of, left of, below or above what is taken; where there is no room
    on any side, where least of it is covered."""
    room = size.boundedTo(screen.size())
    wide, high = room.width(), room.height()
    found = []
    for x, y in (
        (taken.right() + 1, taken.top()),
        (taken.left() - wide, taken.top()),
        (taken.left(), taken.bottom() + 1),
        (taken.left(), taken.top() - high),
    ):
        left = min(max(x, screen.left()), screen.right() + 1 - wide)
        top = min(max(y, screen.top()), screen.bottom() + 1 - high)
        found.append(QRect(QPoint(left, top), room))

    def covers(place: QRect) -> int:
        both = place.intersected(taken)
        return both.width() * both.height()

    return min(found, key=covers)


def is_seen(dock: QDockWidget) -> bool:
    """Whether a dock is shown, and not behind another in the same place."""
    return dock.isVisible() and not dock.visibleRegion().isEmpty()
