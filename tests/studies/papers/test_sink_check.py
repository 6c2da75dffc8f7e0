"""A check of attention sinks from a model's folder to verdicts, and what is left of it when it is interrupted."""

from __future__ import annotations

import gc
import shutil
import weakref
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tiny_models

from llmlab.core.errors import Cancelled, LabError
from llmlab.data.papers import INCONCLUSIVE, read_paper
from llmlab.studies.experiment_worker import Stop
from llmlab.studies.papers import interface
from llmlab.studies.papers.attention_sinks import judge
from llmlab.studies.papers.attention_sinks.plan import PLAN, SIZES, TESTED, Size
from llmlab.studies.papers.attention_sinks.thresholds import UNTRAINED_MODELS
from llmlab.studies.papers.interface import Check
from llmlab.studies.papers.records import Verdict

SMALL = Size(tokens=16, texts=2, untrained=1, first=1)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Llama with random weights, and layers enough to tell how its norms grow."""
    folder = tmp_path_factory.mktemp("models") / "deep"
    return str(tiny_models.save(tiny_models.llama(num_hidden_layers=8), folder))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One with few layers, of which all else can be asked."""
    return str(tiny_models.save(tiny_models.llama(), tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def measured(deep: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Verdict, ...]]:
    """What a whole check of it leaves in the folder of measurements, and its verdicts."""
    folder, shares = tmp_path_factory.mktemp("measurements"), [0.0]
    check = Check(list(TESTED), "minutes", [deep], folder, folder, asked=lambda _, done, all: shares.append(done / all))
    with mock.patch.dict(SIZES, {"minutes": SMALL}):
        verdicts = tuple(judge.late(check))
    assert shares == sorted(shares)  # of all that is asked, whatever part of it runs
    assert 0.9 < shares[-1] < 1.0
    return folder, verdicts


@pytest.fixture
def check(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Of the tiny Llama, on few and short prompts; nothing is measured yet."""
    monkeypatch.setitem(SIZES, "minutes", SMALL)
    (tmp_path / "measurements").mkdir()
    return Check(list(TESTED), "minutes", [model], tmp_path / "outputs", tmp_path / "measurements")


@pytest.fixture
def measured_check(check: Check, deep: str, measured: tuple[Path, tuple[Verdict, ...]]) -> Check:
    """The same check of the deep one, when all of it is measured."""
    check.models[:] = [deep]
    shutil.copytree(measured[0], check.measurements, dirs_exist_ok=True)
    return check


def test_a_model_of_transformers_is_measured_for_all_claims(
    deep: str, measured: tuple[Path, tuple[Verdict, ...]]
) -> None:
    sink, position, norms = measured[1]
    assert [one.claim for one in (sink, position, norms)] == list(TESTED)
    assert (sink.n, position.n, norms.n) == (10, 5, 10)
    assert {one.evidence["outcomes"].keys() == {deep} for one in (sink, position, norms)} == {True}
    share = sink.charts[0].series[0]
    assert len(share.y) == 8
    assert np.all(np.array(share.low) <= share.y)
    assert np.all(np.array(share.y) <= share.high)
    assert 0 < sink.statistic.value < 30  # random weights have no sink
    assert position.verdict == INCONCLUSIVE
    assert "no sink to ask about" in position.reason
    assert position.charts[0].categories[0] == "the text's own"
    assert "beginning of text" in position.charts[0].categories
    assert len(norms.charts[0].series[0].y) == 9
    assert [table.rows[0][0] for one in (sink, position, norms) for table in one.tables] == [deep] * 4


def test_what_was_measured_is_not_measured_again(
    measured_check: Check, measured: tuple[Path, tuple[Verdict, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "open_model", mock.Mock(side_effect=AssertionError("The model was opened.")))
    assert tuple(judge.late(measured_check)) == measured[1]


@pytest.mark.slow
def test_an_interrupted_check_keeps_the_parts_that_are_done(check: Check, tmp_path: Path) -> None:
    said: list[str] = []

    def interrupt(what: str, done: float, total: float) -> None:
        said.append(what)
        if "first tokens" in what:
            raise Cancelled

    stopping = Check(check.claims, check.size, check.models, check.outputs, check.measurements, progress=interrupt)
    with pytest.raises(Cancelled):
        list(judge.late(stopping))
    kept = {path: path.stat().st_mtime_ns for path in check.measurements.iterdir()}
    assert len(kept) == 2 + UNTRAINED_MODELS  # what it is, its texts, and each model with random weights
    assert [one.claim for one in judge.late(check)] == list(TESTED)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_a_stop_while_a_model_is_opened_is_no_fault_of_the_model(check: Check) -> None:
    def stop(what: str, done: float, total: float) -> None:
        if "opening" in what and total:  # from inside of transformers, which is told that errors are the file's
            raise Stop

    stopping = Check(check.claims, check.size, check.models, check.outputs, check.measurements, progress=stop)
    with pytest.raises(Stop):
        list(judge.late(stopping))
    assert list(check.measurements.iterdir()) == []


@pytest.mark.slow
def test_a_model_that_cannot_be_asked_is_said_and_the_others_are_judged(measured_check: Check) -> None:
    measured_check.models.append("nowhere")
    verdicts = list(judge.late(measured_check))
    assert all("nowhere was left out: There is no model 'nowhere'." in one.reason for one in verdicts)
    assert [one.n for one in verdicts] == [10, 5, 10]


def test_a_model_that_is_named_twice_counts_once(
    measured_check: Check, measured: tuple[Path, tuple[Verdict, ...]]
) -> None:
    measured_check.models.append(measured_check.models[0])
    assert tuple(judge.late(measured_check)) == measured[1]


@pytest.mark.slow
def test_memory_is_given_back_when_nothing_holds_the_model_any_more(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[weakref.ref[object]] = []
    held: list[int] = []
    plain = judge.open_model

    def opens(*about: object) -> object:
        model = plain(*about)
        opened.append(weakref.ref(model))
        return model

    def given_back() -> None:
        gc.collect()
        held.append(sum(one() is not None for one in opened))

    monkeypatch.setattr(judge, "open_model", opens)
    monkeypatch.setattr(interface, "give_back", given_back)
    list(judge.late(check))
    assert len(opened) == 1
    assert held[-1] == 0


@pytest.mark.slow
def test_a_model_too_large_for_one_with_random_weights_beside_it_is_still_asked_about_the_place(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmlab.models.model.require_memory", no_room)
    sink, position, norms = judge.late(check)
    assert all("was left out: It does not fit into memory." in one.reason for one in (sink, norms))
    assert position.n == 5
    assert "left out" not in position.reason


def no_room(weights: int, name: str) -> None:
    """Of a machine whose memory is full."""
    raise LabError("It does not fit into memory.")


def test_only_what_the_claims_ask_is_measured(check: Check) -> None:
    asked = Check(["position"], check.size, check.models, check.outputs, check.measurements)
    assert [one.claim for one in judge.late(asked)] == ["position"]
    assert len(list(check.measurements.iterdir())) == 2


@pytest.mark.slow
def test_the_plan_counts_every_pass(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = 0
    run = judge.read.__globals__["run"]

    def counted(*args: object, **how: object) -> object:
        nonlocal passes
        passes += 1
        return run(*args, **how)

    monkeypatch.setattr("llmlab.studies.papers.attention_sinks.reading.run", counted)
    monkeypatch.setattr("llmlab.studies.papers.attention_sinks.position.run", counted)
    list(judge.late(check))
    assert passes <= sum(SMALL.passes(TESTED))
    assert passes == pytest.approx(sum(SMALL.passes(TESTED)), rel=0.1)


def test_the_plan_tests_claims_that_the_paper_has_on_models_alone() -> None:
    known = {claim.id for claim in read_paper(PLAN.paper).claims}
    assert {*PLAN.claims} < known
    assert PLAN.of_models == PLAN.claims
    assert PLAN.runs("minutes", PLAN.claims, 0) == []
    assert PLAN.judging_seconds("minutes", PLAN.claims, 2) == 2 * PLAN.judging_seconds("minutes", PLAN.claims, 1)
