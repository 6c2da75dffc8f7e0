"""A drawing of a concept page: shapes, text and charts as a small SVG file.

Every drawing is 460 wide, and its text at least 12 high: what a page of 360 pixels shows can still be read. Colours are
those of the window's light theme, which a dark page replaces by its own; so there are no others. There are no styles,
clips, or fonts either, since the renderer in the window knows few of them. Coordinates have one decimal.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH = 460.0
SMALL, MEDIUM = 12, 13  # sizes of text
# Of llmlab_gui/widgets/theme.py's LIGHT; a test of the window holds that each is there.
SURFACE, TEXT, QUIET, GRID, EDGE, ACCENT = "#ffffff", "#1b1f24", "#596270", "#dfe3e8", "#7f8794", "#1f5fc4"
BAD = "#b3261e"
BLUE, ORANGE, TEAL, VIOLET = SERIES = "#0072b2", "#d55e00", "#00a390", "#930aff"

START, MIDDLE, END = "start", "middle", "end"
Points = Sequence[tuple[float, float]]


class Picture:
    """Shapes in the order in which they are drawn; x to the right, y downwards.

    title: what the drawing is, for whoever opens the file alone. Its alternative text is the page's.
    """

    def __init__(self, title: str, height: float) -> None:
        self.title, self.height = title, height
        self._shapes: list[str] = []

    def line(self, points: Points, color: str = EDGE, width: float = 1.4, *, dashed: bool = False) -> None:
        """A line from point to point."""
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        self._add("polyline", f'points="{_joined(points)}" fill="none" {_stroke(color, width)}{dashes}')

    def area(self, points: Points, color: str, opacity: float = 0.18) -> None:
        """What the points enclose."""
        self._add("polygon", f'points="{_joined(points)}" fill="{color}" fill-opacity="{opacity:.2f}"')

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        edge: str = EDGE,
        fill: str = "none",
        opacity: float = 1.0,
        round: float = 0.0,
    ) -> None:
        """A rectangle. edge: `none` for no line around it. opacity: of what fills it."""
        place = f'x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"'
        corners = f' rx="{_n(round)}"' if round else ""
        filled = f'fill="{fill}"' + (f' fill-opacity="{opacity:.2f}"' if opacity < 1 else "")
        self._add("rect", f"{place}{corners} {filled}" + ("" if edge == "none" else f" {_stroke(edge, 1.2)}"))

    def dot(self, x: float, y: float, color: str, radius: float = 3.5, *, hollow: bool = False) -> None:
        """A filled circle; hollow: its line alone."""
        look = f'fill="{SURFACE}" {_stroke(color, 1.6)}' if hollow else f'fill="{color}"'
        self._add("circle", f'cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" {look}')

    def arrow(self, points: Points, color: str = EDGE, width: float = 1.4) -> None:
        """A line with a tip at its last point."""
        (x0, y0), (x1, y1) = points[-2:]
        length = math.hypot(x1 - x0, y1 - y0)
        dx, dy = 6 * (x1 - x0) / length, 6 * (y1 - y0) / length
        back = (x1 - dx, y1 - dy)
        self.line([*points[:-1], back], color, width)
        self.area([(x1, y1), (back[0] - dy / 2, back[1] + dx / 2), (back[0] + dy / 2, back[1] - dx / 2)], color, 1)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        color: str = TEXT,
        anchor: str = START,
        size: int = MEDIUM,
        *,
        bold: bool = False,
    ) -> None:
        """One line of words. y: of its base line."""
        weight = ' font-weight="bold"' if bold else ""
        look = f'font-size="{size}" fill="{color}" text-anchor="{anchor}"{weight}'
        self._add("text", f'x="{_n(x)}" y="{_n(y)}" {look}', html.escape(words, quote=False))

    def cells(
        self,
        x: float,
        y: float,
        side: float,
        values: Sequence[Sequence[float]],
        *,
        rows: Sequence[str] = (),
        columns: Sequence[str] = (),
        decimals: int | None = None,
        largest: float = 1.0,
    ) -> None:
        """values [rows][columns], one square each: blue as deep as the value, orange below zero.

        rows, columns: words beside and under them. decimals: of the value that each square says; None for none.
        largest: the value of a full colour.
        """
        self.box(x, y, side * len(values[0]), side * len(values), edge=GRID)
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                if decimals is None and abs(value) < 0.005 * largest:
                    continue
                left, top = x + column * side, y + row * side
                fill, opacity = BLUE if value >= 0 else ORANGE, min(1.0, abs(value) / largest)
                self.box(left, top, side, side, edge=GRID, fill=fill, opacity=round(opacity, 2) * 0.99)
                if decimals is not None:
                    color = SURFACE if opacity > 0.6 else TEXT
                    words = f"{value:.{decimals}f}".replace("-", "−")
                    self.text(left + side / 2, top + side / 2 + 4, words, color, MIDDLE, SMALL)
        for row, name in enumerate(rows):
            self.text(x - 6, y + (row + 0.5) * side + 4, name, QUIET, END, SMALL)
        for column, name in enumerate(columns):
            self.text(x + (column + 0.5) * side, y + len(values) * side + 15, name, QUIET, MIDDLE, SMALL)

    def svg(self) -> str:
        """The file's text."""
        size = f'width="{_n(WIDTH)}" height="{_n(self.height)}" viewBox="0 0 {_n(WIDTH)} {_n(self.height)}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
        return "\n".join([head, f"<title>{html.escape(self.title)}</title>", *self._shapes, "</svg>", ""])

    def _add(self, kind: str, look: str, content: str = "") -> None:
        self._shapes.append(f"<{kind} {look}>{content}</{kind}>" if content else f"<{kind} {look}/>")


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`, with words at its ticks; the numbers themselves where there are no words."""

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    words: Sequence[str] = ()
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0 at `low` and 1 at `high`. ValueError beyond them."""
        ends = (self.low, self.high, value)
        low, high, at = map(math.log, ends) if self.log else ends
        share = (at - low) / (high - low)
        if not -1e-6 <= share <= 1 + 1e-6:
            raise ValueError(f"{value} lies beyond the axis {self.label!r}, {self.low} to {self.high}")
        return share

    def named(self) -> list[tuple[float, str]]:
        """Each tick with its words."""
        words = self.words or [f"{tick:g}".replace("-", "−") for tick in self.ticks]
        return list(zip(self.ticks, words, strict=True))


class Plot:
    """Axes on a picture, in which values become places. Drawn at once; y grows upwards here."""

    def __init__(
        self,
        picture: Picture,
        x: Scale,
        y: Scale,
        *,
        left: float = 44,
        top: float = 28,
        right: float = 440,
        bottom: float = 0,
    ) -> None:
        """left, top, right, bottom: of the axes, without what is written around them; bottom 0: 40 above the end."""
        self.picture, self.x, self.y = picture, x, y
        self.left, self.top, self.right, self.bottom = left, top, right, bottom or picture.height - 40
        for value, words in y.named():
            at = self.at(x.low, value)[1]
            picture.line([(left, at), (right, at)], GRID, 1)
            picture.text(left - 6, at + 4, words, QUIET, END, SMALL)
        for value, words in x.named():
            at = self.at(value, y.low)[0]
            picture.line([(at, self.bottom), (at, self.bottom + 4)], EDGE, 1)
            picture.text(at, self.bottom + 17, words, QUIET, MIDDLE, SMALL)
        picture.line([(left, self.bottom), (right, self.bottom)], EDGE, 1)
        picture.text(left, top - 10, y.label, QUIET, START, SMALL)
        picture.text(right, self.bottom + 33, x.label, QUIET, END, SMALL)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of two values on the picture."""
        across, up = self.x.share(x), self.y.share(y)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def line(
        self, xs: Sequence[float], ys: Sequence[float], color: str = BLUE, width: float = 2, *, dashed: bool = False
    ) -> None:
        """From value to value."""
        self.picture.line([self.at(x, y) for x, y in zip(xs, ys, strict=True)], color, width, dashed=dashed)

    def curve(
        self, function: Callable[[float], float], color: str = BLUE, *, dashed: bool = False, points: int = 80
    ) -> None:
        """A function of x, where it lies between the ends of y."""
        steps = [n / (points - 1) for n in range(points)]
        low, high = self.x.low, self.x.high
        xs = [low * (high / low) ** step if self.x.log else low + step * (high - low) for step in steps]
        inside = [(x, y) for x, y in ((x, function(x)) for x in xs) if self.y.low <= y <= self.y.high]
        self.line([x for x, _ in inside], [y for _, y in inside], color, dashed=dashed)

    def dots(self, xs: Sequence[float], ys: Sequence[float], color: str = BLUE, radius: float = 3.5) -> None:
        """A dot at each pair of values."""
        for x, y in zip(xs, ys, strict=True):
            self.picture.dot(*self.at(x, y), color, radius)

    def band(self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], color: str = BLUE) -> None:
        """What lies between two lines."""
        upper = [self.at(x, y) for x, y in zip(xs, highs, strict=True)]
        lower = [self.at(x, y) for x, y in zip(xs, lows, strict=True)]
        self.picture.area([*upper, *reversed(lower)], color)

    def bar(self, x: float, y: float, color: str = BLUE, width: float = 24) -> None:
        """An upright bar from zero, or the lower end of y, to a value; width: on the picture."""
        (across, top), (_, base) = self.at(x, y), self.at(x, max(self.y.low, 0.0))
        self.picture.box(across - width / 2, min(top, base), width, abs(base - top), edge="none", fill=color)

    def level(self, y: float, words: str, color: str = QUIET) -> None:
        """A dashed line across, with words above its right end."""
        self.line([self.x.low, self.x.high], [y, y], color, 1.2, dashed=True)
        self.picture.text(self.right, self.at(self.x.low, y)[1] - 4, words, color, END, SMALL)

    def note(
        self, x: float, y: float, words: str, color: str = TEXT, anchor: str = START, *, dx: float = 0, dy: float = 0
    ) -> None:
        """Words at a pair of values, moved by dx and dy on the picture."""
        across, up = self.at(x, y)
        self.picture.text(across + dx, up + dy, words, color, anchor, SMALL)


FIGURES: dict[str, Callable[[], Picture]] = {}


def figure(draw: Callable[[], Picture]) -> Callable[[], Picture]:
    """Enters a function under its file's name: `merge_tree` draws merge-tree.svg."""
    FIGURES[draw.__name__.replace("_", "-")] = draw
    return draw


def _n(value: float) -> str:
    """One decimal, none where it is zero."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _joined(points: Points) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _stroke(color: str, width: float) -> str:
    return f'stroke="{color}" stroke-width="{_n(width)}"'
