"""Figures of the pages about what is inside a model: its parts, and the ways to look at them."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch

from llmlab.gpt.model import GPT
from llmlab.gpt.toy import IDS, WORDS, toy_model
from llmlab.inspection.differences import linear_cka
from page_figures.picture import (
    ACCENT,
    BLUE,
    EDGE,
    END,
    GRID,
    MIDDLE,
    ORANGE,
    QUIET,
    SMALL,
    TEAL,
    TEXT,
    Picture,
    Plot,
    Scale,
    figure,
)
from page_figures.sources import (
    blocks_of,
    numbers,
    page_table,
    stages,
)

PARTS = ("attention 0", "feed-forward 0", "attention 1", "feed-forward 1")  # of the toy


@figure
def forward_pass() -> Picture:
    """The stream runs down the left; each part reads a normalised copy to its right, and adds to it."""
    picture = Picture("The forward pass of a model of two layers", 440)
    stream, shape = 70.0, "[5, 4]"
    picture.box(40, 6, 60, 26, round=5)
    picture.text(stream, 24, "ids [5]", anchor=MIDDLE)
    picture.line([(stream, 32), (stream, 400)], ACCENT, 4)
    picture.box(112, 38, 172, 24, round=5)
    picture.text(198, 55, "embeddings E + P", anchor=MIDDLE)
    picture.arrow([(112, 50), (76, 50)])
    inner = {"attention": "patterns [2, 5, 5]", "feed-forward": "hidden [5, 16]"}
    for number, name in enumerate(PARTS):
        top = 82 + 78 * number
        if number % 2 == 0:
            picture.box(24, top - 10, 430, 150, edge=GRID, round=8)
            picture.text(446, top + 8, f"block {number // 2}", QUIET, END, SMALL)
        picture.arrow([(stream, top + 10), (168, top + 10)])
        picture.text(119, top + 5, "norm", QUIET, MIDDLE, SMALL)
        picture.box(168, top, 220, 44, round=5)
        picture.text(278, top + 18, name[:-2], anchor=MIDDLE)
        picture.text(278, top + 35, inner[name[:-2]], QUIET, MIDDLE, SMALL)
        picture.arrow([(168, top + 36), (stream + 10, top + 36)])
        picture.text(119, top + 52, f"adds {shape}", QUIET, MIDDLE, SMALL)
        picture.dot(stream, top + 36, ACCENT, 8, hollow=True)
        picture.line([(stream - 4, top + 36), (stream + 4, top + 36)], ACCENT, 2)
        picture.line([(stream, top + 32), (stream, top + 40)], ACCENT, 2)
    picture.text(stream - 10, 56, shape, QUIET, END, SMALL)
    picture.arrow([(stream, 390), (stream, 416), (168, 416)], ACCENT, 4)
    picture.text(119, 408, "norm", QUIET, MIDDLE, SMALL)
    picture.box(168, 402, 220, 28, round=5)
    picture.text(278, 421, "logits = x Eᵀ  [5, 6]", anchor=MIDDLE)
    return picture


@figure
def residual_stream() -> Picture:
    """The four components at the last position of the toy, and what each part adds to them."""
    model, ids = toy_model(), IDS
    stream = {name: x[0, -1].tolist() for name, x in stages(model, ids).items()}
    picture = Picture("The residual stream at one position, and what each part adds", 264)
    tall, before = 34.0, [0.0] * 4  # pixels of a component of size one
    for number, (name, after) in enumerate(stream.items()):
        left = 22 + 88 * number
        picture.line([(left, 70), (left + 60, 70)], EDGE, 1)
        picture.line([(left, 190), (left + 60, 190)], EDGE, 1)
        for component, value in enumerate(after):
            for base, height, color in ((70, value - before[component], TEAL), (190, value, BLUE)):
                top = base - max(0.0, height) * tall
                picture.box(left + 4 + 14 * component, top, 10, abs(height) * tall, edge="none", fill=color)
        picture.arrow([(left + 30, 122), (left + 30, 138)], QUIET)
        if number:
            picture.arrow([(left - 26, 190), (left - 4, 190)], ACCENT, 3)
        words = name.split(" ")
        picture.text(left + 30, 16, words[0], TEXT, MIDDLE, SMALL)
        picture.text(left + 30, 30, f"of block {words[1]}" if number else "token, position", QUIET, MIDDLE, SMALL)
        before = after
    picture.text(0, 258, "above: what the part adds; below: the stream after it (4 components)", QUIET, size=SMALL)
    return picture


@figure
def attention_scores() -> Picture:
    """Scores of one query in the toy, and the shares that the softmax makes of them."""
    model, ids = toy_model(), IDS
    block, query = blocks_of(model)[0], 3
    q, k, _ = block.attention.heads(block.attention.qkv(block.attention_norm(stages(model, ids)["embeddings"])))
    scores = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]))[0, 0, query, : query + 1]
    shares = scores.softmax(-1).tolist()
    keys = [WORDS[id] for id in ids[0].tolist()]
    picture = Picture("From scores to attention, for one query", 330)
    places = Scale("key", -0.5, 4.5, range(5), keys)
    upper = Plot(
        picture,
        places,
        Scale(f"score of the query “{keys[query]}”: q · k / √D", -0.5, 1, (-0.5, 0, 0.5, 1)),
        bottom=130,
    )
    lower = Plot(picture, places, Scale("attention: softmax of the scores, sum 1", 0, 0.6, (0, 0.2, 0.4, 0.6)), top=202)
    upper.line([-0.5, 4.5], [0, 0], EDGE, 1)
    for place, (score, share) in enumerate(zip(scores.tolist(), shares, strict=True)):
        upper.bar(place, score, ORANGE, 40)
        lower.bar(place, share, BLUE, 40)
        lower.note(place, share, f"{share:.2f}", QUIET, MIDDLE, dy=-5)
    upper.note(4, 0, "masked: −∞", QUIET, MIDDLE, dy=-8)
    lower.note(4, 0, "0", QUIET, MIDDLE, dy=-5)
    return picture


@figure
def pattern_shapes() -> Picture:
    """Five patterns drawn from their definitions, with the scores that the page defines."""
    size = 10
    row, column = np.indices((size, size))
    visible = column <= row
    names = {
        "previous token": column == np.maximum(row - 1, 0),
        "first token": visible * np.where(column == 0, 0.9, 0.1 / np.maximum(row, 1)),
        "one found": np.where(row < 5, column == row, column == 3),
        "even": visible / (row + 1.0),
        "copying": np.where(row < 5, column == row, column == row - 4),
    }
    picture = Picture("Five shapes of attention patterns", 190)
    for number, (name, weights) in enumerate(names.items()):
        pattern = weights / weights.sum(1, keepdims=True)
        left, side = 2 + 92 * number, 8.4
        picture.cells(left, 24, side, pattern.tolist())
        picture.text(left + 42, 14, name, TEXT, MIDDLE, SMALL)
        rows = pattern[1:]
        entropy = float(-(rows * np.log(np.where(rows > 0, rows, 1))).sum(1).mean())
        previous = float(np.mean([pattern[n, n - 1] for n in range(1, size)]))
        for place, words in enumerate(
            (f"entropy {abs(entropy):.2f}", f"previous {previous:.2f}", f"first {rows[:, 0].mean():.2f}")
        ):
            picture.text(left + 42, 126 + 16 * place, words, QUIET, MIDDLE, SMALL)
    picture.text(0, 184, "rows: queries, downwards; columns: keys; entropy in nats", QUIET, size=SMALL)
    return picture


@figure
def shapes_of_a_head() -> Picture:
    """Head 0 of the toy model's first block: a square for each number, so that shapes are seen."""
    model = toy_model()
    block = blocks_of(model)[0]
    x = block.attention_norm(stages(model, IDS)["embeddings"])
    q, k, v = (part[0, 0] for part in block.attention.heads(block.attention.qkv(x)))
    later = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)
    pattern = (q @ k.T / math.sqrt(q.shape[1])).masked_fill(later, -torch.inf).softmax(-1)
    z = pattern @ v
    written = z @ block.attention.out.weight[:, : z.shape[1]].T
    picture = Picture("The shapes of one head of attention", 288)
    side = 16
    for left, top, name, shape, values in (
        (10, 30, "x, normalised", "[T, C]", x[0]),
        (180, 30, "Q", "[T, D]", q),
        (270, 30, "K", "[T, D]", k),
        (360, 30, "V", "[T, D]", v),
        (10, 164, "A = softmax(Q Kᵀ / √D)", "[T, T]", pattern),
        (180, 164, "z", "[T, D]", z),
        (330, 164, "to the stream", "[T, C]", written),
    ):
        picture.text(left, top - 8, name)
        picture.cells(left, top, side, values.tolist(), largest=float(values.detach().abs().max()))
        picture.text(left, top + 96, shape, QUIET, size=SMALL)
    for x0, x1, y, words in (
        (80, 174, 70, "W_Q, W_K, W_V"),
        (96, 174, 204, "A V"),
        (218, 324, 204, "W_O"),
    ):
        picture.arrow([(x0, y), (x1, y)])
        picture.text((x0 + x1) / 2, y - 6, words, QUIET, MIDDLE, SMALL)
    picture.text(0, 282, "T = 5, C = 4, D = 2; a square is a number, orange below zero", QUIET, size=SMALL)
    return picture


