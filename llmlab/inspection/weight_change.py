"""Weight changes by fine-tuning: how far each matrix moved, and in how many directions.

Of a LoRA adapter the change of a matrix is (alpha / rank) B A, of which everything is told by small matrices: with
B = Q_b R_b and A^T = Q_a R_a, the singular values of B A are those of R_b R_a^T [rank, rank]. The product, as large
as the weight itself, is never formed. Of a run that changed all weights it is W - W0.

The effective rank is exp(H) of the entropy H = -sum p ln p of the normalised singular values p = s / sum(s)
(Roy & Vetterli 2007, "The effective rank"): 1 when one direction does everything, the rank when all do the same.

No torch is needed, and no model is opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from llmlab.core.errors import LabError, UsageError
from llmlab.core.finetuning_settings import FULL, LORA
from llmlab.core.progress import Progress, quiet
from llmlab.inspection.archive import Metadata, write_archive
from llmlab.models.adapter_file import Factors, other_form, read_factors
from llmlab.models.available import ADAPTER_FILE
from llmlab.models.file_sources import Source
from llmlab.models.reference import Reference, parse
from llmlab.models.source import Adapted, FineTunedRun, source_of
from llmlab.models.weights import Array, TensorFile, Weights
from llmlab.store.checkpoints import MODEL_FILE

_LAYER = re.compile(r"(?:.*?\.)?(?P<layer>\d+)\.(?P<part>.+)")
# Multiplications, out x in x the smaller of both, up to which singular values of a whole matrix are computed: about
# a second on one core. Beyond it a matrix has its norm alone.
_AFFORDABLE = 8e9


@dataclass(frozen=True)
class ModuleChange:
    """One matrix. layer: -1 for what is in none. norm: Frobenius, of the change; base_norm: of the weight before.

    singular: singular values of the change, largest first; none where they would take too long. rank: at most so
    many of them are not zero.
    """

    module: str
    layer: int
    part: str
    shape: tuple[int, int]
    rank: int
    norm: float
    base_norm: float | None
    singular: tuple[float, ...]

    @property
    def relative(self) -> float | None:
        """The change's norm, in norms of the weight before; None where the base is not at hand."""
        return self.norm / self.base_norm if self.base_norm else None

    @property
    def effective_rank(self) -> float | None:
        """Between 1 and the rank, 0 where nothing changed; None without singular values."""
        return effective_rank(self.singular) if self.singular else None


@dataclass(frozen=True)
class Change:
    """What a reference changed in its base. norm: of all numbers together, vectors as well."""

    model: str
    base: str
    method: str
    modules: tuple[ModuleChange, ...]
    norm: float
    notes: tuple[str, ...] = ()

    @property
    def trained(self) -> int:
        """Numbers of the adapter, r (in + out) for each matrix; of a full run those of the matrices."""
        if self.method == FULL:
            return sum(row.shape[0] * row.shape[1] for row in self.modules)
        return sum(row.rank * sum(row.shape) for row in self.modules)

    @property
    def relative(self) -> float | None:
        """The change of all matrices together, in norms of the weights before."""
        norms = [row.base_norm for row in self.modules]
        if any(norm is None for norm in norms):
            return None
        before = _length([norm or 0.0 for norm in norms])
        return _length([row.norm for row in self.modules]) / before if before else None


