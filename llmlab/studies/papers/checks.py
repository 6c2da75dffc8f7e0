"""Planning the check of a paper's claims: which runs it trains, and on which models it is made. No torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmlab import __version__
from llmlab.core.charts import Axis
from llmlab.core.config import to_mapping, with_values
from llmlab.core.errors import LabError, UsageError
from llmlab.core.kinds import PAPERS
from llmlab.core.records import from_plain
from llmlab.core.task_settings import TaskSettings
from llmlab.data.papers import SIZES, Paper
from llmlab.jobs.launcher import require_name
from llmlab.models.available import available_models
from llmlab.models.reference import parse
from llmlab.models.source import source_of
from llmlab.notebook.quantities import CLAIM, Quantity, claim_quantity
from llmlab.studies.papers.agreement import SEEDS_AGREEING
from llmlab.studies.papers.attention_sinks.plan import PLAN as ATTENTION_SINKS
from llmlab.studies.papers.bayesian_geometry.plan import PLAN as BAYESIAN_GEOMETRY
from llmlab.studies.papers.grokking.plan import PLAN as GROKKING
from llmlab.studies.papers.induction_heads.plan import PLAN as INDUCTION_HEADS
from llmlab.studies.papers.interface import PaperPlan, PlannedRun
from llmlab.studies.papers.own import CLAIMS_FILE
from llmlab.studies.plans.records import LONGEST_NAME, ExperimentRecord, Trial
from llmlab.training.kinds import as_watched
from llmlab.training.task import task_seconds

# The papers whose claims have a test.
PLANS = {plan.paper: plan for plan in (BAYESIAN_GEOMETRY, ATTENTION_SINKS, INDUCTION_HEADS, GROKKING)}

MEASURED_PARAMETERS = 134_515_008  # of SmolLM2-135M, on which judging was timed


@dataclass(frozen=True)
class CheckRequest:
    """What is to be checked.

    claims: ids, all that can be tested when empty. seeds: 0 takes the size's own number. models: references, for claims
    about models that are there. predictions: `Prediction.as_dict()` each. watched: a window looks on.
    """

    paper: Paper
    size: str
    outputs: Path
    claims: Sequence[str] = ()
    seeds: int = 0
    models: Sequence[str] = ()
    name: str = ""
    command: str = ""
    predictions: Sequence[dict[str, Any]] = ()
    watched: bool = False


@dataclass(frozen=True)
class CheckOptions:
    """`ExperimentRecord.options` of a check. judging_seconds: expected after the last run."""

    paper: str
    size: str
    claims: list[str]
    models: list[str] = field(default_factory=list)
    judging_seconds: float = 0.0


def options_of(record: ExperimentRecord) -> CheckOptions:
    """What was asked. LabError when it is damaged."""
    try:
        return from_plain(CheckOptions, record.options)
    except (ValueError, TypeError) as error:
        raise LabError(f"The paper.json of {record.id} is damaged.", f"{error}") from error


def quantities_of_check(record: ExperimentRecord) -> list[Quantity]:
    """The claims that a check tests, in the paper's order. LabError where its record is damaged."""
    asked = options_of(record)
    return [claim_quantity(f"{CLAIM}{asked.paper}/{id}") for id in asked.claims]


def inconclusive_anyway(record: ExperimentRecord) -> list[str]:
    """The claims that a check trains too few seeds for: whatever comes, their verdict is inconclusive."""
    asked = options_of(record)
    if not 0 < len(record.seeds) < SEEDS_AGREEING:
        return []
    return [claim for claim in asked.claims if claim not in PLANS[asked.paper].of_models]


def inconclusive_words(record: ExperimentRecord) -> str:
    """The same in a sentence; "" where there are none."""
    without = inconclusive_anyway(record)
    if not without:
        return ""
    every = len(without) == len(options_of(record).claims)
    which = "Every verdict" if every else f"The verdict on {' and '.join(without)}"
    return f"{which} will be inconclusive: a verdict needs {SEEDS_AGREEING} seeds."


