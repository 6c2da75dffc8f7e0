"""Training with pieces of the learner's own, before its steps (`rebuilt_run` and `retuned_run` take them). No torch.

The worker of such a run is the learner's process: it runs their code. No other process of the lab does, besides the
one in which a piece is checked. Weights have the lab's names, so that every panel opens them with the lab's own model.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmlab.core.errors import UsageError, explained
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.rebuilt_settings import RetunedSettings
from llmlab.core.setting_info import SettingInfo
from llmlab.core.settings import PretrainSettings
from llmlab.exercises.pieces import Workbook, all_pieces, find_piece
from llmlab.store.run_folder import RunFolder
from llmlab.training.finetuning.kind import Finetuning
from llmlab.training.pretraining import Pretraining

if TYPE_CHECKING:
    from llmlab.exercises.retuned_run import Retuner
    from llmlab.training.loop import Trainer
    from llmlab.training.workplace import Workplace

LORA, LENS = "lora", "logit-lens"
# Pieces that training from scratch has no place for: they are used on a model.
ON_A_MODEL = (LORA, LENS)


class Rebuilding(Pretraining):
    """From scratch, on text, with some pieces in place of the lab's."""

    def fits(self, changed: SettingInfo, settings: PretrainSettings) -> bool:
        return changed.section != "pieces" and super().fits(changed, settings)

    def trainer(self, settings: PretrainSettings) -> type[Trainer]:
        from llmlab.exercises.rebuilt_run import RebuiltTrainer

        return RebuiltTrainer


class Retuning(Finetuning):
    """Fine-tuning with the learner's LoRA in place of the lab's, or of PEFT's."""

    def fits(self, changed: SettingInfo, settings: FinetuneSettings) -> bool:
        return changed.section != "pieces" and super().fits(changed, settings)

    def make(self, place: Workplace, settings: FinetuneSettings) -> Retuner:
        from llmlab.exercises.retuned_run import Retuner

        assert isinstance(settings, RetunedSettings)
        return Retuner(place, settings)


def usable(workbook: Workbook, names: Sequence[str], settings: PretrainSettings | FinetuneSettings) -> list[str]:
    """The pieces to train with, in order: those named, or all that have passed and that such a run has a place for.

    UsageError for what cannot be used.
    """
    refused = {name: _why_not(name, settings) for name in (piece.name for piece in all_pieces())}
    for name in names:
        find_piece(name)
        if (error := refused[name]) is not None:
            raise error
    states = {piece.name: workbook.state(piece) for piece in all_pieces() if refused[piece.name] is None}
    chosen = [name for name, state in states.items() if (name in names if names else state == "passed")]
    if not chosen:
        raise UsageError(
            "No piece of yours can be used yet.",
            "None has passed that this run has a place for.",
            f"Begin with: llmlab-run exercise start {next(iter(states))}",
        )
    for name in chosen:
        require_passed(workbook, name)
    return chosen


def require_passed(workbook: Workbook, name: str) -> None:
    """UsageError for a piece that has not passed as it stands."""
    if workbook.state(find_piece(name)) != "passed":
        raise UsageError(
            f"{name} has not passed as it stands.", "Only what passes is used.", f"llmlab-run exercise check {name}"
        )


def _why_not(name: str, settings: PretrainSettings | FinetuneSettings) -> UsageError | None:
    """Why a run has no place for a piece."""
    if isinstance(settings, FinetuneSettings):
        return None if name == LORA else UsageError(f"{name} is not part of fine-tuning.", "lora is.")
    if name in ON_A_MODEL:
        do = f"llmlab-run exercise use {name} --model RUN{' --prompt TEXT' if name == LENS else ''}"
        return UsageError(f"{name} is not part of training from scratch.", "It is used on a model, alone.", do)
    if name == "bpe" and settings.data.tokenizer == "char":
        why = "data.tokenizer is char, which merges nothing."
        return UsageError("This run has no place for bpe.", why, "Add --set data.tokenizer=bpe")
    return None


def put_pieces(run: RunFolder, workbook: Workbook) -> None:
    """Copies the files into the run's folder: what is written on in outputs/exercises does not change the run. All of
    them, since a piece may import its neighbours."""
    with explained(f"Your pieces could not be copied to {run.pieces}."):
        run.pieces.mkdir(exist_ok=True)
        for file in workbook.folder.glob("*.py"):
            shutil.copyfile(file, run.pieces / file.name)
