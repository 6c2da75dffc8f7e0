"""The run that tests hold interrupted ones against: of the module's STEPS and SETTINGS."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import new_run, train_here

from llmlab.store.run_folder import RunFolder


@pytest.fixture(scope="module")
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that nobody disturbed, and that had all the space it wanted."""
    module = request.module
    return train_here(new_run(tmp_path_factory.mktemp("alone"), module.STEPS, "alone", **module.SETTINGS))


@pytest.fixture
def run(request: pytest.FixtureRequest, outputs: Path) -> RunFolder:
    """The same run, not begun."""
    return new_run(outputs, request.module.STEPS, **request.module.SETTINGS)
