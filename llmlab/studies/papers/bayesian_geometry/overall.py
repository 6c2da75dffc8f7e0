"""What single verdicts say together of the paper's main idea, that belief has a shape. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from llmlab.data.papers import NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.records import Verdict

# ours: the picture is there when both of its static parts hold, and one of those that say what it does.
STATIC = ("manifold", "keys")
DYNAMIC = ("alignment", "focusing", "causal")


def overall(verdicts: Sequence[Verdict]) -> str:
    """Whether the picture as a whole is there: it needs manifold, keys and a dynamic claim. "" without any of them."""
    found = {one.claim: one.verdict for one in verdicts}
    if not found.keys() & {*STATIC, *DYNAMIC}:
        return ""
    static = [found.get(claim) for claim in STATIC]
    dynamic = [found.get(claim) for claim in DYNAMIC]
    if static == [SUPPORTED] * len(STATIC) and SUPPORTED in dynamic:
        word = "supported"
    elif NOT_SUPPORTED in static or dynamic == [NOT_SUPPORTED] * len(DYNAMIC):
        word = "not supported"
    else:
        word = "open"
    told = ", ".join(f"{claim} {found.get(claim, 'not judged')}" for claim in (*STATIC, *DYNAMIC))
    return (
        f"The geometry as a whole: {word}. It is supported when {' and '.join(STATIC)} are, and one of "
        f"{', '.join(DYNAMIC)}. Here: {told}."
    )
