"""An open checkpoint writes what its model and tokenizer say, character by whole character."""

from __future__ import annotations

import functools
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import pytest
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kills import events_of
from small_runs import new_run, train_here
from tokenizers import Tokenizer as Pipeline
from tokenizers import decoders, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from llmlab.core.errors import LabError
from llmlab.core.settings import Sampling
from llmlab.data.chat_formats import chat_format
from llmlab.data.examples import Example, Message
from llmlab.data.gpt2_vocabulary import byte_symbols
from llmlab.data.hf_tokenizer import HuggingFaceTokenizer, load_tokenizer
from llmlab.data.synthetic.modular import ModularSum
from llmlab.data.synthetic.tasks import TaskTokenizer
from llmlab.data.tokenizers import BpeTokenizer, Gpt2Tokenizer, TextTokenizer, save_hf_tokenizer
from llmlab.gpt.generate import NextToken
from llmlab.models import generation as writing
from llmlab.models.generation import next_tokens, unread, write
from llmlab.models.model import OpenModel
from llmlab.models.scratch import open_checkpoint
from llmlab.models.source import open_model
from llmlab.store.checkpoints import select
from llmlab.store.run_folder import RunFolder

VOCAB = 300


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    outputs = tmp_path_factory.mktemp("session")
    return train_here(new_run(outputs, 10, data__tokenizer="bpe", data__bpe_vocab_size=VOCAB, checkpoints__best=False))


@pytest.fixture(scope="module")
def opened(run: RunFolder) -> OpenModel:
    return open_checkpoint(run, select(run.checkpoints, "final"))


def _text(opened: OpenModel, prompt: str, tokens: int = 20, **how: float) -> str:
    seed = int(how.pop("seed", 3))
    drawn = write(opened, prompt, tokens, Sampling(**({"temperature": 0.9} | how)), seed=seed)
    return "".join(token.text for token in drawn)


def test_equal_seeds_write_equal_texts(opened: OpenModel) -> None:
    assert _text(opened, "the king") == _text(opened, "the king")
    assert _text(opened, "the king") != _text(opened, "the king", seed=4)


def test_a_checkpoint_writes_as_the_run_sampled_at_that_step(run: RunFolder, tmp_path: Path) -> None:
    sampled = train_here(
        new_run(
            tmp_path, 4, data__tokenizer="bpe", data__bpe_vocab_size=VOCAB, train__sample_interval=2, samples__tokens=9
        )
    )
    settings = sampled.info().settings
    opened = open_checkpoint(sampled, select(sampled.checkpoints, "final"))
    for number, sample in enumerate(events_of(sampled, "sampled")[-1]["samples"]):
        how = {"temperature": settings.samples.temperature, "top_k": settings.samples.top_k}
        assert _text(opened, sample["prompt"], 9, seed=settings.train.seed + 4 + number, **how) == sample["text"]


def test_the_next_tokens_are_the_models_distribution(opened: OpenModel) -> None:
    expected = next_tokens(opened, "the king", VOCAB)
    p = [probability for _, probability in expected.top]
    assert sum(p) == pytest.approx(1.0, abs=1e-5)
    assert p == sorted(p, reverse=True)
    assert expected.entropy == pytest.approx(-sum(q * math.log(q) for q in p), abs=1e-4)
    assert 0 < expected.entropy < math.log(VOCAB) + 1e-6
    with torch.no_grad():
        logits = opened.model(torch.tensor([opened.tokenizer.encode("the king")]))[0, -1, :VOCAB]
    assert expected.top[0][0] == opened.tokenizer.token_text(int(logits.argmax()))


def test_a_certain_model_has_no_entropy(opened: OpenModel) -> None:
    logits = torch.full((1, VOCAB), -1e4)
    logits[0, 5] = 1e4
    with mock.patch.object(opened.model, "next_token", return_value=logits):
        assert next_tokens(opened, "x", 1).entropy == 0.0


def test_an_empty_prompt_is_the_start_of_a_text(opened: OpenModel) -> None:
    assert len(_text(opened, "")) > 0
    assert next_tokens(opened, "", 3).top


def test_a_prompt_of_ten_thousand_characters_is_read_from_its_end(opened: OpenModel) -> None:
    long = "What light through yonder window breaks? " * 250
    assert _text(opened, long) == _text(opened, opened.tokenizer.decode(opened.tokenizer.encode(long)[-16:]))


def test_what_a_long_prompt_has_more_than_the_context_is_told(opened: OpenModel) -> None:
    long = "What light through yonder window breaks? " * 3
    count = len(opened.tokenizer.encode(long))
    assert unread(opened, long) == count - 16
    assert unread(opened, opened.tokenizer.decode(opened.tokenizer.encode(long)[-16:])) == 0
    assert unread(opened, "") == 0


