"""Reading papers: which result would support or refute a claim, which experiment tests it, what is held against it.

Results and experiments stand beside the claims, in claims.toml (`llmlab.data.papers.Choices`): of each claim one result
that supports it, one that refutes it, and one that looks like either and decides nothing.
"""

from __future__ import annotations

from random import Random

from llmlab.data.papers import Choices, Claim, Paper, list_papers
from llmlab.practice.kinds import NOTHING, Draft, NothingToAsk, choice, kind
from llmlab.practice.question import READ
from llmlab.practice.subject import Subject

_LONGEST = 260  # characters of a statement among choices
SUPPORTS, REFUTES, TEST, AGAINST = "supports", "refutes", "test", "against"
_ASKED = {
    SUPPORTS: "Which of these results would support that?",
    REFUTES: "Which of these results would refute that?",
    TEST: "Which of these experiments can tell whether that is so?",
    AGAINST: "Which of these is an objection to it?",
}
# name, page, panel, what is asked, and the paper, "" for any
_KINDS = (
    ("what-supports", "statistics-of-claims", "claims", SUPPORTS, ""),
    ("what-refutes", "statistics-of-claims", "claims", REFUTES, ""),
    ("which-test", "experiments", "check", TEST, ""),
    ("held-against", "statistics-of-claims", "evidence", AGAINST, ""),
    ("refutes-grokking", "grokking", "claims", REFUTES, "grokking"),
    ("against-grokking", "grokking", "evidence", AGAINST, "grokking"),
    ("refutes-bayesian-reasoning", "bayesian-reasoning", "claims", REFUTES, "bayesian-geometry"),
    ("against-bayesian-reasoning", "bayesian-reasoning", "evidence", AGAINST, "bayesian-geometry"),
)


def ask(random: Random, what: str, paper: Paper, claim: Claim) -> Draft:
    """What is asked about a claim. NothingToAsk where its table has nothing of that."""
    own = claim.practice
    if own is None or (what == TEST and not own.tests):
        raise NothingToAsk(f"The claim {claim.id} of {paper.name} has no such choices.")
    text = f"{paper.title} ({paper.year}) claims: “{own.claims or claim.statement}” {_ASKED[what]}"
    if what == TEST:
        how = f"Another one comes close: “{own.flawed}” {own.flaw}"
        return choice(random, text, own.tests, [own.flawed, *_of_others(random, paper, claim, "tests", 2)], how)
    if what == AGAINST:
        return choice(random, text, own.against, _of_others(random, paper, claim, "against", 3), claim.contested)
    right, wrong = (own.supports, own.refutes) if what == SUPPORTS else (own.refutes, own.supports)
    return choice(random, text, right, [wrong, own.neither], f"One decides nothing: “{own.neither}” {own.why}")


def _of_others(random: Random, paper: Paper, claim: Claim, field: str, count: int) -> list[str]:
    """The same of other claims: of this paper first, then of the others."""
    papers = sorted(list_papers(), key=lambda other: (other.name != paper.name, random.random()))
    every: list[Choices] = []
    for other in papers:
        every += random.sample(beside := [one.practice for one in other.claims if one.practice], len(beside))
    own = getattr(claim.practice, field)
    return [text for one in every if (text := getattr(one, field)) and text != own][:count]


def _add(name: str, page: str, panel: str, what: str, of: str) -> None:
    @kind(name, page, READ, panel, NOTHING)
    def about_a_claim(subject: Subject, random: Random) -> Draft:
        claims = [
            (paper, claim)
            for paper in list_papers()
            for claim in paper.claims
            if of in ("", paper.name) and claim.practice and (what != TEST or claim.practice.tests)
        ]
        if not claims:
            raise NothingToAsk("There is no such claim.")
        return ask(random, what, *random.choice(claims))


for _row in _KINDS:
    _add(*_row)


@kind("whose-claim", "experiments", READ, "paper", NOTHING)
def whose_claim(subject: Subject, random: Random) -> Draft:
    papers = list_papers()
    paper = random.choice(papers)
    claim = random.choice(paper.claims)
    text = f"Which paper claims: “{claim.statement}”?"
    return choice(random, text, paper.title, [other.title for other in papers], f"{claim.title} ({claim.where}).")


@kind("cannot-be-tested", "experiments", READ, "claims", NOTHING)
def cannot_be_tested(subject: Subject, random: Random) -> Draft:
    claims = [claim for paper in list_papers() for claim in paper.claims]
    untested = [claim for claim in claims if not claim.sizes]
    if not untested:
        raise NothingToAsk("Every claim is tested.")
    claim = random.choice(untested)
    wrong = [_short(other.statement) for other in random.sample([one for one in claims if one.sizes], 3)]
    return choice(random, "Which of these claims can the lab not test?", _short(claim.statement), wrong, claim.test)


def _short(text: str) -> str:
    """The first sentences that fit."""
    if len(text) <= _LONGEST:
        return text
    cut = text[:_LONGEST]
    return cut[: cut.rfind(". ") + 1] if ". " in cut else cut.rsplit(" ", 1)[0] + " ..."
