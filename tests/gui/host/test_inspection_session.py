"""The store of the inspection panels: models opened, prompts cut and looked at, pointless work dropped, crashes met."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QCoreApplication
from pytestqt.qtbot import QtBot
from windows import FAKE_HOST

from llmlab.core.errors import LabError
from llmlab.inspection.archive import Archive, write_archive
from llmlab_gui.host.inspection_plan import PATTERNS_LIMIT, what_to_ask
from llmlab_gui.host.process import ModelHost, Request
from llmlab_gui.host.requests import ArchiveFolder
from llmlab_gui.host.session import InspectionSession


@pytest.fixture
def session(qtbot: QtBot, tmp_path: Path) -> Iterator[InspectionSession]:
    session = InspectionSession(tmp_path, host=ModelHost(command=FAKE_HOST))
    session.look.need("panel", ("heads",))
    yield session
    session.shutdown()


def opened(qtbot: QtBot, session: InspectionSession, reference: str = "small") -> InspectionSession:
    with qtbot.waitSignal(session.about_changed):
        session.open(reference)
    return session


def inspected(qtbot: QtBot, session: InspectionSession, text: str = "When Mary and John went") -> Archive:
    session.set_prompt(text, session.beginning, at_once=True)
    qtbot.waitUntil(lambda: holds(session, text))
    assert session.look.archive is not None
    return session.look.archive


def holds(session: InspectionSession, text: str) -> bool:
    found = session.look.archive
    return found is not None and found.metadata.question["text"] == text


def asked(qtbot: QtBot, session: InspectionSession, question: str, **values: Any) -> Archive:
    found: list[Archive] = []
    session.ask(question, values, found.append)
    qtbot.waitUntil(lambda: bool(found))
    return found[0]


def test_a_model_and_a_prompt_make_an_inspection(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session)
    assert session.about is not None
    assert (session.about.n_layer, session.about.n_head) == (3, 4)
    found = inspected(qtbot, session)
    assert [token.text for token in session.tokens] == ["When", " Mary", " and", " John", " went"]
    assert found.metadata.tokens == [token.text for token in session.tokens]
    assert found["heads/mosaic"].shape == (3, 4, 5, 5)
    assert session.working is None


def test_what_is_known_of_a_model_is_stale_as_soon_as_another_is_chosen_also_when_its_process_dies(
    qtbot: QtBot, session: InspectionSession
) -> None:
    opened(qtbot, session)
    found = inspected(qtbot, session)
    answer = asked(qtbot, session, "pattern", layer=0, head=0)
    for reference in ("error", "crash"):
        session.open(reference)
        for archive in (found, answer, None):  # None: the tokens
            assert session.choice.stale(archive) == "of small"
        qtbot.waitUntil(lambda: session.choice.refused)
        assert session.choice.stale(found) == "of small"
        session.choice.stay()
        assert session.choice.stale(found) == session.choice.stale() == ""
    session.open("error")
    qtbot.waitUntil(lambda: session.choice.refused)
    again = inspected(qtbot, session, "When Mary")  # whoever types turns to the model that is open
    assert session.choice.stale(again) == session.choice.stale() == ""
    assert session.choice.stale(found) == "of another prompt"
    assert session.choice.stale(found, prompt=False) == ""
    opened(qtbot, session, "small@live")
    assert session.choice.stale(again) == "of small"
    qtbot.waitUntil(lambda: session.working is None and session.look.archive not in (None, again))


def test_typing_asks_once_when_it_pauses(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session)
    answers: list[Archive | None] = []
    session.look.changed.connect(lambda: answers.append(session.look.archive))
    for end in range(1, 12):
        session.set_prompt("When Mary w"[:end], False)
    qtbot.waitUntil(lambda: holds(session, "When Mary w"))
    assert len(answers) == 1


def test_a_prompt_replaces_the_inspection_that_runs(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session)
    session.set_prompt("slow one", False, at_once=True)
    qtbot.waitUntil(lambda: session.working is not None and session.working.share == 0.25)
    assert session.working is not None
    assert session.working.eta == 30.0
    inspected(qtbot, session, "a quick one")
    assert session.look.trouble is None


def test_cancelling_says_so_and_offers_to_look_again(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session)
    session.set_prompt("slow one", False, at_once=True)
    qtbot.waitUntil(lambda: session.working is not None and session.working.share is not None)
    session.cancel()
    assert session.working is None
    assert session.look.trouble is not None
    assert "cancelled" in session.look.trouble.what
    inspected(qtbot, session, "another")


def test_a_crash_is_told_and_the_next_prompt_is_answered(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session)
    session.set_prompt("crash now", False, at_once=True)
    qtbot.waitUntil(lambda: session.look.trouble is not None)
    assert session.look.trouble is not None
    assert "MemoryError" in session.look.trouble.why
    assert session.about is not None  # the model is still the active one: the new process opens it again
    inspected(qtbot, session, "a calm one")
    assert session.look.trouble is None


def test_a_model_that_cannot_be_opened_leaves_the_one_before(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session)
    errors: list[LabError] = []
    session.failed.connect(errors.append)
    for bad in ("error/none", "crash/none"):
        errors.clear()
        session.open(bad)
        qtbot.waitUntil(lambda: bool(errors))
        assert session.about.reference == "small"
        assert not session.opening
    inspected(qtbot, session)


def test_opening_can_be_cancelled(qtbot: QtBot, session: InspectionSession) -> None:
    session.open("slow/model")
    qtbot.waitUntil(lambda: session.working is not None and session.working.share == 0.25)
    assert session.opening
    session.cancel()
    assert not session.opening
    assert session.working is None
    assert [model.reference for model in session.recent.models] == ["slow/model"]  # to be found again
    assert session.recent.open == ""  # it never was
    opened(qtbot, session)


def test_the_beginning_is_read_only_by_models_that_have_one(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session)
    session.set_prompt("a b", True, at_once=True)
    qtbot.waitUntil(lambda: holds(session, "a b"))
    assert [token.text for token in session.tokens] == ["<s>", "a", " b"]
    assert session.look.archive.metadata.tokens == ["<s>", "a", " b"]
    opened(qtbot, session, "plain")
    qtbot.waitUntil(lambda: session.look.archive is not None)
    assert not session.beginning
    assert [token.text for token in session.tokens] == ["a", " b"]


def test_another_model_reads_the_same_prompt(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session)
    first = inspected(qtbot, session, "a b")
    opened(qtbot, session, "other")
    qtbot.waitUntil(lambda: session.look.archive is not None and session.look.archive is not first)
    assert session.look.archive.metadata.model == "other"


def test_a_panel_that_opens_later_gets_what_it_needs(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session)
    assert "lens/rank" not in inspected(qtbot, session)
    session.look.need("lens", ("lens",))
    qtbot.waitUntil(lambda: session.look.archive is not None and "lens/rank" in session.look.archive)
    assert "heads/mosaic" in session.look.archive
    session.look.need("lens", ())
    assert "lens/rank" not in inspected(qtbot, session, "another")


def test_answers_to_an_earlier_prompt_are_dropped(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session)
    inspected(qtbot, session)
    late: list[Archive] = []
    session.ask("pattern", {"layer": 1, "head": 2}, late.append)
    inspected(qtbot, session, "something else")
    assert not late
    assert asked(qtbot, session, "pattern", layer=1, head=2)["pattern"].shape == (2, 2)


def test_of_questions_with_one_key_the_last_is_answered(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session)
    inspected(qtbot, session)
    answers: list[dict[str, Any]] = []
    for head in range(4):
        session.ask("pattern", {"layer": 0, "head": head}, lambda a: answers.append(a.metadata.question), key="pattern")
    qtbot.waitUntil(lambda: session.working is None and bool(answers))
    assert answers[-1]["head"] == 3
    assert len(answers) < 4


def test_without_a_model_or_a_prompt_the_reason_is_told(qtbot: QtBot, session: InspectionSession) -> None:
    errors: list[LabError] = []
    assert session.ask("pattern", {"layer": 0, "head": 0}, lambda _: None, errors.append) is None
    opened(qtbot, session)
    assert session.ask("pattern", {"layer": 0, "head": 0}, lambda _: None, errors.append) is None
    assert ["No model" in errors[0].what, "prompt is empty" in errors[1].what] == [True, True]


def test_a_prompt_beyond_the_context_is_not_asked(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session)
    session.set_prompt("word " * 70, False, at_once=True)
    qtbot.waitUntil(lambda: session.look.trouble is not None)
    assert "longer than small can read" in session.look.trouble.what


def test_a_live_model_is_looked_at_again_when_it_has_learned(qtbot: QtBot, tmp_path: Path) -> None:
    step = {"bar": 100}
    session = InspectionSession(tmp_path, host=ModelHost(command=FAKE_HOST), step_of=step.get)
    session.look.need("panel", ("heads",))
    session.look.following.set(True, 0.2)
    opened(qtbot, session, "bar@live")
    first = inspected(qtbot, session)
    for _ in range(2):
        qtbot.waitSignal(session.look.following.due).wait()
    assert session.look.archive is first  # nothing was learned
    worked: list[object] = []
    session.working_changed.connect(lambda: worked.append(session.working))
    step["bar"] = 120
    qtbot.waitUntil(lambda: session.look.archive is not None and session.look.archive is not first)
    assert not worked  # what comes every few seconds is not spoken of
    session.look.following.set(False)
    assert not session.look.following._timer.isActive()
    session.shutdown()


def test_what_was_seen_last_of_a_live_model_stays_when_it_answers_no_more(qtbot: QtBot, tmp_path: Path) -> None:
    step = {"bar": 100}
    session = InspectionSession(tmp_path, host=ModelHost(command=FAKE_HOST), step_of=step.get)
    session.look.need("panel", ("heads",))
    opened(qtbot, session, "bar@live")
    last = inspected(qtbot, session)
    errors: list[LabError] = []
    session.look.live_failed.connect(errors.append)
    session.host._process.kill()
    qtbot.waitUntil(lambda: session.host._process is None)
    session.host._command = ["/nonexistent/python"]
    session.look.following.set(True, 0.2)
    step["bar"] = 120
    qtbot.waitUntil(lambda: bool(errors))
    assert not session.look.following._timer.isActive()
    assert len(errors) == 1
    assert session.look.archive is last
    assert session.look.trouble is None
    session.shutdown()


def test_an_archive_is_deleted_with_the_last_look_at_it(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session)
    path = inspected(qtbot, session, "first").path
    assert path.exists()
    inspected(qtbot, session, "second")
    assert not path.exists()
    folder = path.parent
    session.shutdown()
    assert not folder.exists()


def test_what_a_killed_window_left_is_removed_and_what_others_use_is_not(qtbot: QtBot, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    temporary = Path(tempfile.gettempdir())
    left, used = temporary / f"llmlab-inspection-{gone.pid}-x", temporary / f"llmlab-inspection-{os.getpid()}-x"
    for folder in (left, used):
        folder.mkdir()
    folder_of_ours = ArchiveFolder()
    try:
        folder_of_ours.new_path("inspect")
        assert not left.exists()
        assert used.exists()
    finally:
        folder_of_ours.remove()
        used.rmdir()


def test_hover_and_selection_reach_everyone_once(qtbot: QtBot, session: InspectionSession) -> None:
    heard: list[Any] = []
    session.hover_changed.connect(heard.append)
    session.selection_changed.connect(lambda: heard.append(session.selection))
    session.hover(3)
    session.hover(3)
    session.select(layer=1, head=2)
    session.select(layer=1)
    assert heard == [3, session.selection]


def test_long_prompts_leave_the_patterns_of_all_heads_out(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session)
    about = session.about
    assert about is not None
    wanted = ("heads", "attention")
    assert what_to_ask(about, 100, wanted) == (("attention", "heads"), [])
    what, said = what_to_ask(about, 4000, wanted)
    assert about.pattern_bytes(4000) > PATTERNS_LIMIT
    assert what == ("heads",)
    assert "768 MB" in said[0]


def test_what_a_model_refuses_is_not_asked(qtbot: QtBot, session: InspectionSession) -> None:
    opened(qtbot, session, "blind")
    assert what_to_ask(session.about, 10, ("heads", "lens"))[0] == ("lens",)


@pytest.fixture
def endless_lens(session: InspectionSession, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Aspects that were asked for, one list a question. A lens takes until it is cancelled."""
    monkeypatch.setattr("llmlab_gui.host.inspection_plan._QUICK_LENS", 0)
    ask, told = session.host.ask, list[list[str]]()

    def asked(model: str, question: str, values: Mapping[str, Any], out: Path) -> Request:
        told.append(list(values.get("what", [question])))
        return ask(model, question, {**values, "text": "slow"} if "lens" in told[-1] else values, out)

    monkeypatch.setattr(session.host, "ask", asked)
    return told


