"""Tokenizers of every make, read with all their spaces: token texts join to the text that was cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from llmlab.data.hf_tokenizer import HuggingFaceTokenizer, load_tokenizer
from llmlab.data.tokenizers import CharTokenizer, save_hf_tokenizer

TEXT = "the king said: the thing, the kings sing"
SPECIAL = ["<unk>", "<s>", "</s>"]


def byte_level(folder: Path) -> HuggingFaceTokenizer:
    """GPT-2's way."""
    save_hf_tokenizer(tiny_models.TOKENIZER, folder)
    loaded = load_tokenizer(folder, "tiny")
    assert isinstance(loaded, HuggingFaceTokenizer)
    return loaded


def sentencepiece(*, unigram: bool, adds_bos: bool = False) -> HuggingFaceTokenizer:
    """Llama's way (BPE with bytes to fall back on) or T5's (Unigram with Metaspace)."""
    if unigram:
        pipeline = Tokenizer(models.Unigram())
        pipeline.pre_tokenizer = pre_tokenizers.Metaspace()
        pipeline.decoder = decoders.Metaspace()
        pipeline.train_from_iterator(
            [TEXT],
            trainers.UnigramTrainer(vocab_size=60, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False),
        )
    else:
        pieces = [
            *SPECIAL,
            *(f"<0x{byte:02X}>" for byte in range(256)),
            "▁",
            *sorted(set(TEXT) - {" "}),
            "th",
            "the",
            "▁the",
        ]
        vocabulary = {piece: id for id, piece in enumerate(pieces)}
        merges = [("t", "h"), ("th", "e"), ("▁", "the")]
        pipeline = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        pipeline.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        pipeline.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    if adds_bos:
        pipeline.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return HuggingFaceTokenizer(
        PreTrainedTokenizerFast(tokenizer_object=pipeline, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    )


def texts(tokenizer: HuggingFaceTokenizer, text: str) -> list[str]:
    return [tokenizer.token_text(id) for id in tokenizer.encode(text)]


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_byte_level_ids_give_the_text_back(byte_tokenizer: HuggingFaceTokenizer, text: str) -> None:
    ids = byte_tokenizer.encode(text)
    if "<|endoftext|>" not in text:
        assert ids == tiny_models.TOKENIZER.encode(text)
    assert byte_tokenizer.decode(ids) == text


@pytest.fixture(scope="module")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceTokenizer:
    return byte_level(tmp_path_factory.mktemp("bytes"))


def test_byte_level_pieces_keep_their_spaces(byte_tokenizer: HuggingFaceTokenizer) -> None:
    assert texts(byte_tokenizer, "the king  the\n") == ["the", " king", " ", " the", "\n"]
    assert texts(byte_tokenizer, "é") == [r"\xc3", r"\xa9"]  # as the lab's own say it
    assert "".join(texts(byte_tokenizer, TEXT)) == TEXT


def test_special_tokens_are_shown_as_they_are_written(byte_tokenizer: HuggingFaceTokenizer) -> None:
    end = tiny_models.TOKENIZER.end_of_text
    assert end is not None
    assert byte_tokenizer.token_text(end) == "<|endoftext|>"
    assert byte_tokenizer.beginning == end
    assert not byte_tokenizer.adds_bos
    assert end not in byte_tokenizer.encode("the")


@pytest.mark.parametrize("unigram", [True, False])
def test_sentencepiece_spaces_are_spaces(unigram: bool) -> None:
    tokenizer = sentencepiece(unigram=unigram)
    assert "".join(texts(tokenizer, TEXT)) == f" {TEXT}"
    assert tokenizer.decode(tokenizer.encode(TEXT)).strip() == TEXT


def test_sentencepiece_bytes_are_characters_only_where_they_are_whole() -> None:
    tokenizer = sentencepiece(unigram=False)
    assert texts(tokenizer, "Zé") == [" ", "Z", r"\xc3", r"\xa9"]
    assert tokenizer.decode(tokenizer.encode("Zé")) == "Zé"


def test_a_beginning_that_a_tokenizer_adds_is_known_and_not_added_here() -> None:
    tokenizer = sentencepiece(unigram=False, adds_bos=True)
    assert tokenizer.adds_bos
    assert tokenizer.beginning == 1
    assert 1 not in tokenizer.encode("the")


def test_a_vocabulary_of_characters_is_shown_as_it_is(tmp_path: Path) -> None:
    save_hf_tokenizer(CharTokenizer("abc \n"), tmp_path)
    tokenizer = load_tokenizer(tmp_path, "characters")
    assert [tokenizer.token_text(id) for id in tokenizer.encode("a b\nc")] == list("a b\nc")
    assert tokenizer.beginning is None


def test_words_and_their_parts_of_bert_are_pieces() -> None:
    pipeline = Tokenizer(models.WordPiece({"[UNK]": 0, "[CLS]": 1, "king": 2, "##s": 3}, unk_token="[UNK]"))
    pipeline.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), behavior="removed")
    pipeline.decoder = decoders.WordPiece()
    pipeline.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    plain = PreTrainedTokenizerFast(tokenizer_object=pipeline, unk_token="[UNK]", cls_token="[CLS]")
    tokenizer = HuggingFaceTokenizer(plain)
    assert texts(tokenizer, "kings") == ["king", "##s"]
    assert tokenizer.beginning == 1
    assert tokenizer.adds_bos


def test_ids_that_no_token_has_are_shown_by_their_number(byte_tokenizer: HuggingFaceTokenizer) -> None:
    for id in (10**6, tiny_models.TOKENIZER.vocab_size, 2**40):
        assert byte_tokenizer.token_text(id) == f"<{id}>"


def test_added_words_with_spaces_in_them_keep_them(tmp_path: Path) -> None:
    save_hf_tokenizer(tiny_models.TOKENIZER, tmp_path)
    plain = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    plain.add_tokens([AddedToken("    ", normalized=False), AddedToken("é日", normalized=False)])
    tokenizer = HuggingFaceTokenizer(plain)
    assert texts(tokenizer, "the    é日") == ["the", "    ", "é日"]
