"""Reading papers: which result would support or refute a claim, which experiment tests it, what is held against it.

Results and experiments stand beside the claims, in claims.toml (`llmlab.data.papers.Choices`): of each claim one result
that supports it, one that refutes it, and one that looks like either and decides nothing.
"""

from __future__ import annotations

from functools import cache
from random import Random

from llmlab.data.papers import Choices, Claim, Paper, list_papers
from llmlab.practice.kinds import Facts, Found, NothingToAsk, choice, kind
from llmlab.practice.subject import Subject

_LONGEST = 260  # characters of a statement among choices
SUPPORTS, REFUTES, TEST, AGAINST = "supports", "refutes", "test", "against"
# By kind: what is asked, and the paper, "" for any.
_KINDS = {
    "what-supports": (SUPPORTS, ""),
    "what-refutes": (REFUTES, ""),
    "which-test": (TEST, ""),
    "held-against": (AGAINST, ""),
    "refutes-grokking": (REFUTES, "grokking"),
    "against-grokking": (AGAINST, "grokking"),
    "refutes-bayesian-reasoning": (REFUTES, "bayesian-geometry"),
    "against-bayesian-reasoning": (AGAINST, "bayesian-geometry"),
}


@cache
def _papers() -> list[Paper]:
    """All papers, read once: a question asks for them up to three times, and they take a tenth of a second."""
    return list_papers()


def found_of(random: Random, what: str, paper: Paper, claim: Claim) -> Found:
    """What is asked about a claim. NothingToAsk where its table has nothing of that."""
    own = claim.practice
    if own is None or (what == TEST and not own.tests):
        raise NothingToAsk(f"The claim {claim.id} of {paper.name} has no such choices.")
    facts: Facts = {"paper": paper.title, "claim": own.claims or claim.statement}
    if what == TEST:
        wrong = [own.flawed, *_of_others(random, paper, claim, "tests", 2)]
        return choice(random, own.tests, wrong, other=own.flawed, why=own.flaw, **facts)
    if what == AGAINST:
        wrong = _of_others(random, paper, claim, "against", 3)
        return choice(random, own.against, wrong, why=claim.contested, **facts)
    right, opposite = (own.supports, own.refutes) if what == SUPPORTS else (own.refutes, own.supports)
    return choice(random, right, [opposite, own.neither], other=own.neither, why=own.why, **facts)


def _of_others(random: Random, paper: Paper, claim: Claim, field: str, count: int) -> list[str]:
    """The same of other claims: of this paper first, then of the others."""
    papers = sorted(_papers(), key=lambda other: (other.name != paper.name, random.random()))
    every: list[Choices] = []
    for other in papers:
        every += random.sample(beside := [one.practice for one in other.claims if one.practice], len(beside))
    own = getattr(claim.practice, field)
    return [text for one in every if (text := getattr(one, field)) and text != own][:count]


def _add(name: str, what: str, of: str) -> None:
    @kind(name)
    def about_a_claim(subject: Subject, random: Random) -> Found:
        claims = [
            (paper, claim)
            for paper in _papers()
            for claim in paper.claims
            if of in ("", paper.name) and claim.practice and (what != TEST or claim.practice.tests)
        ]
        if not claims:
            raise NothingToAsk("There is no such claim.")
        return found_of(random, what, *random.choice(claims))


for _name, _row in _KINDS.items():
    _add(_name, *_row)


def whose_claim(subject: Subject, random: Random) -> Found:
    papers = _papers()
    paper = random.choice(papers)
    claim = random.choice(paper.claims)
    titles = [other.title for other in papers]
    return choice(random, paper.title, titles, claim=claim.statement, title=claim.title, where=claim.where)


def cannot_be_tested(subject: Subject, random: Random) -> Found:
    claims = [claim for paper in _papers() for claim in paper.claims]
    untested = [claim for claim in claims if not claim.sizes]
    if not untested:
        raise NothingToAsk("Every claim is tested.")
    claim = random.choice(untested)
    wrong = [_short(other.statement) for other in random.sample([one for one in claims if one.sizes], 3)]
    return choice(random, _short(claim.statement), wrong, why=claim.test)


def _short(text: str) -> str:
    """The first sentences that fit."""
    if len(text) <= _LONGEST:
        return text
    cut = text[:_LONGEST]
    return cut[: cut.rfind(". ") + 1] if ". " in cut else cut.rsplit(" ", 1)[0] + " ..."
