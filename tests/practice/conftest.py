"""A small run that questions are asked about, trained once for all of this folder's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import new_run, train_here

from llmlab.gpt.model import GPT
from llmlab.practice import predictions, readings, twin
from llmlab.practice.kinds import all_kinds
from llmlab.practice.subject import Subject, subject_of


@pytest.fixture(scope="session")
def practised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with that run alone, which no test changes."""
    folder = tmp_path_factory.mktemp("outputs")
    train_here(new_run(folder, model__n_layer=2, model__n_head=2, train__warmup_steps=4, train__grad_clip=0.5))
    return folder


@pytest.fixture(scope="module")
def subject(practised: Path) -> Iterator[Subject]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twin, "STEPS", 3)
        patch.setattr(twin, "_HELD_OUT", 4)
        all_kinds()  # or a module that is imported only now would keep what is patched
        patch.setattr(readings, "_FOUND", 0.0)
        for least in ("_APART", "_COUNTS"):
            patch.setattr(predictions, least, 0.0)
        yield subject_of("run", practised)


@pytest.fixture(scope="module")
def model(subject: Subject) -> GPT:
    assert isinstance(subject.opened.model, GPT)
    return subject.opened.model
