"""What version 0.4 made opens unchanged: `made_by_0.4.tar.xz`, a small lab with one of every format.

In it: runs (finished and resumed, branched, killed, fine-tuned by LoRA, QLoRA and in full; tokenizers char and bpe),
experiments, checks of papers, a notebook, a queue, files of inspections, an adapter; `make.py`, which made them with
0.4's own commands and says how to do so again; `said.json`, what 0.4 then said of each. Numbers, states and names must
be the same today, and so must every sentence that stands in a file. Sentences that the lab only puts together to print
may be worded anew, and more may be said than was.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import all_events, train_here

from llmlab.cli.main import main
from llmlab.inspection.archive import read_archive
from llmlab.jobs.launcher import prepare_resume
from llmlab.jobs.queue import RunQueue
from llmlab.store.run_folder import RunFolder

# What has another name today: of settings, and of what experiments write.
RENAMED = {"eval_windows": "eval_sequences", "arms": "trials", "arm": "trial"}
ARCHIVE = Path(__file__).with_name("made_by_0.4.tar.xz")
with tarfile.open(ARCHIVE) as _packed:
    SAID = json.load(_packed.extractfile("said.json"))
READ = {one["words"]: one["said"] for one in SAID["asked"]}
REPORTS = [words for words in READ if words.startswith("experiment report")]
# Of floats that are computed anew, on other processors and with other versions of torch.
RELATIVE, ABSOLUTE = 1e-3, 1e-5
# How long a command took; the version of a format in which an entry would be written today.
OF_TODAY = {"seconds", "format"}
# Measured anew by what trains.
MEASURED = OF_TODAY | {"time", "active_seconds", "eta_seconds", "tokens_per_second", "memory_bytes", "mfu", "pid"}
MEASURED |= {"peak_flops", "versions"}  # whose machine is another


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab, in another folder than it was made in, for whoever only reads."""
    return _unpacked(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def lab(shared_lab: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMLAB_OUTPUTS", str(shared_lab / "outputs"))
    return shared_lab


@pytest.fixture
def own_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lab, for one test that changes it."""
    monkeypatch.setenv("LLMLAB_OUTPUTS", str(tmp_path / "outputs"))
    return _unpacked(tmp_path)


@pytest.fixture(scope="module")
def written(shared_lab: Path) -> set[str]:
    """Every text in a file of the outputs folder."""
    files = [path for path in (shared_lab / "outputs").rglob("*.json*") if path.is_file()]
    return {text for path in files for text in _texts(_parsed(path.read_text(encoding="utf-8")))}


def test_it_was_made_by_0_4() -> None:
    assert SAID["version"] == "0.4.0"


@pytest.mark.parametrize("command", [words for words in READ if words not in REPORTS])
def test_a_command_says_what_it_said(
    command: str, lab: Path, written: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _differences(READ[command], _said_now(command, lab, capsys), written, OF_TODAY) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", REPORTS)
def test_a_report_is_written_anew_with_the_same_numbers(
    command: str, own_lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = own_lab / "outputs/experiments" / command.split()[-1] / "report.md"
    before = _numbers(report)
    report.unlink()
    assert _said_now(command, own_lab, capsys) == READ[command]
    assert len(before) > 4
    assert _numbers(report) == before


def test_results_have_the_same_tensors(lab: Path) -> None:
    assert len(SAID["tensors"]) >= 6
    for name, tensors in SAID["tensors"].items():
        found = {name: _described(values) for name, values in read_archive(lab / name).items()}
        assert found == tensors, name


def test_a_finished_run_goes_on_as_it_did(own_lab: Path, written: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    (resume, events), (show, about) = ((one["words"], one["said"]) for one in SAID["after"])
    assert (resume, show) == ("resume bar --steps 36", "show bar")
    run = RunFolder(own_lab / "outputs/pretraining/bar")
    before = len(all_events(run))
    prepare_resume(run, {"train.steps": 36})
    train_here(run)
    # A checkpoint's state and settings say more than in 0.4, so it has more bytes.
    assert _differences(events, all_events(run)[before:], written, MEASURED | {"bytes"}) == []
    # The checkpoint at which it had ended before stays now, as one at its interval.
    assert _differences(about, _said_now(show, own_lab, capsys), written, MEASURED | {"bytes", "checkpoints"}) == []


def test_a_run_that_was_killed_goes_on_from_its_checkpoint(own_lab: Path) -> None:
    run = RunFolder(own_lab / "outputs/pretraining/killed")
    assert run.status().state == "interrupted"
    saved = max(int(path.name.removeprefix("step-")) for path in run.checkpoints.iterdir())
    assert max(event["step"] for event in all_events(run)) > saved  # some are void
    prepare_resume(run, {"train.steps": saved + 1})
    train_here(run)
    assert run.status().state == "finished"
    assert max(event["step"] for event in all_events(run)) == saved + 1


def test_the_queue_waits_as_it_did(lab: Path) -> None:
    queue = RunQueue(lab / "outputs").read()
    assert queue.paused
    waiting = [(item.name, item.track, item.preset, item.seconds) for item in queue.items]
    assert waiting == [("later", "pretraining", "baby", 60.0), ("later-tuned", "finetuning", "", None)]
    assert queue.items[1].settings.model.base == "base@final"


def _unpacked(folder: Path) -> Path:
    with tarfile.open(ARCHIVE) as packed:
        packed.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.3 has none
        packed.extractall(folder)
    return folder


def _said_now(command: str, lab: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command prints with --json, with the lab's folder named as it was."""
    words = [word.replace("{lab}", str(lab)) for word in shlex.split(command)]
    code = main([*words, "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return _parsed(printed.out.replace(str(lab), "/lab"))


def _differences(before: Any, now: Any, written: set[str], apart: set[str], where: str = "") -> list[str]:
    """Where `now` lacks or contradicts what was said before, as lines. apart: keys whose values are not compared."""
    if isinstance(before, dict) and isinstance(now, dict):
        before, now = ({RENAMED.get(key, key): value for key, value in one.items()} for one in (before, now))
        lines = [f"{where}/{key} is missing" for key in before if key not in now]
        both = [key for key in before if key in now and key not in apart]
        return lines + [
            line for key in both for line in _differences(before[key], now[key], written, apart, f"{where}/{key}")
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [line for n, (a, b) in pairs for line in _differences(a, b, written, apart, f"{where}/{n}")]
    if isinstance(before, str) and " " in before.strip() and before not in written:  # a sentence of the lab
        return [] if isinstance(now, str) and now else [f"{where} was {before!r}, is {now!r}"]
    if isinstance(before, float) and isinstance(now, float):
        same = math.isclose(before, now, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    else:
        same = before == now
    return [] if same else [f"{where} was {before!r:.300}, is {now!r:.300}"]


def _numbers(report: Path) -> list[str]:
    """Those of a report's tables."""
    rows = [line for line in report.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [number for row in rows for number in re.findall(r"\d[\d.e+-]*", row)]


def _described(values: Any) -> list[object]:
    """A tensor's type, shape and hash, as said.json has them."""
    return [str(values.dtype), [*values.shape], hashlib.sha256(values.tobytes()).hexdigest()[:16]]


def _parsed(text: str) -> Any:
    """One JSON document, or the list of those on each line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)
