"""Colours of numbers (one-sided scales from zero up, two-sided ones centred at zero) and of several curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyqtgraph as pg
from PySide6.QtGui import QColor

from llmlab.core.charts import have_order
from llmlab_gui.widgets.theme import Theme, current_theme, mix

Colors = npt.NDArray[np.uint8]
Values = npt.NDArray[np.floating]

_STEPS = 256
# Okabe and Ito's blue and vermilion: opposite for every kind of colour vision.
_BELOW, _ABOVE = "#0072b2", "#d55e00"
_BELOW_DARK, _ABOVE_DARK = "#56b4e9", "#ff8a3d"


@dataclass(frozen=True)
class ColorScale:
    """low and high: values of the first and the last colour; what lies outside has the nearest one.

    table [256, 3]: the colours.
    """

    low: float
    high: float
    table: Colors

    def colors(self, values: Values) -> Colors:
        """RGB of each value, [..., 3]; what is no number has the ground's colour (see `ground`)."""
        span = self.high - self.low or 1.0
        with np.errstate(invalid="ignore"):
            places = np.clip((np.asarray(values, np.float64) - self.low) / span, 0.0, 1.0) * (_STEPS - 1)
        missing = ~np.isfinite(places)
        places[missing] = 0
        found: Colors = self.table[places.astype(np.intp)]
        if missing.any():
            ground = QColor(current_theme().background)
            found[missing] = (ground.red(), ground.green(), ground.blue())
        return found

    def color(self, value: float) -> QColor:
        """The colour of one value."""
        red, green, blue = self.colors(np.array([value]))[0].tolist()
        return QColor(red, green, blue)


def one_sided(low: float, high: float) -> ColorScale:
    """viridis: lighter is more, for any colour vision and in grey."""
    return ColorScale(low, high if high > low else low + 1.0, _viridis())


def two_sided(reach: float) -> ColorScale:
    """Blue below zero, the panel's own colour at zero, orange above; equal distances, equal strength."""
    reach = reach if reach > 0 and np.isfinite(reach) else 1.0
    return ColorScale(-reach, reach, _diverging(current_theme()))


def fitted(values: Values, *, signed: bool) -> ColorScale:
    """The scale that takes in all numbers: from the smallest to the largest, or as far from zero as they go."""
    finite = np.asarray(values)[np.isfinite(values)]
    if not finite.size:
        return two_sided(1.0) if signed else one_sided(0.0, 1.0)
    if signed:
        return two_sided(float(np.abs(finite).max()))
    return one_sided(float(finite.min()), float(finite.max()))


def ink(ground: QColor) -> QColor:
    """Black or white, whichever reads better on a colour (by relative luminance, WCAG 2.2)."""
    luminance = 0.2126 * linear(ground.redF()) + 0.7152 * linear(ground.greenF()) + 0.0722 * linear(ground.blueF())
    return QColor("#000000" if luminance > 0.179 else "#ffffff")


def linear(part: float) -> float:
    """A part of sRGB, from 0 to 1, as light (IEC 61966-2-1)."""
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


@lru_cache(maxsize=1)
def _viridis() -> Colors:
    return pg.colormap.get("viridis").getLookupTable(nPts=_STEPS, alpha=False).astype(np.uint8)


@lru_cache(maxsize=4)
def _diverging(theme: Theme) -> Colors:
    dark = QColor(theme.surface).lightnessF() < 0.5
    below, above = (_BELOW_DARK, _ABOVE_DARK) if dark else (_BELOW, _ABOVE)
    shares = np.linspace(-1, 1, _STEPS)
    colors = [mix(theme.surface, below if share < 0 else above, abs(float(share))) for share in shares]
    return np.array([(color.red(), color.green(), color.blue()) for color in colors], np.uint8)


# The part of viridis with a contrast of 3 against a chart's ground: its yellow end is too near to white, its violet one
# to black.
_ON_LIGHT, _ON_DARK = (0.0, 0.59), (0.38, 1.0)


