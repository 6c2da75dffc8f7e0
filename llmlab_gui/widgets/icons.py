"""The window's icons: our own SVG drawings in resources/icons, in the theme's colours."""

from __future__ import annotations

from functools import lru_cache

from PySide6.QtCore import QByteArray, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from llmlab.core.paths import resources_dir
from llmlab_gui.widgets.theme import Theme, current_theme

# Device pixels: menus and tables at 100 to 200 %, toolbars likewise.
_SIZES = (16, 20, 24, 32, 40, 48)


def icon(name: str, color: str = "") -> QIcon:
    """resources/icons/<name>.svg in a colour (`#rrggbb`; the theme's text otherwise)."""
    theme = current_theme()
    return _icon(name, color or theme.text, theme.quiet)


def state_icon(state: str) -> QIcon:
    """A run's state; shapes differ, so that the colour is not needed to tell them apart."""
    return icon(state, state_color(state, current_theme()))


def state_color(state: str, theme: Theme) -> str:
    """The colour that goes with a run's state."""
    colors = {"running": theme.accent, "finished": theme.good, "failed": theme.bad}
    if state in ("paused", "stopping", "interrupted"):
        return theme.warning
    return colors.get(state, theme.quiet)


def app_icon() -> QIcon:
    """The application's own sign."""
    return QIcon(str(resources_dir() / "icons" / "llmlab.svg"))


@lru_cache(maxsize=256)
def _icon(name: str, color: str, quiet: str) -> QIcon:
    drawing = (resources_dir() / "icons" / f"{name}.svg").read_text(encoding="utf-8")
    made = QIcon()
    for mode, tint, opacity in ((QIcon.Mode.Normal, color, 1.0), (QIcon.Mode.Disabled, quiet, 0.55)):
        renderer = QSvgRenderer(QByteArray(drawing.replace("currentColor", tint).encode()))
        for size in _SIZES:
            pixmap = QPixmap(QSize(size, size))
            pixmap.fill(Qt.GlobalColor.transparent)
            with QPainter(pixmap) as painter:
                painter.setOpacity(opacity)
                renderer.render(painter, QRectF(0, 0, size, size))
            made.addPixmap(pixmap, mode)
    return made


def swatch(color: QColor, size: int = 12) -> QIcon:
    """A small filled square: a run's colour in the charts, in a selected row as well."""
    pixmap = QPixmap(2 * size, 2 * size)  # sharp on screens of twice the density, too
    pixmap.setDevicePixelRatio(2)
    pixmap.fill(Qt.GlobalColor.transparent)
    with QPainter(pixmap) as painter:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(color)
        painter.drawRoundedRect(QRectF(0, 0, size, size), 3, 3)
    made = QIcon(pixmap)
    made.addPixmap(pixmap, QIcon.Mode.Selected)  # which Qt would tint
    return made
