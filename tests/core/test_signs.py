"""Numbers as people read them: a few digits of a count, and the minus sign of print."""

from __future__ import annotations

import pytest

from llmlab.core.signs import count_text, minus


@pytest.mark.parametrize(
    ("formatted", "read"),
    [
        (f"{-0.00004:+.4f}", "0.0000"),
        (f"{0.00004:+.4f}", "0.0000"),
        (f"{-0.0:,.0f}", "0"),
        (f"{-1234.5:,.1f}", "−1,234.5"),
        (f"{0.25:+.2f}", "+0.25"),
        (f"{-1.5e-7:.4g}", "−1.5e-07"),
        (f"{float('-inf')}", "−inf"),
        ("–", "–"),
    ],
)
def test_the_sign_of_a_number(formatted: str, read: str) -> None:
    assert minus(formatted) == read


@pytest.mark.parametrize(
    ("count", "read"),
    [(64, "64"), (9999, "9,999"), (12_345, "12.3k"), (813_056, "0.81M"), (124e6, "124M"), (2e9, "2.00B")],
)
def test_a_count_of_parameters_is_written_as_the_field_does(count: float, read: str) -> None:
    assert count_text(count) == read
