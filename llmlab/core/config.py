"""Typed settings: one schema that feeds the command line, the window's forms and the run file.

A section is a frozen dataclass whose fields are made with `setting(...)`. Everything else (parsing text,
checking ranges, reading TOML, describing a field to a form) is derived from it here, once.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from llmlab.core.errors import UsageError
from llmlab.core.files import is_unicode, open_file, parse_json

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
# What `describe` found: the window and every preset ask many times.
_described: dict[tuple[type, str], tuple[SettingInfo, ...]] = {}
# Settings under the names that they had before version 0.5, which files and command lines may still say.
_NOW = {"train.eval_windows": "train.eval_sequences"}
# Two of the choices of a setting that has more.
_ON_OFF = {"on": True, "off": False}


@dataclass(frozen=True)
class SettingInfo:
    """What a form, `llmlab-run settings` and a validator need to know of one setting."""

    section: str
    name: str
    kind: type  # int, float, bool, str or tuple (of str)
    default: Any
    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    advanced: bool = False  # a form shows it folded away
    exact: bool = True  # changing it on resume breaks bitwise equality with an uninterrupted run

    @property
    def key(self) -> str:
        """`section.field`, as in --set."""
        return f"{self.section}.{self.name}"

    @property
    def range_text(self) -> str:
        """The allowed values, for people."""
        if self.choices:
            return " | ".join(self.choices)
        if self.kind is bool:
            return "true | false"
        if self.kind is tuple:
            return "texts separated by |"
        if self.low is not None and self.high is not None:
            return f"{_plain(self.low)} to {_plain(self.high)}"
        if self.low is not None:
            return f"{_plain(self.low)} or more"
        return "any text" if self.kind is str else "any number"


def _plain(number: float) -> str:
    """As people write it: 2,147,483,647."""
    return f"{number:,.0f}" if number == round(number) else f"{number:g}"


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    advanced: bool = False,
    exact: bool = True,
) -> Any:
    """A dataclass field with the facts that `SettingInfo` carries."""
    range_facts = {"unit": unit, "low": low, "high": high, "choices": choices}
    return dataclasses.field(
        default=default, metadata=range_facts | {"help": help, "advanced": advanced, "exact": exact}
    )


def describe(settings_type: type, section: str = "") -> tuple[SettingInfo, ...]:
    """Every setting of a settings class, in order; nested sections are walked."""
    known = _described.get((settings_type, section))
    if known is not None:
        return known
    hints = get_type_hints(settings_type)
    found: list[SettingInfo] = []
    for field in dataclasses.fields(settings_type):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            found += describe(kind, field.name)  # type: ignore[arg-type]
        else:
            plain = tuple if "tuple" in str(kind) else kind
            found.append(SettingInfo(section, field.name, plain, field.default, **field.metadata))
    return _described.setdefault((settings_type, section), tuple(found))


def parse_value(info: SettingInfo, value: Any) -> Any:
    """`value` (text, or what TOML and JSON give) as the setting's type, checked. Raises UsageError."""
    converted = _convert(info, value)
    if info.choices and converted not in info.choices:
        nearest = difflib.get_close_matches(str(converted), info.choices, n=1)
        hint = f"Did you mean {nearest[0]!r}?" if nearest else ""
        raise UsageError(f"{info.key} cannot be {converted!r}.", f"It takes {info.range_text}.", hint)
    if info.kind in (int, float):
        too_low = info.low is not None and converted < info.low
        too_high = info.high is not None and converted > info.high
        if too_low or too_high or not math.isfinite(converted):
            raise UsageError(f"{info.key} cannot be {value!r}.", f"It takes {info.range_text}.")
    return converted


def _convert(info: SettingInfo, value: Any) -> Any:
    wrong = UsageError(f"{info.key} cannot be {value!r}.", f"It takes {info.range_text}.")
    if info.kind is tuple:
        try:
            if isinstance(value, str):
                value = parse_json(value) if value.lstrip().startswith("[") else value.split("|")
        except ValueError:
            raise wrong from None
        if not isinstance(value, (list, tuple)) or not all(_is_text(item) for item in value):
            raise wrong
        return tuple(value)
    if info.kind is bool:
        if isinstance(value, bool):
            return value
        words = {"true": True, "yes": True, "on": True, "1": True}
        words |= {"false": False, "no": False, "off": False, "0": False}
        if str(value).lower() in words:
            return words[str(value).lower()]
        raise wrong
    if info.kind is str:
        if _ON_OFF.keys() < set(info.choices) and str(value).lower() in ("true", "false"):
            return "on" if str(value).lower() == "true" else "off"
        if _is_text(value):
            return value
        raise wrong
    if isinstance(value, bool):
        raise wrong
    try:
        number = float(value)
        if info.kind is float:
            return number
        if number != int(number):  # 1e3 is a whole number, 1.5 is not; inf and nan raise here
            raise wrong
        return int(value) if isinstance(value, int) else int(number)
    except (TypeError, ValueError, OverflowError):
        raise wrong from None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and is_unicode(value)


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
    from llmlab.core.kinds import FINETUNING, KINDS  # which are made with this file

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
        if _ON_OFF.keys() < set(info.choices):  # it was a bool once, and files and their readers have it as one
            section = values[info.section] if info.section else values
            section[info.name] = _ON_OFF.get(section[info.name], section[info.name])
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
