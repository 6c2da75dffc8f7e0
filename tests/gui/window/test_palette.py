"""The command palette finds what is meant from a few letters, or by another word for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeRun
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.setting_info import describe
from llmlab.core.settings import PretrainSettings
from llmlab_gui.host.messages import ModelAbout
from llmlab_gui.host.selection import ChosenIntervention
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.pages.library import load_all
from llmlab_gui.pages.places import LEARN, LOOK_INSIDE, TRAIN, WRITE
from llmlab_gui.window.commands import _ALSO, search_pages
from llmlab_gui.window.main_window import MainWindow
from llmlab_gui.window.palette import Command, CommandPalette, Finder, score

TEXTS = ("Train", "Pause", "Reset layout", "Learning rate & gradient norm", "Loss", "Open run 20261124-baby", "Log")


def found(wanted: str) -> list[str]:
    return [command.text for command in Finder([Command(text, lambda: None) for text in TEXTS]).find(wanted)]


@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        ("train", "Train"),
        ("reset", "Reset layout"),
        ("rl", "Reset layout"),
        ("lr", "Learning rate & gradient norm"),
        ("grad", "Learning rate & gradient norm"),
        ("lernin rate", "Learning rate & gradient norm"),
        ("lo", "Log"),
        ("los", "Loss"),
        ("baby", "Open run 20261124-baby"),
        ("PAUSE", "Pause"),
    ],
)
def test_a_few_letters_find_the_command(wanted: str, first: str) -> None:
    assert found(wanted)[0] == first


def test_letters_that_are_not_there_find_nothing() -> None:
    assert found("xyzzy") == []
    assert score("esol", "lose") is None  # the order matters


def test_an_empty_line_offers_everything_in_its_order() -> None:
    assert found("") == list(TEXTS)


def test_words_and_beginnings_come_before_scattered_letters() -> None:
    commands = [Command(text, lambda: None) for text in ("Delete early ablation", "Headlines", "Dead ends", "A head")]
    assert [command.text for command in Finder(commands).find("head")][:2] == ["A head", "Headlines"]
    assert [command.text for command in Finder(commands).find("dea")] == ["Dead ends", "Delete early ablation"]


def calls(work: Callable[[], object]) -> int:
    """How many functions `work` calls, Python's own included."""
    made = 0

    def count(_frame: object, event: str, _what: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return made


def test_a_key_looks_words_up_and_does_not_read_a_thousand_texts_anew() -> None:
    """What was typed last, `score` on each text for each letter, made some hundred calls a text."""
    runs = [Command(f"20261124-1505-baby-shakespeare-{n} (finished)", lambda: None, "Open run") for n in range(1000)]
    finder = Finder([*runs, Command("Loss", lambda: None), Command("Fine-tune", lambda: None)])
    assert calls(lambda: finder.find("loss")) < 30 * len(runs)  # few have the word: the letters are looked for, once
    assert calls(lambda: finder.by_words("loss")) < 100
    for wanted in ("s", "sh", "shak", "baby fin", "shakespeare-99"):
        assert calls(lambda wanted=wanted: finder.find(wanted)) < 12 * len(runs), wanted


@pytest.mark.qt_log_ignore("This plugin does not support")
def test_the_palette_runs_what_is_chosen_by_keyboard(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    window.palette_action.trigger()
    palette = window.findChild(CommandPalette)
    assert palette is not None
    room, letters = palette.list.itemDelegate().kind_width, palette.list.fontMetrics()
    assert all(letters.horizontalAdvance(command.kind) + 8 < room for command in window.menus.commands())
    qtbot.keyClicks(palette.line, "show samples")
    qtbot.keyClick(palette.line, Qt.Key.Key_Return)
    assert window.docks["samples"].isVisible()
    assert not window.docks["samples"].visibleRegion().isEmpty()


def test_the_palette_offers_panels_runs_presets_pages_and_actions(same_window: MainWindow) -> None:
    kinds = {command.kind for command in same_window.menus.commands()}
    assert {"Do", "Show", "Workspace", "Theme", "Set up", "Paper", "Learn", "Setting", "Term"} <= kinds


ASKED = {  # what people type, and what must be among the first rows
    "setup": {("Show", "Set-up")},
    "kv cache": {("Term", "key-value cache"), ("Setting", "n_kv_head")},
    "adamw": {("Term", "AdamW"), ("Learn", "Optimisation"), ("Setting", "weight_decay")},
    "bigram": {("Term", "bigram")},
    "previous token": {("Term", "previous-token head"), ("Learn", "Attention patterns"), ("Show", "Attention")},
    "notation": {("Learn", "Symbols and shapes")},
    "softmax": {("Term", "softmax"), ("Learn", "Attention")},
    "remove a head": {("Show", "Interventions"), ("Learn", "Ablation and patching")},
    "temperature": {("Term", "temperature"), ("Setting", "temperature"), ("Show", "Write")},
    "overfitting": {("Term", "overfitting"), ("Show", "Loss"), ("Setting", "early_stop")},
    "attention sink": {("Term", "attention sink")},
    "lora": {("Term", "LoRA"), ("Show", "Fine-tune set-up"), ("Show", "Adapter")},
    "dark": {("Theme", "Dark")},
    "make the window dark": {("Theme", "Dark")},
    "open model": {("Do", "Choose a model")},
    "open a model from hugging face": {("Do", "Choose a model")},
    "dropout": {("Setting", "dropout")},
    "ablate heads": {("Show", "Interventions")},
    "initial loss": {("Learn", "The loss at the start")},
    "export": {("Show", "Checkpoints")},
    "quantize": {("Learn", "Quantisation and QLoRA")},
}


def test_the_palette_answers_what_people_type(same_window: MainWindow) -> None:
    finder = Finder(same_window.menus.commands())
    for wanted, expected in ASKED.items():
        first = [(command.kind, command.text) for command in finder.find(wanted)[:8]]
        assert expected <= set(first), (wanted, first)
    names = {wanted: finder.find(wanted)[0].text for wanted in ("kv cache", "bpe", "BOS", "low-rank adaptation")}
    assert list(names.values()) == ["key-value cache", "byte pair encoding", "beginning-of-sequence token", "LoRA"]
    for name in ("diagnose", "walk"):  # the workspace brings the panel with all that belongs to it
        assert [command.kind for command in finder.find(name)[:2]] == ["Workspace", "Show"], name
    for name in ("seed", "temperature"):  # the glossary comes after what can be set
        assert finder.find(name)[0].kind == "Setting", name
    for typed, name in (("n_layer", "n_layer"), ("n layer", "n_layer"), ("weight decay", "weight_decay")):
        assert (first := finder.find(typed)[0]).text == name, (typed, first)
    assert ("Setting", "batch_size") in [(command.kind, command.text) for command in finder.find("minibatch")]


QUESTIONS = {  # of a learner, as they are typed, and where each is answered
    "Which head attends to the previous token?": ("Show", "Previous-token head"),
    "What does it predict after each layer?": ("Show", "Logit lens"),
    "What if I remove head 2.1?": ("Show", "Interventions: head 2.1"),
    "How did induction heads appear over training?": ("Show", "Evolution"),
    "What did fine-tuning change?": ("Show", "Compare"),
    "How much memory does the KV cache take at 1,024 tokens?": ("Show", "Parameters"),
    "Why does the loss start at ln V?": ("Learn", "The loss at the start"),
    "What is a good learning rate for this model?": ("Learn", "A good learning rate"),
    "How is one number of a pattern calculated?": ("Show", "An attention weight, calculated"),
    "Does it know bigrams?": ("Show", "Next token after a text"),
    "Which text causes a loss spike?": ("Show", "Text of a loss spike"),
    'Does it know bigrams? What does it expect after "the"?': ("Show", "Next token after a text"),
    'What does it expect after "the"?': ("Show", "Next token after a text"),
    "What does AdamW do to one weight?": ("Show", "A weight's AdamW step"),
    "Why is my loss not going down?": ("Learn", "Reading a loss curve"),
}


def test_a_question_that_is_typed_finds_where_it_is_answered(same_window: MainWindow) -> None:
    finder = Finder(same_window.menus.commands())
    for asked, place in QUESTIONS.items():
        first = finder.find(asked)[0]
        assert (first.kind, first.text) == place, asked
    first = finder.find("backpropagation")[0]
    assert (first.kind, first.text) == ("Learn", "Backpropagation")
    assert ("Show", "Practice") in [(command.kind, command.text) for command in finder.find("quiz me")[:3]]


@pytest.mark.parametrize(
    ("wanted", "dock"),
    [
        ("what if I remove head 2.1", "interventions"),
        ("remove 2.1", "interventions"),
        ("walk L2H1", "walk"),
        ("attention layer 2, head 1", "attention"),
        ("ablate head 1 of layer 2", "interventions"),
        ("ablate head L2.H1", "interventions"),
        ("compare head 2.1", "compare"),
    ],
)
def test_a_head_that_is_typed_is_the_one_that_the_panel_shows(
    same_window: MainWindow, wanted: str, dock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, session = same_window, same_window.lab.inspection
    about = ModelAbout("a", "A", "gguf", n_layer=3, n_head=2)
    form = window.docks["interventions"].form
    with monkeypatch.context() as patched:
        patched.setattr(session, "about", about)
        session.about_changed.emit()
        form.part.setCurrentIndex(form.part.findData("layer"))
        session.select(layer=0, head=0)
        Finder(window.menus.commands()).find(wanted)[0].run()
        assert not window.docks[dock].visibleRegion().isEmpty()
        assert (session.selection.layer, session.selection.head) == (2, 1)
        if dock == "interventions":
            assert form.edit() == ChosenIntervention("head", 2, 1)
        form.part.setCurrentIndex(form.part.findData("layer"))
        Finder(window.menus.commands()).find("ablate head 3.0")[0].run()
        assert "no head 3.0" in window.covers.messages.messages[-1].what
        assert (session.selection.layer, session.selection.head, form.part.currentData()) == (2, 1, "layer")
    session.about_changed.emit()


def test_a_model_that_opens_says_that_it_has_no_such_head(
    same_window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, session = same_window, same_window.lab.inspection
    about = ModelAbout("b", "B", "gguf", n_layer=3, n_head=2)
    with monkeypatch.context() as patched:
        patched.setattr(session, "about", None)
        patched.setattr(window.lab, "current_model", str)
        Finder(window.menus.commands()).find("ablate head 9.9")[0].run()
        patched.setattr(session, "about", about)
        count = len(window.covers.messages.messages)
        session.about_changed.emit()
        session.about_changed.emit()
        (said,) = window.covers.messages.messages[count:]
        assert "no head 9.9" in said.what
        session.select(layer=0, head=0)
    session.about_changed.emit()


def test_of_several_heads_the_first_is_meant_and_a_number_of_three_parts_is_none() -> None:
    finder = Finder([Command("Attention", lambda: None, "Show", also="head", at_head=lambda layer, head: None)])
    for wanted, found in (
        ("head 1.2 and head 3.4", "Attention: head 1.2"),
        ("layer 1, head 2 and layer 3, head 4", "Attention: head 1.2"),
        ("head 1.2.", "Attention: head 1.2"),
        ("head 0.1.2", "Attention"),
        ("head 99999999999.1 attention", "Attention"),  # more than a form's box can hold
        ("remove 0.1.2 attention", "Attention"),
        ("remove 0.1 attention", "Attention"),  # as in "remove 0.1 dropout"
        ("remove 0.1 and attention", "Attention: head 0.1"),
    ):
        assert [command.text for command in finder.find(wanted)] == [found], wanted


def test_a_panel_of_a_model_opens_that_of_the_current_run_where_none_is_open(
    same_window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, session, opened = same_window, same_window.lab.inspection, []

    def show(wanted: str) -> None:
        Finder(window.menus.commands()).find(wanted)[0].run()

    monkeypatch.setattr(session, "open", opened.append)
    show("Attention")
    assert opened == []  # no run has saved anything
    show("previous-token head")
    assert not window.docks["attention"].heads._ranked  # what is opened later is not ranked by it
    monkeypatch.setattr(window.lab, "current_model", lambda: "pretraining/a@latest")
    for wanted in ("Attention", "Logit lens", "Parameters", "previous-token head", "walk head 0.1"):
        show(wanted)
        assert opened.pop() == "pretraining/a@latest", wanted
    for wanted in ("Loss", "Samples", "Set-up", "Notebook"):
        show(wanted)
    with monkeypatch.context() as patched:
        about = ModelAbout("b", "B", "gguf", n_layer=3, n_head=2)
        patched.setattr(session, "about", about)
        session.about_changed.emit()  # as once it is open
        show("Attention")
        assert opened == []
    session.about_changed.emit()


def test_other_words_are_those_of_something(same_window: MainWindow) -> None:
    settings = {info.key for of in (PretrainSettings, FinetuneSettings) for info in describe(of)}
    pages = {f"concept:{page.name}" for page in load_all()}
    panels = {f"dock:{name}" for name in same_window.docks}
    actions = {action.text().replace("&", "").rstrip("…") for action in same_window.findChildren(QAction)}
    assert set(_ALSO) <= settings | pages | panels | actions


def test_resume_is_found_by_other_words_for_it(same_window: MainWindow) -> None:
    same_window.run_actions.resume.setEnabled(True)
    try:
        finder = Finder(same_window.menus.commands())
        for wanted in ("resume", "continue", "unpause"):
            assert finder.find(wanted)[0].text == "Resume", wanted
    finally:
        same_window.run_actions.update()


def test_stop_is_found_for_a_run_that_trains_while_another_is_selected(
    same_window: MainWindow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab, calls = same_window.lab, []
    runs = [FakeRun(tmp_path, "here").start().run, FakeRun(tmp_path, "done").start().finish().run]
    rows = [RunRow(run, run.info(), run.status()) for run in runs]
    monkeypatch.setattr(lab, "runs", lambda: rows)
    monkeypatch.setattr(lab, "set_current", calls.append)
    monkeypatch.setattr(lab.controller, "stop", calls.append)
    commands = same_window.menus.commands()
    assert not any(command.text == "Stop: done" for command in commands)
    for wanted in ("stop", "stop training", "stop the run"):
        first = Finder(commands).find(wanted)[0]
        assert (first.kind, first.text) == ("Do", "Stop: here"), wanted
    first.run()
    assert calls == ["pretraining/here", runs[0]]
    monkeypatch.setattr(lab, "current", lambda: rows[0])  # the action Stop is about it
    assert not any(command.text == "Stop: here" for command in same_window.menus.commands())


def test_what_fine_tuning_changed_is_the_comparison_with_the_base_where_a_run_has_one(same_window: MainWindow) -> None:
    (compare,) = [one for one in same_window.findChildren(QAction) if one.text() == "Compare with its base"]
    compare.setEnabled(True)
    try:
        first = Finder(same_window.menus.commands()).find("What did fine-tuning change?")[0]
        assert (first.kind, first.text) == ("Do", "Compare with its base")
    finally:
        compare.setEnabled(False)


def test_a_setting_is_opened_in_its_form(same_window: MainWindow, qtbot: QtBot) -> None:
    for wanted, dock, key in (("beta2", "setup", "train.beta2"), ("alpha", "finetune_setup", "lora.alpha")):
        same_window.use_workspace(LOOK_INSIDE)
        next(c for c in Finder(same_window.menus.commands()).find(wanted) if c.kind == "Setting").run()
        editor = same_window.docks[dock].form.fields[key].editor
        qtbot.waitUntil(lambda editor=editor: not editor.visibleRegion().isEmpty())
        assert same_window.focusWidget() is (editor.focusProxy() or editor)
        same = [
            c for c in Finder(same_window.menus.commands()).find("steps") if (c.kind, c.text) == ("Setting", "steps")
        ]
        assert same[0].hint == same_window.docks[dock].windowTitle()  # the form in sight is first


def test_several_processes_are_found_by_what_people_type_and_begin_with_their_strategy(
    same_window: MainWindow, qtbot: QtBot
) -> None:
    for wanted, title, dock in (
        ("processes", "Set-up", "setup"),
        ("two processes fine-tuning", "Fine-tune set-up", "finetune_setup"),
    ):
        same_window.use_workspace(TRAIN)
        first = Finder(same_window.menus.commands()).find(wanted)[0]
        assert (first.kind, first.text, first.hint) == ("Setting", "processes", title), wanted
        first.run()
        editor = same_window.docks[dock].form.fields["distributed.strategy"].editor  # processes are off until then
        qtbot.waitUntil(lambda editor=editor: not editor.visibleRegion().isEmpty())
        assert same_window.focusWidget() is (editor.focusProxy() or editor)


def test_what_has_the_letters_alone_comes_after_pages_that_have_the_word() -> None:
    scattered, page, every = (Command(text, lambda: None) for text in ("Not attached", "Symbols", "Search pages"))
    for wanted, pages in (("nota", [page]), ("natt", [])):
        found = Finder([scattered]).find(wanted, lambda _, pages=pages: [*pages, every])
        assert found == [*pages, scattered, every]


def test_what_it_expects_after_a_text_is_asked_where_the_list_has_room(same_window: MainWindow, qtbot: QtBot) -> None:
    same_window.use_workspace(LOOK_INSIDE)
    Finder(same_window.menus.commands()).find('What does it expect after "the"?')[0].run()
    write = same_window.docks["write"]
    qtbot.waitUntil(lambda: same_window.focusWidget() is write.prompt)
    qtbot.keyClicks(write.prompt, "the")
    assert (same_window.workspaces.current, write.prompt.toPlainText()) == (WRITE, "the")


def test_a_panel_that_shows_a_model_comes_where_it_has_a_place(same_window: MainWindow) -> None:
    for wanted, dock in (
        ("How did induction heads appear over training?", "evolution"),
        ("remove 0.1", "interventions"),
    ):
        same_window.use_workspace(LEARN)
        Finder(same_window.menus.commands()).find(wanted)[0].run()
        assert same_window.workspaces.current == LOOK_INSIDE
        assert not same_window.docks[dock].visibleRegion().isEmpty()


def test_a_paragraph_that_answers_a_question_is_opened_at_its_place(same_window: MainWindow, qtbot: QtBot) -> None:
    same_window.use_workspace(LEARN)
    Finder(same_window.menus.commands()).find("Why does the loss start at ln V?")[0].run()
    learn = same_window.docks["learn"]
    assert learn.page_name == "loss"

    def first_in_sight() -> str:
        return str(learn.browser.cursorForPosition(QPoint(40, 20)).block().text())

    qtbot.waitUntil(lambda: "costs ln V" in first_in_sight())


def test_a_term_is_opened_at_its_entry(same_window: MainWindow) -> None:
    Finder(same_window.menus.commands()).find("softmax")[0].run()
    learn = same_window.docks["learn"]
    assert learn.page_name == "glossary"


@pytest.mark.qt_log_ignore("This plugin does not support")
def test_where_few_match_the_pages_with_the_words_follow(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    wanted = "nanogpt speed"
    assert len(Finder(window.menus.commands()).by_words(wanted)) == 0
    window.menus.open_palette()
    palette = window.findChild(CommandPalette)
    palette.line.setText(wanted)
    shown = palette._model.commands
    palette.close()
    assert shown[-1].text == f"Search pages for “{wanted}”"
    assert [command.kind for command in shown[:-1]] == ["Page"] * (len(shown) - 1)
    assert len(shown) > 1
    search_pages(window, wanted)[-1].run()
    learn = window.docks["learn"]
    assert learn.search.text() == wanted
    assert learn.list.titles()


def test_train_says_what_it_would_start(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    qtbot.waitUntil(window.docks["setup"].train_button.isEnabled)
    first = Finder(window.menus.commands()).find("train")[0]
    assert first.text.startswith("Train: Baby")
    assert " on " in first.text
    assert "about" in first.text


def test_train_starts_nothing_from_a_form_that_is_not_in_sight(
    same_window: MainWindow, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = same_window
    window.use_workspace(LEARN)
    window.show_dock("loss")
    window.docks["setup"].hide()
    QApplication.processEvents()
    started: list[object] = []
    window.lab.start_requested.disconnect(window.run_actions.start)
    window.lab.start_requested.connect(started.append)
    try:
        assert Finder(window.menus.commands()).find("train")[0].text == "Train: first shows Set-up"
        window.run_actions.train.trigger()
        QApplication.processEvents()
        assert not started
        assert not window.docks["setup"].visibleRegion().isEmpty()
        assert window.workspaces.current == TRAIN  # the one before keeps its panels
        qtbot.waitUntil(window.docks["setup"].train_button.isEnabled)
        window.run_actions.train.trigger()
        assert len(started) == 1
    finally:
        window.lab.start_requested.disconnect(started.append)
        window.lab.start_requested.connect(window.run_actions.start)
