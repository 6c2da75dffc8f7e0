"""Figures of pages whose example is a small experiment of their own: they draw what its code prints."""

from __future__ import annotations

import math

from page_figures.picture import (
    BLUE,
    EDGE,
    END,
    GRID,
    MIDDLE,
    ORANGE,
    QUIET,
    SMALL,
    START,
    TEAL,
    TEXT,
    Picture,
    Plot,
    Scale,
    figure,
)
from page_figures.sources import printed


@figure
def five_features() -> Picture:
    """The directions of the page's five features, by the lengths and angles that it prints."""
    lines = printed("superposition")
    picture = Picture("Five features in two dimensions", 186)
    for number in range(3):
        zeros, lengths = lines[2 * number].split(" zeros: length")
        angles = lines[2 * number + 1].split()[1:]
        x, y, unit = 72 + 152 * number, 104, 48
        picture.line([(x - unit, y), (x + unit, y)], GRID, 1)
        picture.line([(x, y - unit), (x, y + unit)], GRID, 1)
        picture.text(x, 16, f"{zeros} zeros", TEXT, MIDDLE)
        for feature, (length, angle) in enumerate(zip(lengths.split(), angles, strict=True), 1):
            if angle == "-":  # it is not kept
                continue
            across, up = (unit * float(length) * turn(math.radians(float(angle))) for turn in (math.cos, math.sin))
            picture.arrow([(x, y), (x + across, y - up)], BLUE, 2)
            picture.text(x + 1.2 * across, y - 1.2 * up + 4, str(feature), QUIET, MIDDLE, SMALL)
    return picture


@figure
def steered() -> Picture:
    """What the page's pushes do to a prediction, by their strength, beside pushes in random directions."""
    head, *rows = printed("probes-and-steering", 1)
    strengths, trained, spread, untrained = (_numbers(line[15:]) for line in (head, *rows))
    picture = Picture("A prediction, pushed along one direction", 280)
    plot = Plot(
        picture,
        Scale("times d that is added to the stream", -4, 4, range(-4, 5)),
        Scale("mean probability of the first four tokens", 0.3, 0.7, (0.3, 0.4, 0.5, 0.6, 0.7)),
    )
    middle = trained[strengths.index(0)]
    plot.band(strengths, [middle - one for one in spread], [middle + one for one in spread], QUIET)
    plot.note(-3.9, middle, "ten random directions:", QUIET, dy=-41)
    plot.note(-3.9, middle, "± one standard deviation", QUIET, dy=-26)
    for name, values, color, at, dy in (("untrained", untrained, ORANGE, -1, 20), ("trained", trained, BLUE, -1, -12)):
        plot.line(strengths, values, color)
        plot.dots(strengths, values, color)
        plot.note(strengths[at], values[at], name, color, END, dy=dy)
    return picture


@figure
def loss_by_position() -> Picture:
    """The page's losses after so many throws of a coin: the best possible ones, and the model's."""
    head, rule, model = printed("in-context-learning")[:3]
    seen, best, reached = (_numbers(line[11:]) for line in (head, rule, model))
    picture = Picture("Loss of the next throw, by how many were seen", 270)
    plot = Plot(
        picture,
        Scale("throws of this coin that were seen", 1, 32, seen, log=True),
        Scale("loss of the next throw, nats", 0.5, 0.72, (0.5, 0.55, 0.6, 0.65, 0.7)),
    )
    plot.level(math.log(2), "without the context: ln 2", QUIET)
    plot.line(seen, best, ORANGE, dashed=True)
    plot.line(seen, reached, BLUE)
    plot.dots(seen, reached, BLUE)
    plot.note(2, reached[1], "the model", BLUE, dx=8, dy=-8)
    plot.note(4, best[2], "Laplace's rule", ORANGE, END, dx=-8, dy=16)
    return picture


