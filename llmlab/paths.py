"""Where the lab's own files and the learner's files are."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_PACKAGE = Path(__file__).resolve().parent


def resources_dir() -> Path:
    """The folder with presets, corpora, vocabularies, concept pages and icons.

    A wheel carries it inside the package, a source checkout beside it.
    """
    inside = _PACKAGE / "_resources"
    return inside if inside.is_dir() else _PACKAGE.parent / "resources"


def outputs_dir() -> Path:
    """Where runs go unless told otherwise: $LLMLAB_OUTPUTS, else the checkout's outputs/, else the home folder.

    The same answer for the window and the command line, so that each sees the runs of the other.
    """
    if named := os.environ.get("LLMLAB_OUTPUTS"):
        return Path(named).expanduser()
    checkout = _PACKAGE.parent
    if (checkout / "pyproject.toml").is_file():
        return checkout / "outputs"
    return Path.home() / "llmlab-outputs"


def cache_dir() -> Path:
    """Where token caches and downloaded corpora go: $LLMLAB_CACHE, else the platform's cache folder."""
    if named := os.environ.get("LLMLAB_CACHE"):
        return Path(named).expanduser()
    return Path(platformdirs.user_cache_dir("llmlab", appauthor=False))
