"""Deeper models go from plan to report and are measured once; models without attention are judged as they come."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from unittest import mock

import pytest

from llmlab.core.kinds import PAPERS
from llmlab.core.task_settings import BIJECTION, MLP_PREFIX, TRANSFORMER
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, read_paper
from llmlab.data.synthetic.metrics import Calibration
from llmlab.store.run_folder import RunFolder
from llmlab.studies.check_worker import CheckWorker
from llmlab.studies.launcher import make_folder
from llmlab.studies.papers.bayesian_geometry import judge, plan
from llmlab.studies.papers.bayesian_geometry.plan import ALIGNMENT, ARCHITECTURE, DEEP, LAYERS, Size
from llmlab.studies.papers.checks import CheckRequest, plan_check
from llmlab.studies.papers.interface import Check, Measured
from llmlab.studies.papers.records import read_result
from llmlab.studies.plans.records import CheckFolder, Trial

_TINY = {"data.values": 3, "data.pairs": 3, "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 16}
_TINY |= {"data.batch_size": 16, "train.steps": 2, "train.eval_sequences": 16, "train.eval_interval": 2}
TINY = Size(1, {DEEP: _TINY | {"model.n_layer": 2, "data.pairs": 4}}, sequences=50)


@pytest.mark.slow
def test_a_check_trains_judges_and_draws_and_measures_the_geometry_once(outputs: Path) -> None:
    with mock.patch.dict(plan.SIZES, minutes=TINY), mock.patch.object(judge, "_QUERY_SEQUENCES", 6):
        paper, claims = read_paper("bayesian-geometry"), [ALIGNMENT, LAYERS]
        record = plan_check(CheckRequest(paper, "minutes", outputs, claims, name="deep"))
        folder = CheckFolder(outputs / PAPERS / record.id)
        make_folder(folder, record)
        CheckWorker(folder).run()
        assert folder.status().state == "finished"
        result = read_result(folder.results_json)
        found = {one.claim: one for one in result.verdicts}
        assert list(found) == claims
        assert found[LAYERS].verdict == INCONCLUSIVE  # one seed, which learned nothing
        assert found[ALIGNMENT].verdict in (INCONCLUSIVE, NOT_SUPPORTED)
        assert found[ALIGNMENT].n == 6
        charts = [chart.name for one in result.verdicts for chart in one.charts]
        assert charts == ["alignment", "alignment-cosine", "layers", "heads"]
        assert all((folder.figures / f"{name}.svg").is_file() for name in charts)
        report = folder.report.read_text()
        assert "The geometry as a whole: open." in report
        assert "alignment inconclusive" in report
        with mock.patch.object(judge, "check_geometry", side_effect=AssertionError):
            again = {one.claim: one for one in judge.late(CheckWorker(folder)._check())}
        assert again == found


def test_models_without_attention_are_judged_as_soon_as_they_are_measured(tmp_path: Path) -> None:
    def measured(group: str, kind: str, error: float, seed: int) -> Measured:
        settings = {"data.task": BIJECTION, "model.kind": kind}
        trial = Trial(f"{group}-s{seed}", f"x-{group}-s{seed}", settings, {}, seed, float(seed), group)
        line = asdict(Calibration(error, error, error, 10))
        return Measured(
            trial, RunFolder(tmp_path), {"model": line, "floors": {"uniform": line | {"entropy_error": 0.8}}}
        )

    check = Check([ARCHITECTURE], "minutes", [], tmp_path, tmp_path)
    check.finished.extend(measured(BIJECTION, TRANSFORMER, 0.02, seed) for seed in range(1, 6))
    assert judge.early(check) == []
    check.finished.extend(measured(f"{BIJECTION}-mlp-prefix", MLP_PREFIX, 0.01, seed) for seed in range(1, 5))
    check.finished.append(measured(DEEP, TRANSFORMER, 9.0, 1))  # another depth: no part of it
    (verdict,) = judge.early(check)
    assert (verdict.claim, verdict.verdict, verdict.seeds) == (ARCHITECTURE, NOT_SUPPORTED, [1, 2, 3, 4])
    assert verdict.statistic.value == 0.5
