"""The analyses' identities hold in every family: what is summed, split, read and staged is the model's own."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from cases import each
from family_models import KINDS, TIME, family_anatomy, family_model, new_model, some_ids
from torch import Tensor, nn
from watched_models import Everything, watch_all

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.capture import run
from llmlab.anatomy.finding import anatomy_of
from llmlab.core.errors import LabError
from llmlab.inspection.attribution import AttributionAt, NeuronsAt
from llmlab.inspection.heads import HeadSummaries
from llmlab.inspection.lens import Lens
from llmlab.inspection.residual import Contributions
from llmlab.inspection.rollout import Rollout
from llmlab.inspection.stages import StagesOf

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # transformers' and peft's own
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning"),
]
POSITION = TIME - 2
ALL = [*KINDS, "adapter"]


@dataclass(frozen=True)
class Watched:
    """A model, its anatomy, all that a pass showed, and the logits of the model unwatched."""

    model: nn.Module
    anatomy: Anatomy
    seen: Everything
    logits: Tensor


@functools.cache
def watched(name: str) -> Watched:
    model = adapter() if name == "adapter" else family_model(name)
    anatomy = anatomy_of(model) if name == "adapter" else family_anatomy(name)
    with torch.no_grad():
        logits = model(input_ids=some_ids()[None]).logits[0]
    return Watched(model, anatomy, watch_all(model, anatomy, some_ids())[0], logits)


def adapter() -> nn.Module:
    """Llama with a LoRA on the layers that write into the stream."""
    from peft import LoraConfig, get_peft_model  # warns when it is imported, and only a test may let that pass

    model: Any = new_model("llama", KINDS["llama"].settings, seed=5)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "o_proj", "down_proj"]))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return wrapped.eval()


def finish(anatomy: Anatomy, logit: Tensor) -> Tensor:
    """What a family does with a logit at the end."""
    logit = logit * anatomy.logit_scale
    cap = anatomy.logit_softcap
    return logit if cap is None else cap * torch.tanh(logit / cap)


@each("name", ALL)
def test_bars_sum_to_the_logit_and_split_by_head(name: str) -> None:
    about = watched(name)
    watcher = AttributionAt(about.anatomy, POSITION)
    run(about.model, about.anatomy, some_ids(), [watcher])
    for answer in (3, 40):
        bars = watcher.results(answer)
        logit = about.logits[POSITION, answer]
        assert torch.allclose(finish(about.anatomy, bars["attribution/sum"]), logit, atol=2e-5)
        split = bars["attribution/heads"].sum(-1) + bars["attribution/attention_bias"]
        with_heads = [block.projection is not None for block in about.anatomy.blocks]
        assert torch.allclose(split[with_heads], bars["attribution/attention"][with_heads], atol=1e-5)
        assert split.isnan().tolist() == [not there for there in with_heads]
        after = watcher.after(answer)
        changed = about.anatomy.logit_scale != 1 or about.anatomy.logit_softcap is not None
        assert (after is not None) == changed
        if after is not None:
            assert float(after.rsplit(" ", 1)[1].rstrip(".")) == pytest.approx(logit.item(), abs=2e-4)
    difference = watcher.results(3, 40)["attribution/sum"]
    assert torch.allclose(
        difference, watcher.results(3)["attribution/sum"] - watcher.results(40)["attribution/sum"], atol=1e-5
    )


@each("name", ALL)
def test_neurons_sum_to_the_feed_forwards_bar(name: str) -> None:
    about = watched(name)
    whole, watchers = AttributionAt(about.anatomy, POSITION), dict[int, NeuronsAt]()
    for layer, block in enumerate(about.anatomy.blocks):
        if block.neurons is None:
            with pytest.raises(LabError, match="mixture of experts"):
                NeuronsAt(about.anatomy, layer, POSITION)
        else:
            watchers[layer] = NeuronsAt(about.anatomy, layer, POSITION)
    run(about.model, about.anatomy, some_ids(), [whole, *watchers.values()])
    for layer, watcher in watchers.items():
        found = watcher.results(3, 40, top=1000)
        bar = whole.results(3, 40)["attribution/feed_forward"][layer]
        assert torch.allclose(found["neurons/attribution"].sum() + found["neurons/bias"], bar, atol=1e-5)
        assert torch.allclose(found["neurons/sum"], bar, atol=1e-5)


@each("name", ALL)
def test_shares_sum_to_one_and_head_norms_are_of_what_heads_add(name: str) -> None:
    about = watched(name)
    watcher = Contributions(about.anatomy, TIME)
    run(about.model, about.anatomy, some_ids(), [watcher])
    results = watcher.results()
    parts = (results[f"contributions/share/{part}"].sum(0) for part in ("attention", "feed_forward"))
    assert torch.allclose(results["contributions/share/embedding"] + sum(parts), torch.ones(TIME), atol=1e-5)
    for layer, norms in enumerate(results["contributions/heads"]):
        if about.anatomy.blocks[layer].projection is None:
            assert norms.isnan().all()
        else:
            assert torch.allclose(norms, added_by_heads(about, layer).norm(dim=-1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def added_by_heads(about: Watched, layer: int) -> Tensor:
    """[H, T, C], by asking the projection with all other heads at zero; norms behind it frozen as a gain."""
    block, z = about.anatomy.blocks[layer], about.seen.z[layer]
    assert block.projection is not None
    whole = block.projection(z.flatten(-2))
    # Sandwich families have RMSNorm there, which multiplies each number by something.
    gain = 1 if block.post_attn_norm is None else block.post_attn_norm(whole) / whole
    added = []
    for head in range(z.shape[1]):
        alone = torch.zeros_like(z)
        alone[:, head] = z[:, head]
        nothing = block.projection(torch.zeros_like(z).flatten(-2))
        added.append((block.projection(alone.flatten(-2)) - nothing) * gain * block.attn.scale)
    return torch.stack(added)


@each("name", ALL)
def test_the_lens_ends_with_the_models_prediction_and_begins_with_its_embedding(name: str) -> None:
    about = watched(name)
    vocab = about.logits.shape[1]
    watcher = Lens(about.anatomy, some_ids().tolist(), top=vocab)
    run(about.model, about.anatomy, some_ids(), [watcher], last=True)
    results = watcher.results()
    wanted = about.logits.softmax(-1)
    assert torch.allclose(scattered(results, -1, vocab), wanted, atol=1e-6)
    with torch.no_grad():
        read = about.anatomy.final_norm(about.seen.points["pre_attn", 1])
        logits = nn.functional.linear(read, about.anatomy.unembedding, about.anatomy.unembedding_bias)
    assert torch.allclose(scattered(results, 2, vocab), finish(about.anatomy, logits).softmax(-1), atol=1e-6)


def scattered(results: dict[str, Tensor], row: int, vocab: int) -> Tensor:
    """Probabilities of a row by token [T, V], where all tokens were kept."""
    ids, p = results["lens/ids"][row].long(), results["lens/probability"][row]
    return torch.zeros(TIME, vocab).scatter(1, ids, p)


@each("name", ALL)
def test_stages_lead_to_the_pattern(name: str) -> None:
    about, watchers = watched(name), dict[int, StagesOf]()
    for layer, block in enumerate(about.anatomy.blocks):
        if block.attention is None:
            with pytest.raises(LabError, match="no attention pattern"):
                StagesOf(about.anatomy, layer, 0)
        else:
            watchers[layer] = StagesOf(about.anatomy, layer, 3)
    run(about.model, about.anatomy, some_ids(), list(watchers.values()))
    for layer, watcher in watchers.items():
        block = about.anatomy.blocks[layer]
        stages = watcher.result()
        assert torch.equal(stages.pattern, about.seen.whole_pattern(layer)[3])
        window = block.window or TIME
        seen = torch.ones(TIME, TIME).tril().triu(1 - window).bool()
        assert torch.equal(stages.masked > -math.inf, seen)
        recomputed = stages.masked.softmax(-1)
        if stages.sink is not None:
            assert ((stages.sink > 0) & (stages.sink < 1)).all()
            recomputed = recomputed * (1 - stages.sink)[:, None]
        assert torch.allclose(recomputed, stages.pattern, atol=1e-5)
        if not block.gated:  # a gate follows on its answers
            assert torch.allclose(stages.pattern @ stages.value, about.seen.z[layer][:, 3], atol=1e-5)


@pytest.mark.parametrize("name", ["gpt_oss", "qwen3_next", "gemma2"])
def test_layers_without_pattern_have_no_scores_and_no_rollout(name: str) -> None:
    about = watched(name)
    missing = [block.attention is None for block in about.anatomy.blocks]
    summaries = HeadSummaries(about.anatomy, TIME)
    run(about.model, about.anatomy, some_ids(), [summaries])
    for what in ("entropy", "previous", "first", "distance"):
        assert summaries.results()[f"heads/{what}"].isnan().all(-1).tolist() == missing
    if any(missing):
        with pytest.raises(LabError, match="without an attention pattern"):
            Rollout(about.anatomy, TIME, lambda layer, x: None)
        return
    kept: list[Tensor] = []
    run(about.model, about.anatomy, some_ids(), [Rollout(about.anatomy, TIME, lambda layer, x: kept.append(x.clone()))])
    assert torch.allclose(torch.stack(kept).sum(-1), torch.ones(len(kept), TIME))
