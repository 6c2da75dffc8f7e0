"""The papers whose claims have a test here: a line each. No torch."""

from __future__ import annotations

from llmlab.studies.papers.attention_sinks.plan import PLAN as ATTENTION_SINKS
from llmlab.studies.papers.bayesian_geometry.plan import PLAN as BAYESIAN_GEOMETRY
from llmlab.studies.papers.grokking.plan import PLAN as GROKKING
from llmlab.studies.papers.induction_heads.plan import PLAN as INDUCTION_HEADS
from llmlab.studies.papers.plan import PaperPlan

PLANS = {plan.paper: plan for plan in (BAYESIAN_GEOMETRY, ATTENTION_SINKS, INDUCTION_HEADS, GROKKING)}


def plan_of(paper: str) -> PaperPlan | None:
    """The plan of a paper, None where it has no tests."""
    return PLANS.get(paper)
