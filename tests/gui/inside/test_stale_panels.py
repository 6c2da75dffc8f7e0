"""What belongs to another model or prompt than the chosen one is dimmed and named, in every panel and in Write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_answers import (
    make_change,
    make_comparison,
    make_evolution,
    make_geometry,
    make_intervention,
    make_parameters,
    make_pattern,
    make_sweep,
)
from fake_model import FakeModelHost
from fakes import FakeRun
from inspection_lab import InspectionLab
from pytestqt.qtbot import QtBot
from windows import FAKE_HOST

from llmlab.core.errors import LabError
from llmlab_gui.finetune.adapter import AdapterDock
from llmlab_gui.host.process import ModelHost
from llmlab_gui.host.selection import ChosenIntervention
from llmlab_gui.inside.attention import AttentionDock
from llmlab_gui.inside.compare import CompareDock
from llmlab_gui.inside.contributions import ContributionsDock
from llmlab_gui.inside.evolution import EvolutionDock
from llmlab_gui.inside.geometry import GeometryDock
from llmlab_gui.inside.inspection_dock import InspectionDock
from llmlab_gui.inside.interventions import InterventionsDock
from llmlab_gui.inside.lens import LensDock
from llmlab_gui.inside.parameters import ParametersDock
from llmlab_gui.inside.prompt import PromptDock
from llmlab_gui.inside.residual import ResidualDock
from llmlab_gui.widgets.veil import Veil
from llmlab_gui.write.dock import WriteDock

PANELS: tuple[Callable[[InspectionLab], InspectionDock], ...] = (
    PromptDock,
    AttentionDock,
    LensDock,
    ContributionsDock,
    ResidualDock,
    InterventionsDock,
    GeometryDock,
    ParametersDock,
    AdapterDock,
    CompareDock,
    EvolutionDock,
)
REFUSAL = LabError("beta cannot be opened.", "Its weights are cut short.", "Choose another model.")


@pytest.fixture
def lab(qtbot: QtBot, tmp_path: Path) -> Iterator[InspectionLab]:
    host = FakeModelHost()
    host.kind = "finetuned"
    host.answers |= {"change": make_change, "compare": make_comparison, "evolve": make_evolution}
    host.answers |= {"geometry": make_geometry, "parameters": make_parameters, "intervene": make_intervention}
    host.answers |= {"sweep": make_sweep, "pattern": make_pattern}
    made = InspectionLab(tmp_path, host)
    made.add(FakeRun(tmp_path, steps=200).start().advance(150))
    yield made
    made.close()


def fill(qtbot: QtBot, lab: InspectionLab, dock: InspectionDock) -> None:
    """Has the panel show numbers of the model alpha."""
    lab.open(qtbot, dock, model="alpha")
    if isinstance(dock, CompareDock):
        dock.b.choose("other@1")
        dock.compare.click()
    if isinstance(dock, EvolutionDock):
        dock.watch.click()
    lab.inspection.add_intervention(ChosenIntervention("head", 1, 0))
    qtbot.waitUntil(lambda: dock.ready() and dock.table() is not None)
    qtbot.waitUntil(lambda: lab.inspection.working is None and not dimmed(dock))
    assert dock.export_button.isEnabled()


def dimmed(dock: InspectionDock) -> str:
    """What the shade over the panel's numbers says, "" where they are at full strength."""
    veil = dock._veil
    assert veil is not None
    assert veil.isHidden() == (not veil.words)
    assert veil.isHidden() or veil.geometry() == veil.parentWidget().rect()
    return veil.words


