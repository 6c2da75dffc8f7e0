"""Patterns that come with an adapter: tried in a process of their own before PEFT tries them in this one.

PEFT matches texts of an adapter's settings against the names of a model's modules, as regular expressions of `re`,
which can take longer than anyone waits: `(a+)+b` doubles its steps with each letter of a name, and nothing stops it
from inside. A process can be stopped from any thread and on every system: one that tries the same patterns on the
same names, and is not done in time, shows that they must not be tried here. Settings without patterns start none.
"""

from __future__ import annotations

import faulthandler
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from llmlab.core.errors import LabError
from llmlab.core.paths import module_command

# Of an interpreter's start (a second on a slow disk) and of all matches, of which a harmless pattern makes a million.
_SECONDS = 10.0
# Without one of these a text is its own only match, or one of its length.
_SPECIAL = re.compile(r"[*+?{}()\[\]|\\^$]")
# Settings that are never matched: where the base came from.
_NOT_MATCHED = ("base_model_name_or_path", "revision", "auto_mapping")
# How PEFT puts patterns together (`tuners_utils.check_target_module_exists`, `other.get_pattern_key` and the tuners).
_FORMS = (r"{}", r"(.*\.)?({})$", r"(^|.*\.){}($|\..*)", r"(?:^|.*?\.){}\.(?P<idx>\d+)\.", r".*\.{}$")


def require_quick(settings: dict[str, Any], modules: Iterable[str], name: str) -> None:
    """LabError when the patterns in an adapter's settings are not done with the names of `modules` in time."""
    patterns = sorted(
        {text for key, value in settings.items() if key not in _NOT_MATCHED for text in _texts({key: value})}
    )
    if not patterns:
        return
    request = json.dumps({"patterns": patterns, "names": list(modules), "seconds": _SECONDS})
    try:
        subprocess.run(
            module_command("llmlab.models.adapter_patterns"),
            input=request.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=True,
        )
    except (subprocess.SubprocessError, OSError) as error:
        late = isinstance(error, subprocess.TimeoutExpired)
        why = "takes too long to match" if late else "could not be tried"
        raise LabError(
            f"The adapter {name} cannot be opened.",
            f"Its settings name modules by a pattern that {why} ({patterns[0]!r:.80}).",
            "Write the modules' names into its adapter_config.json as a list.",
        ) from error


def _texts(value: Any) -> Iterator[str]:
    """All texts inside, keys among them, that mean more than themselves in a regular expression."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and _SPECIAL.search(value):
            yield value


def _try_all(patterns: list[str], names: list[str]) -> None:
    for pattern in patterns:
        for form in _FORMS:
            try:
                compiled = re.compile(form.replace("{}", pattern))
            except (re.error, RecursionError, OverflowError):  # PEFT will refuse it as well
                continue
            for name in names:
                compiled.fullmatch(name)
                compiled.search(name)


if __name__ == "__main__":
    request = json.load(sys.stdin.buffer)
    faulthandler.dump_traceback_later(request["seconds"], exit=True)  # whoever waits for it may be gone
    _try_all(request["patterns"], request["names"])
