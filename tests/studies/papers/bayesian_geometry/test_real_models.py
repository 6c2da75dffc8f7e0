"""A model that updates as Bayes' rule is supported, one that counts reports or heeds their order is not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cases import each
from tiny_models import llama

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.tokenizers import CompactTokenizer
from llmlab.models.model import OpenModel
from llmlab.studies.papers.agreement import by_models
from llmlab.studies.papers.bayesian_geometry import real_models
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.beliefs import (
    Criterion,
    corrected_p,
    criteria,
    judge_model,
    real_models_verdict,
)
from llmlab.studies.papers.bayesian_geometry.evidence_prompts import CONDITIONS, TRUE, evidence_prompts
from llmlab.studies.papers.bayesian_geometry.geometry import Activations, manifold, take
from llmlab.studies.papers.bayesian_geometry.real_models import (
    Size,
    belief_measures,
    entropies,
    of_model,
    samples_at_the_end,
)
from llmlab.studies.papers.statistics import correlation_within, r2_beyond_strata

TOKENIZER = CompactTokenizer(range(8000))  # has each word of the prompts
PROMPTS = evidence_prompts(TOKENIZER, 30)
H = entropies(PROMPTS.posterior)
SAMPLES = samples_at_the_end(PROMPTS.ids[TRUE], H, PROMPTS.reports)


def along(line: np.ndarray, noise: float = 0.1) -> np.ndarray:
    """Values that rise along one direction with a number of each prompt."""
    random = np.random.default_rng(0)
    return np.outer((line - line.mean()) / line.std(), random.normal(size=12)) + random.normal(0, noise, (len(H), 12))


# Measures ----------------------------------------------------------------------------------------------------------


def test_a_planted_axis_of_entropy_is_found_at_equal_k() -> None:
    found = manifold(along(H), SAMPLES)
    assert found.within is not None
    assert found.within > 0.7  # few values of entropy at each k: ties
    assert found.p_within == 1 / 1001
    assert found.gain > 0.1


def test_an_axis_of_the_prompts_length_is_caught() -> None:
    # Entropy falls with k, so this axis follows it over all prompts.
    found = manifold(along(-PROMPTS.reports.astype(float)), SAMPLES)
    assert found.rho > 0.5
    assert found.within is not None
    assert found.within < 0.2
    assert found.p_within is not None
    assert found.p_within > 0.05
    assert found.gain < 0.02


@pytest.mark.parametrize("width", [120, 400])
def test_as_many_columns_as_prompts_predict_nothing_by_themselves(width: int) -> None:
    noise = np.random.default_rng(0).normal(size=(len(H), width))
    strata, both = r2_beyond_strata(noise, H, PROMPTS.reports, SAMPLES.sequence)
    assert both - strata == pytest.approx(0, abs=0.1)


def test_exact_beliefs_have_no_error_and_even_ones_the_posteriors_missing_bits() -> None:
    exact = belief_measures(PROMPTS.posterior, PROMPTS)
    assert exact == pytest.approx({"rho": 1, "kl": 0, "error": 0}, abs=1e-9)
    even = belief_measures(np.full(len(H), 0.5), PROMPTS)
    assert even["rho"] == 0
    assert even["kl"] == pytest.approx(1 - H.mean())
    against = belief_measures(1 - PROMPTS.posterior, PROMPTS)
    assert against["rho"] == pytest.approx(-1)


def test_what_outlasts_a_new_order_is_a_correlation_at_equal_k() -> None:
    strata = np.repeat([0, 1], 200)
    random = np.random.default_rng(1)
    kept, before, after = random.normal(size=(3, 400))
    assert correlation_within(kept + before, kept + after, strata) == pytest.approx(0.5, abs=0.1)
    assert correlation_within(kept, kept + 100 * strata, strata) == pytest.approx(1)
    assert correlation_within(before + 100 * strata, after + 100 * strata, strata) == pytest.approx(0, abs=0.1)
    assert correlation_within(strata, kept, strata) == 0


@pytest.fixture(scope="module")
def tiny() -> dict[str, Any]:
    """A small Llama that was never trained, measured from the prompts to plain values."""
    model = llama(vocab_size=TOKENIZER.vocab_size, max_position_embeddings=128).requires_grad_(False)
    told: list[float] = []

    def progress(what: str, done: float, total: float) -> None:
        told.append(done / total)

    kept: list[int] = []

    def taken(*what: Any) -> Activations:
        activations = take(*what)
        kept.append(len(activations.values))
        return activations

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real_models, "take", taken)
        found = of_model(
            lambda: OpenModel("tiny", "tiny", "huggingface", model, TOKENIZER), Size(6, 2, 10, 3), 0, progress
        )
    found = json.loads(json.dumps(found, allow_nan=False))
    assert told == sorted(told)
    return found | {"net": model, "kept": kept}


@each(("evidence", "compared"), [(3, 1), (1, 2)])
def test_one_prompt_of_each_k_is_refused_for_it_has_no_order(evidence: int, compared: int) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Size(evidence, compared, 10, 3)


def test_a_model_without_training_is_not_supported(tiny: dict[str, Any]) -> None:
    verdict = real_models_verdict([tiny], {})
    assert verdict.verdict == NOT_SUPPORTED
    assert verdict.n == 30
    assert verdict.tables[0].title == "What is asked of tiny"
    assert len({chart.name for chart in verdict.charts}) == len(verdict.charts) == 4


def test_all_layers_are_held_only_where_all_are_asked_for(tiny: dict[str, Any]) -> None:
    evidence, *controls = tiny["kept"][: len(CONDITIONS)]
    mixed, alone, *untrained = tiny["kept"][len(CONDITIONS) :]
    assert (evidence, mixed, alone) == (2, 2, 2)
    assert controls == [1] * (len(CONDITIONS) - 1)
    assert untrained == [1] * bounds.RANDOM_MODELS


def test_beliefs_are_the_models_own_at_the_last_token(tiny: dict[str, Any]) -> None:
    prompts = evidence_prompts(TOKENIZER, 6)
    for condition in CONDITIONS:
        first, second = prompts.answers[condition]
        for place in (0, 13, 29):
            logits = tiny["net"](torch.tensor([prompts.ids[condition][place]])).logits[0, -1]
            expected = torch.sigmoid(logits[first] - logits[second])
            assert tiny["beliefs"][condition][place] == pytest.approx(float(expected), abs=1e-4)


def test_values_are_the_last_layers_under_every_condition(tiny: dict[str, Any]) -> None:
    # Without evidence all of them but the renamed one are the same prompt.
    assert tiny["beliefs"]["masked"][:6] == tiny["beliefs"]["true"][:6] == tiny["beliefs"]["permuted"][:6]
    assert tiny["beliefs"]["renamed"][:6] != tiny["beliefs"]["true"][:6]
    assert tiny["axes"]["true"]["within"] == tiny["axis"]["values"]["within"][-1]
    assert len(tiny["untrained"]) == bounds.RANDOM_MODELS


# Verdict -----------------------------------------------------------------------------------------------------------


def bayesian(name: str = "model") -> dict[str, Any]:
    """Measurements of a model that does all that is claimed."""
    belief = {condition: {"rho": 0.95, "kl": 0.05, "error": 0.05} for condition in CONDITIONS}
    axes = {condition: {"pc1": 0.5, "rho": 0.8, "within": 0.7, "gain": 0.3} for condition in CONDITIONS}
    for condition in ("shuffled", "masked"):
        belief[condition] = {"rho": 0.05, "kl": 0.6, "error": 0.3}
        axes[condition] = {"pc1": 0.5, "rho": 0.5, "within": 0.05, "gain": 0.0}
    layers = {"pc1": [0.5], "pc12": [0.6], "participation": [4.0], "rho": [0.7], "within": [0.6], "gain": [0.2]}
    text = layers | {"p_within": 0.001, "scores": [0.0], "entropy": [1.0], "kinds": [0]}
    return {
        "model": name,
        "reference": name,
        "seed": 0,
        "layers": 1,
        "reports": PROMPTS.reports.tolist(),
        "surplus": PROMPTS.surplus.tolist(),
        "entropy": H.tolist(),
        "beliefs": {condition: PROMPTS.posterior.tolist() for condition in CONDITIONS},
        "answered": dict.fromkeys(CONDITIONS, 0.9),
        "belief": belief,
        "belief_interval": [0.9, 0.98],
        "belief_p": 0.001,
        "even_kl": 0.5,
        "order_kept": 0.9,
        "last_report": 0.1,
        "axis": {"values": layers, "residuals": layers},
        "axis_interval": [0.6, 0.8],
        "axis_p": [0.001, 0.001],
        "axis_surplus": 0.1,
        "scores": H.tolist(),
        "axes": axes,
        "compared": {"pc1": 0.5, "rho": 0.8, "within": 0.7, "prompts": 75},
        "texts": {"domain": "prose", "domains": ["prose"], "tokens": 32, "mixed": text, "alone": text},
        "untrained": [{"pc1": 0.2, "rho": 0.3, "within": 0.1, "belief": 0.0}] * bounds.RANDOM_MODELS,
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    """A Bayesian model but for one measurement."""
    found: dict[str, Any] = json.loads(json.dumps(bayesian()))
    *outer, last = path.split(".")
    inner = found
    for name in outer:
        inner = inner[name]
    inner[last] = value
    return found


def outcome(values: dict[str, Any]) -> str:
    return judge_model(criteria(values, corrected_p(values)))


MATCHED = [{"pc1": 0.2, "rho": 0.3, "within": 0.7, "belief": 0.0}] * bounds.RANDOM_MODELS


@each(
    ("path", "value", "expected"),
    [
        ("belief.true.rho", 0.6, SUPPORTED),
        ("belief.true.rho", 0.599, INCONCLUSIVE),
        ("belief.true.rho", -0.9, NOT_SUPPORTED),
        ("belief.true.kl", 0.25, SUPPORTED),
        ("belief.true.kl", 0.251, INCONCLUSIVE),
        ("belief_p", 0.0099, SUPPORTED),  # the largest of four: times one
        ("belief_p", 0.01, INCONCLUSIVE),
        ("belief_p", 0.051, NOT_SUPPORTED),
        ("axes.true.pc1", 0.30, SUPPORTED),
        ("axes.true.pc1", 0.299, INCONCLUSIVE),
        ("compared.pc1", 0.2, INCONCLUSIVE),
        ("axes.true.rho", 0.599, INCONCLUSIVE),
        ("axes.true.within", 0.299, INCONCLUSIVE),
        ("axis_p", [0.001, 0.051], NOT_SUPPORTED),
        ("axis_p", [0.001, None], INCONCLUSIVE),
        ("axes.true.gain", 0.049, INCONCLUSIVE),
        ("untrained", MATCHED, NOT_SUPPORTED),
        ("untrained", MATCHED[1:], INCONCLUSIVE),
        ("belief.renamed.rho", 0.3, SUPPORTED),
        ("belief.renamed.rho", 0.299, INCONCLUSIVE),
        ("order_kept", 0.5, SUPPORTED),
        ("order_kept", 0.499, NOT_SUPPORTED),
        ("belief.shuffled.rho", 0.475, SUPPORTED),
        ("belief.shuffled.rho", -0.48, INCONCLUSIVE),
        ("belief.shuffled.rho", 0.95, NOT_SUPPORTED),
        ("axes.masked.within", 0.351, INCONCLUSIVE),
        ("axes.masked.within", 0.7, NOT_SUPPORTED),
    ],
)
def test_a_model_turns_at_the_bounds(path: str, value: Any, expected: str) -> None:
    assert outcome(changed(path, value)) == expected


def test_p_values_are_corrected_over_all_corrected_p_a_model() -> None:
    found = corrected_p(changed("axis_p", [0.02, None]))
    assert found.axis_within is None
    assert [found.belief, found.texts, found.axis] == pytest.approx([0.003, 0.003, 0.02])


def test_support_needs_every_criterion_and_one_against_decides() -> None:
    good = Criterion("a", "1", "1", met=True)
    assert judge_model([good, good]) == SUPPORTED
    assert judge_model([good, replace(good, met=False)]) == INCONCLUSIVE
    assert judge_model([good, replace(good, met=False, refuted=True)]) == NOT_SUPPORTED


def test_most_models_must_agree() -> None:
    assert by_models([SUPPORTED] * 4 + [NOT_SUPPORTED]) == SUPPORTED
    assert by_models([SUPPORTED] * 3 + [NOT_SUPPORTED]) == INCONCLUSIVE
    assert by_models([NOT_SUPPORTED]) == NOT_SUPPORTED
    assert by_models([]) == INCONCLUSIVE
    both = real_models_verdict([bayesian("one"), bayesian("two")], {})
    assert both.verdict == SUPPORTED
    assert len({chart.name for chart in both.charts}) == 8
    assert "Supported in one, two." in both.reason


def test_the_papers_criterion_asks_for_a_share_alone() -> None:
    found = real_models_verdict([changed("axis_p", [0.5, 0.5])], {})
    assert found.verdict == NOT_SUPPORTED
    assert found.papers_criterion.passes is True
    assert "name no bound" in found.papers_criterion.words


def test_without_a_model_that_could_be_asked_nothing_is_said() -> None:
    found = real_models_verdict([], {"broken": "It is damaged."})
    assert (found.verdict, found.statistic.value) == (INCONCLUSIVE, None)
    assert "broken was left out: It is damaged." in found.reason
