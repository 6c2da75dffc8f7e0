"""Events survive the file, whatever they hold."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from cases import each
from fakes import FakeRun
from hypothesis import given
from hypothesis import strategies as st

from llmlab.store.events import (
    EVENT_TYPES,
    Evaluated,
    Event,
    Started,
    StepEvent,
    Warned,
    from_line,
    to_line,
    tokens_differ,
)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, 2**53),
    float: st.floats(),
    str: _TEXT,
    bool: st.booleans(),
    list[str]: st.lists(_TEXT, max_size=3),
    list[float]: st.lists(st.floats(0, 1), max_size=3),
    list[dict[str, str]]: st.lists(st.fixed_dictionaries({"prompt": _TEXT, "text": _TEXT}), max_size=2),
    list[dict[str, str | bool]]: st.lists(st.fixed_dictionaries({"answer": _TEXT, "right": st.booleans()}), max_size=2),
    dict[str, float]: st.dictionaries(_TEXT, st.floats(allow_nan=False, allow_infinity=False), max_size=2),
    dict[str, dict[str, Any]]: st.dictionaries(
        _TEXT, st.dictionaries(_TEXT, st.integers() | _TEXT, max_size=2), max_size=2
    ),
    float | None: st.none() | st.floats(allow_nan=False, allow_infinity=False),
    int | None: st.none() | st.integers(0, 2**53),
    str | None: st.none() | _TEXT,
}


def _events(kind: type[Event]) -> st.SearchStrategy[Event]:
    hints = get_type_hints(kind)
    fields = {field.name: _BY_TYPE[hints[field.name]] for field in dataclasses.fields(kind)}
    return st.builds(kind, **(fields | {"time": st.floats(0, 1e11)}))


def _seen(event: Event) -> dict[str, Any]:
    """The event's fields, with what is not a finite number as one mark (NaN equals nothing, itself included)."""
    fields = vars(event).items()
    return {name: "nan" if isinstance(value, float) and not math.isfinite(value) else value for name, value in fields}


@given(st.sampled_from(list(EVENT_TYPES.values())).flatmap(_events))
def test_every_event_comes_back_from_its_line_as_it_was(event: Event) -> None:
    line = to_line(event)
    assert "\n" not in line
    back = from_line(line.encode())
    assert type(back) is type(event)
    assert back is not None
    assert _seen(back) == _seen(event)


@given(st.sampled_from(list(EVENT_TYPES.values())).flatmap(_events))
def test_every_line_is_strict_json_that_begins_with_event_time_and_step(event: Event) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    values = json.loads(to_line(event), parse_constant=refuse)
    assert list(values)[:3] == ["event", "time", "step"]
    assert values["event"] == event.name


def test_a_loss_that_is_no_number_is_null_in_the_file_and_nan_when_read() -> None:
    line = to_line(Evaluated(3, 1.0, math.nan, math.inf, False, 0.1))
    assert json.loads(line)["val_loss"] is None
    back = from_line(line)
    assert isinstance(back, Evaluated)
    assert math.isnan(back.train_loss)
    assert math.isnan(back.val_loss)


@each(
    "line",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        '{"event": "step"}',
        '{"event": "unheard", "time": 1.0, "step": 1}',
        '{"event": ["step"], "time": 1.0, "step": 1}',
        '{"time": 1.0, "step": 1}',
        b"\xff\xfe",
        "[" * 100_000,
    ],
)
def test_a_line_that_is_no_event_is_none(line: str | bytes) -> None:
    assert from_line(line) is None


_STEP = {
    "event": "step",
    "time": 1.0,
    "step": 3,
    "loss": 2.5,
    "lr": 1e-3,
    "grad_norm": 1,
    "tokens": 768,
    "tokens_per_second": 1e4,
    "active_seconds": 1.0,
    "eta_seconds": None,
    "memory_bytes": 1,
    "mfu": 0.5,
}