def change_of(reference: str | Reference, outputs: Path, progress: Progress = quiet) -> Change:
    """Of a fine-tuning run's checkpoint, BASE+ADAPTER, or an adapter's folder, also one whose base is not here.

    UsageError when nothing was fine-tuned there; LabError when files are damaged. Cancelled when `progress` says so.
    """
    named = _alone(reference) if isinstance(reference, str) else None
    if named is not None:
        try:
            found = parse(str(named), outputs)
        except UsageError as error:
            return _of_adapter(str(named), "", named, None, (f"Without its base: {error.why}",), LORA, progress)
    else:
        found = parse(reference, outputs) if isinstance(reference, str) else reference
    source = source_of(found)
    if isinstance(source, Adapted):
        return _on_base(str(found), source.base, source.adapter, LORA, progress)
    if not isinstance(source, FineTunedRun):
        raise UsageError(
            f"{found} was not fine-tuned.",
            "There is no adapter in it, and it has no base.",
            "Name a checkpoint of a fine-tuning run, BASE+ADAPTER, or an adapter's folder.",
        )
    checkpoint = source.checkpoint
    named_step = f"{source.reference.named}@{checkpoint.step}"
    if source.method == FULL:
        return _of_weights(named_step, source.base, checkpoint.path / MODEL_FILE, progress)
    return _on_base(named_step, source.base, checkpoint.path, source.method, progress)


def adapter_change(folder: Path) -> tuple[ModuleChange, ...]:
    """The matrices of an adapter's folder, from its safetensors alone."""
    return tuple(_of_factors(pair, None) for pair in read_factors(folder))


def write_change(reference: str, outputs: Path, out: Path, progress: Progress = quiet) -> None:
    """The same as an archive (kind `change`), a row for each of N matrices and up to R singular values:

    norm [N], relative [N], effective_rank [N], singular [N, R] (NaN where there is none), rank, layer [N] int32.
    metadata.more: modules and parts (JSON lists), base, method, norm, total_relative, trained.
    """
    change = change_of(reference, outputs, progress)
    rows = change.modules
    most = max((len(row.singular) for row in rows), default=0)
    singular = np.full((len(rows), most), np.nan)
    for place, row in enumerate(rows):
        singular[place, : len(row.singular)] = row.singular
    columns: dict[str, npt.ArrayLike] = {
        "norm": [row.norm for row in rows],
        "relative": [np.nan if row.relative is None else row.relative for row in rows],
        "effective_rank": [np.nan if row.effective_rank is None else row.effective_rank for row in rows],
        "singular": singular,
        "rank": np.array([row.rank for row in rows], np.int32),
        "layer": np.array([row.layer for row in rows], np.int32),
    }
    more = {
        "modules": json.dumps([row.module for row in rows]),
        "parts": json.dumps([row.part for row in rows]),
        "base": change.base,
        "method": change.method,
        "norm": repr(change.norm),
        "total_relative": "" if change.relative is None else repr(change.relative),
        "trained": str(change.trained),
    }
    metadata = Metadata("change", change.model, "", notes=list(change.notes), more=more)
    write_archive(out, columns, metadata)


def effective_rank(singular: Sequence[float]) -> float:
    """exp(entropy) of the normalised singular values; 0 when all are zero."""
    values = np.asarray(singular, np.float64)
    total = values.sum()
    if total <= 0:
        return 0.0
    p = values[values > 0] / total
    return float(np.exp(-(p * np.log(p)).sum()))


# Adapters ---------------------------------------------------------------------------------------------------------


def _alone(text: str) -> Path | None:
    """An adapter's folder that is no checkpoint of a run, which would know its base."""
    with suppress(OSError, RuntimeError, ValueError):  # no text that a folder could be named by
        path = Path(text).expanduser()
        if (path / ADAPTER_FILE).is_file() and not (path.parent.parent / "run.json").is_file():
            return path.resolve()
    return None


def _on_base(model: str, base: Source, folder: Path, method: str, progress: Progress) -> Change:
    try:
        weights, notes = base.weights(), ()
    except LabError as error:
        missing = f"The weights of {base} are not at hand: {error}"
        return _of_adapter(model, str(base), folder, None, (missing,), method, progress)
    return _of_adapter(model, str(base), folder, weights, notes, method, progress)


