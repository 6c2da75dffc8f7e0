"""The window's colours: light, dark, or as the system is. Widgets take them from here and listen to the notifier."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QApplication

from llmlab.core.paths import resources_dir

# What Fusion outlines, and does not fill with the window's colour.
_EDGED = ("QMenu", "QLineEdit", "QAbstractSpinBox", "QComboBox", "QSlider", "QProgressBar")
_GROUPED = ("QListWidget", "QTableWidget")
_TICKED = ("QCheckBox", "QGroupBox", "QTableView", "QListView", "QTreeView")
_FUSION_DARKER = 140  # per cent: QFusionStylePrivate::outline
THEME_CHOICES = ("light", "dark", "system")


@dataclass(frozen=True)
class Theme:
    """One set of colours, as `#rrggbb`. Text reaches a contrast of 4.5 on its ground, curves and edges 3 (WCAG 2.2)."""

    name: str
    background: str  # behind panels
    surface: str  # of panels, charts, tables
    raised: str  # of buttons
    text: str
    quiet: str  # captions, units, reference lines
    grid: str  # hairlines
    edge: str  # of what can be filled in, ticked or moved
    accent: str  # the one colour that asks to be pressed or says "chosen"
    on_accent: str  # text on the accent
    good: str
    warning: str
    bad: str
    series: tuple[str, ...]  # of overlaid runs; told apart with any colour vision


# Series: Okabe and Ito's blue and orange, then six found by a search for colours with a contrast of 3 on their ground
# that stay furthest apart as seen with all cones, and without the red, the green or the blue ones.
LIGHT = Theme(
    name="light",
    background="#f4f5f7",
    surface="#ffffff",
    raised="#fbfbfc",
    text="#1b1f24",
    quiet="#596270",
    grid="#dfe3e8",
    edge="#7f8794",
    accent="#1f5fc4",
    on_accent="#ffffff",
    good="#0b7247",
    warning="#8f5400",
    bad="#b3261e",
    series=("#0072b2", "#d55e00", "#00a390", "#930aff", "#6b4f24", "#370052", "#ff1f51", "#0f2e28"),
)
DARK = Theme(
    name="dark",
    background="#15181c",
    surface="#1c2025",
    raised="#292f37",
    text="#e4e7eb",
    quiet="#9ba5b3",
    grid="#343b44",
    edge="#828c9b",
    accent="#7eaaff",
    on_accent="#0d1420",
    good="#5fcb94",
    warning="#e6b455",
    bad="#ff9389",
    series=("#56b4e9", "#ff8a3d", "#5cffb6", "#e33b81", "#fcff5c", "#7c5cff", "#c2e9ff", "#e00032"),
)


class ThemeNotifier(QObject):
    """Tells when the colours changed; what paints by itself takes the new ones then."""

    changed = Signal()


theme_notifier = ThemeNotifier()
_current = LIGHT
_choice: str | None = None  # none was made yet


def current_theme() -> Theme:
    """The colours now in use."""
    return _current


def apply_theme(app: QApplication, choice: str) -> None:
    """Gives the application the colours of `choice`: light, dark, or system (and then follows the system)."""
    global _choice
    hints = app.styleHints()
    if _choice is None:
        app.setStyle("Fusion")
        hints.colorSchemeChanged.connect(_follow_system)
    _choice = choice
    scheme = {"light": Qt.ColorScheme.Light, "dark": Qt.ColorScheme.Dark}.get(choice, Qt.ColorScheme.Unknown)
    hints.setColorScheme(scheme)
    dark = choice == "dark" or (choice == "system" and hints.colorScheme() == Qt.ColorScheme.Dark)
    _use(app, DARK if dark else LIGHT)


def _follow_system(scheme: Qt.ColorScheme) -> None:
    app = QApplication.instance()
    if _choice == "system" and isinstance(app, QApplication):
        _use(app, DARK if scheme == Qt.ColorScheme.Dark else LIGHT)


def _use(app: QApplication, theme: Theme) -> None:
    global _current
    _current = theme
    app.setPalette(_palette(theme))
    for kinds, palette in ((_EDGED, _edged(theme)), (_GROUPED, _grouped(theme))):
        for kind in kinds:
            app.setPalette(palette, kind)  # type: ignore[arg-type]  # bytes, says the stub; they are refused
    theme_notifier.changed.emit()


def _palette(theme: Theme) -> QPalette:
    role, group = QPalette.ColorRole, QPalette.ColorGroup
    palette = QPalette()
    for name, color in (
        (role.Window, theme.background),
        (role.WindowText, theme.text),
        (role.Base, theme.surface),
        (role.AlternateBase, theme.background),
        (role.Text, theme.text),
        (role.PlaceholderText, theme.quiet),
        (role.Button, theme.raised),
        (role.ButtonText, theme.text),
        (role.BrightText, theme.bad),
        (role.ToolTipBase, theme.surface),
        (role.ToolTipText, theme.text),
        (role.Highlight, theme.accent),
        (role.HighlightedText, theme.on_accent),
        (role.Accent, theme.accent),
        (role.Link, theme.accent),
        (role.LinkVisited, theme.accent),
        (role.Light, theme.surface),
        (role.Midlight, theme.grid),
        (role.Mid, theme.grid),
        (role.Dark, theme.quiet),
    ):
        palette.setColor(name, QColor(color))
    faint = faded(theme.quiet, 0.59)
    for name in (role.WindowText, role.Text, role.ButtonText):
        palette.setColor(group.Disabled, name, faint)
    palette.setColor(group.Disabled, role.Highlight, QColor(theme.grid))
    palette.setColor(group.Disabled, role.HighlightedText, QColor(theme.quiet))
    return palette


def _edged(theme: Theme) -> QPalette:
    """The palette of a widget whose outline must be seen: Fusion draws it in the window's colour, 1.4 times as dark."""
    palette = _palette(theme)
    palette.setColor(QPalette.ColorRole.Window, QColor(theme.edge).lighter(_FUSION_DARKER))
    return palette


