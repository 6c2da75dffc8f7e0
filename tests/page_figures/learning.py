"""Figures of the pages about training: loss, gradients, steps, precision, processes, and how losses scale."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from llmlab.core.presets import load_preset
from llmlab.gpt.shapes import parameter_count
from llmlab.gpt.toy import IDS, TARGETS, toy_model
from llmlab.studies.experiments.fits import fit_power_law
from llmlab.training.schedule import learning_rate
from page_figures.picture import (
    ACCENT,
    BAD,
    BLUE,
    EDGE,
    END,
    GRID,
    MIDDLE,
    ORANGE,
    QUIET,
    SMALL,
    SURFACE,
    TEAL,
    TEXT,
    Picture,
    Plot,
    Scale,
    figure,
)
from page_figures.sources import (
    chart_of,
    numbers,
    page_table,
    result,
    said,
    stages,
)


@figure
def surprise_of_a_token() -> Picture:
    """The loss of one token, and the two baselines of Shakespeare's letters."""
    _, shakespeare, *_ = page_table("loss", "corpus and tokens")
    uniform, unigram = float(shakespeare[1].split(" ")[-1]), float(shakespeare[2])
    picture = Picture("The loss of a token, by its probability", 270)
    plot = Plot(
        picture,
        Scale("probability that the model gave to the token that came", 0, 1, (0, 0.25, 0.5, 0.75, 1)),
        Scale("loss of this token, −ln p, in nats", 0, 7, range(8)),
    )
    plot.level(uniform, f"mean when 84 letters are equally likely: {uniform:.2f}")
    plot.level(unigram, f"mean when only their frequencies are known: {unigram:.2f}")
    plot.curve(lambda p: -math.log(max(p, 0.001)), points=401)
    for p in (0.001, 0.1, 0.5, 1.0):
        plot.dots([p], [-math.log(p)], BLUE)
        plot.note(
            p,
            -math.log(p),
            f"p = {p:g}: {abs(math.log(p)):.2f}",
            TEXT,
            END if p == 1 else "start",
            dx=7 if p < 1 else 0,
            dy=4 if p == 0.001 else -7,
        )
    return picture


@figure
def overfitting() -> Picture:
    """The page's table: losses on a small text, with a constant and with a falling rate."""
    _, *rows = page_table("loss-curves", "step")
    picture = Picture("Training and validation loss on a small text", 290)
    plot = Plot(
        picture, Scale("step", 0, 600, range(0, 601, 100)), Scale("loss, nats per token", 1, 9, range(1, 10, 2))
    )
    unigram = float(said("loss-curves", r"unigram line at (\d\.\d+)"))
    plot.level(unigram, f"token frequencies alone: {unigram:.2f}")
    for column, color in enumerate((ORANGE, ORANGE, BLUE, BLUE), 1):
        known = [row for row in rows if row[column]]
        steps, losses = numbers([row[0] for row in known]), numbers([row[column] for row in known])
        plot.line(steps, losses, color, dashed=column in (1, 3))
        if column % 2 == 0:
            plot.dots(steps, losses, color, 2.5)
    plot.note(600, 1.4, "constant rate", ORANGE, END, dx=-36)
    plot.note(405, 3.5, "cosine, 400 steps", BLUE)
    plot.note(595, 8.4, "dots: validation; dashed: training", QUIET, END)
    return picture