@figure
def circuits() -> Picture:
    """Head 0 of the toy's first block as two tables over its vocabulary."""
    model = toy_model()
    attention, table = blocks_of(model)[0].attention, model.token_embedding.weight
    w_q, w_k, w_v = (matrix[:2] for matrix in attention.qkv.weight.split(4))
    looks = table @ (w_q.T @ w_k) @ table.T
    writes = table @ (attention.out.weight[:, :2] @ w_v) @ table.T  # [logit of, attended token]
    picture = Picture("The QK and the OV circuit of a head, in tokens", 250)
    for left, name, values, down, across in (
        (46, "E W_QK Eᵀ: where it looks", looks, "query", "key"),
        (286, "E W_OV Eᵀ: what it writes", writes, "made more likely", "attended"),
    ):
        largest = float(values.detach().abs().max())
        picture.text(left, 16, name)
        picture.text(left, 34, f"rows: {down}", QUIET, size=SMALL)
        picture.cells(left, 42, 26, values.tolist(), rows=WORDS, columns=WORDS, largest=largest)
        picture.text(left, 230, f"columns: {across}", QUIET, size=SMALL)
        picture.text(left, 245, f"full colour: ±{largest:.2f}", QUIET, size=SMALL)
    return picture


@figure
def attributions() -> Picture:
    """The logit of the toy's most likely word, as the sum of what each part wrote towards it."""
    model, ids = toy_model(), IDS
    stream = [x[0, -1] for x in stages(model, ids).values()]
    word, final = 4, stream[-1]
    row = model.token_embedding.weight[word]
    towards = (row - row.mean()) / (final.var(correction=0) + 1e-5).sqrt()  # LayerNorm's, with its scale held
    parts = [stream[0], *(after - before for before, after in pairwise(stream))]
    values = [float((part @ towards).detach()) for part in parts]
    logit = float((model.final_norm(final) @ row).detach())
    picture = Picture(f"What each part adds to the logit of “{WORDS[word]}”", 220)
    total, scale = 0.0, 90.0
    zero = 230.0
    for number, (name, value) in enumerate(zip(("embeddings", *PARTS, "logit"), [*values, logit], strict=True)):
        top, start = 28 + 30 * number, 0.0 if number == len(values) else total
        picture.text(110, top + 15, name, TEXT, END)
        ends = sorted((zero + scale * start, zero + scale * (start + value)))
        color = ACCENT if number == len(values) else TEAL if value >= 0 else ORANGE
        picture.box(ends[0], top, max(1.0, ends[1] - ends[0]), 20, edge="none", fill=color)
        words = f"{value:+.2f}".replace("-", "−")
        if value < 0:
            picture.text(ends[0] - 6, top + 15, words, QUIET, END, SMALL)
        else:
            picture.text(ends[1] + 6, top + 15, words, QUIET, size=SMALL)
        total += value
        if number < len(values):
            picture.line([(zero + scale * total, top + 20), (zero + scale * total, top + 30)], EDGE, 1)
    picture.line([(zero, 20), (zero, 208)], EDGE, 1)
    picture.text(zero, 14, f"adds to the logit of “{WORDS[word]}”", QUIET, MIDDLE, SMALL)
    return picture


