"""One stage of a walk: its formula with the model's numbers in it, its values, its code. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from llmlab.core.errors import LabError
from llmlab.core.records import named_records
from llmlab.inspection.archive import Archive

Array = npt.NDArray[Any]
# What a change can set, by its name: the stage and its value whose numbers these are.
CHANGEABLE: Mapping[str, tuple[str, str]] = {
    "embedding": ("embedding", "e"),
    "position": ("position", "x0"),
    "stream": ("stream", "x"),
    "norm": ("norm", "y"),
    "query": ("query", "q"),
    "key": ("key", "k"),
    "value": ("value", "v"),
    "query_norm": ("query_norm", "q"),
    "value_mix": ("value_mix", "v"),
    "rotation": ("rotation", "q"),
    "score": ("score", "scores of this position"),
    "softcap": ("softcap", "capped scores of this position"),
    "mask": ("mask", "masked scores of this position"),
    "softmax": ("softmax", "pattern of this position"),
    "weighted_sum": ("weighted_sum", "z"),
    "output_projection": ("output_projection", "out"),
    "attention": ("attention", "out"),
    "middle": ("middle", "x"),
    "feed_forward_norm": ("feed_forward_norm", "y"),
    "up": ("up", "h"),
    "gate": ("up", "gate"),
    "neurons": ("neurons", "n"),
    "down": ("down", "out"),
    "feed_forward": ("feed_forward", "out"),
    "after": ("after", "x"),
    "rest": ("rest", "x"),
    "final_norm": ("final_norm", "y"),
    "logits": ("logits", "all logits"),
    "temperature": ("temperature", "logits left"),
    "top_k": ("top_k", "logits left"),
    "top_p": ("top_p", "logits left"),
    "probabilities": ("probabilities", "all probabilities"),
}
# Stages that have a number for each key, and write out one.
BY_KEY = ("score", "softcap", "mask", "softmax")


@dataclass(frozen=True)
class Code:
    """Lines of a file. file: as in a checkout (`llmlab/gpt/model.py`) or below site-packages (`transformers/...`)."""

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class Value:
    """One vector or matrix of a stage. axes: what each axis counts; labels: names along the last axis, if it has any.

    was: the same before a change; None where nothing was changed. picked: where its numbers are those of a few tokens,
    the tokens' ids, and whole: those of all tokens, [V], from which they were picked.
    """

    name: str
    axes: tuple[str, ...]
    array: Array
    labels: tuple[str, ...] = ()
    was: Array | None = None
    picked: tuple[int, ...] = ()
    whole: Array | None = None

    @property
    def shape_words(self) -> str:
        """`[2 positions, 32 components]`."""
        sizes = (_counted(size, axis) for axis, size in zip(self.axes, self.array.shape, strict=True))
        return f"[{', '.join(sizes)}]"

    @property
    def changed(self) -> int:
        """How many of its numbers are not what they were."""
        if self.was is None:
            return 0
        return self.array.size if self.was.shape != self.array.shape else int((self.was != self.array).sum())

    def change_of(self, stage: str, index: int) -> str:
        """How a change of the number at `index` is begun in a walk, `norm[5]=`; "" for what none can set."""
        if self.picked and stage in CHANGEABLE:
            return f"{stage}[{self.picked[index]}]="
        names = (name for name, where in CHANGEABLE.items() if where == (stage, self.name))
        return "".join(f"{name}[{index}]=" for name in names)


@dataclass(frozen=True)
class Stage:
    """One step of the computation.

    formula: in symbols; numbers: the same with this model's. why: one sentence. panel: the dock that shows it at large.
    difference: the largest difference between the stage recomputed by the formula and what the model computed; None
    where nothing is computed, or where the lab cannot take this family's step apart (then `note` says so).
    reused: what of it a KV cache holds already; "" when the walk is without one. was: `numbers` before a change, where
    they said something else.
    """

    name: str
    title: str
    formula: str
    numbers: str
    why: str
    panel: str
    values: tuple[Value, ...] = ()
    code: Code | None = None
    difference: float | None = None
    note: str = ""
    reused: str = ""
    was: str = ""

    @property
    def changed(self) -> bool:
        """Whether a change has reached it: its values, or where it has none, what it says."""
        return any(value.changed for value in self.values) if self.values else bool(self.was)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, all numbers included; what is infinite is written as text."""
        values = [
            {"name": one.name, "axes": one.axes, "shape": one.array.shape, "values": _plain(one.array)}
            | ({"labels": one.labels} if one.labels else {})
            | ({} if one.was is None else {"was": _plain(one.was), "changed": one.changed})
            for one in self.values
        ]
        return {**self._texts(), "values": values}

    def _texts(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(replace(self, values=())).items() if name != "values"}


