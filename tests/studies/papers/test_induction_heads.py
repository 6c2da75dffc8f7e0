"""Induction heads: planted ones are found and taken away, curves by hand, and verdicts at their thresholds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import train_here
from torch import nn

from llmlab.core.config import with_values
from llmlab.core.task_settings import TaskModelSettings, TaskSettings
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SIZES, SUPPORTED
from llmlab.data.synthetic.repeats import Repeats
from llmlab.data.synthetic.tasks import held_out
from llmlab.jobs.launcher import create_run
from llmlab.models.task_models import make_model
from llmlab.studies.papers.induction_heads import thresholds as bounds
from llmlab.studies.papers.induction_heads.composition import composition_verdict, judge_composition
from llmlab.studies.papers.induction_heads.copying import (
    change_verdict,
    judge_change,
    judge_layers,
    lag_of,
    layers_verdict,
)
from llmlab.studies.papers.induction_heads.followed import Found, Removed, Window, fall_inside, half_way, rise_window
from llmlab.studies.papers.induction_heads.judge import early, head_scores, measure, second_reading_loss
from llmlab.studies.papers.induction_heads.plan import COMPOSITION, LAYERS, ONE, TESTED, TWO, planned_runs
from llmlab.studies.papers.interface import Check, Measured
from llmlab.studies.plans.records import Trial

# A planted model ---------------------------------------------------------------------------------------------------

TOKENS = POSITIONS = 16
TASK = Repeats(TOKENS, 5, 8, POSITIONS)
# The stream in three parts: which token stands here, where here is, and which token stands one position before.
TOKEN, POSITION, BEFORE = (slice(start, start + 16) for start in (0, 16, 32))
SHARP = 2.5  # a normalised stream holds about sqrt(48 / 2) where it holds anything


def planted() -> nn.Module:
    """Head 0.0 writes down the token before; head 1.0 looks for the present token there, and says what stands there."""
    settings = TaskModelSettings(n_layer=2, n_head=2, n_embd=48, feed_forward=False)
    model = make_model(settings, TASK.layout).eval()
    query, key, value = slice(0, 16), slice(48, 64), slice(96, 112)  # of head 0; head 1 stays empty
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        model.token_embedding.weight[:, TOKEN] = torch.eye(16)
        model.position_embedding.weight[:, POSITION] = torch.eye(16)
        first, second = (block.attention for block in model.blocks)
        first.qkv.weight[query, POSITION] = SHARP * torch.eye(16)
        first.qkv.weight[key, POSITION] = SHARP * torch.eye(16).roll(1, 0)  # the key of j is the query of j + 1
        first.qkv.weight[value, TOKEN] = torch.eye(16)
        first.out.weight[BEFORE, :16] = torch.eye(16) / 5
        second.qkv.weight[query, TOKEN] = SHARP * torch.eye(16)
        second.qkv.weight[key, BEFORE] = SHARP * torch.eye(16)
        second.qkv.weight[value, TOKEN] = torch.eye(16)
        second.out.weight[TOKEN, :16] = 2 * torch.eye(16)
    return model


def test_planted_heads_are_found_and_one_feeds_the_other() -> None:
    model = planted()
    scores = head_scores(model, TOKENS)
    assert scores.previous[0, 0] > 0.9
    assert scores.induction[1, 0] > 0.9  # the first token's position speaks of itself: it has none before
    assert scores.previous[0, 1] < 0.3
    assert scores.induction[0].max() < 0.3
    without = head_scores(model, TOKENS, [(0, 0)])
    assert without.induction[1, 0] < 0.2
    beside = head_scores(model, TOKENS, [(0, 1)])
    np.testing.assert_allclose(beside.induction, scores.induction, atol=1e-6)


def test_heads_that_do_the_same_stand_in_for_one_another() -> None:
    model = planted()
    first = model.blocks[0].attention
    with torch.no_grad():
        for part in (0, 48, 96):  # queries, keys and values: head 0.1 becomes a copy of 0.0
            first.qkv.weight[part + 24 : part + 48] = first.qkv.weight[part : part + 24]
        first.out.weight[:, 24:] = first.out.weight[:, :24]
    whole, one, both = (head_scores(model, TOKENS, zeroed) for zeroed in ([], [(0, 0)], [(0, 0), (0, 1)]))
    assert one.induction[1, 0] > 0.9 * whole.induction[1, 0]
    assert both.induction[1, 0] < 0.2


def test_the_loss_of_the_second_reading_is_lost_with_the_head_that_feeds() -> None:
    model, batches = planted(), held_out(TASK, 64)
    loss, without, beside = (
        second_reading_loss(model, TASK.layout, batches, head) for head in ([], [(0, 0)], [(0, 1)])
    )
    assert loss < 0.5
    assert without > np.log(TOKENS) - 0.5
    assert beside == pytest.approx(loss, abs=1e-6)


def test_a_loss_is_the_mean_over_scored_predictions_alone() -> None:
    model, batch = planted(), held_out(TASK, 8)
    with torch.no_grad():
        logits = model.answers(torch.from_numpy(batch[0].ids)).double().log_softmax(-1).numpy()
    rows = [
        -logits[row, number, batch[0].ids[row, position + 1]]
        for row in range(8)
        for number, position in enumerate(TASK.layout.positions)
        if batch[0].scored[row, number]
    ]
    assert second_reading_loss(model, TASK.layout, batch) == pytest.approx(np.mean(rows))


@pytest.mark.slow
def test_a_check_of_small_runs_follows_every_checkpoint_and_judges_each_claim(outputs: Path) -> None:
    finished = []
    for plan in planned_runs("minutes", TESTED, 1):
        small = {"data.vocabulary": 20, "data.shortest": 3, "data.longest": 5, "data.context": 14, "model.n_embd": 16}
        small |= {"train.steps": 4, "train.eval_sequences": 8, "checkpoints.interval": 2}
        run = train_here(create_run(outputs, with_values(TaskSettings(), plan.settings | small), name=plan.name))
        trial = Trial(plan.name, run.id, plan.settings, {}, plan.seed, plan.seed, plan.group)
        check = Check(list(TESTED), "minutes", [], outputs, outputs)
        values = measure(check, trial, run)
        assert values["steps"] == [0, 2, 4]
        finished.append(Measured(trial, run, json.loads(json.dumps(values))))
    verdicts = early(replace(check, finished=finished))
    assert [verdict.claim for verdict in verdicts] == list(TESTED)
    assert {verdict.verdict for verdict in verdicts} == {INCONCLUSIVE}  # one seed, and four steps
    names = [chart.name for verdict in verdicts for chart in verdict.charts]
    assert len(names) == len(set(names))
    assert {"loss-by-step", "induction-by-step", "heads-by-layer"} <= set(names)
    assert verdicts[0].charts[0].series[0].x == [0, 2, 4]


# Curves ------------------------------------------------------------------------------------------------------------


def test_an_even_rise_takes_its_share_of_training_and_a_jump_almost_none() -> None:
    steps = np.linspace(0, 100, 11)
    even = rise_window(steps, steps / 100, 0.8)
    assert even is not None
    assert even.end - even.begin == pytest.approx(80)
    assert even.share >= bounds.EVEN
    jump = rise_window(steps, np.where(steps < 50, 0.0, 1.0), 0.8)
    assert jump is not None
    assert jump.end - jump.begin == pytest.approx(8)
    assert 40 <= jump.begin <= jump.end <= 50
    assert rise_window(steps, -steps, 0.8) is None


def test_the_shortest_window_is_that_of_trying_all() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        steps = np.cumsum(random.integers(1, 5, size=8)).astype(float)
        y = np.cumsum(random.normal(0.3, 1, size=8))
        fine = np.arange(steps[0], steps[-1] + 0.01, 0.05)
        curve = np.interp(fine, steps, y)
        wanted = 0.8 * (y[-1] - y[0])
        lengths = [
            fine[end] - fine[begin]
            for begin in range(len(fine))
            for end in np.flatnonzero(curve[begin:] - curve[begin] >= wanted)[:1] + begin
        ]
        window = rise_window(steps, y, 0.8)
        if wanted <= 0:
            assert window is None
        else:
            assert window is not None
            assert window.end - window.begin == pytest.approx(min(lengths), abs=0.11)
            begin, end = np.interp([window.begin, window.end], steps, y)
            assert end - begin == pytest.approx(wanted)


def test_half_way_and_the_fall_in_a_window_are_read_on_straight_lines() -> None:
    steps, loss = np.array([0.0, 10, 20, 40]), np.array([6.0, 5, 1, 0])
    assert half_way(steps, loss) == pytest.approx(15)
    assert half_way(steps, -loss) == pytest.approx(15)
    assert fall_inside(steps, loss, Window(5, 20)) == pytest.approx(4.5 / 6)
    with pytest.raises(ValueError, match="same"):
        half_way(steps, np.ones(4))


# Verdicts ----------------------------------------------------------------------------------------------------------

LN_V, COUNTING = 5.0, 2.0


def found(loss: list[float], score: list[float], removed: list[Removed] | None = None) -> Found:
    """A run with a checkpoint each 100 steps and two layers of two heads, of which 1.1 has the score."""
    induction = [[[0.01, 0.01], [0.01, one]] for one in score]
    steps = [100 * number for number in range(len(loss))]
    floors = {"uniform": LN_V, "counts and places": COUNTING}
    return Found(steps, loss, induction, induction, floors, 1000, removed or [])


LEARNS = found([5, 5, 5, 0.4, 0.4], [0, 0, 0, 0.9, 0.9])
FAILS = found([5, 4.5, 4.2, 4.1, 4.0], [0.02] * 5)


def test_two_layers_against_one_at_the_bounds() -> None:
    assert judge_layers(LEARNS, FAILS) == SUPPORTED
    assert judge_layers(LEARNS, LEARNS) == NOT_SUPPORTED
    assert judge_layers(FAILS, FAILS) == INCONCLUSIVE
    at = bounds.LEARNED * LN_V
    assert judge_layers(replace(LEARNS, loss=[5.0] * 4 + [at]), FAILS) == SUPPORTED
    assert judge_layers(replace(LEARNS, loss=[5.0] * 4 + [at + 1e-6]), FAILS) == INCONCLUSIVE
    assert judge_layers(found(LEARNS.loss, [0, 0, 0, 0, bounds.HEAD - 1e-6]), FAILS) == INCONCLUSIVE
    assert judge_layers(LEARNS, replace(FAILS, loss=[5.0] * 4 + [COUNTING - 1e-6])) == INCONCLUSIVE
    assert judge_layers(LEARNS, found(FAILS.loss, [bounds.NO_HEAD] * 5)) == INCONCLUSIVE


def test_a_jump_of_both_is_supported_and_an_even_rise_or_a_loss_that_falls_first_is_not() -> None:
    assert judge_change(LEARNS) == SUPPORTED
    even = found([5, 3.9, 2.7, 1.6, 0.4], [0, 0.25, 0.45, 0.65, 0.9])
    assert judge_change(even) == NOT_SUPPORTED
    before = found([5, 0.5, 0.4, 0.4, 0.4], [0, 0, 0, 0, 0.9])
    assert lag_of(before) < -bounds.LAG_REFUTED
    assert judge_change(before) == NOT_SUPPORTED
    assert judge_change(FAILS) == INCONCLUSIVE  # nothing formed


def test_a_rise_is_sudden_up_to_half_of_the_training_until_then() -> None:
    # All of the rise is even from step b to 1000, so 80 % of it ends there and begins at 200 + 0.8 b.
    def rising(begin: int) -> Found:
        steps = [0, begin, 1000]
        induction = [[[0.0, one]] for one in (0.0, 0.0, 1.0)]
        floors = {"uniform": LN_V, "counts and places": COUNTING}
        return Found(steps, [5, 5, 0.1], induction, induction, floors, 10)

    assert judge_change(rising(376)) == SUPPORTED  # (1000 - 376) x 0.8 = 499.2 steps
    assert judge_change(rising(374)) == INCONCLUSIVE


def test_composition_needs_the_previous_token_head_and_no_other() -> None:
    def outcome(first: float, other: float) -> str:
        heads = [Removed(0, 0, 0.1, 0.9 * (1 - other), 1.0), Removed(0, 1, 0.95, 0.9 * (1 - first), 4.0)]
        return judge_composition(replace(LEARNS, removed=heads))

    assert outcome(bounds.TAKEN + 1e-6, bounds.SPARED - 1e-6) == SUPPORTED
    assert outcome(bounds.TAKEN - 1e-6, 0.0) == INCONCLUSIVE
    assert outcome(0.9, bounds.SPARED + 1e-6) == INCONCLUSIVE
    assert outcome(bounds.SPARED - 1e-6, 0.9) == NOT_SUPPORTED
    assert judge_composition(LEARNS) == INCONCLUSIVE  # no head was removed


def test_verdicts_count_seeds_and_the_chance_that_the_right_head_is_first() -> None:
    heads = [Removed(0, 0, 0.1, 0.88, 1.0), Removed(0, 1, 0.95, 0.05, 4.0)]
    two = {seed: replace(LEARNS, removed=heads) for seed in range(1, 6)}
    one = dict.fromkeys(two, FAILS)
    layers, change, composition = layers_verdict(two, one), change_verdict(two), composition_verdict(two)
    assert [verdict.verdict for verdict in (layers, change, composition)] == [SUPPORTED] * 3
    assert layers.statistic.value == pytest.approx(4.0 - 0.4)
    assert composition.p == pytest.approx(0.5**5)
    few = {seed: two[seed] for seed in (1, 2)}
    assert change_verdict(few).verdict == INCONCLUSIVE


# Plan --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_one_layer_differs_from_two_in_nothing_that_it_learns_from(size: str) -> None:
    runs = planned_runs(size, [LAYERS], 2)
    assert [(run.group, run.seed) for run in runs] == [(TWO, 1), (ONE, 1), (TWO, 2), (ONE, 2)]
    two, one = runs[0].settings, runs[1].settings
    differing = {name for name in two if two[name] != one[name]}
    assert differing <= {"model.n_layer", "checkpoints.interval", "train.eval_interval", "train.steps"}
    assert one["train.steps"] >= two["train.steps"]
    assert {run.group for run in planned_runs(size, [COMPOSITION], 1)} == {TWO}
