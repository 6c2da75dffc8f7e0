"""Batches of examples: what each holds, that packed rows mean the same, and what cannot be learned from."""

from __future__ import annotations

import json
from pathlib import Path

import chat_tokenizers as make
import pytest
import tiny_models
import torch
from fakes import CancelAfter
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordPiece
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from llmlab.core.errors import Cancelled, LabError
from llmlab.core.finetuning_settings import ExampleSettings
from llmlab.core.progress import quiet
from llmlab.data.finetuning_data import NOT_IN_LOSS, Batch, FinetuningData, load_finetuning_data, padded
from llmlab.data.hf_tokenizer import HuggingFaceTokenizer, load_tokenizer
from llmlab.data.tokenizers import CharTokenizer, Gpt2Tokenizer, TextTokenizer, save_hf_tokenizer

GPT2 = Gpt2Tokenizer()


def load(tokenizer: TextTokenizer = GPT2, context: int = 0, seed: int = 1, **changes: object) -> FinetuningData:
    return load_finetuning_data(ExampleSettings(**changes), seed, tokenizer, context, quiet)


def rows_of(batch: Batch) -> list[list[int]]:
    """The ids of each row without filling."""
    return [ids[mask.bool()].tolist() for ids, mask in zip(batch.ids, batch.attention_mask, strict=True)]


def test_an_epoch_has_every_example_once_and_each_epoch_another_order() -> None:
    data = load(batch_size=9)
    assert (len(data.train), len(data.held_out), data.batches_per_epoch) == (540, 60, 60)
    epochs = [
        [tuple(row) for index in range(60) for row in rows_of(data.batch(60 * epoch + index))] for epoch in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(tuple(encoded.ids) for encoded in data.train)
    assert epochs[0] != epochs[1]


def test_a_batch_depends_on_the_seed_and_its_number_alone() -> None:
    data, again, other = load(), load(), load(seed=2)
    list(again.fixed_batches("val", 10))
    for index in (130, 3, 67):
        assert torch.equal(data.batch(index).ids, again.batch(index).ids)
    assert data.key == again.key
    assert data.key != other.key
    assert data.key != load(train_on="all").key


def test_labels_are_the_ids_where_they_are_trained_on_and_filling_is_never() -> None:
    data = load(batch_size=16)
    batch = data.batch(5)
    by_ids = {tuple(encoded.ids): encoded for encoded in data.train}
    for row in range(16):
        length = int(batch.attention_mask[row].sum())
        encoded = by_ids[tuple(batch.ids[row, :length].tolist())]
        expected = [id if trained else NOT_IN_LOSS for id, trained in zip(encoded.ids, encoded.trained, strict=True)]
        assert batch.labels[row, :length].tolist() == expected
        assert set(batch.labels[row, length:].tolist()) <= {NOT_IN_LOSS}
        assert not batch.attention_mask[row, length:].any()
    assert batch.predicted == sum(sum(by_ids[tuple(ids)].trained) for ids in rows_of(batch))
    assert [example.number for example in data.examples_in(5)] == [
        data.examples[data.train.index(by_ids[tuple(ids)])].number for ids in rows_of(batch)
    ]


def test_evaluation_reads_the_same_examples_every_time_and_no_held_out_one_is_trained_on() -> None:
    data = load()
    for split, part in (("train", data.train), ("val", data.held_out)):
        first, second = ([rows_of(batch) for batch in data.fixed_batches(split, 20)] for _ in range(2))
        assert first == second
        flat = [tuple(row) for batch in first for row in batch]
        assert len(flat) == len(set(flat)) == 20
        assert set(flat) <= {tuple(encoded.ids) for encoded in part}
    assert sum(len(rows_of(batch)) for batch in data.fixed_batches("val", 1000)) == 60


def test_bytes_are_those_of_the_text_that_is_in_the_loss_whatever_cuts_it(tmp_path: Path) -> None:
    answers = {"ä": "The sky is blue.", "b": "thé sea → 🙂", "c": "the sky,  the sea\ttoo"}
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in answers.items()))
    chatml = make.byte_level(make.CHATML, make.FAMILIES["chatml"].special)
    char = CharTokenizer("".join(answers.values()) + "UserAint: äbc\n")  # whose end of an answer is a line end
    save_hf_tokenizer(char, tmp_path / "char")
    saved = load_tokenizer(tmp_path / "char", "char")
    for tokenizer, extra in (
        (GPT2, 1),  # the space before an answer
        (char, 2),
        (saved, 2),
        (chatml, 0),
        (make.sentencepiece(make.MISTRAL, make.FAMILIES["mistral"].special), 2),  # and the one that it puts there
    ):
        data = load(tokenizer, source=str(path), val_fraction=0.5)
        for count in (1, 2):
            held_out = [row for batch in data.fixed_batches("val", count) for row in batch.labels]
            tokens = sum(int((row >= 0).sum()) for row in held_out)
            said = [tokenizer.decode(row[row >= 0].tolist()) for row in held_out]
            known = [answer for answer in answers.values() if any(answer in one for one in said)]
            assert len(known) == len(held_out) == count
            size = data.bytes_per_token(count)
            assert size is not None
            assert size * tokens == pytest.approx(sum(len(answer.encode()) + extra for answer in known)), tokenizer
    words = WordPiece({"[UNK]": 0, "the": 1, "##y": 2}, unk_token="[UNK]")
    bert = Tokenizer(words)
    bert.decoder = decoders.WordPiece()
    told = HuggingFaceTokenizer(PreTrainedTokenizerFast(tokenizer_object=bert, unk_token="[UNK]", eos_token="[UNK]"))
    assert [told.byte_count(id) for id in (0, 1, 2)] == [0, None, None]  # `y` and `##y` cannot be told apart