def test_a_text_is_over_where_the_model_writes_what_stands_between_documents(opened: OpenModel) -> None:
    end = opened.tokenizer.beginning
    assert end is not None

    def fake_generate(*_: object, **__: object) -> Iterator[NextToken]:
        for id in (5, 6, end, 7):
            yield NextToken(id, torch.zeros(VOCAB))

    with mock.patch.object(writing, "generate", fake_generate):
        pieces = [token.text for token in write(opened, "the king", 20, Sampling(1, 0), seed=0)]
    assert "".join(pieces) == opened.tokenizer.decode([5, 6, end])


def test_any_text_can_be_a_prompt_of_a_vocabulary_of_bytes(opened: OpenModel) -> None:
    for prompt in ("日本語", "\0", "🙂", "\ud800", "\udcff x", "\r\n\t"):
        assert isinstance(_text(opened, prompt, 2), str)
        expected = next_tokens(opened, prompt, 2)
        assert 1 >= expected.top[0][1] >= expected.top[1][1] > 0
        assert expected.entropy > 0


def test_a_letter_that_a_vocabulary_of_characters_lacks_is_named(tmp_path: Path) -> None:
    run = train_here(new_run(tmp_path, 2))
    opened = open_checkpoint(run, select(run.checkpoints))
    with pytest.raises(LabError, match="'日'"):
        _text(opened, "日")


_BYTES = BpeTokenizer([])  # every byte a token


@given(st.lists(st.integers(0, 255), min_size=1, max_size=30))
def test_pieces_join_to_the_text_and_half_a_character_is_never_shown(opened: OpenModel, values: list[int]) -> None:
    order = list(byte_symbols())
    ids = [order.index(value) for value in values]
    assert _BYTES.decode(ids) == bytes(values).decode(errors="replace")

    def fake_generate(*_: object, **__: object) -> Iterator[NextToken]:
        for id in ids:
            yield NextToken(id, torch.zeros(257))

    speaking = OpenModel("x@1", "x", "scratch", opened.model, _BYTES)
    with mock.patch.object(writing, "generate", fake_generate):
        pieces = [token.text for token in write(speaking, "x", len(ids), Sampling(1, 0), seed=0)]
    assert "".join(pieces) == _BYTES.decode(ids)


def test_a_character_of_four_bytes_comes_whole_with_its_last(opened: OpenModel) -> None:
    order = list(byte_symbols())
    ids = [order.index(value) for value in "a🙂b".encode()]
    speaking = OpenModel("x@1", "x", "scratch", opened.model, _BYTES)
    tokens = [NextToken(id, torch.zeros(257)) for id in ids]
    with mock.patch.object(writing, "generate", return_value=iter(tokens)):
        pieces = [token.text for token in write(speaking, "x", len(ids), Sampling(1, 0), seed=0)]
    assert pieces == ["a", "", "", "", "🙂", "b"]


