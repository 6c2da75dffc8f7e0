"""Papers that a reader notes down: a folder of notes and claims with the questions of a careful reader. No torch.

outputs/papers/<name>/
    claims.toml    as in resources/papers (`llmlab.data.papers`), each question in a comment above its answer
    notes.md       a heading for each question, the answer under it

TOML, and not JSON, because people write it: it has comments, which hold the questions, and texts of several lines; and
a folder that is complete is a paper of the lab's own, as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from llmlab.core.config import parse_toml
from llmlab.core.errors import LabError, UsageError
from llmlab.core.files import open_file
from llmlab.core.kinds import PAPERS
from llmlab.data.papers import SIZES, Claim, Paper

CLAIMS_FILE, NOTES_FILE = "claims.toml", "notes.md"
_HEADER = re.compile(r"^\s*(?:\[\s*(paper)\s*\]|\[\[\s*(claims)\s*\]\])\s*(#.*)?$")
# In the order in which they are asked. Of the paper, and of each claim.
PAPER_QUESTIONS = {
    "title": "What is its title?",
    "authors": "Who wrote it?",
    "year": "In which year?",
    "links": "Where can it be read?",
}
CLAIM_QUESTIONS = {
    "title": "Which claim is this, in a few words?",
    "statement": "What is claimed? One sentence that could be false, with the paper's number.",
    "where": "Where does the paper say and show it: which section, figure, table?",
    "about": "Of what is it claimed: which models, sizes, data?",
    "measured": "Measured how: which quantity, on what, how many times?",
    "control": "Against which control? What would reach the same number with nothing behind it?",
    "supports": "Which result would support it? Name the number, before you know it.",
    "refutes": "Which result would refute it?",
    "test": "What of it can be tested here, with which run or model? If nothing: why?",
}
NOTES_QUESTIONS = (
    "What is the idea, in your own words?",
    "What is contested, by others or by the paper itself?",
    "What cannot be tested here, and why?",
)
# What people write where they mean to come back.
_PLACEHOLDERS = {"", "?", "??", "???", "-", "...", "…", "todo", "tbd", "fixme", "xxx"}
_OF_FEW_WORDS = ("title", "where")
_LEAST_WORDS = 3  # ours: nobody can be held to fewer; not counted outside ASCII, where words may have no spaces
_LARGEST = 1 << 20  # bytes of a file that a person wrote


@dataclass(frozen=True)
class Missing:
    """What a paper's notes and claims lack. claim: its id, "" for the paper itself. line: of the file, from 1, 0 where
    it has none. why: what is wrong with what stands there. question: to be answered."""

    file: str
    line: int
    claim: str
    field: str
    why: str
    question: str

    @property
    def sentence(self) -> str:
        """`claims.toml, line 12: control of sink has no answer. Against which control? ...`"""
        at = f"{self.file}, line {self.line}" if self.line else self.file
        what = f"{self.field} of {self.claim}" if self.claim else self.field
        return f"{at}: {what} {self.why}. {self.question}"


@dataclass(frozen=True)
class OwnPaper:
    """A reader's paper. paper: what stands there, unanswered fields "". problem: why its files cannot be read; the
    paper is then its name alone."""

    paper: Paper
    folder: Path
    missing: tuple[Missing, ...] = ()
    problem: LabError | None = None

    @property
    def standing(self) -> str:
        """`complete`, `7 answers missing`, or `cannot be read`."""
        if self.problem is not None:
            return "cannot be read"
        count = len(self.missing)
        return f"{count} {'answer' if count == 1 else 'answers'} missing" if count else "complete"


def own_papers(outputs: Path) -> list[OwnPaper]:
    """All papers that a reader has begun, by name."""
    return [_read(folder) for folder in _folders(outputs)]


def find_own_paper(name: str, outputs: Path) -> OwnPaper | None:
    """The one of that name; None where there is none. LabError for one whose files cannot be read."""
    return next((read_files(folder) for folder in _folders(outputs) if folder.name == name), None)


def _folders(outputs: Path) -> list[Path]:
    paths = sorted((outputs / PAPERS).glob(f"*/{CLAIMS_FILE}"))
    return [path.parent for path in paths if not path.parent.name.startswith(".")]


def _read(folder: Path) -> OwnPaper:
    try:
        return read_files(folder)
    except LabError as error:
        nothing = Paper(folder.name, folder.name, "", 0, (), f"# {folder.name}\n", ())
        return OwnPaper(nothing, folder, (), error)


def read_files(folder: Path) -> OwnPaper:
    """A paper by its folder. UsageError, with the line, for what does not describe one, or cannot be read."""
    path = folder / CLAIMS_FILE
    text = text_of(path)
    values, lines = parse_toml(text, path), text.split("\n")
    about, rows = values.get("paper", {}), values.get("claims", [])
    if not isinstance(about, dict) or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        do = "Write [paper] once, and [[claims]], in two brackets each, above every claim."
        raise UsageError(f"{path} does not describe a paper.", "", do)
    _require_known(path, lines, None, about, PAPER_QUESTIONS)
    known = ("id", *CLAIM_QUESTIONS, "papers_criterion", "contested", "sizes")
    for place, row in enumerate(rows):
        _require_known(path, lines, place, row, known)
    notes = text_of(folder / NOTES_FILE)
    ids = _ids(rows)
    texts = [field for field in known if field not in ("id", "sizes")]
    claims = tuple(
        Claim(**{field: row.get(field, "").strip() for field in texts}, id=id, sizes=tuple(row.get("sizes", ())))
        for id, row in zip(ids, rows, strict=True)
    )
    title = str(about.get("title", "")).strip()
    links = tuple(map(str, about.get("links", ())))
    paper = Paper(
        folder.name, title or folder.name, str(about.get("authors", "")), about.get("year", 0), links, notes, claims
    )
    missing = [*_missing_of_paper(lines, about), *_missing_claims(lines, rows, ids), *_missing_notes(notes)]
    return OwnPaper(paper, folder, tuple(missing))


def _require_known(path: Path, lines: Sequence[str], place: int | None, row: dict[str, Any], known: Any) -> None:
    """Each field is one that is asked for, and of its kind; UsageError with the line otherwise."""
    for field, value in row.items():
        if field not in known:
            at = _where(path, lines, place, field)
            raise UsageError(f"{at} has {field!r}, which is not a question.", f"There are: {', '.join(known)}.")
        if field == "year":
            right, kind = isinstance(value, int) and not isinstance(value, bool), "a number, as in year = 2024"
        elif field in ("links", "sizes"):
            right = isinstance(value, list) and all(isinstance(part, str) for part in value)
            kind = 'texts in brackets, as in links = ["https://..."]'
            right = right and (field == "links" or set(value) <= set(SIZES))
        else:
            right, kind = isinstance(value, str), f'a text in quotes, as in {field} = "..."'
        if not right:
            at = _where(path, lines, place, field)
            raise UsageError(f"{at} has {value!r:.60} as {field}.", "", f"Write {kind}.")


def _where(path: Path, lines: Sequence[str], place: int | None, field: str) -> str:
    line = line_of(lines, place, field)
    return f"{path}, line {line}," if line else f"{path}"


def _ids(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One each, also where a claim has none yet, or another's."""
    ids: list[str] = []
    for place, row in enumerate(rows):
        id = row.get("id", "").strip()
        ids.append(id if id and id not in ids else f"claim-{place + 1}")
    return ids