@pytest.mark.parametrize("make", PANELS)
def test_numbers_of_another_model_or_prompt_are_dimmed_and_named_until_they_are_replaced(
    qtbot: QtBot, lab: InspectionLab, make: Callable[[InspectionLab], InspectionDock]
) -> None:
    session, host = lab.inspection, lab.host
    dock = make(lab)
    fill(qtbot, lab, dock)
    before = {CompareDock: "of alpha and other@1", EvolutionDock: "of fake"}.get(type(dock), "of alpha")

    # A model is chosen: at once, not when it has been read.
    host.hold = {"open", "tokenize", "inspect", "pattern", "change", "geometry", "parameters"}
    session.open("beta")
    assert dimmed(dock) == before
    assert not dock.export_button.isEnabled()

    # It cannot be opened: the one before stays, dimmed until somebody turns to it.
    host.fail["open"] = REFUSAL
    host.release()
    qtbot.waitUntil(lambda: session.choice.refused)
    assert dimmed(dock) == before
    assert dock._veil is not None
    assert dock._veil._button.text() == "Stay with it"
    dock._veil._button.click()
    assert dimmed(dock) == ""

    # So do a head or a token that is chosen, and the message that is waved away.
    host.fail["open"] = REFUSAL
    for turn in (lambda: session.select(head=1 - session.selection.head), lambda: session.choice.read(REFUSAL)):
        session.open("beta")
        host.release()
        qtbot.waitUntil(lambda: session.choice.refused)
        assert dimmed(dock) == before
        turn()
        assert not session.choice.refused

    # It ends while it is read, or is not wanted any more.
    session.open("beta")
    assert dimmed(dock) == before
    session.cancel()
    assert dimmed(dock) == ""

    # Another prompt.
    if not isinstance(dock, AdapterDock):
        session.set_prompt("a queen", False)
        assert dimmed(dock) == "of another prompt"
        session.set_prompt("the king said to the queen that", False)
        assert dimmed(dock) == ""

    # It opens: until its own numbers come, nothing of alpha's is shown at full strength under its name.
    del host.fail["open"]
    session.open("beta")
    for _ in range(3):  # opened, tokenized, inspected or asked
        half = dock._head_veil.words if isinstance(dock, AttentionDock) else ""  # the heads are beta's already
        assert dimmed(dock) != "" or half == before or not shows(dock, "alpha")
        host.release()
        qtbot.wait(1)
    host.hold = set()
    host.release()
    qtbot.waitUntil(lambda: session.about is not None and session.about.name == "beta")
    if isinstance(dock, CompareDock):
        assert dimmed(dock) == before  # it is about what is in its boxes, and waits to be pressed
    else:
        qtbot.waitUntil(lambda: not dimmed(dock) and session.working is None)
    dock.shutdown()


@pytest.mark.parametrize("make", [panel for panel in PANELS if panel.needs_inspection])
def test_what_is_drawn_of_another_prompt_or_model_can_be_copied_and_exported_at_once(
    qtbot: QtBot, lab: InspectionLab, make: Callable[[InspectionLab], InspectionDock]
) -> None:
    session, dock = lab.inspection, make(lab)
    fill(qtbot, lab, dock)
    for change in (lambda: session.set_prompt("a queen", False, at_once=True), lambda: session.open("beta")):
        before = session.look.archive
        change()
        assert not dock.export_button.isEnabled()
        qtbot.waitUntil(lambda before=before: session.look.archive not in (None, before))
        # The pattern of one head may come after the mosaic of all.
        qtbot.waitUntil(lambda: not dimmed(dock) and not getattr(dock, "_head_veil", dock._veil).words)
        assert dock.export_button.isEnabled()
        assert dock.copy_button.isEnabled()
    dock.shutdown()