@figure
def schedules() -> Picture:
    """Four schedules of the preset baby, from the function that training calls."""
    train = replace(load_preset("baby").settings.train, decay_fraction=0.2)
    picture = Picture("Learning rate along a run, by schedule", 240)
    ticks = (0, 0.00025, 0.0005, 0.00075, 0.001)
    plot = Plot(
        picture,
        Scale("step", 0, train.steps, range(0, train.steps + 1, 500)),
        Scale("learning rate", 0, 0.001, ticks, ("0", "2.5e-4", "5e-4", "7.5e-4", "1e-3")),
        left=52,
    )
    steps = range(0, train.steps, 10)
    for name, color, at, dx, dy in (
        ("constant", QUIET, 1990, 0, 14),
        ("wsd", TEAL, 1790, -8, 20),
        ("linear", ORANGE, 900, 8, -4),
        ("cosine", BLUE, 1400, -8, 16),
    ):
        rates = [learning_rate(step, replace(train, schedule=name)) for step in steps]
        plot.line(list(steps), rates, color)
        plot.note(at, rates[at // 10], name, color, "start" if name == "linear" else END, dx=dx, dy=dy)
    plot.note(100, 0, f"warm-up: {train.warmup_steps} steps", QUIET, dx=4, dy=-6)
    return picture


@figure
def cliff_and_minimum() -> Picture:
    """Two examples of the page: plain descent in a valley, by its formula, and Adam with noise, by its table."""
    picture = Picture("Loss by learning rate: a cliff, and a minimum", 290)
    rates, losses = (0.0001, 0.001, 0.01, 0.1, 1), (0.01, 0.1, 1, 10, 100)
    plot = Plot(
        picture,
        Scale("learning rate", 0.0001, 1, rates, log=True),
        Scale("loss after the last step", 0.004, 100, losses, log=True),
    )
    slopes = (1, 10, 100)
    plot.curve(lambda rate: sum(s * (1 - min(rate * s, 3)) ** 200 for s in slopes) / 2, ORANGE, points=600)
    plot.note(0.00011, 22, "three slopes, 100 steps without noise", ORANGE)
    plot.note(0.024, 1.2, "cliff at 2 / λ = 0.02", ORANGE)
    head, row = page_table("learning-rate", "learning rate", 1)
    plot.line(numbers(head[1:]), numbers(row[1:]))
    plot.dots(numbers(head[1:]), numbers(row[1:]))
    plot.note(0.9, 0.24, "Adam with noise", BLUE, END, dy=-10)
    return picture


@figure
def minima_of_rates() -> Picture:
    """The page's table: the loss at the end, by learning rate."""
    head, *rows = page_table("learning-rate", "learning rate", 2)
    rates = numbers(head[1:])
    picture = Picture("Validation loss by learning rate, LoRA and full fine-tuning", 270)
    plot = Plot(
        picture,
        Scale("learning rate", 0.00009, 0.034, rates, log=True),
        Scale("validation loss after 100 steps, nats per token", 1, 7, range(1, 8)),
    )
    for row, color in zip(rows, (BLUE, ORANGE), strict=True):
        losses = numbers(row[1:])
        plot.line(rates, losses, color)
        plot.dots(rates, losses, color)
        best = min(range(len(rates)), key=losses.__getitem__)
        plot.dots([rates[best]], [losses[best]], color, 6)
        plot.note(rates[2], losses[2], row[0], color, dx=6, dy=-10)
    return picture


@figure
def gradients_on_their_way() -> Picture:
    """The gradient of the toy's loss for the stream at the last position, from the end to the beginning."""
    model, ids = toy_model(), IDS
    found = stages(model, ids)
    logits = model.final_norm(found["feed-forward 1"]) @ model.token_embedding.weight.T
    loss = torch.nn.functional.cross_entropy(logits[0], TARGETS[0])
    gradients = torch.autograd.grad(loss, list(found.values()))
    picture = Picture("The gradient on its way back through the stream", 190)
    picture.text(0, 16, "forwards: each part adds to the stream", QUIET, size=SMALL)
    picture.arrow([(290, 12), (440, 12)], ACCENT, 3)
    for number, (name, gradient) in enumerate(zip(found, gradients, strict=True)):
        left = 22 + 88 * number
        picture.line([(left, 100), (left + 60, 100)], EDGE, 1)
        for component, value in enumerate(gradient[0, -1].tolist()):
            height = 700 * value  # pixels of a gradient of size one
            picture.box(left + 4 + 14 * component, 100 - max(0.0, height), 10, abs(height), edge="none", fill=ORANGE)
        if number:
            picture.arrow([(left - 4, 100), (left - 26, 100)], ORANGE, 3)
        words = name.split(" ")
        picture.text(left + 30, 40, words[0], TEXT, MIDDLE, SMALL)
        picture.text(left + 30, 54, f"of block {words[1]}" if number else "E + P", QUIET, MIDDLE, SMALL)
        length = float(gradient[0, -1].norm())
        picture.text(left + 30, 160, f"{length:.3f}", QUIET, MIDDLE, SMALL)
    picture.text(
        0, 182, "bars: gradient of the loss for 4 components of the stream; below: its length", QUIET, size=SMALL
    )
    return picture


@figure
def saved_and_resumed() -> Picture:
    """The bytes of a checkpoint to scale, and what a kill costs."""
    preset = load_preset("baby").settings
    count = parameter_count(preset.model, 84)
    picture = Picture("What a checkpoint holds, and a resume", 230)
    for number, (name, color) in enumerate(
        (("weights", BLUE), ("mean of gradients", ORANGE), ("mean of squares", ORANGE))
    ):
        picture.box(4 + 150 * number, 28, 150, 34, fill=color, opacity=0.25)
        picture.text(79 + 150 * number, 50, name, anchor=MIDDLE)
        picture.text(79 + 150 * number, 78, f"{4 * count / 1e6:.1f} MB", QUIET, MIDDLE, SMALL)
    picture.text(4, 18, "to write with the model", BLUE, size=SMALL)
    picture.text(454, 18, "only to train it further (AdamW)", ORANGE, END, SMALL)
    at = lambda step: 40 + 3.4 * step  # noqa: E731
    for top, begin, end, color in ((122, 0, 73, BLUE), (164, 60, 120, TEAL)):
        picture.line([(at(begin), top), (at(end), top)], color, 3)
        for step in range(0, 121, 20):
            if begin <= step <= end and step:
                picture.dot(at(step), top, color, 5)
    picture.line([(at(73) - 5, 117), (at(73) + 5, 127)], BAD, 2)
    picture.line([(at(73) - 5, 127), (at(73) + 5, 117)], BAD, 2)
    picture.text(at(73) + 10, 126, "killed at step 73", BAD, size=SMALL)
    picture.arrow([(at(60), 128), (at(60), 158)], EDGE)
    picture.text(at(60) - 8, 147, "its last checkpoint", QUIET, END, SMALL)
    picture.area([(at(60), 160), (at(73), 160), (at(73), 168), (at(60), 168)], TEAL, 0.4)
    picture.text(at(62), 184, "61 to 73 again, to the same bits", TEAL, size=SMALL)
    for step in range(0, 121, 20):
        picture.text(at(step), 214, str(step), QUIET, MIDDLE, SMALL)
    picture.text(4, 228, "step; dots: checkpoints, here every 20 steps", QUIET, size=SMALL)
    return picture


@figure
def who_holds_what() -> Picture:
    """Four numbers of each parameter on four ranks, whole and sharded."""
    ranks, count = 4, parameter_count(load_preset("baby").settings.model, 84)
    picture = Picture("What each of four processes holds between steps", 300)
    rows = (("weights", BLUE), ("gradients", ORANGE), ("averages", TEAL))
    for top, name, sharded in (
        (30, "DDP: everyone holds everything", False),
        (176, "FSDP2: everyone holds a quarter", True),
    ):
        held, sent = (16 * count / ranks, 3) if sharded else (16 * count, 2)
        picture.text(0, top - 14, name, bold=True)
        sent_bytes = sent * (ranks - 1) / ranks * 4 * count
        picture.text(
            0,
            top + 96,
            f"held: {held / 1e6:.1f} MB per rank; sent per step: {sent_bytes / 1e6:.1f} MB per rank",
            QUIET,
            size=SMALL,
        )
        for rank in range(ranks):
            left, wide = 76 + 98 * rank, 84.0
            picture.text(left + wide / 2, top + 4, f"rank {rank}", QUIET, MIDDLE, SMALL)
            for row, (what, color) in enumerate(rows):
                y, tall = top + 12 + 20 * row, 28 if what == "averages" else 14
                picture.box(left, y, wide, tall, edge=GRID)
                part = wide / ranks
                begin, size = (left + part * rank, part) if sharded else (left, wide)
                picture.box(begin, y, size, tall, edge="none", fill=color)
                if rank == 0:
                    picture.text(70, y + 11, what, QUIET, END, SMALL)
    return picture


@figure
def formats() -> Picture:
    """Range and spacing of three formats, from PyTorch's own account of them."""
    names = (("fp32", torch.float32, BLUE), ("bf16", torch.bfloat16, TEAL), ("fp16", torch.float16, ORANGE))
    picture = Picture("Range and precision of three formats", 300)
    decades = range(-40, 41, 20)
    across = Scale(
        "size of a number",
        1e-40,
        1e40,
        [10.0**power for power in decades],
        [f"1e{power}".replace("-", "−") for power in decades],
        log=True,
    )
    at = lambda value: 60 + 380 * across.share(value)  # noqa: E731
    picture.text(0, 16, "range at full precision", bold=True)
    for tick, words in across.named():
        picture.line([(at(tick), 26), (at(tick), 110)], GRID, 1)
        picture.text(at(tick), 126, words, QUIET, MIDDLE, SMALL)
    for number, (name, kind, color) in enumerate(names):
        info = torch.finfo(kind)
        picture.text(50, 46 + 28 * number, name, color, END)
        picture.box(
            at(info.smallest_normal),
            34 + 28 * number,
            at(info.max) - at(info.smallest_normal),
            16,
            edge="none",
            fill=color,
        )
    picture.line([(at(1e-8), 26), (at(1e-8), 110)], BAD, 1.4, dashed=True)
    picture.text(at(1e-8) - 4, 106, "a gradient of 1e−8", BAD, END, SMALL)
    picture.text(0, 162, "numbers between 1 and 1.03", bold=True)
    for number, (name, kind, color) in enumerate(names):
        step, y = torch.finfo(kind).eps, 192 + 32 * number
        picture.text(50, y + 4, name, color, END)
        picture.line([(60, y), (440, y)], color, 1)
        place = lambda value: 60 + 380 * value / 0.03  # noqa: E731
        if step * 380 / 0.03 < 1:
            picture.box(60, y - 7, 380, 14, edge="none", fill=color)
            picture.text(250, y + 4, "about 250,000 of them", SURFACE, MIDDLE, SMALL)
            continue
        for n in range(int(0.03 / step) + 1):
            picture.line([(place(n * step), y - 7), (place(n * step), y + 7)], color, 2)
    picture.text(60, 290, "1", QUIET, MIDDLE, SMALL)
    picture.text(440, 290, "1.03", QUIET, MIDDLE, SMALL)
    return picture


@figure
def batch_trade() -> Picture:
    """Steps against sequences to one loss, by the formula of the page."""
    picture = Picture("Steps and sequences that one loss takes", 290)
    ticks = (1, 2, 5, 10, 20)
    plot = Plot(
        picture,
        Scale("sequences read, in E_min", 1, 20, ticks, log=True),
        Scale("steps, in S_min", 1, 20, ticks, log=True),
    )
    plot.curve(lambda read: 1 + 1 / max(read - 1, 1e-9), points=201)
    for share, words in ((1 / 16, "1/16"), (1 / 4, "1/4"), (1, "1"), (4, "4"), (16, "16")):
        critical = share == 1
        plot.dots([1 + share], [1 + 1 / share], ORANGE if critical else BLUE, 5)
        label, color = ("B = B_crit: twice the fewest of both", ORANGE) if share == 1 else (f"B = {words} B_crit", TEXT)
        if share > 1:
            plot.note(1 + share, 1 + 1 / share, label, color, MIDDLE, dx=-14 if share == 16 else 0, dy=-12)
        else:
            plot.note(1 + share, 1 + 1 / share, label, color, dx=10, dy=-4)
    return picture


@figure
def two_fits() -> Picture:
    """The page's example: five losses from a known law, and two forms fitted to them."""
    sizes, law = np.array([1e4, 3e4, 1e5, 3e5, 1e6]), lambda n: 1.5 + 0.8 * (n / 30_000) ** -0.4
    losses = law(sizes) + 0.01 * np.random.default_rng(0).standard_normal(5)
    slope, start = np.polyfit(np.log(sizes), np.log(losses), 1)
    fitted = fit_power_law(sizes, losses)
    assert fitted is not None
    picture = Picture("A power law with a floor and one without", 280)
    ticks = [10.0**power for power in range(4, 8)]
    plot = Plot(
        picture,
        Scale("parameters N", 1e4, 1e7, ticks, ("10⁴", "10⁵", "10⁶", "10⁷"), log=True),
        Scale("loss", 1.2, 3, (1.2, 1.5, 2, 2.5, 3)),
    )
    plot.curve(lambda n: math.exp(start + slope * math.log(n)), ORANGE, dashed=True)
    plot.curve(lambda n: float(fitted(np.array(n))))
    plot.dots(sizes.tolist(), losses.tolist())
    plot.dots([1e7], [law(1e7)], TEAL, 5)
    plot.note(1e7, law(1e7), f"truth at 10⁷: {law(1e7):.3f}", TEAL, END, dx=-4, dy=-12)
    plot.note(1.5e4, 1.36, "a · N^(−b), without a floor", ORANGE)
    plot.note(4e4, 2.5, "c + a · N^(−b)", BLUE)
    return picture


@figure
def few_frequencies() -> Picture:
    """The lab's check of grokking: where the embedding of numbers has its power."""
    charts = [chart for verdict in result("papers/grokking/verdict")["verdicts"] for chart in verdict["charts"]]
    series = {one["name"]: one for one in chart_of(charts, "fourier")["series"]}
    trained, random = series["trained"], series["random weights"]
    picture = Picture("Power of an embedding by frequency, trained and random", 240)
    across = Scale("frequency k (turns as a number goes from 0 to p)", 0.4, 15.6, range(1, 16))
    plot = Plot(picture, across, Scale("share of the power", 0, 0.6, (0, 0.2, 0.4, 0.6)))
    for place, (one, other) in enumerate(zip(trained["y"], random["y"], strict=True), 1):
        plot.bar(place - 0.2, one, BLUE, 9)
        plot.bar(place + 0.2, other, ORANGE, 9)
    plot.note(15.4, 0.55, "trained: a few frequencies", BLUE, END)
    plot.note(15.4, 0.48, "random weights: all of them", ORANGE, END)
    return picture
