"""A lab with the desks that its window adds to it."""

from __future__ import annotations

from pathlib import Path

from llmlab_gui.experiments.desk import ExperimentDesk
from llmlab_gui.experiments.poller import EXPERIMENTS
from llmlab_gui.lab.lab import Lab
from llmlab_gui.paper.desk import PaperDesk


class WholeLab(Lab):
    """experiments and papers are as the window has them."""

    def __init__(self, outputs: Path) -> None:
        super().__init__(outputs)
        self.experiments = ExperimentDesk(outputs, EXPERIMENTS, self)
        self.add_desk(self.experiments)
        self.papers = PaperDesk(self, self)

    def shutdown(self) -> None:
        self.papers.shutdown()
        super().shutdown()
