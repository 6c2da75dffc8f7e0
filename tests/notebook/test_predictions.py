"""Predictions: written in a line, read back as the same, and refused in a sentence."""

from __future__ import annotations

import json
import math

import pytest
from cases import each
from hypothesis import given
from hypothesis import strategies as st

from llmlab.core.errors import UsageError
from llmlab.notebook.locked import Locked, lock, read_locked
from llmlab.notebook.predictions import Prediction, from_dict, parse_prediction
from llmlab.notebook.quantities import CHOICE, CURVE, NUMBER, TEXT, find_quantity, quantities_of_runs
from llmlab.notebook.seals import ALTERED
from llmlab.studies.experiments.kinds import KINDS

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64).filter(lambda x: abs(x) < 1e12)
SURE = st.one_of(st.none(), st.integers(1, 99).map(lambda percent: percent / 100))


@each(
    ("line", "expected"),
    [
        ("val_loss=1.9..2.2@80%", Prediction("val_loss", NUMBER, 0.8, 1.9, 2.2)),
        (" val_loss = 1.9 .. 2.2 @ 80 % ", Prediction("val_loss", NUMBER, 0.8, 1.9, 2.2)),
        ("val_loss=1.9..2.2@0.8", Prediction("val_loss", NUMBER, 0.8, 1.9, 2.2)),
        ("val_loss=1.9 to 2.2@80", Prediction("val_loss", NUMBER, 0.8, 1.9, 2.2)),
        ("val_loss=1.9..2.2@80", Prediction("val_loss", NUMBER, 0.8, 1.9, 2.2)),
        ("val_loss=1.9..2.2", Prediction("val_loss", NUMBER, None, 1.9, 2.2)),
        ("val_loss=2.05+-0.1@80%", Prediction("val_loss", NUMBER, 0.8, 1.95, 2.15)),
        ("val_loss=2.05±0.1@80%", Prediction("val_loss", NUMBER, 0.8, 1.95, 2.15)),
        ("val_loss=2.05", Prediction("val_loss", NUMBER, None, 2.05, 2.05)),
        ("best_lr=1e-3@60%", Prediction("best_lr", CHOICE, 0.6, choice="1e-3")),
        ("best_lr=1e-3..4e-3@60%", Prediction("best_lr", NUMBER, 0.6, 1e-3, 4e-3)),
        ("overfits=yes@70%", Prediction("overfits", CHOICE, 0.7, choice="yes")),
        ("steps_to_2.5=100..300@55%", Prediction("steps_to_2.5", NUMBER, 0.55, 100.0, 300.0)),
        ("loss_curve=0:4.4,100:3", Prediction("loss_curve", CURVE, points=[[0.0, 4.4], [100.0, 3.0]])),
        (
            "loss_curve=0:4.4, 100:3 +-0.1 @70%",
            Prediction("loss_curve", CURVE, 0.7, points=[[0.0, 4.4], [100.0, 3.0]], tolerance=0.1),
        ),
        ("text=ask a@b.c: lr = 1@70%", Prediction("text", TEXT, 0.7, text="ask a@b.c: lr = 1")),
        ("It overfits soon", Prediction("text", TEXT, text="It overfits soon")),
    ],
)
def test_a_line_says_what_it_says(line: str, expected: Prediction) -> None:
    assert parse_prediction(line) == expected
    assert parse_prediction(str(expected)) == expected


@given(low=FINITE, high=FINITE, sure=SURE)
def test_every_range_is_read_back_as_the_same(low: float, high: float, sure: float | None) -> None:
    low, high = sorted((low, high))
    if low == high:
        sure = None
    prediction = Prediction("gap", NUMBER, sure, low, high)
    assert parse_prediction(str(prediction)) == prediction
    assert from_dict(json.loads(json.dumps(prediction.as_dict()))) == prediction


