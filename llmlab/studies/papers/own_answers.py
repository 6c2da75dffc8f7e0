"""What is written of a reader's paper: its files with all questions, and one answer after the other."""

from __future__ import annotations

import json
import re
from pathlib import Path

from llmlab.core.config import parse_toml
from llmlab.core.errors import UsageError, explained
from llmlab.core.files import is_unicode, new_folder, open_file, write_atomic
from llmlab.core.kinds import PAPERS
from llmlab.data.papers import Claim, Paper, list_papers
from llmlab.jobs.launcher import require_name
from llmlab.studies.papers.own import (
    CLAIM_QUESTIONS,
    CLAIMS_FILE,
    NOTES_FILE,
    NOTES_QUESTIONS,
    PAPER_QUESTIONS,
    block_of,
    end_of,
    is_field,
    note_parts,
    read_files,
    text_of,
)
from llmlab.studies.plans.records import LONGEST_NAME

_FIRST_CLAIM = "claim-1"
_OF_ONE_LINE = ("title", "authors", "year", "links")


def new_paper(name: str, outputs: Path, title: str = "", link: str = "") -> Path:
    """The folder of a paper, with all questions and one claim to begin with; a folder of that name stays as it is.

    UsageError for a name that cannot be, or is taken. LabError where nothing can be written.
    """
    require_name(name, "a paper", LONGEST_NAME)
    folder = outputs / PAPERS / name
    if name in [paper.name for paper in list_papers()]:
        raise UsageError(f"The lab has a paper {name!r} already.", "", f"Choose another name; `paper show {name}`.")
    if folder.exists():
        raise UsageError(f"{name!r} is already there.", f"It is in {folder}.", "Choose another name.")
    title = " ".join(title.split())
    notes = "".join(f"\n## {question}\n\n" for question in NOTES_QUESTIONS)
    claims = f"{_paper_block(name, title, link)}\n{_claim_block(_FIRST_CLAIM)}"
    with explained(f"{folder} could not be written."), new_folder(folder) as staging:
        write_atomic(staging / NOTES_FILE, f"# {title or name}\n{notes}".encode())
        write_atomic(staging / CLAIMS_FILE, claims.encode())
    return folder


def write_answer(folder: Path, place: int | None, field: str, words: str, seen: tuple[str, str] | None = None) -> str:
    """Puts an answer into claims.toml and leaves all else there as it is, comments too. -> the answer as it is kept.

    place: of the claim, from 0; None for the paper itself. seen: the claim's id, or the paper's name, and the answer,
    as they were when this was asked.
    UsageError for what cannot be an answer, for a file in which its place is not found or holds something else than
    what was seen: then nothing is written. LabError where nothing can be written.
    """
    words = " ".join(words.split()) if field in _OF_ONE_LINE else words.strip()
    value = _answer(field, words)
    text = text_of(folder / CLAIMS_FILE)
    if seen is not None and seen not in _standing(folder, place, field):
        why = f"{field} in {folder / CLAIMS_FILE} is another now than when it was asked."
        raise UsageError("Another program changed this answer.", why, "Close the questions, and open them again.")
    parse_toml(text, folder / CLAIMS_FILE)  # a broken file is told of by its line
    lines = text.rstrip().split("\n")
    start, end = block_of(lines, place)
    first = next((n for n in range(start + 1, end) if is_field(lines[n], field)), None)
    new = f"{field} = {value}"
    changed = [*lines]
    if first is None:
        changed.insert(start + 1, new)
    else:
        changed[first : end_of(lines, first, end)] = [new]
    _write(folder, text, "\n".join(changed) + "\n", place, field)
    return words


def write_note(folder: Path, place: int, words: str, seen: tuple[str, str]) -> str:
    """Puts what is written under a heading into notes.md, at its end under one that it has not. -> as it is kept.

    place: of the heading, from 0. seen: the heading and what stood under it when this was asked.
    UsageError for what cannot be written there, or where something else stands there than what was seen. LabError
    where nothing can be written.
    """
    path, words = folder / NOTES_FILE, words.strip()
    if not is_unicode(words):
        raise UsageError("This answer cannot be written.", "It has half a character in it.", "Type it again.")
    notes = text_of(path)
    parts, lines = note_parts(notes), notes.rstrip().split("\n")
    new = ["", *words.split("\n"), ""] if words else [""]
    if place < len(parts):
        part = parts[place]
        if (part.question, part.words) != seen:
            why = f"What stands under {seen[0]!r} in {path} is another now than when it was asked."
            raise UsageError("Another program changed this answer.", why, "Close the questions, and open them again.")
        lines[part.start + 1 : part.end] = new
    else:
        lines += ["", f"## {seen[0]}", *new]
    text = "\n".join(lines).rstrip() + "\n"
    wanted = [(part.question, part.words) for part in parts]
    wanted[place : place + 1] = [(seen[0], words)]
    if [(part.question, part.words) for part in note_parts(text)] != wanted:
        why = "One of its lines begins with #, which makes it a heading of the notes."
        raise UsageError("This answer cannot be kept.", why, "Begin that line with another character.")
    _store(path, text)
    return words


