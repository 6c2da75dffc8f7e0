"""Examples to fine-tune on: what one is, and how files, tables and the built-in tasks become a list of them.

Four kinds of rows are recognised by their columns:

    messages                          a conversation: [{"role": "user", "content": ...}, ...]
    instruction, input, output        a request, what it is about (may be missing or empty), and the answer
    prompt, completion                the same without an input
    text                              plain text; all of it is learned

A row that fits none of them is a bad line: it is kept with its number and the reason, and the others are read.
No torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.core.errors import LabError, UsageError
from llmlab.core.files import is_unicode, sha256_of
from llmlab.core.progress import Progress
from llmlab.data.built_in_tasks import task_rows
from llmlab.data.example_files import Row, hub_rows, is_hub_name, read_rows

TASKS = "tasks"
EXACT = "exact"  # the one way in which a program checks an answer: see `llmlab.data.answer_scoring`
ROLES = ("system", "user", "assistant")
TEXT = "text"  # the role of the one message of a row that is plain text
_COLUMNS = "messages, or instruction and output (and input), or prompt and completion, or text"
# Other names of the same columns, in data sets that are widely used (Alpaca, Dolly).
_INPUTS = ("input", "context")
_OUTPUTS = ("output", "response")
_COMPLETIONS = ("completion", "response")
_BAD_NAMED = 3  # bad lines that an error names


@dataclass(frozen=True)
class Message:
    """One turn. role: system, user, assistant, or text."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A conversation to learn from. number: its line in a .jsonl, else its row, from 1. check: `exact` or empty."""

    number: int
    messages: tuple[Message, ...]
    check: str = ""

    @property
    def is_text(self) -> bool:
        """Whether it is plain text, all of which is trained on."""
        return self.messages[0].role == TEXT

    @property
    def question(self) -> str:
        """What the last message answers, or asks; the text itself where nobody asks."""
        asked = [message.content for message in self.messages if message.role == "user"]
        return asked[-1] if asked else self.messages[0].content

    @property
    def answer(self) -> str:
        """The answer at the end; empty where there is none."""
        last = self.messages[-1]
        return last.content if last.role == "assistant" else ""


@dataclass(frozen=True)
class BadLine:
    """A line or row that could not be used. why: a sentence."""

    number: int
    why: str


@dataclass(frozen=True)
class Source:
    """What was read. origin: where from, for people. sha256: of the file's bytes, or of the rows of anything else."""

    name: str
    origin: str
    examples: tuple[Example, ...]
    bad: tuple[BadLine, ...]
    sha256: str


def read_source(source: str, progress: Progress, max_examples: int = 0) -> Source:
    """All examples of `tasks`, of a .jsonl, .csv or .parquet file, or of a data set of the hub (`owner/name`).

    max_examples: read no more than so many; 0 means all. UsageError when nothing bears that name, LabError when nothing
    in it can be learned from. Cancelled when `progress` says so.
    """
    examples: list[Example] = []
    bad: list[BadLine] = []
    seen: set[str] = set()
    origin, rows, total = _open(source, max_examples, progress)
    digest = hashlib.sha256()
    for number, row in rows:
        progress("Reading examples", len(examples), total)
        try:
            if isinstance(row, str):
                raise ValueError(row)
            seen.update(str(name) for name in row)
            example = example_from(number, row)
        except ValueError as error:
            bad.append(BadLine(number, str(error)))
            continue
        digest.update(content_of(example).encode("utf-8", "surrogatepass"))
        examples.append(example)
        if len(examples) == max_examples:
            break
    if not examples:
        raise _nothing(source, bad, seen)
    path = Path(source)
    sha256 = sha256_of(path) if source != TASKS and path.is_file() else digest.hexdigest()
    return Source(source, origin, tuple(examples), tuple(bad), sha256)


def example_from(number: int, row: Mapping[str, Any]) -> Example:
    """The example in a row. ValueError with a sentence when there is none."""
    names = {str(name).strip().lower(): value for name, value in row.items() if value is not None}
    check = str(names.get("check", ""))
    if check not in ("", EXACT):
        raise ValueError(f"Its check is {check!r}; it can only be {EXACT!r}.")
    example = Example(number, _messages(names), check)
    if check and not example.answer:
        raise ValueError("Its answer is to be checked, but it does not end with one.")
    return example


def _messages(names: Mapping[str, Any]) -> tuple[Message, ...]:
    """The turns of a row, whichever columns it has."""
    if "messages" in names:
        return _conversation(names["messages"])
    if "instruction" in names:
        request = _text(names, "instruction")
        about = next((_text(names, name, needed=False) for name in _INPUTS if name in names), "")
        asked = f"{request}\n\n{about}" if about.strip() else request
        return _exchange(asked, _first(names, _OUTPUTS))
    if "prompt" in names:
        return _exchange(_text(names, "prompt"), _first(names, _COMPLETIONS))
    if "text" in names:
        return (Message(TEXT, _text(names, "text")),)
    raise ValueError(f"It has none of the columns {_COLUMNS}.")


