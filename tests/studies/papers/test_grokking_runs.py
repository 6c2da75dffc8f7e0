"""A run on sums reads its whole split, resumes exactly, and is followed through its checkpoints."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from kills import events_of, final_tensors
from small_runs import kill_and_resume, train_here

from llmlab.core.config import with_values
from llmlab.core.errors import LabError
from llmlab.core.task_settings import MODULAR, TaskModelSettings, TaskSettings
from llmlab.data.papers import read_paper
from llmlab.data.synthetic.modular import ModularSum
from llmlab.data.synthetic.tasks import HELD_OUT, TRAIN
from llmlab.jobs.launcher import create_run
from llmlab.models.scratch import open_task
from llmlab.models.task_models import make_model
from llmlab.store.checkpoints import list_checkpoints, select
from llmlab.store.run_folder import RunFolder
from llmlab.studies.papers.checks import CheckRequest, plan_check
from llmlab.studies.papers.grokking.fourier import power_shares
from llmlab.studies.papers.grokking.plan import LATE, PLAN, SIZES, TESTED, WITH, WITHOUT, planned_runs
from llmlab.studies.papers.grokking.trajectory import LAST, Split, embedding_of, follow, logits_of_sums
from llmlab.studies.papers.interface import Check, Measured
from llmlab.studies.plans.records import Trial
from llmlab.training.task_run import cross_entropy

SMALL = {"data.modulus": 7, "data.train_share": 0.5, "data.batch_size": 24, "model.n_embd": 16}
SMALL |= {"train.eval_sequences": 25, "train.steps": 12, "train.eval_interval": 4}
SMALL |= {"checkpoints.interval": 4}


def new(outputs: Path, name: str, **changes: object) -> RunFolder:
    """A small run with all else as the check plans it."""
    (planned,) = planned_runs("minutes", [LATE], 1)
    values = planned.settings | SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    return create_run(outputs, with_values(TaskSettings(), values), name=name)


def test_a_run_on_sums_killed_and_resumed_ends_as_one_left_alone(outputs: Path) -> None:
    alone, killed = new(outputs, "alone"), new(outputs, "killed")
    train_here(alone)
    kill_and_resume(killed, before_step=6)
    ours, theirs = final_tensors(alone), final_tensors(killed)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert follow(alone) == follow(killed)


def test_losses_of_a_run_are_those_of_all_its_training_and_all_its_held_out_sums(outputs: Path) -> None:
    run = train_here(new(outputs, "whole"))
    model, task = open_task(run, select(run.checkpoints, "final"))
    assert isinstance(task, ModularSum)
    evaluated, followed = events_of(run, "evaluated")[-1], follow(run)
    for name, part, loss in (("train", TRAIN, followed.train_loss), ("val", HELD_OUT, followed.held_loss)):
        batch = task.whole(part)
        with torch.no_grad():
            expected = float(cross_entropy(model, batch, batch.target, "cpu"))
        assert evaluated[f"{name}_loss"] == pytest.approx(expected, abs=1e-5)
        assert loss[-1] == pytest.approx(expected, abs=1e-5)
    started = events_of(run, "started")[0]
    assert (started["train_tokens"], started["tokens_per_step"], started["val_tokens"]) == (72, 72, 75)
    assert started["floor_loss"] == 0


def test_all_checkpoints_of_a_planned_run_are_kept_and_followed(outputs: Path) -> None:
    run = train_here(new(outputs, "kept", train__steps=20))
    followed = follow(run)
    assert [point.step for point in list_checkpoints(run.checkpoints)] == followed.steps == [4, 8, 12, 16, 20]
    model, task = open_task(run, select(run.checkpoints, "final"))
    np.testing.assert_allclose(followed.spectra[LAST], power_shares(embedding_of(model, task)))
    assert len(followed.random_keys) == 10


def test_the_module_that_the_plan_names_measures_runs_and_judges_all_of_its_claims(outputs: Path) -> None:
    judge = import_module(PLAN.judge)
    check = Check(list(TESTED), "minutes", [], outputs, outputs / "measurements")
    for group, decay in ((WITH, 0.5), (WITHOUT, 0.0)):
        run = train_here(new(outputs, f"decay-{decay:g}", train__weight_decay=decay))
        trial = Trial(run.id, run.id, {}, {}, 1, 1.0, group)
        check.finished.append(Measured(trial, run, judge.measure(check, trial, run)))
    assert [verdict.claim for verdict in (*judge.early(check), *judge.late(check))] == list(TESTED)


def test_a_run_on_another_task_cannot_be_followed(outputs: Path) -> None:
    run = train_here(create_run(outputs, with_values(TaskSettings(), {"train.steps": 1, "train.threads": 1}), name="b"))
    with pytest.raises(LabError, match="adds"):
        follow(run)


def test_accuracies_are_shares_of_the_right_cells() -> None:
    task = ModularSum(5, 11)
    split = Split(task)
    table = np.zeros((5, 5, 5))
    a, b = np.nonzero(split.train)
    table[a, b, (a + b) % 5] = 50
    table[~split.train, :] = np.eye(5)[(split.answers[~split.train] + 1) % 5]
    assert (split.accuracy(table, split.train), split.accuracy(table, split.held)) == (1, 0)
    assert split.loss(table, split.train) == pytest.approx(0, abs=1e-9)
    assert split.mirrored.sum() + split.new.sum() == split.held.sum() == 14
    assert all(split.train[j, i] for i, j in np.argwhere(split.mirrored))


def test_logits_of_sums_lie_where_their_numbers_say() -> None:
    task = ModularSum(6, 10)
    torch.manual_seed(0)
    model = make_model(TaskModelSettings(n_layer=1, n_embd=16), task.layout).eval()
    table = logits_of_sums(model, task)
    with torch.no_grad():
        one = model.answers(torch.tensor([[4, 2, 6]]))[0, 0].double().numpy()
    np.testing.assert_allclose(table[4, 2], one, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_every_planned_run_reads_all_of_its_training_sums_in_a_step(size: str, tmp_path: Path) -> None:
    runs = planned_runs(size, TESTED)
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        settings = with_values(TaskSettings(), run.settings)
        data = settings.data
        assert (data.task, data.batch_size) == (MODULAR, data.train_sums)
        assert settings.train.eval_sequences == data.modulus**2 - data.train_sums
        assert settings.checkpoints.keep_last * settings.checkpoints.interval >= settings.train.steps
    with_decay, without = ({run.seed for run in runs if run.group == group} for group in (WITH, WITHOUT))
    assert with_decay == without == set(range(1, SIZES[size].seeds + 1))
    assert {run.group for run in planned_runs(size, [LATE])} == {WITH}
    record = plan_check(CheckRequest(read_paper("grokking"), size, tmp_path))
    assert record.options["claims"] == list(TESTED)
