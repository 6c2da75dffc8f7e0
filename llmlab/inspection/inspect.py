"""Inspects a prompt: one forward pass, written into one archive."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.attention_call import with_all_keys
from llmlab.anatomy.capture import POINTS, Observer, Point
from llmlab.core.errors import LabError, UsageError
from llmlab.core.progress import Progress
from llmlab.inspection.archive import ArchiveWriter, Array, Metadata, Slot, write_archive
from llmlab.inspection.attribution import AttributionAt
from llmlab.inspection.heads import HeadSummaries, repeat_scores
from llmlab.inspection.lens import Lens
from llmlab.inspection.questions import ASPECTS, REFUSED_BY, Inspect, Prompt, Target, position_of, to_values, token_of
from llmlab.inspection.readout import logits_made, read, target_of, text_of
from llmlab.inspection.residual import Contributions, ResidualStream
from llmlab.inspection.rollout import Rollout
from llmlab.models.model import OpenModel

# What the progress of a pass begins with.
READING = "Reading the prompt"
_NOT_FINITE = (
    "This model predicts numbers that are not finite, as after training that diverged; much of what is shown is not "
    "finite either."
)
# From this many bytes on, what goes to disk is worth a word.
_MUCH = 10_000_000


def describe(opened: OpenModel, kind: str, ids: Sequence[int], question: Prompt, **more: str) -> Metadata:
    """The metadata that every answer begins with."""
    anatomy = opened.anatomy
    notes = []
    if any(block.parallel for block in anatomy.blocks):
        notes.append(
            "Attention and feed-forward work side by side in this family: post_attn is virtual, pre_attn + attn_out, "
            "and exists nowhere in the model."
        )
    if anatomy.sinks:
        notes.append("Heads have a sink outside the prompt: rows of their patterns sum to less than one.")
    return Metadata(
        kind=kind,
        model=opened.reference,
        weights_sha256=opened.weights_sha256,
        token_ids=list(ids),
        tokens=[opened.tokenizer.token_text(id) for id in ids],
        dtype=str(anatomy.unembedding.dtype).removeprefix("torch."),
        attention_path=anatomy.attention_path,
        versions=dict(versions()),
        notes=notes,
        question=to_values(question),
        more={
            "family": anatomy.family,
            "n_layer": str(anatomy.n_layer),
            "step": "" if opened.step is None else str(opened.step),
            **more,
        },
    )


@functools.cache
def versions() -> Mapping[str, str]:
    """The libraries whose version may show in the numbers."""
    return {name: importlib.metadata.version(name) for name in ("torch", "transformers", "numpy")}


def inspect(
    opened: OpenModel, question: Inspect, out: Path, progress: Progress, part: Callable[[Path], None] | None = None
) -> None:
    """Reads a prompt once and writes what was asked for: see `llmlab.inspection.answers` for the tensors.

    part: is given archives of what was found so far, beside `out`, where the question wants them. They are its own.
    """
    if unknown := sorted(set(question.what) - set(ASPECTS)):
        raise UsageError(f"There is no {unknown[0]!r} to inspect.", f"There are: {', '.join(ASPECTS)}.")
    anatomy = opened.anatomy
    ids = question.token_ids(opened)
    time, position = len(ids), position_of(question.position, len(ids))
    check_target(opened, question)
    wanted, refused = _wanted(anatomy, question.what)
    slots = _streamed_slots(anatomy, wanted, time)
    about = describe(opened, "inspection", ids, question)
    about = dataclasses.replace(about, notes=[*about.notes, *refused])
    with ArchiveWriter(out, slots, about) as writer:
        watchers: list[Observer] = [_Told(anatomy.n_layer, writer.bytes, progress)]
        reduced: list[HeadSummaries | Contributions] = []
        if "attention" in wanted:
            watchers.append(_PatternWriter(writer, time))
        if "rollout" in wanted:
            rollout = "attention/rollout"
            watchers.append(Rollout(anatomy, time, lambda layer, x: writer.write(rollout, as_array(x), layer)))
        if "residual" in wanted:
            watchers.append(ResidualStream(lambda name, x, *layer: writer.write(name, as_array(x), *layer)))
        if "heads" in wanted:
            reduced.append(HeadSummaries(anatomy, time))
        if "contributions" in wanted:
            reduced.append(Contributions(anatomy, time, out.parent, logits=logits_made(anatomy, time)))
        attribution = AttributionAt(anatomy, position) if "attribution" in wanted else None
        lens = None
        if "lens" in wanted:
            lens = Lens(anatomy, ids, vocab_size=opened.vocab_size, top=question.top, folder=out.parent)
        watchers += [*reduced, *(watcher for watcher in (attribution, lens) if watcher)]
        readout = read(opened, ids, watchers)
        for observer in reduced:
            _add(writer, observer.results())
        if "heads" in wanted:
            scores, how = repeated(opened)
            _add(writer, scores)
            about.notes.append(how)
        logits = readout.at(position)
        if not bool(logits.isfinite().all()):
            about.notes.append(_NOT_FINITE)
        target = target_of(opened, question, logits, position)
        about.more.update(target.strings(opened), next=json.dumps(_most_likely(opened, logits, question.top)))
        if attribution:
            _add(writer, attribution.results(target.answer, target.against))
            if after := attribution.after(target.answer, target.against):
                about.notes.append(after)
        if lens:
            tell = _PartWriter(out, about, part) if question.parts and part else None
            _add(writer, lens.results(progress, tell))
        writer.metadata = about


def check_target(opened: OpenModel, question: Target) -> None:
    """UsageError when the answer, or what it is held against, is not one token: before the pass, not after it."""
    for field in ("answer", "against"):
        if text := getattr(question, field):
            token_of(opened, text, field)


def _most_likely(opened: OpenModel, logits: Tensor, top: int) -> list[tuple[str, float]]:
    """What the model expects at the position that is asked about: logits [V] -> texts with their probabilities."""
    best = logits.softmax(-1).topk(min(top, len(logits)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(text_of(opened.tokenizer, id), probability) for id, probability in pairs]


def _add(writer: ArchiveWriter, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        writer.add(name, as_array(tensor))


def repeated(opened: OpenModel) -> tuple[Mapping[str, Tensor], str]:
    """Duplicate-token and induction scores, which no prompt changes: computed once for a model that stays as it is."""
    if opened.model not in _repeated or opened.kind == "live":
        _repeated[opened.model] = repeat_scores(
            opened.model, opened.anatomy, vocab=opened.vocab_size, beginning=opened.tokenizer.beginning
        )
    return _repeated[opened.model]


_repeated: WeakKeyDictionary[nn.Module, tuple[Mapping[str, Tensor], str]] = WeakKeyDictionary()


def as_array(tensor: Tensor) -> Array:
    """A tensor for an archive: fp32, or whole numbers as they are."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _wanted(anatomy: Anatomy, what: Sequence[str]) -> tuple[set[str], list[str]]:
    """The aspects that can be trusted for this model, and a sentence for each that cannot."""
    wanted, refused = set(), []
    for aspect in what:
        reasons = [reason for need in REFUSED_BY[aspect] if (reason := getattr(anatomy.refusals, need)) is not None]
        if reasons:
            refused.append(f"No {aspect}: {reasons[0]}")
        else:
            wanted.add(aspect)
    if not what:
        raise UsageError("There is nothing to inspect.", f"There are: {', '.join(ASPECTS)}.")
    if not wanted:
        raise LabError("This model cannot be inspected so.", " ".join(refused), "Ask for something else.")
    return wanted, refused


