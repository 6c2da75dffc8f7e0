"""Data classes and rows of files. Anyone may have written these: each value has its field's type, or is refused."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from llmlab.core.config import read_toml
from llmlab.core.errors import LabError, explained
from llmlab.core.files import locked, read_json, write_json
from llmlab.core.paths import resources_dir

T = TypeVar("T")
_ROWS_FORMAT = 1
_FORMERLY = "formerly"  # in a field's metadata


def formerly(name: str) -> dict[str, str]:
    """Metadata of a field that had this name in files of an earlier version, which are read all the same."""
    return {_FORMERLY: name}


def from_plain(kind: type[T], values: Mapping[str, Any]) -> T:
    """A data class from plain values. Names that it lacks are passed over: a later version may have added them.

    Fields that are data classes themselves, or hold such, are read the same way; a list becomes a tuple where one is
    wanted. Raises ValueError naming the first field whose value does not fit, and TypeError when one is missing, or
    when the values have no names.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{values!r:.100} has no names")
    hints, now = field_types(cast(type, kind)), _now(cast(type, kind))
    if now:
        values = {now[name]: value for name, value in values.items() if name in now} | {**values}
    known = {name: shaped(value, hints[name]) for name, value in values.items() if name in hints}
    for name, value in known.items():
        if not fits(value, hints[name]):
            raise ValueError(f"{name} is {value!r:.100}")
    fields = (field for field in dataclasses.fields(cast(Any, kind)) if field.init and field.name not in known)
    if lacking := [one.name for one in fields if one.default is one.default_factory is dataclasses.MISSING]:
        raise TypeError(f"It lacks {', '.join(lacking)}")
    return kind(**known)


@functools.cache
def named_records(kind: type[T], file: str) -> dict[str, T]:
    """Data classes from the tables of a TOML file below resources/, by the tables' names, which a field `name` has."""
    tables = read_toml(resources_dir() / file)
    return {name: from_plain(kind, {"name": name, **values}) for name, values in tables.items()}


def read_record(kind: type[T], path: Path) -> T | None:
    """A data class from a JSON file; None when there is none, or it is damaged."""
    values = read_json(path)
    try:
        return from_plain(kind, values) if values is not None else None
    except (ValueError, TypeError):
        return None


class Rows:
    """A JSON file of rows, each only ever added, by one program or several: `{"format": 1, name: [row, ...]}`.

    What was answered, what was read. Cheap to make; reads nothing until asked.
    """

    def __init__(self, path: Path, name: str, is_row: Callable[[Any], bool]) -> None:
        """name: of the rows, in the file and in what is said about them."""
        self.path, self._name, self._is_row = path, name, is_row

    def read(self) -> list[dict[str, Any]]:
        """All rows, the oldest first. LabError when the file is damaged, or a newer version's: it is left as it is."""
        if not self.path.exists():
            return []
        values = read_json(self.path)
        version = values.get("format") if values is not None else None
        if isinstance(version, int) and version > _ROWS_FORMAT:
            raise LabError(f"{self.path} is of a newer version of the lab.", "", "Update the lab to go on with it.")
        rows = values.get(self._name) if values is not None else None
        if not isinstance(rows, list) or not all(map(self._is_row, rows)):
            hint = "Put a copy of it back, or move it elsewhere to begin anew."
            raise LabError(f"Your {self._name} cannot be read.", f"{self.path} is damaged; it was left as it is.", hint)
        return rows

    def add(self, *added: Mapping[str, Any]) -> None:
        """Keeps more rows. LabError when that cannot be done; nothing that was there is lost."""
        unsaved = f"Your {self._name} could not be saved in {self.path}."
        try:
            with explained(unsaved):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with locked(self.path.with_name(f".{self.path.name}.lock"), f"your {self._name}"):
                    rows = [*self.read(), *added]  # as they stand there, also fields that this version lacks
                    write_json(self.path, {"format": _ROWS_FORMAT, self._name: rows})
        except ValueError as error:  # a row has what JSON, or Unicode, cannot say
            raise LabError(unsaved, f"{error}.") from error


def require_time(name: str, seconds: float | None) -> None:
    """ValueError for what is no moment that a calendar shows: not finite, before 1970, or after the year 5138."""
    if seconds is not None and not 0 <= seconds < 1e11:
        raise ValueError(f"{name} is {seconds!r:.100}")


def to_plain(value: Any) -> Any:
    """Values as JSON takes them: numbers that are not finite become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: to_plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def shaped(value: Any, hint: Any) -> Any:
    """A value of a file as its annotation has it; what does not fit is left as it is, for `fits` to refuse."""
    if value is None or isinstance(value, (str, int, float)):  # nothing to be shaped
        return value
    if isinstance(value, Mapping) and dataclasses.is_dataclass(hint):
        return from_plain(cast(type, hint), value)
    origin, parts = _of_what(hint)
    if origin in (Union, types.UnionType):
        made = ((shaped(value, part), part) for part in parts)
        return next((one for one, part in made if fits(one, part)), value)
    if origin is dict and isinstance(value, Mapping):
        return {name: shaped(item, parts[1]) for name, item in value.items()}
    if origin is list and isinstance(value, list):
        return [shaped(item, parts[0]) for item in value]
    if origin is tuple and isinstance(value, (list, tuple)):
        hints = _of_each(parts, value)
        return tuple(map(shaped, value, hints)) if len(hints) == len(value) else value
    return value


@functools.cache
def _of_what(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """What an annotation is of, and its parts: kept, for lines of a model's process come by the hundred a second."""
    return get_origin(hint), get_args(hint)


def _of_each(parts: tuple[Any, ...], items: Sequence[Any]) -> tuple[Any, ...]:
    """The types of a tuple's items, as `tuple[int, str]` or `tuple[int, ...]` has them."""
    return parts[:1] * len(items) if parts[1:] == (...,) else parts


@functools.cache
def field_types(kind: type) -> dict[str, Any]:
    """The types of a data class's fields, by name."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


@functools.cache
def _now(kind: type) -> dict[str, str]:
    """The names of a data class's fields, by those that they had once (`formerly`)."""
    fields = dataclasses.fields(kind)
    return {field.metadata[_FORMERLY]: field.name for field in fields if _FORMERLY in field.metadata}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type as annotations write it: classes, literals; unions, lists, tuples and dictionaries
    of such."""
    origin, parts = _of_what(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return value in parts
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is list:
        return isinstance(value, list) and all(fits(item, parts[0]) for item in value)
    if origin is tuple:
        hints = _of_each(parts, value) if isinstance(value, tuple) else ()
        return isinstance(value, tuple) and len(hints) == len(value) and all(map(fits, value, hints))
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in value.items())
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float:
        return isinstance(value, float) or (isinstance(value, int) and abs(value) <= sys.float_info.max)
    return isinstance(value, hint)
