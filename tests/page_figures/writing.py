"""Figures of the pages about text, fine-tuning, and what a number is worth."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch

from llmlab.data.chat_formats import PlainFormat
from llmlab.data.examples import Example, Message
from llmlab.data.gpt2_vocabulary import gpt2_merges
from llmlab.data.synthetic.bijection import posterior_of
from llmlab.data.tokenizers import Gpt2Tokenizer
from llmlab.gpt.generate import Sampling, sampling_steps
from llmlab.gpt.toy import IDS, WORDS, toy_model
from llmlab.notebook.predictions import Prediction
from llmlab.notebook.scoring import score_number
from llmlab.studies.papers.statistics import spearman, stratified_spearman
from page_figures.picture import (
    ACCENT,
    BLUE,
    EDGE,
    END,
    GRID,
    MIDDLE,
    ORANGE,
    QUIET,
    SERIES,
    SMALL,
    SURFACE,
    TEAL,
    TEXT,
    Picture,
    Plot,
    Scale,
    figure,
)
from page_figures.sources import numbers, page_table, printed, said, stages


@figure
def merge_tree() -> Picture:
    """The merges that make one token of a word, in their order."""
    ranks = {pair: rank for rank, pair in enumerate(gpt2_merges(), 1)}
    nodes = [(symbol, 120 + 58.0 * place, 20.0) for place, symbol in enumerate("ĠRomeo")]
    picture = Picture("Byte pair encoding puts a word together", 0)
    level, drawn = 20.0, list(nodes)
    while len(nodes) > 1:
        pairs = [(nodes[n][0], nodes[n + 1][0]) for n in range(len(nodes) - 1)]
        pair = min(pairs, key=lambda pair: ranks.get(pair, math.inf))
        place, level = pairs.index(pair), level + 38
        (_, x0, y0), (_, x1, y1) = nodes[place : place + 2]
        merged = ("".join(pair), (x0 + x1) / 2, level)
        for x, y in ((x0, y0), (x1, y1)):
            picture.line([(x, y + 10), (merged[1], level - 12)], EDGE)
        picture.text(86, level + 4, f"merge {ranks[pair]:,}", QUIET, END, SMALL)
        nodes[place : place + 2] = [merged]
        drawn.append(merged)
    for symbol, x, y in drawn:
        words, whole = symbol.replace("Ġ", "·"), symbol == nodes[0][0]
        wide = 14 + 9 * len(words)
        picture.box(x - wide / 2, y - 13, wide, 24, edge=ACCENT if whole else EDGE, fill=SURFACE, round=5)
        picture.text(x, y + 4, words, ACCENT if whole else TEXT, MIDDLE)
    picture.height = level + 22
    return picture


@figure
def counted_losses() -> Picture:
    """What the page's code prints: loss and what was met, by n."""
    rows = [line.replace("%", "").split() for line in printed("n-grams")[1:]]
    places, losses, met = ([float(row[column]) for row in rows] for column in (0, 1, 2))
    picture = Picture("Loss of n-grams, and how many were met", 330)
    across = Scale("n", 0.5, 7.5, range(1, 8))
    upper = Plot(picture, across, Scale("loss on held-out stories, nats per token", 0, 5.5, range(6)), bottom=150)
    lower = Plot(
        picture, across, Scale("held-out n-grams that the training text has, %", 60, 100, (60, 80, 100)), top=222
    )
    floor = float(said("n-grams", r"floor\].* is (0\.\d+)\."))
    upper.line([0.5, 7.5], [floor, floor], QUIET, 1.2, dashed=True)
    upper.note(7.4, 4.4, f"dashed: lowest possible, {floor}", QUIET, END)
    for n, loss in zip(places, losses, strict=True):
        upper.bar(n, loss, ORANGE if loss == min(losses) else BLUE, 30)
        upper.note(n, loss, f"{loss:.2f}", QUIET, MIDDLE, dy=-4)
    lower.line(places, met, TEAL)
    lower.dots(places, met, TEAL)
    return picture


