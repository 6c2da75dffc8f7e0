"""A check plans what its claims need, runs it, resumes where it was interrupted, and says what came out."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from llmlab.cli.main import main
from llmlab.core.errors import UsageError
from llmlab.core.kinds import PAPERS
from llmlab.core.progress import Work, parts
from llmlab.core.task_settings import BIJECTION, DUPLICATES, HMM
from llmlab.data.papers import INCONCLUSIVE, SIZES, list_papers, read_paper
from llmlab.studies.check_worker import CheckWorker
from llmlab.studies.experiment_worker import Stop
from llmlab.studies.launcher import make_folder
from llmlab.studies.papers.bayesian_geometry import judge, plan
from llmlab.studies.papers.bayesian_geometry.plan import CALIBRATION, KEYS, PLAN, TESTED, Size, planned_runs
from llmlab.studies.papers.checks import CheckRequest, claims_tested, plan_check
from llmlab.studies.papers.records import read_result
from llmlab.studies.plans.records import CheckFolder, ExperimentStatus, TrialStatus, find_plan

BAYESIAN_GEOMETRY = PLAN.paper
_TINY = {"data.values": 3, "data.pairs": 3, "data.length": 2, "model.n_layer": 1, "model.n_embd": 16}
_TINY |= {"data.batch_size": 16, "train.steps": 3, "train.eval_sequences": 16, "train.eval_interval": 3}
TINY = Size(1, {BIJECTION: _TINY, HMM: _TINY}, sequences=50)


@pytest.fixture
def tiny() -> object:
    """`minutes`, in seconds: two tasks, one seed, nothing beside the transformer."""
    with mock.patch.dict(plan.SIZES, minutes=TINY):
        yield


def request(outputs: Path, name: str = "check", **changes: object) -> CheckRequest:
    return CheckRequest(read_paper(BAYESIAN_GEOMETRY), "minutes", outputs, [CALIBRATION], name=name, **changes)


def test_every_size_has_a_plan_and_geometry_needs_only_repeated_keys() -> None:
    assert tuple(plan.SIZES) == SIZES
    for size in SIZES:
        runs = planned_runs(size, TESTED)
        assert len({run.name for run in runs}) == len(runs)
        assert {run.settings["data.task"] for run in runs} == {BIJECTION, DUPLICATES, HMM}
    assert {run.settings["data.task"] for run in planned_runs("minutes", [KEYS])} == {DUPLICATES}
    assert len({run.seed for run in planned_runs("minutes", [CALIBRATION])}) == 5


def test_a_claim_without_a_test_and_an_unknown_size_are_refused(outputs: Path) -> None:
    paper = read_paper(BAYESIAN_GEOMETRY)
    assert set(claims_tested(paper)) == set(TESTED)
    with pytest.raises(UsageError, match="no claim"):
        plan_check(CheckRequest(paper, "minutes", outputs, ["calibrated"]))
    with pytest.raises(UsageError, match="no test of 'softmax'"):
        plan_check(CheckRequest(read_paper("attention-sinks"), "minutes", outputs, ["softmax"]))
    with pytest.raises(UsageError, match="no size"):
        plan_check(CheckRequest(paper, "seconds", outputs))


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_a_check_that_is_interrupted_goes_on_and_gives_a_verdict(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = plan_check(request(outputs, command="llmlab-run paper run bayesian-geometry"))
    folder = CheckFolder(outputs / PAPERS / record.id)
    make_folder(folder, record)
    with mock.patch.object(CheckWorker, "_measure", side_effect=Stop):  # after its first run
        CheckWorker(folder).run()
    assert folder.status().state == "stopped"
    assert read_result(folder.results_json).verdicts == []
    assert folder.cancel_command.startswith("llmlab-run paper ")  # what is proposed where it runs already
    first = folder.run_of(record.trials[0], PAPERS)
    before = first.events.read_bytes()

    CheckWorker(find_plan("check", outputs, CheckFolder)).run()
    assert folder.status().state == "finished"
    assert first.events.read_bytes() == before
    (verdict,) = read_result(folder.results_json).verdicts
    assert verdict.verdict == INCONCLUSIVE  # one seed says nothing
    assert verdict.seeds == [1]
    (chart,) = [one for one in verdict.charts if one.name == "calibration-hmm"]
    assert {series.name for series in chart.series} >= {"seed 1", "knowing nothing", "filter, last 2 observations"}
    report = folder.report.read_text()
    assert "llmlab-run paper run bayesian-geometry" in report
    title = read_paper("bayesian-geometry").claim(CALIBRATION).title
    assert f"| {title} ({CALIBRATION}) | {INCONCLUSIVE} |" in report
    assert "| interval |" not in report  # one seed has none
    assert all((folder.figures / f"{one.name}.{end}").is_file() for one in verdict.charts for end in ("png", "svg"))

    assert main(["paper", "verdict", "check", "--outputs", str(outputs)]) == 0
    assert "calibration  inconclusive" in capsys.readouterr().out
    assert main(["paper", "list", "--json", "--outputs", str(outputs)]) == 0
    assert json.loads(capsys.readouterr().out)["checks"] == [{"id": "check", "state": "finished"}]
    assert main(["runs", "--json", "--outputs", str(outputs)]) == 0
    assert {run["task"] for run in json.loads(capsys.readouterr().out)} == {BIJECTION, HMM}
    assert main(["show", first.id, "--outputs", str(outputs)]) == 0
    assert "learned by transformer 1x16" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny")
def test_geometry_waits_for_all_runs_and_for_a_worker_that_goes_on(outputs: Path) -> None:
    record = plan_check(request(outputs))
    folder = CheckFolder(outputs / PAPERS / record.id)
    make_folder(folder, record)
    worker = CheckWorker(folder)
    with mock.patch.object(judge, "late", return_value=iter([])) as geometry:
        worker._write_report()
        assert not geometry.called
        worker.status = replace(worker.status, trials={trial.name: TrialStatus("failed") for trial in record.trials})
        worker.status = replace(worker.status, state="stopping")
        worker._write_report()
        assert not geometry.called
        worker.status = replace(worker.status, state="running")
        worker.stop_signal.set()
        with pytest.raises(Stop):
            worker._write_report()
        assert not geometry.called
        worker.stop_signal.clear()
        worker._write_report()
        assert geometry.called


@pytest.mark.usefixtures("tiny")
def test_a_check_is_not_done_before_its_runs_are_measured_and_judged(outputs: Path) -> None:
    record = plan_check(request(outputs))
    folder = CheckFolder(outputs / PAPERS / record.id)
    make_folder(folder, replace(record, options=record.options | {"judging_seconds": 5.0}))
    measuring = [trial.measuring_seconds for trial in record.trials]
    assert record.estimated_seconds == sum(trial.estimated_seconds for trial in record.trials) + sum(measuring)
    worker = CheckWorker(folder)
    ended = replace(worker.status, trials={trial.name: TrialStatus("finished") for trial in record.trials})
    worker._ended.extend(record.trials)
    assert worker._seconds_left(ended) == sum(measuring) + 5.0
    worker._ratios.append(2.0)  # the first took twice as long as estimated
    worker._ended.popleft()
    assert worker._seconds_left(ended) == 2.0 * sum(measuring[1:]) + 5.0


def test_work_that_takes_longer_than_expected_says_so_by_its_own_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    work = Work(10.0)
    work.tell("Reading", 0, 4)
    now[0] = 109.0
    assert work.left == 1.0
    work.tell("Reading", 1, 4)
    assert work.left == 27.0
    now[0] = 200.0
    assert work.left == 0.0  # nothing is known of it any more


def test_the_time_left_of_a_part_counts_the_parts_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    work = Work(20.0)
    first, second = parts([20, 80], work.tell_all)
    for done in range(6):  # ten seconds for a fifth of the first part: two for each hundredth of all
        work.tell("Reading", done, 5)
        first("Reading", done, 5)
        assert done != 2 or work.left == 30.0  # of this step alone: 8 % of all is no pace yet
        now[0] += 10.0 * (done < 5)
    assert work.left == 50.0 * 80 / 20
    second("Asking", 1, 2)
    assert work.left == pytest.approx(50.0 * 40 / 60)  # the second part is faster, which brings the end nearer


@pytest.mark.parametrize(
    ("status", "share"),
    [
        (ExperimentStatus(eta_seconds=60.0), 0.0),
        (ExperimentStatus("running", active_seconds=30.0, eta_seconds=90.0), 0.25),
        (ExperimentStatus("running", active_seconds=30.0, eta_seconds=0.0), 0.99),
        (ExperimentStatus("finished", active_seconds=30.0, eta_seconds=0.0), 1.0),
    ],
)
def test_all_is_done_once_it_has_finished_and_not_before(status: ExperimentStatus, share: float) -> None:
    assert status.share_done == share


@pytest.mark.usefixtures("tiny")
def test_a_stop_after_the_last_run_leaves_no_check_that_is_called_finished(outputs: Path) -> None:
    record = plan_check(request(outputs))
    folder = CheckFolder(outputs / PAPERS / record.id)
    make_folder(folder, replace(record, trials=[]))
    worker = CheckWorker(folder)
    with mock.patch.object(CheckWorker, "_write_results", side_effect=worker.stop_signal.set):
        worker.run()
    assert folder.status().state == "stopped"
    CheckWorker(folder).run()
    assert folder.status().state == "finished"


def test_every_paper_is_shown_with_its_claims(capsys: pytest.CaptureFixture[str]) -> None:
    for paper in list_papers():
        assert main(["paper", "show", paper.name]) == 0
        shown = capsys.readouterr().out
        assert all(claim.title in shown for claim in paper.claims)


def test_a_plan_starts_nothing(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "run", BAYESIAN_GEOMETRY, "--plan", "--seeds", "2", "--outputs", str(outputs)]) == 0
    assert "hmm-s2" in capsys.readouterr().out
    assert not list(outputs.iterdir())
    assert main(["paper", "rnu", BAYESIAN_GEOMETRY]) == 2
    assert "Did you mean run?" in capsys.readouterr().err


def test_the_same_command_resumes_a_check_of_an_earlier_version(
    tiny: object, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = request(outputs)
    record = plan_check(asked)
    trials = [
        replace(
            trial,
            settings={key.replace("eval_sequences", "eval_windows"): value for key, value in trial.settings.items()},
            estimated_seconds=trial.estimated_seconds + 3,  # measuring was in it
            measuring_seconds=0.0,
        )
        for trial in record.trials
    ]
    options = record.options | {"judging_seconds": 1.0}  # as the models' number had it
    make_folder(CheckFolder(outputs / PAPERS / record.id), replace(record, trials=trials, options=options))
    words = ["paper", "run", BAYESIAN_GEOMETRY, "--claims", CALIBRATION, "--outputs", str(outputs), "--plan"]
    assert main([*words, "--name", record.id]) == 0
    assert main([*words, "--name", record.id, "--seeds", "3"]) == 2
    assert "It was started with other claims, seeds or sizes." in capsys.readouterr().err
