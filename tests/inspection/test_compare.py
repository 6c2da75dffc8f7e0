"""Comparing two models: nothing differs from itself, and every number is what its definition gives."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_models import CHARACTERS, opened
from small_models import lively, shape

from llmlab.anatomy.capture import run
from llmlab.core.errors import Cancelled, LabError, UsageError
from llmlab.core.progress import Progress, quiet
from llmlab.data.tokenizers import BpeTokenizer
from llmlab.inspection.answers import answer_question
from llmlab.inspection.archive import Archive, Metadata, read_archive, write_archive
from llmlab.inspection.compare import Compare, Opener, character_ends, compare_opened, divergence
from llmlab.inspection.differences import compare_archives, cosine, linear_cka, text_ends
from llmlab.inspection.questions import from_values
from llmlab.models.model import OpenModel

PROMPT = "the king said"
WHAT = ("attention", "residual")


class Pieces(BpeTokenizer):
    """Merges of its own, for models that know no beginning of a text."""

    beginning = None


def opening(seed: int = 0, **changes: Any) -> Opener:
    return lambda progress: opened(seed, double=False, name=f"model {seed}", **({"block_size": 16} | changes))


def reading(merges: list[tuple[str, str]], seed: int = 0) -> Opener:
    def open_it(progress: Progress) -> OpenModel:
        tokenizer = Pieces(merges)
        model = lively(shape(block_size=32), tokenizer.vocab_size, seed)
        return OpenModel("merged", "merged", "scratch", model, tokenizer)

    return open_it


def compared(folder: Path, a: Opener, b: Opener, **asked: Any) -> Archive:
    compare_opened(a, b, Compare(**({"text": PROMPT, "what": WHAT} | asked)), folder / "comparison")
    return read_archive(folder / "comparison")


def inspected(folder: Path, open_it: Opener, **asked: Any) -> Archive:
    answer_question(open_it(quiet), "inspect", {"text": PROMPT, "what": list(WHAT)} | asked, folder / "seen")
    return read_archive(folder / "seen")


def test_a_model_compared_with_itself_differs_in_nothing(tmp_path: Path) -> None:
    archive = compared(tmp_path, opening(), opening(), what=(*WHAT, "heads"))
    names = set(archive)
    assert {"difference/attention/1", "difference/residual/post_attn", "difference/heads/entropy"} <= names
    for name in names:
        if name.startswith("difference/"):
            assert not archive[name].any(), name
        elif name.startswith(("cosine/", "cka/")):
            assert (archive[name] == 1).all(), name
    assert not archive["kl"].any()
    assert archive["a/ids"].tolist() == archive["b/ids"].tolist()
    assert archive.metadata.notes == inspected(tmp_path, opening(), what=[*WHAT, "heads"]).metadata.notes


def test_differences_are_a_minus_b_at_every_point(tmp_path: Path) -> None:
    archive = compared(tmp_path, opening(1), opening(2))
    (tmp_path / "one").mkdir()
    a, b = inspected(tmp_path, opening(1)), inspected(tmp_path / "one", opening(2))
    assert {f"difference/{name}" for name in a} == {name for name in archive if name.startswith("difference/")}
    for name in a:
        assert np.array_equal(archive[f"difference/{name}"], a[name] - b[name]), name
    for point in ("pre_attn", "attn_out", "post_attn", "mlp_out", "post_ffn"):
        x, y = a[f"residual/{point}"], b[f"residual/{point}"]
        expected = torch.cosine_similarity(torch.tensor(x), torch.tensor(y), dim=-1)
        np.testing.assert_allclose(archive[f"cosine/residual/{point}"], expected, atol=1e-5)
        assert archive[f"cka/{point}"].shape == (2,)
        assert archive[f"cka/{point}"][1] == pytest.approx(linear_cka(x[1], y[1]))
    assert archive["cka/final"].shape == (1,)
    about = archive.metadata
    assert (about.kind, about.model, about.more["model_b"]) == ("comparison", "model 1", "model 2")
    assert from_values(Compare, about.question) == Compare(text=PROMPT)


def test_kl_and_likeliest_tokens_are_those_of_the_logits(tmp_path: Path) -> None:
    archive = compared(tmp_path, opening(1), opening(2), top=3)
    logits = []
    for seed in (1, 2):
        model = opening(seed)(quiet)
        logits.append(run(model.model, model.anatomy, model.tokenizer.encode(PROMPT))[0].double())
    p, q = (each.log_softmax(-1) for each in logits)
    np.testing.assert_allclose(archive["kl"], (p.exp() * (p - q)).sum(-1), rtol=1e-4)
    for name, each in zip("ab", logits, strict=True):
        assert archive[f"{name}/ids"].tolist() == each.topk(3).indices.tolist()
    texts = json.loads(archive.metadata.more["texts_b"])
    assert texts == {str(id): sorted(CHARACTERS)[id] for id in np.unique(archive["b/ids"])}


def test_a_padded_vocabulary_does_not_count(tmp_path: Path) -> None:
    archive = compared(tmp_path, opening(1, vocab_multiple=64), opening(1, vocab_multiple=64))
    assert not archive["kl"].any()


def test_one_model_is_in_memory_at_a_time(tmp_path: Path) -> None:
    living: list[weakref.ref[torch.nn.Module]] = []

    def open_it(progress: Progress) -> OpenModel:
        assert not [model for model in living if model() is not None]
        model = opening(len(living))(progress)
        living.append(weakref.ref(model.model))
        return model

    compared(tmp_path, open_it, open_it)
    gc.collect()
    assert [model() for model in living] == [None, None]


def test_different_tokens_are_refused_before_the_second_pass(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tokenize the prompt differently") as caught:
        compared(tmp_path, opening(), reading([("t", "h")]))
    assert "13" in caught.value.why
    assert "12" in caught.value.why
    assert "token 0 is 't'" in caught.value.why
    assert "'th'" in caught.value.why
    assert list(tmp_path.iterdir()) == []


def test_different_tokens_are_compared_where_they_end_together(tmp_path: Path) -> None:
    merges = [("t", "h"), ("th", "e"), ("i", "n"), ("Ġ", "k"), ("s", "a")]
    archive = compared(tmp_path, reading(merges, 1), reading(merges[:2], 2), align=True)
    # the| k|in|g| |sa|i|d against the| |k|i|n|g| |s|a|i|d: A's ends 3 5 7 8 9 11 12 13 are all B's too
    pairs = [[0, 0], [1, 2], [2, 4], [3, 5], [4, 6], [5, 8], [6, 9], [7, 10]]
    assert json.loads(archive.metadata.more["alignment"]) == pairs
    assert json.loads(archive.metadata.more["tokens_b"]) == ["the", "k", "n", "g", " ", "a", "i", "d"]
    (tmp_path / "one").mkdir()
    a, b = inspected(tmp_path, reading(merges, 1)), inspected(tmp_path / "one", reading(merges[:2], 2))
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    assert np.array_equal(
        archive["difference/residual/mlp_out"], a["residual/mlp_out"][:, ours] - b["residual/mlp_out"][:, theirs]
    )
    expected = a["attention/1"][:, ours][:, :, ours] - b["attention/1"][:, theirs][:, :, theirs]
    assert np.array_equal(archive["difference/attention/1"], expected)
    assert "kl" not in archive
    assert any("different vocabularies" in note for note in archive.metadata.notes)
    assert any("8 pairs" in note for note in archive.metadata.notes)


def test_other_depths_and_heads_are_compared_as_far_as_both_go(tmp_path: Path) -> None:
    archive = compared(tmp_path, opening(n_layer=3), opening(n_head=2))
    assert archive["difference/attention/0"].shape == (2, 13, 13)
    assert "difference/attention/2" not in archive
    assert archive["difference/residual/pre_attn"].shape == (2, 13, 32)
    notes = " ".join(archive.metadata.notes)
    assert "2 layers and the other 3" in notes
    assert "2 heads a layer and the other 4" in notes


def test_other_widths_have_patterns_cka_and_kl_alone(tmp_path: Path) -> None:
    archive = compared(tmp_path, opening(n_embd=32), opening(n_embd=16))
    assert {name.partition("/")[0] for name in archive} == {"difference", "cka", "kl", "a", "b"}
    assert not [name for name in archive if name.startswith("difference/residual")]
    assert (archive["cka/pre_attn"] > 0).all()
    assert any("32" in note and "16" in note for note in archive.metadata.notes)


def test_saved_inspections_are_compared_without_their_models(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        inspected(tmp_path / name, opening(seed))
    compare_archives(tmp_path / "a/seen", tmp_path / "b/seen", tmp_path / "out")
    archive, live = read_archive(tmp_path / "out"), compared(tmp_path, opening(1), opening(2))
    for name in archive:
        assert np.array_equal(archive[name], live[name]), name
    compare_archives(tmp_path / "a/seen", tmp_path / "a/seen", tmp_path / "same", align=True)
    same = read_archive(tmp_path / "same")
    assert not any(same[name].any() for name in same if name.startswith("difference/"))


def test_saved_inspections_of_other_tokens_are_refused_or_aligned(tmp_path: Path) -> None:
    for name, text in (("a", PROMPT), ("b", "the king slept")):
        (tmp_path / name).mkdir()
        inspected(tmp_path / name, opening(), text=text)
    with pytest.raises(UsageError, match="tokenize the prompt differently"):
        compare_archives(tmp_path / "a/seen", tmp_path / "b/seen", tmp_path / "out")
    with pytest.raises(UsageError, match="cannot be aligned"):
        compare_archives(tmp_path / "a/seen", tmp_path / "b/seen", tmp_path / "out", align=True)
    write_archive(tmp_path / "other", {"pattern": np.zeros((2, 2))}, Metadata("pattern", "m", ""))
    with pytest.raises(UsageError, match="not an inspection"):
        compare_archives(tmp_path / "a/seen", tmp_path / "other", tmp_path / "out")
    with pytest.raises(LabError):
        compare_archives(tmp_path / "a/seen", tmp_path / "missing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_foreign_tensors_are_left_out_and_foreign_tokens_refused(tmp_path: Path) -> None:
    about = Metadata("inspection", "m", "", [1, 2], ["a", "b"])
    good = {"heads/entropy": np.ones((2, 2)), "attention/0": np.ones((2, 2, 2))}
    write_archive(tmp_path / "a", good, about)
    write_archive(tmp_path / "b", good | {"attention/0": np.ones((2, 3, 3)), "heads/first": np.ones(7)}, about)
    compare_archives(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    assert list(read_archive(tmp_path / "out")) == ["difference/heads/entropy"]
    write_archive(tmp_path / "b", {"other": np.ones(2)}, about)
    with pytest.raises(LabError, match="share nothing"):
        compare_archives(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    write_archive(tmp_path / "b", good, Metadata("inspection", "m", "", [1, 2], ["a"]))
    with pytest.raises(LabError, match="damaged"):
        compare_archives(tmp_path / "a", tmp_path / "b", tmp_path / "out")


def test_saved_inspections_of_one_text_are_aligned_from_its_end(tmp_path: Path) -> None:
    merges = [("t", "h"), ("th", "e"), ("i", "n")]
    for name, open_it in (("a", reading(merges, 1)), ("b", reading(merges[:2], 2))):
        (tmp_path / name).mkdir()
        inspected(tmp_path / name, open_it)
    compare_archives(tmp_path / "a/seen", tmp_path / "b/seen", tmp_path / "out", align=True)
    live = compared(tmp_path, reading(merges, 1), reading(merges[:2], 2), align=True)
    archive = read_archive(tmp_path / "out")
    assert archive.metadata.more["alignment"] == live.metadata.more["alignment"]
    assert np.array_equal(archive["difference/attention/1"], live["difference/attention/1"])
    assert text_ends(["<s>", "ab", "", "c"]) == {-3: 0, -1: 2, 0: 3}
    assert text_ends(["abc"]) == {0: 0}


def test_tokens_that_do_not_read_back_as_the_prompt_are_aligned_with_nothing(tmp_path: Path) -> None:
    class Lowering(Pieces):
        def decode(self, ids: Sequence[int]) -> str:
            return super().decode(ids).lower()

    def lowering(progress: Progress) -> OpenModel:
        tokenizer = Lowering([("i", "n")])
        return OpenModel("low", "low", "scratch", lively(shape(block_size=32), tokenizer.vocab_size), tokenizer)

    with pytest.raises(UsageError, match="cannot be aligned"):
        compared(tmp_path, reading([]), lowering, text="The king", align=True)
    ends = character_ends(reading([])(quiet), Compare(text="a €uro"), Pieces([]).encode("a €uro"))
    assert ends == {1: 0, 2: 1, 3: 4, 4: 5, 5: 6, 6: 7}  # the sign is three tokens: only the last one ends it


def test_cancelling_leaves_nothing_behind(tmp_path: Path) -> None:
    def progress(what: str, done: float, total: float) -> None:
        if what == "Comparing":
            raise Cancelled

    with pytest.raises(Cancelled):
        compare_opened(opening(1), opening(2), Compare(text=PROMPT), tmp_path / "out", progress)
    assert list(tmp_path.iterdir()) == []


def test_cka_is_blind_to_rotation_and_scale_and_to_nothing_else() -> None:
    random = np.random.default_rng(0)
    for time in (5, 60):  # fewer tokens than channels, and more
        x, y = random.normal(size=(time, 20)), random.normal(size=(time, 12))
        turn = np.linalg.qr(random.normal(size=(20, 20)))[0]
        assert linear_cka(x, 3 * x @ turn + 7) == pytest.approx(1)
        xc, yc = x - x.mean(0), y - y.mean(0)
        norm = np.linalg.norm
        assert linear_cka(x, y) == pytest.approx(norm(yc.T @ xc) ** 2 / norm(xc.T @ xc) / norm(yc.T @ yc))
        assert linear_cka(x, y) < 0.95
    assert np.isnan(linear_cka(np.ones((1, 3)), np.ones((1, 3))))


def test_cosines_of_equal_vectors_are_one_and_of_nothing_undefined() -> None:
    x = np.array([[1, 2], [0, 0], [1, 0], [0, 0]], dtype=np.float32)
    y = np.array([[1, 2], [0, 0], [0, 1], [3, 0]], dtype=np.float32)
    assert cosine(x, y)[:3].tolist() == [pytest.approx(1), 1, 0]
    assert np.isnan(cosine(x, y)[3])


def test_a_divergence_is_zero_only_between_equals() -> None:
    row = np.array([0.0, 1.0, 100.0], dtype=np.float32)
    assert divergence(row, row) == 0
    assert divergence(row, row + 3) == pytest.approx(0, abs=1e-12)
    assert divergence(row, -row) == pytest.approx(100 + np.log(1 + np.exp(-1)))


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UsageError, match="no 'lens'"):
        compare_opened(opening(), opening(), Compare(text=PROMPT, what=("lens",)), Path("nowhere"))
