"""Reading papers: what a claim says, what would refute it, from the claims tables that checks are made of."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from llmlab.data.papers import Claim, Paper, list_papers
from llmlab.practice.kinds import NOTHING, Draft, NothingToAsk, choice, kind
from llmlab.practice.question import READ
from llmlab.practice.subject import Subject

_LONGEST = 260  # characters of a choice


def _drawn(random: Random, has: Callable[[Claim], str], of: str = "") -> tuple[Paper, Claim, list[str]]:
    """A claim that has such a text, and the same of others: of the same paper first, then of the others. of: its paper,
    "" for any."""
    papers = list_papers()
    claims = [(paper, claim) for paper in papers for claim in paper.claims if has(claim)]
    drawn = [(paper, claim) for paper, claim in claims if of in ("", paper.name)]
    if not drawn or len(claims) < 3:
        raise NothingToAsk("There are too few claims.")
    paper, claim = random.choice(drawn)
    beside = [has(other) for its, other in claims if its is paper and other is not claim]
    far = [has(other) for its, other in claims if its is not paper]
    random.shuffle(beside)
    random.shuffle(far)
    return paper, claim, [_short(text) for text in [*beside, *far][:3]]


def _short(text: str) -> str:
    """The first sentences that fit."""
    if len(text) <= _LONGEST:
        return text
    cut = text[:_LONGEST]
    return cut[: cut.rfind(". ") + 1] if ". " in cut else cut.rsplit(" ", 1)[0] + " ..."


def _of(paper: Paper, claim: Claim) -> str:
    return f"{paper.title} ({paper.year}) claims: “{claim.statement}”"


def _where(paper: Paper, claim: Claim, field: str) -> str:
    return f"`{field}` of the claim {claim.id!r} in the claims table of {paper.name}; in the paper: {claim.where}."


@kind("what-refutes", "statistics-of-claims", READ, "claims", NOTHING)
def what_refutes(subject: Subject, random: Random) -> Draft:
    paper, claim, wrong = _drawn(random, lambda claim: claim.refutes)
    text = f"{_of(paper, claim)} Which result would refute it?"
    return choice(random, text, _short(claim.refutes), wrong, _where(paper, claim, "refutes"))


@kind("what-supports", "statistics-of-claims", READ, "claims", NOTHING)
def what_supports(subject: Subject, random: Random) -> Draft:
    paper, claim, wrong = _drawn(random, lambda claim: claim.supports)
    text = f"{_of(paper, claim)} Which result would support it?"
    return choice(random, text, _short(claim.supports), wrong, _where(paper, claim, "supports"))


@kind("which-test", "experiments", READ, "check", NOTHING)
def which_test(subject: Subject, random: Random) -> Draft:
    paper, claim, wrong = _drawn(random, lambda claim: claim.test if claim.sizes else "")
    text = f"{_of(paper, claim)} Which experiment, with its control, tests that?"
    return choice(random, text, _short(claim.test), wrong, _where(paper, claim, "test"))


@kind("held-against", "statistics-of-claims", READ, "evidence", NOTHING)
def held_against(subject: Subject, random: Random) -> Draft:
    paper, claim, wrong = _drawn(random, lambda claim: claim.contested)
    text = f"{_of(paper, claim)} What is held against it?"
    return choice(random, text, _short(claim.contested), wrong, _where(paper, claim, "contested"))


@kind("whose-claim", "experiments", READ, "paper", NOTHING)
def whose_claim(subject: Subject, random: Random) -> Draft:
    papers = list_papers()
    paper = random.choice(papers)
    claim = random.choice(paper.claims)
    text = f"Which paper claims: “{claim.statement}”?"
    return choice(random, text, paper.title, [other.title for other in papers], _where(paper, claim, "statement"))


@kind("cannot-be-tested", "experiments", READ, "claims", NOTHING)
def cannot_be_tested(subject: Subject, random: Random) -> Draft:
    claims = [claim for paper in list_papers() for claim in paper.claims]
    untested = [claim for claim in claims if not claim.sizes]
    if not untested:
        raise NothingToAsk("Every claim is tested.")
    claim = random.choice(untested)
    wrong = [_short(other.statement) for other in random.sample([one for one in claims if one.sizes], 3)]
    return choice(random, "Which of these claims can the lab not test?", _short(claim.statement), wrong, claim.test)


def _of_a_page(page: str, name: str) -> None:
    """The same two questions about the one paper that a page is about."""

    @kind(f"refutes-{page}", page, READ, "claims", NOTHING)
    def refutes(subject: Subject, random: Random) -> Draft:
        paper, claim, wrong = _drawn(random, lambda claim: claim.refutes, name)
        text = f"{_of(paper, claim)} Which result would refute it?"
        return choice(random, text, _short(claim.refutes), wrong, _where(paper, claim, "refutes"))

    @kind(f"against-{page}", page, READ, "evidence", NOTHING)
    def against(subject: Subject, random: Random) -> Draft:
        paper, claim, wrong = _drawn(random, lambda claim: claim.contested, name)
        text = f"{_of(paper, claim)} What is held against it?"
        return choice(random, text, _short(claim.contested), wrong, _where(paper, claim, "contested"))


for _page, _paper in (("grokking", "grokking"), ("bayesian-reasoning", "bayesian-geometry")):
    _of_a_page(_page, _paper)
