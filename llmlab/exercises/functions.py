"""The learner's functions where they are used: in a run, or on a model. What goes wrong in them is said to be theirs.

This process runs the learner's code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from llmlab.core.device import is_out_of_memory
from llmlab.core.errors import Cancelled, LabError
from llmlab.exercises.checking import Wrong, load_file, load_parts, said
from llmlab.exercises.facts import described
from llmlab.exercises.pieces import find_piece

Functions: TypeAlias = Mapping[str, Callable[..., Any]]


def load_functions(name: str, file: Path) -> dict[str, Callable[..., Any]]:
    """The functions of a piece, by their names. LabError where the file is missing or cannot be run, and from a call
    of one that fails."""
    try:
        found = load_file(file, [part.name for part in load_parts(find_piece(name).folder)])
    except Wrong as wrong:
        raise LabError(f"Your {name} cannot be used.", str(wrong), f"It is {file}.") from wrong
    return {part: _theirs(function, name, file) for part, function in found.items()}


def require_shape(found: object, shape: tuple[int, ...], name: str) -> None:
    """LabError for what a function returned on this model, and on no case of its check."""
    if not isinstance(found, Tensor) or found.shape != shape:
        why = f"It returns {described(found)}, and should return a tensor {list(shape)}."
        raise LabError(f"Your {name} cannot be used on this model.", why)


def require_finite(found: float, name: str) -> None:
    """LabError for nan and infinity in what a function returned: no comparison with ours says anything then."""
    if not math.isfinite(found):
        raise LabError(f"Your {name} cannot be used on this model.", "There is nan or infinity in what it returns.")


def _theirs(function: Callable[..., Any], name: str, file: Path) -> Callable[..., Any]:
    """What it makes itself, such as a mask, is made on the device of its arguments: pieces are checked on the CPU, and
    pass without a word of devices."""

    def call(*given: Any) -> Any:
        device = next((one.device for one in given if isinstance(one, Tensor)), None)
        try:
            if device is None or device.type == "cpu":
                return function(*given)
            with device:
                return function(*given)
        except (LabError, Cancelled):  # of another piece, which it called
            raise
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            raise LabError(f"Your {name} failed.", said(error, file), f"It is {file}.") from error

    return call