@figure
def lens_by_depth() -> Picture:
    """Each depth of the toy read as if it were the last."""
    model, ids = toy_model(), IDS
    with torch.no_grad():
        rows = [_reads(model, x) for x in stages(model, ids).values()]
    picture = Picture("The logit lens on the toy", 272)
    picture.cells(150, 28, 44, rows, columns=WORDS, decimals=2)
    for number, name in enumerate(("embeddings", *PARTS)):
        words = "before block 0" if number == 0 else f"after {name}"
        picture.text(142, 28 + 44 * number + 26, words, TEXT if number == len(PARTS) else QUIET, END, SMALL)
    return picture


def _reads(model: GPT, x: torch.Tensor) -> list[float]:
    logits = model.final_norm(x[0, -1]) @ model.token_embedding.weight.T
    found: list[float] = logits.softmax(-1).tolist()
    return found


@figure
def patched_positions() -> Picture:
    """The table of effects of the page, as the path that a name takes."""
    _, *rows = page_table("ablation-and-patching", "in front of layer")
    effects = [numbers(row[1:]) for row in rows]
    picture = Picture("Effect of a patch, by layer and position", 250)
    columns = ("18, “ Pip”", "24, “ and”", "19 to 23")
    order = (0, 2, 1)  # as the positions lie
    side = 46.0
    for place, column in enumerate(order):
        picture.cells(150 + 88 * place, 30, side, [[row[column]] for row in effects], decimals=2)
        picture.text(150 + 88 * place + side / 2, 18, columns[column], TEXT, MIDDLE, SMALL)
    for layer in range(len(effects)):
        picture.text(140, 30 + side * layer + 27, f"in front of layer {layer}", QUIET, END, SMALL)
    for layer in (0, 1):
        picture.arrow([(198, 30 + side * layer + 34), (322, 30 + side * (layer + 1) + 14)], ACCENT, 2)
    picture.text(0, 238, "The effect moves from the name to where it is needed.", QUIET, size=SMALL)
    return picture


