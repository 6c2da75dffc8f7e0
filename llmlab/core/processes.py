"""A worker that dies with the process that started it, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

import psutil

from llmlab.store.worker_folder import process_alive, process_start

_WATCH_SECONDS = 0.5


def follow_parent(parent: int) -> None:
    """Ends this process when its parent ends; to be called first, in the main thread.

    parent: its process id, told by itself: a parent that died at once would be taken for whoever came after it.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:  # it died before
            os._exit(1)
        return

    def watch() -> None:
        started = process_start(parent) if psutil.pid_exists(parent) else None
        while process_alive(parent, started):
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
