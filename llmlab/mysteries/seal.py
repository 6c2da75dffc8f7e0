"""A fault's name as a run's files have it: a salt, and a hash of both. It is a seal and no safe.

Nobody reads the name off a settings table or a report, and once given it can be verified. Whoever hashes all names with
the salt finds it, as the worker does, which has to train the run.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable

from llmlab.core.errors import LabError

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
