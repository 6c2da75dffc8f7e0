"""The worked examples of concept pages, in words and tables, follow from what they are about: a formula, a model's
shape, a corpus, weights before training."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from concept_pages import FOLDER, page, rows_of, written
from page_figures.sources import page_table, printed
from page_figures.sources import said as found_in

from llmlab.core.presets import load_preset
from llmlab.core.progress import quiet
from llmlab.core.settings import DataSettings
from llmlab.data.dataset import load_dataset
from llmlab.data.sequences import fixed_sequences, gather
from llmlab.data.stories import story_entropy
from llmlab.gpt.model import GPT, Block
from llmlab.gpt.shapes import parameter_count
from llmlab.notebook.calibration import wilson
from llmlab.notebook.scoring import brier, interval_score, tail_surprise
from llmlab.studies.papers.statistics import (
    holm,
    random_cosine,
    spearman,
    stratified_permutation_p,
    stratified_spearman,
)

_GPT2 = 50_257  # tokens


def says(name: str, *sentences: str) -> None:
    text = page(name)
    assert [sentence for sentence in sentences if sentence not in text] == []


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def test_what_exact_reasoning_believes_of_a_coin() -> None:
    beliefs = [0.9**n / (0.9**n + 0.5**n) for n in range(6)]
    bits = [-p * math.log2(p) - (1 - p) * math.log2(1 - p) for p in beliefs]
    *first, last = (f"{value:.3f}" for value in bits)
    guessing = [math.log2(8) - math.log2(n) for n in range(8, 1, -1)]
    gaps = " + ".join(f"{gap:.0f}" if gap.is_integer() else f"{gap:.2f}" for gap in guessing)
    says(
        "bayesian-reasoning",
        f"0.9² / (0.9² + 0.5²) = {beliefs[2]:.3f}",
        f"which is {', '.join(first)} and {last} bits",
        f"Uniform guessing is off by ({gaps}) / 7 = {sum(guessing) / 7:.2f} bits",
    )


def test_what_a_prediction_is_worth() -> None:
    at_its_end, beyond = (tail_surprise(0.8, distance) for distance in (1, 2))
    assert interval_score(0, 1, 1.1, 0.8) == pytest.approx(1 + 1)
    four, forty = (" to ".join(f"{100 * end:.0f}" for end in wilson(*counts)) for counts in ((4, 5), (40, 50)))
    says(
        "predicting",
        f"right costs little: {brier(0.8, True):.2f} at 80 %",
        f"wrong costs much: {brier(0.8, False):.2f}",
        f"50 % costs {brier(0.5, True):.2f}",
        f"80 % range it is {at_its_end:.1f} bits, one half width beyond that twice as much",
        f"{at_its_end:.1f} bits at an end of it, {beyond:.1f} one half width beyond",
        "each 0.1 nats outside costs as much as a range that is 1 nat wider",
        f"from {four} %",
        f"from {forty} %",
    )


def _normal(x: float) -> float:
    """The share of a normal distribution below x."""
    return 0.5 * math.erfc(-x / 2**0.5)


def _student(t: float, freedom: int) -> float:
    """The share of Student's distribution between -t and t."""
    x = np.linspace(0, t, 200_001)
    density = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    return 2 * density * float(np.trapezoid((1 + x**2 / freedom) ** (-(freedom + 1) / 2), x))


def test_what_seeds_tell() -> None:
    (_, *ts), (_, *widths) = rows_of("experiments", "seeds n")
    exact = {2: 12.7062, 3: 4.3027, 4: 3.1824, 5: 2.7764, 10: 2.2622}
    assert [_student(t, n - 1) for n, t in exact.items()] == pytest.approx([0.95] * 5, abs=1e-5)
    assert ts == [f"{t:.2f}" for t in exact.values()]
    assert widths == [f"{t / math.sqrt(n):.2f}" for n, t in exact.items()]
    x = np.linspace(-8, 8, 4001)
    share, density = np.array([_normal(one) for one in x]), np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    best = float(np.trapezoid(7 * x * density * share**6, x))
    wrong = [[f"{100 * _normal(-d * math.sqrt(n / 2)):.0f}" for n in (1, 3, 10)] for d in (1, 0.5)]
    (one, three, ten), half = wrong
    says(
        "experiments",
        f"the best of seven single runs lies {best:.2f} s below",
        f"in {one} of 100 cases, three seeds each in {three}, ten in {ten}. At half of s: {half[0]}, {half[1]} and "
        f"{half[2]}.",
    )