def _streamed_slots(anatomy: Anatomy, wanted: set[str], time: int) -> dict[str, Slot]:
    """The tensors that go to disk during the pass, because they may not fit into memory together."""
    slots: dict[str, Slot] = {}
    if "attention" in wanted:
        for layer, block in enumerate(anatomy.blocks):
            if block.attention is not None:
                slots[f"attention/{layer}"] = (np.float32, (anatomy.n_head, time, time))
    if "residual" in wanted:
        slots |= {f"residual/{point}": (np.float32, (anatomy.n_layer, time, anatomy.n_embd)) for point in POINTS}
        slots["residual/final"] = (np.float32, (time, anatomy.n_embd))
    if "rollout" in wanted:
        slots["attention/rollout"] = (np.float32, (anatomy.n_layer, time, time))
    return slots


class _PatternWriter(Observer):
    def __init__(self, writer: ArchiveWriter, time: int) -> None:
        self._writer, self._time = writer, time

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        rows = as_array(with_all_keys(pattern, self._time))
        if rows.shape[1] == rows.shape[2]:  # all of it
            self._writer.write(f"attention/{layer}", rows)
            return
        for head, part in enumerate(rows):
            self._writer.write(f"attention/{layer}", part, head, first_row=first)


class _PartWriter:
    """Writes what a lens has found so far, each time into another archive; where there is room."""

    def __init__(self, out: Path, about: Metadata, part: Callable[[Path], None]) -> None:
        self._out, self._about, self._part = out, about, part
        self._count = 0

    def __call__(self, found: Mapping[str, Tensor]) -> None:
        self._count += 1
        path = self._out.with_suffix(f".{self._count}{self._out.suffix}")
        try:
            write_archive(path, {name: as_array(tensor) for name, tensor in found.items()}, self._about)
        except (OSError, LabError):  # the answer may have room without it
            return
        self._part(path)


class _Told(Observer):
    """Says which layer the pass has come to, and what it writes where that is much; a cancel ends the pass there."""

    def __init__(self, n_layer: int, size: int, progress: Progress) -> None:
        """size: bytes of the patterns and streams that go to disk."""
        self._n_layer, self._progress = n_layer, progress
        self._what = READING if size < _MUCH else f"{READING}, {size / 1e6:,.0f} MB go to disk"

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        if point == "pre_attn":
            self._progress(self._what, layer, self._n_layer)
