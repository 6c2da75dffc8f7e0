"""A check of a paper's claims on disk: a plan of runs as an experiment has one, with verdicts for results. No torch.

outputs/papers/<id>/
    paper.json      what was asked: paper, claims, size, and the runs (llmlab.studies.experiments.records)
    status.json     where it stands
    measurements/   what was measured on each finished run's last checkpoint
    verdict.json    llmlab.studies.papers.records.CheckResult; report.md and figures/ say the same for people

Its runs lie beside it, outputs/papers/<id>-<run>.
"""

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
from llmlab.core.records import from_plain
from llmlab.core.task_settings import TaskSettings
from llmlab.data.papers import SIZES, Paper
from llmlab.jobs.launcher import require_name
from llmlab.notebook.claims import claim_quantity
from llmlab.notebook.quantities import CHECK, CLAIM, Quantity
from llmlab.store.run_folder import PAPERS
from llmlab.studies.experiments.plan import LONGEST_NAME, expected_seconds
from llmlab.studies.experiments.records import Arm, ExperimentFolder, ExperimentRecord, find_in, list_in
from llmlab.studies.papers.catalogue import plan_of
from llmlab.studies.papers.models_here import models_here
from llmlab.studies.papers.plan import PaperPlan, PlannedRun

# Measuring one run: processor seconds on two cores.
_MEASURE_SECONDS = 3.0


@dataclass(frozen=True)
class CheckFolder(ExperimentFolder):
    """A check by its folder."""

    @property
    def experiment_json(self) -> Path:
        return self.path / "paper.json"

    @property
    def results_json(self) -> Path:
        return self.path / "verdict.json"

    @property
    def subject(self) -> str:
        return CHECK

    @property
    def worker(self) -> str:
        return "llmlab.studies.papers.check"

    @property
    def resume_command(self) -> str:
        return f"llmlab-run paper resume {self.id}"

    @property
    def cancel_command(self) -> str:
        return f"llmlab-run paper cancel {self.id}"

    @property
    def list_command(self) -> str:
        return "llmlab-run paper list"


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


def plan_check(request: CheckRequest) -> ExperimentRecord:
    """The runs and their time, with nothing written yet. UsageError for what has no test, or no model to test."""
    paper, size = request.paper, request.size
    if size not in SIZES:
        raise UsageError(f"A check has no size {size!r}.", f"There are: {', '.join(SIZES)}.")
    if not 0 <= request.seeds <= 100:
        raise UsageError(f"{request.seeds} seeds cannot be planned.", "1 to 100 can.")
    name = request.name or f"{time.strftime('%Y%m%d-%H%M%S')}-{paper.name}"
    require_name(name, "a check", LONGEST_NAME)
    plan = _plan(paper)
    models = _models(request, plan)
    claims = _claims(request, plan, models)
    arms = [_arm(name, run, request.outputs) for run in plan.runs(size, claims, request.seeds)]
    judging = plan.judging_seconds(size, claims, len(models))
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
        arms=arms,
        seeds=sorted({arm.seed for arm in arms}),
        x_axis=Axis("seed"),
        y_axis=Axis("validation loss", "nats"),
        estimated_seconds=sum(arm.estimated_seconds for arm in arms) + judging,
        predictions=list(request.predictions),
        options=asdict(CheckOptions(paper.name, size, claims, models, judging)),
        command=request.command,
        watched=request.watched,
        code_version=__version__,
    )


def claims_tested(paper: Paper) -> list[str]:
    """The claims of a paper that a check can test."""
    plan = plan_of(paper.name)
    return list(plan.claims) if plan else []


def claims_of_models(paper: Paper) -> list[str]:
    """Those of them that are tested on models which are there already."""
    plan = plan_of(paper.name)
    return list(plan.of_models) if plan else []


def find_check(text: str, outputs: Path) -> CheckFolder:
    """The check that an id or a folder names. UsageError with the nearest ids otherwise."""
    return find_in(outputs / PAPERS, CheckFolder, text, "check", "llmlab-run paper list")


def list_checks(outputs: Path) -> list[CheckFolder]:
    """Every check, newest first; the runs that lie beside them are left out."""
    return list_in(outputs / PAPERS, CheckFolder)


def _plan(paper: Paper) -> PaperPlan:
    plan = plan_of(paper.name)
    if plan is None:
        raise UsageError(f"The lab has no runs that test {paper.name}.", "", f"llmlab-run paper show {paper.name}")
    return plan


def _models(request: CheckRequest, plan: PaperPlan) -> list[str]:
    """The models that were named, or those that are here where a claim is about such."""
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


def _arm(check: str, run: PlannedRun, outputs: Path) -> Arm:
    seconds = expected_seconds(with_values(TaskSettings(), run.settings), outputs) + _MEASURE_SECONDS
    return Arm(
        name=run.name,
        run=f"{check}-{run.name}",
        settings=run.settings,
        varied={},
        seed=run.seed,
        x=run.seed,
        group=run.group,
        estimated_seconds=seconds,
    )
