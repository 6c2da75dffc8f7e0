"""What the command palette offers, and the other words that people have for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QKeySequence

from llmlab.core.config import read_toml
from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.paths import resources_dir
from llmlab.core.presets import presets_of
from llmlab.core.setting_info import describe
from llmlab.core.settings import PretrainSettings
from llmlab.studies.experiments.kinds import KINDS
from llmlab_gui.pages.library import load_all
from llmlab_gui.pages.page import GLOSSARY, PAPERS, Page, anchor_of
from llmlab_gui.pages.places import LOOK_INSIDE, WALK, WORKSPACES, WRITE
from llmlab_gui.pages.search import counts_of, words_of
from llmlab_gui.widgets.theme import THEME_CHOICES
from llmlab_gui.window.palette import Command

if TYPE_CHECKING:
    from llmlab_gui.window.main_window import MainWindow

THEMES = {"light": "Light", "dark": "Dark", "system": "Same as the system"}
_WORDS = read_toml(resources_dir() / "window" / "other-words.toml")
_ALSO: dict[str, str] = _WORDS["things"]
_OF_A_HEAD = ("attention", "interventions", "walk", "compare")
_MOST_PAGES = 8  # of a search, in the palette


def gather(window: MainWindow, actions: Iterable[QAction], dock_actions: Iterable[QAction]) -> list[Command]:
    """All that can be done now: enabled actions, panels, workspaces, settings, runs, presets, papers, pages, terms."""
    return [
        *_actions(window, actions),
        *_panels(window, dock_actions),
        *_setups(window),
        *_pages(window),
        *_settings(window),
        *_runs(window),
    ]


def keys_text(action: QAction) -> str:
    """An action's keys as the system writes them."""
    return action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)


def search_pages(window: MainWindow, wanted: str) -> list[Command]:
    """The first of the pages that have all words that count, and the way to all of them."""
    from llmlab_gui.learn.dock import LearnDock  # it comes with the docks

    words = words_of(wanted)
    if not words:
        return []
    counts, titles = counts_of(_all_pages(), words), {page.name: page.title for page in _all_pages()}
    learn = window.docks.get("learn")
    assert learn is None or isinstance(learn, LearnDock)

    def show(name: str) -> None:
        if name:
            window.lab.concept_requested.emit(name)
        else:
            window.show_dock("learn")
        if learn is not None:
            learn.search_for(wanted)

    found = [
        Command(titles[name], partial(show, name), "Page", f"{count} {'times' if count > 1 else 'time'}")
        for name, count in islice(counts.items(), _MOST_PAGES)
    ]
    return [*found, Command(f"Search pages for “{wanted.strip()}”", partial(show, ""), "Learn")]


def _actions(window: MainWindow, actions: Iterable[QAction]) -> Iterator[Command]:
    for action in [*window.run_actions.all(), *actions]:
        if action.isEnabled():
            name = action.text().replace("&", "").rstrip("…")
            text = window.setups.text() if action is window.run_actions.train else name
            yield Command(text, action.trigger, "Do", keys_text(action), _ALSO.get(name, ""))
    current = window.lab.current()
    for row in window.lab.runs():
        if row != current and window.run_actions.can_stop(row):
            stop = partial(window.run_actions.show_and_stop, row)
            yield Command(f"Stop: {row.name}", stop, "Do", also=_ALSO["Stop"])


def _panels(window: MainWindow, dock_actions: Iterable[QAction]) -> Iterator[Command]:
    for (dock_id, dock), action in zip(window.docks.items(), dock_actions, strict=True):
        title, also = dock.windowTitle().replace("&&", "&"), _ALSO.get(f"dock:{dock_id}", "")
        at_head = partial(_show_head, window, dock_id) if dock_id in _OF_A_HEAD else None
        shown = partial(_show_panel, window, dock_id)
        yield Command(title, shown, "Show", keys_text(action), f"panel {also}", at_head=at_head)
    for text, show in (
        ("Previous-token head", _show_previous),
        ("Next token after a text", _show_next),
        ("Text of a loss spike", _show_spike),
    ):
        yield Command(text, partial(show, window), "Show", also=_WORDS["others"][text])
    for one in _WORDS["stages"]:
        walk = partial(_walk_to, window, one["direction"], one["stage"])
        yield Command(one["text"], walk, "Show", also=one["also"])
    for name in WORKSPACES:
        yield Command(name, partial(window.use_workspace, name), "Workspace")
    for choice in THEME_CHOICES:
        yield Command(THEMES[choice], partial(window.use_theme, choice), "Theme", also="mode colours make window")


def _show_panel(window: MainWindow, dock_id: str) -> None:
    """With the model of the current run, where it shows one and none is open."""
    if _bring(window, dock_id):
        _open_current(window)


def _bring(window: MainWindow, dock_id: str) -> bool:
    """Whether it shows a model: such a panel comes where it has a place of its own, unless it is here already."""
    from llmlab_gui.inside.inspection_dock import InspectionDock  # it comes with the docks

    dock = window.docks[dock_id]
    inspects = isinstance(dock, InspectionDock)
    if inspects and dock.isHidden():
        window.use_workspace(LOOK_INSIDE)
    window.show_dock(dock_id)
    return inspects


def _show_previous(window: MainWindow) -> None:
    from llmlab_gui.inside.attention import AttentionDock  # it comes with the docks

    _show_panel(window, "attention")
    attention = window.docks["attention"]
    assert isinstance(attention, AttentionDock)
    session = window.lab.inspection
    if session.about is not None or session.opening:  # and not whatever is opened some time later
        attention.heads.rank("previous")


