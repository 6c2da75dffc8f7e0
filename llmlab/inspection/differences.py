"""Two inspections of one prompt, compared from disk, a layer at a time. Needs no model and no torch.

The archive of a comparison holds, for inspections A and B (L layers, H heads and T tokens that both have):

    difference/{name}       A - B, for patterns `attention/{layer}` [H, T, T], points `residual/{point}` [L, T, C]
                            and whatever of heads/*, contributions/* both hold, in the shapes of an inspection
    cosine/residual/{point} [L, T]; cosine/residual/final [T]: a.b / (|a| |b|) of the two streams at a token;
                            1 where both are zero
    cka/{point} [L]; cka/final [1]: linear centred kernel alignment (Kornblith et al. 2019, "Similarity of Neural
                            Network Representations Revisited", equation 4 and section 3), with X, Y [T, C] the
                            points of A and B, each minus its mean over tokens:
                                ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F)
                            1 for equal points up to rotation and scale, whatever their n_embd; NaN for one token

Where tokens are aligned, T counts the aligned pairs, and patterns keep the aligned queries and keys alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from llmlab.core.errors import LabError, UsageError
from llmlab.core.progress import Progress, quiet
from llmlab.inspection.archive import Archive, ArchiveWriter, Array, Metadata, Slot, read_archive
from llmlab.models.reference import without_folders

# What the axes of an inspection's tensors are: Layers, Heads, Tokens, Channels; others must be equal.
_AXES = (
    (r"attention/\d+", "HTT"),
    (r"attention/rollout", "LTT"),
    (r"residual/final", "TC"),
    (r"residual/\w+", "LTC"),
    (r"heads/mosaic", "LHSS"),
    (r"heads/\w+", "LH"),
    (r"contributions/heads", "LHT"),
    (r"contributions/share/embedding", "T"),
    (r"contributions/[\w/]+", "LT"),
)


@dataclass(frozen=True)
class Pairs:
    """Which tokens of A and B are compared: positions of equal length."""

    a: list[int]
    b: list[int]

    @property
    def all_equal(self) -> bool:
        """Whether every pair stands at one position."""
        return self.a == self.b


@dataclass
class Comparable:
    """What can be compared of two archives: names with their axes, common sizes, and what is left out and why."""

    names: dict[str, str]
    sizes: dict[str, int]
    notes: list[str] = field(default_factory=list)


def compare_archives(a: Path, b: Path, out: Path, progress: Progress = quiet, *, align: bool = False) -> None:
    """Compares two saved inspections.

    UsageError when their tokens differ and no alignment was asked for, or when they cannot be aligned; LabError
    when one cannot be read or they share nothing.
    """
    first, second = read_archive(a), read_archive(b)
    for archive in (first, second):
        if archive.metadata.kind != "inspection":
            raise UsageError(
                f"{archive.path.name} is not an inspection.", f"Its kind is {archive.metadata.kind}.", "Choose another."
            )
        tokens = archive.metadata.tokens
        if len(tokens) != len(archive.metadata.token_ids) or not all(isinstance(token, str) for token in tokens):
            raise LabError(f"{archive.path.name} is damaged.", "Its tokens and their ids differ in number or kind.")
    ends = ends_of_both(first.metadata, second.metadata) if align else None
    pairs = paired(first.metadata, second.metadata, ends)
    shared = comparable_of(first, second, pairs)
    with ArchiveWriter(
        out, slots_of(shared, len(pairs.a)), about(first.metadata, second.metadata, pairs, shared)
    ) as writer:
        write_differences(writer, shared, first, second, pairs, progress)


# Which tokens belong together ------------------------------------------------------------------------------------


def ends_of_both(a: Metadata, b: Metadata) -> tuple[dict[int, int], dict[int, int]]:
    """Of both prompts: character offset where a token ends -> its position, counted back from the end of the text.

    One text may go on before the other's beginning (a beginning-of-text token). UsageError where they are not the
    same otherwise, also where a token is half a character, which no text shows.
    """
    texts = "".join(a.tokens), "".join(b.tokens)
    if not (texts[0].endswith(texts[1]) or texts[1].endswith(texts[0])):
        raise UsageError(
            "The two inspections cannot be aligned.", "They read different texts.", "Inspect both with one prompt."
        )
    return text_ends(a.tokens), text_ends(b.tokens)


def text_ends(tokens: Sequence[str]) -> dict[int, int]:
    """Character offset from the end of the text where a token ends, 0 or less -> its position."""
    ends: dict[int, int] = {}
    end = -sum(map(len, tokens))
    for position, text in enumerate(tokens):
        end += len(text)
        ends[end] = position  # of several with the same end, the last: it has seen all of it
    return ends


def paired(a: Metadata, b: Metadata, ends: tuple[Mapping[int, int], Mapping[int, int]] | None) -> Pairs:
    """The tokens to compare. ends: of both, where an alignment is asked for: tokens that end at one character.

    UsageError when ids differ and no alignment is asked for, or when no two tokens end together.
    """
    if a.token_ids == b.token_ids and a.tokens == b.tokens:
        positions = list(range(len(a.token_ids)))
        return Pairs(positions, positions)
    if ends is None:
        raise UsageError(
            "The two models tokenize the prompt differently.",
            f"{without_folders(a.model)} into {len(a.token_ids)}, {without_folders(b.model)} into {len(b.token_ids)}; "
            f"{_first_difference(a, b)}.",
            "Tick align tokens (in a command: --align): then tokens that end at the same character are compared.",
        )
    shared = sorted(ends[0].keys() & ends[1].keys())
    if not shared:
        raise UsageError("The two prompts cannot be aligned.", "No two tokens end at the same character.")
    return Pairs([ends[0][end] for end in shared], [ends[1][end] for end in shared])


def _first_difference(a: Metadata, b: Metadata) -> str:
    """Where two rows of tokens part, in words."""
    rows = [list(zip(about.token_ids, about.tokens, strict=True)) for about in (a, b)]
    for position, (ours, theirs) in enumerate(zip(*rows, strict=False)):
        if ours != theirs:
            return f"token {position} is {ours[1]!r} (id {ours[0]}) and {theirs[1]!r} (id {theirs[0]})"
    return f"the first {min(map(len, rows))} are the same"


# What can be compared --------------------------------------------------------------------------------------------


def axes_of(name: str) -> str | None:
    """The axes of an inspection's tensor, a letter each; None where two of its kind have no difference."""
    return next((axes for pattern, axes in _AXES if re.fullmatch(pattern, name)), None)


