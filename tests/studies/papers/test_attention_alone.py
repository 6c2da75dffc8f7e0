"""A task's GPT without feed-forward: attention alone, which every panel still opens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import train_here, weights_of

from llmlab.anatomy.attention_call import AttentionCall
from llmlab.anatomy.capture import Observer, Point, run
from llmlab.anatomy.finding import anatomy_of
from llmlab.core.config import with_values
from llmlab.core.errors import LabError
from llmlab.core.task_settings import LEARNED, REPEATS, ROTARY, TaskDataSettings, TaskModelSettings, TaskSettings
from llmlab.data.synthetic.known_tasks import task_of
from llmlab.data.synthetic.tasks import TRAIN
from llmlab.inspection.answers import answer_question
from llmlab.inspection.archive import read_archive
from llmlab.inspection.evolve import evolve
from llmlab.inspection.questions import ASPECTS
from llmlab.jobs.launcher import create_run
from llmlab.models.about import about, about_live
from llmlab.models.reference import LiveRun
from llmlab.models.source import open_model
from llmlab.models.task_models import make_model
from llmlab.store.checkpoints import list_checkpoints
from llmlab.store.run_folder import RunFolder
from llmlab.training.task import task_seconds

DATA = TaskDataSettings(task=REPEATS, vocabulary=20, shortest=3, longest=5, context=14)
TASK = task_of(DATA)
PROMPT = "t3 t8 t1 t9 t3 t8"


def model_of(*, layers: int = 2, feed_forward: bool = False, position: str = LEARNED) -> torch.nn.Module:
    torch.manual_seed(1)
    settings = TaskModelSettings(n_layer=layers, n_head=2, n_embd=16, feed_forward=feed_forward, position=position)
    model = make_model(settings, TASK.layout).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(20)  # so that attention looks somewhere
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    values = {f"data.{name}": getattr(DATA, name) for name in ("task", "vocabulary", "shortest", "longest", "context")}
    values |= {"model.n_embd": 16, "model.n_head": 2, "model.feed_forward": False, "model.position": ROTARY}
    values |= {"train.steps": 6, "train.eval_interval": 3, "train.eval_sequences": 32, "data.batch_size": 16}
    values |= {"checkpoints.interval": 2, "checkpoints.keep_last": 10}
    outputs = tmp_path_factory.mktemp("outputs")
    return train_here(create_run(outputs, with_values(TaskSettings(), values), name="alone"))


def outputs_of(run: RunFolder) -> Path:
    return run.path.parent.parent


@pytest.mark.parametrize("position", [LEARNED, ROTARY])
def test_it_is_a_gpt_whose_feed_forward_adds_nothing(position: str) -> None:
    whole, alone = model_of(feed_forward=True, position=position), model_of(position=position)
    weights = {name: weight for name, weight in whole.state_dict().items() if ".feed_forward." not in name}
    alone.load_state_dict(weights)
    ids = torch.from_numpy(TASK.batch(1, TRAIN, 0, 8).ids)
    with torch.no_grad():
        assert not torch.allclose(whole.answers(ids), alone.answers(ids), atol=1e-3)
        for block in whole.blocks:
            block.feed_forward.down.weight.zero_()
        torch.testing.assert_close(whole.answers(ids), alone.answers(ids))
    assert not any("feed_forward." in name for name in alone.state_dict())


class Parts(Observer):
    """What was added to the stream."""

    def __init__(self) -> None:
        self.first, self.last, self.added, self.fed = torch.empty(0), torch.empty(0), [], []

    def residual(self, layer: int, point: Point, x: torch.Tensor) -> None:
        if (layer, point) == (0, "pre_attn"):
            self.first = x.clone()
        if point == "attn_out":
            self.added.append(x.clone())
        if point == "mlp_out":
            self.fed.append(x.clone())

    def final(self, x: torch.Tensor) -> None:
        self.last = x.clone()


def test_the_stream_is_the_embedding_and_what_attention_adds() -> None:
    model, parts = model_of(), Parts()
    run(model, anatomy_of(model), TASK.batch(1, TRAIN, 0, 1).ids[0].tolist(), [parts])
    torch.testing.assert_close(parts.first + sum(parts.added), parts.last)
    assert all(not fed.any() for fed in parts.fed)


class Keys(Observer):
    """The keys of each layer."""

    def __init__(self) -> None:
        self.keys: dict[int, torch.Tensor] = {}

    def attention(self, layer: int, call: AttentionCall) -> None:
        self.keys[layer] = call.key.clone()


def test_only_a_second_layers_keys_know_which_token_came_before() -> None:
    model = model_of()
    ids = TASK.batch(1, TRAIN, 0, 1).ids[0].tolist()
    other = [(ids[0] + 1) % 20, *ids[1:]]
    seen = []
    for prompt in (ids, other):
        keys = Keys()
        run(model, anatomy_of(model), prompt, [keys])
        seen.append(keys.keys)
    torch.testing.assert_close(seen[0][0][:, 1:], seen[1][0][:, 1:], rtol=0, atol=0)
    assert (seen[0][1][:, 1] - seen[1][1][:, 1]).abs().max() > 0.01


def test_every_panel_opens_it(trained: RunFolder) -> None:
    outputs = outputs_of(trained)
    opened = open_model("alone@final", outputs)
    assert not [reason for reason in vars(opened.anatomy.refusals).values() if reason]
    questions = {
        "inspect": {"what": list(ASPECTS)},
        "pattern": {"layer": 1, "head": 0},
        "stages": {"layer": 1, "head": 0},
        "intervene": {"edits": ["zero head:0.1"]},
        "sweep": {"source": "t3 t8 t1 t2 t3 t8"},
        "parameters": {},
        "geometry": {},
    }
    for question, values in questions.items():
        path = answer_question(opened, question, {"text": PROMPT} | values, outputs / f"{question}.safetensors")
        assert len(list(read_archive(path))) > 0, question
    with pytest.raises(LabError, match="no feed-forward"):
        answer_question(opened, "neurons", {"text": PROMPT, "layer": 0}, outputs / "neurons.safetensors")


def test_its_evolution_holds_every_checkpoint(trained: RunFolder) -> None:
    out = outputs_of(trained) / "evolution.safetensors"
    evolve(trained.id, outputs_of(trained), {"text": PROMPT, "what": ["heads"]}, out)
    archive = read_archive(out)
    assert [checkpoint.step for checkpoint in list_checkpoints(trained.checkpoints)] == [2, 4, 6]
    assert archive.shape("heads/induction") == (3, 2, 2)


def test_a_live_one_is_described_as_an_open_one(trained: RunFolder) -> None:
    opened = about(open_model("alone@final", outputs_of(trained)))
    live = about_live(LiveRun(trained, trained.id))
    for name in ("parameters", "bytes", "n_layer", "n_head", "n_embd", "vocab_size", "context"):
        assert getattr(opened, name) == getattr(live, name), name
    assert opened.parameters == sum(tensor.numel() for tensor in weights_of(trained).values())


def test_a_step_of_attention_alone_is_expected_to_take_a_third_of_the_products() -> None:
    def seconds(width: int, *, feed_forward: bool) -> float:
        model = TaskModelSettings(n_layer=2, n_head=2, n_embd=width, feed_forward=feed_forward)
        return task_seconds(TaskSettings(model=model, data=DATA))

    def products(*, feed_forward: bool) -> float:
        return seconds(4096, feed_forward=feed_forward) - seconds(8, feed_forward=feed_forward)

    assert products(feed_forward=True) == pytest.approx(3 * products(feed_forward=False))