def _of_adapter(
    model: str,
    base: str,
    folder: Path,
    weights: Weights | None,
    notes: tuple[str, ...],
    method: str,
    progress: Progress,
) -> Change:
    rows, factors = [], read_factors(folder)
    for done, pair in enumerate(factors):
        progress("Measuring the adapter", done, len(factors))
        rows.append(_of_factors(pair, weights))
    return Change(model, base, method, tuple(rows), _length([row.norm for row in rows]), notes)


def _of_factors(pair: Factors, weights: Weights | None) -> ModuleChange:
    _require_finite(pair.module, pair.a, pair.b)
    pair, weight = _placed(pair, weights)
    singular = pair.scale * _singular_of_product(pair.b, pair.a)
    shape = (pair.a.shape[1], pair.b.shape[0]) if pair.transposed else (pair.b.shape[0], pair.a.shape[1])
    before = None if weight is None else float(np.linalg.norm(weight.astype(np.float64)))
    layer, part = _place(pair.module)
    values = tuple(float(value) for value in singular)
    return ModuleChange(pair.module, layer, part, shape, pair.rank, _length(values), before, values)


def _placed(pair: Factors, weights: Weights | None) -> tuple[Factors, Array | None]:
    """The pair in the form that the base has a weight for, and that weight."""
    for form in (pair, other_form(pair)):
        weight = weights(f"{form.module}.weight") if weights is not None and form is not None else None
        if form is not None and weight is not None:
            return form, weight
    return pair, None


def _singular_of_product(b: Array, a: Array) -> Array:
    """Singular values of b a, largest first, for b [out, r] and a [r, in]: as many as the smallest extent."""
    _, right_b = np.linalg.qr(b.astype(np.float64))  # [min(out, r), r]
    _, right_a = np.linalg.qr(a.T.astype(np.float64))  # [min(in, r), r]
    return np.asarray(np.linalg.svd(right_b @ right_a.T, compute_uv=False))


# All weights ------------------------------------------------------------------------------------------------------


def _of_weights(model: str, base: Source, path: Path, progress: Progress) -> Change:
    weights, file = base.weights(), TensorFile(path)
    rows, rest, left_out = [], [], 0
    for done, name in enumerate(file):
        progress("Measuring the change", done, len(file))
        before, after = weights(name), file[name]
        if before is None or before.shape != after.shape:
            raise LabError(f"{model} cannot be compared with {base}.", f"They do not share {name}.")
        moved = after.astype(np.float64) - before
        _require_finite(name, moved)
        if moved.ndim != 2:
            rest.append(float(np.linalg.norm(moved)))
            continue
        module = name.removesuffix(".weight")
        layer, part = _place(module)
        values = _singular(moved)
        left_out += not values
        length, shape = float(np.linalg.norm(before.astype(np.float64))), (moved.shape[0], moved.shape[1])
        norm = float(np.linalg.norm(moved))
        rows.append(ModuleChange(module, layer, part, shape, min(shape), norm, length, values))
    notes = (f"{left_out} matrices are too large for their singular values: only their norms are given.",)
    norm = _length([*(row.norm for row in rows), *rest])
    return Change(model, str(base), FULL, tuple(rows), norm, notes if left_out else ())


def _singular(matrix: Array) -> tuple[float, ...]:
    """Largest first; none where that takes too long."""
    if matrix.size * min(matrix.shape) > _AFFORDABLE:
        return ()
    return tuple(float(value) for value in np.linalg.svd(matrix, compute_uv=False))


def _require_finite(name: str, *arrays: Array) -> None:
    """LabError for what a run that diverged has left: no length can be told of it."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise LabError(f"The change of {name} cannot be measured.", "It holds numbers that are not finite.")


def _place(module: str) -> tuple[int, str]:
    """`model.layers.3.self_attn.q_proj` -> (3, `self_attn.q_proj`); the first number counts, -1 without one."""
    match = _LAYER.fullmatch(module)
    return (int(match["layer"]), match["part"]) if match else (-1, module)


def _length(values: Sequence[float]) -> float:
    return float(np.sqrt(np.square(np.asarray(values, np.float64)).sum()))