@figure
def two_heads() -> Picture:
    """Who reads whom in an induction circuit."""
    picture = Picture("Two heads that copy what followed", 180)
    tokens = ("…", "A", "B", "…", "A", "?")
    at = [40 + 76 * number for number in range(len(tokens))]
    for x, token in zip(at, tokens, strict=True):
        picture.box(x - 18, 118, 36, 28, round=5)
        picture.text(x, 137, token, anchor=MIDDLE)
    picture.line([(at[2], 118), (at[2], 92), (at[1] + 8, 92)], TEAL, 2)
    picture.arrow([(at[1] + 8, 92), (at[1], 92), (at[1], 116)], TEAL, 2)
    picture.text(at[2] - 2, 84, "layer 0: “A before me”", TEAL, END, SMALL)
    picture.line([(at[4], 118), (at[4], 46), (at[2] + 14, 46)], BLUE, 2)
    picture.arrow([(at[2] + 14, 46), (at[2] + 10, 46), (at[2] + 10, 116)], BLUE, 2)
    picture.text((at[2] + at[4]) / 2 + 20, 38, "layer 1: looks for “A before me”", BLUE, MIDDLE, SMALL)
    picture.arrow([(at[2], 146), (at[2], 166), (at[5], 166), (at[5], 148)], BLUE, 2)
    picture.text((at[2] + at[5]) / 2, 161, "copies B as the next token", BLUE, MIDDLE, SMALL)
    return picture


