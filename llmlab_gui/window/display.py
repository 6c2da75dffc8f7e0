"""Checks that a window can be opened here before Qt tries, which ends the process when it cannot. No Qt."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

# Platforms of Qt that need a display server; all others (offscreen, minimal, vnc, linuxfb, ...) bring their own.
_NEED_X11 = ("xcb",)
_NEED_WAYLAND = ("wayland", "wayland-egl")


def why_no_window(environment: Mapping[str, str] = os.environ) -> str | None:
    """None when a display can be reached, else a sentence that says why not. Windows and macOS always have one."""
    if sys.platform in ("win32", "darwin"):
        return None
    wanted = environment.get("QT_QPA_PLATFORM", "").partition(":")[0].partition(";")[0]
    if wanted and wanted not in (*_NEED_X11, *_NEED_WAYLAND):
        return None
    display, wayland = environment.get("DISPLAY", ""), environment.get("WAYLAND_DISPLAY", "")
    if wayland and wanted not in _NEED_X11 and _wayland_answers(wayland, environment.get("XDG_RUNTIME_DIR", "")):
        return None
    if display and wanted not in _NEED_WAYLAND and _x11_answers(display):
        return None
    if not display and not wayland:
        return "There is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)."
    return f"The display {display or wayland} does not answer."


def missing_library(plugin: Path) -> str | None:
    """What the plugin for X11 lacks on this system, as the loader says it; None when it can be loaded."""
    if not plugin.is_file():
        return None
    try:
        ctypes.CDLL(str(plugin))
    except OSError as error:
        return str(error)
    return None


def _wayland_answers(name: str, runtime: str) -> bool:
    path = name if name.startswith("/") else f"{runtime}/{name}"
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _x11_answers(display: str) -> bool:
    """Asks the server in earnest, permission included, with the library that Qt itself will use."""
    try:
        xcb = ctypes.CDLL("libxcb.so.1")
    except OSError:
        return True  # Qt lacks it, too, and `missing_library` says so
    xcb.xcb_connect.restype = ctypes.c_void_p
    xcb.xcb_connect.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    xcb.xcb_connection_has_error.argtypes = [ctypes.c_void_p]
    xcb.xcb_disconnect.argtypes = [ctypes.c_void_p]
    connection = xcb.xcb_connect(display.encode(), None)
    failed = bool(xcb.xcb_connection_has_error(connection))
    xcb.xcb_disconnect(connection)
    return not failed