def test_a_damaged_checkpoint_is_not_opened(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(Path(shutil.copytree(run.path, tmp_path / "copy")))
    saved = select(copy.checkpoints)
    with (saved.path / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(LabError, match=r"cannot be opened.*sha256.*Choose another checkpoint"):
        open_checkpoint(copy, saved)
    shutil.rmtree(saved.path)
    with pytest.raises(LabError, match=r"lacks manifest\.json"):
        open_checkpoint(copy, saved)


def test_in_a_chat_the_prompt_is_a_users_turn_and_the_text_ends_with_the_answer(tmp_path: Path) -> None:
    folder = tiny_models.save(tiny_models.llama(), tmp_path / "chat")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    opened = open_model(str(folder), tmp_path)
    form = chat_format(opened.tokenizer)
    text = "<user>the king<assistant>"
    greedy = Sampling(temperature=0.0)
    answer = list(write(opened, "the king", 5, greedy, seed=0, chat=True))
    assert [token.text for token in answer] == [token.text for token in write(opened, text, 5, greedy, seed=0)]
    assert next_tokens(opened, "the king", 3, chat=True) == next_tokens(opened, text, 3)
    assert opened.tokenizer.encode(text) == form.prompt_ids(Example(1, (Message("user", "the king"),)))
    drawn = [NextToken(id, torch.zeros(opened.vocab_size)) for id in (3, 4, form.end_ids[0], 5)]
    for chat, count in ((True, 2), (False, 4)):
        with mock.patch.object(writing, "continued", return_value=iter(drawn)):
            assert len(list(write(opened, "the king", 5, greedy, seed=0, chat=chat))) == count


def test_of_top_k_one_a_model_of_transformers_writes_the_most_likely_tokens(tmp_path: Path) -> None:
    opened = open_model(str(tiny_models.save(tiny_models.llama(), tmp_path / "tiny")), tmp_path)
    greedy = [token.text for token in write(opened, "the king", 8, Sampling(0.0, 0), seed=0)]
    assert [token.text for token in write(opened, "the king", 8, Sampling(9.0, 1), seed=1)] == greedy
    assert [token.text for token in write(opened, "the king", 8, Sampling(9.0, 0), seed=1)] != greedy


def test_a_step_of_sampling_lists_what_could_be_drawn_before_it_and_only_what_it_rules_out_as_impossible(
    opened: OpenModel,
) -> None:
    how = Sampling(temperature=0.001, top_k=4, top_p=0.0)  # so cold that softmax rounds all but one to 0
    (token,) = write(opened, "the king", 1, how, seed=0, top=6)
    assert [(step.name, step.left, len(step.rows)) for step in token.steps] == [
        ("temperature", VOCAB, 6),
        ("top_k", 4, 6),
        ("top_p", 1, 4),
    ]
    possible = [[after > 0 for _, _, after in step.rows] for step in token.steps]
    assert possible == [[True] * 6, [True] * 4 + [False] * 2, [True] + [False] * 3]
    assert all(before > 0 for step in token.steps for _, before, _ in step.rows)


# Text of tokenizers of every make, given out piece by piece ----------------------------------------------------------


def _wrapped(pipeline: Pipeline) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(PreTrainedTokenizerFast(tokenizer_object=pipeline, unk_token="<unk>"))


def _byte_fallback(decoder: decoders.Decoder) -> HuggingFaceTokenizer:
    """Llama's way: words begin with U+2581, and what is in no piece is spelled by its bytes."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = ["\u2581", *"abehikrst", "hi", "is", "\u2581is", "\u2581the", "P", "\u2581P", "\ufffd"]
    vocabulary = {piece: id for id, piece in enumerate(["<unk>", *bytes_, *letters])}
    merges = [("h", "i"), ("i", "s"), ("\u2581", "is"), ("\u2581", "P")]
    pipeline = Pipeline(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    pipeline.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    pipeline.decoder = decoder
    return _wrapped(pipeline)


def _metaspace() -> HuggingFaceTokenizer:
    """T5's way."""
    pipeline = Pipeline(models.Unigram([("<unk>", 0.0), *((piece, -2.0) for piece in ["\u2581", *"abehikrst"])], 0))
    pipeline.pre_tokenizer, pipeline.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return _wrapped(pipeline)


def _word_pieces() -> HuggingFaceTokenizer:
    """BERT's way: words are joined by spaces, but before what continues one and before punctuation."""
    pieces = ["<unk>", *"abehikrst", "##ing", "the", "king", ".", ",", "n't", "'"]
    pipeline = Pipeline(models.WordPiece({piece: id for id, piece in enumerate(pieces)}, unk_token="<unk>"))
    pipeline.pre_tokenizer, pipeline.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    return _wrapped(pipeline)


def _word_ends() -> HuggingFaceTokenizer:
    """GPT-1's way: the last piece of a word is marked."""
    pieces = ["<unk>", *"abehikrst", *(f"{letter}</w>" for letter in "abehikrst")]
    pipeline = Pipeline(models.BPE({piece: id for id, piece in enumerate(pieces)}, [], end_of_word_suffix="</w>"))
    pipeline.pre_tokenizer, pipeline.decoder = pre_tokenizers.Whitespace(), decoders.BPEDecoder()
    return _wrapped(pipeline)


def _gpt2() -> HuggingFaceTokenizer:
    with tempfile.TemporaryDirectory() as folder:
        save_hf_tokenizer(Gpt2Tokenizer(), Path(folder))
        loaded = load_tokenizer(Path(folder), "gpt2")
    assert isinstance(loaded, HuggingFaceTokenizer)
    return loaded


_LLAMA = decoders.Sequence(
    [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)
_SPEAKERS: dict[str, Callable[[], TextTokenizer]] = {
    "llama": lambda: _byte_fallback(_LLAMA),
    "gemma": lambda: _byte_fallback(
        decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    ),
    "metaspace": _metaspace,
    "word pieces": _word_pieces,
    "word ends": _word_ends,
    "gpt2": _gpt2,
    "own gpt2": Gpt2Tokenizer,
    "own bytes": lambda: _BYTES,
    "task": lambda: TaskTokenizer(ModularSum(7, 20)),
}


@functools.cache
def _speaker(name: str) -> TextTokenizer:
    """Made when it is first asked for."""
    return _SPEAKERS[name]()


def _given_out(opened: OpenModel, tokenizer: TextTokenizer, prompt: str, ids: list[int]) -> list[tuple[int, str]]:
    """How many tokens were drawn when each piece of text came, and the piece."""
    drawn = 0

    def draw() -> Iterator[NextToken]:
        nonlocal drawn
        for id in ids:
            drawn += 1
            yield NextToken(id, torch.zeros(60_000))

    speaking = OpenModel("x", "x", "huggingface", nn.Module(), tokenizer)
    with mock.patch.object(writing, "continued", return_value=draw()):
        return [(drawn, token.text) for token in write(speaking, prompt, len(ids), Sampling(1, 0), seed=0)]


def _said(opened: OpenModel, tokenizer: TextTokenizer, prompt: str, ids: list[int]) -> str:
    return "".join(text for _, text in _given_out(opened, tokenizer, prompt, ids))


def _added(tokenizer: TextTokenizer, prompt: str, ids: list[int]) -> str:
    """What the text with `ids` has more than the prompt's."""
    asked = tokenizer.encode(prompt)
    return tokenizer.decode([*asked, *ids])[len(tokenizer.decode(asked)) :]


@pytest.mark.parametrize("name", ["llama", "gemma", "metaspace"])
def test_a_space_at_the_beginning_of_an_answer_is_kept(opened: OpenModel, name: str) -> None:
    tokenizer = _speaker(name)
    ids = tokenizer.encode("the is")
    begin = len(tokenizer.encode("the"))
    assert _said(opened, tokenizer, "the", ids[begin:]) == " is"


@pytest.mark.parametrize("name", ["llama", "gemma", "gpt2", "own gpt2"])
def test_a_sign_of_several_tokens_comes_whole(opened: OpenModel, name: str) -> None:
    tokenizer = _speaker(name)
    ids = tokenizer.encode("hi\U0001f642a")[len(tokenizer.encode("hi")) :]
    pieces = [text for _, text in _given_out(opened, tokenizer, "hi", ids)]
    assert "".join(pieces) == "\U0001f642a"
    assert len(pieces) == len(ids)
    assert [piece for piece in pieces if piece] == ["\U0001f642", "a"]


@pytest.mark.parametrize("name", _SPEAKERS)
@settings(max_examples=20)
@given(data=st.data())
def test_pieces_join_to_what_the_whole_text_has_more_than_the_prompts(
    opened: OpenModel, name: str, data: st.DataObject
) -> None:
    tokenizer = _speaker(name)
    text = st.text("abehik rstP.\n\xe9\u65e5\U0001f642\ufffd", max_size=12)
    if name == "task":
        prompt, known = "3 5", st.integers(0, 7)
    else:
        size = 50_000 if "gpt2" in name else 256 if name == "own bytes" else len(tokenizer.inner)
        prompt, known = data.draw(text.filter(lambda some: bool(tokenizer.encode(some)))), st.integers(0, size - 1)
    ids = data.draw(st.lists(known, max_size=12))
    if name != "task" and data.draw(st.booleans()):
        ids += tokenizer.encode(data.draw(text))
    for count in range(len(ids) + 1):
        assert _said(opened, tokenizer, prompt, ids[:count]) == _added(tokenizer, prompt, ids[:count])
    given_out = _given_out(opened, tokenizer, prompt, ids)
    assert len(given_out) == len(ids)
    assert all(drawn - place <= 2 for place, (drawn, _) in enumerate(given_out))  # one token late at most
    shown, whole = "", _added(tokenizer, prompt, ids)
    for _, piece in given_out:
        shown += piece
        assert whole.startswith(shown)  # nothing is given out that a later token changes


def test_what_is_not_whole_is_given_out_where_an_answer_ends(opened: OpenModel) -> None:
    ids = [list(byte_symbols()).index(value) for value in b"a\xf0\x9f"]
    end = _BYTES.end_of_text
    assert end is not None
    drawn = [NextToken(id, torch.zeros(257)) for id in [*ids, end]]
    with mock.patch.object(writing, "continued", return_value=iter(drawn)):
        speaking = OpenModel("x@1", "x", "scratch", opened.model, _BYTES)
        pieces = [token.text for token in write(speaking, "x", 9, Sampling(1, 0), seed=0, chat=True)]
    assert pieces == ["a", "", "\ufffd"]


@pytest.mark.parametrize("name", ["llama", "gpt2", "word pieces"])
def test_a_long_text_is_decoded_a_few_times_and_not_once_a_token(opened: OpenModel, name: str) -> None:
    tokenizer, read = _speaker(name), 0

    class Counting(HuggingFaceTokenizer):
        def decode(self, ids: Sequence[int]) -> str:
            nonlocal read
            read += len(ids)
            return super().decode(ids)

    counting = Counting(tokenizer.inner)
    prompt = "the king is the king " * 20
    ids = tokenizer.encode("is the king \U0001f642 the king " * 100)
    assert _said(opened, counting, prompt, ids) == _added(tokenizer, prompt, ids)
    assert read <= 10 * (len(ids) + len(tokenizer.encode(prompt)))