@given(
    steps=st.lists(st.integers(0, 10**9), min_size=2, max_size=30, unique=True),
    loss=st.floats(0, 20),
    sure=st.integers(1, 99),
)
def test_every_curve_is_read_back_as_the_same(steps: list[int], loss: float, sure: int) -> None:
    points = [[float(step), loss] for step in sorted(steps)]
    prediction = Prediction("loss_curve", CURVE, sure / 100, points=points, tolerance=0.25)
    assert parse_prediction(str(prediction)) == prediction


@each(
    ("line", "complaint"),
    [
        ("val_los=2", "Did you mean val_loss"),
        ("val_loss=2-3@80%", "val_loss=1.9..2.2@80%"),  # how to write a range
        ("val_loss=2@80%", "exactly 2"),
        ("val_loss=1..2@100%", "between 1 % and 99 %"),
        ("val_loss=1..2@0%", "between 1 % and 99 %"),
        ("val_loss=2..1@80%", "from 2 down to 1"),
        ("val_loss=1..2..3", "two ends"),
        ("val_loss=1..2@", "Write @80%"),
        ("val_loss=1..2@sure", "'sure' is not a confidence"),
        ("val_loss=nan", "is not a number"),
        ("val_loss=1..inf@80%", "is not a number"),
        ("val_loss=", "no value"),
        ("val_loss=2+--1@80%", "above 0"),
        ("overfits=perhaps@70%", "yes or no"),
        ("overfits=0..1@70%", "yes or no"),
        ("tokens_per_second=0..100@70%", "above 0"),
        ("loss_curve=3", "not a point of a curve"),
        ("loss_curve=3:1", "2 to 1000 points"),
        ("loss_curve=3:1,2:1", "must ascend"),
        ("loss_curve=3:1,4:1@70%", "or neither"),
        ("loss_curve=3:1,4:1+-0.1", "or neither"),
        ("text=", "1 to 2000 characters"),
        ("hm", "is not a prediction"),
        ("", "is not a prediction"),
        ("steps_to_never=1..2", "Nothing named"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_a_sentence(line: str, complaint: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_prediction(line)
    assert complaint in str(refused.value)


def test_damaged_values_are_no_prediction() -> None:
    good = parse_prediction("val_loss=1..2@80%").as_dict()
    for change in ({"low": "x"}, {"kind": "hope"}, {"confidence": True}, {"low": 3.0}, {"kind": CURVE}):
        with pytest.raises(UsageError):
            from_dict(good | change)
    assert from_dict(good | {"later_version": 1}) == from_dict(good)


def test_every_quantity_of_every_experiment_can_be_predicted() -> None:
    names = {name for kind in KINDS.values() for name in kind.quantities}
    assert {find_quantity(name).name for name in names} == names
    for name in names:
        low = "1..2@80%"
        assert parse_prediction(f"{name}={low}").low == 1


def test_only_fine_tuning_is_asked_for_right_answers() -> None:
    scratch = {quantity.name for quantity in quantities_of_runs()}
    tuned = {quantity.name for quantity in quantities_of_runs(fine_tuned=True)}
    assert tuned - scratch == {"score", "score_before"}
    assert scratch < tuned


def test_a_seal_shows_every_change() -> None:
    (values,) = lock("run", [parse_prediction("val_loss=1.9..2.2@80%")])
    locked = read_locked(values)
    assert isinstance(locked, Locked)
    assert locked.found("run", "bar") == "" == locked.found("run", "renamed")
    assert locked.found("experiment", "bar") == ALTERED
    for change in (
        {"high": 2.6},
        {"confidence": 0.6},
        {"locked_at": locked.locked_at - 1},
        {"at_step": 1},
        {"seal": ""},
    ):
        edited = read_locked(values | change)
        assert edited is not None
        assert edited.found("run", "bar") == ALTERED
    assert lock("run", [values]) == [values]  # what is locked stays locked


def test_a_number_in_a_file_need_not_be_a_float() -> None:
    (values,) = lock("run", [parse_prediction("val_loss=1..2@80%")])
    again = read_locked(json.loads(json.dumps(values)))
    assert again is not None
    assert again.found("run", "bar") == ""
    assert math.isclose(again.prediction.high or 0, 2)
