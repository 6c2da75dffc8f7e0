"""Predictions that are then run: something is changed, and the loss is measured again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
import torch.nn.functional as F

from llmlab.anatomy.capture import Intervener, run
from llmlab.core.errors import LabError
from llmlab.inspection.geometry import matrix_of
from llmlab.inspection.intervening import Interventions, parse_intervention, require_intervention
from llmlab.practice.kinds import (
    MODEL,
    NAT,
    PERCENT,
    SETTINGS,
    Draft,
    NothingToAsk,
    choice,
    interval,
    kind,
    minus,
    ordered,
)
from llmlab.practice.question import PREDICT
from llmlab.practice.readings import about, text_of_id
from llmlab.practice.subject import MEASURED_ROWS, Subject
from llmlab.practice.twin import BATCH, LAYERS, STEPS, WIDTH, twin_losses

_RISES = (
    "it falls, or rises by less than 0.01",
    "it rises by 0.01 to 0.1",
    "it rises by 0.1 to 1",
    "it rises by more than 1",
)
_REPLACED = 4  # tokens that stand in turn in place of one
_COUNTS = 0.1  # nats: a token without which less is lost does not count
_APART = 0.01  # nats: losses that are nearer to each other have no order to ask for
_ROWS = 2000  # of an embedding, drawn where it has more
_CHANGES = ("lower by more than 0.05", "within 0.05 of it", "higher by 0.05 to 0.5", "higher by more than 0.5")


def loss_of(subject: Subject, ids: torch.Tensor, edits: Sequence[str] = ()) -> float:
    """Mean loss in nats over rows of ids [B, T + 1], with interventions as they are written ("zero head:2.1")."""
    opened, changes = subject.opened, [parse_intervention(edit) for edit in edits]
    try:
        for change in changes:
            require_intervention(opened.anatomy, change)
    except LabError as error:
        raise NothingToAsk(error.what, error.why) from error
    made: list[Intervener] = [Interventions(changes, ids.shape[1] - 1)] if changes else []
    logits = run(opened.model, opened.anatomy, ids[:, :-1], (), made).float()
    return float(F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].to(logits.device).flatten()))


def _becomes(text: str, before: float, after: float, changed: str = "after", prompt: str = "") -> Draft:
    """What becomes of a loss, from its values before and after a change."""
    rise = after - before
    right = _RISES[0 if rise < 0.01 else 1 if rise < 0.1 else 2 if rise < 1 else 3]
    how = f"Measured: {before:.4f} before, {after:.4f} {changed}: {minus(f'{rise:+.4f}')}."
    return ordered(text, _RISES, right, how, prompt=prompt)


# name, page, what is done to which part, and the same as an intervention
_EDITS = (
    ("without-a-head", "ablation-and-patching", "head {head} is set to zero.", "zero head:{head}"),
    (
        "without-attention",
        "ablation-and-patching",
        "all that attention of layer {layer} adds is set to zero.",
        "zero attention:{layer}",
    ),
    (
        "without-feed-forward",
        "feed-forward",
        "all that the feed-forward of layer {layer} adds is set to zero.",
        "zero feed_forward:{layer}",
    ),
    ("without-a-layer", "residual-stream", "layer {layer} is skipped.", "zero layer:{layer}"),
    (
        "half-a-layer",
        "residual-stream",
        "what attention of layer {layer} adds is halved.",
        "scale:0.5 attention:{layer}",
    ),
    ("twice-a-head", "ablation-and-patching", "what head {head} adds is doubled.", "scale:2 head:{head}"),
)


def _add_edit(name: str, page: str, what: str, edit: str) -> None:
    @kind(name, page, PREDICT, "interventions", MODEL)
    def edited(subject: Subject, random: Random) -> Draft:
        layer = _layer(subject, random)
        part = {"layer": layer, "head": f"{layer}.{random.randrange(subject.opened.anatomy.n_head)}"}
        words = edit.format(**part)
        before, after = loss_of(subject, subject.measured), loss_of(subject, subject.measured, [words])
        text = (
            f"{subject.name}: {what.format(**part)} What becomes of its loss, in nats per token, on {MEASURED_ROWS} "
            "passages of text?"
        )
        return _becomes(text, before, after, f"with `{words}`", subject.prompt)


def _require_apart(losses: Iterable[float]) -> None:
    """NothingToAsk where the highest cannot be told from the next."""
    *_, second, highest = sorted(losses)
    if highest - second < _APART:
        raise NothingToAsk("The two highest losses are alike.", f"{highest:.4f} and {second:.4f}.")


def _layer(subject: Subject, random: Random) -> int:
    return random.randrange(subject.opened.anatomy.n_layer)


for _edit in _EDITS:
    _add_edit(*_edit)


@kind("most-needed-layer", "ablation-and-patching", PREDICT, "interventions", MODEL)
def most_needed_layer(subject: Subject, random: Random) -> Draft:
    layers = subject.opened.anatomy.n_layer
    if layers < 2:
        raise NothingToAsk("It has one layer.")
    asked = sorted(random.sample(range(layers), min(4, layers)))
    losses = {f"layer {layer}": loss_of(subject, subject.measured, [f"zero layer:{layer}"]) for layer in asked}
    _require_apart(losses.values())
    text = f"{subject.name}: one of these layers is skipped. Without which is the loss highest?"
    how = "Measured: " + ", ".join(f"{loss:.3f} without {name}" for name, loss in losses.items()) + "."
    return ordered(text, tuple(losses), max(losses, key=lambda name: losses[name]), how, prompt=subject.prompt)


@kind("attention-or-feed-forward", "feed-forward", PREDICT, "interventions", MODEL)
def attention_or_feed_forward(subject: Subject, random: Random) -> Draft:
    layer = _layer(subject, random)
    names = {"attention": f"zero attention:{layer}", "the feed-forward": f"zero feed_forward:{layer}"}
    losses = {name: loss_of(subject, subject.measured, [edit]) for name, edit in names.items()}
    _require_apart(losses.values())
    text = f"{subject.name}, layer {layer}: without which of its two halves is the loss higher?"
    how = "Measured: " + ", ".join(f"{loss:.3f} without {name}" for name, loss in losses.items()) + "."
    return ordered(text, tuple(names), max(losses, key=lambda name: losses[name]), how, prompt=subject.prompt)


@kind("carrying-token", "ablation-and-patching", PREDICT, "prompt", MODEL)
def carrying_token(subject: Subject, random: Random) -> Draft:
    """The last token is left out: what follows nearly always rests on it."""
    ids, opened = torch.tensor(subject.passage), subject.opened
    count = len(ids) - 1
    draws = torch.Generator().manual_seed(subject.seed)
    others = torch.randint(opened.vocab_size, (count, _REPLACED), generator=draws)
    rows = ids.repeat(count, _REPLACED, 1)  # [position that is replaced, by which, T]
    for position in range(count):
        rows[position, :, position] = others[position]
    logits = run(opened.model, opened.anatomy, torch.cat([ids[None], rows.flatten(0, 1)]))[:, -1].float()
    answer = int(logits[0, : opened.vocab_size].argmax())
    log_p = logits.log_softmax(-1)[:, answer]
    falls = (log_p[0] - log_p[1:].view(count, _REPLACED).mean(1)).tolist()
    order = sorted(range(count), key=lambda position: -falls[position])
    if falls[order[0]] < _COUNTS:
        raise NothingToAsk("No earlier token counts.", f"Without any, ln p falls by {falls[order[0]]:.3f} at most.")
    less = [position for position in order if falls[position] < falls[order[0]] / 2]  # by far: few were drawn
    names = [f"{position}: {opened.tokenizer.token_text(int(id))!r}" for position, id in enumerate(ids.tolist())]
    said = text_of_id(subject, answer)
    text = (
        f"{about(subject)} It expects {said} next. Each of these earlier tokens is replaced in turn by tokens drawn at "
        f"random. Which replacement lowers the log-probability of {said} most?"
    )
    best = ", ".join(f"{falls[position]:.3f} for {names[position]}" for position in order[:3])
    how = f"Each was replaced by {_REPLACED} tokens in turn; ln p of {said} fell, on average, by {best}."
    return choice(random, text, names[order[0]], [names[at] for at in less], how, prompt=subject.prompt)


@kind("shuffled-words", "embeddings", PREDICT, "prompt", MODEL)
def shuffled_words(subject: Subject, random: Random) -> Draft:
    ids = subject.measured
    order = torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(subject.seed))
    before, after = loss_of(subject, ids), loss_of(subject, ids[:, order])
    text = (
        f"{subject.name} has a loss of {before:.2f} nats on {MEASURED_ROWS} "
        "passages. What is it when their tokens are shuffled?"
    )
    return interval(text, after, f"Measured on the same tokens in another order: {after:.3f}.", unit="nats", useful=NAT)


@kind("short-memory", "n-grams", PREDICT, "prompt", MODEL)
def short_memory(subject: Subject, random: Random) -> Draft:
    ids, kept = subject.measured, 4
    rows = ids.unfold(1, kept + 1, 1).flatten(0, 1)  # each token's own window [N, kept + 1]
    logits = run(subject.opened.model, subject.opened.anatomy, rows[:, :-1])[:, -1].float()
    after = float(F.cross_entropy(logits, rows[:, -1].to(logits.device)))
    before = loss_of(subject, ids)
    text = (
        f"{subject.name} has a loss of {before:.2f} nats on passages of {ids.shape[1] - 1} "
        f"tokens. What is it when it sees only the last {kept} tokens before each?"
    )
    how = f"Measured, each token from the {kept} before it: {after:.3f}."
    return interval(text, after, how, unit="nats", useful=NAT)


@kind("read-twice", "induction-heads", PREDICT, "attention", MODEL)
def read_twice(subject: Subject, random: Random) -> Draft:
    half = (subject.measured.shape[1] - 1) // 2
    if half < 2:
        raise NothingToAsk("Its context is too short.")
    draws = torch.Generator().manual_seed(subject.seed)
    once = torch.randint(subject.opened.vocab_size, (MEASURED_ROWS, half), generator=draws)
    twice = torch.cat([once, once], 1)
    logits = run(subject.opened.model, subject.opened.anatomy, twice[:, :-1]).float()
    losses = F.cross_entropy(logits.transpose(1, 2), twice[:, 1:].to(logits.device), reduction="none")
    first, second = float(losses[:, : half - 1].mean()), float(losses[:, half:].mean())
    fall = first - second
    marks = ("by less than 0.5 nats, or not at all", "by 0.5 to 2 nats", "by more than 2 nats")
    text = f"{subject.name} reads {half} random tokens twice in a row. By how much is its loss lower the second time?"
    right = marks[0 if fall < 0.5 else 1 if fall < 2 else 2]
    return ordered(text, marks, right, f"Measured: {first:.2f} nats the first time, {second:.2f} the second.")


@kind("later-is-easier", "in-context-learning", PREDICT, "lens", MODEL)
def later_is_easier(subject: Subject, random: Random) -> Draft:
    ids = subject.measured
    quarter = (ids.shape[1] - 1) // 4
    if quarter < 2:
        raise NothingToAsk("Its context is too short.")
    logits = run(subject.opened.model, subject.opened.anatomy, ids[:, :-1]).float()
    losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:].to(logits.device), reduction="none")  # [B, T]
    early, late = float(losses[:, :quarter].mean()), float(losses[:, -quarter:].mean())
    text = (
        f"{subject.name} reads {MEASURED_ROWS} passages of {ids.shape[1] - 1} tokens. What is the mean loss of their "
        f"last {quarter} tokens less that of their first {quarter}? (Below zero where the context helps.)"
    )
    return interval(text, late - early, f"Measured: {late:.3f} late, {early:.3f} early.", unit="nats", useful=NAT / 2)


@kind("embedding-cosines", "superposition", PREDICT, "geometry", MODEL)
def embedding_cosines(subject: Subject, random: Random) -> Draft:
    matrix = matrix_of(subject.opened, "tokens").float().cpu()
    count, width = len(matrix), matrix.shape[1]
    kept = torch.randperm(count, generator=torch.Generator().manual_seed(subject.seed))[:_ROWS]
    rows = F.normalize(matrix[kept], dim=1)
    upper = torch.ones(len(rows), len(rows), dtype=torch.bool).triu(1)
    found = float((rows @ rows.T)[upper].abs().mean())
    drawn = math.exp(math.lgamma(width / 2) - math.lgamma((width + 1) / 2)) / math.sqrt(math.pi)
    text = (
        f"{subject.name} keeps {count:,} tokens apart in {width} dimensions. How large is the cosine of two rows of "
        f"its token embedding, without its sign, on average? (Of random directions in {width} dimensions: {drawn:.2f}.)"
    )
    how = f"Measured over all pairs of {len(rows):,} rows: {found:.3f}."
    return interval(text, found, how, useful=0.25)


@kind("rounded-weights", "quantisation", PREDICT, "parameters", MODEL)
def rounded_weights(subject: Subject, random: Random) -> Draft:
    bits = random.choice((8, 4, 3))
    before, after = loss_of(subject, subject.measured), _with_rounded(subject, bits)
    text = (
        f"Each row of the matrices of {subject.name} is rounded to {bits} "
        "bits, with one scale for the row. What becomes of its loss?"
    )
    return _becomes(text, before, after)


@torch.no_grad()
def _with_rounded(subject: Subject, bits: int) -> float:
    """The loss with rounded matrices; the weights are put back, also after an error."""
    matrices = [
        weight for weight in subject.opened.model.parameters() if weight.dim() == 2 and weight.is_floating_point()
    ]
    kept = [weight.clone() for weight in matrices]
    levels = 2 ** (bits - 1) - 1
    try:
        for weight in matrices:
            scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / levels
            weight.copy_((weight / scale).round().clamp(-levels, levels) * scale)
        return loss_of(subject, subject.measured)
    finally:
        for weight, old in zip(matrices, kept, strict=True):
            weight.copy_(old)


@kind("beats-its-own-choice", "evaluation", PREDICT, "lens", MODEL)
def beats_its_own_choice(subject: Subject, random: Random) -> Draft:
    ids = subject.measured
    logits = run(subject.opened.model, subject.opened.anatomy, ids[:, :-1])
    right = float((logits.argmax(-1).cpu() == ids[:, 1:]).float().mean())
    text = (
        f"How often is the most likely next token of {subject.name} the one that "
        f"follows, on {MEASURED_ROWS} passages of {ids.shape[1] - 1} tokens?"
    )
    return interval(text, 100 * right, f"Counted: {100 * right:.1f} %.", unit="%", useful=PERCENT)


@kind("sharper-softmax", "loss", PREDICT, "write", MODEL)
def sharper_softmax(subject: Subject, random: Random) -> Draft:
    ids = subject.measured
    logits = run(subject.opened.model, subject.opened.anatomy, ids[:, :-1]).float().flatten(0, 1)
    targets = ids[:, 1:].to(logits.device).flatten()
    before, after = float(F.cross_entropy(logits, targets)), float(F.cross_entropy(2 * logits, targets))
    text = f"{subject.name} has a loss of {before:.2f} nats. What becomes of it at temperature 0.5, all logits doubled?"
    return _becomes(text, before, after)


# Predictions that are trained ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What is changed in a twin: settings of its model, its learning rate by a factor, or its batch."""

    name: str
    concept: str
    panel: str
    words: str
    model: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1.0
    batch: int = BATCH