def comparable_of(a: Archive, b: Archive, pairs: Pairs) -> Comparable:
    """What both archives have. LabError when that is nothing."""
    sizes: dict[str, set[int]] = {}
    layers = [max((_layer(name) + 1 for name in archive), default=0) for archive in (a, b)]
    common = [name for name in a if name in b and _fits(a, name) and _fits(b, name)]
    for name in common:
        for axis, *pair in zip(axes_of(name) or "", a.shape(name), b.shape(name), strict=True):
            sizes.setdefault(axis, set()).update(pair)
    if all(layers):  # patterns are a tensor a layer
        sizes.setdefault("L", set()).update(layers)
    notes = []
    for axis, words in (("L", "layers"), ("H", "heads a layer")):
        if len(both := sorted(sizes.get(axis, ()))) > 1:
            notes.append(f"One model has {both[0]} {words} and the other {both[-1]}: the first {both[0]} are compared.")
    widths = sorted(sizes.get("C", ()))
    if len(widths) > 1:
        notes.append(
            f"The residual streams have n_embd {' and '.join(map(str, widths))}, so only their CKA is compared."
        )
    if not pairs.all_equal or len(pairs.a) < max(len(a.metadata.token_ids), len(b.metadata.token_ids)):
        notes.append(
            f"{len(pairs.a)} pairs of tokens end at the same character and are compared; of A's "
            f"{len(a.metadata.token_ids)} and B's {len(b.metadata.token_ids)} tokens the others are left out, also as "
            "keys in patterns."
        )
    least = {axis: min(both) for axis, both in sizes.items()}
    names = {
        name: axes
        for name in common
        if (axes := axes_of(name)) and not ("S" in axes and a.shape(name) != b.shape(name))
        if not ("S" in axes and len(pairs.a) < len(a.metadata.token_ids))
    }
    names = {name: axes for name, axes in names.items() if _layer(name) < least.get("L", 1 << 30)}
    if not names:
        raise LabError("The two inspections share nothing that can be compared.", "", "Inspect both for equal parts.")
    if len(widths) > 1:
        least["C"] = 0  # no difference, no cosine
    return Comparable(names, least, notes)


def _fits(archive: Archive, name: str) -> bool:
    """Whether a tensor has the axes of its name and as many tokens as the prompt; foreign files may not."""
    axes, shape = axes_of(name), archive.shape(name)
    if axes is None or len(axes) != len(shape):
        return False
    return all(size == len(archive.metadata.token_ids) for axis, size in zip(axes, shape, strict=True) if axis == "T")