def content_of(example: Example) -> str:
    """The example as one text that two examples share only when they say the same."""
    return "".join(f"{message.role}\0{message.content}\0" for message in example.messages) + "\1"


def split_examples(examples: Sequence[Example], val_fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Train and held out, each in the order they came. Drawn by the hash of (seed, content).

    So it does not depend on the order of the file, and examples that say the same are on one side. Both sides have
    at least one; LabError when all say the same.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        key = hashlib.sha256(f"{seed}\0{content_of(example)}".encode("utf-8", "surrogatepass")).hexdigest()
        groups.setdefault(key, []).append(example)
    if len(groups) < 2:
        raise LabError(
            f"{len(examples)} usable example(s) cannot be split into a training and a held-out part.",
            "At least two that differ are needed: one is kept back, to measure on what the model never read.",
            "Add examples.",
        )
    wanted = max(1, round(val_fraction * len(examples)))
    out: set[str] = set()
    count = 0
    for key in sorted(groups)[:-1]:
        if count >= wanted:
            break
        out.add(key)
        count += len(groups[key])
    held_out = {id(example) for key in out for example in groups[key]}
    return (
        [example for example in examples if id(example) not in held_out],
        [example for example in examples if id(example) in held_out],
    )


def _open(source: str, max_examples: int, progress: Progress) -> tuple[str, Iterator[tuple[int, Row]], int]:
    """Where the examples come from in words, the rows, and how many (0 if unknown)."""
    if source == TASKS:
        made = task_rows()
        return "made by the lab", ((number, row) for number, row in enumerate(made, start=1)), len(made)
    path = Path(source).expanduser()
    if source and path.exists():
        return str(path.resolve()), read_rows(path), 0
    if is_hub_name(source):
        progress(f"Asking the hub for {source}", 0, 0)
        return (
            f"https://huggingface.co/datasets/{source.partition(':')[0]}",
            hub_rows(source, streamed=max_examples > 0),
            0,
        )
    raise UsageError(
        f"There are no examples {source!r}.",
        "It is neither a file here nor the name of a data set of the hub (owner/name).",
        f"Name a .jsonl, .csv or .parquet file, or take {TASKS!r}, which is built in.",
    )


def _nothing(source: str, bad: Sequence[BadLine], seen: set[str]) -> LabError:
    if not bad:
        return LabError(f"{source} is empty.", "It holds not one example.", "Choose another file.")
    named = "; ".join(f"line {line.number:,}: {line.why.rstrip('.')}" for line in bad[:_BAD_NAMED])
    columns = f" Its columns are {', '.join(sorted(seen))}." if seen else ""
    return LabError(
        f"Nothing in {source} can be learned from.",
        f"None of its {len(bad):,} line(s) can be used ({named}).{columns}",
        f"Give each line {_COLUMNS}.",
    )


def _conversation(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError("Its messages are not a list of turns.")
    messages = []
    for place, turn in enumerate(value, start=1):
        if not isinstance(turn, Mapping):
            raise ValueError(f"Message {place} is not an object with a role and a content.")
        role, content = turn.get("role"), turn.get("content")
        if role not in ROLES:
            raise ValueError(f"Message {place} has the role {role!r}; it can be {', '.join(ROLES)}.")
        if role == "system" and place > 1:
            raise ValueError(f"Message {place} is the system's, which can only be the first.")
        if not isinstance(content, str):
            raise ValueError(f"The content of message {place} is not text.")
        _check_unicode(content, f"The content of message {place}")
        if role == "assistant" and not content.strip():
            raise ValueError(f"The answer in message {place} is empty.")
        messages.append(Message(role, content))
    if all(message.role != "assistant" for message in messages):
        raise ValueError("It has no answer: no message of the assistant.")
    return tuple(messages)


def _exchange(asked: str, answer: str) -> tuple[Message, ...]:
    if not answer.strip():
        raise ValueError("Its answer is empty.")
    return Message("user", asked), Message("assistant", answer)


def _first(names: Mapping[str, Any], columns: Sequence[str]) -> str:
    for column in columns:
        if column in names:
            return _text(names, column)
    raise ValueError(f"It has no answer: no {' or '.join(columns)}.")


def _text(names: Mapping[str, Any], column: str, needed: bool = True) -> str:
    value = names[column]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)  # the answer to a sum, say, which JSON and Parquet may hold as a number
    if not isinstance(value, str):
        raise ValueError(f"Its {column} is not text.")
    if needed and not value.strip():
        raise ValueError(f"Its {column} is empty.")
    _check_unicode(value, f"Its {column}")
    return value


def _check_unicode(text: str, what: str) -> None:
    if not is_unicode(text):
        raise ValueError(f"{what} holds half a character.")