@figure
def five_corpora() -> Picture:
    """The losses that the page prints for five texts of one size or less."""
    rows = [line.rsplit(maxsplit=1) for line in printed("data-quality")[:5]]
    picture = Picture("The same learner after five texts", 40 + 42 * len(rows))
    least, most = min(float(loss) for _, loss in rows), max(float(loss) for _, loss in rows)
    for number, (name, loss) in enumerate(rows):
        top = 16 + 42 * number
        picture.text(0, top, name, TEXT, size=SMALL)
        width = 380 * float(loss) / most
        picture.box(0, top + 5, width, 16, edge="none", fill=TEAL if float(loss) == least else BLUE)
        picture.text(width + 6, top + 18, loss, QUIET, size=SMALL)
    picture.text(0, picture.height - 8, "loss on 100 other stories, nats per word", QUIET, size=SMALL)
    return picture


@figure
def blocks_of_attention() -> Picture:
    """Which blocks of the pattern are computed, in which order, and what stays in fast memory."""
    blocks, side, left, top, now = 6, 34, 120, 46, (4, 2)
    picture = Picture("Attention in blocks", 290)
    for row in range(blocks):
        for column in range(row + 1):
            done = (row, column) < now
            fill, opacity = (ORANGE, 0.9) if (row, column) == now else (BLUE, 0.3 if done else 0.0)
            picture.box(left + side * column, top + side * row, side, side, edge=EDGE, fill=fill, opacity=opacity)
    row, column = now
    picture.box(left - 62, top + side * row, 52, side, fill=ORANGE, opacity=0.3)
    picture.text(left - 36, top + side * (row + 0.5) + 4, "Q block", TEXT, MIDDLE, SMALL)
    picture.box(left + side * column - 1, top - 36, 36, 26, fill=ORANGE, opacity=0.3)
    picture.text(left + side * (column + 0.5), top - 19, "K, V", TEXT, MIDDLE, SMALL)
    picture.arrow([(left + side * (column + 1) + 4, top - 23), (left + side * blocks, top - 23)], QUIET)
    right = left + side * blocks + 8
    picture.text(right, top - 19, "pass by", QUIET, size=SMALL)
    picture.text(right, top + side * row + 14, "m, l, o: kept", TEXT, size=SMALL)
    picture.text(right, top + side * row + 29, "until the row ends", QUIET, size=SMALL)
    picture.text(right - 30, top + 46, "later positions:", QUIET, size=SMALL)
    picture.text(right - 30, top + 61, "never computed", QUIET, size=SMALL)
    words = "blue: done, and not stored; orange: computed now, in fast memory"
    picture.text(0, picture.height - 12, words, QUIET, size=SMALL)
    return picture


def _numbers(text: str) -> list[float]:
    return [float(word) for word in text.split()]


@figure
def two_edges() -> Picture:
    """What the page's code prints: sharpness over time, at two rates."""
    rows = [[float(cell) for cell in line.split()] for line in printed("edge-of-stability")[1:-1]]
    times, fast, slow = (list(column) for column in zip(*rows, strict=True))
    picture = Picture("Sharpness rises to 2 over the learning rate, and stays", 280)
    plot = Plot(
        picture, Scale("time: steps times rate", 0, 160, range(0, 161, 40)), Scale("sharpness", 0, 50, range(0, 51, 10))
    )
    for rate, values, color in ((0.05, slow, BLUE), (0.1, fast, ORANGE)):
        plot.level(2 / rate, f"2 / {rate} = {2 / rate:g}", color)
        plot.line(times, values, color)
        plot.dots(times, values, color, 2.5)
    return picture


@figure
def two_descents() -> Picture:
    """What the page's code prints: the error of a fit on new examples, by its number of features."""
    rows = [[float(cell) for cell in line.split()] for line in printed("double-descent")[1:]]
    rows = [row for row in rows if row[0] == 40]
    picture = Picture("Error on new examples falls, rises, and falls again", 300)
    plot = Plot(
        picture,
        Scale("features P, for 40 examples", 2, 400, (2, 5, 10, 20, 40, 100, 200, 400), log=True),
        Scale("mean squared error on new examples", 0.1, 20, (0.1, 0.3, 1, 3, 10), log=True),
    )
    plot.line([40, 40], [0.1, 20], QUIET, 1.2, dashed=True)
    features = [row[1] for row in rows]
    for column, color, name, at, anchor, dx in (
        (3, ORANGE, "shortest fit", 8, START, 8),
        (5, BLUE, "with a penalty", 3, END, -14),
    ):
        values = [row[column] for row in rows]
        plot.line(features, values, color)
        plot.dots(features, values, color, 2.5)
        plot.note(features[at], values[at], name, color, anchor, dx=dx, dy=-dx)
    plot.note(40, 15, "as many as examples", QUIET, END, dx=-6)
    return picture