@figure
def before_the_draw() -> Picture:
    """The toy's distribution, and what three settings make of it."""
    model, ids = toy_model(), IDS
    stream = stages(model, ids)["feed-forward 1"]
    logits = (model.final_norm(stream) @ model.token_embedding.weight.T)[0, -1].detach()
    picture = Picture("One distribution, before and after the settings", 330)
    settings = (
        ("as the model gave it", Sampling()),
        ("temperature 0.5", Sampling(temperature=0.5)),
        ("temperature 2", Sampling(temperature=2)),
        ("top-p 0.6", Sampling(top_p=0.6)),
    )
    for number, (name, how) in enumerate(settings):
        steps = list(sampling_steps(logits, how, text=[]))
        shares = (steps[-1][1] if steps else logits).softmax(-1).tolist()
        left, top = 40 + 222 * (number % 2), 30 + 164 * (number // 2)
        plot = Plot(
            picture,
            Scale("", -0.6, 5.6, range(6), WORDS),
            Scale(name, 0, 1, (0, 0.5, 1)),
            left=left,
            right=left + 186,
            top=top,
            bottom=top + 100,
        )
        for place, share in enumerate(shares):
            plot.bar(place, share, ORANGE if share == 0 else BLUE, 20)
            plot.note(place, share, f"{share:.2f}" if share else "out", QUIET, MIDDLE, dy=-4)
    return picture


@figure
def exact_match() -> Picture:
    """The share of answers that are right as a whole, by how often a token is right."""
    picture = Picture("A smooth gain that looks sudden", 260)
    plot = Plot(
        picture,
        Scale("probability q that one token is right", 0, 1, (0, 0.25, 0.5, 0.75, 1)),
        Scale("share of answers that are right as a whole, q to the power L", 0, 1, (0, 0.25, 0.5, 0.75, 1)),
    )
    plot.note(0.03, 0.93, "L tokens in an answer:", QUIET)
    for row, (length, color) in enumerate(((1, QUIET), (3, TEAL), (10, BLUE), (30, ORANGE))):
        plot.curve(partial(_all_right, length), color, points=121)
        plot.note(0.03, 0.85 - 0.08 * row, f"L = {length}", color)
    return picture


def _all_right(length: int, q: float) -> float:
    return q**length


@figure
def surprise_by_outcome() -> Picture:
    """What the page's prediction would have cost, by the loss that came."""
    prediction = Prediction("val_loss", "number", confidence=0.8, low=1.9, high=2.2)
    picture = Picture("Surprise and interval score of a prediction", 290)
    outcomes = [1.6 + n / 100 for n in range(101)]
    scores = [score_number(prediction, outcome) for outcome in outcomes]
    plot = Plot(
        picture,
        Scale("validation loss that comes, nats per token", 1.6, 2.6, (1.6, 1.8, 2, 2.2, 2.4, 2.6)),
        Scale("surprise in bits, and interval score in nats", 0, 10, range(0, 11, 2)),
    )
    plot.band([1.9, 2.2], [0, 0], [10, 10], TEAL)
    plot.note(2.05, 9.2, "1.9..2.2@80%", TEAL, MIDDLE)
    plot.line(outcomes, [score.surprise or 0.0 for score in scores], BLUE)
    plot.line(outcomes, [score.interval or 0.0 for score in scores], ORANGE)
    for outcome, words in ((2.2, "at an end"), (2.35, "one half width beyond")):
        score = score_number(prediction, outcome)
        plot.dots([outcome], [score.surprise or 0.0], BLUE, 4.5)
        plot.note(outcome, score.surprise or 0.0, f"{words}: {score.surprise:.1f} bits", BLUE, END, dx=-8, dy=-6)
    plot.note(2.42, 1.4, "interval score", ORANGE)
    return picture


@figure
def within_positions() -> Picture:
    """The first axis of the page's code: over all samples, and at one position."""
    random = np.random.default_rng(0)
    position = np.repeat(np.arange(1, 8), 50)
    entropy = np.log2(9 - position) + 0.1 * random.standard_normal(350)
    axis = position + random.standard_normal(350)
    picture = Picture("A correlation that is position alone", 300)
    plot = Plot(picture, Scale("axis", -2, 11, range(-2, 11, 2)), Scale("entropy, bits", 0, 3.5, range(4)))
    for place in range(350):
        if place % 3 == 0:
            at = int(position[place])
            plot.dots([float(axis[place])], [float(entropy[place])], SERIES[(at - 1) % 4], 2.5)
    for at in range(1, 8):
        plot.note(10.9, math.log2(9 - at), f"position {at}", SERIES[(at - 1) % 4], END, dy=4)
    together, apart = spearman(axis, entropy), stratified_spearman(axis, entropy, position)
    for y, words in ((0.72, f"all samples: {together:.2f}"), (0.42, f"within positions: {apart:.2f}")):
        plot.note(-1.8, y, f"rank correlation, {words}".replace("-", "−"), TEXT)
    plot.note(-1.8, 0.12, "every third of 350 samples is drawn", QUIET)
    return picture


@figure
def paired_seeds() -> Picture:
    """The page's five seeds: two groups, and five differences."""
    _, gelu, swiglu, difference = page_table("experiments", "seed")
    left, right = numbers(gelu[1:6]), numbers(swiglu[1:6])
    picture = Picture("Five seeds with GELU and with SwiGLU", 280)
    plot = Plot(
        picture,
        Scale("a line: one seed", 0, 1, (0.2, 0.8), ("GELU", "SwiGLU")),
        Scale("validation loss", 2.44, 2.56, (2.44, 2.48, 2.52, 2.56)),
        left=48,
        right=240,
    )
    for one, other in zip(left, right, strict=True):
        plot.line([0.2, 0.8], [one, other], EDGE, 1.4)
        plot.dots([0.2], [one], ORANGE, 4.5)
        plot.dots([0.8], [other], BLUE, 4.5)
    pairs = Plot(
        picture,
        Scale("seed", 0.5, 5.5, range(1, 6)),
        Scale("difference of a pair", -0.02, 0.08, (0, 0.02, 0.04, 0.06)),
        left=300,
        right=452,
    )
    mean, spread = float(difference[6]), float(difference[7])
    half = 2.776 * spread / math.sqrt(5)  # t of four degrees of freedom, 97.5 %
    pairs.band([0.5, 5.5], [mean - half] * 2, [mean + half] * 2, TEAL)
    pairs.line([0.5, 5.5], [0, 0], EDGE, 1)
    pairs.line([0.5, 5.5], [mean, mean], TEAL, 1.4)
    pairs.dots(range(1, 6), numbers(difference[1:6]), TEAL, 4.5)
    pairs.note(5.4, mean + half, "95 % of the mean", TEAL, END, dy=-5)
    return picture


@figure
def belief_by_elimination() -> Picture:
    """The exact belief of a bijection with eight values, before each pair."""
    shown = np.eye(8, dtype=int)[[5, 0, 3, 7, 1, 6, 2, 4]]
    belief, _ = posterior_of(shown[None])
    picture = Picture("Belief about the next value, as pairs are seen", 300)
    side = 28.0
    picture.cells(112, 26, side, belief[0].tolist())
    for value in range(8):
        picture.text(112 + side * (value + 0.5), 18, str(value), QUIET, MIDDLE, SMALL)
    for pair, row in enumerate(belief[0].tolist()):
        y = 26 + side * (pair + 0.5) + 4
        entropy = -sum(p * math.log2(p) for p in row if p)
        picture.text(104, y, f"after {pair} pairs" if pair != 1 else "after 1 pair", QUIET, END, SMALL)
        picture.text(346, y, f"{entropy:.2f} bits".replace("-", ""), TEXT, size=SMALL)
        picture.dot(112 + side * (int(shown[pair].argmax()) + 0.5), y - 4, ORANGE, 4)
    picture.text(0, 274, "columns: the eight values; blue: belief; orange: the value that comes", QUIET, size=SMALL)
    picture.text(0, 291, "A value that was seen is ruled out, and the rest share the belief.", QUIET, size=SMALL)
    return picture


@figure
def loss_mask() -> Picture:
    """One example in the lab's own form, with GPT-2's tokens: which are in the loss."""
    tokenizer = Gpt2Tokenizer()
    messages = (Message("user", "Which word comes first? letter fire rain"), Message("assistant", "letter"))
    encoded = PlainFormat(tokenizer).encode(Example(1, messages), 64, "answers")
    picture = Picture("Which tokens of an example are in the loss", 0)
    x, y = 4.0, 10.0
    for id, trained in zip(encoded.ids, encoded.trained, strict=True):
        words = tokenizer.token_text(id).replace(" ", "·").replace("\n", "⏎")
        wide = 14 + 7.6 * len(words)
        if x + wide > 456:
            x, y = 4.0, y + 36
        picture.box(
            x, y, wide, 26, edge=BLUE if trained else GRID, fill=BLUE, opacity=0.22 if trained else 0.0, round=4
        )
        picture.text(x + wide / 2, y + 17, words, TEXT if trained else QUIET, MIDDLE, bold=trained)
        x += wide + 4
    share = sum(encoded.trained) / len(encoded.trained)
    picture.text(
        4,
        y + 50,
        f"in the loss: {sum(encoded.trained)} of {len(encoded.ids)} tokens, {share:.0%}".replace("%", " %"),
        BLUE,
        size=SMALL,
    )
    picture.height = y + 60
    return picture


@figure
def tuned_losses() -> Picture:
    """The page's table: adapters and all weights on one task."""
    head, adapters, whole = page_table("fine-tuning", "step")
    steps = numbers(head[1:6])
    picture = Picture("Loss of a task, with adapters and with all weights", 260)
    plot = Plot(
        picture,
        Scale("step", 0, 300, (0, 50, 100, 200, 300)),
        Scale("validation loss on the task, nats per token", 0, 8, range(0, 9, 2)),
    )
    alone = float(said("fine-tuning", r"has a loss of (\d\.\d+) nats"))
    plot.level(alone, f"answers' token frequencies alone: {alone}")
    for row, color in ((adapters, BLUE), (whole, ORANGE)):
        losses = numbers(row[1:6])
        plot.line(steps, losses, color)
        plot.dots(steps, losses, color)
        plot.note(300, losses[-1], f"{row[0]}: {row[6]} right", color, END, dy=-10 if row is whole else 18)
    return picture


@figure
def low_rank() -> Picture:
    """A matrix of 128 x 128 and its adapter of rank 16, to scale."""
    wide, rank = 128, 16
    picture = Picture("A frozen matrix and its adapter, to scale", 190)
    for x, y, across, down, color, name in (
        (10, 30, wide, wide, EDGE, "W, frozen"),
        (186, 30, rank, wide, BLUE, "B"),
        (222, 86, wide, rank, BLUE, "A"),
    ):
        picture.box(x, y, across, down, edge=color, fill=color, opacity=0.18 if color == EDGE else 0.35)
        picture.text(x + across / 2, y - 8, name, color if color == BLUE else TEXT, MIDDLE)
    picture.text(162, 98, "+", anchor=MIDDLE, size=18)
    picture.text(211, 98, "·", anchor=MIDDLE, size=18)
    picture.text(362, 99, "times α / r", QUIET)
    picture.text(74, 176, f"{wide} × {wide} = {wide * wide:,}", QUIET, MIDDLE, SMALL)
    picture.text(266, 176, f"{rank} · ({wide} + {wide}) = {rank * 2 * wide:,} learn", BLUE, MIDDLE, SMALL)
    return picture


@figure
def levels() -> Picture:
    """NF4's sixteen levels, from the page, over the weights of a block of 64 divided by their largest."""
    picture = Picture("The sixteen levels of NF4", 240)
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(4096, 64, generator=random)
    share, edges = np.histogram((weights / weights.abs().amax(1, keepdim=True)).numpy(), bins=40, range=(-1, 1))
    plot = Plot(
        picture,
        Scale("weight, divided by the largest of its block", -1, 1, (-1, -0.5, 0, 0.5, 1)),
        Scale("share of the weights, %", 0, 6, (0, 2, 4, 6)),
        bottom=170,
    )
    for count, left in zip(share[1:-1], edges[1:-2], strict=True):
        plot.bar(float(left) + 0.025, 100 * float(count) / weights.numel(), GRID, 9)
    for level in numbers(said("quantisation", r"^> (−1, .*)$").split(", ")):
        x = plot.at(level, 0)[0]
        picture.line([(x, 120), (x, 176)], ORANGE, 2)
    picture.text(44, 224, "orange: the 16 levels, close together where weights are many", ORANGE, size=SMALL)
    return picture


@figure
def learning_and_forgetting() -> Picture:
    """The page's two weights: gradient descent on the target, and the best that mixing can do."""
    general = lambda w: 0.5 * (10 * w[0] ** 2 + 0.1 * w[1] ** 2)  # noqa: E731
    target = lambda w: 0.5 * ((w[0] - 1) ** 2 + (w[1] - 1) ** 2)  # noqa: E731
    w, path = np.zeros(2), []
    for _ in range(61):
        path.append((target(w), general(w)))
        w = w + 0.1 * (1 - w)
    front = []
    for power in range(-30, 31):
        weight = 10 ** (power / 10)
        best = np.array([1 / (1 + 10 * weight), 1 / (1 + 0.1 * weight)])
        front.append((target(best), general(best)))
    picture = Picture("What is learned and what is forgotten, step by step", 280)
    plot = Plot(
        picture,
        Scale("loss of the target (learned: to the left)", 0, 1, (0, 0.25, 0.5, 0.75, 1)),
        Scale("general loss (forgotten: upwards)", 0, 6, range(0, 7, 2)),
    )
    plot.line([x for x, _ in front], [y for _, y in front], TEAL)
    plot.line([x for x, _ in path], [y for _, y in path], BLUE)
    for step in (0, 1, 2, 5, 10, 20, 60):
        plot.dots([path[step][0]], [path[step][1]], BLUE, 4)
        if step in (1, 2, 5, 10, 20):
            plot.note(*path[step], f"step {step}", BLUE, dx=8, dy=-5)
    plot.note(0.3, 4.6, "training on the target alone", BLUE)
    plot.note(0.3, 4.0, "the least of target + λ · general, for each λ", TEAL)
    return picture
