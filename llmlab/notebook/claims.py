"""Verdicts on a paper's claims, as something that can be predicted before a check of it begins.

Where the paper is known one writes `calibration=supported@70%`. Kept, it is named with its paper, as
`claim:bayesian-geometry/calibration`: so it is read without asking which check it belongs to, and stays readable
when the paper is there no longer.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from llmlab.core.errors import UsageError, did_you_mean
from llmlab.data.papers import VERDICTS, Paper, read_paper
from llmlab.notebook.predictions import Prediction, parse_prediction
from llmlab.notebook.quantities import CHECK, CHOICE, CLAIM, QUANTITIES, Quantity


def claim_quantity(name: str) -> Quantity:
    """The verdict on a claim. UsageError for a name that is not written `claim:PAPER/ID`."""
    paper, _, claim = name.removeprefix(CLAIM).partition("/")
    if not name.startswith(CLAIM) or not paper or not claim:
        raise UsageError(f"{name!r} names no claim.", "", f"Write {CLAIM}bayesian-geometry/keys=supported@70%.")
    return Quantity(name, _title(paper, claim), CHECK, CHOICE, choices=VERDICTS)


def parse_check_prediction(line: str, paper: Paper, tested: Sequence[str]) -> Prediction:
    """The prediction that a line states about a check of that paper: `keys=not supported@60%`, or `text=...`.

    tested: ids of the claims on which the check will say something. UsageError for others, and for no verdict.
    """
    name, sign, said = line.partition("=")
    id = name.strip().removeprefix(f"{CLAIM}{paper.name}/")
    known = {claim.id for claim in paper.claims}
    if not sign or (id not in known and any(id == q.name for q in QUANTITIES if not q.subject)):
        return parse_prediction(line)
    paper.claim(id)  # or it says which there are
    if id not in tested:
        raise UsageError(
            f"This check does not test {id!r}, so nothing would come of the prediction.",
            f"It tests: {', '.join(tested)}.",
            "Choose the claims with --claims.",
        )
    verdict, at, sure = said.partition("@")
    return parse_prediction(f"{CLAIM}{paper.name}/{id}={_verdict(id, verdict)}{at}{sure}")


def _verdict(id: str, words: str) -> str:
    """`Not-supported` is `not supported`; UsageError for what is not a verdict, with the nearest one."""
    verdict = " ".join(words.casefold().replace("-", " ").replace("_", " ").split())
    if verdict not in VERDICTS:
        raise UsageError(
            f"{words.strip()!r} is not a verdict.",
            f"There are: {', '.join(VERDICTS)}.",
            did_you_mean(verdict, VERDICTS, cutoff=0.4) or f'Write "{id}=not supported@60%".',
        )
    return verdict


@functools.cache
def _title(paper: str, claim: str) -> str:
    """The claim in its paper's words; its id where there is no such paper here."""
    try:
        return read_paper(paper).claim(claim).title
    except UsageError:
        return f"the claim {claim} of {paper}"
