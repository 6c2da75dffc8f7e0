"""A large matrix as an image of a view's size: nothing strong is lost where many cells share a pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmlab_gui.charts.color_scale import ColorScale, Values

Indices = npt.NDArray[np.uint8]
# The last index is kept for what is no number; the others span the scale.
MISSING = 255
_TOP = 254


def shrink(values: Values, rows: int, columns: int, *, signed: bool = False) -> Values:
    """[R, C] as at most [rows, columns]: each cell the largest of the block it covers (signed: furthest from zero).

    NaN and infinities count as nothing where a number is beside them.
    """
    rows, columns = max(1, min(rows, values.shape[0])), max(1, min(columns, values.shape[1]))
    if (rows, columns) == values.shape or not values.size:
        return values
    down, across = _starts(values.shape[0], rows), _starts(values.shape[1], columns)
    above = _reduce(np.fmax, values, down, across)
    if not signed:
        return above
    below = _reduce(np.fmin, values, down, across)
    found: Values = np.where(np.abs(below) > np.abs(above), below, above)
    return found


def indexed(values: Values, scale: ColorScale, *, log: bool = False) -> Indices:
    """Places in the scale's table, 0 to 254; 255 for what is no number. log: low and high are powers of ten."""
    with np.errstate(divide="ignore", invalid="ignore"):
        numbers = np.asarray(values, np.float32)
        missing = ~np.isfinite(numbers)
        if log:
            numbers = np.log10(numbers)
        span = scale.high - scale.low or 1.0
        places = (numbers - np.float32(scale.low)) * np.float32(_TOP / span)
        np.clip(places, 0, _TOP, out=places)
        places[missing] = MISSING
        np.nan_to_num(places, copy=False)
        return np.rint(places).astype(np.uint8)


def _starts(size: int, parts: int) -> npt.NDArray[np.intp]:
    return (np.arange(parts, dtype=np.int64) * size // parts).astype(np.intp)


def _reduce(function: np.ufunc, values: Values, down: npt.NDArray[np.intp], across: npt.NDArray[np.intp]) -> Values:
    """Rows first, block by block: they lie together on the disk, and it is ten times as fast as `reduceat`."""
    stops = [*down[1:].tolist(), len(values)]
    rows = np.stack([function.reduce(values[start:stop], axis=0) for start, stop in zip(down, stops, strict=True)])
    found: Values = function.reduceat(rows, across, axis=1)
    return found
