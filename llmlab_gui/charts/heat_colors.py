"""A map from zero up that begins in the panel's own colour: nothing is drawn where there is nothing.

Lightness runs straight from the ground to the far end (OKLab, Björn Ottosson 2020), so that equal steps of the value
are equal steps for the eye, with any colour vision and in grey; the hue only helps.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PySide6.QtGui import QColor

from llmlab_gui.charts.color_scale import Colors, ColorScale, Values, linear
from llmlab_gui.widgets.theme import Theme, current_theme

_STEPS = 256
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
    table: Colors = np.rint(255 * curved).T.astype(np.uint8)
    return table


def _light(lab: Values, share: Values) -> Values:
    """Linear sRGB [3, N], with a share of the chroma."""
    faded = lab * np.stack([np.ones_like(share), share, share])
    found: Values = np.linalg.inv(_CONES) @ (np.linalg.inv(_LAB) @ faded) ** 3
    return found
