"""Typed settings: one schema that feeds the command line, the window's forms and the run file.

A section is a frozen dataclass whose fields are made with `setting(...)`. Everything else (parsing text,
checking ranges, describing a field to a form) is derived from it here, once.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass
from typing import Any, get_type_hints

from llmlab.core.errors import UsageError
from llmlab.core.files import is_unicode, parse_json

# What `describe` found: the window and every preset ask many times.
_described: dict[tuple[type, str], tuple[SettingInfo, ...]] = {}
# Two of the choices of a setting that has more.
ON_OFF = {"on": True, "off": False}


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
        if ON_OFF.keys() < set(info.choices) and str(value).lower() in ("true", "false"):
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
