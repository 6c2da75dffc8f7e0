"""Entropy error, divergence and the paper's own mean, on cases that can be done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from llmlab.data.synthetic.metrics import calibration, divergence, entropy


def test_entropies_and_divergences_of_coins() -> None:
    np.testing.assert_allclose(entropy(np.array([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])), [1, 0, 0.8112781245])
    assert divergence(np.array([0.5, 0.5]), np.array([0.25, 0.75])) == pytest.approx(1 - 0.5 * np.log2(3))
    assert divergence(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(1.0)


def test_opposite_errors_cancel_in_the_papers_mean_only() -> None:
    """Two samples at one place: entropy 1 taken for 0, and 0 taken for 1."""
    posterior = np.array([[[0.5, 0.5]], [[1.0, 0.0]]])
    found = calibration(posterior[::-1], posterior, np.ones((2, 1), bool))
    assert found.entropy_error == pytest.approx(1.0)
    assert found.paper_error == pytest.approx(0.0)
    assert found.places == [1]


def test_only_scored_predictions_count_and_each_place_has_its_mean() -> None:
    posterior = np.tile([[0.5, 0.5]], (2, 3, 1))
    model = posterior.copy()
    model[0, 0] = model[1, 2] = [1.0, 0.0]
    scored = np.array([[True, False, True], [True, False, False]])
    found = calibration(model, posterior, scored)
    assert found.count == 3
    assert (found.places, found.counts) == ([1, 3], [2, 1])
    assert found.errors == pytest.approx([0.5, 0.0])
    assert found.entropy_error == pytest.approx(1 / 3)
    assert found.model_entropy == pytest.approx([0.5, 1.0])


def test_nothing_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="scored"):
        calibration(np.ones((1, 1, 1)), np.ones((1, 1, 1)), np.zeros((1, 1), bool))
