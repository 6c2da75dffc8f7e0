"""What follows a token in a run's training text, against counting it by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from bases import settings_for
from fakes import CancelAfter
from small_runs import new_run, train_here

from llmlab.core.config import with_values
from llmlab.core.errors import Cancelled
from llmlab.core.mystery_settings import MysterySettings
from llmlab.core.progress import quiet
from llmlab.core.run_settings import RunSettings
from llmlab.data.dataset import load_dataset, saved_training_tokens
from llmlab.data.sharded_tokens import ShardedTokens, Tokens
from llmlab.jobs.launcher import create_run
from llmlab.models import bigrams as module
from llmlab.models.bigrams import Bigrams, bigrams_of
from llmlab.models.generation import next_tokens
from llmlab.models.model import OpenModel
from llmlab.models.reference import ModelFolder, SavedRun
from llmlab.models.source import open_model

VOCAB = 7


@pytest.fixture
def tokens() -> np.ndarray:
    return np.random.default_rng(3).integers(0, VOCAB - 1, 101).astype(np.uint16)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    trained = train_here(new_run(tmp_path_factory.mktemp("bigrams"), 5, data__tokenizer="char"))
    return SavedRun(trained, str(trained.path))


@pytest.fixture(scope="module")
def opened(run: SavedRun) -> OpenModel:
    return open_model(run, run.run.path.parent)


@pytest.mark.parametrize("block", [1, 7, 100, 101, 1000])
@pytest.mark.parametrize("cuts", [[], [1, 40, 41]])
def test_followers_are_the_pairs_of_the_text_in_blocks_and_shards(
    monkeypatch: pytest.MonkeyPatch, tokens: np.ndarray, block: int, cuts: list[int]
) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    pairs = Counter(pairwise(tokens.tolist()))
    text: Tokens = ShardedTokens(np.split(tokens, cuts)) if cuts else tokens
    bigrams = Bigrams(text, VOCAB)
    for last in (0, 1, 0, VOCAB - 1):
        assert bigrams.followers(last).tolist() == [pairs[last, id] for id in range(VOCAB)]


def test_of_a_larger_text_the_beginning_is_counted(monkeypatch: pytest.MonkeyPatch, tokens: np.ndarray) -> None:
    p = np.full(VOCAB, 1 / VOCAB)
    whole = Bigrams(tokens, VOCAB).beside(p, [0], 2, str)
    monkeypatch.setattr(module, "_MOST_TOKENS", 50)
    first = Bigrams(tokens, VOCAB).beside(p, [0], 2, str)
    assert whole is not None
    assert first is not None
    assert (whole.beginning, first.beginning) == (0, 50)
    assert first.occurrences == tokens[:49].tolist().count(2) < whole.occurrences


def test_shares_and_their_overlap_with_a_model(tokens: np.ndarray) -> None:
    bigrams = Bigrams(tokens, VOCAB)
    shares = bigrams.followers(1) / bigrams.followers(1).sum()
    same, other = (bigrams.beside(p, range(VOCAB), 1, str) for p in (shares, np.eye(VOCAB)[3]))
    assert same is not None
    assert other is not None
    assert sum(same.shares) == pytest.approx(1) == same.overlap
    assert other.overlap == other.shares[3]
    assert list(other.most) == [(str(id), shares[id]) for id in sorted(range(VOCAB), key=lambda id: -shares[id])[:3]]
    never = bigrams.beside(shares, [0], VOCAB - 1, str)
    assert never is not None
    assert (never.occurrences, never.shares, never.overlap) == (0, (), 0.0)
    assert Bigrams(tokens, 3).beside(shares, [0], 1, str) is None  # ids beyond the vocabulary


def test_a_cancelled_count_is_not_kept(monkeypatch: pytest.MonkeyPatch, tokens: np.ndarray) -> None:
    monkeypatch.setattr(module, "_BLOCK", 10)
    bigrams = Bigrams(tokens, VOCAB)
    with pytest.raises(Cancelled):
        bigrams.followers(1, CancelAfter(3))
    assert bigrams.followers(1).sum() == tokens[:-1].tolist().count(1)


def test_a_run_has_those_of_its_training_split_alone(run: SavedRun, opened: OpenModel) -> None:
    settings = run.run.info().settings
    data = load_dataset(settings.data, settings.model.block_size, quiet)
    pairs = Counter(pairwise(data.train.tolist()))
    last = opened.tokenizer.encode("e")[0]
    bigrams = bigrams_of(run, opened)
    assert isinstance(bigrams, Bigrams)
    found = next_tokens(opened, "the", 5, bigrams=bigrams).bigrams
    assert found is not None
    count = sum(times for pair, times in pairs.items() if pair[0] == last)
    assert (found.last, found.occurrences, found.beginning) == ("e", count, 0)
    texts = [text for text, _ in next_tokens(opened, "the", 5).top]
    assert list(found.shares) == [pairs[last, opened.tokenizer.encode(text)[0]] / count for text in texts]


def test_what_is_not_the_text_that_was_trained_on_has_none(run: SavedRun, opened: OpenModel, tmp_path: Path) -> None:
    settings, key = run.run.info().settings, opened.tokenizer.key()
    assert saved_training_tokens(settings.data, key, "") is not None
    assert saved_training_tokens(settings.data, key, "of another text") is None
    assert saved_training_tokens(settings.data, "another tokenizer", "") is None
    mixed = replace(settings.data, corpus="tiny:0.5,shakespeare:0.5")
    assert saved_training_tokens(mixed, key, "") is None
    folder = ModelFolder(tiny_models.save(tiny_models.gpt2(), tmp_path))
    hub = open_model(folder, tmp_path)
    assert bigrams_of(folder, hub) == ""
    assert next_tokens(hub, "the", 3).bigrams is None


def test_why_a_run_has_none_is_said(run: SavedRun, opened: OpenModel, tmp_path: Path) -> None:
    def why(settings: RunSettings) -> Bigrams | str:
        made = create_run(tmp_path, settings, name=f"run-{len(list(tmp_path.glob('*/*')))}")
        return bigrams_of(SavedRun(made, "r"), opened)

    scratch = run.run.info().settings
    mixed = replace(scratch, data=replace(scratch.data, corpus="tiny:0.5,shakespeare:0.5"))
    assert "a mixture" in str(why(mixed))
    assert "not trained from scratch" in str(why(settings_for(f"{run.run.path}@final")))
    mysteries = [with_values(MysterySettings(), {"data.corpus": text}) for text in ("tiny", mixed.data.corpus)]
    assert {why(one) for one in mysteries} == {"a mystery does not show what it read"}
    assert "not here any more" in str(why(scratch))  # it never began
