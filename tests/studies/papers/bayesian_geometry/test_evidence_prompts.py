"""Evidence prompts say what their posterior is of, and nothing but the evidence tells them apart."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from tiny_models import TOKENIZER

from llmlab.core.errors import LabError
from llmlab.data.tokenizers import Gpt2Tokenizer
from llmlab.studies.papers.bayesian_geometry.evidence_prompts import (
    CONDITIONS,
    MASKED,
    PERMUTED,
    RENAMED,
    REPORTS,
    RIGHT,
    SHUFFLED,
    TRUE,
    evidence_prompts,
    posterior,
)
from llmlab.studies.papers.bayesian_geometry.real_models import compared, entropies

GPT2 = Gpt2Tokenizer()
EACH = 18
PROMPTS = evidence_prompts(GPT2, EACH)


def reported(condition: str, place: np.integer[Any] | int) -> list[tuple[str, str]]:
    """Who says what, read from the prompt's text."""
    sentences = GPT2.decode(PROMPTS.ids[condition][place]).split(". ")[2:-1]
    return [(name, word) for name, _, word in (sentence.split() for sentence in sentences)]


def by_bayes(said: list[str], first: str) -> float:
    """The posterior of the first place, from the likelihood of every single report under both places."""
    likelihoods = []
    for truth_is_first in (True, False):
        one = 0.5
        for word in said:
            one *= RIGHT if (word == first) == truth_is_first else 1 - RIGHT
        likelihoods.append(one)
    return likelihoods[0] / sum(likelihoods)


@pytest.mark.parametrize("condition", [TRUE, RENAMED, PERMUTED])
def test_the_posterior_is_that_of_the_reports_in_the_text(condition: str) -> None:
    first = PROMPTS.words[condition][0]
    for place, expected in enumerate(PROMPTS.posterior):
        assert by_bayes([word for _, word in reported(condition, place)], first) == pytest.approx(expected)


def test_the_posterior_is_exact_for_every_sequence_of_reports_and_the_same_in_every_order() -> None:
    for k in (0, 1, 2, 4):
        for said in itertools.product((1, -1), repeat=k):
            exact = {
                round(by_bayes(["a" if one > 0 else "b" for one in order], "a"), 12)
                for order in itertools.permutations(said)
            }
            assert exact == {round(float(posterior(np.array(sum(said)))), 12)}


def test_permuted_prompts_hold_the_same_reports_by_the_same_witnesses() -> None:
    moved = 0
    for place in range(len(PROMPTS.reports)):
        before, after = reported(TRUE, place), reported(PERMUTED, place)
        assert Counter(before) == Counter(after)
        moved += before != after
    assert moved > EACH


@pytest.mark.parametrize("condition", CONDITIONS)
def test_prompts_with_as_many_reports_have_as_many_tokens(condition: str) -> None:
    for k in REPORTS:
        rows = [ids for ids, count in zip(PROMPTS.ids[condition], PROMPTS.reports, strict=True) if count == k]
        assert len(rows) == EACH
        assert len({len(ids) for ids in rows}) == 1
        assert len(rows[0]) == len(PROMPTS.ids[TRUE][list(PROMPTS.reports).index(k)])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_an_answer_is_one_token_that_spells_its_label(condition: str) -> None:
    assert [GPT2.token_text(id).strip() for id in PROMPTS.answers[condition]] == list(PROMPTS.words[condition])
    assert len(set(PROMPTS.answers[condition])) == 2


def test_the_surplus_is_spread_evenly() -> None:
    for k in REPORTS:
        counts = Counter(PROMPTS.surplus[PROMPTS.reports == k].tolist())
        assert set(counts) == set(range(-k, k + 1, 2))
        assert max(counts.values()) - min(counts.values()) <= 1


def test_shuffled_labels_are_dealt_among_prompts_of_one_length_and_masked_ones_are_gone() -> None:
    for k in REPORTS[1:]:
        places = np.flatnonzero(PROMPTS.reports == k)
        true = Counter(word for place in places for _, word in reported(TRUE, place))
        assert Counter(word for place in places for _, word in reported(SHUFFLED, place)) == true
        assert any(reported(SHUFFLED, place) != reported(TRUE, place) for place in places)
        assert {word for place in places for _, word in reported(MASKED, place)} == {"nothing"}
        assert [[name for name, _ in reported(MASKED, place)] for place in places] == [
            [name for name, _ in reported(TRUE, place)] for place in places
        ]


def test_prompts_are_the_same_for_a_seed_and_others_for_another() -> None:
    assert evidence_prompts(GPT2, 2, 5).ids == evidence_prompts(GPT2, 2, 5).ids
    assert evidence_prompts(GPT2, 2, 5).ids != evidence_prompts(GPT2, 2, 6).ids


def test_random_weights_read_prompts_whose_entropy_varies_at_equal_k() -> None:
    places = compared(PROMPTS, 6)
    assert Counter(PROMPTS.reports[places].tolist()) == {2: 6, 4: 6, 8: 6}
    assert entropies(np.array([0.5, 0.9, 0.1])).tolist() == pytest.approx([1, 0.468996, 0.468996])
    assert len(set(entropies(posterior(np.array([3, -3]))).tolist())) == 1


def test_a_tokenizer_of_letters_is_refused_with_a_reason() -> None:
    with pytest.raises(LabError, match="one token each"):
        evidence_prompts(TOKENIZER, 2)
