"""Predictions that are then run: something is changed, and the loss is measured again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

import torch
import torch.nn.functional as F

from llmlab.anatomy.capture import Intervener, run
from llmlab.core.errors import LabError
from llmlab.core.signs import minus, quoted
from llmlab.inspection.geometry import matrix_of
from llmlab.inspection.intervening import Interventions, parse_intervention, require_intervention
from llmlab.practice.kinds import NAT, PERCENT, Facts, Found, NothingToAsk, choice, interval, kind, ordered
from llmlab.practice.readings import text_of_id
from llmlab.practice.subject import MEASURED_ROWS, Subject

_RISES = (
    "it falls, or rises by less than 0.01 nats per token",
    "it rises by 0.01 to 0.1 nats per token",
    "it rises by 0.1 to 1 nats per token",
    "it rises by more than 1 nat per token",
)
_REPLACED = 4  # tokens that stand in turn in place of one
_COUNTS = 0.1  # nats: a token without which less is lost does not count
_APART = 0.01  # nats: losses that are nearer to each other have no order to ask for
_ROWS = 2000  # of an embedding, drawn where it has more


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


def _becomes(before: float, after: float, changed: str = "after", prompt: str = "", **facts: Any) -> Found:
    """What becomes of a loss, from its values before and after a change."""
    rise = after - before
    measured = f"Measured: {before:.4f} before, {after:.4f} {changed}: {minus(f'{rise:+.4f}')} nats per token."
    place = 0 if rise < 0.01 else 1 if rise < 0.1 else 2 if rise < 1 else 3
    return ordered(place, _RISES, prompt=prompt, measured=measured, **facts)


# By kind, the intervention.
_EDITS = {
    "without-a-head": "zero head:{head}",
    "without-attention": "zero attention:{layer}",
    "without-feed-forward": "zero feed_forward:{layer}",
    "without-a-layer": "zero layer:{layer}",
    "half-a-layer": "scale:0.5 attention:{layer}",
    "twice-a-head": "scale:2 head:{head}",
}


def _add_edit(name: str, edit: str) -> None:
    @kind(name)
    def edited(subject: Subject, random: Random) -> Found:
        layer = _layer(subject, random)
        part = {"layer": layer, "head": f"{layer}.{random.randrange(subject.opened.anatomy.n_head)}"}
        words = edit.format(**part)
        before, after = loss_of(subject, subject.measured), loss_of(subject, subject.measured, [words])
        return _becomes(before, after, f"with `{words}`", subject.prompt, rows=MEASURED_ROWS, **part)


def _highest(subject: Subject, edits: Mapping[str, str], **facts: Any) -> Found:
    """Without which of some parts the loss is highest. edits: by part. NothingToAsk where two are alike."""
    losses = {name: loss_of(subject, subject.measured, [edit]) for name, edit in edits.items()}
    _require_apart(losses.values())
    measured, names = ", ".join(f"{loss:.3f} without {name}" for name, loss in losses.items()), list(losses)
    place = names.index(max(losses, key=lambda name: losses[name]))
    return ordered(place, names, prompt=subject.prompt, losses=measured, **facts)


def _require_apart(losses: Iterable[float]) -> None:
    """NothingToAsk where the highest cannot be told from the next."""
    *_, second, highest = sorted(losses)
    if highest - second < _APART:
        raise NothingToAsk("The two highest losses are alike.", f"{highest:.4f} and {second:.4f}.")


def _layer(subject: Subject, random: Random) -> int:
    return random.randrange(subject.opened.anatomy.n_layer)


for _name, _edit in _EDITS.items():
    _add_edit(_name, _edit)


def most_needed_layer(subject: Subject, random: Random) -> Found:
    layers = subject.opened.anatomy.n_layer
    if layers < 2:
        raise NothingToAsk("It has one layer.")
    asked = sorted(random.sample(range(layers), min(4, layers)))
    return _highest(subject, {f"layer {layer}": f"zero layer:{layer}" for layer in asked})


def attention_or_feed_forward(subject: Subject, random: Random) -> Found:
    layer = _layer(subject, random)
    edits = {"attention": f"zero attention:{layer}", "the feed-forward": f"zero feed_forward:{layer}"}
    return _highest(subject, edits, layer=layer)


def carrying_token(subject: Subject, random: Random) -> Found:
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
    names = [f"{position}: {quoted(opened.tokenizer.token_text(int(id)))}" for position, id in enumerate(ids.tolist())]
    best = ", ".join(f"{falls[position]:.3f} for {names[position]}" for position in order[:3])
    facts: Facts = {"token": text_of_id(subject, answer), "others": _REPLACED, "best": best}
    return choice(random, names[order[0]], [names[at] for at in less], prompt=subject.prompt, **facts)


def shuffled_words(subject: Subject, random: Random) -> Found:
    ids = subject.measured
    order = torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(subject.seed))
    before, after = loss_of(subject, ids), loss_of(subject, ids[:, order])
    return interval(after, useful=NAT, before=before, rows=MEASURED_ROWS, after=after)


def short_memory(subject: Subject, random: Random) -> Found:
    ids, kept = subject.measured, 4
    rows = ids.unfold(1, kept + 1, 1).flatten(0, 1)  # each token's own window [N, kept + 1]
    logits = run(subject.opened.model, subject.opened.anatomy, rows[:, :-1])[:, -1].float()
    after = float(F.cross_entropy(logits, rows[:, -1].to(logits.device)))
    return interval(after, useful=NAT, before=loss_of(subject, ids), time=ids.shape[1] - 1, kept=kept, after=after)


def read_twice(subject: Subject, random: Random) -> Found:
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
    return ordered(0 if fall < 0.5 else 1 if fall < 2 else 2, half=half, first=first, second=second)


def later_is_easier(subject: Subject, random: Random) -> Found:
    ids = subject.measured
    time = ids.shape[1] - 1
    quarter = time // 4
    if quarter < 2:
        raise NothingToAsk("Its context is too short.")
    logits = run(subject.opened.model, subject.opened.anatomy, ids[:, :-1]).float()
    losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:].to(logits.device), reduction="none")  # [B, T]
    early, late = float(losses[:, :quarter].mean()), float(losses[:, -quarter:].mean())
    facts: Facts = {"rows": MEASURED_ROWS, "time": time, "quarter": quarter, "late": late, "early": early}
    return interval(late - early, useful=NAT / 2, **facts)


def embedding_cosines(subject: Subject, random: Random) -> Found:
    matrix = matrix_of(subject.opened, "tokens").float().cpu()
    count, width = len(matrix), matrix.shape[1]
    kept = torch.randperm(count, generator=torch.Generator().manual_seed(subject.seed))[:_ROWS]
    rows = F.normalize(matrix[kept], dim=1)
    upper = torch.ones(len(rows), len(rows), dtype=torch.bool).triu(1)
    found = float((rows @ rows.T)[upper].abs().mean())
    drawn = math.exp(math.lgamma(width / 2) - math.lgamma((width + 1) / 2)) / math.sqrt(math.pi)
    return interval(found, useful=0.25, count=count, width=width, drawn=drawn, rows=len(rows), found=found)


def rounded_weights(subject: Subject, random: Random) -> Found:
    bits = random.choice((8, 4, 3))
    before, after = loss_of(subject, subject.measured), _with_rounded(subject, bits)
    return _becomes(before, after, bits=bits)


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


def beats_its_own_choice(subject: Subject, random: Random) -> Found:
    ids = subject.measured
    logits = run(subject.opened.model, subject.opened.anatomy, ids[:, :-1])
    right = 100 * float((logits.argmax(-1).cpu() == ids[:, 1:]).float().mean())
    return interval(right, useful=PERCENT, rows=MEASURED_ROWS, time=ids.shape[1] - 1, right=right)


def sharper_softmax(subject: Subject, random: Random) -> Found:
    ids = subject.measured
    logits = run(subject.opened.model, subject.opened.anatomy, ids[:, :-1]).float().flatten(0, 1)
    targets = ids[:, 1:].to(logits.device).flatten()
    before, after = float(F.cross_entropy(logits, targets)), float(F.cross_entropy(2 * logits, targets))
    return _becomes(before, after, loss=before)
