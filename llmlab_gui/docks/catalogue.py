"""All docks of the window. Importing this loads pyqtgraph, which takes as long as all the rest of the window."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtWidgets import QWidget

from llmlab_gui.docks.adapter import AdapterDock
from llmlab_gui.docks.attention import AttentionDock
from llmlab_gui.docks.base import LabDock
from llmlab_gui.docks.check_report import CheckReportDock
from llmlab_gui.docks.checkpoints import CheckpointsDock
from llmlab_gui.docks.compare import CompareDock
from llmlab_gui.docks.contributions import ContributionsDock
from llmlab_gui.docks.data import DataDock
from llmlab_gui.docks.evolution import EvolutionDock
from llmlab_gui.docks.experiment import ExperimentDock
from llmlab_gui.docks.experiment_losses import ExperimentLossesDock
from llmlab_gui.docks.experiment_report import ExperimentReportDock
from llmlab_gui.docks.experiment_result import ExperimentResultDock
from llmlab_gui.docks.experiments import ExperimentsDock
from llmlab_gui.docks.finetune_setup import FinetuneSetupDock
from llmlab_gui.docks.geometry import GeometryDock
from llmlab_gui.docks.interventions import InterventionsDock
from llmlab_gui.docks.learn import LearnDock
from llmlab_gui.docks.learning_rate import LearningRateDock
from llmlab_gui.docks.lens import LensDock
from llmlab_gui.docks.log import LogDock
from llmlab_gui.docks.loss import LossDock
from llmlab_gui.docks.notebook import NotebookDock
from llmlab_gui.docks.paper import PaperDock
from llmlab_gui.docks.paper_check import CheckDock
from llmlab_gui.docks.paper_claims import ClaimsDock
from llmlab_gui.docks.paper_evidence import EvidenceDock
from llmlab_gui.docks.parameters import ParametersDock
from llmlab_gui.docks.prompt import PromptDock
from llmlab_gui.docks.queue import QueueDock
from llmlab_gui.docks.residual import ResidualDock
from llmlab_gui.docks.runs import RunsDock
from llmlab_gui.docks.samples import SamplesDock
from llmlab_gui.docks.setup import SetupDock
from llmlab_gui.docks.throughput import ThroughputDock
from llmlab_gui.docks.write import WriteDock
from llmlab_gui.lab import Lab


def connect_docks(docks: Mapping[str, LabDock], lab: Lab) -> None:
    """What one dock asks of another: Data shows what Fine-tune set-up describes, and the other way round."""
    tuning, data = docks["finetune_setup"], docks["data"]
    assert isinstance(tuning, FinetuneSetupDock)
    assert isinstance(data, DataDock)

    def use(source: str, model: str) -> None:
        lab.dock_requested.emit("finetune_setup")
        if model:
            tuning.set_base(model)
        if source:
            tuning.set_examples(source)

    tuning.settings_changed.connect(data.plan)
    data.use_wanted.connect(use)


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
        FinetuneSetupDock(lab, window),
        DataDock(lab, window),
        AdapterDock(lab, window),
        QueueDock(lab, window),
        ExperimentDock(lab, window),
        ExperimentLossesDock(lab, window),
        ExperimentResultDock(lab, window),
        ExperimentReportDock(lab, window),
        ExperimentsDock(lab, window),
        NotebookDock(lab, window),
        PaperDock(lab, window),
        CheckDock(lab, window),
        ClaimsDock(lab, window),
        EvidenceDock(lab, window),
        CheckReportDock(lab, window),
    ]
    return {dock.objectName().removeprefix("dock."): dock for dock in docks}
