"""A map from zero up that begins in the panel's own colour: nothing is drawn where there is nothing.

Lightness runs straight from the ground to the far end (OKLab, Björn Ottosson 2020), so that equal steps of the value
are equal steps for the eye, with any colour vision and in grey; the hue only helps.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PySide6.QtGui import QColor

from llmlab_gui.charts.color_scale import Colors, ColorScale, linear
from llmlab_gui.widgets.theme import Theme, current_theme

_STEPS = 256
# Lightness at the far end, the hues on the way in degrees, and the strongest chroma.
_LIGHT_END, _LIGHT_HUES, _LIGHT_CHROMA = 0.26, (235.0, 300.0), 0.17
_DARK_END, _DARK_HUES, _DARK_CHROMA = 0.96, (265.0, 100.0), 0.15


def from_ground(high: float) -> ColorScale:
    """From zero, which is not seen, to `high`."""
    return ColorScale(0.0, high if high > 0 else 1.0, ground_table(current_theme()))


@lru_cache(maxsize=4)
def ground_table(theme: Theme) -> Colors:
    """[256, 3]: the panel's colour first."""
    lightness, a, b = _to_oklab(QColor(theme.surface))
    dark = lightness < 0.5
    end, hues, strongest = (_DARK_END, _DARK_HUES, _DARK_CHROMA) if dark else (_LIGHT_END, _LIGHT_HUES, _LIGHT_CHROMA)
    colors = []
    for place in range(_STEPS):
        share = place / (_STEPS - 1)
        chroma = strongest * math.sin(0.88 * math.pi * share**0.8) ** 0.8
        hue = math.radians(hues[0] + (hues[1] - hues[0]) * share)
        fade = (1 - share) ** 8  # the ground's own tint, gone soon
        colors.append(
            _from_oklab(
                lightness + (end - lightness) * share,
                a * fade + chroma * math.cos(hue),
                b * fade + chroma * math.sin(hue),
            )
        )
    table: Colors = np.array(colors, np.uint8)
    ground = QColor(theme.surface)
    table[0] = (ground.red(), ground.green(), ground.blue())
    return table


def _to_oklab(color: QColor) -> tuple[float, float, float]:
    red, green, blue = (linear(part) for part in (color.redF(), color.greenF(), color.blueF()))
    long = _root(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue)
    middle = _root(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue)
    short = _root(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


def _from_oklab(lightness: float, a: float, b: float) -> tuple[int, int, int]:
    """sRGB of 0 to 255, with as much of the chroma as the screen has."""
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        inside = all(-1e-4 <= part <= 1.0001 for part in _to_linear(lightness, middle * a, middle * b))
        low, high = (middle, high) if inside else (low, middle)
    share = 1.0 if low > 0.999 else low
    red, green, blue = (
        round(255 * _gamma(min(max(part, 0.0), 1.0))) for part in _to_linear(lightness, share * a, share * b)
    )
    return red, green, blue


def _to_linear(lightness: float, a: float, b: float) -> tuple[float, float, float]:
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )


def _root(part: float) -> float:
    return float(part ** (1 / 3))


def _gamma(part: float) -> float:
    return 12.92 * part if part <= 0.0031308 else 1.055 * part ** (1 / 2.4) - 0.055
