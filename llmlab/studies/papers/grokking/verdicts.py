"""From runs that were followed to verdicts: pure functions, with all bounds in `thresholds`. No torch.

`with_decay` are the runs with the weight decay that the claims are about, one a seed; each claim is judged seed by seed
(llmlab.studies.papers.agreement.by_seeds). All functions raise ValueError without a run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import by_seeds, seeds_sentence
from llmlab.studies.papers.grokking import thresholds as bounds
from llmlab.studies.papers.grokking.plan import FOURIER, LATE, PROGRESS, WEIGHT_DECAY
from llmlab.studies.papers.grokking.trajectory import Trajectory
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict
from llmlab.studies.papers.statistics import bootstrap_interval, mean_interval

_NO_BOUND = PapersCriterion(None, "The papers show curves and name no bound.")


# Late --------------------------------------------------------------------------------------------------------------


def judge_late(run: Trajectory) -> str:
    """One run; inconclusive where it did not generalise within its steps."""
    times = run.late_times
    if times is None:
        return INCONCLUSIVE
    if times >= bounds.LATE_TIMES:
        return SUPPORTED
    return NOT_SUPPORTED if times < bounds.TOGETHER_TIMES else INCONCLUSIVE


def late_verdict(with_decay: Sequence[Trajectory]) -> Verdict:
    """The claim that held-out sums are got right long after the training sums."""
    outcomes = [judge_late(run) for run in _some(with_decay)]
    times = [run.late_times for run in with_decay if run.late_times is not None]
    said = [f"Held-out accuracy reached {bounds.GENERALISED:.0%} in {len(times)} of {len(with_decay)} runs."]
    if times:
        said.append(
            f"It took at least {_span(times, '.3g')} times as many steps as {bounds.FITTED:.0%} of the training sums."
        )
    said += [_plateau(with_decay), seeds_sentence(outcomes)]
    return Verdict(
        claim=LATE,
        verdict=by_seeds(outcomes),
        statistic=Statistic(
            "steps to generalise over steps to fit", float(np.median(times)) if times else None, "times"
        ),
        interval=_interval(times),
        threshold=(
            f"{bounds.GENERALISED:.0%} of held-out sums at least {bounds.LATE_TIMES:g} times as late as "
            f"{bounds.FITTED:.0%} of training sums. Not supported below {bounds.TOGETHER_TIMES:g} times"
        ),
        n=len(with_decay),
        seeds=_seeds(with_decay),
        papers_criterion=_NO_BOUND,
        reason=" ".join(part for part in said if part),
    )


def _plateau(runs: Sequence[Trajectory]) -> str:
    """What held-out accuracy is right after the fit, by whether the sum was seen the other way round."""
    seen = [run for run in runs if run.fitted is not None and run.held_mirrored and run.held_new]
    if not seen:
        return ""
    mirrored = np.mean([run.held_mirrored[run.fitted] for run in seen if run.fitted is not None])
    new = np.mean([run.held_new[run.fitted] for run in seen if run.fitted is not None])
    return (
        f"When the training sums were learned, {mirrored:.0%} of those held-out sums were right whose mirror image "
        f"b + a was trained on, and {new:.0%} of the others; guessing gives {1 / seen[0].modulus:.0%}."
    )


# Weight decay ------------------------------------------------------------------------------------------------------


def judge_decay(run: Trajectory, without: Trajectory, median: float | None) -> str:
    """One seed, trained with and without. median: steps that runs with weight decay took to generalise."""
    if run.generalised is None or median is None:
        return INCONCLUSIVE
    enough = bounds.WITHOUT_TIMES * median
    if without.generalised is None:
        return SUPPORTED if without.steps[-1] >= enough else INCONCLUSIVE
    return NOT_SUPPORTED if without.steps[without.generalised] < enough else INCONCLUSIVE


def decay_verdict(with_decay: Sequence[Trajectory], without: Sequence[Trajectory]) -> Verdict:
    """The claim that weight decay brings generalisation about."""
    pairs = _some([(run, other) for run in with_decay for other in without if run.seed == other.seed])
    took = [run.steps[run.generalised] for run in with_decay if run.generalised is not None]
    median = float(np.median(took)) if took else None
    outcomes = [judge_decay(run, other, median) for run, other in pairs]
    last = [run.held_accuracy[-1] for run in without]
    lasted = min(run.steps[-1] for run in without)
    said = [f"With weight decay {with_decay[0].weight_decay:g}, {len(took)} of {len(with_decay)} runs generalised"]
    said[-1] += f", after {_span(took, ',')} steps." if took else "."
    reached = sum(run.generalised is not None for run in without)
    said.append(
        f"Without, {reached} of {len(without)} did within {lasted:,} steps, and held-out accuracy ended at "
        f"{_span(last, '.0%')}."
    )
    if median is not None:
        said.append(f"That is {lasted / median:.1f} times the median with weight decay.")
    return Verdict(
        claim=WEIGHT_DECAY,
        verdict=by_seeds(outcomes),
        statistic=Statistic("held-out accuracy at the end without weight decay", float(np.mean(last))),
        interval=_mean_interval(last),
        threshold=(
            f"With weight decay {bounds.GENERALISED:.0%} of held-out sums are reached; without, they are not within "
            f"{bounds.WITHOUT_TIMES:g} times the median of those steps. Not supported where they are"
        ),
        n=len(with_decay) + len(without),
        seeds=[run.seed for run, _ in pairs],
        papers_criterion=_NO_BOUND,
        reason=" ".join([*said, seeds_sentence(outcomes)]),
    )


# Fourier -----------------------------------------------------------------------------------------------------------


def judge_fourier(run: Trajectory) -> str:
    """One run at its last checkpoint; inconclusive where that does not generalise."""
    if run.held_accuracy[-1] < bounds.GENERALISED:
        return INCONCLUSIVE
    sparse = len(run.keys) <= bounds.OF_RANDOM * min(run.random_keys)
    kept = run.restricted_accuracy[-1] >= bounds.KEPT_ACCURACY
    if not sparse or run.excluded_accuracy[-1] >= bounds.KEPT_ACCURACY:
        return NOT_SUPPORTED
    return SUPPORTED if kept and run.excluded_accuracy[-1] <= bounds.LOST_ACCURACY else INCONCLUSIVE


def fourier_verdict(with_decay: Sequence[Trajectory]) -> Verdict:
    """The claim that a network that adds does so on a handful of frequencies."""
    runs = _some(with_decay)
    outcomes = [judge_fourier(run) for run in runs]
    counts = [len(run.keys) for run in runs]
    at_fit = [run.key_count[run.fitted] for run in runs if run.fitted is not None]
    then = f" ({np.mean(at_fit):.3g} on average when the training sums were just learned)" if at_fit else ""
    frequencies = runs[0].modulus // 2
    columns = ("restricted_accuracy", "excluded_accuracy", "held_accuracy")
    right = [float(np.mean([getattr(run, name)[-1] for run in runs])) for name in columns]
    fewest = min(min(run.random_keys) for run in runs)
    said = (
        f"{bounds.KEY_SHARE:.0%} of the embedding's power is in {_span(counts, 'd')} of {frequencies} frequencies{then}"
        f", and in at least {fewest} with random weights. On these frequencies alone "
        f"{right[0]:.0%} of held-out sums are right, without them {right[1]:.0%}, with everything {right[2]:.0%}."
    )
    return Verdict(
        claim=FOURIER,
        verdict=by_seeds(outcomes),
        statistic=Statistic("key frequencies", float(np.mean(counts)), f"of {frequencies}"),
        interval=_mean_interval([float(count) for count in counts]),
        threshold=(
            f"{bounds.KEY_SHARE:.0%} of the embedding's power in at most {bounds.OF_RANDOM:g} times as many "
            f"frequencies as in any of {len(runs[0].random_keys)} embeddings with random weights; logits with these "
            "alone get "
            f"{bounds.KEPT_ACCURACY:.0%} of held-out sums right, and without them at most {bounds.LOST_ACCURACY:.0%}. "
            f"Not supported where they are not so few, or {bounds.KEPT_ACCURACY:.0%} are right without them"
        ),
        n=len(runs),
        seeds=_seeds(runs),
        papers_criterion=_papers_fourier(runs),
        reason=" ".join(part for part in (said, _leak(runs), _spikes(runs), seeds_sentence(outcomes)) if part),
    )


def _leak(runs: Sequence[Trajectory]) -> str:
    """Why what is right with the key frequencies alone says little, and what says more."""
    fits = [(run, run.fitted) for run in runs if run.fitted is not None]
    if not fits:
        return ""
    right = np.mean([run.restricted_accuracy[place] for run, place in fits])
    first, last = np.mean([(run.waves[place], run.waves[-1]) for run, place in fits], axis=0)
    return (
        f"On the same frequencies {right:.0%} were right as soon as the training sums were learned: a wave in a + b is "
        "an average over all sums with one answer, and lends the held-out ones what was memorised of the others. What "
        f"changes is how much of the logits' variation such waves are: {first:.0%} then, {last:.0%} at the end."
    )


def _spikes(runs: Sequence[Trajectory]) -> str:
    """Which runs end where the loss has just shot up: what they had learned is gone for a while."""
    ended = [run for run in runs if run.generalised is not None and run.held_accuracy[-1] < bounds.GENERALISED]
    if not ended:
        return ""
    seeds = ", ".join(str(run.seed) for run in ended)
    known = _span([run.train_accuracy[-1] for run in ended], ".0%")
    return f"The last checkpoint of seed {seeds} lies in a spike of the loss ({known} of the training sums are right)."


def _papers_fourier(runs: Sequence[Trajectory]) -> PapersCriterion:
    whole = float(np.mean([run.held_loss[-1] for run in runs]))
    alone = float(np.mean([run.restricted_held_loss for run in runs]))
    return PapersCriterion(
        None,
        f"The paper names no bound. It finds {bounds.PAPER_KEYS} key frequencies of 56, and a lower loss when all "
        f"other terms of the logits are taken away. Here the held-out loss goes from {whole:.3g} to {alone:.3g} nats.",
    )


# Progress ----------------------------------------------------------------------------------------------------------


def judge_progress(run: Trajectory) -> str:
    """One run; inconclusive where it has no jump, one of the losses says yes and the other no, or one goes the way
    that it would not go if the structure grew: the restricted loss up, or the excluded one down."""
    shares = [run.gone(run.restricted_loss), run.gone(run.excluded_loss)]
    known = [share for share in shares if share is not None]
    if len(known) < len(shares) or not run.grows:
        return INCONCLUSIVE
    if min(known) >= bounds.GONE_BEFORE:
        return SUPPORTED
    return NOT_SUPPORTED if max(known) <= bounds.GONE_TOGETHER else INCONCLUSIVE


def progress_verdict(with_decay: Sequence[Trajectory]) -> Verdict:
    """The claim that the structure grows before test accuracy shows it."""
    runs = _some(with_decay)
    outcomes = [judge_progress(run) for run in runs]
    ways = {
        name: [share for run in runs if (share := run.gone(getattr(run, name))) is not None]
        for name in ("restricted_loss", "excluded_loss", "held_loss")
    }
    main = ways["restricted_loss"]
    said = "No run has a jump to look at."
    if main:
        medians = {name: float(np.median(shares)) if shares else float("nan") for name, shares in ways.items()}
        said = (
            f"When held-out accuracy had gone a tenth of its way, the loss on the key frequencies alone had gone "
            f"{medians['restricted_loss']:.0%} of its own (median of the seeds), and the training loss without them "
            f"{medians['excluded_loss']:.0%}. The plain held-out loss had gone {medians['held_loss']:.0%}."
        )
    return Verdict(
        claim=PROGRESS,
        verdict=by_seeds(outcomes),
        statistic=Statistic(
            "way that the restricted loss has gone before the jump", float(np.median(main)) if main else None
        ),
        interval=_interval(main),
        threshold=(
            f"Before held-out accuracy leaves the first {bounds.ONSET:.0%} of its way, the restricted and the excluded "
            f"loss have each gone at least {bounds.GONE_BEFORE:.0%} of theirs. Not supported where neither has gone "
            f"more than {bounds.GONE_TOGETHER:.0%}"
        ),
        n=len(runs),
        seeds=_seeds(runs),
        papers_criterion=_NO_BOUND,
        reason=f"{said} {seeds_sentence(outcomes)}",
    )


def _some(runs: Sequence) -> Sequence:
    if not runs:
        raise ValueError("there is no run to judge")
    return runs


def _span(values: Sequence[float], form: str) -> str:
    """`3 to 5`, or one number where all are alike."""
    ends = [f"{end:{form}}" for end in (min(values), max(values))]
    return " to ".join(dict.fromkeys(ends))


def _seeds(runs: Sequence[Trajectory]) -> list[int]:
    return [run.seed for run in runs]


def _interval(values: Sequence[float]) -> list[float] | None:
    """Of the median over seeds; None of a single one."""
    return list(bootstrap_interval(np.array(values), np.median)) if len(values) > 1 else None


def _mean_interval(values: Sequence[float]) -> list[float] | None:
    """Of the mean over seeds; None of a single one."""
    return list(mean_interval(np.array(values))) if len(values) > 1 else None
