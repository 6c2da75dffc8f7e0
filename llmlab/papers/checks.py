"""A check of a paper's claims on disk: a plan of runs as an experiment has one, with verdicts for results. No torch.

outputs/papers/<id>/
    paper.json      what was asked: paper, claims, size, and the runs (llmlab.experiments.records)
    status.json     where it stands
    measurements/   what was measured on each finished run's last checkpoint
    verdict.json    llmlab.papers.records.CheckResult; report.md and figures/ say the same for people

Its runs lie beside it, outputs/papers/<id>-<run>.
"""

from __future__ import annotations

import contextlib
import difflib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmlab import __version__
from llmlab.config import to_mapping, with_values
from llmlab.errors import UsageError
from llmlab.experiments.plan import expected_seconds
from llmlab.experiments.records import Arm, Axis, ExperimentFolder, ExperimentRecord
from llmlab.papers.bayesian_geometry.plan import TESTED, PlannedRun, planned_runs
from llmlab.papers.records import SIZES, Paper
from llmlab.papers.settings import TaskSettings
from llmlab.runs.folder import PAPERS
from llmlab.runs.launcher import require_name

BAYESIAN_GEOMETRY = "bayesian-geometry"
# Measuring one run, and judging the geometry of one: processor seconds on two cores.
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
    def worker(self) -> str:
        return "llmlab.papers.check"

    @property
    def resume_command(self) -> str:
        return f"llmlab-run paper resume {self.id}"


@dataclass(frozen=True)
class CheckRequest:
    """What is to be checked. claims: ids, all that have a test when empty. seeds: 0 takes the size's own number."""

    paper: Paper
    size: str
    outputs: Path
    claims: Sequence[str] = ()
    seeds: int = 0
    name: str = ""
    command: str = ""


def plan_check(request: CheckRequest) -> ExperimentRecord:
    """The runs and their time, with nothing written yet. UsageError for what has no test."""
    paper, size = request.paper, request.size
    if size not in SIZES:
        raise UsageError(f"A check has no size {size!r}.", f"There are: {', '.join(SIZES)}.")
    if not 0 <= request.seeds <= 100:
        raise UsageError(f"{request.seeds} seeds cannot be planned.", "1 to 100 can.")
    name = request.name or f"{time.strftime('%Y%m%d-%H%M%S')}-{paper.name}"
    require_name(name, "a check", 60)
    claims = _claims(request)
    arms = [_arm(name, run, request.outputs) for run in planned_runs(size, claims, request.seeds)]
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
        x_axis=Axis("prediction"),
        y_axis=Axis("entropy error", "bits"),
        estimated_seconds=sum(arm.estimated_seconds for arm in arms),
        options={"paper": paper.name, "size": size, "claims": claims},
        command=request.command,
        code_version=__version__,
    )


def claims_tested(paper: Paper) -> list[str]:
    """The claims of a paper that a check can test."""
    return [claim.id for claim in paper.claims if paper.name == BAYESIAN_GEOMETRY and claim.id in TESTED]


def find_check(text: str, outputs: Path) -> CheckFolder:
    """The check that an id or a folder names. UsageError with the nearest ids otherwise."""
    known = {folder.id: folder for folder in list_checks(outputs)}
    if text in known:
        return known[text]
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # no text that a folder could be named by
        path = Path(text).expanduser()
        if (path / "paper.json").is_file():
            return CheckFolder(path.resolve())
    nearest = difflib.get_close_matches(text, known, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "`llmlab-run paper list` lists them."
    raise UsageError(f"There is no check {text!r}.", f"Looked in {outputs / PAPERS}.", hint)


def list_checks(outputs: Path) -> list[CheckFolder]:
    """Every check, newest first."""
    found = [CheckFolder(path.parent) for path in (outputs / PAPERS).glob("*/paper.json")]
    return sorted(found, key=lambda folder: folder.experiment_json.stat().st_mtime, reverse=True)


def _claims(request: CheckRequest) -> list[str]:
    """In the paper's order, each with a test at this size."""
    paper, can = request.paper, claims_tested(request.paper)
    wanted = [paper.claim(id).id for id in request.claims] or can
    if not can:
        raise UsageError(f"The lab has no runs that test {paper.name}.", "", f"llmlab-run paper show {paper.name}")
    if missing := [claim for claim in wanted if claim not in can]:
        raise UsageError(f"The lab has no test of {missing[0]!r} yet.", f"It tests: {', '.join(can)}.")
    return [claim for claim in can if claim in wanted]


def _arm(check: str, run: PlannedRun, outputs: Path) -> Arm:
    seconds = expected_seconds(with_values(TaskSettings(), run.settings), outputs) + _MEASURE_SECONDS
    return Arm(
        name=run.name,
        run=f"{check}-{run.name}",
        settings=run.settings,
        varied={"data.task": run.task, "model.kind": run.kind},
        seed=run.seed,
        x=run.seed,
        group=run.task,
        estimated_seconds=seconds,
    )
