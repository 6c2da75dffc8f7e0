"""Seals: what was stated and what came of it, each written down once, with the hash of the line before it.

outputs/notebook/seals.jsonl only grows. A line that is changed no longer has its own hash, or not the one that the
next line names; one that is taken out leaves a gap in the numbers. The same prediction stands in the record of its
run, experiment or check, and in its entry, and so does the score in the entry: what differs from the seal is altered.
There is no secret in the chain: whoever rewrites records, entries and every later line together is not noticed.

Written in this order: record, seal, entry. So a program that is killed leaves behind what lacks only a later one,
and that is completed; where an earlier one is missing or differs, somebody edited it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from llmlab.core.errors import LabError, explained
from llmlab.core.files import locked, open_file, parse_json, write_atomic
from llmlab.core.progress import Progress, quiet
from llmlab.core.records import from_plain, require_time
from llmlab.store.worker_folder import WorkerFolder

NOTEBOOK, CHAIN = "notebook", "seals.jsonl"
PREDICTED, SCORED = "predicted", "scored"
# How a prediction stood when it was sealed: as it was locked ("" is that, before the first step), after the first
# step, by a version that had no seals, or already altered. BROKEN: the line itself was changed since.
LATE, BEFORE, ALTERED, BROKEN = "late", "before", "altered", "broken"
_MOST_PLACES = 1000  # predictions of one entry
_LARGEST = 1 << 28  # bytes: more than a life of predictions


@dataclass(frozen=True)
class Seal:
    """A line of seals.jsonl.

    entry: the id of the entry. place: of the prediction in it, from 0. values: `Locked` or `Score` as plain values.
    subject, about, created: of a prediction, what it is about, its full name then (`TRACK/ID`), and when it was made.
    number, previous (the hash of the line before it), time and hash are filled in when it is written.
    """

    what: str
    entry: str
    place: int
    values: dict[str, Any]
    subject: str = ""
    about: str = ""
    created: float = 0.0
    found: str = ""
    number: int = 0
    previous: str = ""
    time: float = 0.0
    hash: str = ""


@dataclass(frozen=True)
class Chain:
    """All seals that can be read, in their order. data: the file as it is. missing: lines that are no longer there."""

    data: bytes
    seals: list[Seal]
    missing: int

    def of(self, entry: str) -> list[Seal]:
        return [seal for seal in self.seals if seal.entry == entry]


def read_chain(folder: Path) -> Chain:
    """The chain of a notebook's folder, each line checked. Raises LabError when it is there and cannot be read."""
    data = chain_bytes(folder)
    seals = [seal for line in data.splitlines() if (seal := _parse(line)) is not None]
    sound = [seal.hash == _hash(seal) for seal in seals]
    missing = max(0, seals[0].number - 1) if seals else 0
    for place, (seal, after) in enumerate(pairwise(seals)):
        between = after.number - seal.number - 1
        missing += max(0, between)
        sound[place] &= between > 0 or (between == 0 and after.previous == seal.hash)
    return Chain(data, [s if fits else replace(s, found=BROKEN) for s, fits in zip(seals, sound, strict=True)], missing)


def chain_bytes(folder: Path) -> bytes:
    """seals.jsonl as it is, empty where there is none. Raises LabError when it is there and cannot be read."""
    path, data, unread = folder / CHAIN, b"", "The seals of the notebook cannot be read."
    with explained(unread), contextlib.suppress(FileNotFoundError), open_file(path) as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise LabError(unread, f"{path} has more than {_LARGEST >> 20} MiB.", "Put it back as it was.")
    return data


def append(folder: Path, chain: Chain, seals: Sequence[Seal]) -> Chain:
    """Seals, and returns the chain with them. The caller holds the lock (`held`). Raises OSError."""
    if not seals:
        return chain
    last = chain.seals[-1] if chain.seals else None
    before, previous = (last.number, last.hash) if last is not None else (0, "")
    data = chain.data if not chain.data or chain.data.endswith(b"\n") else chain.data + b"\n"
    added = []
    for number, seal in enumerate(seals, before + 1):
        open_seal = replace(seal, number=number, previous=previous, time=time.time(), hash="")
        added.append(replace(open_seal, hash=_hash(open_seal)))
        previous = added[-1].hash
        data += json.dumps(asdict(added[-1])).encode() + b"\n"
    write_atomic(folder / CHAIN, data)
    return Chain(data, [*chain.seals, *added], chain.missing)


def seal_new(made: WorkerFolder, subject: str, created: float, predictions: Sequence[Mapping[str, Any]]) -> None:
    """Seals the predictions that stand in the record of a run, experiment or check which was made just now.

    Where that cannot be done nothing is lost: the next look at the notebook seals them, as predictions of something
    that has begun if it has.
    """
    if not predictions:
        return
    folder, about = made.outputs / NOTEBOOK, made.full_name
    with contextlib.suppress(LabError), held(folder):
        chain = read_chain(folder)
        if any((seal.subject, seal.about, seal.created) == (subject, about, created) for seal in chain.seals):
            return  # somebody looked into the notebook meanwhile
        entry = free_id(folder, chain, subject, made.id)
        seals = [Seal(PREDICTED, entry, at, dict(one), subject, about, created) for at, one in enumerate(predictions)]
        append(folder, chain, seals)


def free_id(folder: Path, chain: Chain, subject: str, name: str) -> str:
    """The id of a new entry: no other has it, and none that was sealed had it."""
    taken = {seal.entry for seal in chain.seals}
    stem = f"{subject}-{re.sub(r'[^A-Za-z0-9._+-]', '-', name)}"
    id, number = stem, 1
    while id in taken or (folder / f"{id}.json").exists():
        number += 1
        id = f"{stem}-{number}"
    return id


@contextlib.contextmanager
def held(folder: Path, progress: Progress = quiet) -> Iterator[None]:
    """The notebook's lock, without which nothing in its folder is changed. LabError when that cannot be.

    progress: called while another program holds it.
    """
    with explained(f"The notebook in {folder} could not be written."):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", "the notebook", progress):
            yield


def _parse(line: bytes) -> Seal | None:
    """None for what is no seal: it is missing then, as its number tells."""
    try:
        seal = from_plain(Seal, parse_json(line))
        require_time("created", seal.created)
        require_time("time", seal.time)
    except (ValueError, TypeError):
        return None
    return seal if 0 <= seal.place < _MOST_PLACES and seal.what in (PREDICTED, SCORED) else None


def _hash(seal: Seal) -> str:
    plain = asdict(replace(seal, hash=""))
    return hashlib.sha256(json.dumps(plain, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
