"""A run on a task learns, can be killed and resumed, and holds its loss against the exact posterior."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from kills import DETERMINED, events_of, final_tensors
from small_runs import kill_and_resume, train_here

from llmlab.core.config import with_values
from llmlab.core.errors import LabError
from llmlab.core.kinds import PAPERS
from llmlab.core.task_settings import (
    LSTM,
    MLP_POSITION,
    MLP_PREFIX,
    TRANSFORMER,
    TaskDataSettings,
    TaskModelSettings,
    TaskSettings,
)
from llmlab.data.synthetic.known_tasks import task_of
from llmlab.data.synthetic.tasks import TRAIN, held_out
from llmlab.inspection.answers import answer_question
from llmlab.jobs.launcher import create_run, prepare_resume
from llmlab.jobs.model_host import Host
from llmlab.models.reference import parse
from llmlab.models.scratch import open_task
from llmlab.models.source import open_model, source_of
from llmlab.models.task_models import RowEmbedding, make_model
from llmlab.store.checkpoints import sealed, select
from llmlab.store.run_folder import RunFolder
from llmlab.studies.papers.bayesian_geometry.calibration import baselines
from llmlab.training.task_run import measure, task_key

KINDS = (TRANSFORMER, LSTM, MLP_POSITION, MLP_PREFIX)
SMALL = {"data.values": 3, "data.pairs": 3, "data.batch_size": 64, "model.n_embd": 16, "model.n_layer": 1}


def new(outputs: Path, name: str, **changes: object) -> RunFolder:
    values = SMALL | {"train.eval_sequences": 64} | {key.replace("__", "."): value for key, value in changes.items()}
    return create_run(outputs, with_values(TaskSettings(), values), name=name)


@pytest.mark.parametrize("kind", [TRANSFORMER, LSTM])
def test_a_run_killed_and_resumed_ends_as_one_left_alone(outputs: Path, kind: str) -> None:
    changes = {"train__steps": 12, "train__eval_interval": 4, "checkpoints__interval": 4, "model__kind": kind}
    alone, killed = (new(outputs, name, **changes) for name in ("alone", "killed"))
    train_here(alone)
    kill_and_resume(killed, before_step=6)
    ours, theirs = final_tensors(alone), final_tensors(killed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    rows = [[[event[name] for name in DETERMINED] for event in events_of(run, "step")] for run in (alone, killed)]
    assert rows[0] == rows[1]
    assert events_of(killed, "started")[-1]["step"] == 4


def test_a_run_begun_before_the_lab_learned_another_task_goes_on(outputs: Path) -> None:
    """Its checkpoints name no setting of that task; a setting of its own that differs still makes it another task."""
    begun = new(outputs, "begun", train__steps=2)
    train_here(begun)
    manifest = select(begun.checkpoints, "final").path / "manifest.json"
    saved = json.loads(manifest.read_text())
    del saved["about"]["task"]["vocabulary"], saved["about"]["task"]["modulus"]
    manifest.write_text(json.dumps(sealed(saved)))
    prepare_resume(begun, {"train.steps": 3})
    train_here(begun)
    assert [event["step"] for event in events_of(begun, "started")] == [0, 2]
    assert not [line for line in events_of(begun, "started")[-1]["changed"] if "token file" in line]
    latest = select(begun.checkpoints, "final").path / "manifest.json"
    saved = json.loads(latest.read_text())
    saved["about"]["task"]["values"] = 4
    latest.write_text(json.dumps(sealed(saved)))
    prepare_resume(begun, {"train.steps": 4})
    with pytest.raises(LabError, match="another task"):
        train_here(begun)


def test_what_a_run_reads_does_not_hang_on_settings_of_other_tasks() -> None:
    key = task_key(TaskSettings())
    assert task_key(with_values(TaskSettings(), {"data.modulus": 7, "data.states": 5})) == key
    others = ({"data.values": 9}, {"data.batch_size": 64}, {"train.seed": 5}, {"data.task": "duplicates"})
    assert len({task_key(with_values(TaskSettings(), other)) for other in others} | {key}) == 5


@pytest.mark.slow
def test_a_short_wind_tunnel_beats_the_uniform_floor(outputs: Path) -> None:
    run = train_here(new(outputs, "short", train__steps=120, train__eval_interval=0, train__learning_rate=1e-2))
    assert run.path.parent.name == PAPERS
    model, task = open_task(run, select(run.checkpoints, "final"))
    found, floor = measure(model, task, 300), baselines(task, 300)["uniform"]
    assert found.entropy_error < 0.5 * floor.entropy_error
    assert found.kl < 0.5 * floor.kl


def test_validation_loss_less_its_floor_is_the_divergence_from_the_posterior(outputs: Path) -> None:
    run = train_here(new(outputs, "held", train__steps=5, train__eval_interval=5))
    started, evaluated = events_of(run, "started")[0], events_of(run, "evaluated")[-1]
    model, task = open_task(run, select(run.checkpoints, "final"))
    kl = measure(model, task, 64).kl * math.log(2)
    assert evaluated["val_loss"] - started["floor_loss"] == pytest.approx(kl, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [TaskDataSettings(values=4, pairs=4), TaskDataSettings(task="hmm", length=3)])
def test_no_model_sees_what_comes_later(kind: str, data: TaskDataSettings) -> None:
    task = task_of(data)
    torch.manual_seed(1)
    model = make_model(TaskModelSettings(kind=kind, n_embd=16), task.layout).eval()
    ids = torch.from_numpy(task.batch(1, TRAIN, 0, 4).ids)
    position = task.layout.positions[1]
    later, own = ids.clone(), ids.clone()
    later[:, position + 1 :] = 0
    own[:, position] = (own[:, position] + 1) % 3
    with torch.no_grad():
        before, after, other = (model.answers(one) for one in (ids, later, own))
    torch.testing.assert_close(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 1], other[:, 1])
    assert before.shape == (4, len(task.layout.positions), task.layout.answers[1] - task.layout.answers[0])


def test_a_token_that_is_a_row_is_embedded_by_its_numbers() -> None:
    task = task_of(TaskDataSettings(task="hmm"))
    embedding = RowEmbedding(task.layout, 8)
    ids = task.batch(1, TRAIN, 0, 5).ids
    transitions, _, _ = task.parts(ids)
    embedded = embedding(torch.from_numpy(ids)).detach()
    wanted = 10 * torch.from_numpy(transitions).float() @ embedding.rows.weight.T.detach()
    torch.testing.assert_close(embedded[:, :3], wanted)
    torch.testing.assert_close(embedded[:, -1], embedding.weight[ids[:, -1]].detach())


def test_held_out_sequences_do_not_depend_on_how_many_are_asked_for() -> None:
    task = task_of(TaskDataSettings())
    few, many = (np.concatenate([batch.ids for batch in held_out(task, count)]) for count in (300, 600))
    assert (len(few), len(many)) == (300, 600)
    np.testing.assert_array_equal(few, many[:300])


def test_a_tasks_checkpoint_opens_as_any_model_does_and_reads_its_own_tokens(outputs: Path) -> None:
    train_here(new(outputs, "opened", train__steps=2, train__eval_interval=0))
    opened = open_model("opened@final", outputs)
    ids = opened.tokenizer.encode("k1 v2 k0")
    assert opened.tokenizer.decode(ids) == "k1 v2 k0"
    assert opened.anatomy.n_layer == 1
    assert source_of(parse("opened", outputs)).context() == 5
    answer_question(opened, "inspect", {"text": "k1 v2 k0", "what": ["attention"]}, outputs / "seen.safetensors")
    assert (outputs / "seen.safetensors").is_file()
    with pytest.raises(LabError, match="not a token of this task"):
        opened.tokenizer.encode("king")
    said = io.StringIO()  # as the window asks
    Host(said, outputs)._answer_or_say_why({"id": 1, "do": "tokenize", "model": "opened@final", "text": "k1 v2 k0"})
    assert json.loads(said.getvalue())["ids"] == ids
    assert source_of(parse("opened", outputs)).tokenizer().encode("k1 v2 k0") == ids
