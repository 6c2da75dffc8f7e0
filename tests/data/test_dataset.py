"""The two splits: what they hold, that they share nothing, and what they cost someone who only counts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from fakes import CancelAfter

from llmlab.core.errors import Cancelled, LabError, UsageError
from llmlab.core.progress import quiet
from llmlab.core.settings import DataSettings
from llmlab.data import dataset as dataset_module
from llmlab.data.dataset import Dataset, KnownLosses, known_losses, load_dataset
from llmlab.data.sharded_tokens import MixedTokens
from llmlab.data.tokenizers import Gpt2Tokenizer


def load(block_size: int = 64, **values: object) -> Dataset:
    data = DataSettings(**values)
    return load_dataset(data, block_size, quiet)


@pytest.fixture
def three_files(tmp_path: Path) -> Path:
    """Documents of 10, 20 and 30 GPT-2 tokens."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, (name, word) in enumerate([("a", " red"), ("b", " green"), ("c", " blue")], start=1):
        (folder / f"{name}.txt").write_text(word * (10 * number))
    return folder


def test_the_splits_are_the_corpus_cut_in_two() -> None:
    dataset = load(corpus="tiny", val_fraction=0.2)
    both = np.concatenate([dataset.train, dataset.val])
    assert len(dataset.val) == round(0.2 * len(both))
    text = dataset.tokenizer.decode(both.tolist())
    assert text.startswith("PRIDE AND PREJUDICE")
    assert Gpt2Tokenizer().encode(text) == both.tolist()


def test_documents_are_held_out_whole(three_files: Path) -> None:
    for fraction, held_out in [(0.1, 30), (0.48, 30), (0.5, 20 + 1 + 30)]:
        dataset = load(5, corpus=str(three_files), split="documents", val_fraction=fraction)
        assert len(dataset.val) == held_out
        assert len(dataset.train) + held_out == 62
        assert dataset.train[-1] == dataset.tokenizer.end_of_text
        assert dataset.tokenizer.end_of_text not in dataset.val[:20]


def test_one_document_cannot_be_split_by_documents() -> None:
    with pytest.raises(LabError, match="cannot be split by documents"):
        load(corpus="tiny", split="documents")


@pytest.mark.parametrize("kind", ["gpt2", "char", "compact", "bpe"])
def test_the_unigram_loss_is_the_cross_entropy_of_training_frequencies(kind: str) -> None:
    dataset = load(corpus="tiny", tokenizer=kind, bpe_vocab_size=500)
    counts = Counter(dataset.train.tolist())
    total = len(dataset.train) + dataset.tokenizer.vocab_size
    by_hand = -sum(math.log((counts[id] + 1) / total) for id in dataset.val.tolist()) / len(dataset.val)
    assert dataset.unigram_loss == pytest.approx(by_hand, rel=1e-9)
    assert dataset.unigram_loss < math.log(dataset.tokenizer.vocab_size)
    again = load(corpus="tiny", tokenizer=kind, bpe_vocab_size=500)
    assert again.unigram_loss == dataset.unigram_loss
    # Both losses of guessing are known without a run; of a split that nobody asked for, too.
    data = DataSettings(corpus="tiny", tokenizer=kind, bpe_vocab_size=500)
    assert known_losses(data, quiet) == KnownLosses(dataset.tokenizer.vocab_size, dataset.unigram_loss)
    known = known_losses(replace(data, val_fraction=0.31), quiet)
    other = load(corpus="tiny", tokenizer=kind, bpe_vocab_size=500, val_fraction=0.31)
    assert known == KnownLosses(other.tokenizer.vocab_size, other.unigram_loss)


def test_what_takes_reading_the_text_is_not_known_before(three_files: Path) -> None:
    data = DataSettings(corpus=str(three_files), tokenizer="char")
    assert known_losses(data, quiet) == KnownLosses()
    assert known_losses(replace(data, tokenizer="gpt2"), quiet) == KnownLosses(50257)
    letters = load(5, corpus=str(three_files), tokenizer="char")
    assert known_losses(data, quiet) == KnownLosses(letters.tokenizer.vocab_size, letters.unigram_loss)
    with pytest.raises(Cancelled):
        known_losses(replace(data, val_fraction=0.3), CancelAfter(3))
    (three_files / "a.txt").write_text(" pink" * 10)
    assert known_losses(data, quiet) == KnownLosses()  # another text


@pytest.mark.parametrize("kind", ["gpt2", "char", "compact", "bpe"])
def test_bytes_per_token_times_tokens_are_the_text_whatever_cuts_it(kind: str, three_files: Path) -> None:
    dataset = load(corpus="tiny", tokenizer=kind, bpe_vocab_size=500)
    text = dataset.tokenizer.decode(dataset.val.tolist())
    assert dataset.bytes_per_token * len(dataset.val) == pytest.approx(len(text.encode()))
    assert load(corpus="tiny", tokenizer=kind, bpe_vocab_size=500).bytes_per_token == dataset.bytes_per_token
    two = load(5, corpus=str(three_files), tokenizer=kind, split="documents", val_fraction=0.5)
    assert two.bytes_per_token * len(two.val) == pytest.approx(len(" green" * 20 + "\n\n" + " blue" * 30))