def test_what_two_weights_forget() -> None:
    general: Callable[[float, float], float] = lambda a, b: (10 * a**2 + 0.1 * b**2) / 2  # noqa: E731
    target: Callable[[float, float], float] = lambda a, b: ((a - 1) ** 2 + (b - 1) ** 2) / 2  # noqa: E731
    at = [1 - 0.9**step for step in range(61)]  # of both weights: each step goes a tenth of the way
    losses = [(target(w, w), general(w, w)) for w in at]
    steps = (0, 1, 2, 5, 10, 20, 60)
    rows = rows_of("forgetting", "step")
    for row, part in zip(rows[:2], (0, 1), strict=True):
        assert [float(cell) for cell in row[1:]] == pytest.approx([losses[step][part] for step in steps], abs=0.00051)
    front = 1 / (1 + 0.3 * 10), 1 / (1 + 0.3 * 0.1)  # where the gradient of target + 0.3 general is zero
    gains, costs = ([abs(losses[a][part] - losses[b][part]) for a, b in ((0, 1), (20, 60))] for part in (0, 1))
    says(
        "forgetting",
        f"first step gains {gains[0]:.2f} for {costs[0]:.2f}; the last forty gain {gains[1]:.3f} for {costs[1]:.1f}.",
        f"a target of {target(*front):.3f} costs {general(*front):.3f}",
        f"where training, at step 6, paid {losses[6][1]:.3f}",
    )
    assert f"{losses[6][0]:.3f}" == f"{target(*front):.3f}"


def test_what_two_fits_predict() -> None:
    sizes = np.array([1e4, 3e4, 1e5, 3e5, 1e6])
    law: Callable[[np.ndarray], np.ndarray] = lambda n: 1.5 + 0.8 * (n / 30_000) ** -0.4  # noqa: E731
    losses = law(sizes) + 0.01 * np.random.default_rng(0).standard_normal((500, 5))
    slope, start = np.polyfit(np.log(sizes), np.log(losses).T, 1)
    straight, misses = np.exp(start + slope * math.log(1e7)), np.exp(start + np.log(sizes)[:, None] * slope).T - losses
    best, ahead, floors = np.full(500, np.inf), np.zeros(500), np.zeros(500)
    for b in np.arange(0.05, 1.5, 0.002):  # for a given b the rest is linear
        a, c = np.polyfit(sizes**-b, losses.T, 1)
        errors = ((np.outer(a, sizes**-b) + c[:, None] - losses) ** 2).sum(1)
        better = errors < best
        best = np.where(better, errors, best)
        ahead, floors = np.where(better, a * 1e7**-b + c, ahead), np.where(better, c, floors)
    (_, line, miss), (_, floored, _) = rows_of("scaling-laws", "fit")
    between = [" to ".join(f"{end:.3f}" for end in np.percentile(found, [2.5, 97.5])) for found in (straight, ahead)]
    assert [line, floored] == between
    assert miss == f"{abs(misses).max(1).mean():.3f}"
    lowest, highest = np.percentile(floors, [2.5, 97.5])
    says(
        "scaling-laws",
        f"the truth is {float(law(np.array(1e7))):.3f}",
        f"its floor lay between {lowest:.2f} and {highest:.2f}",
    )


def test_what_chance_makes_of_cosines_and_strata() -> None:
    sizes = [f"{random_cosine(d):.3f}" for d in (16, 32, 64, 896)]
    random = np.random.default_rng(0)
    position = np.repeat(np.arange(1, 8), 50)
    entropy = np.log2(9 - position) + 0.1 * random.standard_normal(350)
    axis = position + random.standard_normal(350)
    other = axis - 10 * (entropy - np.log2(9 - position))
    within = [(stratified_spearman(one, entropy, position), one) for one in (axis, other)]
    (first, p), (second, q) = ((rho, stratified_permutation_p(one, entropy, position)) for rho, one in within)
    minus = [f"{number:.2f}".replace("-", "−") for number in (spearman(axis, entropy), first, second)]
    corrected = [f"{value:.3f}".rstrip("0") for value in holm([0.004, 0.03, 0.04])]
    says(
        "statistics-of-claims",
        f"1 − 0.95¹⁰ = {percent(1 - 0.95**10)}",
        f"turns 0.004, 0.03 and 0.04 into {corrected[0]}, {corrected[1]} and {corrected[2]}",
        f"{sizes[0]} for d = 16, {sizes[1]} for 32, {sizes[2]} for 64, {sizes[3]} for 896",
        f"It printed {minus[0]} for the first axis over all samples",
        f"within positions {minus[1]} with p = {p:.2f}",
        f"The second axis has {minus[2]} within positions, with p = {q:.3f}",
    )


