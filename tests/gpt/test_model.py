"""The GPT does what its formulas say, whatever its options: checked against loops that spell the formulas out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from cases import each
from small_models import COMBINATIONS, VOCAB, lively, shape, some_ids
from torch import Tensor

from llmlab.gpt.model import GPT, Block, CausalSelfAttention, FeedForward, Norm, Rotary
from llmlab.gpt.shapes import padded_vocab_size, parameter_count


@each("options", COMBINATIONS)
def test_a_later_token_changes_no_earlier_logit(options: dict[str, Any]) -> None:
    settings = shape(**options, block_size=6)
    model = lively(settings)
    ids = some_ids(2, settings.block_size)
    with torch.no_grad():
        before = model(ids)
        for position in range(settings.block_size):
            changed = ids.clone()
            changed[:, position] = (changed[:, position] + 1) % VOCAB
            after = model(changed)
            assert torch.equal(after[:, :position], before[:, :position])
            # Every later position may look back, and with these weights it shows.
            moved = (after[:, position:] - before[:, position:]).abs().amax(dim=-1)
            assert (moved > 1e-4).all()


@each("options", COMBINATIONS)
def test_the_counted_parameters_are_the_models(options: dict[str, Any]) -> None:
    for multiple in (1, 64):
        settings = shape(**options, vocab_multiple=multiple)
        model = GPT(settings, VOCAB)
        assert parameter_count(settings, VOCAB) == sum(parameter.numel() for parameter in model.parameters())


def test_a_prefix_has_the_logits_that_it_has_in_the_whole_window() -> None:
    model = lively(shape(position="rotary"))
    ids = some_ids(1, 12)
    with torch.no_grad():
        assert torch.allclose(model(ids[:, :5]), model(ids)[:, :5], atol=1e-5)


def test_more_tokens_than_the_context_are_refused() -> None:
    with pytest.raises(ValueError, match="13 tokens do not fit into a context of 12"):
        lively(shape())(some_ids(1, 13))


def _attention_by_loops(module: CausalSelfAttention, x: Tensor, turn: bool) -> Tensor:
    """x [T, C] -> attention output [T, C], position by position and head by head, in double precision."""
    time, width = x.shape
    heads, kv_heads, d = module.n_head, module.n_kv_head, module.head_dim
    q, k, v = module.qkv(x).double().split([width, kv_heads * d, kv_heads * d], dim=-1)
    answers = torch.zeros(time, width, dtype=torch.float64)
    for head in range(heads):
        group = head // (heads // kv_heads)
        for position in range(time):
            query = q[position, head * d : (head + 1) * d]
            keys = [k[earlier, group * d : (group + 1) * d] for earlier in range(position + 1)]
            if turn:
                query = _turned(query, position)
                keys = [_turned(key, earlier) for earlier, key in enumerate(keys)]
            scores = torch.stack([query @ key / math.sqrt(d) for key in keys])
            weights = scores.exp() / scores.exp().sum()
            for earlier in range(position + 1):
                value = v[earlier, group * d : (group + 1) * d]
                answers[position, head * d : (head + 1) * d] += weights[earlier] * value
    return module.out(answers.float())


def _turned(vector: Tensor, position: int) -> Tensor:
    """Each pair (i, i + D/2) as a complex number, times e^(angle i): angle = position / 10000^(2i/D)."""
    half = len(vector) // 2
    pairs = torch.complex(vector[:half], vector[half:])
    angles = torch.tensor([position / 10000 ** (2 * i / len(vector)) for i in range(half)], dtype=torch.float64)
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag))


@each("position", ["learned", "rotary"])
@each("heads", [0, 1, 2])
@each("bias", [True, False])
def test_attention_is_the_formula_position_by_position(position: str, heads: int, bias: bool) -> None:
    module = lively(shape(position=position, n_kv_head=heads, bias=bias)).blocks[0].attention
    x = torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours = module(x)
        for row in range(2):
            expected = _attention_by_loops(module, x[row], turn=position == "rotary")
            assert torch.allclose(ours[row], expected, atol=1e-5)


@each("least", [13, 12])
def test_in_bf16_a_processor_attends_to_few_tokens_in_fp32(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmlab.gpt.model.HALF_ATTENTION", least)
    module = lively(shape()).blocks[0].attention
    x = torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        ours = module(x)
        expected = torch.stack([_attention_by_loops(module, row, turn=False) for row in x])
    assert ours.dtype == torch.bfloat16
    differs = (ours != expected).float().mean()  # else only a sum that lies between two numbers of bf16
    assert differs < 0.02 if least > 12 else differs > 0.1


def test_grouped_heads_are_full_heads_that_share_keys_and_values() -> None:
    grouped = lively(shape(n_kv_head=2, position="rotary")).blocks[0].attention
    full = CausalSelfAttention(shape(position="rotary"))
    d = grouped.head_dim
    q, k, v = grouped.qkv.weight.split([32, 2 * d, 2 * d])
    repeated = [weight.view(2, d, 32).repeat_interleave(2, dim=0).reshape(32, 32) for weight in (k, v)]
    full.load_state_dict({"qkv.weight": torch.cat((q, *repeated)), "out.weight": grouped.out.weight})
    x = torch.randn(2, 12, 32)
    with torch.no_grad():
        assert torch.allclose(full(x), grouped(x), atol=1e-6)


@pytest.mark.parametrize("heads", [0, 2])
def test_a_value_residual_is_attention_on_a_mixture_of_the_blocks_own_values_and_the_first_blocks(heads: int) -> None:
    model = lively(shape(value_residual=True, n_kv_head=heads, bias=True))
    ids, streams = some_ids(1, 12), []
    outputs: list[Tensor] = []
    for block in model.blocks:
        block.attention.register_forward_pre_hook(lambda _, args: streams.append(args[0][0]))
        block.attention.register_forward_hook(lambda *args: outputs.append(args[-1][0]))
    with torch.no_grad():
        model(ids)
        first, second = (block.attention for block in model.blocks)
        assert first.value_mix is None
        share = float(second.value_mix)
        values = [module.qkv(x).split(module.dims, -1)[2] for module, x in zip((first, second), streams, strict=True)]
        mixed = share * values[0] + (1 - share) * values[1]
        q, k, _ = second.qkv(streams[1]).split(second.dims, -1)
        d, group = second.head_dim, second.n_head // second.n_kv_head
        answers = torch.zeros(12, 32)
        for head in range(4):
            kv = slice(head // group * d, (head // group + 1) * d)
            own = slice(head * d, (head + 1) * d)
            for position in range(12):
                scores = q[position, own] @ k[: position + 1, kv].T / math.sqrt(d)
                answers[position, own] = scores.softmax(-1) @ mixed[: position + 1, kv]
        assert torch.allclose(outputs[1], second.out(answers), atol=1e-5)
    with pytest.raises(AssertionError, match="the first one's values"):
        second(streams[1][None])


def test_a_share_of_zero_in_the_values_is_a_model_without_value_residuals() -> None:
    mixed, plain = lively(shape(value_residual=True)), lively(shape())
    state = mixed.state_dict()
    plain.load_state_dict({name: weight for name, weight in state.items() if not name.endswith("value_mix")})
    ids = some_ids(2, 12)
    with torch.no_grad():
        assert not torch.allclose(mixed(ids), plain(ids), atol=1e-2)
        mixed.blocks[1].attention.value_mix.zero_()
        assert torch.equal(mixed(ids), plain(ids))
        assert float(GPT(shape(value_residual=True), VOCAB).blocks[1].attention.value_mix) == 0.5


def test_as_many_key_value_heads_as_heads_are_full_heads() -> None:
    ids = some_ids(2, 12)
    full, named = lively(shape()), lively(shape(n_kv_head=4))
    named.load_state_dict(full.state_dict())
    with torch.no_grad():
        assert torch.equal(full(ids), named(ids))


def test_rotary_products_depend_on_the_distance_alone() -> None:
    rotary = Rotary(8, 50)
    q, k = torch.randn(2, 8)

    def product(place_q: int, place_k: int) -> float:
        rows = torch.zeros(1, 1, 50, 8)
        rows[0, 0, place_q] = q
        turned_q = rotary(rows)[0, 0, place_q]
        rows[0, 0, place_k] = k
        return float(turned_q @ rotary(rows)[0, 0, place_k])

    for distance in (0, 1, 7, 30):
        products = [product(position, position - distance) for position in range(distance, 50)]
        assert max(products) - min(products) < 1e-4
    assert abs(product(9, 8) - product(9, 3)) > 1e-3
    assert product(20, 20) == pytest.approx(float(q @ k), abs=1e-5)


def test_layer_norm_is_its_formula() -> None:
    norm = lively(shape(bias=True)).final_norm
    x = torch.randn(3, 5, 32) * 4 + 2
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    expected = (x - mean) / torch.sqrt(variance + 1e-5) * norm.weight + norm.bias
    assert torch.allclose(norm(x), expected, atol=1e-5)


def test_rms_norm_is_its_formula_and_has_no_bias() -> None:
    norm = lively(shape(norm="rmsnorm", bias=True)).final_norm
    x = torch.randn(3, 5, 32) * 4 + 2
    expected = x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5) * norm.weight
    assert torch.allclose(norm(x), expected, atol=1e-5)
    assert norm.bias is None


def test_gelu_feed_forward_is_gpt2s_formula() -> None:
    module = lively(shape(bias=True)).blocks[0].feed_forward
    x = torch.randn(2, 3, 32)
    u = x @ module.up.weight.T + module.up.bias
    hidden = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
    assert module.up.weight.shape == (128, 32)
    assert torch.allclose(module(x), hidden @ module.down.weight.T + module.down.bias, atol=1e-5)


def test_the_exact_gelu_is_its_formula_and_close_to_gpt2s() -> None:
    exact = lively(shape(bias=True, activation="gelu_exact")).blocks[0].feed_forward
    x = torch.randn(2, 3, 32)
    u = exact.up(x)
    hidden = 0.5 * u * (1 + torch.erf(u / math.sqrt(2)))
    assert torch.allclose(exact(x), exact.down(hidden), atol=1e-6)
    u = torch.linspace(-6, 6, 10_001)
    furthest = (torch.nn.functional.gelu(u) - torch.nn.functional.gelu(u, approximate="tanh")).abs().max()
    assert 4e-4 < furthest < 5e-4


def test_swiglu_feed_forward_is_its_formula_with_about_as_many_parameters() -> None:
    module = lively(shape(activation="swiglu")).blocks[0].feed_forward
    x = torch.randn(2, 3, 32)
    gate, up = x @ module.gate.weight.T, x @ module.up.weight.T
    expected = (gate * torch.sigmoid(gate) * up) @ module.down.weight.T
    assert torch.allclose(module(x), expected, atol=1e-5)
    plain, gated = FeedForward(shape(n_embd=384)), FeedForward(shape(n_embd=384, activation="swiglu"))
    counts = [sum(parameter.numel() for parameter in ff.parameters()) for ff in (plain, gated)]
    assert counts[1] == pytest.approx(counts[0], rel=0.01)


def test_squared_relu_is_its_formula_and_as_wide_as_gelu() -> None:
    module = lively(shape(activation="relu2", bias=True)).blocks[0].feed_forward
    x = torch.randn(2, 3, 32)
    up = x @ module.up.weight.T + module.up.bias
    hidden = torch.where(up > 0, up * up, 0.0)
    assert module.up.weight.shape == (128, 32)
    assert torch.allclose(module(x), hidden @ module.down.weight.T + module.down.bias, atol=1e-5)


def test_a_block_adds_to_the_stream_what_it_read_from_a_normalised_copy() -> None:
    block: Block = lively(shape(bias=True)).blocks[0]
    x = torch.randn(1, 6, 32)
    middle = x + block.attention(block.attention_norm(x))
    assert torch.equal(block(x), middle + block.feed_forward(block.feed_forward_norm(middle)))


def test_the_whole_is_embeddings_blocks_norm_and_the_tied_head() -> None:
    model = lively(shape(bias=True))
    ids = some_ids(2, 7)
    x = model.token_embedding.weight[ids] + model.position_embedding.weight[:7]
    for block in model.blocks:
        x = block(x)
    assert torch.allclose(model(ids), model.final_norm(x) @ model.token_embedding.weight.T, atol=1e-5)


def test_the_head_is_the_embedding_and_learns_from_both_uses() -> None:
    model = lively(shape())
    assert model.unembedding is model.token_embedding.weight
    assert sum(parameter.shape[0] == VOCAB for parameter in model.parameters()) == 1
    ids = torch.zeros(1, 4, dtype=torch.long)
    model.loss(ids, torch.full_like(ids, 5)).backward()
    gradient = model.token_embedding.weight.grad
    assert gradient is not None
    assert gradient[0].abs().sum() > 0  # read as input
    assert gradient[5].abs().sum() > 0  # wanted as output


def test_an_untied_head_with_the_embeddings_rows_is_the_tied_one_and_their_gradients_add_up_to_its() -> None:
    tied, untied = lively(shape()), lively(shape(untied_head=True))
    untied.load_state_dict(tied.state_dict() | {"head.weight": tied.token_embedding.weight})
    ids = some_ids(2, 12)
    assert torch.equal(untied(ids), tied(ids))
    for model in (tied, untied):
        model.loss(ids, ids.flip(1)).backward()
    whole = tied.token_embedding.weight.grad
    assert whole is not None
    read, said = untied.token_embedding.weight.grad, untied.head.weight.grad
    assert torch.allclose(read + said, whole, atol=1e-7)
    assert read.any()
    assert said.any()


def test_a_softcap_is_its_formula_and_holds_wherever_logits_come_from() -> None:
    plain, model = lively(shape()), lively(shape(logit_softcap=1.5))
    ids = some_ids(2, 12)
    with torch.no_grad():
        uncapped = plain(ids)
        up, down = (uncapped / 1.5).exp(), (-uncapped / 1.5).exp()
        expected = 1.5 * (up - down) / (up + down)
        assert uncapped.abs().max() > 1.5 >= expected.abs().max()
        assert torch.allclose(model(ids), expected, atol=1e-5)
        assert torch.allclose(model.next_token(ids), expected[:, -1], atol=1e-5)
        loss = torch.nn.functional.cross_entropy(expected.flatten(0, 1), ids.flip(1).flatten())
        assert model.loss(ids, ids.flip(1)).item() == pytest.approx(loss.item(), abs=1e-5)


def test_with_mup_a_block_begins_smaller_scores_are_divided_by_the_heads_width_and_logits_by_the_ratio() -> None:
    torch.manual_seed(0)
    plain = GPT(shape(n_embd=64, qk_norm=True, untied_head=True), VOCAB)
    torch.manual_seed(0)
    model = GPT(shape(n_embd=64, qk_norm=True, untied_head=True, mup_base_width=16), VOCAB)
    for (name, ours), without in zip(model.named_parameters(), plain.parameters(), strict=True):
        hidden = name.startswith("blocks.") and ours.dim() == 2
        assert torch.allclose(ours, without / 2 if hidden else without), name  # 2: the root of 64 / 16
    x, ids = torch.randn(1, 7, 64), some_ids(2, 7)
    attention = model.blocks[0].attention
    q, k, v = attention.heads(attention.qkv(x))  # [1, 4, 7, 16]
    scores = q @ k.transpose(-1, -2) * 8 / 16 + torch.full((7, 7), -math.inf).triu(1)
    answers = (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)
    assert torch.allclose(attention(x), attention.out(answers), atol=1e-6)
    expected = model.residual_stream(ids) @ model.head.weight.T / 4  # 64 / 16
    assert torch.allclose(model(ids), expected, atol=1e-6)
    assert torch.allclose(model.next_token(ids), expected[:, -1], atol=1e-6)
    loss = torch.nn.functional.cross_entropy(expected.flatten(0, 1), ids.flip(1).flatten())
    assert model.loss(ids, ids.flip(1)).item() == pytest.approx(loss.item(), abs=1e-6)


def test_the_loss_is_cross_entropy_of_the_logits() -> None:
    model = lively(shape())
    ids, targets = some_ids(3, 8), some_ids(3, 8, seed=2)
    log_p = model(ids).log_softmax(-1)
    expected = -sum(log_p[b, t, targets[b, t]] for b in range(3) for t in range(8)) / 24
    assert model.loss(ids, targets).item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_padded_vocabulary_adds_rows_that_are_never_written() -> None:
    settings = shape(vocab_multiple=64)
    assert padded_vocab_size(settings, VOCAB) == 64
    model = lively(settings)
    ids = some_ids(2, 5)
    assert model(ids).shape == (2, 5, 64)
    assert torch.allclose(model.next_token(ids), model(ids)[:, -1, :VOCAB], atol=1e-5)


def test_the_next_token_depends_on_the_last_block_size_tokens_only() -> None:
    model = lively(shape())
    ids = some_ids(1, 40)
    assert torch.equal(model.next_token(ids), model.next_token(ids[:, -12:]))
    assert torch.allclose(model.next_token(ids), model(ids[:, -12:])[:, -1], atol=1e-5)


def test_dropout_acts_in_training_only_and_keeps_the_mean() -> None:
    model = lively(shape(dropout=0.5))
    ids = some_ids(2, 6)
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))
    module = lively(shape(dropout=0.5)).blocks[0].feed_forward
    x = torch.randn(1, 1, 32)
    kept = module(x)
    module.train()
    mean = torch.stack([module(x) for _ in range(4000)]).mean(0)
    assert torch.allclose(mean, kept, atol=0.1 * float(kept.detach().abs().max()))


@pytest.mark.parametrize("activation", ["gelu", "swiglu", "relu2"])
def test_weights_begin_as_gpt2s_do(activation: str) -> None:
    torch.manual_seed(0)
    settings = shape(n_layer=3, n_embd=128, bias=True, activation=activation, block_size=64, untied_head=True)
    model = GPT(settings, 500)
    narrow = 0
    for name, parameter in model.named_parameters():
        if name.endswith(("attention.out.weight", "feed_forward.down.weight")):
            expected = 0.02 / math.sqrt(2 * 3)
            narrow += 1
        elif parameter.dim() == 2:
            expected = 0.02
        else:
            assert torch.equal(parameter, torch.full_like(parameter, 1.0 if name.endswith("weight") else 0.0)), name
            continue
        # 5 standard errors of a standard deviation: 5 / sqrt(2 n).
        assert parameter.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * parameter.numel())), name
        assert abs(parameter.mean().item()) < 5 * expected / math.sqrt(parameter.numel()), name
    assert narrow == 6


def test_with_zeros_in_its_projections_a_model_begins_as_its_embeddings_and_is_otherwise_as_without() -> None:
    models = []
    for zero in (True, False):
        torch.manual_seed(0)
        models.append(GPT(shape(zero_init=zero, bias=True), VOCAB))
    zeros, plain = models
    ids = some_ids(2, 12)
    embedded = zeros.token_embedding(ids) + zeros.position_embedding.weight
    assert torch.equal(zeros.residual_stream(ids), zeros.final_norm(embedded))
    for name, weight in zeros.state_dict().items():
        if name.endswith(("attention.out.weight", "feed_forward.down.weight")):
            assert not weight.any()
            assert plain.get_parameter(name).any()
        else:
            assert torch.equal(weight, plain.get_parameter(name)), name
    # The projections learn from the first step on, and through them all else from the second on.
    optimizer = torch.optim.SGD(zeros.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        zeros.loss(ids, ids.flip(1)).backward()
        assert zeros.blocks[0].attention.out.weight.grad.any()
        assert bool(zeros.blocks[0].attention.qkv.weight.grad.any()) == (step == 1)
        optimizer.step()


def test_the_untrained_model_knows_nothing() -> None:
    torch.manual_seed(0)
    model = GPT(shape(), 1000)
    ids = some_ids(8, 12, vocab_size=1000)
    assert model.loss(ids, ids.flip(1)).item() == pytest.approx(math.log(1000), abs=0.05)


def test_equal_seeds_give_equal_weights_and_others_differ() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([parameter.flatten() for parameter in GPT(shape(), VOCAB).parameters()])

    assert torch.equal(weights(4), weights(4))
    assert not torch.equal(weights(4), weights(5))


@pytest.mark.parametrize("options", [{"bias": True}, COMBINATIONS[-1]], ids=str)
def test_recomputed_activations_change_no_bit_of_the_loss_its_gradients_or_the_next_draw(
    options: dict[str, Any],
) -> None:
    found = []
    for recomputes in (False, True):
        model = lively(shape(**options, dropout=0.2)).train()
        model.recomputes = recomputes
        calls: list[int] = []
        model.blocks[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        loss = model.loss(some_ids(3, 12), some_ids(3, 12, seed=2))
        loss.backward()
        assert len(calls) == 1 + recomputes
        found.append([loss, *(parameter.grad for parameter in model.parameters()), torch.rand(3)])
    assert all(torch.equal(kept, again) for kept, again in zip(*found, strict=True))


def test_a_norm_of_a_constant_vector_is_finite() -> None:
    for kind in ("layernorm", "rmsnorm"):
        assert torch.isfinite(Norm(shape(norm=kind))(torch.zeros(1, 32))).all()


@pytest.mark.slow
def test_a_compiled_model_with_all_of_the_newer_parts_is_one_graph() -> None:
    newer = {"qk_norm": True, "activation": "relu2", "untied_head": True, "logit_softcap": 3.0, "value_residual": True}
    newer |= {"mup_base_width": 8}
    model = lively(shape(**newer, n_kv_head=2, position="rotary"))
    loss = torch.compile(model.loss, backend="eager", fullgraph=True)  # raises where it would have to leave the graph
    torch.testing.assert_close(loss(some_ids(2, 8), some_ids(2, 8)), model.loss(some_ids(2, 8), some_ids(2, 8)))
