"""What is asked is judged on the models that are there, a seed's tests together; random weights support nothing."""

from __future__ import annotations

import pytest
import torch
from small_models import shape

from llmlab.anatomy.capture import Observer, Point, run
from llmlab.anatomy.finding import anatomy_of
from llmlab.core.task_settings import TaskModelSettings
from llmlab.data.papers import SUPPORTED
from llmlab.data.synthetic.bijection import Bijection
from llmlab.data.synthetic.hmm import HiddenMarkov
from llmlab.data.synthetic.tasks import Task, held_out
from llmlab.gpt.model import GPT
from llmlab.models.task_models import make_model
from llmlab.studies.papers.agreement import agreed, corrected
from llmlab.studies.papers.bayesian_geometry.geometry import samples_of, take
from llmlab.studies.papers.bayesian_geometry.judge import Models, Subjects, check_geometry

REPEATS = Bijection(8, 12, repeats=True)
ALL = ("manifold", "keys", "alignment", "causal", "layers")


def untrained(task: Task, layers: int = 2) -> Models:
    """Models with random weights in place of trained ones."""
    settings = TaskModelSettings(n_layer=layers, n_head=2, n_embd=16)

    def make(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return make_model(settings, task.layout).eval().requires_grad_(False)

    return Models(task, {seed: make(seed) for seed in range(4)}, make)


@pytest.mark.slow
def test_random_weights_support_nothing_and_the_progress_is_that_of_all_parts() -> None:
    told: list[float] = []
    subjects = Subjects(untrained(REPEATS), untrained(REPEATS, 5), untrained(HiddenMarkov(3, 3, 6)))
    found = list(
        check_geometry(subjects, ALL, sequences=6, progress=lambda what, done, total: told.append(done / total))
    )
    verdicts = {one.claim: one for one in found}
    assert sorted(verdicts) == sorted(ALL)
    assert [one.seeds for one in found] == [[0, 1, 2, 3]] * 5
    assert SUPPORTED not in [one.verdict for one in found]
    assert told == sorted(told)
    assert 0.9 < told[-1] < 1
    names = [chart.name for one in found for chart in one.charts]
    assert len(names) == len(set(names))
    assert {"manifold", "manifold-hmm", "keys", "keys-hmm", "alignment", "causal", "layers", "heads"} <= {*names}
    titles = [table.title for table in verdicts["manifold"].tables]
    assert any("HMM" in title for title in titles)


def test_only_what_is_asked_and_has_models_is_judged() -> None:
    shallow = untrained(REPEATS)
    assert list(check_geometry(Subjects(), ALL, 4)) == []
    assert [one.claim for one in check_geometry(Subjects(repeats=shallow), ("causal", "layers"), 4)] == ["causal"]
    assert [one.claim for one in check_geometry(Subjects(deep=shallow), ALL, 4)] == ["layers", "alignment"]


def test_the_tests_of_one_seed_are_corrected_together_and_seeds_are_not() -> None:
    found = corrected(
        {
            "manifold": {1: (0.001, 0.002), 2: None, 3: (0.02, 0.001)},
            "alignment": {1: (0.01,), 2: (0.01,)},
            "causal": {1: (0.04,), 3: (0.5,)},
        }
    )
    assert found["manifold"][1] == pytest.approx((0.004, 0.006))
    assert (found["alignment"][1], found["causal"][1]) == (pytest.approx((0.02,)), pytest.approx((0.04,)))
    assert (found["manifold"][2], found["alignment"][2]) == (None, (0.01,))
    assert found["manifold"][3] == pytest.approx((0.04, 0.003))
    assert found["causal"][3] == pytest.approx((0.5,))


def test_the_p_of_a_verdict_is_what_enough_seeds_stay_below() -> None:
    assert agreed([0.5, 0.01, 0.02, 0.03, 0.04]) == 0.04
    assert agreed([0.5, 0.01]) == 0.5
    assert agreed([]) is None


class _Entering(Observer):
    def residual(self, layer: int, point: Point, x: torch.Tensor) -> None:
        if (layer, point) == (0, "pre_attn"):
            self.x = x.clone()


def test_rows_of_the_hmm_are_ids_that_its_model_can_read() -> None:
    task = HiddenMarkov(3, 3, 6)
    batch = held_out(task, 1)[0]
    assert batch.ids.max() >= task.layout.vocab_size
    model = untrained(task).fresh(0)
    assert isinstance(model, GPT)
    entering = _Entering()
    logits = run(model, anatomy_of(model), batch.ids[0].tolist(), [entering])
    ids = torch.from_numpy(batch.ids)
    assert model.position_embedding is not None
    expected = model.token_embedding(ids) + model.position_embedding.weight[: ids.shape[1]]
    assert torch.allclose(entering.x, expected[0])
    first, end = task.layout.answers
    answers = logits[0, list(task.layout.positions), first:end]
    assert torch.allclose(answers, model.answers(ids)[0], atol=1e-6)
    samples = samples_of(task, 3)
    assert [x.shape for x in take(model, samples).values] == [(18, 16)] * 2
    plain = GPT(shape(), 16)
    assert anatomy_of(plain).id_limit == 16
