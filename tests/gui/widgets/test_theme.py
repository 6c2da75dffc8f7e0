"""Both themes can be read, and runs are told apart with any colour vision."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from waits import WAIT

from llmlab.core.paths import resources_dir
from llmlab_gui.widgets.icons import icon, state_color, state_icon
from llmlab_gui.widgets.theme import DARK, LIGHT, Theme, apply_theme, current_theme, theme_notifier

BOTH = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
STATES = ("queued", "running", "paused", "stopping", "stopped", "finished", "failed", "interrupted")


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2.2."""
    values = np.array(QColor(color).getRgbF()[:3])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@BOTH
def test_text_can_be_read_on_every_ground(theme: Theme) -> None:
    for ground in (theme.background, theme.surface, theme.raised):
        for text in (theme.text, theme.quiet, theme.accent, theme.good, theme.warning, theme.bad):
            assert contrast(text, ground) >= 4.5, (text, ground)
    assert contrast(theme.on_accent, theme.accent) >= 4.5


@BOTH
def test_states_can_be_read(theme: Theme) -> None:
    assert all(contrast(state_color(state, theme), theme.surface) >= 4.5 for state in STATES)


@BOTH
def test_curves_stand_out_from_their_ground(theme: Theme) -> None:
    assert all(contrast(color, theme.surface) >= 3.0 for color in theme.series)


# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
VISIONS = {
    "all cones": np.eye(3),
    "no red cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no blue cones": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(color: str, vision: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a colour as it is seen."""
    values = np.array(QColor(color).getRgbF()[:3])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(vision @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@BOTH
@pytest.mark.parametrize("vision", VISIONS)
def test_runs_are_told_apart_with_any_colour_vision(theme: Theme, vision: str) -> None:
    seen = [lab(color, VISIONS[vision]) for color in theme.series]
    nearest = min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2))
    assert nearest > 15  # just noticeable is about 2.3; lines are thin


def test_a_choice_changes_palette_and_tells_who_paints_himself(qapp: QApplication, qtbot: QtBot) -> None:
    apply_theme(qapp, "light")
    with qtbot.waitSignal(theme_notifier.changed, timeout=WAIT):
        apply_theme(qapp, "dark")
    assert current_theme() is DARK
    assert qapp.palette().color(QPalette.ColorRole.Base).name() == DARK.surface
    apply_theme(qapp, "light")
    assert current_theme() is LIGHT


@pytest.mark.parametrize("name", sorted(path.stem for path in (resources_dir() / "icons").glob("*.svg")))
def test_every_icon_draws_something(qapp: QApplication, name: str) -> None:
    image = icon(name).pixmap(24, 24).toImage()
    assert any(image.pixelColor(x, y).alpha() for x in range(image.width()) for y in range(image.height()))


def test_every_state_has_a_sign_of_its_own_shape(qapp: QApplication) -> None:
    shapes = set()
    for state in STATES:
        image = state_icon(state).pixmap(24, 24).toImage()
        solid = tuple(image.pixelColor(x, y).alpha() > 127 for x in range(24) for y in range(24))
        shapes.add(solid)
    assert len(shapes) == len(STATES)
