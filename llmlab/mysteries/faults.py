"""What can be wrong with a run: the causes that a learner chooses among, with their pages. No torch.

The texts are in resources/mysteries/faults.toml; what breaks is in broken_model.py and broken_loop.py.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from functools import lru_cache

from llmlab.core.config import read_toml
from llmlab.core.paths import resources_dir
from llmlab.core.records import from_plain
from llmlab.core.source_code import find_source
from llmlab.mysteries.seal import opened

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


@lru_cache(maxsize=1)
def faults() -> dict[str, Fault]:
    """All of them by name, in the order of the levels."""
    texts = read_toml(resources_dir() / "mysteries" / "faults.toml")
    return {name: from_plain(Fault, {"name": name, **values}) for name, values in texts.items()}


def candidates(level: int) -> list[str]:
    """The causes among which a mystery of that level chooses; that nothing is broken comes last."""
    return [fault.name for fault in faults().values() if fault.level == level] + [NOTHING]


def fault_of(token: str) -> Fault:
    """The fault that a seal holds. LabError when it is damaged."""
    return faults()[opened(token, faults())]
