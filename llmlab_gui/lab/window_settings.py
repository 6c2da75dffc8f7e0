"""What the window remembers of itself between starts, in an INI file. Nothing about runs or training is here."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import platformdirs
from PySide6.QtCore import QByteArray, QLockFile, QRect, QSettings
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QMainWindow

from llmlab.core.records import from_plain
from llmlab_gui.host.recent import Recent
from llmlab_gui.pages.places import TRAIN
from llmlab_gui.widgets.theme import THEME_CHOICES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")

# Raised when docks or toolbars are added, renamed or removed: an older arrangement is then not loaded.
LAYOUT_VERSION = 3
# A lock whose process is gone is nobody's; of another machine's process nobody here knows: after two weeks it is.
_STALE_MS = 14 * 86_400_000
_WIDEST = 32_767  # pixels: window systems count them in 16 bits with a sign


@dataclass(frozen=True)
class DockSizes:
    """Width and height, in pixels, of a window and of the docks in sight in it, by their names."""

    window: list[int]
    docks: dict[str, list[int]]

    def __post_init__(self) -> None:
        """ValueError where it cannot be: anything may be in a file, and Qt ends at numbers that no widget has."""
        if any(len(size) != 2 or min(size) < 1 or max(size) > _WIDEST for size in (self.window, *self.docks.values())):
            raise ValueError("sizes are two numbers above zero")


@dataclass(frozen=True)
class Guests:
    """Docks that were given room in a workspace that has no place for them, and the sizes before the first of them."""

    names: list[str]
    before: DockSizes


class WindowSettings:
    """Size, arrangement, theme, what was chosen in docks, what was looked into lately, whether the tour
    was seen."""

    def __init__(self, path: Path | None = None) -> None:
        """path: the INI file; the platform's place for settings when not given."""
        file = path or Path(platformdirs.user_config_dir("llmlab", appauthor=False)) / "window.ini"
        self._settings = QSettings(str(file), QSettings.Format.IniFormat)
        self._lock: QLockFile | None = None
        self._number = 1  # of the windows that are open on this outputs folder
        if self._settings.contains("window/state"):  # until version 0.4, one arrangement for all workspaces
            self._settings.setValue(f"workspaces/{TRAIN}", self._settings.value("window/state"))
            self._settings.remove("window/state")

    def save_geometry(self, window: QMainWindow) -> None:
        """Remembers its size and place."""
        self._settings.setValue("window/geometry", window.saveGeometry())
        self._settings.setValue("window/place", window.geometry())
        self._settings.sync()

    def restore_geometry(self, window: QMainWindow) -> None:
        """Size and place, if they were remembered."""
        geometry, place = self._settings.value("window/geometry"), self._settings.value("window/place")
        if isinstance(geometry, QByteArray):
            window.restoreGeometry(geometry)
        # Qt keeps one pixel, and a title of its own style's height, between a window and the edges of the screen. The
        # content is placed, and not the frame, whose size is not known before the window is seen.
        rooms = [screen.availableGeometry().adjusted(0, 1, 0, 0) for screen in QGuiApplication.screens()]  # for a title
        if isinstance(place, QRect) and not window.isMaximized() and any(room.contains(place) for room in rooms):
            window.setGeometry(place)

    @property
    def workspace(self) -> str:
        """The one that was in sight last; "" before there was one."""
        return str(self._settings.value("window/workspace", ""))

    @workspace.setter
    def workspace(self, name: str) -> None:
        self._settings.setValue("window/workspace", name)

    def save_docks(
        self, window: QMainWindow, workspace: str, sizes: DockSizes | None, guests: Guests | None = None
    ) -> None:
        """Remembers where the docks of the workspace in sight are. sizes: what their shares of a window come from."""
        for name, kept in (("sizes", sizes), ("guests", guests)):
            self._settings.remove(f"{name}/{workspace}")
            if kept is not None:
                self.save_choices(f"{name}/{workspace}", kept)
        self._settings.setValue(f"workspaces/{workspace}", window.saveState(LAYOUT_VERSION))

    def restore_docks(self, window: QMainWindow, workspace: str) -> bool:
        """Puts the docks back; False when nothing usable was remembered, and the window must arrange them."""
        state = self._settings.value(f"workspaces/{workspace}")
        return isinstance(state, QByteArray) and window.restoreState(state, LAYOUT_VERSION)

    def dock_sizes(self, workspace: str) -> DockSizes | None:
        """What `save_docks` was told of the docks' sizes; None where nothing was kept."""
        return self.choices(f"sizes/{workspace}", DockSizes)

    def guests(self, workspace: str) -> Guests | None:
        """What `save_docks` was told of them."""
        return self.choices(f"guests/{workspace}", Guests)

    def forget_docks(self, workspace: str) -> None:
        """Of a workspace that is to be as it was at first."""
        for name in ("workspaces", "sizes", "guests"):
            self._settings.remove(f"{name}/{workspace}")

    @property
    def recent(self) -> Recent:
        """Models and prompts that were used lately."""
        return self.choices("inspection/recent", Recent) or Recent()

    @recent.setter
    def recent(self, recent: Recent) -> None:
        self.save_choices("inspection/recent", recent)

    def choices(self, name: str, kind: type[T]) -> T | None:
        """What `save_choices` kept under a name; None when there is nothing, or nothing that fits the data class."""
        try:
            values = json.loads(str(self._settings.value(name, "null")))
            return None if values is None else from_plain(kind, values)
        except (ValueError, TypeError, RecursionError):
            return None

    def save_choices(self, name: str, choices: DataclassInstance) -> None:
        """Keeps a data class of plain values."""
        text = json.dumps(dataclasses.asdict(choices))
        if text != self._settings.value(name):  # each value that is set writes the whole file
            self._settings.setValue(name, text)

    def open_on(self, outputs: Path) -> bool:
        """Drafts are of this window on an outputs folder until `leave`; False where another one is open on it.

        The first window has the first window's drafts, the second the second's: what is typed into one is not
        overwritten when the other closes.
        """
        of_folder = hashlib.sha256(outputs.resolve().as_posix().encode()).hexdigest()[:12]
        with contextlib.suppress(OSError):
            Path(self._settings.fileName()).parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            lock = QLockFile(f"{self._settings.fileName()}.{of_folder}.{number}.lock")
            lock.setStaleLockTime(_STALE_MS)
            if lock.tryLock(0) or lock.error() != QLockFile.LockError.LockFailedError:  # a folder without room for one
                self._lock, self._number = lock, number
                break
        return self._number == 1

    def leave(self) -> None:
        """The window closes: the next one has its drafts."""
        if self._lock is not None:
            self._lock.unlock()
        self._lock, self._number = None, 1

    def draft_key(self, name: str, outputs: Path) -> str:
        """Where what a form was left with is kept."""
        return f"{name}{outputs.resolve().as_posix()}" + (f" {self._number}" if self._number > 1 else "")

    @property
    def theme(self) -> str:
        """light, dark or system."""
        choice = self._settings.value("window/theme", "system")
        return choice if choice in THEME_CHOICES else "system"

    @theme.setter
    def theme(self, choice: str) -> None:
        self._settings.setValue("window/theme", choice)

    @property
    def notify(self) -> bool:
        """Whether the end of a long run is announced while another window is in front."""
        return str(self._settings.value("window/notify", "true")).lower() == "true"

    @notify.setter
    def notify(self, wanted: bool) -> None:
        self._settings.setValue("window/notify", wanted)

    @property
    def tour_seen(self) -> bool:
        """Whether the tour was taken or waved away."""
        return str(self._settings.value("window/tour_seen", "false")).lower() == "true"

    @tour_seen.setter
    def tour_seen(self, seen: bool) -> None:
        self._settings.setValue("window/tour_seen", seen)
