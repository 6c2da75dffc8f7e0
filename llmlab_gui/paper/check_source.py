"""Checks of a paper's claims as the window's desk takes them. Touches no Qt."""

from __future__ import annotations

from pathlib import Path

from llmlab.core.errors import LabError
from llmlab.core.kinds import PAPERS
from llmlab.studies.launcher import make_folder
from llmlab.studies.papers.records import CheckResult, read_result
from llmlab.studies.records import CheckFolder, ExperimentFolder, ExperimentRecord, list_checks
from llmlab_gui.experiments.source import Source

# Verdicts with all their charts take less than a megabyte; a file of someone else's must not fill the memory.
MOST_BYTES = 32 << 20


def create_check(outputs: Path, record: ExperimentRecord) -> ExperimentFolder:
    """The folder of a new check, its predictions locked. UsageError when the name is taken."""
    folder = CheckFolder(outputs / PAPERS / record.id)
    make_folder(folder, record)
    return folder


def read_verdicts(folder: ExperimentFolder) -> CheckResult | None:
    """verdict.json; None before the first verdict. LabError when it is damaged."""
    try:
        size = folder.results_json.stat().st_size
    except OSError:
        return None
    if size > MOST_BYTES:
        raise LabError(
            f"{folder.results_json} is not read.",
            f"It has {size / 1e6:,.0f} MB, more than any check writes.",
            "Run the check again.",
        )
    return read_result(folder.results_json)


CHECKS: Source[CheckResult] = Source(
    CheckFolder,
    list_checks,
    create_check,
    read_verdicts,
    follows_losses=False,
    ended="Its verdicts are in Claims.",
)
