"""The pretrained models that are on this machine: what a claim about such models is tested on unless told otherwise.

What is here is found by `llmlab.models.available`; this module chooses among it. No torch.
"""

from __future__ import annotations

from pathlib import Path

from llmlab.core.errors import LabError
from llmlab.models.available import available_models, cached_models
from llmlab.models.reference import GgufFile, HubModel, ModelFolder, parse

# Of weights as they are stored: about a billion parameters in 16 bits. Larger ones read a prompt in minutes on a
# processor, so they are taken only when they are named.
MOST_BYTES = 2_000_000_000
_PRETRAINED = ("huggingface", "gguf")


def models_here(outputs: Path, most_bytes: int = MOST_BYTES) -> list[str]:
    """References of pretrained models, smallest first: of installed packages, $LLMLAB_MODELS and the hub's cache.

    What lies in `outputs` came out of the lab itself, and adapters are no models of their own: both are left out, and
    can be named. So are models whose weights take more than `most_bytes`.
    """
    sizes: dict[str, int] = {}
    for model in available_models(outputs):
        if model.kind not in _PRETRAINED or Path(model.reference).is_relative_to(outputs.resolve()):
            continue
        try:
            size = sum(path.stat().st_size for path in _weights(model.reference, outputs))
        except (LabError, OSError):  # a name that two things bear, or a file that went away meanwhile
            continue
        if 0 < size <= most_bytes:
            sizes[model.reference] = size
    return sorted(sizes, key=lambda reference: sizes[reference])


def _weights(reference: str, outputs: Path) -> list[Path]:
    """The files that hold a model's weights."""
    match parse(reference, outputs):
        case GgufFile(path):
            return [path]
        case ModelFolder(path):
            return sorted(path.glob("*.safetensors"))
        case HubModel(name):
            return sorted(cached_models()[name].glob("*.safetensors"))
        case _:
            return []