def test_numbers_of_another_token_head_or_question_are_dimmed_and_named_until_they_are_replaced(
    qtbot: QtBot, lab: InspectionLab
) -> None:
    session, host = lab.inspection, lab.host
    bars, heads = ContributionsDock(lab), AttentionDock(lab)
    edits, points = InterventionsDock(lab), GeometryDock(lab)
    docks: tuple[InspectionDock, ...] = (heads, edits, points, bars)
    for dock in docks[:-1]:
        qtbot.addWidget(dock)
        dock.show()
    session.select(layer=1, head=0, token=-1)
    fill(qtbot, lab, bars)
    for dock in docks:
        qtbot.waitUntil(lambda dock=dock: dock.ready() and dock.table() is not None)

    def replaced(dock: InspectionDock, veil: Veil, said: str) -> bool:
        """Said at once, and until the model has answered; then the numbers can be exported again."""
        assert veil.words == said
        assert not dock.export_button.isEnabled()
        host.release()
        qtbot.waitUntil(lambda: not veil.words)
        return dock.export_button.isEnabled()

    # Nothing is on its way: it would be held, and all that is asked below would wait behind it.
    quiet = lambda: session.working is None and not any(dock._settle.isActive() for dock in (bars, edits))  # noqa: E731
    qtbot.waitUntil(lambda: quiet() and heads._head_veil.words == "" and heads.pattern is not None)
    host.hold = {"inspect", "pattern", "intervene", "geometry"}
    for veil in (bars._veil, heads._veil, heads._head_veil, edits._veil, points._veil):
        assert veil is not None
        assert veil.words == ""

    session.select(token=2)
    assert dimmed(heads) == dimmed(edits) == dimmed(points) == ""
    assert bars._veil.words == "of token 6, “that”"
    session.select(token=-1)  # back before it was asked
    assert bars._veil.words == ""
    session.select(token=2)
    qtbot.waitUntil(lambda: any(what == "inspect" and of.get("position") == 2 for what, of in host.asked))
    assert replaced(bars, bars._veil, "of token 6, “that”")
    bars.answer.setText("king")
    qtbot.waitUntil(lambda: any(of.get("answer") == "king" for _, of in host.asked))
    assert replaced(bars, bars._veil, "before the last change")

    session.select(layer=2, head=1)
    assert dimmed(bars) == dimmed(heads) == ""  # the mosaic is of all heads
    assert replaced(heads, heads._head_veil, "of layer 1, head 0")

    session.add_intervention(ChosenIntervention("head", 2, 1))
    qtbot.waitUntil(lambda: any(len(of.get("edits", ())) == 2 for _, of in host.asked))
    assert replaced(edits, edits._veil, "before the last change")

    points.matrix.setCurrentIndex(1)
    assert replaced(points, points._veil, "of token embeddings")

    # What was chosen while a panel was behind another one is asked for once it comes to sight; what was cancelled, too.
    for dock in (heads, bars):
        dock.hide()
    session.select(layer=1, head=2, token=3)
    qtbot.waitUntil(lambda: not bars._settle.isActive())
    for dock in (bars, heads):
        dock.show()
    assert bars._veil.words == "of token 2, “said”"
    session.cancel()
    for dock in (heads, bars):
        dock.hide()
        dock.show()
    assert heads._head_veil.words == "of layer 2, head 1"
    assert heads.picture_title.startswith("Attention: alpha, layer 2, head 1, of “")  # so does what is exported
    host.hold = set()
    host.release()
    qtbot.waitUntil(lambda: not bars._veil.words and not heads._head_veil.words)
    assert (heads.layer.value(), heads.head.value()) == (1, 2)
    for dock in docks:
        dock.shutdown()


def test_the_heads_of_the_next_prompt_are_at_full_strength_and_the_pattern_of_the_one_before_is_dimmed(
    qtbot: QtBot, lab: InspectionLab
) -> None:
    session, host = lab.inspection, lab.host
    dock = AttentionDock(lab)
    fill(qtbot, lab, dock)
    host.hold = {"pattern"}
    before = session.look.archive
    session.set_prompt("a queen said", False, at_once=True)
    qtbot.waitUntil(lambda: session.look.archive is not before and dock._heads_of is session.look.archive)
    assert dimmed(dock) == ""
    assert dock._head_veil.words == "of another prompt"
    assert not dock.export_button.isEnabled()
    assert "king" in dock._describe(dock.heatmap, 1, 0)  # under its own names
    qtbot.waitUntil(lambda: session.working is not None)
    host.release()
    qtbot.waitUntil(lambda: not dock._head_veil.words)
    assert dock.export_button.isEnabled()
    dock.shutdown()


def test_the_progress_of_the_next_model_is_drawn_over_the_shade_of_the_one_before(
    qtbot: QtBot, lab: InspectionLab
) -> None:
    dock = LensDock(lab)
    fill(qtbot, lab, dock)
    lab.host.hold = {"open"}
    lab.inspection.open("beta")
    qtbot.waitUntil(lambda: not dock.strip.isHidden())
    lab.host.tell_progress("Loading the weights", 1, 2)
    dock.update_state()
    dock.resize(dock.width() + 20, dock.height() + 20)
    assert dock._veil is not None
    assert dimmed(dock) == "of alpha"
    layers = dock._veil.parentWidget().children()
    assert layers.index(dock.strip) > layers.index(dock._veil)
    dock.shutdown()


