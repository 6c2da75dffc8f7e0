"""A LoRA adapter as a folder of two files in PEFT's format: what is in it, read without torch.

adapter_config.json          r, lora_alpha, target_modules, the base's name, ...
adapter_model.safetensors    base_model.model.MODULE.lora_A.weight [r, in] and .lora_B.weight [out, r]

A module's weight W [out, in] becomes W + scale B A, where scale is alpha / r (Hu et al. 2021), or alpha / sqrt(r)
where the settings say use_rslora (Kalajdzievski 2023).

An adapter on the lab's own GPT has two forms, of equal factors: the lab's names, or those of the GPT-2 that the same
model is when it is exported, whose matrices are transposed (Conv1D). Either fits either of the two models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from llmlab.core.errors import LabError
from llmlab.core.files import read_json
from llmlab.gpt.gpt2_names import gpt2_name, own_name
from llmlab.models.adapter_patterns import require_quick
from llmlab.models.available import ADAPTER_FILE
from llmlab.models.weights import Array, TensorFile, Weights
from llmlab.store.checkpoints import ADAPTER_WEIGHTS_FILE

# The name of a base's digest in an adapter's safetensors metadata and in a checkpoint's manifest.
BASE_DIGEST = "base_sha256"
# What PEFT puts before a weight's name: two wrappers around the model.
PEFT_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?:embedding_)?(?P<which>[AB])(?:\.weight)?")
# Variants whose change of a weight is not scale B A.
_OTHER_SETTINGS = ("use_dora", "use_qalora", "lora_bias", "modules_to_save", "arrow_config", "use_bdlora")


@dataclass(frozen=True)
class Factors:
    """One module's adapter. a [r, in], b [out, r], float32. transposed: the module holds its weight as [in, out]."""

    module: str
    a: Array
    b: Array
    scale: float
    transposed: bool = False

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    @cached_property
    def delta(self) -> Array:
        """What is added to the module's weight, in the weight's own layout."""
        product = self.scale * (self.b @ self.a)
        return product.T if self.transposed else product


def read_factors(folder: Path) -> list[Factors]:
    """The pairs of an adapter's folder, by module, layers in order.

    LabError when it is damaged, or no plain LoRA.
    """
    settings = read_settings(folder)
    if settings.get("peft_type", "LORA") != "LORA":
        raise _foreign(folder, f"It is of the kind {settings.get('peft_type')}.")
    for name in _OTHER_SETTINGS:
        if settings.get(name):
            raise _foreign(folder, f"Its settings say {name}, which changes more than W + (alpha / r) B A.")
    pairs: dict[str, dict[str, str]] = {}
    embedded = set()
    file = TensorFile(folder / ADAPTER_WEIGHTS_FILE)
    for name in file:
        match = _FACTOR.fullmatch(name.removeprefix(PEFT_PREFIX))
        if match is None:
            raise _foreign(folder, f"Its weight {name} is not a factor of a LoRA.")
        pairs.setdefault(match["module"], {})[match["which"]] = name
        if "lora_embedding_" in name:
            embedded.add(match["module"])
    require_quick(settings, pairs, folder.name)
    found = []
    for module, names in pairs.items():
        if names.keys() != {"A", "B"}:
            raise _foreign(folder, f"It holds only one of the two factors of {module}.")
        a, b = file[names["A"]], file[names["B"]]
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or not a.size or not b.size:
            raise _foreign(folder, f"The factors of {module} have the shapes {b.shape} and {a.shape}.")
        # PEFT's layer of an embedding adds (B A) transposed; so does a Conv1D, whose settings say fan_in_fan_out.
        transposed = module in embedded or bool(settings.get("fan_in_fan_out"))
        found.append(Factors(module, a, b, _scale(folder, settings, module, int(a.shape[0])), transposed))
    if not found:
        raise _foreign(folder, "It holds no weights.")
    return sorted(found, key=lambda pair: [part.zfill(8) for part in pair.module.split(".")])  # layer 10 after layer 2


def other_form(pair: Factors) -> Factors | None:
    """The same change of the lab's GPT as one of the GPT-2 that it is exported as, or the other way around.

    None for a module that is in no block of either.
    """
    if theirs := gpt2_name(pair.module):
        return replace(pair, module=theirs, transposed=True)
    ours = own_name(pair.module)
    return replace(pair, module=ours, transposed=False) if ours else None


def with_adapter(below: Weights, folder: Path) -> Weights:
    """A base's weights with an adapter's change in them. LabError as `read_factors`."""
    pairs = read_factors(folder)
    pairs += [other for pair in pairs if (other := other_form(pair))]
    factors = {f"{pair.module}.weight": pair for pair in pairs}

    def read(name: str) -> Array | None:
        weight, pair = below(name), factors.get(name)
        return weight if weight is None or pair is None else weight + pair.delta

    return read


def has_own_names(weights: Iterable[str]) -> bool:
    """Whether an adapter's weights are named as the lab's own GPT names its modules."""
    matches = (_FACTOR.fullmatch(name.removeprefix(PEFT_PREFIX)) for name in weights)
    return any(match is not None and gpt2_name(match["module"]) is not None for match in matches)


def read_settings(folder: Path) -> dict[str, Any]:
    """adapter_config.json. LabError when it is missing or damaged."""
    settings = read_json(folder / ADAPTER_FILE)
    if settings is None:
        raise LabError(f"The adapter {folder.name} cannot be opened.", f"Its {ADAPTER_FILE} is missing or damaged.")
    return settings


def _scale(folder: Path, settings: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / r, where some modules may have an alpha of their own (PEFT's alpha_pattern: ends of names)."""
    alpha = settings.get("lora_alpha", 8)  # PEFT's own default, as that of r
    patterns = settings.get("alpha_pattern") or {}
    try:
        for pattern, value in patterns.items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = value
                break
        scale = float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank)
        if not math.isfinite(scale):
            raise ValueError(f"alpha is {alpha}")
        return scale
    except (TypeError, ValueError, OverflowError, AttributeError, re.error) as error:
        raise _foreign(folder, f"Its settings are wrong: {error}.") from error


def _foreign(folder: Path, why: str) -> LabError:
    return LabError(f"The adapter {folder.name} is not a LoRA that the lab can read.", why)
