"""Writing: what is chosen, from what, and that nothing else notices."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from cases import each
from small_models import SOME_COMBINATIONS, VOCAB, lively, shape, some_ids

from llmlab.core.settings import Sampling
from llmlab.gpt.generate import choose, generate, generate_batch, sampling_steps
from llmlab.gpt.model import GPT


def _written(model: GPT, prompt: list[int], tokens: int = 30, **how: float) -> list[int]:
    seed = int(how.pop("seed", 0))
    return [token.id for token in generate(model, prompt, tokens, Sampling(**how), seed=seed)]


def test_temperature_zero_takes_the_likeliest_also_beyond_the_context() -> None:
    model = lively(shape())
    ids = some_ids(5).tolist()
    expected = list(ids)
    for _ in range(30):
        window = torch.tensor([expected[-12:]])
        with torch.no_grad():
            expected.append(int(model(window)[0, -1, :VOCAB].argmax()))
    assert _written(model, ids, temperature=0.0) == expected[5:]


def _logits(model: GPT, text: list[int]) -> torch.Tensor:
    """Of the token after a text, from a pass over the whole window."""
    with torch.no_grad():
        return model(torch.tensor([text[-model.settings.block_size :]]))[0, -1, :VOCAB]


def _alone(model: GPT, ids: list[int], tokens: int) -> list[tuple[int, torch.Tensor]]:
    """The most likely tokens with the logits that they were chosen from."""
    text, written = list(ids), []
    for _ in range(tokens):
        logits = _logits(model, text)
        text.append(int(logits.argmax()))
        written.append((text[-1], logits))
    return written


@each("kind", SOME_COMBINATIONS)
def test_a_cache_writes_what_is_written_without_it_also_where_the_context_slides(kind: dict[str, Any]) -> None:
    model = lively(shape(**kind))
    prompts = [some_ids(length, seed=length).tolist() for length in (5, 1, 12, 30)]  # of a context of 12
    steps = list(generate_batch(model, prompts, 9, Sampling(0.0, 0), seeds=[0] * 4))
    for row, prompt in enumerate(prompts):
        by_itself = list(generate(model, prompt, 9, Sampling(0.0, 0), seed=0))
        for step, one, (expected, logits) in zip(steps, by_itself, _alone(model, prompt, 9), strict=True):
            for token in (step[row], one):
                assert token.id == expected
                assert torch.allclose(token.logits, logits, rtol=0, atol=1e-5)


def test_texts_of_a_batch_are_drawn_as_if_written_alone() -> None:
    model = lively(shape())
    prompts, seeds = [[1, 2, 3], [4], [1, 2, 3]], [5, 6, 7]
    steps = list(generate_batch(model, prompts, 20, Sampling(1.5, 9), seeds=seeds))
    for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        alone = _written(model, prompt, 20, temperature=1.5, top_k=9, seed=seed)
        assert [step[row].id for step in steps] == alone


def test_within_the_context_each_new_token_alone_is_read() -> None:
    model = lively(shape())
    read: list[int] = []
    model.token_embedding.register_forward_hook(lambda _, args, __: read.append(args[0].shape[-1]))
    _written(model, [1, 2, 3], 12)
    assert read == [3, *[1] * 9, 12, 12]  # full with the tenth, and the last two slide


def test_a_prompt_longer_than_the_context_is_read_from_its_end() -> None:
    model = lively(shape(position="rotary"))
    ids = some_ids(500).tolist()
    assert _written(model, ids) == _written(model, ids[-12:])


def test_one_candidate_is_the_likeliest() -> None:
    model = lively(shape())
    assert _written(model, [1], top_k=1, temperature=3.0) == _written(model, [1], temperature=0.0)


def test_equal_seeds_write_equal_texts_and_others_differ() -> None:
    model = lively(shape())
    assert _written(model, [1], seed=7) == _written(model, [1], seed=7)
    assert _written(model, [1], seed=7) != _written(model, [1], seed=8)


def test_only_the_top_k_are_drawn() -> None:
    model = lively(shape())
    for token in generate(model, [3], 60, Sampling(2.0, 3), seed=1):
        assert token.id in [id for id, _ in token.top(3)]


def test_more_candidates_than_there_are_tokens_means_all() -> None:
    model = lively(shape())
    assert _written(model, [3], top_k=10**6) == _written(model, [3], top_k=0)


def test_drawn_shares_are_the_softmax_at_that_temperature() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor([choose(logits, Sampling(0.5, 3), [], generator).id for _ in range(4000)])
    expected = torch.tensor([4.0, 2.0, 0.0, -torch.inf]).softmax(-1)  # / 0.5, and the fourth is beyond the top 3
    shares = torch.bincount(drawn, minlength=4) / 4000
    assert torch.allclose(shares, expected, atol=0.03)  # 4 standard errors of a share: 4 * 0.5 / sqrt(4000)
    assert shares[3] == 0


def test_each_step_of_sampling_is_that_of_transformers() -> None:
    from transformers import (
        LogitsProcessor,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    how = Sampling(temperature=1.3, top_k=40, top_p=0.85, min_p=0.05, repetition_penalty=1.4)
    theirs: dict[str, LogitsProcessor] = {
        "repetition_penalty": RepetitionPenaltyLogitsProcessor(how.repetition_penalty),
        "temperature": TemperatureLogitsWarper(how.temperature),
        "top_k": TopKLogitsWarper(how.top_k),
        "top_p": TopPLogitsWarper(how.top_p),
        "min_p": MinPLogitsWarper(how.min_p),
    }
    for seed in range(20):
        logits = 3 * torch.randn(200, generator=torch.Generator().manual_seed(seed))
        text = some_ids(30, seed=seed, vocab_size=200)
        after = logits[None]
        together = dict(sampling_steps(logits, how, text.tolist()))
        assert list(together) == list(theirs)
        for name, warper in theirs.items():
            alone = dict(sampling_steps(logits, Sampling(**{name: getattr(how, name)}), text.tolist()))
            assert torch.equal(alone[name], warper(text[None], logits[None].clone())[0])
            after = warper(text[None], after.clone())
            assert torch.equal(together[name], after[0])
        assert torch.equal(logits, 3 * torch.randn(200, generator=torch.Generator().manual_seed(seed)))


def test_a_temperature_that_no_float_can_be_divided_by_takes_the_most_likely() -> None:
    for logits in (torch.tensor([2.0, 3.0, -1.0]), torch.tensor([-3.0, -2.0, -4.0])):
        assert choose(logits, Sampling(1e-40), [], torch.Generator()).id == 1


def test_settings_of_sampling_that_are_neutral_change_nothing() -> None:
    logits = torch.randn(50)
    assert list(sampling_steps(logits, Sampling(), [1, 2])) == []
    strictest = Sampling(top_p=0.0, min_p=1.0)  # the most likely is never ruled out
    assert [int((left > -torch.inf).sum()) for _, left in sampling_steps(logits, strictest, [])] == [1, 1]


def test_a_penalty_on_repetition_counts_the_prompt_and_what_was_written() -> None:
    model = lively(shape())
    written = _written(model, [1, 2, 3], 25, temperature=0.0, repetition_penalty=10.0)
    text = [1, 2, 3]
    for id in written:
        logits, seen = _logits(model, text), sorted(set(text))
        logits[seen] = torch.where(logits[seen] < 0, logits[seen] * 10, logits[seen] / 10)
        assert id == int(logits.argmax())
        text.append(id)


def test_writing_moves_no_global_random_numbers() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    _written(lively_without_seeding(), [1, 2])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def lively_without_seeding() -> GPT:
    """A model whose making leaves torch's generator where it was."""
    with torch.random.fork_rng():
        return lively(shape())


def test_probabilities_are_the_models_own_whatever_the_temperature() -> None:
    model = lively(shape())
    for token in generate(model, [4], 5, Sampling(0.1, 2), seed=0):
        everything = dict(token.top(VOCAB))
        assert sum(everything.values()) == pytest.approx(1.0, abs=1e-5)
        assert token.probability == pytest.approx(everything[token.id])
        assert [p for _, p in token.top(4)] == sorted(everything.values(), reverse=True)[:4]


def test_a_padded_vocabulary_is_never_written_beyond_its_tokens() -> None:
    model = lively(shape(vocab_multiple=64))
    with torch.no_grad():
        model.token_embedding.weight[VOCAB:] *= 100  # the padding shouts
    assert max(_written(model, [1], 200, temperature=5.0)) < VOCAB
