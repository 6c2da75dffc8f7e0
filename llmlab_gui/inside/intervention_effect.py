"""The effect of interventions: predictions before and after, the watched logit, and where the change spread."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QLabel, QWidget

from llmlab.inspection.archive import Archive
from llmlab_gui.charts.heatmap import Heat, Heatmap
from llmlab_gui.charts.layer_chart import LayerChart, numbered
from llmlab_gui.host.token_texts import TokenTexts
from llmlab_gui.inside.ranked_tokens import Ranked, RankedTokens
from llmlab_gui.widgets.alternatives import visible
from llmlab_gui.widgets.layouts import column


class InterventionEffect(QWidget):
    """Shows an archive of kind `intervention` at one token. `chosen(token)`: a place was clicked.

    moved: a map of where the change went, for whoever has room for it.
    """

    chosen = Signal(int)

    def __init__(self, texts: TokenTexts) -> None:
        super().__init__()
        self._texts = texts
        self.archive: Archive | None = None
        self._token = 0
        self.headline = QLabel(wordWrap=True, textInteractionFlags=Qt.TextInteractionFlag.TextSelectableByMouse)
        self.tokens = RankedTokens("Most likely next tokens, before and after")
        self.kl = LayerChart("KL", "nats", x_label="token")
        self.moved = Heatmap("How far the residual stream moved, layer by token", square=False)
        self.kl.setToolTip("KL(before ‖ after) of the predictions at each token, in nats")
        column(self.headline, self.tokens, (self.kl, 1), into=self)
        self.moved.clicked.connect(lambda _layer, token: self.chosen.emit(token))
        texts.arrived.connect(self._redraw)

    def show_effect(self, archive: Archive, token: int) -> None:
        """Another intervention, read at one token."""
        self.archive, self._token = archive, token
        self.kl.show_lines([numbered("KL", archive["kl"], markers=True, legend="")])
        self._draw_moved(archive)
        self._redraw()

    def show_token(self, token: int) -> None:
        """The same, read elsewhere."""
        self._token = token
        self._redraw()

    def _redraw(self) -> None:
        archive = self.archive
        if archive is None:
            return
        place = min(self._token, len(archive.metadata.tokens) - 1)
        self.tokens.show_columns(
            [Ranked(name, self._pairs(archive, name, place), color) for color, name in enumerate(("before", "after"))]
        )
        self.headline.setText(headline(archive, place))
        self.moved.choose(-1, place)

    def _pairs(self, archive: Archive, name: str, place: int) -> tuple[tuple[str, float], ...]:
        ids, chances = archive[f"{name}/ids"][place].tolist(), archive[f"{name}/probability"][place].tolist()
        model = archive.metadata.model
        return tuple((self._texts.text(model, id), chance) for id, chance in zip(ids, chances, strict=True))

    def _draw_moved(self, archive: Archive) -> None:
        if "change/post_ffn" not in archive:  # it would have taken too much memory
            return
        values = np.asarray(archive["change/post_ffn"])
        tokens = [visible(token) for token in archive.metadata.tokens]
        self.moved.describe = lambda layer, token: (
            f"After layer {layer}, token {token} “{tokens[token]}”: the residual stream moved by "
            f"{values[layer, token]:.6g} of its length"
        )
        rows = [str(layer) for layer in range(len(values))]
        self.moved.show_heat(Heat(values, rows, tokens, "layer", "token", unit="of its length"))


def headline(archive: Archive, place: int) -> str:
    """The watched logit before and after, in a sentence; and the KL at the position that is read."""
    more = archive.metadata.more
    before, after = (float(archive[f"target/{name}"][0]) for name in ("before", "after"))
    against = f" − “{visible(more['against_text'])}”" if more.get("against_text") else ""
    text = (
        f"Logit of “{visible(more.get('answer_text', ''))}”{against} at token {more.get('position', '')}: "
        f"{before:.4f} → {after:.4f} ({after - before:+.4f})"
    )
    if "target/source" in archive:
        text += f"; in the source {float(archive['target/source'][0]):.4f}"
    return f"{text}. KL at token {place}: {float(archive['kl'][place]):.4g} nats."
