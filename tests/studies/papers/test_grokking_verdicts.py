"""Each claim about grokking is judged by its bounds, and by what a run could not show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.grokking import thresholds as bounds
from llmlab.studies.papers.grokking.frequencies import (
    fourier_table,
    fourier_verdict,
    judge_fourier,
    judge_progress,
    middle,
    progress_chart,
    progress_table,
    progress_verdict,
    spectrum_chart,
)
from llmlab.studies.papers.grokking.generalising import (
    accuracy_chart,
    decay_chart,
    decay_verdict,
    judge_decay,
    judge_late,
    late_verdict,
    steps_table,
)
from llmlab.studies.papers.grokking.trajectory import AT_FIT, LAST, Trajectory

STEPS = [10, 50, 100, 200, 300, 400]
FALLING = [3.0, 2.0, 1.5, 1.0, 0.1, 0.1]


def run(**changes: object) -> Trajectory:
    """A run that fits at step 10, stays, leaves its plateau after 200 and generalises at 300."""
    plain = Trajectory(
        modulus=31,
        weight_decay=1.0,
        seed=1,
        train_sums=400,
        steps=STEPS,
        train_accuracy=[1.0] * 6,
        held_accuracy=[0.4, 0.4, 0.42, 0.45, 0.96, 1.0],
        train_loss=[0.1] * 6,
        held_loss=FALLING,
        restricted_loss=FALLING,
        excluded_loss=[1.0, 1.5, 2.0, 3.0, 5.0, 6.0],
        restricted_accuracy=[0.5] * 5 + [1.0],
        excluded_accuracy=[0.5] * 5 + [0.1],
        waves=[0.2] * 5 + [0.9],
        held_mirrored=[0.9] * 6,
        held_new=[0.05] * 6,
        key_count=[12, 12, 10, 8, 4, 2],
        spectra={LAST: [0.6, 0.35, 0.05, 0, 0, 0], AT_FIT: [1 / 6] * 6},
        restricted_held_loss=0.05,
        random_keys=[5, 6],
        random_spectrum=[1 / 6] * 6,
    )
    return replace(plain, **changes)


def seeds(one: Trajectory, count: int = 5) -> list[Trajectory]:
    return [replace(one, seed=seed) for seed in range(1, count + 1)]


def test_lateness_counts_to_the_last_checkpoint_that_did_not_generalise() -> None:
    assert run().late_times == 20
    assert run(steps=[20, 50, 100, 199, 300, 400]).late_times == pytest.approx(9.95)
    assert run(held_accuracy=[1.0] * 6).late_times == 0


@pytest.mark.parametrize(
    ("before", "expected"), [(100, SUPPORTED), (99, INCONCLUSIVE), (20, INCONCLUSIVE), (19, NOT_SUPPORTED)]
)
def test_late_is_ten_times_and_together_is_below_two(before: int, expected: str) -> None:
    assert judge_late(run(steps=[10, 12, 14, before, 300, 400])) == expected


def test_a_run_that_never_generalised_says_nothing_about_lateness() -> None:
    assert judge_late(run(held_accuracy=[0.4] * 6)) == INCONCLUSIVE
    assert judge_late(run(train_accuracy=[0.5] * 6)) == INCONCLUSIVE


def test_a_verdict_needs_four_seeds_of_five() -> None:
    late, together = run(), run(held_accuracy=[1.0] * 6)
    assert late_verdict([*seeds(late, 4), replace(together, seed=5)]).verdict == SUPPORTED
    assert late_verdict([*seeds(late, 3), *(replace(together, seed=seed) for seed in (4, 5))]).verdict == INCONCLUSIVE
    assert late_verdict(seeds(late, 3)).verdict == INCONCLUSIVE


def test_without_weight_decay_a_run_must_last_long_enough_to_say_never() -> None:
    memorised = {"weight_decay": 0.0, "held_accuracy": [0.4] * 6}
    enough, short = run(**memorised, steps=[*STEPS[:5], 1500]), run(**memorised, steps=[*STEPS[:5], 1499])
    assert judge_decay(run(), enough, 300) == SUPPORTED
    assert judge_decay(run(), short, 300) == INCONCLUSIVE
    assert judge_decay(run(held_accuracy=[0.4] * 6), enough, 300) == INCONCLUSIVE
    early = run(weight_decay=0.0, steps=[10, 50, 100, 200, 1499, 1600])
    assert judge_decay(run(), early, 300) == NOT_SUPPORTED
    assert judge_decay(run(), replace(early, steps=[10, 50, 100, 200, 1500, 1600]), 300) == INCONCLUSIVE
    verdict = decay_verdict(seeds(run()), seeds(enough))
    assert (verdict.verdict, verdict.statistic.value) == (SUPPORTED, pytest.approx(40.0))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, SUPPORTED),
        ({"random_keys": [4, 9]}, SUPPORTED),
        ({"random_keys": [3, 9]}, NOT_SUPPORTED),  # two keys are more than half of three
        ({"restricted_accuracy": [bounds.KEPT_ACCURACY - 0.01]}, INCONCLUSIVE),
        ({"excluded_accuracy": [bounds.LOST_ACCURACY + 0.01]}, INCONCLUSIVE),
        ({"excluded_accuracy": [bounds.KEPT_ACCURACY]}, NOT_SUPPORTED),
        ({"held_accuracy": [0.4] * 6, "random_keys": [3]}, INCONCLUSIVE),
    ],
)
def test_a_handful_of_frequencies_must_be_few_enough_and_needed(changes: dict[str, object], expected: str) -> None:
    assert judge_fourier(run(**changes)) == expected


def test_the_onset_is_the_last_checkpoint_in_the_first_tenth_of_the_way() -> None:
    assert run().onset == 3  # 0.45 is within 0.4 + 0.056
    assert run(held_accuracy=[0.4, 0.4, 0.42, 0.46, 0.96, 1.0]).onset == 2
    assert run().gone(FALLING) == pytest.approx(2.0 / 2.9)
    assert run(held_accuracy=[1.0] * 6).onset is None
    assert run(held_accuracy=[0.4, 0.4, 0.5, 0.1, 0.96, 1.0], train_accuracy=[1, 1, 1, 0.3, 1, 1]).onset == 1  # a spike


@pytest.mark.parametrize(
    ("restricted", "excluded", "expected"),
    [
        (0.25, 0.25, SUPPORTED),
        (0.25, 0.24, INCONCLUSIVE),
        (0.1, 0.1, NOT_SUPPORTED),
        (-0.5, 0.1, NOT_SUPPORTED),
        (0.11, 0.1, INCONCLUSIVE),
    ],
)
def test_progress_is_both_losses_a_quarter_of_their_way_before_the_jump(
    restricted: float, excluded: float, expected: str
) -> None:
    one = run(
        restricted_loss=[1.0, 1.0, 1.0, 1 - restricted, 0.0, 0.0], excluded_loss=[0.0, 0.0, 0.0, excluded, 1.0, 2.0]
    )
    assert judge_progress(one) == expected


def test_losses_that_go_the_other_way_say_nothing_of_a_structure_that_grows() -> None:
    up, down = [0.0, 0.0, 0.5, 0.8, 1.0, 1.0], [1.0, 1.0, 0.5, 0.2, 0.0, 0.0]
    assert judge_progress(run(restricted_loss=down, excluded_loss=up)) == SUPPORTED
    for restricted, excluded in ((up, down), (up, up), (down, down)):
        assert judge_progress(run(restricted_loss=restricted, excluded_loss=excluded)) == INCONCLUSIVE


def test_no_jump_is_no_verdict_on_progress() -> None:
    assert judge_progress(run(held_accuracy=[0.4] * 6)) == INCONCLUSIVE
    assert progress_verdict(seeds(run(held_accuracy=[0.4] * 6))).statistic.value is None


def test_every_verdict_can_be_shown_of_runs_that_generalise_and_of_runs_that_do_not() -> None:
    never = run(weight_decay=0.0, held_accuracy=[0.4] * 6, train_accuracy=[0.5] * 6, spectra={LAST: [1 / 6] * 6})
    for one in (run(), never):
        runs = seeds(one)
        for make in (late_verdict, fourier_verdict, progress_verdict):
            assert make(runs).reason
            assert make(runs).papers_criterion.passes is None  # the papers name no bound
        assert len(accuracy_chart(runs).series) == 7
        assert len(decay_chart([runs, seeds(never)]).series) == 3
        assert spectrum_chart(one).series[0].y == one.spectra[LAST]
        assert len(progress_chart(one).series) == (4 if one is never else 5)
        for table in (steps_table(runs), fourier_table(runs), progress_table(runs)):
            assert {len(row) for row in table.rows} == {len(table.columns)}


def test_the_run_shown_alone_is_the_middle_one_of_those_that_generalised() -> None:
    never = run(seed=9, held_accuracy=[0.4] * 6)
    runs = [never, *(run(seed=seed, steps=[10, 50, 100, 200, 200 + seed, 400]) for seed in (3, 1, 2))]
    assert middle(runs).seed == 2
    spike = replace(runs[3], held_accuracy=[*runs[3].held_accuracy[:5], 0.3])  # that one, lost at the end
    assert middle([*runs[:3], spike]).seed == 1
    assert "seed 2 lies in a spike" in fourier_verdict([*runs[1:3], spike]).reason
    assert middle([never]).seed == 9