def test_a_panel_speaks_of_the_models_work_while_it_waits_for_it_and_no_longer(
    qtbot: QtBot, lab: InspectionLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmlab_gui.host.inspection_plan._QUICK_LENS", 0)
    bars, lens = ContributionsDock(lab), LensDock(lab)
    fill(qtbot, lab, bars)
    qtbot.waitUntil(lambda: bars.attribution is not None and lab.inspection.working is None)
    lab.host.hold = {"inspect", "neurons"}
    qtbot.addWidget(lens)
    lens.show()
    qtbot.waitUntil(lens.strip.isVisible)
    assert lens.strip.what.text() == lens.strip.what.toolTip() == "Reading the prompt"
    assert bars.strip.isHidden()  # it has all that it shows
    assert not bars.strip._patience.isActive()
    lab.inspection.ask("neurons", {"layer": 0, "position": 0}, lambda _: None, key="neurons")
    qtbot.waitUntil(bars.strip.isVisible)
    assert bars.strip.what.text() == "Reading the neurons"
    qtbot.waitUntil(lambda: lens.strip.what.text() == "Waits for: Reading the neurons")
    qtbot.waitUntil(lens.strip.isVisible)
    for dock in (bars, lens):
        dock.shutdown()


@pytest.mark.slow
def test_every_panel_that_cannot_ask_for_a_long_prompt_offers_to_shorten_it(qtbot: QtBot, lab: InspectionLab) -> None:
    lab.host.context = 4
    for make in PANELS:
        if make in (
            PromptDock,
            AdapterDock,
            CompareDock,
            EvolutionDock,
        ):  # it has a button of its own; others ask others
            continue
        dock = make(lab)
        lab.inspection.set_prompt("", False, at_once=True)
        qtbot.addWidget(dock)
        dock.show()
        lab.inspection.open("alpha")
        lab.inspection.set_prompt("the king said to the queen", False, at_once=True)
        qtbot.waitUntil(lambda: lab.inspection.readable == 4)
        assert dock._stack.currentWidget() is dock._empty
        assert dock._empty._button.text() == "Shorten to 4 tokens"
        dock._empty._button.click()
        qtbot.waitUntil(lambda: 0 < len(lab.inspection.tokens) <= 4)
        qtbot.waitUntil(lambda dock=dock: dock._stack.currentWidget() is not dock._empty)
        dock.shutdown()


def shows(dock: InspectionDock, model: str) -> bool:
    """Whether a model's numbers are in sight."""
    models = [archive.metadata.model for archive in dock.shown_archives() if archive is not None]
    return dock._stack.currentWidget() is not dock._empty and any(model in models_of.split("|") for models_of in models)


def test_what_the_active_model_wrote_is_dimmed_as_soon_as_another_is_chosen(qtbot: QtBot, lab: InspectionLab) -> None:
    session, host = lab.inspection, lab.host
    host.kind = "huggingface"
    dock = WriteDock(lab, host=ModelHost(command=FAKE_HOST))
    qtbot.addWidget(dock)
    session.open("alpha")
    qtbot.waitUntil(lambda: dock.picker.active)
    dock._author, dock._wrote, dock._prompt_then = "alpha", dock.picker.reference(), dock.prompt.toPlainText()
    dock._mark_stale()
    assert dock._text_veil.words == ""
    host.hold = {"open"}
    session.open("beta")
    assert (dock._text_veil.words, dock.first_name.text()) == ("of another model", "Written by alpha")
    assert not dock.first_name.isHidden()
    host.fail["open"] = REFUSAL
    host.release()
    qtbot.waitUntil(lambda: session.choice.refused)
    assert dock._text_veil.words == "of another model"
    dock._stay()  # whoever types or generates means the active one
    assert dock._text_veil.words == ""
    dock.shutdown()
