"""Text to ids and back, for the four tokenizers."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab.core.errors import LabError
from llmlab.core.progress import quiet
from llmlab.core.settings import DataSettings
from llmlab.data.build_tokenizer import build_tokenizer
from llmlab.data.corpora import find_corpus
from llmlab.data.gpt2_vocabulary import END_OF_TEXT, gpt2_encoding, gpt2_merges
from llmlab.data.tokenizers import (
    BpeTokenizer,
    CharTokenizer,
    CompactTokenizer,
    Gpt2Tokenizer,
    Tokenizer,
    save_hf_tokenizer,
    tokenizer_from_json,
)

KINDS = ("gpt2", "char", "compact", "bpe")
ANY_TEXT = ("gpt2", "compact", "bpe")
# Texts that catch tokenizers out: white space of all kinds, half-seen scripts, and the end of text in plain words.
AWKWARD = [
    "",
    " ",
    "\n\n \t\r\n",
    "  two  spaces ",
    "naïve café — “quotes”",
    "日本語と😀",
    f"a {END_OF_TEXT} b",
    "\x00\x7f\u2028\xa0",
    "don't I'LL we've",
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200) | st.sampled_from(AWKWARD)


@pytest.fixture(scope="module")
def tiny_text() -> str:
    return next(find_corpus("tiny").documents())


@pytest.fixture(scope="module")
def of_tiny() -> dict[str, Tokenizer]:
    corpus = find_corpus("tiny")
    return {
        kind: build_tokenizer(DataSettings(corpus="tiny", tokenizer=kind, bpe_vocab_size=700), corpus, quiet)
        for kind in KINDS
    }


@pytest.mark.parametrize("kind", ANY_TEXT)
@settings(max_examples=150)
@given(text=TEXT)
def test_any_text_comes_back_unchanged(of_tiny: dict[str, Tokenizer], kind: str, text: str) -> None:
    tokenizer = of_tiny[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= id < tokenizer.vocab_size for id in ids)
    assert tokenizer.end_of_text not in ids


@settings(max_examples=100)
@given(text=st.text(alphabet="abc \n…😀"))
def test_characters_come_back_unchanged(text: str) -> None:
    tokenizer = CharTokenizer("😀a\nb c…")
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.fixture(scope="module")
def library() -> Tokenizer:
    """GPT-2 by the tokenizers library, from the same merges."""
    return BpeTokenizer(gpt2_merges())


@settings(max_examples=300)
@given(text=TEXT)
def test_gpt2_agrees_with_the_tokenizers_library(library: Tokenizer, text: str) -> None:
    assert Gpt2Tokenizer().encode(text) == library.encode(text)


def test_gpt2_agrees_with_the_tokenizers_library_on_mixed_words(library: Tokenizer, tiny_text: str) -> None:
    source = random.Random(5)
    words = tiny_text.split(" ")
    text = "".join(source.choice(words) + source.choice([" ", "", "\n", "'s ", "  ", "1", "?!"]) for _ in range(20000))
    assert Gpt2Tokenizer().encode(text) == library.encode(text)


def test_the_gpt2_vocabulary_is_whole() -> None:
    tokenizer = Gpt2Tokenizer()
    assert tokenizer.vocab_size == 50257
    assert tokenizer.end_of_text == 50256
    assert len(gpt2_merges()) == 50000
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.decode(range(50256)) != ""
    assert [tokenizer.encode(byte) for byte in ("!", "A", " ", "\n")] == [[0], [32], [220], [198]]


def test_the_gpt2_vocabulary_is_built_quickly() -> None:
    gpt2_encoding.cache_clear()
    gpt2_merges.cache_clear()
    before = time.process_time()
    gpt2_encoding()
    assert time.process_time() - before < 1.0  # 0.3 s on an idle machine


@pytest.mark.parametrize("kind", KINDS)
def test_saving_and_loading_gives_the_same_tokenizer(of_tiny: dict[str, Tokenizer], kind: str, tiny_text: str) -> None:
    tokenizer = of_tiny[kind]
    again = tokenizer_from_json(tokenizer.to_json())
    assert (again.kind, again.vocab_size, again.end_of_text) == (kind, tokenizer.vocab_size, tokenizer.end_of_text)
    assert again.encode(tiny_text) == tokenizer.encode(tiny_text)
    assert again.key() == tokenizer.key()


def test_each_kind_has_a_key_of_its_own(of_tiny: dict[str, Tokenizer]) -> None:
    assert len({tokenizer.key() for tokenizer in of_tiny.values()}) == len(KINDS)


def test_only_gpt2_losses_are_comparable(of_tiny: dict[str, Tokenizer]) -> None:
    assert [kind for kind in KINDS if of_tiny[kind].comparable] == ["gpt2"]


@pytest.mark.parametrize("values", [{}, {"kind": "word"}, {"kind": "char"}, {"kind": "bpe", "merges": ["a"]}])
def test_a_damaged_saved_tokenizer_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(LabError, match="saved tokenizer"):
        tokenizer_from_json(values)


def test_char_holds_exactly_the_characters_that_occur(of_tiny: dict[str, Tokenizer], tiny_text: str) -> None:
    tokenizer = of_tiny["char"]
    assert tokenizer.vocab_size == len(set(tiny_text))
    assert tokenizer.end_of_text is None


def test_char_names_the_characters_that_it_lacks() -> None:
    with pytest.raises(LabError, match="lacks 'x', 'é'"):
        CharTokenizer("abc").encode("abxcé")


def test_compact_cuts_its_corpus_as_gpt2_does(of_tiny: dict[str, Tokenizer], tiny_text: str) -> None:
    compact, gpt2 = of_tiny["compact"], Gpt2Tokenizer()
    assert isinstance(compact, CompactTokenizer)
    gpt2_id = np.array([*range(256), *compact.gpt2_ids, gpt2.end_of_text])
    assert gpt2_id[compact.encode(tiny_text)].tolist() == gpt2.encode(tiny_text)


def test_compact_holds_what_occurs_and_what_that_is_merged_from(of_tiny: dict[str, Tokenizer], tiny_text: str) -> None:
    compact = of_tiny["compact"]
    assert isinstance(compact, CompactTokenizer)
    occurring = {id for id in Gpt2Tokenizer().encode(tiny_text) if id >= 256}
    assert occurring <= set(compact.gpt2_ids)
    pieces = [first + second for first, second in gpt2_merges()]
    parts = {part for id in compact.gpt2_ids for part in gpt2_merges()[id - 256] if len(part) > 1}
    kept = {pieces[id - 256] for id in compact.gpt2_ids}
    assert parts <= kept
    assert kept - parts <= {pieces[id - 256] for id in occurring}  # nothing is there without a reason
    assert compact.vocab_size == 256 + len(kept) + 1


def test_bpe_learns_the_same_pieces_again(
    of_tiny: dict[str, Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path))
    data = DataSettings(corpus="tiny", tokenizer="bpe", bpe_vocab_size=700)
    again = build_tokenizer(data, find_corpus("tiny"), quiet)
    assert again.to_json() == of_tiny["bpe"].to_json()
    assert again.vocab_size == 700


def test_bpe_needs_no_learned_piece() -> None:
    assert BpeTokenizer([]).vocab_size == 257
    assert BpeTokenizer([]).decode(BpeTokenizer([]).encode("any é")) == "any é"


def test_a_token_is_shown_as_text_and_half_a_character_as_bytes() -> None:
    tokenizer = Gpt2Tokenizer()
    assert tokenizer.token_text(995) == " world"
    assert tokenizer.token_text(tokenizer.encode("日")[0]).startswith("\\x")
    assert tokenizer.token_text(50256) == END_OF_TEXT
    assert BpeTokenizer([]).token_text(256) == END_OF_TEXT


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_the_exported_tokenizer_with_the_same_ids(
    of_tiny: dict[str, Tokenizer], kind: str, tiny_text: str, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = of_tiny[kind]
    save_hf_tokenizer(tokenizer, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')  # as beside exported weights
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == tokenizer.vocab_size
    assert loaded.eos_token_id == tokenizer.end_of_text
    texts = [tiny_text[:3000]] if kind == "char" else [tiny_text[:3000], *AWKWARD[:6]]
    for text in texts:
        ids = loaded(text)["input_ids"]
        assert ids == tokenizer.encode(text)
        assert loaded.decode(ids) == text
