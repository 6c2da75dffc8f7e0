"""Shared by tests of fine-tuning: bases of every kind, made once a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from bases import make_bases


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def bases(outputs: Path) -> dict[str, str]:
    return make_bases(outputs)
