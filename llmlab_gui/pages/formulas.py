"""The formulas of pages: LaTeX in a ```math fence, which GitHub sets too, drawn as SVG.

Drawing one takes 10 to 60 ms, so a page is shown before its formulas are drawn. Until then, and for good where the
LaTeX is wrong or would take too long, the page shows their source: a page can be anybody's notes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from threading import Lock
from types import ModuleType
from typing import Any
from xml.etree.ElementTree import Element

from llmlab.core.progress import Progress, quiet
from llmlab_gui.widgets.theme import LIGHT

SIZE = 20.0  # pixels of the font that they are drawn with; whoever shows one scales it to the text around it
# The library reads each group once more for every group around it. So a formula's work is that of its characters, each
# times the brackets that it stands in, and one. The lab's own formulas have up to 340 characters; a work of 2,500 takes
# about two seconds.
_MOST_WORK = 2_500
_PART = re.compile(r"(\\(?:left|begin)\b|\{)|(\\(?:right|end)\b|\})|.", re.DOTALL)
_LARGEST = 400_000  # characters of a drawing; four times the largest of the lab's own pages
_LONGEST = 4_000  # pixels of its longer side: scaled to a page, it could not be read
_MOST = 100  # formulas of a page that are drawn
_KEPT = 2 * _MOST  # drawings; all that the lab's own pages have
_FENCE = re.compile(r"^```math\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
_drawings: dict[str, str] = {}  # by source; "" where it cannot be drawn
_drawing = Lock()  # the library has state of its own


def formulas_of(text: str) -> list[str]:
    """The sources of a page's formulas, in their order."""
    return [source.strip() for source in _FENCE.findall(text)]


def not_tried(text: str) -> list[str]:
    """Those of a page's formulas that nobody drew yet, of its first hundred."""
    return [source for source in formulas_of(text)[:_MOST] if source not in _drawings]


def draw(sources: Iterable[str], progress: Progress = quiet) -> None:
    """Draws these, to be had from `drawing_of`. It touches no Qt: for a thread in the background."""
    with _drawing:
        for source in sources:
            progress("Drawing formulas", 0, 0)
            if source not in _drawings:
                _drawings[source] = _svg(source)
            while len(_drawings) > _KEPT:
                del _drawings[next(iter(_drawings))]


def drawing_of(source: str) -> str:
    """A formula as SVG, in the light theme's text colour; "" where it is not drawn, or cannot be."""
    return _drawings.get(source, "")


def _work(source: str) -> int:
    work = depth = 0
    for part in _PART.finditer(source):
        depth = max(depth + bool(part[1]) - bool(part[2]), 0)
        work += depth + 1
        if work > _MOST_WORK:
            break
    return work


def _svg(source: str) -> str:
    if _work(source) > _MOST_WORK:
        return ""
    try:
        formula = _ziamath().Latex(source, size=SIZE, color=LIGHT.text)
        drawn = str(formula.svg())
        return drawn if len(drawn) <= _LARGEST and max(formula.getsize()) <= _LONGEST else ""
    except Exception:  # of wrong LaTeX it raises whatever its parsers stumble over
        return ""


@cache
def _ziamath() -> ModuleType:
    """The library, imported late, since its font alone takes 0.2 s to read, and made to measure each row once.

    Before it draws a row, it measures it without its brackets, to stretch them. While it measures, it would do the same
    for each row inside; but those brackets are left out of the measure too, so how far they stretch changes nothing.
    """
    import ziamath
    from ziamath.nodes.mrow import Mrow

    ziamath.config.svg2 = False  # glyphs as paths: Qt reads SVG Tiny 1.2
    measure = Mrow._get_height_nostretch

    def measure_once(row: Mrow, line: list[Element], **how: Any) -> tuple[float, float]:
        return (0.0, 0.0) if how.get("nostretch") else measure(row, line, **how)

    Mrow._get_height_nostretch = measure_once  # type: ignore[method-assign, assignment]
    return ziamath
