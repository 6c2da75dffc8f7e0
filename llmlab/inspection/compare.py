"""Two models, or two checkpoints, on one prompt: one at a time in memory, compared from what they left on disk.

A is opened, inspected into a temporary archive and closed; then B; then both archives are compared layer by layer.
The archive (kind `comparison`) holds what `llmlab.inspection.differences` describes and, of T compared tokens,

    kl [T]                          KL(A || B) of the next-token distributions, in nats (Kullback & Leibler 1951)
    a/ids, b/ids [T, K] int32       most likely next tokens of both
    a/probability, b/probability [T, K]

metadata: `model` is A, `model_b` B; `texts` and `texts_b` are JSON objects, token id -> text, of the most likely
tokens.
"""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from llmlab.core.errors import UsageError
from llmlab.core.progress import Progress, quiet
from llmlab.inspection.answers import answer_question
from llmlab.inspection.archive import Archive, ArchiveWriter, Array, Metadata, Slot, read_archive
from llmlab.inspection.differences import Pairs, about, comparable_of, paired, slots_of, write_differences
from llmlab.inspection.questions import Prompt, from_values, to_values
from llmlab.inspection.readout import predictions, read, text_of
from llmlab.models.model import OpenModel

COMPARED = ("attention", "heads", "residual", "contributions", "rollout")
Opener: TypeAlias = Callable[[Progress], OpenModel]
# Tokens whose texts stand for a whole vocabulary: the first ones, and of the rest each of this stride.
_FIRST_TOKENS, _TOKEN_STRIDE = 512, 101


@dataclass(frozen=True, kw_only=True)
class Compare(Prompt):
    """What is compared: any of COMPARED, and always the predictions. align: compare tokens that end together."""

    what: tuple[str, ...] = ("attention", "residual")
    align: bool = False
    top: int = 5


def compare(
    reference_a: str, reference_b: str, outputs: Path, values: Mapping[str, Any], out: Path, progress: Progress = quiet
) -> None:
    """Opens, inspects and closes A, then B, and writes their comparison. values: of `Compare`.

    UsageError when the models read the prompt as different tokens and no alignment was asked for; LabError when
    one cannot be opened or the disk has no room; Cancelled when `progress` says so, with nothing left behind.
    """
    from llmlab.models.source import open_model

    compare_opened(
        lambda told: open_model(reference_a, outputs, told),
        lambda told: open_model(reference_b, outputs, told),
        from_values(Compare, values),
        out,
        progress,
    )


def compare_opened(open_a: Opener, open_b: Opener, question: Compare, out: Path, progress: Progress = quiet) -> None:
    """The same for anything that opens a model; each model is let go before the next one is opened."""
    if unknown := sorted(set(question.what) - set(COMPARED)):
        raise UsageError(f"There is no {unknown[0]!r} to compare.", f"There are: {', '.join(COMPARED)}.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-compare-", dir=out.parent) as folder:
        a = _capture(open_a, question, Path(folder, "a"), None, progress)
        b = _capture(open_b, question, Path(folder, "b"), a, progress)
        pairs = paired(a.seen.metadata, b.seen.metadata, (a.ends, b.ends) if question.align else None)
        shared = comparable_of(a.seen, b.seen, pairs)
        vocabulary = _shared_vocabulary(a, b, shared.notes)
        slots = slots_of(shared, len(pairs.a)) | _prediction_slots(a, b, len(pairs.a), vocabulary)
        metadata = about(a.seen.metadata, b.seen.metadata, pairs, shared)
        more = metadata.more | {"texts": a.texts(pairs.a), "texts_b": b.texts(pairs.b)}
        metadata = replace(metadata, question=to_values(question), more=more)
        with ArchiveWriter(out, slots, metadata) as writer:
            write_differences(writer, shared, a.seen, b.seen, pairs, progress)
            _write_predictions(writer, a, b, pairs, vocabulary)


# One model -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Capture:
    """What one model left on disk. predicted: logits [T, V], ids and probability [T, K]."""

    seen: Archive
    predicted: Archive
    ends: dict[int, int]  # character offset where a token ends -> its position
    vocabulary: dict[int, str]  # texts of some of all tokens
    named: dict[str, str]  # texts of the most likely tokens, by id

    def texts(self, positions: list[int]) -> str:
        """Texts of the most likely tokens at these positions, as JSON."""
        ids = np.unique(self.predicted["ids"][positions]).tolist()
        return json.dumps({str(id): self.named[str(id)] for id in ids}, ensure_ascii=False)


