"""Collecting garbage on the window's thread only."""

from __future__ import annotations

import gc
import weakref

from pytestqt.qtbot import QtBot

from llmlab_gui.window.garbage import GarbageTimer


class _Knot:
    """Holds itself, so only a collection frees it."""

    def __init__(self) -> None:
        self.me = self


def test_after_start_up_a_full_collection_looks_at_what_is_new_only(qtbot: QtBot) -> None:
    timer = GarbageTimer()
    try:
        assert not gc.isenabled()
        timer.freeze()
        assert len(gc.get_objects()) < 0.1 * gc.get_freeze_count()
        knot = weakref.ref(_Knot())
        gc.collect()
        assert knot() is None
    finally:
        timer.stop()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_garbage_of_the_start_is_freed_before_it_is_kept_for_good(qtbot: QtBot) -> None:
    timer = GarbageTimer()
    try:
        knot = weakref.ref(_Knot())
        timer.freeze()
        assert knot() is None
    finally:
        timer.stop()