CHANGES = (
    Change("ten-times-the-rate", "learning-rate", "learning_rate", "ten times the learning rate", rate=10.0),
    Change("a-tenth-of-the-rate", "learning-rate", "learning_rate", "a tenth of the learning rate", rate=0.1),
    Change("one-layer-less", "residual-stream", "setup", "one layer instead of two", {"n_layer": 1}),
    Change(
        "a-quarter-of-the-batch",
        "critical-batch-size",
        "setup",
        f"{BATCH // 4} sequences a batch instead of {BATCH}",
        batch=BATCH // 4,
    ),
    Change("one-head", "attention", "setup", "one head instead of four", {"n_head": 1}),
    Change("sees-four-tokens", "attention", "setup", "a context of 4 bytes instead of 32", {"block_size": 4}),
)


def _trained(subject: Subject, change: Change) -> Draft:
    """What becomes of a twin's loss when one setting of its training is another."""
    train = subject.settings.train
    rates = {
        "learning_rate": change.rate * train.learning_rate,
        "min_learning_rate": change.rate * train.min_learning_rate,
    }
    plain, changed = twin_losses(subject, change.model, batch=change.batch, **rates)
    if not math.isfinite(plain):
        raise NothingToAsk("The twin diverges at this learning rate.")
    text = (
        f"A small model ({LAYERS} layers, d_model = {WIDTH}, bytes of the text of {subject.name}) is trained for "
        f"{STEPS} steps with the learning rate of {subject.name}, {train.learning_rate:g}, and ends at a loss of "
        f"{plain:.2f} nats. Now with {change.words}. Where does it end?"
    )
    if not math.isfinite(changed):
        return ordered(text, _CHANGES, _CHANGES[3], f"Trained: it diverged; {plain:.3f} without the change.")
    rise = changed - plain
    right = _CHANGES[0 if rise < -0.05 else 1 if rise < 0.05 else 2 if rise < 0.5 else 3]
    return ordered(text, _CHANGES, right, f"Trained, both: {plain:.3f} and {changed:.3f}, {minus(f'{rise:+.3f}')}.")


def _add(change: Change) -> None:
    @kind(change.name, change.concept, PREDICT, change.panel, SETTINGS, trains=True)
    def trained(subject: Subject, random: Random) -> Draft:
        return _trained(subject, change)


for _change in CHANGES:
    _add(_change)
