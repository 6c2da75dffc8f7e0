"""What a checkpoint holds, so that a resumed run ends bitwise equal to one that was never interrupted.

Weights are safetensors. Everything else is one dictionary of tensors and plain values that `torch.load` reads
with weights_only=True: nothing in a checkpoint is ever unpickled into code, whoever wrote it.
"""

from __future__ import annotations

import contextlib
import pickle
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from llmlab.core.device import is_out_of_memory
from llmlab.core.errors import LabError, brief
from llmlab.core.records import from_plain
from llmlab.store.checkpoints import MODEL_FILE, STATE_FILE, checkpoint_name
from llmlab.training.optimizer import is_muons
from llmlab.training.pace import Progress
from llmlab.training.processes import is_lost_contact

# 2 holds weights. A state without them is still written as 1, which every version of the lab resumes.
STATE_FORMAT = 2


@dataclass
class Origin:
    """What an exact resume depends on besides the state itself; compared on resume, differences are said."""

    settings: dict[str, Any]
    data_key: str
    threads: int
    device: str
    precision: str
    versions: dict[str, str]
    processes: int = 1
    compiled: bool = False


@dataclass
class LoadedState:
    """A training_state.pt that was read and found well-formed."""

    progress: Progress
    origin: Origin
    events_bytes: int
    optimizer: dict[str, dict[str, Tensor]]
    scaler: dict[str, Any]
    random: dict[str, Any]
    weights: dict[str, Tensor]  # of the model that trains, where model.safetensors is their average; else empty


def save_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    """Writes a model's weights into a staging folder. Raises OSError when the disk is full."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in _plain_names(weights).items()}
    with system_errors(folder):
        safetensors.torch.save_file(weights, folder / MODEL_FILE)


def save_state(
    folder: Path,
    optimizer: dict[str, dict[str, Tensor]],
    scaler: torch.amp.GradScaler,
    progress: Progress,
    origin: Origin,
    events_bytes: int,
    trained: nn.Module | None = None,
) -> None:
    """Writes all but the weights into a staging folder. Raises OSError when the disk is full.

    optimizer: as `moments` has it. trained: the model that trains, where the weights that `save_weights` wrote are
    their average.
    """
    state = {
        "format": 1 if trained is None else STATE_FORMAT,
        "progress": asdict(progress),
        "origin": asdict(origin),
        "events_bytes": events_bytes,
        "optimizer": optimizer,
        "scaler": scaler.state_dict(),
        "random": random_state(),
    }
    if trained is not None:
        state["weights"] = _plain_names(trained.state_dict())
    with system_errors(folder), (folder / STATE_FILE).open("wb") as file:
        torch.save(state, file)  # by its name, it would lose the system's error


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """What an optimizer keeps of each parameter, by its name."""
    names = {parameter: name for name, parameter in _plain_names(dict(model.named_parameters())).items()}
    return {names[parameter]: dict(values) for parameter, values in optimizer.state.items()}


@contextlib.contextmanager
def system_errors(folder: Path) -> Iterator[None]:
    """What the libraries say of a disk, as the system's own error."""
    try:
        yield
    except (safetensors.SafetensorError, RuntimeError) as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise OSError(f"{folder.name} could not be written: {error}") from error


def load_state(folder: Path) -> LoadedState:
    """Reads training_state.pt without running anything in it. LabError when it is damaged or hostile."""
    try:
        file = folder / STATE_FILE
        # Windows deletes no file that is read like that; and torch maps no other kind of file, whatever else is in it.
        mapped = sys.platform != "win32" and is_zipfile(file)
        raw = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
        if raw["format"] > STATE_FORMAT:
            raise LabError(f"{folder.name} was made by a newer version of the lab.", "", "Update the lab to resume it.")
        progress = from_plain(Progress, raw["progress"])
        if checkpoint_name(progress.step) != folder.name:
            raise ValueError(f"it is the state of step {progress.step}")
        asked = raw["origin"]["settings"].get("train", {}).get("compile") is True
        return LoadedState(
            progress=progress,
            origin=from_plain(Origin, {"compiled": asked, **raw["origin"]}),  # earlier versions did not record it
            events_bytes=max(0, int(raw["events_bytes"])),
            optimizer=raw["optimizer"],
            scaler=raw["scaler"],
            random=raw["random"],
            weights=raw.get("weights", {}),
        )
    except LabError:
        raise
    except pickle.UnpicklingError as error:  # torch's own words advise to load it all the same
        why = "It is damaged, or holds code besides tensors; nothing in it was run."
        raise LabError(f"The training state of {folder.name} cannot be read.", why) from error
    except Exception as error:  # a damaged file can fail anywhere inside the reader
        raise LabError(f"The training state of {folder.name} cannot be read.", brief(error)) from error


def restore(
    state: LoadedState, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> None:
    """Puts optimizer, scaler, random generators and weights that are in the state where they were. All tensors leave
    the state: of what several ranks share, none holds the whole longer than it takes, and no file stays mapped, which
    would keep its place on the disk when its checkpoint is deleted.

    LabError when they do not fit the model.
    """
    parameters = _plain_names(dict(model.named_parameters()))
    fused = bool(optimizer.defaults.get("fused"))
    matrices = {parameter for group in optimizer.param_groups if is_muons(group) for parameter in group["params"]}
    try:
        for name in list(state.optimizer):
            parameter, values = parameters[name], state.optimizer.pop(name)
            if ("momentum_buffer" in values) != (parameter in matrices):
                continue  # another optimizer's, from before train.optimizer was changed: this one begins anew
            restored = {}
            for key, value in values.items():
                if key != "step" and value.shape != parameter.shape:
                    raise ValueError(f"{key} of {name} has shape {list(value.shape)}")
                on_cpu = key == "step" and not fused  # the unfused optimizer counts its steps on the CPU
                restored[key] = value.clone() if on_cpu else _as_held(value, parameter)
            optimizer.state[parameter] = restored
        if state.weights:
            model.load_state_dict(state.weights)
        scaler.load_state_dict(state.scaler)
        restore_random(state.random)
        state.weights.clear()
        state.random.clear()
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        if is_lost_contact(error) or is_out_of_memory(error):
            raise
        raise LabError("The training state does not fit this model.", str(error)) from error


def _as_held(value: Tensor, parameter: Tensor) -> Tensor:
    """A copy of a moment, as its parameter is held: of one that several ranks share, this rank's rows."""
    mesh = getattr(parameter, "device_mesh", None)
    if mesh is None or value.shape != parameter.shape:
        return value.to(parameter.device, copy=True)
    from torch.distributed.tensor import distribute_tensor  # half a second that other runs do without

    return distribute_tensor(value.to(parameter.device), mesh, parameter.placements)  # type: ignore[attr-defined]


def _plain_names(named: dict[str, Any]) -> dict[str, Any]:
    """Without the prefix that torch.compile puts before every name."""
    return {name.removeprefix("_orig_mod."): value for name, value in named.items()}


def random_state() -> dict[str, Any]:
    """Every random generator of this process: Python's, numpy's, torch's on each device."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def restore_random(state: dict[str, Any]) -> None:
    """Puts every generator where `random_state` found it."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
