"""Where the lab's own files and the learner's files are, and how its processes find its code."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import platformdirs

from llmlab.core.errors import UsageError

_PACKAGE = Path(__file__).resolve().parents[1]


def python_command(code: str) -> list[str]:
    """The command of a process that runs `code` with the modules that this process finds, whatever it starts in.

    By themselves `python -c` and `python -m` look for modules in the current folder first, which may be that of a
    model from elsewhere: a file named json.py there would be run.
    """
    root = str(_PACKAGE.parent)
    return [
        sys.executable,
        "-c",
        "import sys; sys.path[:] = [path for path in sys.path if path]; "
        f"{root!r} in sys.path or sys.path.insert(0, {root!r}); {code}",
    ]


def module_command(module: str, first: str = "pass") -> list[str]:
    """The same for `python -m MODULE`; arguments may follow. first: what is done before anything of it is imported."""
    return python_command(f"{first}; import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)")


def resources_dir() -> Path:
    """The folder with presets, corpora, vocabularies, concept pages and icons.

    A wheel carries it inside the package, a source checkout beside it.
    """
    inside = _PACKAGE / "_resources"
    return inside if inside.is_dir() else _PACKAGE.parent / "resources"


def expanded(path: str | Path) -> Path:
    """A path as people write it, with `~` and `~name` as home folders; it need not exist.

    UsageError when there is no such home, and for a name that no file system takes (too long, with a null byte).
    """
    try:
        found = Path(path).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            found.lstat()
    except RuntimeError as error:
        raise UsageError(f"{path} leads nowhere.", "There is no such home folder.", "Write the whole path.") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r:.100} cannot be a file or a folder.", f"{error.args[-1]}.") from error
    return found


def outputs_dir() -> Path:
    """Where runs go unless told otherwise: $LLMLAB_OUTPUTS, else the checkout's outputs/, else the home folder.

    The same answer for the window and the command line, so that each sees the runs of the other.
    """
    if named := os.environ.get("LLMLAB_OUTPUTS"):
        return expanded(named)
    checkout = _PACKAGE.parent
    if (checkout / "pyproject.toml").is_file():
        return checkout / "outputs"
    return Path.home() / "llmlab-outputs"


def cache_dir() -> Path:
    """Where token caches and downloaded corpora go: $LLMLAB_CACHE, else the platform's cache folder."""
    if named := os.environ.get("LLMLAB_CACHE"):
        return expanded(named)
    return Path(platformdirs.user_cache_dir("llmlab", appauthor=False))
