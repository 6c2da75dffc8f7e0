"""A number below zero has the minus sign of print; what is written as zero has no sign."""

from __future__ import annotations

import pytest

from llmlab.core.signs import minus


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