@dataclass(frozen=True)
class StageText:
    """What a stage says of every model, from resources/walk/stages.toml, where `Stage` explains each."""

    title: str
    why: str
    panel: str
    formula: str = ""


def stage_of(
    name: str, numbers: str, values: Sequence[Value], code: Code | None, note: str = "", *, text: str = "", **facts: Any
) -> Stage:
    """A stage with its texts. text: whose these are, where not its own. facts: what they name in braces."""
    told = named_records(StageText, "walk/stages.toml")[text or name]
    title, formula, why = (part.format(**facts) for part in (told.title, told.formula, told.why))
    return Stage(name, title, formula, numbers, why, told.panel, tuple(values), code, note=note)


def _counted(size: int, axis: str) -> str:
    """`32 dimensions of the head`."""
    one, of, whole = axis.partition(" of ")
    return f"{size:,} {one}{'s' if size != 1 else ''}{of}{whole}"


def _plain(array: Array) -> Any:
    if array.ndim:
        return [_plain(row) for row in array]
    number = array.item()
    return number if np.isfinite(number) else str(number)


def marked(stages: Sequence[Stage], before: Sequence[Stage]) -> list[Stage]:
    """The stages with what each value was in `before`; stages and values are matched by their names, and picked tokens
    with themselves, also where others were picked before."""
    old = {(stage.name, value.name): value for stage in before for value in stage.values}

    def was(stage: Stage, value: Value) -> Array | None:
        known = old.get((stage.name, value.name))
        if known is None or known.whole is None:
            return None if known is None else known.array
        return known.whole[list(value.picked)]

    said = {stage.name: stage.numbers for stage in before}
    return [
        replace(
            stage,
            values=tuple(replace(value, was=was(stage, value)) for value in stage.values),
            was=text if (text := said.get(stage.name, "")) != stage.numbers else "",
        )
        for stage in stages
    ]


# In an archive ---------------------------------------------------------------------------------------------------


def to_archive(stages: Sequence[Stage]) -> tuple[dict[str, Array], str]:
    """-> tensors by name (`stage/value`, what it was as `was/stage/value`), and the rest as JSON for the metadata."""
    tensors: dict[str, Array] = {}
    texts = []
    for stage in stages:
        for value in stage.values:
            tensors[f"{stage.name}/{value.name}"] = value.array
            if value.was is not None:
                tensors[f"was/{stage.name}/{value.name}"] = value.was
        about = [
            {"name": value.name, "axes": value.axes, "labels": value.labels, "picked": value.picked}
            for value in stage.values
        ]
        texts.append({**stage._texts(), "values": about})
    return tensors, json.dumps(texts, ensure_ascii=False)


def from_archive(archive: Archive) -> list[Stage]:
    """The inverse. LabError where the archive holds no walk."""
    try:
        return [_stage(archive, texts) for texts in json.loads(archive.metadata.more["stages"])]
    except (KeyError, TypeError, ValueError) as error:
        raise LabError(f"{archive.path.name} holds no walk.", f"{error}.") from error


def _stage(archive: Archive, texts: Mapping[str, Any]) -> Stage:
    values = []
    for about in texts["values"]:
        name = f"{texts['name']}/{about['name']}"
        was = f"was/{name}"
        values.append(
            Value(
                about["name"],
                tuple(about["axes"]),
                archive[name],
                tuple(about["labels"]),
                archive.get(was),
                tuple(about["picked"]),
            )
        )
    code = None if texts["code"] is None else Code(**texts["code"])
    return Stage(**{**texts, "values": tuple(values), "code": code})