def plan_check(request: CheckRequest) -> ExperimentRecord:
    """The runs and their time, with nothing written yet. UsageError for what has no test, or no model to test."""
    paper, size = request.paper, request.size
    if size not in SIZES:
        raise UsageError(f"A check has no size {size!r}.", f"There are: {', '.join(SIZES)}.")
    if not 0 <= request.seeds <= 100:
        raise UsageError(f"{request.seeds} seeds cannot be planned.", "1 to 100 can.")
    name = request.name or f"{time.strftime('%Y%m%d-%H%M%S')}-{paper.name}"
    require_name(name, "a check", LONGEST_NAME)
    if (request.outputs / PAPERS / name / CLAIMS_FILE).exists():
        raise UsageError(f"{name!r} is a paper of yours.", "", "Choose another name for the check.")
    if (plan := PLANS.get(paper.name)) is None:
        raise UsageError(f"The lab has no runs that test {paper.name}.", "", f"llmlab-run paper show {paper.name}")
    models = _models(request, plan)
    claims = _claims(request, plan, models)
    trials = [_trial(name, run, plan, watched=request.watched) for run in plan.runs(size, claims, request.seeds)]
    parameters = sum(_parameters(model, request.outputs) for model in models)
    judging = plan.judging_seconds(size, claims, parameters / MEASURED_PARAMETERS)
    return ExperimentRecord(
        id=name,
        kind="paper",
        title=paper.title,
        question="Do its claims hold here?",
        hypothesis=" ".join(paper.claim(claim).statement for claim in claims),
        source=", ".join(paper.links),
        track=PAPERS,
        created=time.time(),
        base=to_mapping(TaskSettings()),
        trials=trials,
        seeds=sorted({trial.seed for trial in trials}),
        x_axis=Axis("seed"),
        y_axis=Axis("validation loss", "nats"),
        estimated_seconds=sum(trial.estimated_seconds + trial.measuring_seconds for trial in trials) + judging,
        predictions=list(request.predictions),
        options=asdict(CheckOptions(paper.name, size, claims, models, judging)),
        command=request.command,
        watched=request.watched,
        code_version=__version__,
    )


def claims_tested(paper: Paper) -> list[str]:
    """The claims of a paper that a check can test."""
    return list(PLANS[paper.name].claims) if paper.name in PLANS else []


def claims_of_models(paper: Paper) -> list[str]:
    """Those of them that are tested on models which are there already."""
    return list(PLANS[paper.name].of_models) if paper.name in PLANS else []


def _models(request: CheckRequest, plan: PaperPlan) -> list[str]:
    """The models that were named, or those that are here where a claim is about such. UsageError where one is not."""
    for name in request.models:
        parse(name, request.outputs)
    if request.models and not plan.of_models:
        raise UsageError(f"No claim of {plan.paper} is tested on a model that is named.", "", "Leave --model out.")
    asked = [claim for claim in plan.of_models if not request.claims or claim in request.claims]
    if not asked:
        return []
    return list(request.models) or models_here(request.outputs)


def _claims(request: CheckRequest, plan: PaperPlan, models: Sequence[str]) -> list[str]:
    """In the paper's order, each with a test; those about models only where there is one."""
    paper, can = request.paper, plan.claims
    wanted = [paper.claim(id).id for id in request.claims]
    if missing := [claim for claim in wanted if claim not in can]:
        raise UsageError(f"The lab has no test of {missing[0]!r} yet.", f"It tests: {', '.join(can)}.")
    without = [] if models else [claim for claim in plan.of_models if not wanted or claim in wanted]
    if without and (wanted or len(without) == len(can)):
        raise UsageError(
            f"{without[0]!r} is tested on a pretrained model, and none is here.",
            "",
            "Name one with --model; `llmlab-run models` lists what can be opened.",
        )
    return [claim for claim in can if claim in (wanted or can) and claim not in without]


def _trial(check: str, run: PlannedRun, plan: PaperPlan, *, watched: bool) -> Trial:
    settings = with_values(TaskSettings(), run.settings)
    return Trial(
        name=run.name,
        run=f"{check}-{run.name}",
        settings=run.settings,
        varied={},
        seed=run.seed,
        x=run.seed,
        group=run.group,
        estimated_seconds=task_seconds(as_watched(settings) if watched else settings),
        measuring_seconds=plan.measuring_seconds(settings),
    )


# Pretrained models that are here --------------------------------------------------------------------------------------

# Of weights as they are stored: about a billion parameters in 16 bits. Larger ones read a prompt in minutes on a
# processor, so they are taken only when they are named.
MOST_BYTES = 2_000_000_000
_PRETRAINED = ("huggingface", "gguf")


def models_here(outputs: Path, most_bytes: int = MOST_BYTES) -> list[str]:
    """References of pretrained models, smallest first: of installed packages, $LLMLAB_MODELS and the hub's cache.

    What lies in `outputs` came out of the lab itself, and adapters are no models of their own: both are left out, and
    can be named. So are models whose weights take more than `most_bytes`.
    """
    sizes: dict[str, int] = {}
    for model in available_models(outputs):
        if model.kind not in _PRETRAINED or Path(model.reference).is_relative_to(outputs.resolve()):
            continue
        try:
            size = sum(path.stat().st_size for path in source_of(parse(model.reference, outputs)).weight_files())
        except (LabError, OSError):  # a name that two things bear, or a file that went away meanwhile
            continue
        if 0 < size <= most_bytes:
            sizes[model.reference] = size
    return sorted(sizes, key=sizes.__getitem__)


def _parameters(reference: str, outputs: Path) -> int:
    """How large a model is; one that is damaged, which is told when it is opened, counts as any."""
    try:
        return source_of(parse(reference, outputs)).shape().parameters
    except (LabError, OSError):
        return MEASURED_PARAMETERS