def answer_of(about: Paper | Claim, field: str) -> str:
    """An answer as it is typed."""
    value = getattr(about, field)
    if field == "links":
        return " ".join(value)
    if isinstance(about, Paper) and (field, value) in (("year", 0), ("title", about.name)):  # stands there for none
        return ""
    return str(value)


def add_claim(folder: Path, id: str) -> int:
    """Another claim with all its questions, after the last. -> its place. UsageError for an id that is taken."""
    require_name(id, "a claim", LONGEST_NAME)
    text = text_of(folder / CLAIMS_FILE)
    claims = parse_toml(text, folder / CLAIMS_FILE).get("claims", [])
    if id in [row.get("id") for row in claims]:
        raise UsageError(f"There is a claim {id!r} already.", "", "Choose another id.")
    _store(folder / CLAIMS_FILE, f"{text.rstrip()}\n\n{_claim_block(id)}")
    return len(claims)


def _standing(folder: Path, place: int | None, field: str) -> list[tuple[str, str]]:
    """What an answer belongs to, and what it says now; empty where there is no such claim."""
    paper = read_files(folder).paper
    if place is None:
        return [(paper.name, answer_of(paper, field))]
    return [(claim.id, answer_of(claim, field)) for claim in paper.claims[place : place + 1]]


def _write(folder: Path, old: str, new: str, place: int | None, field: str) -> None:
    """Only if nothing but that answer differs: a header inside a long text can be taken for one."""
    path = folder / CLAIMS_FILE
    unfound = UsageError(f"{field} was not written.", f"Its place in {path} was not found.", "Write it in an editor.")
    before = parse_toml(old, path)
    try:
        after = parse_toml(new, path)
        row = after["paper"] if place is None else after["claims"][place]
        other = before["paper"] if place is None else before["claims"][place]
    except (UsageError, LookupError) as error:
        raise unfound from error
    other[field] = row.get(field)
    if before != after:
        raise unfound
    _store(path, new)


def _store(path: Path, text: str) -> None:
    """With the ends of lines that the file has."""
    with explained(f"{path} could not be written."):
        with open_file(path) as file:
            windows = file.readline().endswith(b"\r\n")
        write_atomic(path, (text.replace("\n", "\r\n") if windows else text).encode())


def _answer(field: str, words: str) -> str:
    if not is_unicode(words):
        raise UsageError("This answer cannot be written.", "It has half a character in it.", "Type it again.")
    if field == "year":
        if words and not re.fullmatch("[1-9][0-9]{3}", words):
            raise UsageError(f"{words!r} is not a year.", "", "It has four digits.")
        return words or "0"
    if field == "links":
        links = words.split()
        if wrong := [link for link in links if not re.match(r"https?://\S+$", link)]:
            raise UsageError(f"{wrong[0]!r} is not a link.", "", "One begins with https://; a space separates two.")
        return f"[{', '.join(map(_quoted, links))}]"
    return _quoted(words)


def _quoted(words: str) -> str:
    """A text as TOML has it; of its escapes JSON knows all that are needed but one."""
    return json.dumps(words, ensure_ascii=False).replace("\x7f", "\\u007f")


def _paper_block(name: str, title: str, link: str) -> str:
    known = {"title": title, "links": link}
    rows = [
        f"# {question}\n{field} = {_answer(field, known.get(field, ''))}" for field, question in PAPER_QUESTIONS.items()
    ]
    head = (
        '# Answer between the quotes. A text of several lines stands between three: """like this""".\n'
        f"# What is still missing: llmlab-run paper missing {name}\n"
    )
    return "\n".join([head, "[paper]", *rows, ""])


def _claim_block(id: str) -> str:
    rows = [f'# {question}\n{field} = ""' for field, question in CLAIM_QUESTIONS.items()]
    return "\n".join(
        ["# One such block per claim, each with an id of its own.", "[[claims]]", f'id = "{id}"', *rows, ""]
    )
