"""What the command palette offers, and the other words that people have for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QKeySequence

from llmlab.core.config import describe
from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.presets import presets_of
from llmlab.core.settings import PretrainSettings
from llmlab.studies.experiments.kinds import KINDS
from llmlab_gui.pages.library import load_all
from llmlab_gui.pages.page import GLOSSARY, PAPERS, Page, anchor_of
from llmlab_gui.pages.places import LOOK_INSIDE, WALK, WORKSPACES, WRITE
from llmlab_gui.widgets.theme import THEME_CHOICES
from llmlab_gui.window.palette import Command, meant

if TYPE_CHECKING:
    from llmlab_gui.window.main_window import MainWindow

THEMES = {"light": "Light", "dark": "Dark", "system": "Same as the system"}
# Other words for a thing, by the text of its action, the link to its panel or page, or the setting's key.
_ALSO = {
    "Train": "start run pretrain begin learn",
    "Pause": "wait hold",
    "Resume": "continue go on unpause longer more steps",
    "Stop": "cancel abort kill end",
    "Save now": "checkpoint write disk",
    "New paper": "own reading notes claims questions",
    "New run": "set-up settings hyperparameters",
    "Open a run's folder": "load import",
    "Train on your own text": "corpus file data load",
    "Compare with its base": "what did fine-tuning change difference",
    "Reset layout": "default arrangement restore windows panels",
    "Copy debug information": "bug report version",
    "Keyboard shortcuts": "keys hotkeys",
    "Notify when a long run ends": "notification alert",
    "Quit": "exit close",
    "dock:runs": "list of models delete rename",
    "dock:setup": "new run hyperparameters configuration settings",
    "dock:loss": "curve overfitting perplexity validation training spike",
    "dock:learning_rate": "lr schedule gradient",
    "dock:throughput": "speed tokens per second performance",
    "dock:samples": "generated text writing",
    "dock:checkpoints": "saved weights snapshots",
    "dock:write": "generate chat complete text temperature sampling",
    "dock:log": "output console errors",
    "dock:prompt": "text input tokens",
    "dock:attention": "heads pattern previous token induction sink map how is one number of a pattern calculated",
    "dock:contributions": "direct logit attribution dla",
    "dock:residual": "norms stream",
    "dock:lens": "early exit predictions layers what does it predict after each layer",
    "dock:interventions": "what if i remove a head ablation ablate knock out patching causal tracing",
    "dock:walk": "step by step forward pass head stages formula numbers backpropagation",
    "dock:rebuild": "exercises write code yourself implement from scratch pieces",
    "dock:compare": "difference two models heads what did fine-tuning change",
    "dock:evolution": "over time film while training how did induction heads appear over training",
    "dock:geometry": "pca neighbours cosine similarity vectors",
    "dock:parameters": "weights histogram matrices how much memory does the kv cache take key-value tokens",
    "dock:finetune_setup": "lora qlora adapter sft instruction tuning",
    "dock:data": "examples dataset chat template",
    "dock:adapter": "lora rank singular values",
    "dock:queue": "waiting runs later",
    "dock:notebook": "predictions calibration guesses journal",
    "dock:practice": "questions quiz exercise anki spaced repetition ask me test",
    "dock:paper": "claims reproduce replication",
    "concept:attention-patterns": "bigram previous token heads attention sink",
    "concept:attention": "heads pattern softmax query key value qkv previous token induction sink map",
    "concept:feed-forward": "mlp relu gelu neurons",
    "concept:embeddings": "position rope rotary vectors",
    "concept:paths": "paths stations course curriculum newcomer start here",
    "concept:tokens": "tokenizer bpe vocabulary subword",
    "concept:optimisation": "what does adamw do to one weight optimizer adamw adam muon sgd momentum warm-up "
    "weight decay gradient descent",
    "concept:loss": "curve overfitting perplexity validation training cross-entropy bigram",
    "concept:notation": "notation letters dimensions b t c v",
    "concept:n-grams": "bigrams trigram counts",
    "concept:loss-curves": "overfitting generalisation plateau",
    "concept:learning-rate": "lr sweep schedule",
    "concept:ablation-and-patching": "remove a head knock out activation patching causal tracing",
    "concept:induction-heads": "previous token in-context copying",
    "concept:in-context-learning": "few-shot prompting icl examples loss by position",
    "concept:probes-and-steering": "linear probe activation addition steering vector control",
    "concept:data-quality": "deduplication minhash filtering epochs repeated mixture contamination",
    "concept:flash-attention": "online softmax io memory bandwidth kernel sdpa tiling roofline",
    "concept:superposition": "sae dictionary learning features polysemantic neurons monosemanticity",
    "concept:quantisation": "4 bits int8 nf4 qlora memory",
    "concept:scaling-laws": "chinchilla compute larger models",
    "concept:logit-lens": "early exit unembed",
    "concept:direct-attribution": "dla contributions",
    "concept:checkpoints": "saved weights snapshots resume",
    "concept:papers/attention-sinks": "attention sink streaming",
    "train.learning_rate": "lr step size",
    "train.optimizer": "muon",
    "train.weight_decay": "adamw regularisation",
    "train.beta1": "momentum",
    "data.batch_size": "minibatch",
    "train.early_stop": "overfitting patience",
    "distributed.processes": "several two many processes ranks gpus ddp fsdp torchrun",
    "distributed.strategy": "several two many processes ddp fsdp parallel data-parallel",
    "train.threads": "cpu cores processor",
    "train.device": "gpu cuda cpu",
    "train.activation_checkpointing": "gradient checkpointing recompute memory",
    "train.precision": "bf16 fp16 mixed precision",
    "model.dropout": "overfitting regularisation",
    "model.n_layer": "depth layers blocks",
    "model.n_embd": "width d_model hidden size",
    "model.block_size": "context length window sequence",
    "model.n_kv_head": "kv cache gqa",
    "model.position": "rope rotary positional encoding",
    "model.activation": "gelu swiglu relu non-linearity",
    "model.qk_norm": "query key normalisation rmsnorm qwen stability",
    "model.zero_init": "initialisation zeros fixup",
    "model.untied_head": "weight tying tied lm_head unembedding",
    "model.logit_softcap": "gemma tanh softcapping",
    "model.value_residual": "resformer values",
    "model.mup_base_width": "mup transfer parametrization parametrisation tensor programs",
    "data.bpe_vocab_size": "vocabulary",
    "data.corpus": "dataset text",
    "samples.temperature": "sampling randomness",
    "lora.rank": "adapter r",
}
_OF_A_HEAD = ("attention", "interventions", "walk", "compare")
_PREVIOUS = "which head attends to the previous token before attention pattern"
_NEXT = "does it know bigrams what does it expect after the most likely predict continue next word"
_SPIKE = "batch sequences that a step read which text causes a loss spike outlier"
# Of a walk: text, other words, direction, stage.
_STAGES = (
    (
        "An attention weight, calculated",
        "walk pattern softmax score how is one number of a pattern calculated",
        "walk",
        "softmax",
    ),
    (
        "A weight's AdamW step",
        "walk backwards optimizer gradient update what does adamw do to one weight",
        "walk_back",
        "adamw",
    ),
)
# A question that one paragraph of a page answers: text, other words, page and place.
_PARAGRAPHS = (
    ("The loss at the start", "why does the loss start at ln v initial loss first uniform", "loss#uniform"),
    ("A good learning rate", "what is a good learning rate for this model", "learning-rate#a-rate-to-begin-with"),
)
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
    """The pages that have all of these words, those that have them most often first, and the way to all of them."""
    from llmlab_gui.learn.dock import LearnDock  # it comes with the docks

    words = meant(wanted.lower().split())
    if not words:
        return []
    counts = [
        (sum(text.count(word) for word in words), page) for page, text in _texts() if all(w in text for w in words)
    ]
    learn = window.docks.get("learn")
    assert learn is None or isinstance(learn, LearnDock)

    def show(name: str) -> None:
        if name:
            window.lab.open_concept(name)
        else:
            window.show_dock("learn")
        if learn is not None:
            learn.search_for(wanted)

    most = sorted(counts, key=lambda pair: -pair[0])[:_MOST_PAGES]
    found = [
        Command(page.title, partial(show, page.name), "Page", f"{count} {'times' if count > 1 else 'time'}")
        for count, page in most
    ]
    return [*found, Command(f"Search pages for “{wanted.strip()}”", partial(show, ""), "Learn")]


def _actions(window: MainWindow, actions: Iterable[QAction]) -> Iterator[Command]:
    for action in [*window.run_actions.all(), *actions]:
        if action.isEnabled():
            name = action.text().replace("&", "").rstrip("…")
            text = window.setups.text() if action is window.run_actions.train else name
            yield Command(text, action.trigger, "Do", keys_text(action), _ALSO.get(name, ""))


def _panels(window: MainWindow, dock_actions: Iterable[QAction]) -> Iterator[Command]:
    for (dock_id, dock), action in zip(window.docks.items(), dock_actions, strict=True):
        title, also = dock.windowTitle().replace("&&", "&"), _ALSO.get(f"dock:{dock_id}", "")
        at_head = partial(_show_head, window, dock_id) if dock_id in _OF_A_HEAD else None
        shown = partial(_show_panel, window, dock_id)
        yield Command(title, shown, "Show", keys_text(action), f"panel {also}", at_head=at_head)
    yield Command("Previous-token head", partial(_show_previous, window), "Show", also=_PREVIOUS)
    yield Command("Next token after a text", partial(_show_next, window), "Show", also=_NEXT)
    yield Command("Text of a loss spike", partial(_show_spike, window), "Show", also=_SPIKE)
    for text, also, *stage in _STAGES:
        yield Command(text, partial(_walk_to, window, *stage), "Show", also=also)
    for name in WORKSPACES:
        yield Command(name, partial(window.use_workspace, name), "Workspace")
    for choice in THEME_CHOICES:
        yield Command(THEMES[choice], partial(window.use_theme, choice), "Theme", also="mode colours")


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
    for tuning in presets_of(FinetuneSettings):
        asked = partial(lab.finetune_requested.emit, {"preset": tuning.name})
        yield Command(tuning.title, asked, "Fine-tune", about=tuning.description)
    for kind in KINDS.values():
        yield Command(kind.title, partial(lab.experiment_requested.emit, kind.name), "Experiment")


def _pages(window: MainWindow) -> Iterator[Command]:
    lab = window.lab
    for text, other, place in _PARAGRAPHS:
        yield Command(text, partial(lab.open_concept, place), "Learn", also=other)
    for page in _all_pages():
        also = _ALSO.get(f"concept:{page.name}", "")
        if page.group == PAPERS:
            shown = partial(lab.paper_requested.emit, page.name.removeprefix("papers/"), "")
            yield Command(page.title, shown, "Paper", also=also)
        yield Command(page.title, partial(lab.open_concept, page.name), "Learn", also=also)
        if page.group == GLOSSARY:
            for entry in page.entries:
                opened = partial(lab.open_concept, f"{page.name}#{anchor_of(entry.term)}")
                yield Command(entry.term, opened, "Term", also=entry.also, about=entry.meaning)


def _settings(window: MainWindow) -> Iterator[Command]:
    kinds: tuple[tuple[str, str, str, type[Any]], ...] = (
        ("setup", "Set-up", "pretraining", PretrainSettings),
        ("finetune_setup", "Fine-tune set-up", "fine-tuning", FinetuneSettings),
    )
    # Those of the form that Train would use come first.
    for dock_id, where, task, settings in sorted(
        kinds, key=lambda kind: window.docks.get(kind[0]) is not window.setups.shown
    ):
        for info in describe(settings):
            also = f"{info.section} {' '.join(info.choices)} {_ALSO.get(info.key, '')} {task}"
            shown = partial(window.setups.show_setting, dock_id, info.key)
            yield Command(info.name.replace("_", " "), shown, "Setting", where, also, info.help)


def _runs(window: MainWindow) -> Iterator[Command]:
    rows = window.lab.runs()
    for row in rows:
        yield Command(f"{row.name} ({row.status.state})", partial(window.lab.set_current, row.id), "Open run")
    for row in rows:
        if row.status.live:
            opened = partial(window.look_inside, f"{row.run.path}@live")
            yield Command(f"{row.name}, live", opened, "Look inside")
    for model in window.lab.inspection.recent.there(window.lab.outputs):
        yield Command(model.name, partial(window.look_inside, model.reference), "Look inside")


@cache
def _all_pages() -> list[Page]:
    return load_all()


@cache
def _texts() -> list[tuple[Page, str]]:
    """Each page with its text in small letters."""
    return [(page, page.text.lower()) for page in _all_pages()]
