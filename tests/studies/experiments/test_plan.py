"""Plans: what varies, what stays, in which order, and how long it takes."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeRun
from preset_settings import resolve_settings

from llmlab.core.config import to_mapping, with_values
from llmlab.core.errors import UsageError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.presets import of_preset
from llmlab.core.settings import PretrainSettings, PretrainTrainSettings
from llmlab.models.base_shape import BaseShape, Layer
from llmlab.studies.experiments.kinds import KINDS, find_kind
from llmlab.studies.experiments.plan import LEAN, Request, lean, make_plan
from llmlab.studies.experiments.recipes import PARTS
from llmlab.studies.plans.records import ExperimentRecord, TrialStatus, settings_of
from llmlab.studies.plans.trials import seconds_left
from llmlab.training.finetuning.estimate import estimate_for
from llmlab.training.finetuning.kind import Finetuning

BASE = resolve_settings("baby", overrides={"train.steps": 240, "train.warmup_steps": 24, "train.eval_interval": 40})


def plan(kind: str, settings: Any = BASE, **more: Any) -> ExperimentRecord:
    return make_plan(Request(find_kind(kind), settings, Path("nowhere"), id="x", **more))


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> FinetuneSettings:
    """Settings of a fine-tuning run whose base need not be there."""
    monkeypatch.setattr(Finetuning, "seconds", lambda self, settings, outputs: 10.0)
    monkeypatch.setattr(Finetuning, "pinned", lambda self, settings, outputs: settings)
    layers = (Layer("feed_forward", 64, 256), Layer("feed_forward", 256, 64))
    shape = BaseShape("llama", 1000, 64, 1, 2, 128, layers, 100_000, 64, 64, 256, gated=False)
    monkeypatch.setattr(
        "llmlab.studies.experiments.plan.estimate_finetuning",
        lambda settings, outputs: estimate_for(shape, settings),
    )
    return FinetuneSettings()


@pytest.mark.parametrize(("grid", "precision"), [([64, 128], "fp32"), ([128, 256], "bf16")])
def test_trials_are_expected_to_take_what_they_take_in_the_precision_of_all(
    grid: list[int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmlab.gpt.estimate.multiplies_in_bf16", lambda: True)
    record = plan("width", grid=grid)
    explicit = plan("width", with_values(BASE, {"train.precision": precision}), grid=grid)
    seconds, expected = ([trial.estimated_seconds for trial in one.trials] for one in (record, explicit))
    assert seconds == expected
    other = plan("width", with_values(BASE, {"train.precision": "fp32" if precision == "bf16" else "bf16"}), grid=grid)
    assert seconds != [trial.estimated_seconds for trial in other.trials]


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.trains and "pretraining" in kind.tracks])
def test_the_default_plan_of_every_pretraining_kind_can_be_made(kind: Any) -> None:
    record = plan(kind.name)
    if kind.setting:
        values = len(kind.grids["pretraining"])
        if kind.name == "parallel":  # each strategy has all numbers of processes but the first, which needs none
            values = 1 + len(kind.groups) * (values - 1)
        assert len(record.trials) == values * kind.seeds
    if kind.name == "speedrun":
        assert {trial.group for trial in record.trials} == set(kind.groups) == set(PARTS)
    assert len({trial.run for trial in record.trials}) == len(record.trials)
    assert record.estimated_seconds == pytest.approx(sum(trial.estimated_seconds for trial in record.trials))
    for trial in record.trials:
        assert settings_of(record, trial).train.seed == trial.seed


def test_the_lowest_rate_keeps_its_share_of_the_peak() -> None:
    for trial in plan("learning-rate").trials:
        train = settings_of(plan("learning-rate"), trial).train
        assert train.min_learning_rate / train.learning_rate == pytest.approx(0.1)


def test_muons_rate_keeps_its_proportion_to_adamws() -> None:
    muon = with_values(BASE, {"train.optimizer": "muon", "train.muon_learning_rate": 0.02})
    for kind in ("learning-rate", "batch-size"):
        for trial in plan(kind, muon).trials:
            train = settings_of(plan(kind, muon), trial).train
            assert isinstance(train, PretrainTrainSettings)
            assert train.muon_learning_rate / train.learning_rate == pytest.approx(20)
    plain = plan("learning-rate")  # where it is not used, it is no difference between runs
    assert {settings_of(plain, trial).train.muon_learning_rate for trial in plain.trials} == {0.02}


def test_every_batch_size_has_its_warm_ups_over_the_same_tokens() -> None:
    warm = with_values(BASE, {"data.length_warmup_steps": 40, "data.batch_warmup_steps": 60})
    record = plan("batch-size", warm, grid=["6", "12", "24"])
    for trial in record.trials:
        data = settings_of(record, trial).data
        assert (data.length_warmup_steps * data.batch_size, data.batch_warmup_steps * data.batch_size) == (480, 720)


def test_every_batch_size_reads_the_same_number_of_tokens_at_a_rate_that_grows_with_its_root() -> None:
    record = plan("batch-size", grid=["3", "12", "48"])
    for trial in record.trials:
        settings = settings_of(record, trial)
        assert isinstance(settings, PretrainSettings)
        assert settings.train.steps * settings.data.batch_size == 240 * 12
        assert settings.train.warmup_steps * settings.data.batch_size == 24 * 12
        assert settings.train.learning_rate == pytest.approx(1e-3 * (settings.data.batch_size / 12) ** 0.5)


def test_a_speedrun_goes_from_the_base_to_the_preset_and_leaves_out_one_lever_at_a_time() -> None:
    base, goal = of_preset(PretrainSettings, "baby"), of_preset(PretrainSettings, "quick")
    record = plan("speedrun", base, seeds=1)
    made = {trial.name: settings_of(record, trial) for trial in record.trials}
    assert made["baseline"] == base
    whole = made["record"]
    assert (whole.model, replace(whole.data, corpus=""), replace(whole.train, **_watching(goal.train))) == (
        goal.model,
        replace(goal.data, corpus=""),
        goal.train,
    )
    alone = {}
    for name, settings in made.items():
        if name.startswith("without-"):
            alone[name] = _differing(settings, whole)
            assert all(_flat(settings)[key] == _flat(made["added-fewer-steps"])[key] for key in alone[name])
    added = [one for name, one in made.items() if name == "added-fewer-steps" or name.startswith("added-")] + [whole]
    steps = [_differing(after, before) for before, after in pairwise(added)]
    assert steps == list(alone.values())  # the same levers, each of which is added once and left out once
    assert set().union(*steps) == _differing(made["added-fewer-steps"], whole)
    assert len({settings.train.steps for name, settings in made.items() if name != "baseline"}) == 1


def test_a_small_speedrun_keeps_the_share_of_its_steps_and_compares_what_is_asked() -> None:
    record = plan("speedrun", groups=["baseline", "record"], seeds=2)
    goal, long = of_preset(PretrainSettings, "quick").train, of_preset(PretrainSettings, "baby").train
    assert [trial.name for trial in record.trials] == ["baseline-s1", "record-s1", "baseline-s2", "record-s2"]
    assert settings_of(record, record.trial("record-s1")).train.steps == round(240 * goal.steps / long.steps)
    with pytest.raises(UsageError, match="There is no lever"):
        plan("speedrun", of_preset(PretrainSettings, "quick"))
    with pytest.raises(UsageError, match="takes no values"):
        plan("speedrun", grid=[1, 2])


def _flat(settings: Any) -> dict[str, Any]:
    sections = to_mapping(settings).items()
    return {f"{section}.{key}": value for section, part in sections for key, value in part.items()}


def _differing(one: Any, other: Any) -> set[str]:
    return {key for key, value in _flat(one).items() if value != _flat(other)[key]}


def _watching(train: PretrainTrainSettings) -> dict[str, Any]:
    """Settings that only watch: those of the base stay."""
    return {name: getattr(train, name) for name in ("eval_interval", "sample_interval", "eval_early", "eval_sequences")}


def test_alpha_stays_when_the_rank_varies_and_targets_are_compared(tuned: FinetuneSettings) -> None:
    record = plan("lora-rank", tuned, grid=[1, 4, 64], groups=["attention", "all"])
    assert [trial.group for trial in record.trials] == ["attention"] * 3 + ["all"] * 3
    for trial in record.trials:
        settings = settings_of(record, trial)
        assert isinstance(settings, FinetuneSettings)
        assert settings.lora.alpha == tuned.lora.alpha
        assert settings.lora.targets == trial.group
        assert settings.lora.rank == trial.x


def test_forgetting_compares_ranks_with_full_at_a_tenth_of_the_rate(tuned: FinetuneSettings) -> None:
    record = plan("forgetting", tuned, grid=[2, 8])
    methods = [settings_of(record, trial).model.method for trial in record.trials]
    assert methods == ["lora", "lora", "full"]
    assert settings_of(record, record.trials[-1]).train.learning_rate == pytest.approx(tuned.train.learning_rate / 10)


def test_what_is_measured_on_a_run_counts_in_the_time_of_the_plan(tuned: FinetuneSettings) -> None:
    steps = {"train.steps": 10, "checkpoints.keep_last": 1000, "checkpoints.best": False}
    few, many = (
        plan("forgetting", with_values(tuned, steps | {"checkpoints.interval": interval}), grid=[2])
        for interval in (10, 1)
    )
    one, ten = (record.trials[0].measuring_seconds for record in (few, many))
    assert ten == pytest.approx(one / 2 * 11)  # of 2 and of 11 checkpoints
    short = with_values(tuned, steps | {"checkpoints.interval": 10, "data.max_length": 32})
    assert plan("forgetting", short, grid=[2]).trials[0].measuring_seconds == one  # of a text that is the same
    assert few.estimated_seconds == pytest.approx(2 * (10 + one))  # the rank, and all weights
    ranks = plan("lora-rank", tuned, grid=[1, 4], groups=["all"])
    assert all(trial.measuring_seconds > 0 for trial in ranks.trials)
    assert plan("learning-rate", tuned, grid=[1e-3, 1e-2]).estimated_seconds == 40


def test_a_learning_rate_experiment_compares_lora_with_full(tuned: FinetuneSettings) -> None:
    record = plan("learning-rate", tuned, grid=[1e-3, 1e-2])
    assert [(trial.group, trial.x) for trial in record.trials] == [
        ("lora", 1e-3),
        ("lora", 1e-2),
        ("full", 1e-3),
        ("full", 1e-2),
    ]


def test_a_learning_rate_experiment_of_models_from_scratch_compares_widths() -> None:
    record = plan("learning-rate", grid=[1e-3, 1e-2], groups=["64", "256", "64"])
    assert [(trial.group, trial.x) for trial in record.trials] == list(product(("w64", "w256"), (1e-3, 1e-2)))
    assert {f"w{settings_of(record, trial).model.n_embd}" == trial.group for trial in record.trials} == {True}


def test_the_first_seed_of_everything_comes_first_and_what_is_predicted_comes_last() -> None:
    record = plan("scaling", grid=[16, 32, 8, 24], seeds=2)
    assert [(trial.settings["model.n_embd"], trial.seed) for trial in record.trials] == [
        *((width, 1337) for width in (8, 16, 24)),
        *((width, 1338) for width in (8, 16, 24)),
        (32, 1337),
        (32, 1338),
    ]
    assert [trial.forecast for trial in record.trials] == [False] * 6 + [True] * 2


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("learning-rate", {"grid": ["1e-3"]}, "at least two"),
        ("learning-rate", {"grid": ["1e-3", "fast"]}, "train.learning_rate"),
        ("learning-rate", {"groups": ["lora"]}, "n_embd"),
        ("learning-rate", {"groups": ["30"]}, "does not divide"),
        ("width", {"grid": ["30", "64"]}, "does not divide"),
        ("scaling", {"grid": ["16", "32", "64"]}, "three sizes"),
        ("depth", {"seeds": 101}, "seeds"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_a_sentence(kind: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan(kind, **more)


def test_a_base_that_goes_on_learning_is_named_by_its_step(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Finetuning, "seconds", lambda self, settings, outputs: 10.0)
    FakeRun(outputs, "bar", steps=300).start().advance(250).save_checkpoint()
    settings = with_values(FinetuneSettings(), {"model.base": "bar@latest"})
    record = make_plan(Request(find_kind("lora-rank"), settings, outputs, id="x", grid=[1, 2]))
    assert {settings_of(record, trial).model.base for trial in record.trials} == {"pretraining/bar@250"}


def test_without_evaluations_there_is_nothing_to_compare() -> None:
    with pytest.raises(UsageError, match="eval_interval"):
        plan("depth", replace(BASE, train=replace(BASE.train, eval_interval=0)))


def test_what_the_learner_set_is_not_made_lean() -> None:
    kind = find_kind("width")
    settings = lean(BASE, kind, {"train.sample_interval"})
    assert settings.train.sample_interval == BASE.train.sample_interval
    assert settings.checkpoints.keep_last == LEAN["checkpoints.keep_last"]
    assert settings.checkpoints.interval == 60


def test_the_time_left_follows_what_finished_runs_took() -> None:
    record = plan("width", grid=[16, 32, 64])
    first, second, third = record.trials
    assert seconds_left(record, {}) == pytest.approx(record.estimated_seconds)
    trials = {
        first.name: TrialStatus("finished", wall_seconds=3 * first.estimated_seconds),
        second.name: TrialStatus("running", step=60, steps=240),
    }
    expected = 3 * (0.75 * second.estimated_seconds + third.estimated_seconds)
    assert seconds_left(record, trials) == pytest.approx(expected)


def test_a_trial_that_trains_says_itself_how_long_it_takes_and_how_long_the_others_will() -> None:
    record = plan("width", grid=[16, 32, 64])
    first, second, third = record.trials
    taken = first.estimated_seconds
    running = TrialStatus("running", 60, 240, wall_seconds=taken, eta_seconds=3 * taken)
    others = 4 * (second.estimated_seconds + third.estimated_seconds)
    assert seconds_left(record, {first.name: running}) == pytest.approx(3 * taken + others)
    stopped = replace(running, state="stopped", eta_seconds=None, active_seconds=taken)
    assert seconds_left(record, {first.name: stopped}) == pytest.approx(3 * taken + others)  # the same as before
    resumed = replace(stopped, state="running", wall_seconds=1.1 * taken)  # it starts again, with the pace of before
    of_it, of_others = 0.75 * 4.1 * taken, 4.1 * others / 4
    assert seconds_left(record, {first.name: resumed}) == pytest.approx(of_it + of_others)
    half = replace(stopped, active_seconds=taken / 2)  # the other half was its start, which does not grow with steps
    assert seconds_left(record, {first.name: half}) == pytest.approx(1.875 * taken + 2.5 * others / 4)
    begun = replace(running, step=1)  # its pace says nothing yet
    begins = taken / 10  # the rest of a start that took its whole time: no more is known
    assert seconds_left(record, {first.name: begun}) == pytest.approx(
        record.estimated_seconds - taken + begins, rel=0.01
    )
    short = replace(begun, step=0, wall_seconds=taken / 2)
    assert seconds_left(record, {first.name: short}) == pytest.approx(record.estimated_seconds - taken / 2)
    slow = replace(begun, wall_seconds=3 * taken)  # but on a busy machine its start took longer than all was to
    expected = 3 * (record.estimated_seconds - taken + begins)
    assert seconds_left(record, {first.name: slow}) == pytest.approx(expected, rel=0.01)


def test_the_estimate_of_a_watched_plan_is_of_the_cores_that_the_window_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("llmlab.gpt.estimate", "llmlab.training.kinds"):
        monkeypatch.setattr(f"{place}.available_cores", lambda: 4)
    watched, alone = plan("width", grid=[16, 32], watched=True), plan("width", grid=[16, 32])
    of_three = plan("width", with_values(BASE, {"train.threads": 3}), grid=[16, 32])
    assert watched.estimated_seconds == of_three.estimated_seconds > alone.estimated_seconds
    assert [trial.settings for trial in watched.trials] == [trial.settings for trial in alone.trials]


def test_the_time_left_of_runs_at_once_is_until_the_last_of_them_ends() -> None:
    """Each has its share of the machine: only what finished ones say wins time, and the last run has no company."""
    record = plan("width", grid=[16, 32, 64])
    seconds = [trial.estimated_seconds for trial in record.trials]
    assert seconds_left(record, {}, 2, 2) == pytest.approx(2 * max(seconds[0] + seconds[2], seconds[1]))
    # Two took as long at once as one alone: the machine does twice as much.
    first = TrialStatus("finished", wall_seconds=seconds[0], at_once=2)
    assert seconds_left(record, {record.trials[0].name: first}, 2, 2) == pytest.approx(max(seconds[1:]))
    assert seconds_left(record, {record.trials[0].name: first}, 1) == pytest.approx(sum(seconds[1:]) / 2)
    assert seconds_left(record, {}, 3) == pytest.approx(max(seconds))  # each has a machine of its own


def test_rates_that_differ_in_any_digit_are_runs_of_different_short_names() -> None:
    grid = [1e-3, 1.0000001e-3, math.nextafter(1e-3, 1.0), 3e-4, 0.01, 2.5e-5, 3.8443359375000003e-3]
    trials = plan("learning-rate", grid=grid).trials
    names = [trial.name for trial in trials]
    assert names == ["lr2.5e-5", "lr3e-4", "lr1e-3", "lr1e-3-2", "lr1e-3-3", "lr3.844e-3", "lr1e-2"]
    assert [trial.varied["train.learning_rate"] for trial in trials] == sorted(grid)


def test_a_rate_of_0_is_refused_and_a_decimal_comma_named_as_its_likely_reason() -> None:
    with pytest.raises(UsageError, match=r"learning_rate of 0\..*0,01 is 0 and 1\..*0\.01"):
        plan("learning-rate", grid=["0.001", "0", "01"])
