"""One question to one reference: what a command asks once, of a run that trains or of a model that it opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmlab.core.progress import Progress, quiet
from llmlab.inspection.answers import answer
from llmlab.models.live import ask_live
from llmlab.models.reference import LiveRun, parse
from llmlab.models.source import open_model


def ask(
    reference: str, question: str, values: Mapping[str, Any], out: Path, outputs: Path, progress: Progress = quiet
) -> Path:
    """Answers `question` about what `reference` names into the file `out`. outputs: where runs are found by their ids.

    A run that trains (RUN@live) answers itself; anything else is opened. Errors as in `llmlab.inspection.answers`,
    `llmlab.models.source` and `llmlab.models.live`.
    """
    named = parse(reference, outputs)
    if isinstance(named, LiveRun):
        return ask_live(named, question, values, out, progress)
    return answer(open_model(named, outputs, progress), question, values, out, progress)
