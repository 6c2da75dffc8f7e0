"""A data class from a file has values of its fields' types, or none is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from llmlab.core.records import formerly, from_plain


@dataclass(frozen=True)
class Trial:
    name: str
    loss: float | None = None


@dataclass(frozen=True)
class Study:
    steps: int
    rate: float = 0.0
    trials: list[Trial] = field(default_factory=list, metadata=formerly("arms"))
    shape: tuple[int, ...] = ()
    by_name: dict[str, Trial] = field(default_factory=dict)


def test_nested_values_names_of_earlier_versions_and_names_of_later_ones_are_read() -> None:
    values = {
        "steps": 3,
        "rate": 1,
        "arms": [{"name": "a"}],
        "shape": [2, 4],
        "by_name": {"b": {"name": "b", "loss": 1.5}},
    }
    expected = Study(3, 1, [Trial("a")], (2, 4), {"b": Trial("b", 1.5)})
    assert from_plain(Study, {**values, "of_a_later_version": {}}) == expected
    assert from_plain(Study, {**values, "trials": [{"name": "now"}]}).trials == [Trial("now")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", True),  # no number, though Python takes it for 1
        ("rate", False),
        ("steps", 3.0),
        ("steps", "3"),
        ("rate", 10**400),  # beyond any float
        ("trials", {"name": "a"}),
        ("trials", ["a"]),
        ("shape", [2, "4"]),
        ("by_name", {"b": 1}),
    ],
)
def test_a_value_of_another_type_is_refused_by_the_name_of_its_field(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} is "):
        from_plain(Study, {"steps": 3, name: value})


def test_a_field_without_a_default_is_needed() -> None:
    with pytest.raises(TypeError, match="It lacks steps"):
        from_plain(Study, {"rate": 0.1})
    with pytest.raises(TypeError, match="has no names"):
        from_plain(Study, [3])