@figure
def induction_forms() -> Picture:
    """The page's table: loss and scores along training."""
    _, *rows = page_table("induction-heads", "step")
    steps, losses = numbers([row[0] for row in rows]), numbers([row[1] for row in rows])
    scores = [numbers([row[column].split(" ")[0] for row in rows]) for column in (2, 3, 4)]
    picture = Picture("Loss and head scores while induction forms", 340)
    across = Scale("step", 0, 2500, range(0, 2501, 500))
    upper = Plot(picture, across, Scale("validation loss, nats per token", 2, 3.5, (2, 2.5, 3, 3.5)), bottom=130)
    lower = Plot(picture, across, Scale("score of the best head", 0, 0.8, (0, 0.2, 0.4, 0.6, 0.8)), top=200)
    upper.line(steps, losses, ACCENT)
    upper.dots(steps, losses, ACCENT, 2.5)
    for values, name, color, dy in zip(
        scores, ("previous token", "induction", "duplicate"), (TEAL, BLUE, ORANGE), (-6, 16, -6), strict=True
    ):
        lower.line(steps, values, color)
        lower.dots(steps, values, color, 2.5)
        lower.note(2500, values[-1], name, color, END, dy=dy)
    return picture


@figure
def turned_by_position() -> Picture:
    """Rotary positions: how far pair i is turned at position t, in a head of width 32."""
    width, pairs, positions = 32, (0, 3, 6, 10), range(8)
    picture = Picture("How rotary positions turn a query or a key", 280)
    for row, pair in enumerate(pairs):
        y = 52 + 60 * row
        picture.text(96, y + 4, f"pair {pair}", TEXT, END)
        for position in positions:
            x, angle = 128 + 44 * position, position / 10000 ** (2 * pair / width)
            picture.dot(x, y, EDGE, 17, hollow=True)
            picture.arrow([(x, y), (x + 16 * math.cos(angle), y - 16 * math.sin(angle))], BLUE, 2)
            if row == 0:
                picture.text(x, 18, str(position), QUIET, MIDDLE, SMALL)
    picture.text(96, 18, "position", QUIET, END, SMALL)
    picture.text(0, 276, "Early pairs tell near positions apart, late pairs far ones.", QUIET, size=SMALL)
    return picture


@figure
def activations() -> Picture:
    """GELU and what replaces it."""
    picture = Picture("Three activation functions", 260)
    plot = Plot(picture, Scale("input of a neuron", -3, 3, range(-3, 4)), Scale("output", -1, 4, range(-1, 5)))
    plot.line([0, 0], [-1, 4], GRID, 1)
    shapes = {
        "GELU": (lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), BLUE, (2.95, -14)),
        "SiLU": (lambda x: x / (1 + math.exp(-x)), TEAL, (2.95, 34)),
        "ReLU²": (lambda x: max(0.0, x) ** 2, ORANGE, (1.9, -4)),
    }
    for name, (function, color, (x, dy)) in shapes.items():
        plot.curve(function, color, points=121)
        plot.note(x, function(x), name, color, END, dx=-6 if name == "ReLU²" else 0, dy=dy)
    return picture


@figure
def same_geometry() -> Picture:
    """Two streams that are one, turned: values differ, geometry does not."""
    random = np.random.default_rng(0)
    points = random.standard_normal((14, 2)) * (1.0, 0.45)
    angle = math.radians(70)
    turned = points @ np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    cosine = float(
        np.mean((points * turned).sum(1) / (np.linalg.norm(points, axis=1) * np.linalg.norm(turned, axis=1)))
    )
    picture = Picture("One geometry on other axes", 236)
    for left, name, values in ((20, "model A", points), (250, "model B: A, turned by 70°", turned)):
        picture.box(left, 26, 190, 170, edge=GRID)
        picture.text(left, 16, name)
        centre = (left + 95, 111)
        for number, (x, y) in enumerate(values.tolist()):
            picture.dot(centre[0] + 30 * x, centre[1] - 30 * y, ORANGE if number == 0 else BLUE, 4)
    cka = linear_cka(points, turned)
    picture.text(20, 216, f"mean cosine, token by token: {cosine:.2f}")
    picture.text(440, 216, f"CKA: {cka:.2f}", anchor=END)
    picture.text(20, 233, "a dot is a token; the orange one is the same token in both", QUIET, size=SMALL)
    return picture
