"""Choosing a corpus: by name, or a file or folder of one's own; and fetching one that is not here."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QSignalBlocker, Signal
from PySide6.QtWidgets import QInputDialog

from llmlab.core.errors import LabError
from llmlab.core.progress import Progress
from llmlab.core.settings import corpus_title, mixture_parts
from llmlab.data.corpora import Corpus, corpora, fetch, find_corpus
from llmlab_gui.forms.editors import Editor
from llmlab_gui.host.long_work import LongWork
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.buttons import FileButton, push_button
from llmlab_gui.widgets.labels import QuietLabel, labelled
from llmlab_gui.widgets.layouts import beside, choice_box, column, settling_timer
from llmlab_gui.widgets.numbers import bytes_text
from llmlab_gui.widgets.progress_bar import ProgressBar

_WHOLE = 1000  # of the bar
_TEXTS = "Texts (*.txt *.jsonl *.parquet);;All files (*)"


class CorpusEditor(Editor):
    """The value is a corpus's name, a path, or a mixture. `missing`: a known corpus that is not on this machine."""

    failed = Signal(object)  # LabError: fetching
    state_changed = Signal()  # it became known what the corpus is, or it arrived

    def __init__(self) -> None:
        super().__init__()
        self._background, self._fetches = Background(self), LongWork(self)
        self._named: dict[str, Corpus] = {}
        self._fetching = ""
        self.corpus: Corpus | None = None
        self.problem: LabError | None = None
        self.combo = choice_box("Corpus", least=10)
        self.own = FileButton("Your own text", "Choose your own text")
        self.own.add_file("A file: .txt, .jsonl or .parquet…", "Your own text", _TEXTS)
        self.own.add_folder("A folder of .txt files…", "A folder of texts")
        self.own.menu().addAction("A mixture of texts…", self._choose_mixture)
        self.own.chosen.connect(self.set_value)
        self.about = QuietLabel()
        self.fetch_button = push_button("Fetch", self._fetch_or_cancel)
        self.bar = labelled(ProgressBar(text=True), "Fetching the corpus")
        across = beside(self.combo, self.own, grows=self.combo)
        below = beside(self.fetch_button, self.bar, grows=self.bar)
        self.hold(column(across, self.about, below, spacing=2), self.combo)
        self._settle = settling_timer(self, 0, self._look)
        self._fetches.working_changed.connect(self._show_progress)
        self.combo.currentIndexChanged.connect(self._chosen)
        self.combo.opens.connect(self._list)
        self._list()

    @property
    def missing(self) -> bool:
        """Whether the text must be fetched before a run can read it."""
        return self.corpus is not None and not self.corpus.here()

    def check(self) -> None:
        """LabError when a run could not read the text, as far as that is known."""
        if self.problem is not None:
            raise self.problem
        if self.missing and self.corpus is not None:
            raise LabError(f"{self.corpus.title} is not on this machine.", "", "Press Fetch, or choose another.")

    def value(self) -> Any:
        return self.combo.currentData() or ""

    def set_value(self, value: Any) -> None:
        place = self.combo.findData(str(value))
        if place < 0:
            self.combo.addItem(corpus_title(str(value)) or str(value), str(value))
            place = self.combo.count() - 1
        self.combo.setCurrentIndex(place)

    def _list(self) -> None:
        """Offers every corpus that has a name now: a terminal may have built one. What is chosen stays."""
        kept = self.value()
        self._named = {corpus.name: corpus for corpus in corpora()}
        with QSignalBlocker(self.combo):
            self.combo.fill([(name, corpus.title) for name, corpus in self._named.items()])
            if kept:
                self.set_value(kept)
        self.corpus = self._named.get(self.value(), self.corpus)
        self._settle.start()

    def _chosen(self) -> None:
        self.corpus, self.problem = self._named.get(self.value()), None
        if self.corpus is not None:
            self._describe()
        else:
            self._settle.start()
        self.edited.emit()

    def _look(self) -> None:
        """What the chosen text is: a folder of one's own may be large, so away from the window's thread."""
        wanted = self.value()
        if wanted in self._named:
            self._describe()
            return

        def found(corpus: Corpus) -> None:
            if wanted == self.value():
                self.corpus, self.problem = corpus, None
                self._describe()

        def not_found(error: LabError) -> None:
            if wanted == self.value():
                self.corpus, self.problem = None, error
                self._describe()

        self._background.run(lambda: find_corpus(wanted, self._background.check), found, not_found)

    def _describe(self) -> None:
        corpus = self.corpus
        if corpus is None:
            self.about.setText(str(self.problem) if self.problem else "")
        else:
            size = f" {bytes_text(corpus.bytes)}." if corpus.bytes else ""
            away = " <b>Not on this machine yet.</b>" if self.missing else ""
            self.about.setText(f"{corpus.description}{size}{away}")
            self.about.setToolTip(f"Licence: {corpus.licence}\nFrom: {corpus.origin}")
        fetching = bool(self._fetching) and self._fetching == self.value()
        self.fetch_button.setVisible(self.missing or fetching)
        self.fetch_button.setText("Cancel" if fetching else f"Fetch {bytes_text(corpus.bytes)}" if corpus else "Fetch")
        self.fetch_button.setEnabled(fetching or not self._fetching)
        self.bar.setVisible(fetching)
        self.state_changed.emit()

    def _fetch_or_cancel(self) -> None:
        if self._fetching:
            self._fetches.cancel()
            self.fetch_button.setEnabled(False)
            return
        corpus = self.corpus
        if corpus is None:
            return
        self._fetching = corpus.name

        def work(progress: Progress) -> None:
            fetch(corpus, lambda _, done, total: progress(_so_far(done, total), done, total if done else 0))

        self._fetches.run(_so_far(0, 0), work, lambda _: self._fetched(), self._fetched, self._fetched)
        self._describe()

    def _fetched(self, error: LabError | None = None) -> None:
        self._fetching = ""
        self._describe()
        if error is not None:
            self.failed.emit(error)

    def _show_progress(self) -> None:
        working = self._fetches.working
        if working is not None:
            self.bar.setRange(0, 0 if working.share is None else _WHOLE)
            self.bar.setValue(round(_WHOLE * (working.share or 0.0)))
            self.bar.setFormat(working.what)

    def _choose_mixture(self) -> None:
        now = str(self.value())
        other = "austen" if now == "shakespeare" else "shakespeare"
        typed, agreed = QInputDialog.getText(
            self,
            "A mixture of texts",
            "Corpora or paths with the share of each in a batch:",
            text=now if mixture_parts(now) else f"{now}:0.7,{other}:0.3",
        )
        if agreed and typed.strip():
            self.set_value(typed.strip())


def _so_far(done: float, total: float) -> str:
    """In bytes."""
    of = f" of {bytes_text(total)}" if total else ""
    return f"{bytes_text(done)}{of}" if done else "Connecting…"
