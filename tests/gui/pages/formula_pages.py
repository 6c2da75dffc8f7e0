"""Pages of formulas, and a formula as a page draws it."""

from __future__ import annotations

import re

from PySide6.QtCore import QUrl
from PySide6.QtGui import QPixmap, QTextDocument

from llmlab_gui.pages.browser import PageBrowser
from llmlab_gui.pages.html import FORMULA, page_colors, page_html
from llmlab_gui.pages.page import Page


def page_of(*sources: str) -> Page:
    return Page("p", "P", "# P\n\n" + "\n\n".join(f"```math\n{source}\n```" for source in sources) + "\n")


def picture(browser: PageBrowser, source: str) -> QPixmap:
    name = QUrl(re.findall(f'src="({FORMULA}[^"]*)"', page_html(page_of(source), page_colors()))[0])
    found = browser.loadResource(QTextDocument.ResourceType.ImageResource.value, name)
    assert isinstance(found, QPixmap)
    return found
