"""The table of samples: one column per step and one row per prompt, texts wrapped and read like prose."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from PySide6.QtCore import QAbstractItemModel, QAbstractTableModel, QModelIndex, QRect, QSize, Qt
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontDatabase,
    QGuiApplication,
    QPainter,
    QResizeEvent,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
    QTextOption,
)
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTextEdit,
    QWidget,
)

from llmlab_gui.train.samples_data import NO_SAMPLES, SampleTable
from llmlab_gui.widgets.layouts import settling_timer
from llmlab_gui.widgets.row_tables import CopyingTable, Index
from llmlab_gui.widgets.theme import current_theme, faded, theme_notifier

_ROOT = QModelIndex()
# Longer texts are cut in the table; copying and exporting give all of them.
SHOWN_CHARACTERS = 4000
COLUMN_WIDTH = 165
_MARGIN = 8
PROMPT_ROLE = Qt.ItemDataRole.UserRole
TEXT_ROLE = Qt.ItemDataRole.UserRole + 1


class SamplesModel(QAbstractTableModel):
    """Some steps of a SampleTable."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._table = NO_SAMPLES
        self.steps: list[int] = []
        self.prompts: list[str] = []

    def show(self, table: SampleTable, steps: list[int]) -> None:
        """Replaces what is shown."""
        self.beginResetModel()
        self._table, self.steps, self.prompts = table, steps, table.prompts(steps)
        self.endResetModel()

    def rowCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(self.prompts)

    def columnCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(self.steps)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        prompt = self.prompts[index.row()]
        text = self._table.texts[self.steps[index.column()]].get(prompt)
        if role == PROMPT_ROLE:
            return prompt if text is not None else ""
        if role == TEXT_ROLE:
            return text or ""
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.AccessibleTextRole):
            return prompt + text[:SHOWN_CHARACTERS] if text is not None else ""
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role != Qt.ItemDataRole.DisplayRole or orientation != Qt.Orientation.Horizontal:
            return None
        step = self.steps[section]
        newest = " · newest" if step == self._table.steps[-1] else ""
        before = " · before training" if step == 0 else ""
        return f"step {step:,}{newest or before}\n{self._table.loss(step)}"

    def flags(self, index: Index) -> Qt.ItemFlag:
        # Editable only in the sense that a double click opens the text for selecting; nothing is written back.
        return Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEditable


class SamplesView(CopyingTable):
    """Columns share the width, rows are as high as their longest text."""

    def __init__(self) -> None:
        super().__init__()
        self.samples = SamplesModel(self)
        self.setModel(self.samples)
        self._delegate = _TextDelegate(self)
        self.setItemDelegate(self._delegate)
        self.setAccessibleName("Samples: one column per step, one row per prompt")
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setWordWrap(True)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.horizontalHeader().setSectionsClickable(False)
        self.horizontalHeader().setHighlightSections(False)
        self.setTabKeyNavigation(False)
        self._settle = settling_timer(self, 0, self._lay_out)
        self.samples.modelReset.connect(self._settle.start)
        theme_notifier.changed.connect(self._restyle)

    def set_monospace(self, monospace: bool) -> None:
        """Characters are learned one by one: in one width, lines of early noise and late verse compare."""
        self._delegate.monospace = monospace
        self._restyle()

    def columns_that_fit(self) -> int:
        """How many columns the width has room for."""
        return max(2, self.viewport().width() // COLUMN_WIDTH)

    def selected_text(self) -> str:
        """The selected samples, a heading a step."""
        parts = []
        for index in sorted(self.selectedIndexes(), key=lambda index: (index.column(), index.row())):
            step = self.samples.steps[index.column()]
            parts.append(f"step {step}\n{index.data(PROMPT_ROLE)}{index.data(TEXT_ROLE)}")
        return "\n\n".join(parts)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self._settle.start()

    def _restyle(self) -> None:
        self._delegate.forget()
        self._settle.start()
        self.viewport().update()

    def _lay_out(self) -> None:
        count = self.samples.columnCount()
        if not count:
            return
        width = max(COLUMN_WIDTH, self.viewport().width() // count)
        for column in range(count):
            self.setColumnWidth(column, width)
        for row in range(self.samples.rowCount()):
            heights = [self._delegate.height(self.samples.index(row, column), width) for column in range(count)]
            self.setRowHeight(row, max(heights))


class _TextDelegate(QStyledItemDelegate):
    """Prompt quiet, continuation in the text's colour. Laid out documents are kept: painting is then cheap."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.monospace = False
        self._documents: OrderedDict[tuple[str, str, int], QTextDocument] = OrderedDict()

    def forget(self) -> None:
        """Colours or fonts changed."""
        self._documents.clear()

    def height(self, index: Index, width: int) -> int:
        return int(self._document(index, width).size().height()) + 2 * _MARGIN

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        width = option.rect.width() or COLUMN_WIDTH
        return QSize(width, self.height(index, width))

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        area: QRect = option.rect
        painter.save()
        painter.setClipRect(area)
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(area, faded(current_theme().accent, 0.16))
        painter.translate(area.left() + _MARGIN, area.top() + _MARGIN)
        self._document(index, area.width()).drawContents(painter)
        painter.restore()

    def createEditor(self, parent: QWidget, option: QStyleOptionViewItem, index: Index) -> QWidget:
        editor = QTextEdit(parent, readOnly=True)
        editor.setFrameShape(QTextEdit.Shape.NoFrame)
        editor.setFont(self._font())
        editor.document().setDocumentMargin(_MARGIN)
        return editor

    def setEditorData(self, editor: QWidget, index: Index) -> None:
        assert isinstance(editor, QTextEdit)
        self._fill(editor.document(), index.data(PROMPT_ROLE), index.data(TEXT_ROLE))

    def setModelData(self, editor: QWidget, model: QAbstractItemModel, index: Index) -> None:
        """Samples are read, never changed."""

    def _document(self, index: Index, width: int) -> QTextDocument:
        prompt, text = index.data(PROMPT_ROLE), index.data(TEXT_ROLE)
        key = (prompt, text, width)
        document = self._documents.get(key)
        if document is None:
            document = QTextDocument()
            document.setDocumentMargin(0)
            document.setDefaultFont(self._font())
            wrap = QTextOption()
            wrap.setWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
            document.setDefaultTextOption(wrap)
            document.setTextWidth(width - 2 * _MARGIN - 1)
            self._fill(document, prompt, text)
            self._documents[key] = document
            while len(self._documents) > 200:
                self._documents.popitem(last=False)
        else:
            self._documents.move_to_end(key)
        return document

    def _fill(self, document: QTextDocument, prompt: str, text: str) -> None:
        theme = current_theme()
        plain, quiet = QTextCharFormat(), QTextCharFormat()
        plain.setForeground(QColor(theme.text))
        quiet.setForeground(QColor(theme.quiet))
        document.clear()
        cursor = QTextCursor(document)
        # A prompt that is only a line break would be an empty line: its sign says what was given.
        cursor.insertText("⏎" if prompt == "\n" else prompt, quiet)
        if prompt == "\n":
            cursor.insertText("\n", plain)
        cursor.insertText(text[:SHOWN_CHARACTERS], plain)
        if len(text) > SHOWN_CHARACTERS:
            rest = len(text) - SHOWN_CHARACTERS
            cursor.insertText(f"\n… {rest:,} more characters: copy or export to have them all.", quiet)

    def _font(self) -> QFont:
        base = QGuiApplication.font()
        if self.monospace:
            font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
            font.setPointSizeF(base.pointSizeF())
            return font
        return base
