"""All docks of the window. Importing this loads pyqtgraph, which takes as long as all the rest of the window."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtWidgets import QWidget

from llmlab.studies.experiments.outcomes import ExperimentResults
from llmlab_gui.diagnose.dock import DiagnoseDock
from llmlab_gui.experiments.desk import ExperimentDesk
from llmlab_gui.experiments.list_dock import ExperimentsDock
from llmlab_gui.experiments.losses import ExperimentLossesDock
from llmlab_gui.experiments.report_dock import experiment_report
from llmlab_gui.experiments.result import ExperimentResultDock
from llmlab_gui.experiments.setup import ExperimentDock
from llmlab_gui.finetune.adapter import AdapterDock
from llmlab_gui.finetune.data import DataDock
from llmlab_gui.finetune.setup import FinetuneSetupDock
from llmlab_gui.inside.attention import AttentionDock
from llmlab_gui.inside.compare import CompareDock
from llmlab_gui.inside.contributions import ContributionsDock
from llmlab_gui.inside.evolution import EvolutionDock
from llmlab_gui.inside.geometry import GeometryDock
from llmlab_gui.inside.interventions import InterventionsDock
from llmlab_gui.inside.lens import LensDock
from llmlab_gui.inside.parameters import ParametersDock
from llmlab_gui.inside.prompt import PromptDock
from llmlab_gui.inside.residual import ResidualDock
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.learn.dock import LearnDock
from llmlab_gui.notebook.dock import NotebookDock
from llmlab_gui.paper.check import CheckDock, check_report
from llmlab_gui.paper.claims import ClaimsDock
from llmlab_gui.paper.desk import PaperDesk
from llmlab_gui.paper.evidence import EvidenceDock
from llmlab_gui.paper.notes import PaperDock
from llmlab_gui.practice.dock import PracticeDock
from llmlab_gui.rebuild.dock import RebuildDock
from llmlab_gui.train.checkpoints import CheckpointsDock
from llmlab_gui.train.log import LogDock
from llmlab_gui.train.loss import LossDock
from llmlab_gui.train.queue import QueueDock
from llmlab_gui.train.runs import RunsDock
from llmlab_gui.train.samples import SamplesDock
from llmlab_gui.train.setup import SetupDock
from llmlab_gui.train.step_charts import LearningRateDock, ThroughputDock
from llmlab_gui.walk.dock import WalkDock
from llmlab_gui.write.dock import WriteDock


def connect_docks(docks: Mapping[str, LabDock], lab: Lab) -> None:
    """What one dock asks of another: Data shows what Fine-tune set-up describes, and the other way round."""
    setup, data = docks["finetune_setup"], docks["data"]
    assert isinstance(setup, FinetuneSetupDock)
    assert isinstance(data, DataDock)

    def use(source: str, model: str) -> None:
        lab.dock_requested.emit("finetune_setup")
        if model:
            setup.set_base(model)
        if source:
            setup.set_examples(source)

    setup.settings_changed.connect(data.show_setup)
    data.use_wanted.connect(use)


def make_docks(
    lab: Lab, experiments: ExperimentDesk[ExperimentResults], papers: PaperDesk, window: QWidget
) -> dict[str, LabDock]:
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
        WalkDock(lab, window),
        RebuildDock(lab, window),
        FinetuneSetupDock(lab, window),
        DataDock(lab, window),
        AdapterDock(lab, window),
        QueueDock(lab, window),
        ExperimentDock(lab, experiments, window),
        ExperimentLossesDock(lab, experiments, window),
        ExperimentResultDock(lab, experiments, window),
        experiment_report(lab, experiments, window),
        ExperimentsDock(lab, experiments, window),
        NotebookDock(lab, window),
        PaperDock(lab, papers, window),
        CheckDock(lab, papers, window),
        ClaimsDock(lab, papers, window),
        EvidenceDock(lab, papers, window),
        check_report(lab, papers, window),
        DiagnoseDock(lab, window),
        PracticeDock(lab, window),
    ]
    return {dock.objectName().removeprefix("dock."): dock for dock in docks}
