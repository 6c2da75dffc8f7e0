"""Embedding geometry: principal components and nearest neighbours.

The archive (kind `geometry`) holds, for N rows shown out of a matrix [R, C], and K components:

    geometry/ids [N] int32          which rows: token ids, or positions
    geometry/points [N, K]          coordinates: (row - mean) . component
    geometry/components [K, C]      orthonormal directions of falling variance (PCA: Pearson 1901; by the singular
                                    value decomposition of all R rows minus their mean), largest entry positive
    geometry/mean [C]
    geometry/explained [K]          share of the rows' total variance along each component
    geometry/spectrum [C]           that share for all components; absent where only the first were computed
    geometry/norm [N]               L2 norm of each row
    neighbours/ids [M] int32        the rows nearest to the one asked for, nearest first, itself left out
    neighbours/cosine [M]           their cosine with it: a.b / (|a| |b|), of the rows as they are, not centred

metadata: `tokens` are the names of the rows shown; `matrix`, `rows` (R); `near`, `near_id` and `texts` (JSON object,
id -> text, of the neighbours) where neighbours were asked for. A flat picture keeps what `geometry/explained` says
of the variance and no more: points far apart are far apart, points that touch may not be neighbours at all.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from llmlab.core.errors import LabError, UsageError
from llmlab.core.progress import Progress, quiet
from llmlab.data.token_bytes import BROKEN
from llmlab.inspection.archive import Array, write_archive
from llmlab.inspection.inspect import describe
from llmlab.inspection.questions import Prompt, token_of
from llmlab.inspection.readout import text_of
from llmlab.inspection.spectra import principal_components
from llmlab.models.model import OpenModel

MATRICES = ("tokens", "positions", "unembedding")
# Where families keep their learned positions: the lab's GPT, GPT-2, OPT and others, BERT-like ones.
_POSITION_NAMES = ("position_embedding", "wpe", "embed_positions", "position_embeddings")


@dataclass(frozen=True, kw_only=True)
class Geometry(Prompt):
    """What is shown. The prompt's own tokens, if there is one, are always among the rows.

    matrix: one of MATRICES. rows: which ones; none: up to `sample` of them. near: a token's text (a number for
    positions) whose `neighbours` nearest rows are listed; "" for none.
    """

    matrix: str = "tokens"
    rows: tuple[int, ...] = ()
    sample: int = 500
    components: int = 3
    near: str = ""
    neighbours: int = 20


@torch.inference_mode()
def geometry(opened: OpenModel, question: Geometry, out: Path, progress: Progress = quiet) -> None:
    """Writes the principal components, the rows shown and the neighbours.

    UsageError for a matrix, rows or a token that are not there; LabError for positions of a model that learned none.
    """
    if question.components < 1 or question.sample < 1 or question.neighbours < 1:
        raise UsageError("components, sample and neighbours are counted from 1.")
    matrix = matrix_of(opened, question.matrix)
    near = _near(opened, question, len(matrix))
    listed = nearest(matrix, near, question.neighbours) if near is not None else None
    shown, notes = _shown(opened, question, len(matrix), near, listed)
    found = principal_components(matrix, question.components, progress)
    rows = matrix[shown].cpu().double()
    tensors: dict[str, Array] = {
        "geometry/ids": np.array(shown, dtype=np.int32),
        "geometry/points": ((rows - found.mean) @ found.components.T).numpy(),
        "geometry/components": found.components.numpy(),
        "geometry/mean": found.mean.numpy(),
        "geometry/norm": rows.norm(dim=-1).numpy(),
    }
    shares = (found.variance / found.total if found.total else torch.zeros_like(found.variance)).numpy()
    tensors["geometry/explained"] = shares[: len(found.components)]
    if found.exact:
        tensors["geometry/spectrum"] = shares
    else:
        notes.append("The matrix is large: its first components were found by randomised subspace iteration.")
    more = {"matrix": question.matrix, "rows": str(len(matrix))}
    if near is not None and listed is not None:
        tensors["neighbours/ids"], tensors["neighbours/cosine"] = listed
        texts = {str(id): _name(opened, question.matrix, id) for id in listed[0].tolist()}
        more |= {"near": question.near, "near_id": str(near), "texts": json.dumps(texts, ensure_ascii=False)}
    about = describe(opened, "geometry", [], question, **more)
    names = [_name(opened, question.matrix, row) for row in shown]
    write_archive(out, tensors, replace(about, token_ids=shown, tokens=names, notes=notes))


def matrix_of(opened: OpenModel, name: str) -> Tensor:
    """The rows of an embedding [R, C], without padding. UsageError or LabError where the model has no such matrix."""
    anatomy = opened.anatomy
    if name == "tokens":
        weight = anatomy.embedding.weight
        assert isinstance(weight, Tensor)
        return weight.detach()[: min(opened.vocab_size, len(weight))]
    if name == "unembedding":
        return anatomy.unembedding.detach()[: opened.vocab_size]
    if name != "positions":
        raise UsageError(f"There is no embedding {name!r}.", f"There are: {', '.join(MATRICES)}.")
    for path, module in opened.model.named_modules():
        if path.rpartition(".")[2] in _POSITION_NAMES and isinstance(module, nn.Embedding):
            skipped = int(getattr(module, "offset", 0))  # OPT keeps two rows before the first position's
            return module.weight.detach()[skipped : skipped + anatomy.context]
    raise LabError(
        f"{opened.name} has no position embeddings.",
        "It tells positions in another way, such as turning queries and keys (RoPE).",
        "Look at its token embeddings.",
    )


def nearest(matrix: Tensor, row: int, count: int) -> tuple[Array, Array]:
    """The rows with the largest cosine to a row, itself left out: ids int32 [M], cosines [M]."""
    one = matrix[row].float()
    parts = [part.float() for part in matrix.split(8192)]
    cosines = torch.cat([nn.functional.cosine_similarity(part, one[None], dim=-1, eps=1e-30) for part in parts])
    cosines[row] = -torch.inf
    best = cosines.topk(min(count, len(matrix) - 1))
    return best.indices.int().cpu().numpy(), best.values.cpu().numpy()


def _near(opened: OpenModel, question: Geometry, rows: int) -> int | None:
    if not question.near:
        return None
    if question.matrix != "positions":
        return token_of(opened, question.near, "near")
    if not question.near.isdecimal() or int(question.near) >= rows:
        raise UsageError(f"There is no position {question.near!r}.", f"They run from 0 to {rows - 1}.")
    return int(question.near)


def _shown(
    opened: OpenModel, question: Geometry, rows: int, near: int | None, listed: tuple[Array, Array] | None
) -> tuple[list[int], list[str]]:
    """The rows shown, ascending, and how they were chosen."""
    if question.rows:
        if wrong := [row for row in question.rows if not 0 <= row < rows]:
            raise UsageError(f"There is no row {wrong[0]}.", f"They run from 0 to {rows - 1:,}.")
        return sorted(set(question.rows)), []
    if rows <= question.sample:
        return list(range(rows)), []
    if question.matrix == "positions":
        return np.unique(np.linspace(0, rows - 1, question.sample).round().astype(int)).tolist(), [
            f"{question.sample} of {rows:,} positions are shown, evenly spread; the components are those of all."
        ]
    wanted = {id for id in question.token_ids(opened) if id < rows} if question.text or question.ids else set()
    if near is not None and listed is not None:
        wanted |= {near, *listed[0].tolist()}
    for id in range(rows):
        if len(wanted) >= question.sample:
            break
        if readable(text_of(opened.tokenizer, id)):
            wanted.add(id)
    return sorted(wanted), [
        f"{len(wanted):,} of {rows:,} tokens are shown: those of the prompt, the neighbours, and readable ones with "
        "the lowest ids, which are the most frequent ones where a vocabulary was made by merging. The components are "
        "those of all."
    ]


def readable(text: str) -> bool:
    """Whether a token's text is a label: something printable, with no broken character in it, and no <|control|>."""
    shown = text.strip()
    broken = "\ufffd" in shown or BROKEN.search(shown) or re.fullmatch(r"<[^<>]+>", shown)
    return bool(shown) and shown.isprintable() and not broken


def _name(opened: OpenModel, matrix: str, row: int) -> str:
    return str(row) if matrix == "positions" else text_of(opened.tokenizer, row)
