"""Every gradient of a walk backwards is autograd's, and its step is torch.optim.AdamW's."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from cases import each
from family_models import family_model
from small_runs import new_run, train_here
from test_walk_forwards import IDS, TEXT, by_name, opened, scratch
from tiny_models import TOKENIZER
from torch import nn
from watched_models import SETTINGS

from llmlab.core.errors import UsageError
from llmlab.core.progress import quiet
from llmlab.core.settings import PretrainSettings, PretrainTrainSettings
from llmlab.inspection.answers import answer_question
from llmlab.inspection.archive import read_archive
from llmlab.models.model import OpenModel
from llmlab.models.reference import GgufFile, SavedRun
from llmlab.models.source import open_model
from llmlab.training.loop import Trainer
from llmlab.training.schedule import learning_rate
from llmlab.training.state import load_state
from llmlab.walk.adamw import Trained, training_of
from llmlab.walk.answers import walks_of, write_walk_back
from llmlab.walk.backwards import WalkBack, walk_back
from llmlab.walk.forwards import Walk, walk
from llmlab.walk.stage import Stage, from_archive

# Gradients that are recomputed in every family, and the step.
COMPUTED = {
    *("loss", "logits_gradient", "final_norm_gradient", "end_gradient", "neurons_gradient", "up_gradient"),
    *("feed_forward_norm_gradient", "middle_gradient", "weighted_sum_gradient", "norm_gradient", "stream_gradient"),
    *("weight_gradient", "clipping", "schedule", "first_mean", "second_mean", "adamw", "step"),
}


def ids_of(model: OpenModel) -> list[int]:
    return TOKENIZER.encode(TEXT) if type(model.model).__name__ == "GPT" else list(IDS)


def loss(model: nn.Module, ids: list[int]) -> torch.Tensor:
    """By the models' own way."""
    batch = torch.tensor([ids])
    if type(model).__name__ == "GPT":
        return model.loss(batch[:, :-1], batch[:, 1:])
    return F.cross_entropy(model(input_ids=batch[:, :-1]).logits[0], batch[0, 1:])


def numbers(stages: list[Stage], stage: str, value: int = 0) -> list[float]:
    return by_name(stages)[stage].values[value].array.tolist()


@each("options", SETTINGS)
def test_each_gradient_of_the_labs_own_gpt_recomputed_is_autograds(options: dict[str, Any]) -> None:
    model = scratch(**options)
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    stages = walk_back(model, WalkBack(text=TEXT, layer=1, head=3, position=-2), Trained())
    assert all(torch.equal(weight, before[key]) for key, weight in model.model.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.model.parameters())
    expected = COMPUTED | {"after_gradient"}
    expected |= set() if options.get("qk_norm") else {"query_gradient"}
    expected |= {"value_gradient"} if not options.get("n_kv_head") else set()
    assert {stage.name for stage in stages if stage.difference is not None} == expected
    assert all(stage.code is not None for stage in stages), [one.name for one in stages if one.code is None]
    twin = copy.deepcopy(model.model).requires_grad_(True)
    whole = loss(twin, ids_of(model))
    assert float(whole.detach()) == pytest.approx(numbers(stages, "step")[0], rel=1e-5)


@each(
    ("kind", "more"),
    [
        ("llama", {"query_gradient", "after_gradient"}),
        ("gpt2", {"query_gradient", "value_gradient", "after_gradient"}),
        ("qwen2", {"query_gradient", "after_gradient"}),
        ("qwen3", {"after_gradient"}),
        ("gemma2", {"query_gradient"}),
    ],
)
def test_each_gradient_of_a_family_recomputed_is_autograds(kind: str, more: set[str]) -> None:
    model = opened(family_model(kind))
    stages = walk_back(model, WalkBack(ids=IDS, layer=1, head=2, position=3), Trained())
    assert {stage.name for stage in stages if stage.difference is not None} == COMPUTED | more
    assert not [one.name for one in stages if one.difference is not None and one.code is None]
    assert all(parameter.grad is None for parameter in model.model.parameters())


