"""Questions about code, papers and runs say what their lines, claims and events say."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from random import Random

import pytest
from asked import ask, middle
from small_runs import all_events

from llmlab.data.papers import list_papers
from llmlab.practice import claims
from llmlab.practice.claims import AGAINST, REFUTES, SUPPORTS, TEST
from llmlab.practice.kinds import NothingToAsk, all_kinds
from llmlab.practice.source_lines import LINES, lines_of
from llmlab.practice.subject import Subject

SEEDS = (0, 1, 2)
_KINDS = {SUPPORTS: "what-supports", REFUTES: "what-refutes", TEST: "which-test", AGAINST: "held-against"}


def test_the_line_that_is_asked_for_is_the_only_one_of_its_function(subject: Subject) -> None:
    for line in LINES:
        assert sum(line.has in one for one in lines_of(line.symbol)) == 1, line.name
        question = ask(subject, line.name)
        assert [choice for choice in question.choices if line.has in choice] == [question.answer], line.name
    offered = {choice for seed in range(9) for choice in ask(subject, "line-causal", seed).choices}
    assert not [line for line in offered if line.startswith("mask =")]  # which is causal as well


def test_what_is_asked_about_a_claim_can_be_read_without_its_table(subject: Subject) -> None:
    """Of every claim, each question that can be made: its choices name what they are about, and one is right."""
    for paper, claim in [(one, claim) for one in list_papers() for claim in one.claims]:
        own = claim.practice
        assert own is not None, claim.id
        rights = {SUPPORTS: own.supports, REFUTES: own.refutes, AGAINST: own.against}
        if claim.sizes:
            rights[TEST] = own.tests
        else:
            assert not own.tests, claim.id
        for what, right in rights.items():
            found = claims.found_of(Random(0), what, paper, claim)
            said = all_kinds()[_KINDS[what]]
            text, how = said.text.format(**found.facts), said.how.format(**found.facts)
            assert found.right == (right,), (claim.id, what)
            assert len(found.choices) == (3 if what in (SUPPORTS, REFUTES) else 4), (claim.id, what)
            assert (own.claims or claim.statement) in text
            assert not re.search(r"wind.tunnel|SULA", text), claim.id  # the papers' own words for their tasks
            for one in found.choices:
                assert not re.match(r"(It|They|This|These|Those|Neither|One of them|Less|Removing others)\b", one), one
                assert one.endswith("."), one
            if what != AGAINST:
                close, why = (own.flawed, own.flaw) if what == TEST else (own.neither, own.why)
                assert close in found.choices
                assert close in how
                assert why in how


def test_the_longest_choice_is_no_more_often_right_than_others(subject: Subject) -> None:
    every = [claim.practice for paper in list_papers() for claim in paper.claims if claim.practice]
    longest = [max(("supports", "refutes", "neither"), key=lambda name: len(getattr(own, name))) for own in every]
    assert {name: longest.count(name) <= len(every) / 2 for name in set(longest)} == dict.fromkeys(set(longest), True)


def test_a_claim_that_practice_says_nothing_of_is_not_asked_about() -> None:
    paper = list_papers()[0]
    bare = replace(paper.claims[0], practice=None)
    with pytest.raises(NothingToAsk):
        claims.found_of(Random(0), REFUTES, paper, bare)


def test_papers_are_asked_with_their_own_words(subject: Subject) -> None:
    every = [claim for paper in list_papers() for claim in paper.claims]
    for seed in SEEDS:
        for name, page in (("refutes-grokking", "grokking"), ("against-bayesian-reasoning", "bayesian-geometry")):
            (paper,) = [paper for paper in list_papers() if paper.name == page]
            assert paper.title in ask(subject, name, seed).text
        question = ask(subject, "whose-claim", seed)
        paper = next(paper for paper in list_papers() if paper.title == question.answer)
        assert any(claim.statement in question.text for claim in paper.claims)
        untested = ask(subject, "cannot-be-tested", seed)
        tested = {claim.statement: bool(claim.sizes) for claim in every}
        for choice in untested.choices:
            found = next(tested[statement] for statement in tested if statement.startswith(choice.removesuffix(" ...")))
            assert found == (choice != untested.answer)


def test_a_run_is_asked_about_what_its_events_say(subject: Subject) -> None:
    assert subject.run is not None
    events = all_events(subject.run)
    evaluated = [event for event in events if event["event"] == "evaluated"]
    steps = [event for event in events if event["event"] == "step"]
    losses = {event["step"]: event["val_loss"] for event in evaluated}
    asked = ask(subject, "loss-at-a-step")
    assert middle(asked) == pytest.approx(losses[int(asked.text.rsplit("step ", 1)[1].rstrip("?"))])
    assert middle(ask(subject, "best-step")) == min(losses, key=lambda step: losses[step])
    assert middle(ask(subject, "the-gap")) == pytest.approx(evaluated[-1]["val_loss"] - evaluated[-1]["train_loss"])
    half, ends = ask(subject, "half-of-the-fall"), [evaluated[0], evaluated[-1]]
    near = re.findall(r"([\d.]+) at step ([\d,]+)", half.how)
    (high, before), (low, after), (halfway, at) = ((float(loss), int(step.replace(",", ""))) for loss, step in near)
    assert halfway == pytest.approx(sum(event["val_loss"] for event in ends) / 2, abs=0.006)
    assert at == pytest.approx(before + (after - before) * (high - halfway) / (high - low), abs=1)
    whole = ends[1]["step"] - ends[0]["step"]
    assert middle(half) == pytest.approx(100 * (at - ends[0]["step"]) / whole, abs=60 / whole)  # in whole steps
    rate = ask(subject, "rate-at-a-step")
    step = int(rate.text.rsplit("step ", 1)[1].rstrip("?"))
    assert middle(rate) == pytest.approx(next(event["lr"] for event in steps if event["step"] == step))
    read = ask(subject, "tokens-in-all")
    assert middle(read) == steps[-1]["tokens"]
    sequences, length, each, count = map(int, re.findall(r"[\d,]+", read.how.replace(",", "")))
    assert length == subject.settings.model.block_size
    assert (sequences * length, each * count) == (each, steps[-1]["tokens"])
    clipped = [event["grad_norm"] > 0.5 for event in steps]
    assert middle(ask(subject, "clipped-share")) == pytest.approx(100 * sum(clipped) / len(clipped))
    largest = max(steps, key=lambda event: event["grad_norm"])["step"]
    third = min(2, int(3 * (largest - 1) / (steps[-1]["step"] - 1)))
    assert (
        ask(subject, "largest-gradient").answer
        == ("in the first third", "in the second third", "in the last third")[third]
    )
    started = next(event for event in events if event["event"] == "started")
    bits = evaluated[-1]["val_loss"] / math.log(2) / started["bytes_per_token"]
    assert middle(ask(subject, "bits-a-byte")) == pytest.approx(bits)
    speeds = sorted(event["tokens_per_second"] for event in steps)
    assert speeds[0] <= middle(ask(subject, "how-fast")) <= speeds[-1]
    lowest, last = min(losses.values()), evaluated[-1]["val_loss"]
    ending = 0 if last == lowest else 1 if last / lowest < 1.01 else 2
    assert ask(subject, "overfits").choices.index(ask(subject, "overfits").answer) == ending
