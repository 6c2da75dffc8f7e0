"""Principal components and neighbours are those of the singular value decomposition and of brute force."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from experiment_models import opened

from llmlab.core.errors import LabError, UsageError
from llmlab.inspection import spectra
from llmlab.inspection.answers import answer_question
from llmlab.inspection.archive import Archive, read_archive
from llmlab.inspection.geometry import readable
from llmlab.inspection.spectra import principal_components, singular_values
from llmlab.models.model import OpenModel


@pytest.fixture(scope="module")
def model() -> OpenModel:
    return opened(block_size=16)


def shown(model: OpenModel, folder: Path, **values: object) -> Archive:
    answer_question(model, "geometry", values, folder / "geometry")
    return read_archive(folder / "geometry")


@pytest.mark.parametrize("matrix", ["tokens", "positions", "unembedding"])
def test_components_are_the_singular_vectors_of_the_centred_rows(model: OpenModel, matrix: str, tmp_path: Path) -> None:
    archive = shown(model, tmp_path, matrix=matrix, components=4)
    name = "position_embedding" if matrix == "positions" else "token_embedding"
    rows = model.model.state_dict()[f"{name}.weight"].numpy()
    centred = rows - rows.mean(0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    components = archive["geometry/components"]
    np.testing.assert_allclose(np.abs((components * vectors[:4]).sum(1)), 1, atol=1e-5)  # equal up to their sign
    assert (components[np.arange(4), np.abs(components).argmax(1)] > 0).all()
    np.testing.assert_allclose(archive["geometry/points"], centred @ components.T, atol=1e-5)
    shares = values**2 / (values**2).sum()
    np.testing.assert_allclose(archive["geometry/explained"], shares[:4], atol=1e-6)
    np.testing.assert_allclose(archive["geometry/spectrum"][: len(shares)], shares, atol=1e-6)
    np.testing.assert_allclose(archive["geometry/norm"], np.linalg.norm(rows, axis=1), rtol=1e-5)
    count = len(rows)
    assert archive["geometry/ids"].tolist() == list(range(count))
    names = (
        [str(position) for position in range(16)]
        if matrix == "positions"
        else [*map(model.tokenizer.token_text, range(31))]
    )
    assert archive.metadata.tokens == names


def test_all_components_give_the_rows_back(model: OpenModel, tmp_path: Path) -> None:
    archive = shown(model, tmp_path, components=999)
    rows = model.model.state_dict()["token_embedding.weight"].numpy()
    again = archive["geometry/points"] @ archive["geometry/components"] + archive["geometry/mean"]
    np.testing.assert_allclose(again, rows, atol=1e-5)
    assert archive["geometry/explained"].sum() == pytest.approx(1)


def test_neighbours_have_the_largest_cosines(model: OpenModel, tmp_path: Path) -> None:
    archive = shown(model, tmp_path, near="k", neighbours=5)
    rows = model.model.state_dict()["token_embedding.weight"]
    (k,) = model.tokenizer.encode("k")
    cosines = torch.cosine_similarity(rows, rows[k][None], dim=-1)
    order = [id for id in cosines.argsort(descending=True).tolist() if id != k][:5]
    assert archive["neighbours/ids"].tolist() == order
    np.testing.assert_allclose(archive["neighbours/cosine"], cosines[order], atol=1e-5)
    texts = json.loads(archive.metadata.more["texts"])
    assert texts == {str(id): model.tokenizer.token_text(id) for id in order}
    assert shown(model, tmp_path, matrix="positions", near="3", neighbours=99)["neighbours/ids"].shape == (15,)


def test_a_sample_has_the_prompt_and_the_neighbours_and_the_components_of_all(model: OpenModel, tmp_path: Path) -> None:
    whole, some = shown(model, tmp_path), None
    components = np.array(whole["geometry/components"])
    some = shown(model, tmp_path, text="z?", near="q", neighbours=2, sample=8)
    ids = some["geometry/ids"].tolist()
    assert len(ids) == 8
    assert set(model.tokenizer.encode("z?q")) | set(some["neighbours/ids"].tolist()) <= set(ids)
    assert np.array_equal(some["geometry/components"], components)
    assert any("8 of 31" in note for note in some.metadata.notes)
    assert shown(model, tmp_path, rows=[5, 2, 5])["geometry/ids"].tolist() == [2, 5]
    assert shown(model, tmp_path, matrix="positions", sample=4)["geometry/ids"].tolist() == [0, 5, 10, 15]


def test_padding_of_the_vocabulary_is_no_token(tmp_path: Path) -> None:
    archive = shown(opened(vocab_multiple=64), tmp_path)
    assert archive["geometry/ids"].shape == (31,)
    assert archive.metadata.more["rows"] == "31"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"matrix": "nose"}, "no embedding 'nose'"),
        ({"rows": [31]}, "no row 31"),
        ({"near": "no"}, "not one token"),
        ({"matrix": "positions", "near": "16"}, "no position '16'"),
        ({"components": 0}, "counted from 1"),
    ],
)
def test_wrong_questions_are_refused(model: OpenModel, values: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        shown(model, tmp_path, **values)


def test_rotary_models_have_no_position_embeddings(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no position embeddings"):
        shown(opened(position="rotary"), tmp_path, matrix="positions")


def test_iteration_finds_what_the_exact_way_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    falling = 0.8 ** torch.arange(60)
    matrix = torch.randn(300, 60, generator=generator) * falling + 2
    exact = principal_components(matrix, 5)
    values, all_of_them = singular_values(matrix, 5)
    assert exact.exact
    assert all_of_them
    assert len(values) == 60
    torch.testing.assert_close(values, torch.linalg.svdvals(matrix))
    state = torch.get_rng_state()
    monkeypatch.setattr(spectra, "_EXACT", 1)
    found = principal_components(matrix, 5)
    some, all_of_them = singular_values(matrix, 5)
    assert not found.exact
    assert not all_of_them
    torch.testing.assert_close(found.components, exact.components, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.variance, exact.variance[:5])
    assert found.total == pytest.approx(exact.total)
    torch.testing.assert_close(some.float(), values[:5])
    torch.testing.assert_close(singular_values(matrix.T, 5)[0].float(), values[:5])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("text", "is_readable"),
    [
        ("king", True),
        (" é", True),
        (" ", False),
        ("\ufffd", False),
        ("\\xc3", False),
        (".\\xe2\\x80", False),
        ("<|im_end|>", False),
        ("<", True),
    ],
)
def test_labels_are_texts_that_can_be_read(text: str, is_readable: bool) -> None:
    assert readable(text) is is_readable
