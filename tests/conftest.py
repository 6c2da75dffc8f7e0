"""Shared by all tests: no display, no network, few threads, and folders of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ["HF_HUB_OFFLINE"] = "1"
# One thread a process: with as many as cores, any other busy process slows both ten times.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token caches of the tests, shared by one session and by the workers that it starts."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["LLMLAB_CACHE"] = str(folder)
    return folder


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty outputs folder, also for the processes that a test starts."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    monkeypatch.setenv("LLMLAB_OUTPUTS", str(folder))
    return folder
