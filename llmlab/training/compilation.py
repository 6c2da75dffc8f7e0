"""torch.compile for training from scratch on text: when it pays, and a loss that keeps a resume exact."""

from __future__ import annotations

import os
import sys
import time
import traceback

import torch
from torch import Tensor

from llmlab.anatomy.modules import evaluating
from llmlab.core.device import Device
from llmlab.core.paths import cache_dir
from llmlab.core.settings import PretrainSettings
from llmlab.gpt.estimate import REACHED, estimate_pretraining
from llmlab.gpt.model import GPT
from llmlab.training.state import random_state, restore_random
from llmlab.training.workplace import Workplace

# Seconds of training, as estimated, from which `auto` compiles on CUDA: it costs up to a minute and saves 46 %
# (nanoGPT's README: 250 ms a step without, 135 ms with it), which is earned back in 130 s. Never elsewhere: on two
# cores the smallest preset's step took 0.95 to 0.99 of its time, for 45 s the first time and 4 s later.
_PAYS_FROM = 200.0
# torch's names of what is missing most often.
_CAUSES = {
    "InvalidCxxCompiler": "There is no C++ compiler here. Install one (Linux: g++; macOS: xcode-select --install; "
    "Windows: Visual Studio's), or set train.compile=off.",
    "TritonMissing": "Triton is not installed. Install it, or set train.compile=off.",
}


def pays(settings: PretrainSettings, device: Device, peak_flops: float) -> bool:
    """Whether a run is long enough to earn back the time that compiling takes: as settings and device say, and nothing
    that another start would find changed. peak_flops: of the device."""
    step = estimate_pretraining(settings).flops_per_step / (REACHED * peak_flops)  # seconds
    return device.kind == "cuda" and step * settings.full_steps > _PAYS_FROM


def compiled_loss(model: GPT, settings: PretrainSettings, place: Workplace) -> tuple[CompiledLoss | None, str]:
    """The loss of `model` compiled, where the settings want that and it is possible; and a sentence if it is not.

    What the run's first worker chose by itself holds for later ones: compiled or not, rounding differs. Several
    processes, which would each choose, and share a processor, are compiled only when asked for.
    """
    wanted = settings.train.compile == "on"
    if settings.train.compile == "auto" and place.processes.size == 1:
        chosen = place.compiled
        wanted = pays(settings, place.device, place.peak_flops) if chosen is None else chosen
    if not wanted:
        return None, ""
    place.tell("Compiling the model: up to a minute, seconds the next time", 0, 0)
    try:
        whole = torch.zeros(settings.data.batch_size, settings.model.block_size, dtype=torch.int64)
        compiled = CompiledLoss(model, place.processes.share(whole)[0][0].to(place.device.kind), place.device)
    except Exception as error:  # what writes code, compiles and links it can fail in as many ways
        print(traceback.format_exc(), file=sys.stderr)
        why = _CAUSES.get(type(getattr(error, "inner_exception", error)).__name__, "The reason is in worker.log.")
        return None, f"The model is not compiled, and trains as it is. {why}"
    return compiled, ""


class CompiledLoss:
    """`GPT.loss` with everything before the vocabulary compiled, for batches of one shape.

    Batches of other shapes (of a warm-up, the last of a measurement) are computed as they are written, since each
    shape would be compiled anew. The vocabulary's part has its own way to save memory (`llmlab.gpt.head`).
    """

    def __init__(self, model: GPT, ids: Tensor, device: Device) -> None:
        """Compiles now, forward and backward, for training and for measuring; raises whatever that raises. What was
        compiled once is found in the cache folder. No random number is drawn, and no gradient stays.

        ids: any, in the shape of a batch [B, T].
        """
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "compiled"))
        begin = time.perf_counter()
        self._model, self._shape = model, ids.shape
        self._stream = torch.compile(model.residual_stream, dynamic=False, fullgraph=True)
        random = random_state()
        try:
            with device.autocast():
                loss = self(ids, ids)
            loss.backward()
            with evaluating(model), torch.no_grad(), device.autocast():
                self(ids, ids)
        finally:
            restore_random(random)
            model.zero_grad()
        self.seconds = time.perf_counter() - begin  # that compiling took

    def __call__(self, ids: Tensor, targets: Tensor) -> Tensor:
        """As `GPT.loss`."""
        if ids.shape != self._shape:
            return self._model.loss(ids, targets)
        stream: Tensor = self._stream(ids)
        return self._model.loss_at(stream, targets)
