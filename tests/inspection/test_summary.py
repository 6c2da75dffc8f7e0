"""A summary's numbers are the archive's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from llmlab.inspection.archive import Metadata, read_archive, write_archive
from llmlab.inspection.summary import Summary, summarise

ABOUT = Metadata("inspection", "bar@150", "ab" * 32, [3, 1], ["The", " king"])


def _summary(folder: Path, **tensors: np.ndarray) -> Summary:
    named = {name.replace("__", "/"): values for name, values in tensors.items()}
    write_archive(folder / "a.safetensors", named, ABOUT)
    return summarise(read_archive(folder / "a.safetensors"))


def test_the_strongest_heads_come_first_and_layers_without_heads_not_at_all(tmp_path: Path) -> None:
    scores = np.array([[0.1, 0.9], [np.nan, np.nan], [0.5, 0.2]], np.float32)
    summary = _summary(tmp_path, heads__induction=scores)
    assert [(head.layer, head.head) for head in summary.heads["induction"]] == [(0, 1), (2, 0), (2, 1), (0, 0)]
    json.dumps(summary.as_dict(), allow_nan=False)


def test_of_equal_heads_the_first_is_named(tmp_path: Path) -> None:
    scores = np.zeros((12, 12), np.float32)
    scores[3:, 4:] = 1
    heads = _summary(tmp_path, heads__first=scores).heads["first"]
    assert [(head.layer, head.head) for head in heads] == [(3, 4 + place) for place in range(5)]


def test_the_lens_settles_in_the_first_row_after_the_last_other_guess(tmp_path: Path) -> None:
    def settled(*guesses: int) -> int | None:
        ids = np.array(guesses, np.int32)[:, None, None]
        return _summary(tmp_path, lens__ids=ids, lens__probability=ids.astype(np.float32)).settled

    assert settled(7, 7, 7) == 0
    assert settled(7, 3, 7) == 2
    assert settled(1, 7, 7) == 1
    assert settled(1, 2, 3) == 2


def test_the_strongest_weights_of_the_token_asked_about_leave_out_the_first(tmp_path: Path) -> None:
    tokens = ["The", " king", " and", " queen"]
    about = Metadata("inspection", "bar@150", "ab" * 32, [3, 1, 4, 2], tokens, more={"position": "2"})
    patterns = np.zeros((2, 4, 4), np.float32)
    patterns[:, 2] = [[0.6, 0.3, 0.1, 0], [0.05, 0.25, 0.7, 0]]
    layers = {"attention/0": patterns, "attention/2": patterns[::-1] / 2}
    write_archive(tmp_path / "a.safetensors", layers, about)
    found = summarise(read_archive(tmp_path / "a.safetensors"))
    assert [(one.layer, one.head, one.key) for one in found.attends] == [
        (0, 1, 2), (2, 0, 2), (0, 0, 1), (0, 1, 1), (2, 1, 1)
    ]  # fmt: skip
    assert found.attends[0].weight == np.float32(0.7)
    assert found.position == 2


def test_bars_are_the_largest_by_size_and_end_with_their_sum(tmp_path: Path) -> None:
    tensors = {
        "attribution__embedding": np.float32([0.25]),
        "attribution__bias": np.float32([0]),
        "attribution__attention": np.float32([1, -4, 0.5]),
        "attribution__feed_forward": np.float32([2, 0.125, 3]),
        "attribution__sum": np.float32([2.875]),
    }
    bars = _summary(tmp_path, **tensors).attribution
    assert [(bar.name, bar.value) for bar in bars] == [
        *(("attention 1", -4.0), ("feed_forward 2", 3.0), ("feed_forward 0", 2.0), ("attention 0", 1.0)),
        *(("attention 2", 0.5), ("sum", 2.875)),
    ]