def slots_of(shared: Comparable, time: int) -> dict[str, Slot]:
    """Dtype and shape of everything that `write_differences` writes."""
    sizes = shared.sizes | {"T": time}
    slots: dict[str, Slot] = {}
    for name, axes in shared.names.items():
        shape = tuple(sizes[axis] for axis in axes)
        if not ("C" in axes and sizes["C"] == 0):
            slots[f"difference/{name}"] = (np.float32, shape)
            if "C" in axes:
                slots[f"cosine/{name}"] = (np.float32, shape[:-1])
        if "C" in axes:
            slots[f"cka/{name.removeprefix('residual/')}"] = (np.float32, shape[:-2] or (1,))
    return slots


def about(a: Metadata, b: Metadata, pairs: Pairs, shared: Comparable) -> Metadata:
    """The comparison's metadata: A's, with B's beside it."""
    more = {"model_b": b.model, "weights_sha256_b": b.weights_sha256, "dtype_b": b.dtype}
    if not pairs.all_equal or a.token_ids != b.token_ids:
        more["alignment"] = json.dumps(list(zip(pairs.a, pairs.b, strict=True)))
        more["token_ids_b"] = json.dumps([b.token_ids[position] for position in pairs.b])
        more["tokens_b"] = json.dumps([b.tokens[position] for position in pairs.b], ensure_ascii=False)
    return replace(
        a,
        kind="comparison",
        token_ids=[a.token_ids[position] for position in pairs.a],
        tokens=[a.tokens[position] for position in pairs.a],
        notes=[*dict.fromkeys([*a.notes, *b.notes]), *shared.notes],
        more=more,
    )


def _layer(name: str) -> int:
    """The layer that a tensor is of, -1 where it is of all."""
    match = re.fullmatch(r"attention/(\d+)", name)
    return int(match[1]) if match else -1


# The numbers -----------------------------------------------------------------------------------------------------


def write_differences(
    writer: ArchiveWriter, shared: Comparable, a: Archive, b: Archive, pairs: Pairs, progress: Progress
) -> None:
    """Writes every difference, cosine and CKA; about one layer of both is in memory."""
    for done, (name, axes) in enumerate(shared.names.items()):
        progress("Comparing", done, len(shared.names))
        for index, x, y in _pieces(name, axes, shared, a, b, pairs):
            if "C" in axes:
                writer.write(
                    f"cka/{name.removeprefix('residual/')}", [linear_cka(x, y)], first_row=index[0] if index else 0
                )
                if shared.sizes["C"] == 0:
                    continue
                writer.write(f"cosine/{name}", cosine(x, y), *index)
            writer.write(f"difference/{name}", x - y, *index)
    progress("Comparing", len(shared.names), len(shared.names))


def _pieces(
    name: str, axes: str, shared: Comparable, a: Archive, b: Archive, pairs: Pairs
) -> Iterator[tuple[tuple[int, ...], Array, Array]]:
    """Both tensors without their first axis where they have three or more; with its index."""
    x, y = a[name], b[name]
    if len(axes) < 3:
        yield (), _cut(x, axes, shared, pairs.a), _cut(y, axes, shared, pairs.b)
        return
    for index in range(shared.sizes[axes[0]]):
        yield (index,), _cut(x[index], axes[1:], shared, pairs.a), _cut(y[index], axes[1:], shared, pairs.b)


def _cut(x: Array, axes: str, shared: Comparable, positions: Sequence[int]) -> Array:
    """The part that both have: the first layers and heads, the paired tokens."""
    for number, axis in enumerate(axes):
        if axis in "LH":
            x = x.take(range(shared.sizes[axis]), axis=number) if x.shape[number] > shared.sizes[axis] else x
        elif axis == "T" and list(positions) != list(range(x.shape[number])):
            x = x.take(positions, axis=number)
    return np.asarray(x)


def cosine(x: Array, y: Array) -> Array:
    """Cosine of the last axis, [..., C] -> [...]: 1 where both are zero, NaN where one is."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    lengths = np.sqrt((x * x).sum(-1)) * np.sqrt((y * y).sum(-1))
    both_zero = ~x.any(-1) & ~y.any(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(both_zero, 1.0, (x * y).sum(-1) / lengths))


def linear_cka(x: Array, y: Array) -> float:
    """Linear CKA of two representations of the same tokens [T, C], [T, C']; NaN where one does not vary."""
    x, y = (z.astype(np.float64) - z.astype(np.float64).mean(0) for z in (x, y))
    if len(x) <= max(x.shape[1], y.shape[1]):
        gram_x, gram_y = x @ x.T, y @ y.T  # [T, T]: their inner product is ||Y^T X||^2
        cross, own = (gram_x * gram_y).sum(), np.linalg.norm(gram_x) * np.linalg.norm(gram_y)
    else:
        cross, own = np.square(y.T @ x).sum(), np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(cross / own) if own > 0 else float("nan")