@each(
    ("field", "value"),
    [
        *(("loss", "low"), ("loss", "2.5"), ("loss", [2.5]), ("loss", {}), ("loss", True), ("loss", 10**400)),
        *(("step", 3.0), ("step", "3"), ("step", None), ("step", False), ("step", -1), ("step", 2**63)),
        *(("tokens", 10**30), ("time", None), ("time", "now"), ("time", 1e300), ("time", -1.0)),
    ],
)
def test_a_field_of_another_type_makes_a_line_no_event(field: str, value: Any) -> None:
    assert isinstance(from_line(json.dumps(_STEP)), StepEvent)
    assert from_line(json.dumps(_STEP | {field: value})) is None


@pytest.mark.parametrize(
    "values",
    [
        {"event": "warned", "message": 3},
        {"event": "warned", "message": None},
        {"event": "sampled", "samples": "text"},
        {"event": "sampled", "samples": [{"prompt": "a", "text": 5}]},
        {"event": "sampled", "samples": ["text"]},
        {"event": "checkpoint_saved", "checkpoint": "c", "labels": [1], "bytes": 1, "seconds": 1.0},
        {"event": "stopped", "active_seconds": 1.0, "checkpoint": 7},
    ],
)
def test_texts_and_lists_are_of_their_type_too(values: dict[str, Any]) -> None:
    assert from_line(json.dumps({"time": 1.0, "step": 2} | values)) is None


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert from_line('{"event": "warned", "time": 1.0, "step": 2, "message": "m", "new": 3}') == Warned(2, 1.0, "m")


def test_losses_compare_where_the_tokens_are_the_same(tmp_path: Path) -> None:
    (first,) = (event for event in FakeRun(tmp_path).start().written if isinstance(event, Started))

    def compare(one: dict[str, Any], other: dict[str, Any]) -> bool:
        return not tokens_differ([dataclasses.replace(first, **one), dataclasses.replace(first, **other)])

    char, bpe = ({"tokenizer": name, "vocab_size": 512} for name in ("char", "bpe"))
    base = {"settings": {"model": {"base": "pretraining/letters@300"}}}
    chat = base | {"tokenizer": "ChatML, the model's own", "vocab_size": 512}
    assert compare(char, char | {"vocab_size": 65, "bytes_per_token": 1.1})
    assert compare({"tokenizer": "compact", "vocab_size": 9000}, {"tokenizer": "gpt2", "vocab_size": 50257})
    assert not compare(bpe | {"bytes_per_token": 2.7}, bpe | {"bytes_per_token": 2.6})  # learned from other texts
    assert compare(bpe | {"bytes_per_token": 2.7}, bpe)  # as runs of before said it: nothing tells them apart
    assert compare(chat | {"bytes_per_token": 4.0}, chat | {"bytes_per_token": 3.9})  # other examples held out
    assert compare(chat, chat | {"bytes_per_token": 3.9})  # as runs of before said it
    assert not compare(chat, chat | {"vocab_size": 49152})
    assert compare(chat, bpe | {"bytes_per_token": 2.7})  # its base, which cuts as it does
    assert compare(chat, char)
    assert not compare(chat, char | {"vocab_size": 65})
    assert first.bits_per_byte is None
    assert dataclasses.replace(first, bytes_per_token=4.0).bits_per_byte == pytest.approx(math.log2(math.e) / 4)


def test_the_fields_of_the_contract_are_there() -> None:
    step = {field.name for field in dataclasses.fields(StepEvent)}
    assert step >= {"loss", "lr", "grad_norm", "tokens", "tokens_per_second", "active_seconds", "eta_seconds"}
    assert {field.name for field in dataclasses.fields(Evaluated)} >= {"train_loss", "val_loss"}
    names = (
        "started step shared evaluated sampled scored checkpoint_saved paused resumed warned inspected "
        "finished stopped failed"
    )
    assert set(EVENT_TYPES) == set(names.split())
