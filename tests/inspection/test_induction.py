"""Induction needs two layers: one writes down each token's predecessor, the next finds what followed the last time.

Olsson et al. 2022 ("In-context Learning and Induction Heads") and Elhage et al. 2021: one-layer attention models form
no induction heads, two-layer ones do. Our score must tell them apart on models that were really trained.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from llmlab.anatomy.capture import run
from llmlab.anatomy.finding import scratch_anatomy
from llmlab.core.settings import ModelSettings, PretrainTrainSettings
from llmlab.gpt.model import GPT
from llmlab.inspection.heads import HeadSummaries, repeat_scores, repeated_tokens
from llmlab.training.optimizer import make_pretraining_optimizer, set_learning_rates

VOCAB, SHORTEST, LONGEST = 32, 8, 24
# Three seeds needed 150 to 175; by AdamW it would be 700 to 950.
MOST_STEPS, EVERY = 500, 25
TRAIN = PretrainTrainSettings(
    optimizer="muon", learning_rate=1e-2, weight_decay=0.0, schedule="constant", warmup_steps=50, steps=MOST_STEPS
)


def scores(model: GPT) -> dict[str, float]:
    """The best head's scores on tokens that are repeated after 20."""
    found, _ = repeat_scores(model, scratch_anatomy(model), vocab=VOCAB, length=20, seed=99)
    return {name.removeprefix("heads/"): float(score.max()) for name, score in found.items()}


def trained(n_layer: int, steps: int, until: float) -> tuple[GPT, int]:
    """A model that learned to repeat random tokens, and the steps it took to reach an induction score `until`.

    How long the repeated part is changes all the time, else looking back a fixed number of positions would do.
    """
    torch.manual_seed(0)
    settings = ModelSettings(
        n_layer=n_layer, n_head=2, n_embd=64, block_size=2 * LONGEST, position="rotary", norm="rmsnorm", bias=False
    )
    model, generator = GPT(settings, VOCAB), torch.Generator().manual_seed(0)
    optimizer = make_pretraining_optimizer(model, TRAIN)
    for step in range(1, steps + 1):
        length = int(torch.randint(SHORTEST, LONGEST + 1, (), generator=generator))
        half = torch.rand(32, VOCAB, generator=generator).argsort(-1)[:, :length]  # [B, length], no token twice
        ids = torch.cat((half, half), 1)
        logits = model(ids[:, :-1])[:, length - 1 :]  # only the second half can be known
        loss = cross_entropy(logits.flatten(0, 1), ids[:, length:].flatten())
        set_learning_rates(optimizer, step - 1, TRAIN)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVERY == 0 and scores(model)["induction"] > until:
            return model, step
    return model, steps


@pytest.mark.slow
def test_two_layers_learn_an_induction_head_and_one_layer_does_not() -> None:
    model, steps = trained(2, MOST_STEPS, until=0.6)
    found = scores(model)
    assert found["induction"] > 0.5
    assert found["duplicate"] < 0.3
    # The first layer has the head that the second one builds upon; looking at all alike would score 0.08.
    anatomy, ids = scratch_anatomy(model), repeated_tokens(VOCAB, 20, 99)
    summaries = HeadSummaries(anatomy, len(ids))
    run(model, anatomy, ids, [summaries])
    assert summaries.results()["heads/previous"][0].max() > 0.2
    single, _ = trained(1, steps, until=1.0)
    assert scores(single)["induction"] < 0.3