def test_how_large_models_and_what_they_send_are() -> None:
    presets = {name: load_preset(name).settings.model for name in ("baby", "nano", "small", "gpt2")}
    for name, vocabulary, parameters, tables, share in rows_of("embeddings", "preset"):
        model, size = presets[name.strip("`")], int(vocabulary.split()[0].replace(",", ""))
        number, of_tables = parameter_count(model, size), (size + model.block_size) * model.n_embd
        assert [parameters, tables, share] == [f"{number:,}", f"{of_tables:,}", percent(of_tables / number)]
        assert size in (84, _GPT2)
    baby = presets["baby"]
    whole, turned = (parameter_count(replace(baby, position=position), 84) for position in ("learned", "rotary"))
    says("embeddings", f"`baby` has {turned:,} instead of {whole:,}", f"the {whole - turned:,} more parameters")
    says("many-processes", f"For `baby` with its {whole:,} parameters and N = 2 that is {4 * whole / 1e6:.1f} MB.")
    says("checkpoints", f"about {whole / 1e6:.1f} million parameters, which makes roughly {12 * whole / 1e6:.0f} MB")
    says("distillation", f"a network of {84 * 8 + 8 * 84:,} weights")


def test_what_4_bits_cost_smollm2() -> None:
    layers, width, keys, hidden, tokens = 30, 576, 192, 1536, 49_152
    matrices = layers * (2 * width**2 + 2 * width * keys + 3 * width * hidden)
    rest = tokens * width + (2 * layers + 1) * width  # of the embedding and of the norms
    attention = layers * 8 * (4 * width + 2 * (width + keys))
    adapter = attention + layers * 8 * 3 * (width + hidden)
    bits = 4 + 8 / 64 + 32 / (64 * 256)
    of_lora, of_qlora = (4 * (matrices + rest) + 16 * adapter, bits / 8 * matrices + 4 * rest + 16 * adapter)
    says(
        "quantisation",
        f"SmolLM2-135M has {matrices + rest:,} parameters, of which {matrices:,} are in the matrices",
        f"needs {16 * (matrices + rest) / 1e9:.2f} GB for these alone, LoRA with r = 8 on all matrices "
        f"{of_lora / 1e9:.2f} GB, QLoRA {of_qlora / 1e9:.2f} GB",
        f"= {bits:.3f} \\text{{ bits}}",
        f"| QLoRA | {bits / 8:.2f} bytes |",
    )
    assert 4 * rest > of_qlora / 2
    parts = f"{attention:,} in attention and {adapter - attention:,} in the feed-forward"
    says("lora", f"{adapter:,} parameters, {percent(adapter / (matrices + rest), 1)} of the model: {parts}")


def test_the_loss_of_a_fresh_model_with_gpt2s_vocabulary_on_how_to_read_a_curve() -> None:
    for name in ("1-loss-curve", "7-answers"):
        text = (FOLDER.parent / f"how-to-read/{name}.md").read_text(encoding="utf-8")
        assert re.findall(r"50,257[^.]*?(\d+\.\d+)", text) == [f"{math.log(_GPT2):.2f}"]


