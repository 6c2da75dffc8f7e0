"""Training with pieces of the learner's own, before its steps (`llmlab.exercises.rebuilt_run` takes them). No torch.

The worker of such a run is the learner's process: it runs their code. No other process of the lab does, besides the
one in which a piece is checked. Weights have the lab's names, so that every panel opens them with the lab's own model.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmlab.core.config import SettingInfo
from llmlab.core.errors import LabError, UsageError
from llmlab.core.settings import PretrainSettings
from llmlab.exercises.pieces import Workbook, all_pieces, find_piece
from llmlab.store.run_folder import RunFolder
from llmlab.training.pretraining import Pretraining

if TYPE_CHECKING:
    from llmlab.training.loop import Trainer

# Pieces that training from scratch has no place for: text is tokenized before, nothing is fine-tuned or inspected.
NOT_IN_A_RUN = ("bpe", "lora", "logit-lens")


class Rebuilding(Pretraining):
    """From scratch, on text, with some pieces in place of the lab's."""

    def fits(self, changed: SettingInfo, settings: PretrainSettings) -> bool:
        return changed.section != "pieces" and super().fits(changed, settings)

    def trainer(self, settings: PretrainSettings) -> type[Trainer]:
        from llmlab.exercises.rebuilt_run import RebuiltTrainer

        return RebuiltTrainer


def usable(workbook: Workbook, names: Sequence[str]) -> list[str]:
    """The pieces to train with, in order: those named, or all that have passed. UsageError for what cannot be used."""
    for name in names:
        find_piece(name)
        if name in NOT_IN_A_RUN:
            raise UsageError(f"{name} is no part of training from scratch.", "It is checked, and not used in a run.")
    states = {piece.name: workbook.state(piece) for piece in all_pieces() if piece.name not in NOT_IN_A_RUN}
    chosen = [name for name, state in states.items() if (name in names if names else state == "passed")]
    if not chosen:
        raise UsageError(
            "No piece of yours can be used yet.", "None has passed.", "Begin with: llmlab-run exercise start softmax"
        )
    for name in chosen:
        if states[name] != "passed":
            raise UsageError(
                f"{name} has not passed as it stands.", "Only what passes is used.", f"llmlab-run exercise check {name}"
            )
    return chosen


def put_pieces(run: RunFolder, workbook: Workbook, names: Sequence[str]) -> None:
    """Copies the files into the run's folder: what is written on in outputs/exercises does not change the run."""
    folder = pieces_of(run)
    try:
        folder.mkdir(exist_ok=True)
        for name in names:
            shutil.copyfile(workbook.file(find_piece(name)), folder / f"{name}.py")
    except OSError as error:
        raise LabError(f"Your pieces could not be copied to {folder}.", f"{error.strerror or error}.") from error


def pieces_of(run: RunFolder) -> Path:
    """Where a run has its copies."""
    return run.path / "pieces"
