"""The claims about pretrained models, checked on those that a check names."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache, partial
from typing import Any

from llmlab.core.errors import LabError
from llmlab.core.memory import give_back
from llmlab.core.progress import Progress
from llmlab.models.open import open_model
from llmlab.studies.papers.bayesian_geometry import focusing, real_models
from llmlab.studies.papers.bayesian_geometry.focusing_verdict import focusing_verdict
from llmlab.studies.papers.bayesian_geometry.plan import FOCUSING, REAL_MODELS
from llmlab.studies.papers.bayesian_geometry.real_models_verdict import real_models_verdict
from llmlab.studies.papers.judging import Check
from llmlab.studies.papers.records import Verdict


def check_models(check: Check, claims: Collection[str]) -> Iterator[Verdict]:
    """Verdicts on `claims`, of FOCUSING and REAL_MODELS. A model that cannot be asked is named with the reason."""
    found: dict[str, list[dict[str, Any]]] = {claim: [] for claim in claims}
    refused: dict[str, dict[str, str]] = {claim: {} for claim in claims}
    for reference in check.models:
        for claim in claims:
            try:
                found[claim].append(_measured(check, claim, reference))
            except LabError as error:
                refused[claim][reference] = " ".join(part for part in (error.what, error.why) if part)
            give_back()
    if FOCUSING in claims:
        yield focusing_verdict(found[FOCUSING], refused[FOCUSING], FOCUSING)
    if REAL_MODELS in claims:
        yield real_models_verdict(found[REAL_MODELS], refused[REAL_MODELS], REAL_MODELS)


def _measured(check: Check, claim: str, reference: str) -> dict[str, Any]:
    """What a claim asks of one model, which is opened only where a part is not known yet."""

    def say(what: str) -> Progress:
        return lambda _, done, total: check.progress(f"{reference}: {what}", done, total)

    def keep(part: str, make: Any) -> dict[str, Any]:
        return check.kept(f"{reference} {claim} {part}", make)

    opened = cache(partial(open_model, reference, check.outputs, say("opening")))
    if claim == FOCUSING:
        return focusing.of_model(opened, focusing.SIZES[check.size], 0, say("patterns"), keep)
    return real_models.of_model(opened, real_models.SIZES[check.size], 0, say("evidence and texts"), keep)