def _missing_of_paper(lines: Sequence[str], about: dict[str, Any]) -> Iterator[Missing]:
    for field, question in PAPER_QUESTIONS.items():
        value = about.get(field)
        if not value or (isinstance(value, str) and _is_empty(value)):
            yield Missing(CLAIMS_FILE, line_of(lines, None, field), "", field, "has no answer", question)


def _missing_claims(lines: Sequence[str], rows: Sequence[dict[str, Any]], ids: Sequence[str]) -> Iterator[Missing]:
    if not rows:
        yield Missing(CLAIMS_FILE, 0, "", "[[claims]]", "is missing", "What does the paper claim?")
    for place, (row, id) in enumerate(zip(rows, ids, strict=True)):
        if row.get("id", "").strip() != id:
            line = line_of(lines, place, "id")
            yield Missing(
                CLAIMS_FILE, line, id, "id", "is empty, or another claim's", "What is it called, in one word?"
            )
        for field, question in CLAIM_QUESTIONS.items():
            if why := _lacks(row, field):
                yield Missing(CLAIMS_FILE, line_of(lines, place, field), id, field, why, question)


def _lacks(row: dict[str, Any], field: str) -> str:
    """What is wrong with an answer, "" where nothing is."""
    words = row.get(field, "").strip()
    if _is_empty(words):
        return "has no answer"
    if field not in _OF_FEW_WORDS and words.isascii() and len(words.split()) < _LEAST_WORDS:
        return f"is {words!r}, which is too short to be held to"
    if field == "refutes" and words.casefold() == row.get("supports", "").strip().casefold():
        return "is what supports it, too, so nothing could decide"
    return ""