def _grouped(theme: Theme) -> QPalette:
    """The palette of a list in groups: their names cannot be chosen, but are read."""
    palette = _palette(theme)
    palette.setColor(QPalette.ColorGroup.Disabled, QPalette.ColorRole.Text, QColor(theme.quiet))
    return palette


def style_sheet(theme: Theme) -> str:
    """Only what a palette cannot say: hairlines instead of frames, flat titles, roomy tabs.

    The parts of the window have it, each by itself: see `llmlab_gui.window.part_styles`. The application does not: Qt
    would style each widget once more whenever it gets another parent, and a change of theme would take five times as
    long.
    """
    return f"""
    QToolTip {{ color: {theme.text}; background: {theme.surface}; border: 1px solid {theme.grid}; padding: 4px; }}
    QMenuBar::item {{ padding: 8px 8px 6px 8px; background: transparent; }}
    QMenuBar::item:selected {{ background: {theme.accent}; color: {theme.on_accent}; }}
    QDockWidget {{ font-weight: 600; border: 1px solid {theme.edge}; }}
    QDockWidget::title {{ background: {theme.background}; padding: 6px 8px; }}
    QDockWidget::close-button, QDockWidget::float-button {{
        subcontrol-origin: margin; subcontrol-position: top right; position: absolute; top: 5px; right: 1px;
        bottom: 5px; width: 18px; }}
    QDockWidget::float-button {{ right: 20px; }}
    QTabBar {{ qproperty-drawBase: 0; }}
    QTabBar::tab {{
        background: {theme.background}; color: {theme.quiet}; border: none; border-bottom: 2px solid transparent;
        padding: 5px 10px; }}
    QTabBar::tab:hover {{ color: {theme.text}; }}
    QTabBar::tab:selected {{
        background: {mix(theme.surface, theme.accent, 0.2).name()}; color: {theme.text};
        border-bottom-color: {theme.accent}; }}
    QTabBar::tab:disabled {{ color: {faded(theme.quiet, 0.59).name(QColor.NameFormat.HexArgb)}; }}
    QToolBar {{ border: none; border-bottom: 1px solid {theme.grid}; padding: 4px 6px; spacing: 4px; }}
    QToolBar[objectName="toolbar.workspaces"] {{ border: none; padding: 0 4px; spacing: 2px; }}
    QStatusBar {{ border-top: 1px solid {theme.grid}; }}
    QStatusBar::item {{ border: none; }}
    QTableView, QListView, QTreeView, QTextBrowser {{ border: 1px solid {theme.grid}; }}
    QPlainTextEdit {{ border: 1px solid {theme.edge}; }}
    QTableView {{ gridline-color: {theme.grid}; }}
    QTableView, QListView, QTreeView {{
        selection-background-color: {mix(theme.surface, theme.accent, 0.2).name()}; selection-color: {theme.text}; }}
    QHeaderView::section, QTableCornerButton::section {{
        background: {theme.background}; color: {theme.quiet}; border: none; border-bottom: 1px solid {theme.grid};
        padding: 4px 6px; }}
    QHeaderView::up-arrow, QHeaderView::down-arrow {{
        subcontrol-origin: border; subcontrol-position: top center; width: 7px; height: 7px; }}
    QFrame#tour {{ background: {theme.surface}; border: 1px solid {theme.edge}; border-radius: 4px; }}
    #qt_menubar_ext_button, #qt_toolbar_ext_button {{ qproperty-icon: url(""); qproperty-text: "»"; }}
    QToolBar QToolButton::menu-indicator {{
        subcontrol-origin: border; subcontrol-position: right center; left: -2px; width: 7px; height: 7px; }}
    QToolButton:checked {{
        background: {mix(theme.raised, theme.accent, 0.3).name()}; color: {theme.text};
        border: 1px solid {theme.accent}; border-radius: 3px; padding: 2px 5px; }}
    {_indicator()} {{
        width: 13px; height: 13px; border: 1px solid {theme.quiet}; border-radius: 3px; background: {theme.surface}; }}
    {_indicator(":focus")}, {_indicator(":hover")} {{ border-color: {theme.accent}; }}
    {_indicator(":checked")} {{
        background: {theme.accent}; border-color: {theme.accent}; image: url("{_check(theme)}"); }}
    {_indicator(":disabled")} {{ border-color: {theme.grid}; }}
    QPushButton[primary="true"] {{
        background: {theme.accent}; color: {theme.on_accent}; border: 2px solid {theme.accent}; border-radius: 4px;
        padding: 5px 14px; }}
    QPushButton[primary="true"]:hover, QPushButton[primary="true"]:focus {{ border-color: {theme.text}; }}
    QPushButton[primary="true"]:disabled {{
        background: {theme.grid}; border-color: {theme.grid}; color: {theme.quiet}; }}
    """


def _indicator(state: str = "") -> str:
    """The boxes to tick, wherever they are, as a selector of style sheets."""
    return ", ".join(f"{kind}::indicator{state}" for kind in _TICKED)


def _check(theme: Theme) -> str:
    """The mark of a checked box, in the colour of text on the accent."""
    return (resources_dir() / "icons" / f"check-{theme.name}.svg").as_posix()


def faded(color: QColor | str, alpha: float) -> QColor:
    """The colour with an alpha from 0 to 1."""
    found = QColor(color)
    found.setAlphaF(alpha)
    return found


def mix(ground: QColor | str, top: QColor | str, share: float) -> QColor:
    """`share` (0 to 1) of `top` laid over `ground`."""
    below, above = QColor(ground), QColor(top)
    pairs = ((below.red(), above.red()), (below.green(), above.green()), (below.blue(), above.blue()))
    return QColor(*(round((1 - share) * a + share * b) for a, b in pairs))
