"""Training with a sealed fault, before its steps (`llmlab.mysteries.broken_loop` takes them)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlab.core.mystery_settings import MysterySettings
from llmlab.core.setting_info import SettingInfo
from llmlab.core.settings import PretrainSettings
from llmlab.training.pretraining import Pretraining

if TYPE_CHECKING:
    from llmlab.training.loop import Trainer


class Mystery(Pretraining):
    """From scratch, on text, with one thing broken."""

    def fits(self, changed: SettingInfo, settings: PretrainSettings) -> bool:
        return changed.section != "mystery" and super().fits(changed, settings)

    def trainer(self, settings: PretrainSettings) -> type[Trainer]:
        from llmlab.mysteries.broken_loop import trainer_of

        assert isinstance(settings, MysterySettings)
        return trainer_of(settings)
