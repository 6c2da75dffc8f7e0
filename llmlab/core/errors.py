"""The one exception that people read."""

from __future__ import annotations

import contextlib
import difflib
import errno
from collections.abc import Collection, Iterator


class LabError(Exception):
    """Something went wrong that a person can act on.

    what: what happened, one sentence. why: the cause, with the values involved.
    do: the next thing to try. Shown together by the window and the command line; never a traceback.
    """

    def __init__(self, what: str, why: str = "", do: str = "") -> None:
        super().__init__(" ".join(part for part in (what, why, do) if part))
        self.what = what
        self.why = why
        self.do = do

    def as_dict(self) -> dict[str, str]:
        """The error as it stands in status.json and in the `failed` event."""
        return {"what": self.what, "why": self.why, "do": self.do}


def brief(error: BaseException) -> str:
    """The first sentence of what a library says, for where nothing better is known: one line, and not endless."""
    words = " ".join(str(error).split()).partition(". ")[0].rstrip(".") or type(error).__name__
    return f"{words[:160]}…" if len(words) > 160 else f"{words}."


class UsageError(LabError):
    """The request itself is wrong (an unknown setting, a name that is taken): exit code 2."""


def unknown(what: str, word: str, known: Collection[str]) -> UsageError:
    """The error for a word that is none of `known`, with the nearest of them."""
    return UsageError(f"There is no {what} {word!r}.", f"There are: {', '.join(known)}.", did_you_mean(word, known))


def did_you_mean(word: str, known: Collection[str], most: int = 1, cutoff: float = 0.6) -> str:
    """`Did you mean foo or bar?`, of what is spelt most like a word; "" where nothing is. cutoff: as difflib has it."""
    nearest = difflib.get_close_matches(word, dict.fromkeys(known), n=most, cutoff=cutoff)
    return f"Did you mean {' or '.join(nearest)}?" if nearest else ""


# What helps against errors of the system, by their numbers; and against all others.
_MAY, _ROOM = "Change its permissions, or use another folder.", "Make room there, then try again."
_ADVICE = {
    errno.EACCES: _MAY,
    errno.EPERM: _MAY,
    errno.EROFS: _MAY,
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.ENOENT: "Was it moved or deleted?",
    errno.ENOMEM: "Close other programs, then try again.",
}
_LOOK = "Look at what is there, then try again."


@contextlib.contextmanager
def explained(what: str, do: str = "") -> Iterator[None]:
    """LabError with the system's own reason, where a file cannot be read, written or removed.

    what: names the file or folder with its path: of a full disk the system does not say where. do: where something
    else helps than what usually does.
    """
    try:
        yield
    except OSError as error:
        why, named = str(error.strerror or error), str(error.filename or "")
        if named and named not in what and "/.tmp-" not in named:  # a staging file's name helps nobody
            why += f" ({named})"
        raise LabError(what, f"{why}.", do or _ADVICE.get(error.errno or 0, _LOOK)) from error


class Cancelled(Exception):
    """Long work was cancelled by the person who started it; nothing is wrong."""
