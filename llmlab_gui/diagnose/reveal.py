"""What was broken: the score, the broken lines beside the right ones, and the tell-tale."""

from __future__ import annotations

import html

from PySide6.QtCore import QUrl, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QTextBrowser

from llmlab.core.errors import LabError
from llmlab.mysteries.case import Case
from llmlab.mysteries.faults import Fault, faults
from llmlab_gui.pages.html import colored_html, page_colors
from llmlab_gui.pages.places import DOCK_PAGES
from llmlab_gui.widgets.theme import theme_notifier

# Narrower, and lines of code beside each other would break after every few words.
_BESIDE = 640


class RevealView(QTextBrowser):
    """Empty until the answer."""

    dock_wanted = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("What was broken")
        self.setOpenLinks(False)
        self.setFrameShape(QTextBrowser.Shape.NoFrame)
        self.anchorClicked.connect(lambda url: self.dock_wanted.emit(QUrl(url).path()))
        self._shown: tuple[Case, str] | None = None
        self._wide = False
        theme_notifier.changed.connect(self._draw)

    def show_case(self, case: Case, calibration: str) -> None:
        """A case that is answered. calibration: what all answers so far say."""
        if self._shown != (case, calibration):
            self._shown = case, calibration
            self._draw()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if self._wide != (self.viewport().width() >= _BESIDE):
            self._draw()

    def _draw(self) -> None:
        self._wide = self.viewport().width() >= _BESIDE
        if self._shown is None:
            return
        case, calibration = self._shown
        fault, given = faults()[case.cause], (case.answer or {})[case.cause]
        text = (
            f"<h3>It was: {html.escape(fault.title)}</h3>"
            f"<p>You gave it {100 * given:.0f} %: a surprise of {case.bits:.2f} bits; a uniform guess has "
            f"{case.chance:.2f}. {html.escape(calibration)}</p>"
            f"<p><b>What it changes.</b> {html.escape(fault.changes)}</p>"
            f"<p><b>The fastest tell-tale.</b> {html.escape(fault.tell)}{self._way(case, fault)}</p>"
        )
        self.setHtml(text + (self._code(fault) if fault.right else ""))

    def _way(self, case: Case, fault: Fault) -> str:
        if not fault.dock:
            return ""
        seen = " You kept evidence from there." if any(mark.dock == fault.dock for mark in case.marks) else ""
        color = page_colors().accent
        link = f'<a style="color:{color}" href="dock:{fault.dock}">{html.escape(DOCK_PAGES[fault.dock][0])}</a>'
        return f" Look at {link}.{seen}"

    def _code(self, fault: Fault) -> str:
        colors = page_colors()
        try:
            lines = fault.lines()
        except LabError as error:
            return f"<p>{html.escape(str(error))}</p>"
        cells = []
        for title, where, code in zip(("Right", "Broken"), (fault.right, fault.broken), lines, strict=True):
            cells.append(
                f'<td valign="top" bgcolor="{colors.code_background}" style="padding:8px 10px"><b>{title}</b>'
                f'<br><span style="color:{colors.quiet}">{html.escape(where.rpartition("/")[2])}</span>'
                f'<pre style="font-family:{colors.mono};white-space:pre-wrap;margin:4px 0 0 0">'
                f"{colored_html(code, colors.code)}</pre></td>"
            )
        gap = '<td width="6" style="padding:0"></td>' if self._wide else "</tr><tr>"
        return f'<table width="100%" cellspacing="0" style="margin:8px 0"><tr>{gap.join(cells)}</tr></table>'
