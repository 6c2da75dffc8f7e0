"""Stages from the stream at its end to the next token: final norm, logits, temperature, top-k, top-p, the draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from llmlab.core.errors import UsageError
from llmlab.core.settings import Sampling
from llmlab.core.signs import quoted
from llmlab.gpt.generate import choose, sampling_steps
from llmlab.inspection.readout import text_of
from llmlab.walk.focus import Focus, value
from llmlab.walk.norms import norm_stage
from llmlab.walk.stage import Stage, Value
from llmlab.walk.sums import bracketed, dot, number, total
from llmlab.walk.watched import set_number

# Tokens that a stage names.
_SHOWN = 12


def prediction_stages(focus: Focus) -> Iterator[Stage]:
    """Final norm, logits, each sampling setting that is not neutral, the probabilities, the draw, the next token."""
    anatomy, seen, p = focus.anatomy, focus.seen, focus.position
    yield norm_stage(focus, "final_norm", anatomy.final_norm)
    yield _logits(focus)
    logits, how = seen.logits, focus.sampling
    before = logits
    for name, after in _sampling(focus, logits, how, focus.ids[: p + 1]):
        yield _sampled(focus, name, before, after)
        before = after
    p_of_all = _set(focus, "probabilities", before.softmax(-1))
    yield _probabilities(focus, before, p_of_all)
    if not p_of_all.any():
        raise UsageError("No token is left to be drawn.", "All others have the probability 0 already.")
    changed = "probabilities" in focus.changes.vectors  # they are drawn from as they are, whatever they sum to
    yield from _draw(focus, p_of_all.log() if changed else before)


def _sampling(focus: Focus, logits: Tensor, how: Sampling, text: Sequence[int]) -> Iterator[tuple[str, Tensor]]:
    """The steps as `llmlab.gpt.generate.sampling_steps` has them; behind a change they go on from what it set."""
    names = [name for name, _ in sampling_steps(logits, how, text)]
    for name in names:
        alone = replace(Sampling(), **{name: getattr(how, name)})
        for _, after in sampling_steps(logits, alone, text):
            logits = _set(focus, name, after)
            yield name, logits


def _set(focus: Focus, name: str, x: Tensor) -> Tensor:
    """x [V] with what a change of it sets."""
    return set_number(x, *focus.changes.vectors[name]) if name in focus.changes.vectors else x


def _logits(focus: Focus) -> Stage:
    anatomy, seen = focus.anatomy, focus.seen
    x, logits = seen.outputs[anatomy.final_norm][focus.position], seen.logits
    best = int(logits.argmax())
    unembedding = anatomy.unembedding.detach().float().cpu()
    product = unembedding @ x
    recomputed = anatomy.finish(product)[: len(logits)]
    numbers = f"logit of {_text(focus, best)} = {dot(unembedding[best], x, float(product[best]))}"
    behind = {"bias": "", "scale": "", "softcap": ""}
    if anatomy.unembedding_bias is not None:
        behind["bias"] = " + b[token]"
        numbers += f", + {bracketed(float(anatomy.unembedding_bias[best]))}"
    if anatomy.logit_scale != 1.0:
        behind["scale"] = f" · {number(anatomy.logit_scale)}"
        numbers += f", · {number(anatomy.logit_scale)}"
    if anatomy.logit_softcap is not None:
        behind["softcap"] = ", softcap"
        numbers += f", capped at {number(anatomy.logit_softcap)}"
    if not numbers.endswith(number(float(logits[best]))):
        numbers += f": {number(float(logits[best]))}"
    values = [_top(focus, "logits", "most likely", logits), value("all logits", ("token of the vocabulary",), logits)]
    tied = anatomy.unembedding.data_ptr() == anatomy.embedding.weight.data_ptr()  # type: ignore[operator]
    note = "U is the embedding E itself: its head is tied." if tied else ""
    return focus.stage("logits", numbers, values, recomputed, logits, note, **behind)


def _sampled(focus: Focus, name: str, before: Tensor, after: Tensor) -> Stage:
    how, best = focus.sampling, int(before.argmax())
    kept = int((after > -torch.inf).sum())
    formula = "logit = logit / T"
    match name:
        case "temperature" if how.temperature == 0:
            formula, numbers = "only the most likely token is left", f"it is {_text(focus, best)}"
        case "temperature":
            divided = f"{number(float(before[best]))} / {number(how.temperature)} = {number(float(after[best]))}"
            numbers = f"{_text(focus, best)}: {divided}"
        case "top_k":
            least = float(after[after > -torch.inf].min())
            numbers = f"k = {how.top_k}: {kept:,} of {len(after):,} tokens are left, down to a logit of {number(least)}"
        case _:
            together = float(before.softmax(-1)[after > -torch.inf].sum())
            numbers = f"p = {number(how.top_p)}: {kept:,} tokens are left, which have {number(together)} together"
    return focus.stage(name, numbers, [_top(focus, name, "logits left", after)], formula=formula)


def _probabilities(focus: Focus, final: Tensor, p: Tensor) -> Stage:
    best = int(final.argmax())
    powers = (final - final.max()).exp()
    terms = [number(one) for one in powers.topk(min(_SHOWN, len(powers))).values.tolist() if one > 0]
    numbers = f"p of {_text(focus, best)} = 1 / ({total(terms, float(powers.sum()))}) = {number(float(p[best]))}"
    if len(terms) < int((powers > 0).sum()):
        numbers += f" (over all {int((powers > 0).sum()):,} tokens)"
    values = [
        _top(focus, "probabilities", "most likely", p),
        value("all probabilities", ("token of the vocabulary",), p),
    ]
    return focus.stage("probabilities", numbers, values, powers / powers.sum(), p)


def _draw(focus: Focus, final: Tensor) -> Iterator[Stage]:
    """The draw as torch.multinomial makes it: an exponential number for each token, and the largest p / e wins."""
    chosen, numbers_drawn = draw(final, focus)
    if numbers_drawn is None:
        formula, numbers = "the most likely token", "At temperature 0 nothing is drawn."
        yield focus.stage("draw", numbers, [], which="", formula=formula)
    else:
        p = final.softmax(-1)
        race = p / numbers_drawn
        order = race.topk(min(_SHOWN, int((p > 0).sum()))).indices
        labels = [_text(focus, int(id)) for id in order]
        rows = zip(labels, p[order].tolist(), numbers_drawn[order].tolist(), race[order].tolist(), strict=True)
        first = [f"{label}: {number(share)} / {number(e)} = {number(result)}" for label, share, e, result in rows]
        named = (("p / e", race), ("p", p), ("random number e", numbers_drawn))
        yield focus.stage(
            "draw",
            "; next came ".join(first[:2]),
            [_picked(focus, name, of, order) for name, of in named],
            race.argmax()[None],
            torch.tensor([chosen]),
            which=f" (seed {focus.seed}, draw {focus.drawn + 1})",
            formula="the token with the largest p / e, where each e is a random number with the density exp(−e)",
        )
    drawn = [value("id", ("token",), torch.tensor([float(chosen)]))]
    yield focus.stage("next", f"{_text(focus, chosen)}, id {chosen:,}", drawn)


def draw(final: Tensor, focus: Focus) -> tuple[int, Tensor | None]:
    """The next token's id as `llmlab.gpt.generate.choose` draws it, and the random numbers [V] that decided.

    final: logits [V] after all sampling settings. None at temperature 0. Each earlier draw of the same seed used up as
    many numbers.
    """
    generator = torch.Generator().manual_seed(focus.seed)
    if focus.sampling.temperature == 0:
        return int(final.argmax()), None
    p = torch.empty_like(final)
    for _ in range(focus.drawn):
        p.exponential_(generator=generator)
    ours = torch.Generator()
    ours.set_state(generator.get_state())
    numbers = torch.empty_like(final).exponential_(generator=ours)
    return choose(final, Sampling(), (), generator).id, numbers


def _top(focus: Focus, stage: str, name: str, x: Tensor) -> Value:
    """The most likely tokens; one whose number was set is always among them."""
    order = x.topk(min(_SHOWN, int((x > -torch.inf).sum()))).indices
    if stage in focus.changes.vectors and (set_here := focus.changes.vectors[stage][0]) not in order:
        order = torch.cat([order[: _SHOWN - 1], torch.tensor([set_here])])
    return _picked(focus, name, x, order)


def _picked(focus: Focus, name: str, x: Tensor, order: Tensor) -> Value:
    """Of x [V] the numbers of a few tokens."""
    ids = order.tolist()
    few = value(name, ("token",), x[order], [_text(focus, id) for id in ids])
    return replace(few, picked=tuple(ids), whole=x.float().cpu().numpy())


def _text(focus: Focus, id: int) -> str:
    return quoted(text_of(focus.opened.tokenizer, id))
