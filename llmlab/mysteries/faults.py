"""What can be wrong with a run: the causes that a learner chooses among, with their pages. No torch.

The texts are in resources/mysteries/faults.toml; what breaks is in broken_model.py and broken_loop.py.
"""

from __future__ import annotations

import hashlib
import secrets
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from llmlab.core.errors import LabError
from llmlab.core.records import named_records
from llmlab.core.source_code import find_source

NOTHING = "nothing"
LEVELS = (1, 2, 3)
_AROUND = 3  # lines shown before and after the one that matters


@dataclass(frozen=True)
class Fault:
    """One cause. level: 1 loud, 2 middle, 3 quiet; 0 stands in every level.

    changes: what a run shows of it. tell: the tell-tale that shows it fastest. dock: the panel that has it.
    right, broken: the lines as they are and as they were, `FILE::SYMBOL`; at: a part of the right line that matters.
    """

    name: str
    title: str
    level: int
    changes: str
    tell: str
    dock: str = ""
    right: str = ""
    at: str = ""
    broken: str = ""

    def lines(self) -> tuple[str, str]:
        """The right lines, cut down to those around `at`, and the broken ones. LabError when they cannot be read."""
        code = find_source(self.right).code.splitlines()
        middle = next((number for number, line in enumerate(code) if self.at in line), 0)
        docstring = max((number + 1 for number, line in enumerate(code[:middle]) if '"""' in line), default=0)
        around = code[max(docstring, middle - _AROUND) : middle + _AROUND + 1]
        return textwrap.dedent("\n".join(around)), find_source(self.broken).code


def faults() -> dict[str, Fault]:
    """All of them by name, in the order of the levels."""
    return named_records(Fault, "mysteries/faults.toml")


def candidates(level: int) -> list[str]:
    """The causes among which a mystery of that level chooses; that nothing is broken comes last."""
    return [fault.name for fault in faults().values() if fault.level == level] + [NOTHING]


def fault_of(token: str) -> Fault:
    """The fault that a seal holds. LabError when it is damaged."""
    return faults()[opened(token, faults())]


# The seal -------------------------------------------------------------------------------------------------------------

# A fault's name as a run's files have it: a salt, and a hash of both. It is a seal and no safe: whoever hashes all
# names with the salt finds it, as the worker does, which has to train the run.
_SALT_BYTES, _DIGITS = 6, 24


def seal(name: str) -> str:
    """A token for it, another one each time."""
    salt = secrets.token_hex(_SALT_BYTES)
    return f"{salt}-{_hash(salt, name)}"


def opened(token: str, names: Iterable[str]) -> str:
    """The one of `names` that was sealed. LabError when it is none of them."""
    salt, _, sealed = token.partition("-")
    for name in names:
        if _hash(salt, name) == sealed:
            return name
    raise LabError(
        "The seal of this run is damaged.", "It fits none of the faults that the lab knows.", "Start another mystery."
    )


def _hash(salt: str, name: str) -> str:
    return hashlib.sha256(f"{salt}:{name}".encode()).hexdigest()[:_DIGITS]
