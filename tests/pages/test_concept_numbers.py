"""What the concept pages compute: their code prints what they say, and their tables follow from their formulas."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from concept_pages import FOLDER, page, rows_of

from llmlab.core.presets import load_preset
from llmlab.core.progress import quiet
from llmlab.core.settings import DataSettings, ModelSettings
from llmlab.data.dataset import load_dataset
from llmlab.gpt.cache import Cache
from llmlab.gpt.shapes import block_layers, feed_forward_dim, parameter_count
from llmlab.gpt.toy import IDS, TARGETS, WORDS, toy_model

# Code, and what it prints.
_PRINTED = re.compile(r"^```python\n(.*?)^```\n\n^```text\n(.*?)^```", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"^```python\n", re.MULTILINE)
_TOY = re.compile(r"llmlab.gpt.toy|\[the toy\]\(concept:")
# Every page computes something with the toy, but for these.
WITHOUT_THE_TOY = {
    "experiments": "trials with several seeds are compared",
    "grokking": "what is learned needs thousands of steps, and examples that were left out",
}
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
# Pages whose models train until another processor's rounding shows: their numbers hold within this much.
_TRAINED = ("in-context-learning", "probes-and-steering")
_NEAR, _NEAR_PERCENT = 0.1, 10
# Pages whose code takes seconds: those, and others.
_OTHERS = (
    "data-quality distillation edge-of-stability evaluation long-context mixtures-of-experts n-grams "
    "statistics-of-claims superposition"
)
_SLOW = (*_TRAINED, *_OTHERS.split())


WITH_CODE = [path.stem for path in sorted(FOLDER.glob("*.md")) if _CODE.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in _SLOW else name for name in WITH_CODE]
)
def test_the_code_on_a_page_prints_what_the_page_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # what it writes
    blocks = _PRINTED.findall(page(name))
    assert len(blocks) == len(_CODE.findall(page(name)))
    names: dict[str, object] = {}
    for code, printed in blocks:
        exec(compile(code, name, "exec"), names)
        out = capsys.readouterr().out
        if name not in _TRAINED:
            assert out == printed
            continue
        assert _NUMBER.sub("", out).split() == _NUMBER.sub("", printed).split()
        for found, said in zip(_NUMBER.findall(out), _NUMBER.findall(printed), strict=True):
            near = _NEAR if "." in said else _NEAR_PERCENT
            assert float(found) == pytest.approx(float(said), abs=near), (found, said)


def test_the_toy_runs_through_every_page_but_for_those_with_a_reason() -> None:
    without = {path.stem for path in FOLDER.glob("*.md") if not _TOY.search(path.read_text(encoding="utf-8"))}
    assert without == set(WITHOUT_THE_TOY)


def test_every_symbol_of_a_shape_is_explained() -> None:
    first = re.findall(r"^\| (.+?) \|", page("notation"), re.MULTILINE)
    known = {symbol for cell in first for symbol in re.findall(r"[A-Za-z_]+", cell)}
    for path in FOLDER.glob("*.md"):
        prose = _FENCE.sub(lambda fence: fence[2] if fence[1] == "math" else "", path.read_text(encoding="utf-8"))
        shapes = re.findall(r"\[([\w/ ]+(?:, [\w/ ]+)+)\](?!\()", prose)
        used = {symbol for shape in shapes for symbol in re.findall(r"[A-Za-z_]+", shape)}
        assert used - known == set(), path.name


def test_the_model_of_the_notation_page() -> None:
    shape = ModelSettings(n_layer=2, n_head=4, n_embd=64, block_size=64, bias=False)
    assert shape == replace(load_preset("baby").settings.model, n_layer=2, n_embd=64)
    assert f"it was {parameter_count(shape, 84):,}:" in page("notation")
    assert feed_forward_dim(shape) == 256


def test_shapes_and_parameters_of_the_forward_pass() -> None:
    toy, ids = toy_model(), IDS
    block = toy.blocks[0]
    assert isinstance(block.attention, torch.nn.Module)
    x = toy.token_embedding(ids)
    q, _, v = block.attention.heads(block.attention.qkv(x))
    weights = {name: weight.numel() for name, weight in toy.named_parameters()}
    of = lambda part: sum(number for name, number in weights.items() if part in name)  # noqa: E731
    expected = [
        (x.shape[1:], "24 + 20", of("token_embedding") + of("position_embedding")),
        (x.shape[1:], "16", of("norm") - of("final_norm")),
        (q.shape[1:], "96", of("qkv")),
        ((*q.shape[1:3], q.shape[2]), "0", 0),
        (v.shape[1:], "0", 0),
        (block.attention(x).shape[1:], "32", of("attention.out")),
        (block.feed_forward.up(x).shape[1:], "128", of("up")),
        (block.feed_forward(x).shape[1:], "128", of("down")),
        (x.shape[1:], "4", of("final_norm")),
        (toy(ids).shape[1:], "0: E is used again", 0),
    ]
    for (_, _, _, here, parameters), (shape, said, number) in zip(
        rows_of("forward-pass", "stage"), expected, strict=True
    ):
        assert here == " × ".join(map(str, shape))
        assert parameters == said
        assert sum(int(part) for part in re.findall(r"\d+", said)) == number
    assert f"These are {sum(weights.values())} parameters" in page("forward-pass")


def test_what_the_toy_sees_and_should_predict() -> None:
    seen, predicted = ([WORDS[id] for id in ids[0]] for ids in (IDS, TARGETS))
    assert rows_of("tokens", "position") == [["sees", *seen], ["should predict", *predicted]]


def test_the_neurons_that_add_most() -> None:
    toy = toy_model()
    block = toy.blocks[0]
    x = toy.token_embedding(IDS) + toy.position_embedding.weight
    x = block.feed_forward_norm(x + block.attention(block.attention_norm(x)))[0, -1]
    matches = block.feed_forward.up.weight @ x
    neurons = torch.nn.functional.gelu(matches, approximate="tanh")
    adds = neurons[:, None] * block.feed_forward.down.weight.T  # [16, 4]
    torch.testing.assert_close(adds.sum(0), block.feed_forward(x))
    expected = [
        [str(n), f"{matches[n]:.2f}", f"{neurons[n]:.2f}", ", ".join(f"{number:.2f}" for number in adds[n].tolist())]
        for n in adds.norm(dim=-1).topk(4).indices.tolist()
    ]
    assert expected == [[cell.replace("−", "-") for cell in row] for row in rows_of("feed-forward", "neuron")]
    assert f"{int((neurons.abs() < 0.1).sum())} of the 16 are within 0.1 of zero" in page("feed-forward")


def test_the_scores_of_the_toys_heads() -> None:
    toy = toy_model()
    x = toy.token_embedding(IDS) + toy.position_embedding.weight
    i = torch.arange(5)
    expected = []
    for layer, block in enumerate(toy.blocks):
        q, k, _ = block.attention.heads(block.attention.qkv(block.attention_norm(x)))
        scores = (q @ k.transpose(-2, -1) / 2**0.5)[0].masked_fill(i[:, None] < i, -torch.inf)
        for head, A in enumerate(scores.softmax(-1)):
            entropy, distance = -torch.xlogy(A, A).sum(-1), (A * (i[:, None] - i)).sum(-1)
            means = (entropy[1:].mean(), A.diagonal(-1).mean(), A[1:, 0].mean(), distance[1:].mean())
            expected.append([f"layer {layer}, head {head}", *(f"{mean:.2f}" for mean in means)])
        x = block(x)
    assert expected == rows_of("attention-patterns", "head")


def test_the_gradient_of_a_norm_is_that_of_the_table() -> None:
    torch.manual_seed(0)
    x, g = torch.randn(2, 5, 4, dtype=torch.float64)
    w = torch.randn(4, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.layer_norm(x.requires_grad_(), (4,), w, eps=0).backward(g)
    s, h = x.std(-1, unbiased=False, keepdim=True), g * w
    n = (x - x.mean(-1, keepdim=True)) / s
    by_hand = (h - h.mean(-1, keepdim=True) - n * (h * n).mean(-1, keepdim=True)) / s
    torch.testing.assert_close(x.grad, by_hand)
    torch.testing.assert_close(w.grad, (g * n).sum(0))
    assert "| (h − mean of h − n · mean of h ⊙ n) / s, where h = g ⊙ w | g ⊙ n, summed over" in page("backpropagation")


def test_a_changed_word_changes_later_rows_alone() -> None:
    toy, ids = toy_model(), IDS
    changed = (toy(torch.tensor([[0, 1, 4, 3, 0]])) - toy(ids))[0].abs().amax(-1)
    assert (changed > 1e-3).tolist() == [False, False, True, True, True]
    assert changed[:2].max() < 1e-6


def test_the_bytes_of_the_key_value_caches() -> None:
    toy, ids = toy_model(), IDS
    cache = Cache(n_layer=2, slots=5)
    cache.expect(torch.arange(4)[None])
    toy.residual_stream(ids[:, :4], cache)
    cache.expect(torch.tensor([[4]]))
    last = toy.logits(toy.residual_stream(ids[:, 4:], cache))
    torch.testing.assert_close(last, toy(ids)[:, 4:])
    held = sum(part.nbytes for layer in cache.layers for part in layer.kept)
    sizes = []
    for _, layers, width, tokens, each, said in rows_of("sampling", "model"):
        number = 2 * math.prod(int(cell.replace(",", "")) for cell in (layers, width, tokens, each))
        amount, unit = said.split()
        scale = {"bytes": 1, "MB": 1e6, "GB": 1e9}[unit]
        digits = len(amount.partition(".")[2])
        assert f"{number / scale:.{digits}f}" == amount
        sizes.append(number)
    assert sizes[0] == held
    for name, row in (("baby", 1), ("gpt2", 2)):
        model = load_preset(name).settings.model
        _, *cells = rows_of("sampling", "model")[row][:4]
        assert [int(cell.replace(",", "")) for cell in cells] == [model.n_layer, model.n_embd, model.block_size]


def test_the_formats_of_numbers() -> None:
    bits = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    exponents = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
    for name, said, largest, smallest, step in rows_of("mixed-precision", "format"):
        info = torch.finfo(bits[name])
        exponent, fraction = map(int, said.split(", "))
        assert 1 + exponent + fraction == info.bits
        assert info.eps == 2.0**-fraction
        for cell, value in ((largest, info.max), (smallest, info.smallest_normal), (step, info.eps)):
            number = float(cell.replace(",", "").replace(" · 10", "e").translate(exponents))
            assert number == pytest.approx(value, rel=0.03)


def test_all_and_active_parameters_of_mixtures() -> None:
    baby = load_preset("baby").settings.model
    feeds = baby.n_layer * sum(a * b for attention, a, b in block_layers(baby) if not attention)
    layers, width, kv, hidden, vocab = 32, 4096, 1024, 14336, 32000  # of both large ones
    attention = layers * (2 * width**2 + 2 * width * kv) + (2 * layers + 1) * width
    sizes = {
        "`baby`": (parameter_count(baby, 84) - feeds, feeds),
        "Mi": (attention + 2 * vocab * width, layers * 3 * width * hidden),
    }
    for name, rest, feed, experts, used, whole, active in rows_of("mixtures-of-experts", "model"):
        a, f = next(size for begins, size in sizes.items() if name.startswith(begins))
        for said, number in ((rest, a), (feed, f), (whole, a + int(experts) * f), (active, a + int(used) * f)):
            amount, unit = said[:-1], said[-1]
            digits = len(amount.partition(".")[2])
            assert f"{number / {'M': 1e6, 'B': 1e9}[unit]:.{digits}f}" == amount


def test_what_a_long_context_costs() -> None:
    cache, share = rows_of("long-context", "Llama 3 8B, T =")
    layers, width, kv, weights = 32, 4096, 1024, 8.03e9
    for time, held, said in zip((8192, 131_072, 1_048_576), cache[1:], share[1:], strict=True):
        amount, digits = held.removesuffix(" GB"), len(held.partition(".")[2].removesuffix(" GB"))
        assert f"{2 * layers * kv * time * 2 / 1e9:.{digits}f}" == amount
        attention = 4 * layers * width * time
        assert said == f"{attention / (attention + 2 * weights):.0%}".replace("%", " %")
    assert "32 layers of 4,096 are 131,072" in page("long-context")


def test_what_a_batch_costs() -> None:
    steps, sequences = rows_of("critical-batch-size", "B / B_crit")
    for share, step, sequence in zip((1 / 16, 1 / 4, 1, 4, 16), steps[1:], sequences[1:], strict=True):
        assert float(step) == pytest.approx(1 + 1 / share, abs=0.005)
        assert float(sequence) == pytest.approx(1 + share, abs=0.005)
        assert (1 / share) * share == 1  # (S / S_min - 1) (E / E_min - 1)


def test_how_uncertain_and_how_sudden_a_score_is() -> None:
    (_, *halves) = rows_of("evaluation", "questions n")[0]
    for count, said in zip((32, 100, 1_000, 10_000), halves, strict=True):
        assert float(said.removesuffix(" %")) == pytest.approx(196 * math.sqrt(0.25 / count), rel=0.03)
    (_, *wholes) = rows_of("evaluation", "q")[0]
    for each, said in zip((0.5, 0.8, 0.9, 0.95, 0.99), wholes, strict=True):
        assert said == f"{each**10:.1%}".replace("%", " %")


def test_how_often_near_copies_are_found() -> None:
    (_, *found), *_ = rows_of("data-quality", "J")
    for alike, said in zip((0.5, 0.7, 0.75, 0.8, 0.85), found, strict=True):
        in_no_band = (1 - alike**8) ** 14
        assert said == f"{100 * (1 - in_no_band):.1f} %"


def test_what_attention_moves() -> None:
    _, printed = _PRINTED.findall(page("flash-attention"))[0]
    for line in printed.splitlines()[1:]:
        T, whole, _, blocked, _, same = line.split()
        tokens, width, block = int(T), 64, 64
        steps = tokens // block * (tokens // block + 1) // 2  # blocks up to the diagonal
        assert float(whole) == round(4 * (4 * tokens**2 + 4 * tokens * width) / 1e6, 1)
        assert float(blocked) == round(4 * (2 * tokens * width + steps * 2 * block * width) / 1e6, 1)
        assert same == "True"


def test_the_fine_tuning_pages_interval_of_a_score() -> None:
    error = math.sqrt(0.25 / 32)
    low, high = 0.5 - 1.96 * error, 0.5 + 1.96 * error
    said = f"is {error:.3f}, so with 95 % confidence 50 % means somewhere between {low:.0%} and {high:.0%}"
    assert said.replace("33%", "33 %").replace("67%", "67 %") in page("fine-tuning")


def test_bigrams_of_shakespeares_letters_are_as_good_as_the_page_says() -> None:
    text = load_dataset(DataSettings(corpus="shakespeare", tokenizer="char"), 64, quiet)
    size = text.tokenizer.vocab_size
    train, val = (np.asarray(part, dtype=np.int64) for part in (text.train, text.val))
    one = (np.bincount(train, minlength=size) + 1 / size) / (len(train) + 1)
    two = np.bincount(train[:-1] * size + train[1:], minlength=size * size).reshape(size, size)
    p = (two + one) / (two.sum(1, keepdims=True) + 1)
    losses = -np.log(one[val]).mean(), -np.log(p[val[:-1], val[1:]]).mean()
    assert "print {:.3f}, {:.3f}, 2.036".format(*losses) in page("n-grams")


def test_what_the_scaling_laws_say() -> None:
    assert f"multiply the loss by {10**-0.076:.2f}, ten times the text by {10**-0.095:.2f}" in page("scaling-laws")
    for _, n, d, floor, of_n, of_d, loss in rows_of("scaling-laws", "model"):
        (billions, ten), (thousands, twelve) = (cell.split(" · 10") for cell in (n, d))
        assert (ten, twelve) == ("⁹", "¹²")
        parts = 406.4 / (float(billions) * 1e9) ** 0.34, 410.7 / (float(thousands) * 1e12) ** 0.28
        assert [of_n, of_d, loss] == [f"{part:.3f}" for part in (*parts, float(floor) + sum(parts))]


def test_the_rate_to_begin_with_has_the_losses_of_the_runs_that_it_names() -> None:
    losses = re.findall(r"to (\d\.\d{3}) with", page("learning-rate"))
    assert f"at step 200 were {', '.join(losses[:3])} and {losses[3]}, in this order" in page("optimisation")