@pytest.mark.parametrize("which", ["blocks.0.attention.qkv.weight[5,7]", "blocks.1.feed_forward.down.weight[1,2]"])
def test_a_weights_gradient_and_its_adamw_step_are_those_of_torch(which: str) -> None:
    model = scratch()
    train = PretrainTrainSettings(steps=50, warmup_steps=4, learning_rate=0.01, weight_decay=0.2, grad_clip=0.5)
    twin = copy.deepcopy(model.model).requires_grad_(True)
    decayed = [one for one in twin.parameters() if one.dim() >= 2]
    groups = [
        {"params": decayed, "weight_decay": 0.2},
        {"params": [one for one in twin.parameters() if one.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(train.beta1, train.beta2))
    for step in range(3):  # the means of a run that has trained
        optimizer.zero_grad()
        loss(twin, TOKENIZER.encode("the king of the ring")[step:]).backward()
        optimizer.step()
    model.model.load_state_dict(twin.state_dict())
    moments = {key: dict(optimizer.state[one]) for key, one in twin.named_parameters()}
    moments = {key: {each: tensor.clone() for each, tensor in one.items()} for key, one in moments.items()}
    stages = walk_back(
        model, WalkBack(text=TEXT, weight=which, next="the ring"), Trained(train, 3, moments, (), "a run")
    )
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(3, train)
    optimizer.zero_grad()
    loss(twin, ids_of(model)).backward()
    key, _, place = which.partition("[")
    index = tuple(map(int, place.rstrip("]").split(",")))
    weight = twin.get_parameter(key)
    assert weight.grad is not None
    shares = numbers(stages, "weight_gradient")
    assert len(shares) == len(ids_of(model)) - 1
    assert sum(shares) == pytest.approx(float(weight.grad[index]), rel=1e-3)
    torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
    assert numbers(stages, "clipping")[1] == pytest.approx(float(weight.grad[index]), rel=1e-4)
    before = float(weight.detach()[index])
    optimizer.step()
    state = optimizer.state[weight]
    assert numbers(stages, "first_mean")[1] == pytest.approx(float(state["exp_avg"][index]), rel=1e-3)
    assert numbers(stages, "second_mean")[1] == pytest.approx(float(state["exp_avg_sq"][index]), rel=1e-3)
    assert numbers(stages, "adamw") == pytest.approx([before, float(weight[index])], rel=1e-5)
    assert all(by_name(stages)[one].difference is not None for one in ("clipping", "adamw", "schedule"))
    # The change of a weight, 0.01, is known to a ten-thousandth of it: nothing coarser passes for equal.
    assert by_name(stages)["adamw"].difference < 1e-6
    with torch.no_grad():
        expected = [float(loss(twin, ids)) for ids in (ids_of(model), TOKENIZER.encode("the ring"))]
    measured = numbers(stages, "step")
    assert [measured[1], measured[3]] == pytest.approx(expected, rel=1e-4)


def test_walks_come_back_from_their_archives_as_they_were(tmp_path: Path) -> None:
    model = scratch()
    for question, values in (
        ("walk", {"text": TEXT, "changes": ["norm[1]=2"]}),
        ("walk", {"text": TEXT, "cache": True, "key": 0}),
        ("walk_back", {"text": TEXT, "next": "the king"}),
    ):
        out = answer_question(model, question, values, tmp_path / "walk", more=walks_of(GgufFile(tmp_path)))
        came = from_archive(read_archive(out))
        if question == "walk":
            went = walk(model, Walk(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}))
        else:
            went = walk_back(model, WalkBack(**values), Trained())
        assert [stage.as_dict() for stage in came] == [stage.as_dict() for stage in went]


def test_a_walk_is_called_what_the_window_calls_it_before_it_begins(tmp_path: Path) -> None:
    said: list[str] = []
    for question in ("walk", "walk_back"):
        more, out = walks_of(GgufFile(tmp_path)), tmp_path / "walk"
        answer_question(scratch(), question, {"text": TEXT}, out, lambda what, *_: said.append(what), more=more)
    assert said == ["Walking forwards", "Walking backwards"]


def test_a_training_sequence_is_walked_back_and_the_next_one_is_measured() -> None:
    model = scratch()
    sequences = [TOKENIZER.encode(text) for text in ("the king of the ring", "the kings", "a ring of kings")]
    trained = Trained(sequences=sequences)
    for sequence, following in ((0, 1), (2, 0)):
        stages = walk_back(model, WalkBack(text="not read", sequence=sequence), trained)
        measured = numbers(stages, "step")
        expected = [float(loss(model.model, sequences[at])) for at in (sequence, following)]
        assert [measured[0], measured[2]] == pytest.approx(expected, rel=1e-5)
    measured = numbers(walk_back(model, WalkBack(text=TEXT), trained), "step")
    assert measured[2] == pytest.approx(float(loss(model.model, sequences[0])), rel=1e-5)
    with pytest.raises(UsageError, match="There are 3, from 0"):
        walk_back(model, WalkBack(sequence=3), trained)
    with pytest.raises(UsageError, match="no training sequence"):
        walk_back(model, WalkBack(sequence=0), Trained())


@pytest.mark.parametrize(("warm_up", "precision"), [(0, "fp32"), (4, "bf16")])
def test_the_training_sequences_of_a_checkpoint_are_those_that_its_run_reads_next(
    tmp_path: Path, warm_up: int, precision: str
) -> None:
    """In a warm-up of the batch they are fewer batches than later."""
    read: list[list[int]] = []
    plain = Trainer._batch

    def batch(self: Trainer, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids, targets = plain(self, index)
        if self.progress.step >= 2:
            read.extend([*row, last] for row, last in zip(ids.tolist(), targets[:, -1].tolist(), strict=True))
        return ids, targets

    changes = {"checkpoints__interval": 2, "train__grad_accum": 2, "train__precision": precision}
    run = new_run(tmp_path, 4, **changes, data__batch_warmup_steps=warm_up)
    with mock.patch.object(Trainer, "_batch", batch):
        train_here(run)
    settings = run.info().settings_as(PretrainSettings)
    assert len(read) == sum(settings.batch_at(step)[0] for step in (2, 3))
    found = training_of(SavedRun(run, run.id, "2"))
    assert found.sequences == read
    assert ("The run multiplies in bf16, this walk in fp32." in found.said) == (precision == "bf16")


def test_a_text_that_is_another_now_gives_no_training_sequences(tmp_path: Path) -> None:
    text = tmp_path / "own.txt"
    text.write_text("the king of the ring " * 400, encoding="utf-8")
    run = new_run(tmp_path, 2, "own", checkpoints__interval=1, data__corpus=str(text))
    train_here(run)
    assert training_of(SavedRun(run, run.id, "1")).sequences
    text.write_text("quick zebras vex jumpy dogs, 1234567890! " * 400, encoding="utf-8")
    assert not training_of(SavedRun(run, run.id, "1")).sequences


def test_what_training_kept_is_read_once_for_an_open_model(tmp_path: Path) -> None:
    run = train_here(new_run(tmp_path, 2, checkpoints__interval=1))
    reference = SavedRun(run, run.id, "1")
    opened = open_model(reference, tmp_path)
    with mock.patch("llmlab.walk.adamw.load_state", wraps=load_state) as read:
        for sequence in range(2):
            write_walk_back(reference, opened, WalkBack(sequence=sequence), tmp_path / f"{sequence}.safetensors", quiet)
    assert read.call_count == 1
    asked = [read_archive(tmp_path / f"{sequence}.safetensors").metadata.token_ids for sequence in range(2)]
    assert asked == [list(ids) for ids in training_of(reference).sequences[:2]]


@each(
    "wrong",
    [
        {"text": "the"},
        {"layer": 5},
        {"position": 99},
        {"weight": "nothing"},
        {"weight": "final_norm.weight[0,0]"},
        {"weight": "blocks.0.attention.out.weight[999,0]"},
    ],
)
def test_what_cannot_be_walked_back_is_said_in_a_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        walk_back(scratch(), WalkBack(**({"text": TEXT} | wrong)), Trained())


def test_the_step_of_a_weight_that_muon_moves_is_told_without_adamws_formula() -> None:
    model, settings = scratch(), PretrainTrainSettings(optimizer="muon", warmup_steps=0)
    stages = walk_back(model, WalkBack(text=TEXT, weight="blocks.0.attention.out.weight[3,4]"), Trained(settings))
    before, after = numbers(stages, "muon")
    assert before == float(model.model.get_parameter("blocks.0.attention.out.weight")[3, 4])
    assert before != after
    assert not {"adamw", "first_mean", "second_mean"} & by_name(stages).keys()
    loss_before, loss_after = numbers(stages, "step")
    assert loss_after < loss_before