def test_a_real_text_has_no_floor() -> None:
    assert load(corpus="tiny").floor_loss is None


def test_the_key_depends_on_all_that_a_resume_depends_on(three_files: Path) -> None:
    keys = [
        load(5, corpus=str(three_files)).key,
        load(5, corpus=str(three_files), val_fraction=0.2).key,
        load(5, corpus=str(three_files), tokenizer="char").key,
        load(5, corpus=str(three_files), max_tokens=60).key,
    ]
    (three_files / "a.txt").write_text(" pink" * 10)
    keys.append(load(5, corpus=str(three_files)).key)
    assert len(set(keys)) == 5
    (three_files / "a.txt").write_text(" red" * 10)
    assert load(5, corpus=str(three_files)).key == keys[0]


def test_a_corpus_that_is_too_short_says_how_short(three_files: Path) -> None:
    with pytest.raises(LabError, match=r"62 tokens are split in 56 and 6.*needs 65 of each.*to 5 or less"):
        load(64, corpus=str(three_files))
    assert len(load(5, corpus=str(three_files)).val) == 6


def test_max_tokens_limits_both_splits_together() -> None:
    dataset = load(corpus="shakespeare", max_tokens=5000)
    assert (len(dataset.train), len(dataset.val)) == (4500, 500)


@pytest.mark.parametrize("kind", ["char", "compact", "bpe"])
def test_a_vocabulary_is_made_of_the_part_that_is_read(kind: str) -> None:
    part = load(corpus="austen", tokenizer=kind, max_tokens=4000)
    assert len(part.train) + len(part.val) == 4000
    text = part.tokenizer.decode(np.concatenate([part.train, part.val]).tolist())
    assert text.startswith("NORTHANGER ABBEY")
    if kind == "compact":
        assert part.tokenizer.vocab_size < 3000


def test_cancelling_while_the_vocabulary_is_learned_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path))
    for kind in ("char", "compact", "bpe"):
        with pytest.raises(Cancelled):
            load_dataset(DataSettings(corpus="tiny", tokenizer=kind), 64, CancelAfter())
    assert not list(tmp_path.rglob("*.json"))


def test_an_unknown_corpus_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean shakespeare"):
        load(corpus="shakespear")


def test_a_mixture_splits_each_source_and_counts_them_by_their_weights(
    three_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = three_files / "c.txt"
    mixed = load(4, corpus=f"tiny:3,{other}:1", val_fraction=0.2)
    parts = [load(4, corpus=name, val_fraction=0.2) for name in ("tiny", str(other))]
    assert mixed.sources[1] == "c.txt"
    assert isinstance(mixed.train, MixedTokens)
    assert mixed.train.weights == [Fraction(3, 4), Fraction(1, 4)]
    for ours, theirs in [(mixed.train, [p.train for p in parts]), (mixed.val, [p.val for p in parts])]:
        assert np.asarray(ours).tolist() == np.concatenate([np.asarray(each) for each in theirs]).tolist()
    assert mixed.bytes_per_token == pytest.approx(0.75 * parts[0].bytes_per_token + 0.25 * parts[1].bytes_per_token)
    size, loss = mixed.tokenizer.vocab_size, 0.0
    shares = [(np.bincount(np.asarray(part.train), minlength=size) + 1) / (len(part.train) + size) for part in parts]
    for weight, part in ((0.75, parts[0]), (0.25, parts[1])):
        known = 0.75 * shares[0] + 0.25 * shares[1]
        loss -= weight * np.log(known[np.asarray(part.val)]).mean()
    assert mixed.unigram_loss == pytest.approx(loss)
    monkeypatch.setattr(dataset_module, "_mixed_unigram_loss", lambda *_: pytest.fail("counted again"))
    assert load(4, corpus=f"tiny:3,{other}:1", val_fraction=0.2).unigram_loss == mixed.unigram_loss
    monkeypatch.undo()
    assert load(4, corpus=f"tiny:1,{other}:1", val_fraction=0.2).key != mixed.key
    few = load(4, corpus=f"{other}:3,tiny:1", tokenizer="char", max_tokens=60)  # one vocabulary of both
    assert len(few.train) + len(few.val) == 120


@pytest.mark.parametrize(
    ("corpus", "said"),
    [
        ("tiny:0,austen:1", "weight of a mixture is 0"),
        ("tiny:1,tiny:2", "names a corpus twice"),
        ("tiny:0.333333,austen:0.666668", "too fine"),
        ("tiny:1,austin:1", "Did you mean austen"),
        ("tiny,austen", "There is no corpus 'tiny,austen'"),
    ],
)
def test_what_is_no_mixture_is_named(corpus: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(corpus=corpus)


def test_a_folder_with_a_comma_is_no_part_of_a_mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a,b").mkdir()
    (tmp_path / "a,b" / "c.txt").write_text("text")
    monkeypatch.chdir(tmp_path / "a,b")  # the run would be told the whole path
    with pytest.raises(UsageError, match=r"c.txt cannot be part of a mixture. A comma ends a name"):
        load(corpus="c.txt:1,tiny:1")