def sequence_colors(count: int) -> list[QColor]:
    """`count` colours in an order that the eye sees: from little to much."""
    low, high = _ON_DARK if QColor(current_theme().surface).lightnessF() < 0.5 else _ON_LIGHT
    scale = one_sided(0.0, 1.0)
    return [scale.color(low + (high - low) * (i / (count - 1) if count > 1 else 0.5)) for i in range(count)]


def curve_colors(names: Sequence[str], few: int = 4) -> list[QColor]:
    """Of curves that have no order, or are no more than a few, one each; of others, from little to much."""
    if len(names) > few and (have_order(names) or len(names) > len(current_theme().series)):
        return sequence_colors(len(names))
    return [series_color(number) for number in range(len(names))]


def seen_part(scale: ColorScale) -> ColorScale:
    """The scale with only those of its colours that small points are seen in on the panel's ground."""
    low, high = _ON_DARK if QColor(current_theme().surface).lightnessF() < 0.5 else _ON_LIGHT
    last = len(scale.table) - 1
    return replace(scale, table=scale.table[np.linspace(low * last, high * last, last + 1).astype(np.intp)])


def series_color(number: int) -> QColor:
    """The colour of one of a few things that have no order."""
    series = current_theme().series
    return QColor(series[number % len(series)])


# From nothing up ---------------------------------------------------------------------------------------------------

# Lightness runs straight from the ground to the far end (OKLab, Björn Ottosson 2020), so that equal steps of the value
# are equal steps for the eye, with any colour vision and in grey; the hue only helps.
# Lightness at the far end, the hues on the way in degrees, and the strongest chroma.
_LIGHT_END, _LIGHT_HUES, _LIGHT_CHROMA = 0.26, (235.0, 300.0), 0.17
_DARK_END, _DARK_HUES, _DARK_CHROMA = 0.96, (265.0, 100.0), 0.15
# OKLab: the responses of the cones to light (linear sRGB), and lightness, a and b from their cube roots.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def from_ground(high: float) -> ColorScale:
    """From zero, which is not seen, to `high`."""
    return ColorScale(0.0, high if high > 0 else 1.0, ground_table(current_theme()))


@lru_cache(maxsize=4)
def ground_table(theme: Theme) -> Colors:
    """[256, 3]: the panel's colour first."""
    ground = QColor(theme.surface)
    light = np.array([linear(part) for part in (ground.redF(), ground.greenF(), ground.blueF())])
    lightness, a, b = _LAB @ np.cbrt(_CONES @ light)
    dark = lightness < 0.5
    end, hues, strongest = (_DARK_END, _DARK_HUES, _DARK_CHROMA) if dark else (_LIGHT_END, _LIGHT_HUES, _LIGHT_CHROMA)
    share = np.linspace(0, 1, _STEPS)
    chroma = strongest * np.sin(0.88 * np.pi * share**0.8) ** 0.8
    hue = np.radians(hues[0] + (hues[1] - hues[0]) * share)
    fade = (1 - share) ** 8  # the ground's own tint, gone soon
    along = (lightness + (end - lightness) * share, a * fade + chroma * np.cos(hue), b * fade + chroma * np.sin(hue))
    table = _to_srgb(np.stack(along))
    table[0] = (ground.red(), ground.green(), ground.blue())
    return table


def _to_srgb(lab: Values) -> Colors:
    """[N, 3] of 0 to 255 from OKLab [3, N], each with as much of its chroma as the screen has."""
    low, high = np.zeros(lab.shape[1]), np.ones(lab.shape[1])
    for _ in range(12):
        middle = (low + high) / 2
        light = _light(lab, middle)
        inside = ((light >= -1e-4) & (light <= 1.0001)).all(axis=0)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    light = np.clip(_light(lab, np.where(low > 0.999, 1.0, low)), 0.0, 1.0)
    curved = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    return np.rint(255 * curved).T.astype(np.uint8)


def _light(lab: Values, share: Values) -> Values:
    """Linear sRGB [3, N], with a share of the chroma."""
    faded = lab * np.stack([np.ones_like(share), share, share])
    return np.linalg.inv(_CONES) @ (np.linalg.inv(_LAB) @ faded) ** 3