def _missing_notes(notes: str) -> Iterator[Missing]:
    """Headings with nothing under them; of notes without any, that nothing is written."""
    parts = note_parts(notes)
    for part in parts:
        if _is_empty(part.words):
            yield Missing(NOTES_FILE, part.start + 1, "", "this heading", "has nothing under it", part.question)
    body = [line for line in notes.split("\n") if not line.startswith("# ")]
    if not parts and _is_empty("".join(body).strip()):
        yield Missing(NOTES_FILE, 0, "", "it", "has no notes", NOTES_QUESTIONS[0])


@dataclass(frozen=True)
class NotePart:
    """A heading of notes.md, and what stands under it. start, end: its line, and the one behind its part, from 0."""

    question: str
    start: int
    end: int
    words: str


def note_parts(notes: str) -> list[NotePart]:
    """Of the second level, up to the next; smaller ones belong to what is under them."""
    lines = [*notes.split("\n"), "# end"]
    heads = [n for n, line in enumerate(lines) if re.match(r"#{1,2} ", line)]
    return [
        NotePart(lines[start][3:].strip(), start, end, "\n".join(lines[start + 1 : end]).strip())
        for start, end in pairwise(heads)
        if lines[start].startswith("## ")
    ]


def _is_empty(words: str) -> bool:
    return words.strip().casefold() in _PLACEHOLDERS


def text_of(path: Path) -> str:
    """What a person wrote, its lines ended as in TOML. UsageError where it cannot be read, or is too large."""
    try:
        with open_file(path) as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise UsageError(f"{path} is too large.", f"It has more than {_LARGEST:,} bytes.", "Shorten it.")
        return data.decode("utf-8-sig").replace("\r\n", "\n")  # editors on Windows begin a file with a mark
    except OSError as error:
        raise UsageError(f"{path} could not be read.", f"{error.strerror or error}.", "Put it back.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} could not be read.", f"It is not UTF-8: {error}.", "Save it as UTF-8.") from error


# Where an answer stands in claims.toml ----------------------------------------------------------------------------


def block_of(lines: Sequence[str], place: int | None) -> tuple[int, int]:
    """The line of a header, and the one behind its block, from 0. UsageError where there is none."""
    heads = [(n, found[1] or found[2]) for n, line in enumerate(lines) if (found := _HEADER.match(line))]
    wanted = "paper" if place is None else "claims"
    starts = [n for n, name in heads if name == wanted]
    if (place or 0) >= len(starts):
        raise UsageError(f"{CLAIMS_FILE} has no [{wanted}] for this answer.", "", "Write it in an editor.")
    start = starts[place or 0]
    return start, next((n for n, _ in heads if n > start), len(lines))


def is_field(line: str, field: str) -> bool:
    """Whether the answer to that question begins in this line."""
    return re.match(rf"\s*{re.escape(field)}\s*=", line) is not None


def end_of(lines: Sequence[str], first: int, end: int) -> int:
    """The line behind a value: it ends as soon as what is read is TOML."""
    for last in range(first + 1, end + 1):
        try:
            parse_toml("\n".join(lines[first:last]), Path(CLAIMS_FILE))
        except UsageError:
            continue
        return last
    return first + 1


def line_of(lines: Sequence[str], place: int | None, field: str) -> int:
    """Where a field stands, from 1; of a missing one its header's line; 0 where neither is found."""
    try:
        start, end = block_of(lines, place)
    except UsageError:
        return 0
    return 1 + next((n for n in range(start + 1, end) if is_field(lines[n], field)), start)