def _show_next(window: MainWindow) -> None:
    """Where its list has room; what is typed replaces the prompt."""
    from llmlab_gui.write.dock import WriteDock  # it comes with the docks

    window.use_workspace(WRITE)
    window.show_dock("write")
    write = window.docks["write"]
    assert isinstance(write, WriteDock)
    write.prompt.setFocus()
    write.prompt.selectAll()


def _show_spike(window: MainWindow) -> None:
    from llmlab_gui.train.loss import LossDock  # it comes with the docks

    window.show_dock("loss")
    loss = window.docks["loss"]
    assert isinstance(loss, LossDock)
    loss.batch.begin()


def _walk_to(window: MainWindow, direction: str, stage: str) -> None:
    """With the model of the current run, where none is open."""
    from llmlab_gui.walk.dock import WalkDock  # it comes with the docks

    window.use_workspace(WALK)
    window.show_dock("walk")
    walk = window.docks["walk"]
    assert isinstance(walk, WalkDock)
    walk.walk_to(direction, stage)
    _open_current(window)


def _show_head(window: MainWindow, dock_id: str, layer: int, head: int) -> None:
    """A panel at a head. Where no model is open, the one that opens next says whether it has that head."""
    session = window.lab.inspection
    _bring(window, dock_id)
    _choose_head(window, dock_id, layer, head)
    if session.about is None:
        chosen = partial(_choose_head, window, dock_id, layer, head)
        session.about_changed.connect(chosen, Qt.ConnectionType.SingleShotConnection)
        _open_current(window)


def _choose_head(window: MainWindow, dock_id: str, layer: int, head: int) -> None:
    """In Interventions, it is what the form would intervene on; in Compare, its pattern is what differs."""
    from llmlab_gui.inside.compare import PATTERN, CompareDock  # they come with the docks
    from llmlab_gui.inside.interventions import InterventionsDock

    dock, session = window.docks[dock_id], window.lab.inspection
    about = session.about
    if about is not None and not (layer < about.n_layer and head < about.n_head):
        there = f"{about.name} has {about.n_layer} layers of {about.n_head} heads, both counted from 0."
        window.lab.error_raised.emit(LabError(f"There is no head {layer}.{head}.", there))
        return
    if isinstance(dock, InterventionsDock):
        dock.form.part.setCurrentIndex(dock.form.part.findData("head"))
    if isinstance(dock, CompareDock):
        dock.view.setCurrentIndex(PATTERN)
    session.select(layer=layer, head=head)


def _open_current(window: MainWindow) -> None:
    """The model of the current run, where none is open."""
    session = window.lab.inspection
    if session.about is None and not session.opening and (model := window.lab.current_model()):
        session.open(model)


def _setups(window: MainWindow) -> Iterator[Command]:
    lab = window.lab
    for preset in presets_of(PretrainSettings):
        asked = partial(lab.setup_requested.emit, {"preset": preset.name})
        yield Command(preset.title, asked, "Set up", about=preset.description)
    for fine_tuning in presets_of(FinetuneSettings):
        asked = partial(lab.finetune_requested.emit, {"preset": fine_tuning.name})
        yield Command(fine_tuning.title, asked, "Fine-tune", about=fine_tuning.description)
    for kind in KINDS.values():
        yield Command(kind.title, partial(lab.experiment_requested.emit, kind.name), "Experiment")


def _pages(window: MainWindow) -> Iterator[Command]:
    lab = window.lab
    for one in _WORDS["paragraphs"]:
        yield Command(one["text"], partial(lab.concept_requested.emit, one["place"]), "Learn", also=one["also"])
    for page in _all_pages():
        also = _ALSO.get(f"concept:{page.name}", "")
        if page.group == PAPERS:
            shown = partial(lab.paper_requested.emit, page.name.removeprefix("papers/"), "")
            yield Command(page.title, shown, "Paper", also=also)
        yield Command(page.title, partial(lab.concept_requested.emit, page.name), "Learn", also=also)
        if page.group == GLOSSARY:
            for entry in page.entries:
                opened = partial(lab.concept_requested.emit, f"{page.name}#{anchor_of(entry.term)}")
                yield Command(entry.term, opened, "Term", also=entry.also, about=entry.meaning)


def _settings(window: MainWindow) -> Iterator[Command]:
    kinds: tuple[tuple[str, str, str, type[Any]], ...] = (
        ("setup", "Set-up", "pretraining", PretrainSettings),
        ("finetune_setup", "Fine-tune set-up", "fine-tuning", FinetuneSettings),
    )
    # Those of the form that Train would use come first.
    for dock_id, where, task, settings in sorted(
        kinds, key=lambda kind: window.docks.get(kind[0]) is not window.setups.shown_setup
    ):
        for info in describe(settings):
            also = f"{info.section} {' '.join(info.choices)} {_ALSO.get(info.key, '')} {task}"
            shown = partial(window.setups.show_setting, dock_id, info.key)
            yield Command(info.name, shown, "Setting", where, also, info.help)


def _runs(window: MainWindow) -> Iterator[Command]:
    rows = window.lab.runs()
    for row in rows:
        yield Command(row.name, partial(window.lab.set_current, row.id), "Open run", row.status.words)
    for row in rows:
        if row.status.live:
            opened = partial(window.look_inside, f"{row.run.path}@live")
            yield Command(f"{row.name}, live", opened, "Look inside")
    for model in window.lab.inspection.recent.there(window.lab.outputs):
        yield Command(model.name, partial(window.look_inside, model.reference), "Look inside")


@cache
def _all_pages() -> list[Page]:
    return load_all()
