"""A JSON file of rows, each only ever added: what was answered, what was read. Several programs may add to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmlab.core.errors import LabError
from llmlab.core.files import StillHeld, locked, read_json, write_json

_FORMAT = 1
_LOCK_SECONDS = 10.0


class Rows:
    """`{"format": 1, name: [row, ...]}` in a file. Cheap to make; reads nothing until asked."""

    def __init__(self, path: Path, name: str, is_row: Callable[[Any], bool]) -> None:
        """name: of the rows, in the file and in what is said about them."""
        self.path, self._name, self._is_row = path, name, is_row

    def read(self) -> list[dict[str, Any]]:
        """All rows, the oldest first. LabError when the file is damaged, or a newer version's: it is left as it is."""
        if not self.path.exists():
            return []
        values = read_json(self.path)
        version = values.get("format") if values is not None else None
        if isinstance(version, int) and version > _FORMAT:
            raise LabError(f"{self.path} is of a newer version of the lab.", "", "Update the lab to go on with it.")
        rows = values.get(self._name) if values is not None else None
        if not isinstance(rows, list) or not all(map(self._is_row, rows)):
            hint = "Put a copy of it back, or move it elsewhere to begin anew."
            raise LabError(f"Your {self._name} cannot be read.", f"{self.path} is damaged; it was left as it is.", hint)
        return rows

    def add(self, *added: Mapping[str, Any]) -> None:
        """Keeps more rows. LabError when that cannot be done; nothing that was there is lost."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path.with_name(f".{self.path.name}.lock"), _LOCK_SECONDS):
                rows = [*self.read(), *added]  # as they stand there, also fields that this version lacks
                write_json(self.path, {"format": _FORMAT, self._name: rows})
        except StillHeld as error:
            raise LabError(f"Your {self._name} could not be saved.", f"Another program holds {self.path}.") from error
        except (OSError, ValueError) as error:  # ValueError: a row has what JSON, or Unicode, cannot say
            why = f"{self.path}: {getattr(error, 'strerror', None) or error}."
            raise LabError(f"Your {self._name} could not be saved.", why) from error
