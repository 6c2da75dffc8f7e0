"""The formulas of pages: LaTeX in a ```math fence, which GitHub sets too, drawn as SVG.

Drawing one takes 30 to 100 ms, so a page is shown before its formulas are drawn. Until then, and for good where the
LaTeX is wrong, the page shows their source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from threading import Lock

from llmlab_gui.widgets.theme import LIGHT

SIZE = 20.0  # pixels of the font that they are drawn with; whoever shows one scales it to the text around it
_FENCE = re.compile(r"^```math\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
_drawings: dict[str, str] = {}  # by source; "" where it cannot be drawn
_drawing = Lock()  # the library has state of its own


def formulas_of(text: str) -> list[str]:
    """The sources of a page's formulas, in their order."""
    return [source.strip() for source in _FENCE.findall(text)]


def not_tried(text: str) -> list[str]:
    """Those of a page's formulas that nobody drew yet."""
    return [source for source in formulas_of(text) if source not in _drawings]


def draw(sources: Iterable[str]) -> None:
    """Draws these, to be had from `drawing_of`. It touches no Qt: for a thread in the background."""
    with _drawing:
        for source in sources:
            if source not in _drawings:
                _drawings[source] = _svg(source)


def drawing_of(source: str) -> str:
    """A formula as SVG, in the light theme's text colour; "" where it is not drawn, or cannot be."""
    return _drawings.get(source, "")


def _svg(source: str) -> str:
    try:
        import ziamath  # here, not above: its font alone takes 0.2 s to read

        ziamath.config.svg2 = False  # glyphs as paths: Qt reads SVG Tiny 1.2
        return str(ziamath.Latex(source, size=SIZE, color=LIGHT.text).svg())
    except Exception:  # of wrong LaTeX it raises whatever its parsers stumble over
        return ""