def test_what_the_levels_of_4_bits_are_good_for() -> None:
    line = found_in("quantisation", r"^> (.*)$").replace("−", "-")
    levels = {"NF4": torch.tensor([float(level) for level in line.split(",")]).double()}
    levels["FP4"] = torch.tensor([sign * x / 12 for sign in (-1, 1) for x in (0, 0.0625, 2, 3, 4, 6, 8, 12)])
    levels["even"] = torch.linspace(-1, 1, 15)
    torch.manual_seed(0)
    bell = torch.randn(1024, 1024).double()

    def read(weights: torch.Tensor, kind: str, block: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What is read back, and the codes."""
        scale = weights.reshape(-1, block).abs().amax(1, keepdim=True)
        sorted_levels = levels[kind].sort().values
        edges = (sorted_levels[1:] + sorted_levels[:-1]) / 2
        code = torch.bucketize(weights.reshape(-1, block) / scale, edges)
        return (scale * sorted_levels[code]).reshape(weights.shape), code

    def error(weights: torch.Tensor, kind: str, block: int = 64) -> float:
        return float((read(weights, kind, block)[0] - weights).norm() / weights.norm())

    for block, bits, *cells in rows_of("quantisation", "block"):
        size = int(block.replace(",", ""))
        assert cells == [percent(error(bell, kind, size), 1) for kind in levels]
        assert float(bits) == pytest.approx(4 + 32 / size, abs=0.005)
    uses = [read(bell, "NF4", block)[1].flatten().bincount(minlength=16) / bell.numel() for block in (64, 1024)]
    torch.manual_seed(0)
    flat = 2 * torch.rand(1024, 1024) - 1
    x = torch.randn(1024).double()
    product = float(((read(bell, "NF4", 64)[0] - bell) @ x).norm() / (bell @ x).norm())
    spoiled = bell.reshape(-1, 64).clone()
    spoiled[:, 0] = 30
    off = (read(spoiled, "NF4", 64)[0] - spoiled)[:, 1:].norm() / spoiled[:, 1:].norm()
    assert [int(uses[0].argmin()), int(uses[0].argmax())] == [15, 6]
    says(
        "quantisation",
        f"between {percent(float(uses[0].min()), 1)} (the one at 1)",
        f"and {percent(float(uses[0].max()), 1)} (the one at −0.091)",
        f"between {percent(float(uses[1].min()), 1)} and {percent(float(uses[1].max()))} at 1,024",
        f"even levels win: {percent(error(flat, 'even'), 1)} against {percent(error(flat, 'NF4'), 1)}",
        f"was off by {percent(product, 1)}.",
        f"grew from {percent(error(bell, 'NF4'))} to {percent(float(off))}",
    )


@torch.no_grad()
def test_what_an_untrained_model_has_in_its_stream_and_looks_at() -> None:
    text = load_dataset(DataSettings(corpus="shakespeare", tokenizer="char"), 64, quiet)
    ids = torch.from_numpy(gather(text.val, fixed_sequences(text.val, 64, 32), 64)[0])
    baby = load_preset("baby").settings.model

    def sizes(model: GPT) -> list[str]:
        x = model.token_embedding(ids) + model.position_embedding.weight
        streams = [x]
        for block in model.blocks:
            streams.append(block(streams[-1]))
        return [f"{float(one.square().mean().sqrt()):.3f}" for one in (streams[0], streams[-1])]

    for blocks, *cells in rows_of("residual-stream", "blocks"):
        torch.manual_seed(1337)
        model = GPT(replace(baby, n_layer=int(blocks)), 84)
        found = sizes(model)
        for name, weight in model.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                weight *= math.sqrt(2 * int(blocks))
        assert cells == [*found, sizes(model)[1]]
    torch.manual_seed(1337)
    model = GPT(baby, 84)
    first = model.blocks[0]
    assert isinstance(first, Block)
    x = first.attention_norm(model.token_embedding(ids) + model.position_embedding.weight)
    q, k, _ = first.attention.heads(first.attention.qkv(x))
    last = (q[:, :, -1:] @ k.transpose(-2, -1) / 32**0.5).softmax(-1)
    says("attention", f"a share of {float(last.mean()):.4f} on average", f"and four heads is {float(last.max()):.4f}")


def test_what_knowing_frequencies_or_a_generator_costs() -> None:
    letters, stories = (
        load_dataset(DataSettings(corpus=corpus, tokenizer=tokenizer), 64, quiet)
        for corpus, tokenizer in (("shakespeare", "char"), ("stories", "compact"))
    )
    assert stories.floor_loss is not None
    rows = rows_of("loss", "corpus and tokens")
    for (_, uniform, unigram, floor), text in ((rows[0], letters), (rows[2], stories)):
        size = text.tokenizer.vocab_size
        assert uniform == f"ln {size:,} = {math.log(size):.2f}"
        assert unigram == f"{text.unigram_loss:.2f}"
        assert floor == ("not known" if text.floor_loss is None else f"{text.floor_loss:.3f}")
    said = f"{letters.unigram_loss:.2f} is a perplexity of {math.exp(round(letters.unigram_loss, 2)):.1f}"
    tokens = story_entropy() / stories.floor_loss
    says(
        "loss",
        f"A loss of {said}",
        f"contains {story_entropy():.2f} nats of choices on average. They are spread over {tokens:.1f} tokens",
        f"which makes {stories.floor_loss:.3f} nats per token",
    )
    for name, floors, frequencies in (
        ("attention", 2, 0),
        ("evaluation", 2, 0),
        ("loss", 3, 4),
        ("n-grams", 1, 0),
        ("optimisation", 0, 1),
    ):
        assert page(name).count(f"{stories.floor_loss:.3f}") == floors
        assert page(name).count(f"{letters.unigram_loss:.2f}") == frequencies
    read = f"{len(letters.train) / 1e6:.1f} million letters"
    says("distillation", f"counted on the {read}", f"the teacher had read {read}")


def test_how_much_longer_a_step_of_two_processes_takes() -> None:
    text = (
        (FOLDER.parent / "results/benchmarks.md").read_text(encoding="utf-8").partition("one: estimated, measured")[2]
    )
    one, *two = (
        float(re.findall(rf"^{run} .* (\d\.\d{{3}}) +[+-]\d+%(?: +\d\.\d+)?$", text, re.MULTILINE)[0])
        for run in ("baby ", "baby, ddp of 2", "baby, fsdp2 of 2")
    )
    ddp, fsdp = (f"{other / one:.1f}" for other in two)
    says("many-processes", f"took {ddp} times as long as that of one with DDP, and {fsdp} times with FSDP2")


def test_how_much_is_shared_by_rows_of_words_and_what_noise_costs() -> None:
    whole, noisy = (float(printed("data-quality")[line].split()[-1]) for line in (0, 3))
    texts = "the cat sat on the mat", "the mat sat on the cat"
    first, second = ({*pairwise(text.split())} for text in texts)
    shared, among = len(first & second), len(first | second)
    says(
        "data-quality",
        f'"{texts[0]}", and "{texts[1]}" share {shared} of {among}, so J is {shared / among:.2f}',
        f"share 86 have J = 86/{200 - 86} = {86 / (200 - 86):.2f}",
        f"Half noise costs {noisy - whole:.2f} nats",
    )


def test_what_a_rate_does_in_a_valley_and_in_noise() -> None:
    for rate, *cells in rows_of("learning-rate", "learning rate"):
        weights = [abs(1 - float(rate) * slope) ** 100 for slope in (1, 10, 100)]
        loss = sum(slope * weight**2 for slope, weight in zip((1, 10, 100), weights, strict=True)) / 2
        found = [written(value, cell) for value, cell in zip((loss, weights[0], weights[2]), cells, strict=True)]
        if loss > 100:
            found[::2] = f"{loss / 1e9:.1f} · 10⁹", f"{round(weights[2], -2):,.0f}"
        assert cells == found
    (_, *rates), (_, *cells) = page_table("learning-rate", "learning rate", 1)
    torch.manual_seed(0)
    groups = [torch.ones(200, 20) for _ in rates]
    parts = [{"params": [one], "lr": float(rate)} for one, rate in zip(groups, rates, strict=True)]
    optimizer = torch.optim.Adam(parts)
    for _ in range(200):
        for one in groups:
            one.grad = one + torch.randn(200, 20)
        optimizer.step()
    losses = [float(one.square().mean()) / 2 for one in groups]
    assert cells == [written(loss, cell) for loss, cell in zip(losses, cells, strict=True)]


def test_what_a_score_of_32_questions_tells() -> None:
    error = math.sqrt(0.5 * 0.5 / 32)
    low, high = (percent(0.5 + sign * 1.96 * error) for sign in (-1, 1))
    says("fine-tuning", f"for 16 right of 32 is {error:.3f}", f"somewhere between {low} and {high}")
    says("fine-tuning", f"A rise from {percent(16 / 32)} to {percent(18 / 32)} on 32 questions")
