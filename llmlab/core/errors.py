"""The one exception that people read."""

from __future__ import annotations


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


class Cancelled(Exception):
    """Long work was cancelled by the person who started it; nothing is wrong."""