def _capture(opening: Opener, question: Compare, stem: Path, first: _Capture | None, progress: Progress) -> _Capture:
    """Opens a model and inspects it. first: the other one; what cannot be compared is refused before the pass."""
    opened = opening(progress)
    ids = question.token_ids(opened)
    ends = character_ends(opened, question, ids)
    if first is not None:
        tokens = [text_of(opened.tokenizer, id) for id in ids]
        metadata = Metadata("inspection", opened.reference, "", token_ids=ids, tokens=tokens)
        paired(first.seen.metadata, metadata, (first.ends, ends) if question.align else None)
    asked = {"text": question.text, "ids": list(question.ids), "beginning": question.beginning}
    answer_question(opened, "inspect", asked | {"what": list(question.what)}, stem.with_suffix(".seen"), progress)
    named = _predict(opened, question, ids, stem.with_suffix(".predicted"))
    capture = _Capture(
        read_archive(stem.with_suffix(".seen")),
        read_archive(stem.with_suffix(".predicted")),
        ends,
        _sampled_vocabulary(opened),
        named,
    )
    del opened
    gc.collect()  # modules hold themselves in circles through their hooks
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return capture


def _predict(opened: OpenModel, question: Compare, ids: list[int], path: Path) -> dict[str, str]:
    """Writes the model's logits and most likely tokens -> the texts of these."""
    readout = read(opened, ids)
    slots: dict[str, Slot] = {"logits": (np.float32, (len(ids), opened.vocab_size))}
    best = predictions(readout, question.top)
    with ArchiveWriter(path, slots, Metadata("logits", opened.reference, "")) as writer:
        for first, logits in readout.chunks():
            writer.write("logits", logits.float().cpu().numpy(), first_row=first)
        for name, values in best.items():
            writer.add(name, values)
    return {str(id): text_of(opened.tokenizer, id) for id in np.unique(best["ids"]).tolist()}


def character_ends(opened: OpenModel, question: Prompt, ids: list[int]) -> dict[int, int]:
    """Character offset of the prompt where a token ends -> its position, -1 for the beginning-of-text token.

    A token that ends within a character, or where the text read back differs from the prompt (some tokenizers
    normalise it), ends nowhere. By decoding every beginning of the prompt, so that no tokenizer's rules are needed.
    """
    ends: dict[int, int] = {}
    skipped = int(question.beginning and not question.ids)
    text = question.text if not question.ids else opened.tokenizer.decode(ids)
    if skipped:
        ends[-1] = 0
    for position in range(skipped, len(ids)):
        beginning = opened.tokenizer.decode(ids[skipped : position + 1])
        if text.startswith(beginning):
            ends[len(beginning)] = position
    return ends


def _sampled_vocabulary(opened: OpenModel) -> dict[int, str]:
    """Texts of tokens spread over the whole vocabulary, by id. Ids that are no token may become one in fine-tuning."""
    ids = [*range(_FIRST_TOKENS), *range(_FIRST_TOKENS, opened.vocab_size, _TOKEN_STRIDE)]
    texts = {id: text_of(opened.tokenizer, id) for id in ids if id < opened.vocab_size}
    return {id: text for id, text in texts.items() if text not in (f"[{id}]", f"<{id}>")}


# Both predictions ------------------------------------------------------------------------------------------------


def _shared_vocabulary(a: _Capture, b: _Capture, notes: list[str]) -> int:
    """How many tokens both can predict, 0 where they are not the same ones; with a note where it is not all."""
    sizes = sorted(capture.predicted.shape("logits")[1] for capture in (a, b))
    shown = " and ".join(f"{size:,}" for size in sizes)
    if any(b.vocabulary.get(id, text) != text for id, text in a.vocabulary.items()):
        notes.append(f"No KL: the models predict tokens of different vocabularies ({shown} tokens).")
        return 0
    if sizes[0] < sizes[1]:
        notes.append(f"The vocabularies have {shown} tokens: KL is that of predictions among the first {sizes[0]:,}.")
    return sizes[0]


def _prediction_slots(a: _Capture, b: _Capture, time: int, vocabulary: int) -> dict[str, Slot]:
    slots: dict[str, Slot] = {"kl": (np.float32, (time,))} if vocabulary else {}
    for name, capture in (("a", a), ("b", b)):
        kept = capture.predicted.shape("ids")[1]
        slots |= {f"{name}/ids": (np.int32, (time, kept)), f"{name}/probability": (np.float32, (time, kept))}
    return slots


def _write_predictions(writer: ArchiveWriter, a: _Capture, b: _Capture, pairs: Pairs, vocabulary: int) -> None:
    for name, capture, positions in (("a", a, pairs.a), ("b", b, pairs.b)):
        for part in ("ids", "probability"):
            writer.write(f"{name}/{part}", capture.predicted[part][positions])
    if vocabulary:
        ours, theirs = a.predicted["logits"][:, :vocabulary], b.predicted["logits"][:, :vocabulary]
        kl = [divergence(ours[position], theirs[other]) for position, other in zip(pairs.a, pairs.b, strict=True)]
        writer.write("kl", kl)


def divergence(a: Array, b: Array) -> float:
    """KL(softmax(a) || softmax(b)) of two rows of logits [V], in nats; exactly 0 for equal rows."""
    p, q = (torch.tensor(row, dtype=torch.float64).log_softmax(-1) for row in (a, b))
    return max(float((p.exp() * (p - q)).sum()), 0.0)