def test_fewer_examples_than_a_batch_fill_it_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{n}?", "completion": f"{n}!"}) + "\n" for n in range(4)))
    data = load(source=str(path), batch_size=8)
    assert data.batches_per_epoch == 1
    assert data.batch(0).ids.shape[0] == 8
    assert {tuple(row) for row in rows_of(data.batch(2))} == {tuple(encoded.ids) for encoded in data.train}


TOKENIZER = make.byte_level(make.CHATML, make.FAMILIES["chatml"].special, vocabulary=264)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_rows_cost_what_their_examples_cost_alone(attention: str) -> None:
    data = load(TOKENIZER, packing=True, max_length=300, batch_size=3, max_examples=40)
    model = tiny_models.llama(vocab_size=len(TOKENIZER.inner), max_position_embeddings=512)
    model.set_attn_implementation(attention)
    batch = data.batch(1)
    assert batch.position_ids is not None
    assert all(len(row) > 1 for row in data.rows[:3])
    together = _losses(model(input_ids=batch.ids, position_ids=batch.position_ids, use_cache=False).logits, batch)
    alone = []
    for example in data.examples_in(1):
        single = padded([[data.train[data.examples.index(example)]]], data.chat.pad_id)
        alone.append(_losses(model(input_ids=single.ids, use_cache=False).logits, single))
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)
    kept_apart = _losses(model(input_ids=batch.ids, attention_mask=batch.attention_mask).logits, batch)
    assert not torch.allclose(together, kept_apart, atol=1e-2)  # without positions they would read each other


def _losses(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The loss of each trained token, row by row."""
    losses = cross_entropy(
        logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=NOT_IN_LOSS, reduction="none"
    )
    return losses[batch.labels[:, 1:].flatten() != NOT_IN_LOSS].detach()


@pytest.mark.slow
def test_packing_leaves_less_filling_and_trains_on_as_much() -> None:
    plain, packing = load(TOKENIZER, batch_size=4), load(TOKENIZER, batch_size=4, packing=True, max_length=256)
    assert packing.padding < plain.padding
    assert len(packing.rows) < len(plain.rows)
    assert packing.batches_per_epoch < plain.batches_per_epoch


def test_the_first_token_of_an_example_is_never_predicted_from_the_one_before_it() -> None:
    data = load(TOKENIZER, packing=True, train_on="all", max_length=300, max_examples=40)
    batch = data.batch(0)
    assert batch.position_ids is not None
    assert set(batch.labels[batch.position_ids == 0].tolist()) == {NOT_IN_LOSS}


def test_what_a_vocabulary_of_characters_cannot_say_is_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": "sky", "completion": "blue"}, {"prompt": "sea", "completion": "green"}]
    lines += [{"prompt": "Ü", "completion": "u"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = load(CharTokenizer("User: Assistant\nskyblueagrn"), source=str(path))
    assert [(line.number, "lacks 'Ü'" in line.why) for line in data.bad] == [(3, True)]
    assert len(data.train) + len(data.held_out) == 2


def test_an_example_whose_answer_is_beyond_the_length_is_a_bad_line_and_others_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": "sky " * 50, "completion": "blue"}, {"prompt": "sky", "completion": "blue " * 50}]
    lines += [{"prompt": f"sky {n}", "completion": "blue"} for n in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = load(source=str(path), max_length=32)
    assert [line.number for line in data.bad] == [1]
    assert "nothing of its answer is among the first 32" in data.bad[0].why
    assert data.cut == 1
    assert max(len(encoded.ids) for encoded in data.train + data.held_out) == 32


def test_examples_that_are_all_longer_than_the_context_are_refused_with_what_to_do() -> None:
    with pytest.raises(LabError, match=r"All examples of tasks are too long\..*within 8 no answer begins") as raised:
        load(context=8)
    assert "data.max_length" in raised.value.do


def test_a_model_that_can_read_no_example_is_said_to() -> None:
    with pytest.raises(LabError, match=r"cannot read one example of tasks\. Line 1: This vocabulary"):
        load(CharTokenizer("ab\n"))


def test_the_context_limits_the_length() -> None:
    assert load(context=64, max_length=256).max_length == 64
    assert load(context=0, max_length=256).max_length == 256


def test_loading_ends_when_it_is_no_longer_wanted() -> None:
    with pytest.raises(Cancelled):
        load_finetuning_data(ExampleSettings(), 1, GPT2, 0, CancelAfter())