@figure
def shares_of_experts() -> Picture:
    """What the page's code prints: how many tokens each expert gets, without and with a loss for balance."""
    picture = Picture("Tokens that each of eight experts gets", 250)
    lines = iter(printed("mixtures-of-experts"))
    for number, (about, line) in enumerate(zip(lines, lines, strict=True)):
        shares = line.partition(":")[2]
        left = 40 + 222 * number
        plot = Plot(
            picture,
            Scale("experts, the busiest first", 0.4, 8.6, range(1, 9)),
            Scale(about.replace("balance x", "balance ×"), 0, 50, (0, 12.5, 25, 37.5, 50)),
            left=left,
            right=left + 186,
            top=46,
        )
        plot.line([0.4, 8.6], [12.5, 12.5], QUIET, 1.2, dashed=True)
        for place, share in enumerate(map(float, shares.split()), 1):
            plot.bar(place, share, BLUE if share else ORANGE, 16)
            if not share:
                plot.note(place, 0, "0", ORANGE, MIDDLE, dy=-5)
    picture.text(0, 16, "% of the tokens that an expert gets; dashed: an even share", QUIET, size=SMALL)
    return picture


@figure
def angles_met() -> Picture:
    """Three rotary pairs of a head of width 32: what was met within 32 tokens, and what comes beyond."""
    picture = Picture("Angles of three rotary pairs, met and new", 330)
    trained, longest, base, width = 32, 256, 10_000, 32
    for number, pair in enumerate((2, 5, 8)):
        speed = base ** (-2 * pair / width)
        turns = trained * speed / (2 * math.pi)
        plot = Plot(
            picture,
            Scale(
                "distance in tokens; blue: met in training, orange: new" if number == 2 else "",
                0,
                longest,
                (0, 32, 64, 128, 192, 256),
            ),
            Scale(f"pair {pair}: cosine of the angle; {turns:.2f} turns within {trained} tokens", -1, 1, (-1, 0, 1)),
            top=28 + 100 * number,
            bottom=80 + 100 * number,
        )
        plot.band([0, trained], [-1, -1], [1, 1], TEAL)
        xs = [n / 2 for n in range(2 * longest + 1)]
        met = [x for x in xs if x <= trained]
        plot.line(xs, [math.cos(x * speed) for x in xs], ORANGE, 1.4)
        plot.line(met, [math.cos(x * speed) for x in met], BLUE, 2)
    return picture


@figure
def soft_and_hard() -> Picture:
    """What the page's code prints: the loss of a student, by what it learned from."""
    teacher, _, *lines = printed("distillation")
    rows = [[float(cell.replace(",", "")) for cell in line.split()] for line in lines]
    floor = float(teacher.split(" ")[1])
    letters, hard, soft = (list(column) for column in zip(*rows, strict=True))
    picture = Picture("Loss of a student with soft and with hard targets", 270)
    plot = Plot(
        picture,
        Scale(
            "letters that the student read", letters[0], letters[-1], letters, [f"{n:,.0f}" for n in letters], log=True
        ),
        Scale("lowest loss on held-out text, nats per letter", 2.4, 3.4, (2.4, 2.6, 2.8, 3, 3.2, 3.4)),
        right=430,
    )
    plot.line([letters[0], letters[-1]], [floor, floor], QUIET, 1.2, dashed=True)
    plot.note(letters[0], floor, f"teacher: {floor}", QUIET, dx=8, dy=16)
    for values, color, name in ((hard, ORANGE, "hard targets"), (soft, BLUE, "soft targets")):
        plot.line(letters, values, color)
        plot.dots(letters, values, color)
        plot.note(letters[1], values[1], name, color, dx=8, dy=-8)
    return picture
