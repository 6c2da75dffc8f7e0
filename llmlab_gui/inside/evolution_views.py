"""What a film shows at one step, and the line over all steps that belongs to it. Knows no Qt."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llmlab.core.signs import minus
from llmlab_gui.charts.heatmap import Heat
from llmlab_gui.charts.layer_chart import Line
from llmlab_gui.inside.film import Film, Frame
from llmlab_gui.inside.lens_data import target_text

# Heads drawn beside the selected one, for comparison.
_OTHERS = 3


def score_heat(film: Film, frame: Frame, score: str, unit: str) -> Heat:
    """A score of every head at one step, on the scale of all steps."""
    values = np.asarray(frame[f"heads/{score}"], np.float64)
    every = [np.nanmax(one[f"heads/{score}"], initial=0.0) for one in film.frames if f"heads/{score}" in one]
    rows, columns = ([str(place) for place in range(size)] for size in values.shape)
    return Heat(values, rows, columns, "layer", "head", high=float(max([*every, 1e-9])), unit=unit)


def score_lines(film: Film, score: str, layer: int, head: int) -> list[Line]:
    """The selected head's score at every step, and the heads that end with the highest ones, dotted."""
    frames = [frame for frame in film.frames if f"heads/{score}" in frame]
    if not frames:
        return []
    steps = np.array([frame.step for frame in frames], np.float64)
    values = np.array([np.asarray(frame[f"heads/{score}"]) for frame in frames], np.float64)  # [S, L, H]
    layer, head = min(layer, values.shape[1] - 1), min(head, values.shape[2] - 1)
    lines = [Line(f"layer {layer}, head {head}", steps, values[:, layer, head], color=0, markers=True)]
    order = np.argsort(np.nan_to_num(values[-1], nan=-np.inf), axis=None)[::-1]
    for place in order[: _OTHERS + 1]:
        other = tuple(int(n) for n in np.unravel_index(place, values.shape[1:]))
        if other != (layer, head) and len(lines) <= _OTHERS and np.isfinite(values[-1][other]):
            label = f"layer {other[0]}, head {other[1]}"
            lines.append(Line(label, steps, values[:, other[0], other[1]], color=len(lines), dotted=True))
    return lines


def highest(film: Film, score: str, unit: str) -> str:
    """Which head's score is highest at the last step, and what it was at the first; "" where there is none."""
    frames = [frame for frame in film.frames if f"heads/{score}" in frame]
    if not frames:
        return ""
    first, last = (np.asarray(frame[f"heads/{score}"], np.float64) for frame in (frames[0], frames[-1]))
    if not np.isfinite(last).any():
        return ""
    layer, head = np.unravel_index(np.nanargmax(last), last.shape)
    return (
        f"Highest: head {layer}.{head}, {minus(f'{first[layer, head]:.3g}')} at step {frames[0].step:,} and "
        f"{minus(f'{last[layer, head]:.3g}')} at step {frames[-1].step:,} ({unit or '1 is all weight'})."
    )


def lens_lines(film: Film, token: int, text_of: Callable[[int], str]) -> list[Line]:
    """Probability of the right token after the selected one, at every step."""
    frames = [frame for frame in film.frames if "lens/target_probability" in frame]
    if not frames:
        return []
    steps = np.array([frame.step for frame in frames], np.float64)
    chances = np.array([float(frame["lens/target_probability"][-1, token]) for frame in frames])
    return [Line(f"correct token: “{target_text(frames[-1], token, text_of)}”", steps, chances, markers=True)]


def logit_lines(film: Film) -> list[Line]:
    """The logit, and the sums of all attention and of all feed-forward, at every step."""
    frames = [frame for frame in film.frames if "attribution/logit" in frame]
    if not frames:
        return []
    steps = np.array([frame.step for frame in frames], np.float64)
    parts = (("logit", "logit", -1), ("attention", "all attention", 0), ("feed_forward", "all feed-forward", 1))
    return [
        Line(words, steps, np.array([float(frame[f"attribution/{name}"].sum()) for frame in frames]), color=color,
             markers=color < 0)
        for name, words, color in parts
    ]  # fmt: skip
