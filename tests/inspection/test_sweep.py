"""A sweep's grid holds what one intervention after the other gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from experiment_models import hooks_of, opened, weights

from llmlab.core.errors import Cancelled, UsageError
from llmlab.inspection.answers import answer_question
from llmlab.inspection.archive import Archive, read_archive
from llmlab.inspection.interventions import Intervene, intervene
from llmlab.inspection.sweep import PatchingSweep, patching_sweep, row_bytes
from llmlab.models.model import OpenModel

PROMPT, SOURCE = "the king said", "a queen wept."
SMALL = {"block_size": 16, "n_kv_head": 2}


@pytest.fixture(scope="module")
def model() -> OpenModel:
    return opened(**SMALL)


def swept(model: OpenModel, folder: Path, question: PatchingSweep, **options: int) -> Archive:
    patching_sweep(model, question, folder / "sweep", **options)
    return read_archive(folder / "sweep")


def one_by_one(model: OpenModel, folder: Path, question: PatchingSweep, edit: str) -> Archive:
    shared = {
        "text": question.text, "source": question.source, "align": question.align, "position": question.position,
        "answer": question.answer, "against": question.against, "reference": question.reference,
    }  # fmt: skip
    intervene(model, Intervene(edits=(edit,), **shared), folder / "one")
    return read_archive(folder / "one")


@pytest.mark.parametrize("action", ["patch", "zero", "mean"])
@pytest.mark.parametrize("point", ["pre_attn", "attn_out", "mlp_out", "post_ffn"])
def test_a_grid_of_positions_is_that_of_single_interventions(
    model: OpenModel, point: str, action: str, tmp_path: Path
) -> None:
    question = PatchingSweep(
        text=PROMPT, source=SOURCE, answer="e", against="a", position=-3, point=point, action=action, reference="abc"
    )
    archive = swept(model, tmp_path, question, budget=3 * row_bytes(model.anatomy, 11))
    for layer in range(2):
        for position in range(0, 13, 4):  # each place of a batch of three is among them
            one = one_by_one(model, tmp_path, question, f"{action} residual:{layer}.{point}@{position}")
            found = archive["sweep/logit_difference"][layer, position]
            assert found == pytest.approx(one["target/after"][0], abs=1e-6), (layer, position)
    assert archive["sweep/before"][0] == pytest.approx(one["target/before"][0], rel=1e-6)
    assert archive["sweep/source"][0] == pytest.approx(one["target/source"][0], rel=1e-6)


@pytest.mark.parametrize("action", ["patch", "zero", "mean"])
def test_a_grid_of_heads_is_that_of_single_interventions(model: OpenModel, action: str, tmp_path: Path) -> None:
    question = PatchingSweep(text=PROMPT, source=SOURCE, answer="e", position=9, over="layer,head", action=action)
    archive = swept(model, tmp_path, question, budget=1)
    assert archive["sweep/effect"].shape == (2, 4)
    for layer in range(2):
        for head in range(4):
            one = one_by_one(model, tmp_path, question, f"{action} head:{layer}.{head}")
            found = archive["sweep/logit_difference"][layer, head]
            assert found == pytest.approx(one["target/after"][0], abs=1e-6), (layer, head)


def test_the_effect_is_0_as_in_the_prompt_and_1_as_in_the_source(model: OpenModel, tmp_path: Path) -> None:
    question = PatchingSweep(text=PROMPT, source=SOURCE, answer="e", against="a", position=-3, point="post_ffn")
    archive = swept(model, tmp_path, question)
    assert archive.metadata.more["effect"] == "normalised"
    before, source = archive["sweep/before"][0], archive["sweep/source"][0]
    expected = (archive["sweep/logit_difference"] - before) / (source - before)
    np.testing.assert_allclose(archive["sweep/effect"], expected, atol=1e-5)
    last = archive["sweep/effect"][-1]
    assert last[10] == pytest.approx(1.0, abs=1e-6)  # all that the last block gives the target's position
    assert np.abs(last[:10]).max() < 1e-6  # its other positions are read by nobody
    assert (archive["sweep/effect"][:, 11:] == 0).all()


def test_an_ablation_has_its_effect_in_logits(model: OpenModel, tmp_path: Path) -> None:
    archive = swept(model, tmp_path, PatchingSweep(text=PROMPT, answer="e", over="layer,head", action="zero"))
    assert archive.metadata.more["effect"] == "change"
    np.testing.assert_allclose(
        archive["sweep/effect"], archive["sweep/logit_difference"] - archive["sweep/before"], atol=1e-6
    )


def test_unaligned_positions_are_left_open(model: OpenModel, tmp_path: Path) -> None:
    question = PatchingSweep(text=PROMPT, source="a cat", align="end", answer="e")
    effect = swept(model, tmp_path, question)["sweep/effect"]
    assert np.isnan(effect[:, :8]).all()
    assert not np.isnan(effect[:, 8:]).any()


def test_a_source_that_is_the_prompt_has_no_effect_to_normalise(model: OpenModel, tmp_path: Path) -> None:
    archive = swept(model, tmp_path, PatchingSweep(text=PROMPT, source=PROMPT, answer="e"))
    assert archive.metadata.more["effect"] == "change"
    assert any("not normalised" in note for note in archive.metadata.notes)
    assert np.abs(archive["sweep/effect"]).max() < 1e-6


def test_a_sweep_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = opened(**SMALL)
    before = weights(model)
    answer_question(model, "sweep", {"text": PROMPT, "action": "mean", "point": "mlp_out"}, tmp_path / "a")
    assert hooks_of(model) == 0
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.state_dict().items())


def test_progress_counts_the_cells_and_cancels_between_batches(model: OpenModel, tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []

    def progress(what: str, done: float, total: float) -> None:
        seen.append((done, total))
        if done >= 12:
            raise Cancelled

    question = PatchingSweep(text=PROMPT, action="zero")
    with pytest.raises(Cancelled):
        patching_sweep(model, question, tmp_path / "a", progress, budget=4 * row_bytes(model.anatomy, 13))
    assert seen == [(0, 0), (0, 26), (4, 26), (8, 26), (12, 26)]
    assert list(tmp_path.iterdir()) == []
    assert hooks_of(model) == 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"over": "head,layer"}, "not known"),
        ({"action": "scale"}, "cannot 'scale'"),
        ({"action": "patch"}, "no source"),
        ({"action": "zero", "point": "post_attn"}, "no sweep at"),
        ({"source": "abc"}, "13 tokens and the source 3"),
        ({"action": "zero", "position": 13}, "no token 13"),
        ({"action": "zero", "answer": "no"}, "not one token"),
    ],
)
def test_wrong_sweeps_are_refused(model: OpenModel, values: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        answer_question(model, "sweep", {"text": PROMPT} | values, tmp_path / "a")
