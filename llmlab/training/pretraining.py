"""Training from scratch on text, before its steps (`llmlab.training.loop` takes them). No torch until it is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llmlab.core.config import with_values
from llmlab.core.paths import expanded
from llmlab.core.setting_info import SettingInfo
from llmlab.core.settings import PretrainSettings
from llmlab.gpt.estimate import Memory, estimate_pretraining, expected_vocab_size
from llmlab.training.kinds import Levers, TrainingKind, smaller_batch, steps_and_evaluations

if TYPE_CHECKING:
    from llmlab.training.loop import Trainer
    from llmlab.training.workplace import Workplace

# A worker's start: interpreter, torch, reading the text, measuring the device. Processor time measured on two cores.
_START_SECONDS = 6.0
_TOKENIZERS = ("gpt2", "compact", "bpe", "char")  # by falling size of the vocabulary
# What decides which id means which text. All kinds but gpt2 take their vocabulary from the text itself.
_VOCABULARY = ("data.tokenizer", "data.bpe_vocab_size")
_TEXT = ("data.corpus", "data.max_tokens")


def _shorter_context(settings: PretrainSettings) -> dict[str, Any] | None:
    return {"model.block_size": settings.model.block_size // 2} if settings.model.block_size >= 32 else None


def _smaller_vocabulary(settings: PretrainSettings) -> dict[str, Any] | None:
    here = expected_vocab_size(settings.data)
    for name in _TOKENIZERS:
        changed = with_values(settings, {"data.tokenizer": name}).data
        if expected_vocab_size(changed) < here:
            return {"data.tokenizer": name}
    return None


def _smaller_model(settings: PretrainSettings) -> dict[str, Any] | None:
    """A smaller vocabulary where the embedding is most of it, else half the layers, else half of n_embd."""
    model, known = settings.model, estimate_pretraining(settings)
    if 2 * known.embedding_parameters > known.parameters and (changed := _smaller_vocabulary(settings)) is not None:
        return changed
    if model.n_layer > 4:
        return {"model.n_layer": -(-model.n_layer // 2)}
    if model.n_head % 2 == 0 and model.n_embd >= 64:  # heads keep their size
        return {"model.n_embd": model.n_embd // 2, "model.n_head": model.n_head // 2, "model.n_kv_head": 0}
    return {"model.n_embd": model.n_embd // 2} if model.n_embd >= 64 else None


def _held_out(settings: PretrainSettings) -> int:
    """About how many sequences the held-out text has. A token of several characters has four, as GPT-2's in English."""
    from llmlab.data.corpora import find_corpus

    data = settings.data
    tokens = find_corpus(data.corpus).bytes // (1 if data.tokenizer == "char" else 4)
    tokens = min(tokens, data.max_tokens or tokens)
    return int(tokens * data.val_fraction / settings.model.block_size)


class Pretraining(TrainingKind[PretrainSettings]):
    """From scratch, on text."""

    levers: ClassVar[Levers] = {
        "activations": (smaller_batch, _shorter_context),
        "vocabulary": (_smaller_vocabulary, smaller_batch),
        "learning": (_smaller_model,),
    }

    def pinned(self, settings: PretrainSettings, outputs: Path) -> PretrainSettings:
        from llmlab.data.corpora import find_corpus  # brings numpy, which `--help` should not wait for

        path = expanded(settings.data.corpus)
        corpus = find_corpus(settings.data.corpus)
        if corpus.kind == "mixture":  # its name has the whole paths
            return with_values(settings, {"data.corpus": corpus.name})
        if corpus.kind == "yours" and not path.is_absolute():
            return with_values(settings, {"data.corpus": str(path.resolve())})
        return settings

    def fits(self, changed: SettingInfo, settings: PretrainSettings) -> bool:
        unfit = _VOCABULARY if settings.data.tokenizer == "gpt2" else _VOCABULARY + _TEXT
        return changed.key not in unfit and (changed.section != "model" or changed.name == "dropout")

    def seconds(self, settings: PretrainSettings, outputs: Path) -> float:
        held_out = 0 if settings.train.eval_sequences else _held_out(settings)
        steps = steps_and_evaluations(settings, held_out) - settings.train.steps + settings.full_steps
        return _START_SECONDS + estimate_pretraining(settings).seconds_per_step * steps

    def memory(self, settings: PretrainSettings, outputs: Path, *, read: bool = False) -> Memory:
        return estimate_pretraining(settings).memory

    def trainer(self, settings: PretrainSettings) -> type[Trainer]:
        """What takes its steps."""
        from llmlab.training.loop import Trainer

        return Trainer

    def make(self, place: Workplace, settings: PretrainSettings) -> Trainer:
        """Raises LabError when it cannot fit into the memory of the device."""
        from llmlab.data.dataset import load_dataset
        from llmlab.training.room import require_room

        data = load_dataset(settings.data, settings.model.block_size, place.tell)
        device = place.device
        asked = with_values(settings, {"train.device": device.kind, "train.precision": device.precision})
        if device.kind != "cpu":  # attention keeps no patterns there, with dropout or without
            asked = with_values(asked, {"model.dropout": 0.0})
        if place.processes.rank == 0:  # the others begin when it has begun
            place.recorder.prepare("Making the model")  # in a moment: a stop that is asked saves step 0
            need = estimate_pretraining(asked, data.tokenizer.vocab_size).memory
            if device.kind != "cpu":  # each has a device of its own, and saves from main memory
                need = replace(need, processes=1, saving=0)
            require_room(asked, need, device.free_bytes(), place.run.outputs)
        return self.trainer(settings)(place, settings, data)
