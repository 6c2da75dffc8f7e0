"""The command line that plans the same experiment as a form: so that a report says how it can be made again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from llmlab.studies.experiments.plan import Request
from llmlab_gui.forms.editors import number_text

# Settings that the command has a word of its own for.
_WORDS = {"model.base": "--model", "data.source": "--data", "data.corpus": "--corpus"}


def command_line(request: Request, given: Mapping[str, Any], subject: str = "") -> str:
    """`llmlab-run experiment ...`. given: what was set otherwise than in the preset, by `section.field`."""
    kind = request.kind
    words = ["llmlab-run", "experiment", kind.name]
    if not kind.trains:
        words.append(subject)
    else:
        words += ["--preset", request.preset]
        for key, value in given.items():
            text = _text(value)
            words += [_WORDS[key], text] if key in _WORDS else ["--set", f"{key}={text}"]
        grid = [str(value) for value in request.grid]
        if grid != [f"{value:g}" for value in kind.grids.get(request.settings.track, ())]:
            words += ["--grid", ",".join(grid)]
        if request.groups and list(request.groups) != kind.groups:
            words += ["--compare", ",".join(request.groups)]
        if request.seeds != kind.seeds:
            words += ["--seeds", str(request.seeds)]
    for name, value in request.options.items():
        words += [f"--{name}", _text(value)]
    if request.id:
        words += ["--name", request.id]
    return shlex.join(words)


def _text(value: Any) -> str:
    """A value as `--set` reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "|".join(value)
    return number_text(value) if isinstance(value, (int, float)) else str(value)
