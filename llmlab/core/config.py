"""Settings from files, command lines and mappings, and back; what is not known is refused with the nearest name."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from llmlab.core.errors import UsageError
from llmlab.core.files import open_file
from llmlab.core.kinds import FINETUNING, KINDS
from llmlab.core.setting_info import ON_OFF, SettingInfo, describe, parse_value

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
# Settings under the names that they had before version 0.5, which files and command lines may still say.
_NOW = {"train.eval_windows": "train.eval_sequences"}


def from_mapping(settings_type: type[T], values: Mapping[str, Any], base: T | None = None) -> T:
    """Settings from nested mappings (TOML, run.json); what is not named comes from `base` or the default.

    Unknown sections and fields are refused with the nearest name.
    """
    return with_values(base if base is not None else settings_type(), flat(values))


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings by `section.field` keys; what is in no section keeps its name."""
    found: dict[str, Any] = {}
    for section, fields in values.items():
        if isinstance(fields, Mapping):
            found.update({f"{section}.{name}": value for name, value in fields.items()})
        else:
            found[section] = fields
    return found


def key_now(key: str) -> str:
    """A setting's `section.field`, which may be that of an earlier version."""
    return _NOW.get(key, key)


def with_values(settings: T, values: Mapping[str, Any]) -> T:
    """A copy of `settings` with `section.field` keys, also of former names, replaced by parsed, checked values."""
    known = {info.key: info for info in describe(type(settings))}
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        info = known.get(key_now(key))
        if info is None:
            raise _unknown(key, type(settings), known)
        sections.setdefault(info.section, {})[info.name] = parse_value(info, value)
    changed = {
        section: dataclasses.replace(getattr(settings, section), **fields) for section, fields in sections.items()
    }
    return dataclasses.replace(settings, **changed)  # type: ignore[type-var]


def _unknown(key: str, settings_type: type, known: Mapping[str, SettingInfo]) -> UsageError:
    """What to say of a setting that there is not, or that only other kinds of training have."""
    finetuning = issubclass(settings_type, KINDS[FINETUNING])
    lists = f"`llmlab-run settings{' --finetune' if finetuning else ''}` lists them all."
    kinds = [kind for kind in KINDS.values() if not set(KINDS.values()) & set(kind.__mro__[1:])]
    others = [kind.noun for kind in kinds if any(info.key == key for info in describe(kind))]
    if others and settings_type in KINDS.values():
        mine = settings_type.noun  # type: ignore[attr-defined]
        return UsageError(
            f"There is no setting {key!r} in {mine}.", f"It is a setting of {' and of '.join(others)}.", lists
        )
    names = [*known, *(old for old, now in _NOW.items() if now in known)]
    nearest = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f"Did you mean {key_now(nearest[0])}?" if nearest else lists
    return UsageError(f"There is no setting {key!r}.", "", hint)


def to_mapping(settings: Any) -> dict[str, dict[str, Any]]:
    """Settings as nested plain values, for run.json; the inverse of `from_mapping`."""
    values = json.loads(json.dumps(dataclasses.asdict(settings)))
    for info in describe(type(settings)):
        if ON_OFF.keys() < set(info.choices):  # it was a bool once, and files and their readers have it as one
            section = values[info.section] if info.section else values
            section[info.name] = ON_OFF.get(section[info.name], section[info.name])
    return values


def differences(old: Any, new: Any) -> list[tuple[SettingInfo, Any, Any]]:
    """The settings whose values differ, each with its old and new value."""
    rows = []
    for info in describe(type(old)):
        before = getattr(getattr(old, info.section), info.name)
        after = getattr(getattr(new, info.section), info.name)
        if before != after:
            rows.append((info, before, after))
    return rows


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's content; UsageError with the line when it is not TOML or cannot be read."""
    try:
        with open_file(path) as file:
            text = file.read().decode()
    except OSError as error:
        raise UsageError(f"{path} could not be read.", f"{error.strerror or error}.", "Name another file.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} could not be read.", f"It is not UTF-8: {error}.") from error
    return parse_toml(text, path)


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """What a text says in TOML; UsageError with the line when it is none. path: the file that it is of, in words."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise UsageError(f"{path} is not valid TOML.", "It nests too deeply.") from error
    except ValueError as error:  # besides bad syntax: numbers beyond any reader
        raise UsageError(f"{path} is not valid TOML.", f"{error}.") from error


def with_overrides(settings: T, file: Path | None, overrides: Mapping[str, Any] | Sequence[str]) -> T:
    """Settings with what a TOML file and then `overrides` (`section.field=value` or a mapping) say otherwise."""
    if file is not None:
        values = read_toml(file)
        values.pop("preset", None)
        settings = from_mapping(type(settings), values, settings)
    return with_values(settings, parse_assignments(overrides) if not isinstance(overrides, Mapping) else overrides)


def parse_assignments(assignments: Sequence[str]) -> dict[str, str]:
    """`["section.field=value", ...]` as a mapping; UsageError for what has no `=`."""
    values: dict[str, str] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"{assignment!r} sets nothing.", "A setting is written section.field=value.")
        values[key_now(key.strip())] = value
    return values
