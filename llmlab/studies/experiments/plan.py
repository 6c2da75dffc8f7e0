"""From a kind and its settings to a plan: the runs, their order, and the time that they will take. No torch."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

from llmlab import __version__
from llmlab.core.config import to_mapping, with_values
from llmlab.core.errors import UsageError
from llmlab.core.finetuning_settings import FULL, FinetuneSettings
from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import PretrainSettings, PretrainTrainSettings
from llmlab.gpt.estimate import estimate_pretraining, precision_of_all
from llmlab.jobs.launcher import require_name
from llmlab.studies.experiments.kinds import Kind
from llmlab.studies.experiments.outcomes import LENGTH, MEASURED_KINDS, SEQUENCES
from llmlab.studies.experiments.recipes import ADDED, WITHOUT, Recipe, recipes
from llmlab.studies.plans.records import LONGEST_NAME, ExperimentRecord, Trial
from llmlab.training.finetuning.estimate import estimate_finetuning
from llmlab.training.kinds import as_watched, kind_of

Settings: TypeAlias = RunSettings

# What an experiment changes in a preset before the learner does: no samples, and no more checkpoints than going on
# after an interruption takes.
LEAN: dict[str, Any] = {"train.sample_interval": 0, "checkpoints.keep_last": 1, "checkpoints.best": False}
# The best rate of LoRA is about ten times that of full fine-tuning ("LoRA Without Regret").
_FULL_SHARE = 0.1
# Checkpoints along a run at which what was forgotten is measured.
_MEASUREMENTS = 5
# Measuring, processor time on two cores: to open a checkpoint, by its base's parameters (SmolLM2-135M: 1.7 to 2.3 s);
# the singular values of adapters (of rank 64 in all layers of SmolLM2-135M). To read the text, as a share of a step on
# it: of SmolLM2-135M 22 to 24 s of a core, where a step is estimated at 45. By its FLOP a forward pass is a third, but
# here all logits are made at once.
_OPENING_SECONDS, _RANKS_SECONDS, _READING = 1.5e-8, 1.0, 0.5
_MOST_TRIALS = 200
_NANOGPT_CHARACTERS = 1_115_394  # of its Shakespeare: a speedrun reads as many
_QUICK_STEPS = 60  # of `parallel`: twice those for which its bound holds
ALONE = "none"  # the strategy of one process


@dataclass(frozen=True)
class Request:
    """What a plan is made from. grid: values of the kind's setting, its default ones when empty.

    groups: of the kind's. seeds: runs a value. subject: the run to look at, for kinds that train nothing.
    """

    kind: Kind
    settings: Settings
    outputs: Path
    id: str = ""
    preset: str = ""
    grid: Sequence[float | str] = ()
    groups: Sequence[str] = ()
    seeds: int = 0
    subject: str = ""
    predictions: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    watched: bool = False


def make_plan(request: Request) -> ExperimentRecord:
    """The whole experiment, with nothing written yet. Raises UsageError for what cannot be varied like that,
    and LabError for a base that cannot be fine-tuned."""
    kind = request.kind
    if kind.trains:
        pinned = kind_of(request.settings).pinned(request.settings, request.outputs)
        request = dataclasses.replace(request, settings=pinned)
    settings, track = request.settings, request.settings.track
    identifier = request.id or f"{time.strftime('%Y%m%d-%H%M%S')}-{kind.name}"
    require_name(identifier, "an experiment", LONGEST_NAME)
    seeds = _seeds(request)
    trials = [] if not kind.trains else _trials(request, identifier, seeds)
    return ExperimentRecord(
        id=identifier,
        kind=kind.name,
        title=kind.title,
        question=kind.question,
        hypothesis=kind.hypothesis,
        source=kind.source,
        track=track,
        created=time.time(),
        base=to_mapping(settings),
        trials=trials,
        seeds=seeds,
        x_axis=kind.x_axis,
        y_axis=kind.y_axis,
        varies=kind.varies,
        preset=request.preset,
        subject=request.subject,
        estimated_seconds=sum(trial.estimated_seconds + trial.measuring_seconds for trial in trials),
        predictions=request.predictions,
        options=request.options,
        command=request.command,
        watched=request.watched,
        code_version=__version__,
    )


def lean(settings: Settings, kind: Kind, given: Collection[str]) -> Settings:
    """Settings with what an experiment wants otherwise, except where the learner said so (`given`: their keys)."""
    steps = settings.train.steps
    changes = LEAN | {"checkpoints.interval": max(1, -(-steps // 4))}
    if kind.name == "speedrun":  # losses on all of the held-out text, a few along the way
        changes |= {"train.eval_sequences": 0, "train.eval_early": False, "train.eval_interval": max(1, -(-steps // 4))}
        if isinstance(settings, PretrainSettings) and settings.data.tokenizer == "char":
            changes |= {"data.max_tokens": _NANOGPT_CHARACTERS}
    if kind.name == "parallel":
        changes |= {"model.dropout": 0.0}  # each process draws masks of its own
        if "train.steps" not in given:
            changes |= {"train.steps": _QUICK_STEPS, "checkpoints.interval": _QUICK_STEPS}
            changes |= {"train.warmup_steps": _QUICK_STEPS // 10, "train.eval_interval": _QUICK_STEPS // 3}
    if kind.name == "forgetting":  # every one of them is measured afterwards
        changes |= {"checkpoints.interval": max(1, -(-steps // _MEASUREMENTS)), "checkpoints.keep_last": 1000}
    return with_values(settings, {key: value for key, value in changes.items() if key not in given})


def _seeds(request: Request) -> list[int]:
    count = request.seeds or request.kind.seeds
    if not 1 <= count <= 100:
        raise UsageError(f"{count} seeds cannot be planned.", "1 to 100 can.")
    first = request.settings.train.seed
    return [first + i for i in range(count)]


def _trials(request: Request, identifier: str, seeds: list[int]) -> list[Trial]:
    if not request.settings.train.eval_interval:
        raise UsageError(
            "An experiment compares validation losses, and train.eval_interval is 0.",
            "",
            "Set train.eval_interval to a tenth of train.steps.",
        )
    variants = _variants(request)
    if len(variants) * len(seeds) > _MOST_TRIALS:
        raise UsageError(f"{len(variants)} values and {len(seeds)} seeds are more than {_MOST_TRIALS} runs.")
    trials = []
    # The first seed of everything comes first, so that a picture is there early; a forecast needs all others before.
    pairs = sorted(((variant, seed) for seed in seeds for variant in variants), key=lambda pair: pair[0].forecast)
    changes = [variant.settings | {"train.seed": seed} for variant, seed in pairs]
    runs = [with_values(request.settings, changed) for changed in changes]
    precision = precision_of_all(runs)
    for (variant, seed), changed, settings in zip(pairs, changes, runs, strict=True):
        name = variant.name + (f"-s{seeds.index(seed) + 1}" if len(seeds) > 1 else "")
        timed = settings
        if settings.train.precision == "auto":
            timed = with_values(settings, {"train.precision": precision})
        if request.watched:
            timed = as_watched(timed)
        trials.append(
            Trial(
                name=name,
                run=f"{identifier}-{name}",
                settings=changed,
                varied=variant.varied,
                seed=seed,
                x=_place(request.kind, settings, variant.x),
                group=variant.group,
                forecast=variant.forecast,
                estimated_seconds=kind_of(settings).seconds(timed, request.outputs),
                measuring_seconds=_measuring_seconds(request, settings),
            )
        )
    return trials


def _measuring_seconds(request: Request, settings: Settings) -> float:
    """What `measure_trial` takes for a finished run, on two cores."""
    if not isinstance(settings, FinetuneSettings) or request.kind.name not in MEASURED_KINDS:
        return 0.0
    if request.kind.name != "forgetting":
        return 0.0 if settings.model.method == FULL else _RANKS_SECONDS
    whole = {"model.method": FULL, "data.batch_size": SEQUENCES, "data.max_length": LENGTH, "train.grad_accum": 1}
    needed = estimate_finetuning(with_values(settings, whole), request.outputs)
    checkpoints = settings.checkpoints.at_once(settings.train.steps) - 1  # the one being written is one of the others
    return checkpoints * (_OPENING_SECONDS * needed.total + _READING * needed.step_seconds)


@dataclass(frozen=True)
class _Variant:
    """One value of one group; `settings` is all that changes with it."""

    name: str
    settings: dict[str, Any]
    varied: dict[str, Any]
    x: float
    group: str = ""
    forecast: bool = False


def _variants(request: Request) -> list[_Variant]:
    kind, settings = request.kind, request.settings
    if request.grid and not kind.setting:
        raise UsageError(f"{kind.title} varies no single setting, so it takes no values.", "", "Leave out --grid.")
    values = _values(request) if kind.setting else []
    match kind.name:
        case "speedrun":
            assert isinstance(settings, PretrainSettings), "its one track"
            return [_recipe(settings, recipe) for recipe in recipes(settings, _groups(request))]
        case "learning-rate":
            names = _rate_names(values)
            return [_learning_rate(settings, *one, group) for group in _groups(request) for one in names.items()]
        case "lora-rank":
            return [_rank(settings, int(value), group) for group in _groups(request) for value in values]
        case "forgetting":
            return [_rank(settings, int(value)) for value in values] + [_full(settings)]
        case "parallel":
            several = [_processes(int(value), group) for group in _groups(request) for value in values if value > 1]
            return [_processes(1, ALONE), *several]
        case "batch-size":
            return [_batch_size(settings, int(value)) for value in values]
        case "scaling":
            if len(values) < 4:
                raise UsageError("A scaling law needs three sizes to fit and one to predict.", "", "Give four values.")
            return [dataclasses.replace(_plain(kind, value), forecast=value == values[-1]) for value in sorted(values)]
        case _:
            return [_plain(kind, value) for value in values]


def _values(request: Request) -> list[float]:
    """The grid, checked, ascending, each value once."""
    kind, settings = request.kind, request.settings
    grid: Sequence[float | str] = request.grid or kind.grids[settings.track]
    section, _, name = kind.setting.partition(".")
    follows = {"train.min_learning_rate": 0.0} if kind.setting == "train.learning_rate" else {}
    made = (with_values(settings, {kind.setting: value} | follows) for value in grid)
    values = sorted({getattr(getattr(one, section), name) for one in made})
    if len(values) < 2 and kind.name != "forgetting":
        raise UsageError(f"{kind.title} compares at least two values of {kind.setting}.", "", "Give --grid A,B,...")
    if kind.setting == "train.learning_rate" and values[0] <= 0:
        raise UsageError(
            f"{kind.title} cannot compare a {kind.setting} of {values[0]:g}.",
            "The axis of its values is logarithmic and has no place for 0, which may stand there because a comma "
            "separates values: 0,01 is 0 and 1.",
            "Leave out the 0, or write decimals with a point: 0.01.",
        )
    return values


def _groups(request: Request) -> list[str]:
    """The curves of the plan."""
    known = request.kind.groups_of(request.settings.track)
    if request.kind.name == "learning-rate" and isinstance(request.settings, PretrainSettings):
        # Does the best one depend on the width?
        wide = [with_values(request.settings, {"model.n_embd": width}) for width in request.groups]
        return list(dict.fromkeys(f"w{settings.model.n_embd}" for settings in wide)) or [""]
    if not known:
        if request.groups:
            raise UsageError(f"Pretraining has nothing to compare by {', '.join(request.groups)}.")
        return [""]
    for group in request.groups:
        if group not in known:
            raise UsageError(f"There is no {group!r} to compare.", f"There are: {', '.join(known)}.")
    return list(dict.fromkeys(request.groups or known))


def _learning_rate(settings: Settings, value: float, name: str, group: str) -> _Variant:
    changed: dict[str, Any] = _rates(settings, value)
    if group and isinstance(settings, FinetuneSettings):
        method = settings.model.method
        changed["model.method"] = group if group == FULL or method == FULL else method
    elif group:
        changed["model.n_embd"] = int(group.removeprefix("w"))
    return _Variant(f"{group}-{name}" if group else name, changed, {"train.learning_rate": value}, value, group)


def _rank(settings: Settings, rank: int, targets: str = "") -> _Variant:
    assert isinstance(settings, FinetuneSettings)
    # lora.alpha stays: the adapter's output is scaled by alpha / rank, so that ranks can share a learning rate.
    changed: dict[str, Any] = {"lora.rank": rank}
    if targets:
        changed["lora.targets"] = targets
    if settings.model.method == FULL:
        changed["model.method"] = "lora"
    name = f"{targets}-r{rank}".replace("_", "-") if targets else f"r{rank}"
    return _Variant(name, changed, {"lora.rank": rank}, rank, targets or f"rank {rank}")


def _full(settings: Settings) -> _Variant:
    value = settings.train.learning_rate * _FULL_SHARE
    changed = {"model.method": FULL, **_rates(settings, value)}
    return _Variant("full", changed, {"model.method": FULL}, 0.0, "full")


def _processes(count: int, strategy: str) -> _Variant:
    changed = {"distributed.strategy": strategy, "distributed.processes": count}
    name = "one" if strategy == ALONE else f"{strategy}-{count}"
    return _Variant(name, changed, {"distributed.processes": count}, count, strategy)


def _batch_size(settings: Settings, value: int) -> _Variant:
    train = settings.train
    share = settings.data.batch_size / value
    rate = train.learning_rate / math.sqrt(share)
    changed = {"data.batch_size": value, **_rates(settings, rate)}
    intervals = {f"train.{name}": getattr(train, name) for name in ("steps", "warmup_steps", "eval_interval")}
    intervals |= {"checkpoints.interval": settings.checkpoints.interval}
    if isinstance(settings, PretrainSettings):
        warmups = ("batch_warmup_steps", "length_warmup_steps")
        intervals |= {f"data.{name}": getattr(settings.data, name) for name in warmups}
    for key, number in intervals.items():
        changed[key] = max(1, round(number * share)) if number else 0
    return _Variant(f"b{value}", changed, {"data.batch_size": value}, value)


def _recipe(settings: PretrainSettings, recipe: Recipe) -> _Variant:
    if recipe.part in (ADDED, WITHOUT):
        name, lever = f"{recipe.part}-{recipe.lever}", recipe.lever
    else:  # what they differ in is said by all others
        name, lever = recipe.part, f"{recipe.settings.get('train.steps', settings.train.steps):,} steps"
    name = name.lower().replace(" ", "-")
    return _Variant(name, recipe.settings, {"lever": lever}, recipe.levers, recipe.part)


def _plain(kind: Kind, value: float) -> _Variant:
    letter = {"model.n_embd": "w", "model.n_layer": "l", "data.train_tokens": "t"}[kind.setting]
    return _Variant(f"{letter}{value}", {kind.setting: value}, {kind.setting: value}, value)


def _place(kind: Kind, settings: Settings, x: float) -> float:
    """Where a run stands on the x axis."""
    if kind.name == "scaling" and isinstance(settings, PretrainSettings):
        needed = estimate_pretraining(settings)
        return float(needed.parameters - needed.embedding_parameters)
    return float(x)


def _rates(settings: Settings, rate: float) -> dict[str, Any]:
    """With this peak: the lowest rate of the schedule, and Muon's where it is used, in proportion as in the base."""
    train = settings.train
    grown = rate / train.learning_rate if train.learning_rate else 0.0
    low = rate * train.min_learning_rate / train.learning_rate if train.learning_rate else 0.0
    rates = {"train.learning_rate": rate, "train.min_learning_rate": low}
    if isinstance(train, PretrainTrainSettings) and train.optimizer == "muon":
        rates["train.muon_learning_rate"] = grown * train.muon_learning_rate
    return rates


def _rate_names(rates: Sequence[float]) -> dict[float, str]:
    """0.003 -> lr3e-3, of at most four significant digits; of rates that these do not tell apart, all but the first are
    numbered: two trials have two names."""
    names: dict[float, str] = {}
    for rate in rates:
        mantissa, _, exponent = f"{Decimal(f'{rate:.3e}').normalize():e}".partition("e")
        short = f"lr{mantissa}e{int(exponent)}"
        others = sum(name == short or name.startswith(f"{short}-") for name in names.values())
        names[rate] = f"{short}-{others + 1}" if others else short
    return names