def test_what_is_slow_comes_after_the_rest_and_is_joined_to_it(
    qtbot: QtBot, session: InspectionSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmlab_gui.host.inspection_plan._QUICK_LENS", 0)
    session.look.need("lens", ("lens",))
    opened(qtbot, session)
    parts: list[set[str]] = []
    session.look.changed.connect(lambda: parts.append({name.partition("/")[0] for name in session.look.archive}))
    inspected(qtbot, session)
    qtbot.waitUntil(lambda: len(parts) == 2)
    assert parts == [{"heads"}, {"heads", "lens"}]
    found = session.look.archive
    assert found is not None
    assert found["heads/entropy"].shape == found.shape("heads/entropy") == (3, 4)
    assert found["lens/rank"].shape == (7, 5)
    assert len(found) == len(list(found))


def test_a_question_that_someone_waits_for_goes_before_what_is_slow(
    qtbot: QtBot, session: InspectionSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmlab_gui.host.inspection_plan._QUICK_LENS", 0)
    opened(qtbot, session)
    inspected(qtbot, session)
    session.look.need("lens", ("lens",))
    order: list[str] = []
    session.look.changed.connect(lambda: order.append("lens"))
    session.ask("pattern", {"layer": 0, "head": 0}, lambda _: order.append("pattern"))
    qtbot.waitUntil(lambda: len(order) == 2)
    assert order == ["pattern", "lens"]


def test_a_panel_that_comes_into_sight_does_not_wait_for_what_is_slow(
    qtbot: QtBot, session: InspectionSession, endless_lens: list[list[str]]
) -> None:
    session.look.need("panel", ())
    session.look.need("lens", ("lens",))
    opened(qtbot, session)
    session.set_prompt("the king", False, at_once=True)
    qtbot.waitUntil(lambda: endless_lens == [["lens"]])
    session.look.need("panel", ("heads",))
    qtbot.waitUntil(lambda: endless_lens == [["lens"], ["heads"], ["lens"]])
    assert session.look.archive is not None
    assert "heads/mosaic" in session.look.archive


@pytest.mark.parametrize("asked", ["open", "compare", "evolve"])
def test_what_someone_asks_for_does_not_wait_for_what_is_slow(
    qtbot: QtBot, session: InspectionSession, endless_lens: list[list[str]], asked: str
) -> None:
    opened(qtbot, session)
    inspected(qtbot, session)
    session.look.need("lens", ("lens",))
    qtbot.waitUntil(lambda: endless_lens == [["heads"], ["lens"]])
    answers: list[Archive] = []
    if asked == "open":
        with qtbot.waitSignal(session.about_changed):
            session.open("another")
    elif asked == "compare":
        session.compare("small", "small", {}, answers.append)
    else:
        session.evolve("small", {}, answers.append)
    qtbot.waitUntil(lambda: asked == "open" or len(answers) == 1)
    qtbot.waitUntil(lambda: endless_lens[-1] == ["lens"] and len(endless_lens) > 2)


def test_what_is_shut_down_in_the_midst_of_a_question_starts_no_other_process(
    qtbot: QtBot, session: InspectionSession, endless_lens: list[list[str]]
) -> None:
    session.look.need("lens", ("lens",))
    opened(qtbot, session)
    inspected(qtbot, session)
    qtbot.waitUntil(lambda: session.working is not None and endless_lens[-1] == ["lens"])
    session.shutdown()
    QCoreApplication.processEvents()
    assert session.host._process is None


def test_an_answer_that_was_on_its_way_when_nobody_wanted_it_any_more_is_thrown_away(
    qtbot: QtBot, session: InspectionSession
) -> None:
    opened(qtbot, session)
    inspected(qtbot, session)
    late: list[Archive] = []
    request = session.ask("pattern", {"layer": 0, "head": 0}, late.append)
    assert request is not None
    path = session._requests._pending[request].path
    assert path is not None
    session.cancel(request)
    path.write_bytes(b"")
    answer = {"id": max(session.host._waiting), "event": "answered", "path": str(path)}
    session.host._answer(json.dumps(answer).encode())
    assert not late
    assert not path.exists()


def test_a_part_that_was_on_its_way_when_nobody_wanted_it_any_more_is_thrown_away(
    qtbot: QtBot, session: InspectionSession, endless_lens: list[list[str]]
) -> None:
    opened(qtbot, session)
    inspected(qtbot, session)
    before = session.look.archive
    session.look.need("lens", ("lens",))
    qtbot.waitUntil(lambda: endless_lens == [["heads"], ["lens"]])
    (request,) = session._requests._pending
    path = session._requests._pending[request].path
    assert path is not None
    part = path.with_suffix(".1.safetensors")
    write_archive(part, {"lens/rank": np.ones((7, 5), np.int32)}, before.metadata)
    session.set_prompt("another one", False)
    session.host._answer(json.dumps({"id": max(session.host._waiting), "event": "part", "path": str(part)}).encode())
    assert session.look.archive is before
    assert not part.exists()
