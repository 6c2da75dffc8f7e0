"""All docks of the window. Importing this loads pyqtgraph, which takes as long as all the rest of the window."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from llmlab_gui.docks.attention import AttentionDock
from llmlab_gui.docks.base import LabDock
from llmlab_gui.docks.checkpoints import CheckpointsDock
from llmlab_gui.docks.compare import CompareDock
from llmlab_gui.docks.contributions import ContributionsDock
from llmlab_gui.docks.data import DataDock
from llmlab_gui.docks.evolution import EvolutionDock
from llmlab_gui.docks.geometry import GeometryDock
from llmlab_gui.docks.interventions import InterventionsDock
from llmlab_gui.docks.learn import LearnDock
from llmlab_gui.docks.learning_rate import LearningRateDock
from llmlab_gui.docks.lens import LensDock
from llmlab_gui.docks.log import LogDock
from llmlab_gui.docks.loss import LossDock
from llmlab_gui.docks.parameters import ParametersDock
from llmlab_gui.docks.prompt import PromptDock
from llmlab_gui.docks.residual import ResidualDock
from llmlab_gui.docks.runs import RunsDock
from llmlab_gui.docks.samples import SamplesDock
from llmlab_gui.docks.setup import SetupDock
from llmlab_gui.docks.throughput import ThroughputDock
from llmlab_gui.docks.write import WriteDock
from llmlab_gui.lab import Lab


def make_docks(lab: Lab, window: QWidget) -> dict[str, LabDock]:
    """Every dock by its id, in the order of the View menu."""
    docks: list[LabDock] = [
        RunsDock(lab, window),
        SetupDock(lab, window),
        LossDock(lab, window),
        LearningRateDock(lab, window),
        ThroughputDock(lab, window),
        SamplesDock(lab, window),
        CheckpointsDock(lab, window),
        DataDock(lab, window),
        WriteDock(lab, window),
        LogDock(lab, window),
        LearnDock(lab, window),
        PromptDock(lab, window),
        AttentionDock(lab, window),
        ContributionsDock(lab, window),
        ResidualDock(lab, window),
        LensDock(lab, window),
        InterventionsDock(lab, window),
        CompareDock(lab, window),
        EvolutionDock(lab, window),
        GeometryDock(lab, window),
        ParametersDock(lab, window),
    ]
    return {dock.objectName().removeprefix("dock."): dock for dock in docks}
