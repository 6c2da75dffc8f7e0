"""A base made ready to be trained: its adapters inserted, or all of its weights set free.

The lab's own GPT gets the adapters of `llmlab.training.finetuning.lora`, models of transformers those of PEFT or
Unsloth. What comes out is the same for all: logits for a batch, the weights that a checkpoint holds, and a plain copy
to look into.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmlab.anatomy.modules import base_model
from llmlab.core.device import Device
from llmlab.core.errors import LabError, UsageError
from llmlab.core.finetuning_settings import ALL, FULL, QLORA, FinetuneSettings, LoraSettings
from llmlab.core.progress import Progress
from llmlab.data.finetuning_data import NOT_IN_LOSS, Batch
from llmlab.data.hf_tokenizer import IdTokenizer, has_tokenizer, no_tokenizer
from llmlab.data.tokenizers import TextTokenizer
from llmlab.gpt.model import GPT
from llmlab.models.adapter_file import PEFT_PREFIX
from llmlab.models.available import ADAPTER_FILE
from llmlab.models.file_sources import Folder, Hub, Source
from llmlab.models.huggingface import open_folder, translated, without_compiler
from llmlab.models.model import OpenModel, context_of
from llmlab.models.source import base_named
from llmlab.training.finetuning.head import Head, find_head
from llmlab.training.finetuning.lora import insert, merge
from llmlab.training.finetuning.quantise import (
    forget_quantisation,
    full_weight,
    is_quantised,
    number_count,
    open_quantised,
    quantise_layers,
    require_four_bits,
)
from llmlab.training.finetuning.targets import layer_size, lies_on_its_side, require_rank, short_names, target_layers
from llmlab.training.finetuning.unsloth import open_with_unsloth, require_unsloth, unsloth_logits
from llmlab.training.kinds import kind_of
from llmlab.training.room import require_room

_ADAPTER = "default"  # what PEFT calls an adapter that was given no name; it is part of names in memory, not in files


@dataclass
class Prepared:
    """A model that is ready to be trained, on its device; what learns requires grad, all else is frozen.

    base: the reference that opens the base again. context: the longest row of tokens. adapter_config: what PEFT
    reads as adapter_config.json; None when all weights learn. trainable, total: how many numbers; adapters belong to
    the total, and a number in 4 bits counts as one. patched: Unsloth rewrote the model's modules for training. head:
    what turns the residual stream into logits, where that can be told apart (`llmlab.training.finetuning.head`).
    """

    model: nn.Module
    base: str
    tokenizer: TextTokenizer
    context: int
    adapter_config: dict[str, Any] | None
    trainable: int
    total: int
    patched: bool = False
    head: Head | None = None

    def flops_per_token(self) -> float:
        """FLOP of forward and backward for one token: of each weight that multiplies 2 forward, 2 for the gradient of
        what it multiplied, and 2 for its own where it learns (Kaplan et al. 2020, section 2.1).

        Attention's own products, which `llmlab.gpt.estimate.flops_per_token` adds, depend on how long each row is, and
        are left out.
        """
        modules = list(self.model.modules())
        multiply = {p for module in modules if not isinstance(module, nn.Embedding) for p in module.parameters(False)}
        looked_up = {module.weight for module in modules if isinstance(module, nn.Embedding)} - multiply
        if isinstance(self.model, GPT):
            looked_up.discard(self.model.unembedding)
        total = self.total - sum(number_count(p) for p in looked_up)
        return 4.0 * total + 2.0 * (self.trainable - sum(p.numel() for p in looked_up if p.requires_grad))

    def logits(self, batch: Batch) -> Tensor:
        """[B, T] tokens -> [B, T, V]; a row's examples (packing) do not see each other."""
        device = next(self.model.parameters()).device
        ids = batch.ids.to(device)
        positions = None if batch.position_ids is None else batch.position_ids.to(device)
        if isinstance(self.model, GPT):
            return self.model.logits(_stream(self.model, ids, positions))
        # Without a mask, transformers takes positions that begin anew for a new example, and keeps them apart.
        mask = batch.attention_mask.to(device) if positions is None else None
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "use_cache": False}
        return unsloth_logits(self.model, inputs) if self.patched else self.model(**inputs).logits

    def loss_sum(self, batch: Batch) -> Tensor:
        """Sum of the losses of a batch's trained tokens, nats. No logits are computed where none is trained on."""
        device = next(self.model.parameters()).device
        labels = F.pad(batch.labels[:, 1:].to(device), (0, 1), value=NOT_IN_LOSS)  # each position predicts the next
        places = labels != NOT_IN_LOSS  # [B, T]
        wanted = labels[places]  # [N]
        if isinstance(self.model, GPT):
            positions = None if batch.position_ids is None else batch.position_ids.to(device)
            stream = _stream(self.model, batch.ids.to(device), positions)[places]  # [N, C]
            return self.model.loss_at(stream, wanted) * len(wanted) if len(wanted) else stream.sum()
        if self.head is None:
            return F.cross_entropy(self.logits(batch)[places].float(), wanted, reduction="sum")
        return self.head.loss_sum(lambda: self.logits(batch), places, wanted)

    def trained_weights(self) -> dict[str, Tensor]:
        """What learned, by the names of files: PEFT's, or the model's own. The tensors themselves, no copies."""
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if self.adapter_config is None:
            return {name: p.detach() for name, p in named.items()}
        return {_peft_name(name): p.detach() for name, p in named.items()}

    @torch.no_grad()
    def load_trained(self, weights: Mapping[str, Tensor]) -> None:
        """Takes what `trained_weights` gave, in place. LabError when names or shapes differ."""
        mine = self.trained_weights()
        if strange := sorted(mine.keys() ^ weights.keys()):
            side = "lacks" if strange[0] in mine else "holds"
            raise LabError(
                "The trained weights do not fit this model.",
                f"Their file {side} {strange[0]} ({len(strange)} names differ).",
                "Is it a checkpoint of this run?",
            )
        for name, weight in mine.items():
            if weight.shape != weights[name].shape:
                raise LabError(
                    "The trained weights do not fit this model.",
                    f"{name} has the shape {list(weights[name].shape)}, and {list(weight.shape)} is needed.",
                )
        for name, weight in mine.items():
            weight.copy_(weights[name])

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """An independent copy in fp32 on the CPU, in eval mode, in which adapters are part of plain linear layers.

        LabError when the model is patched: what such a copy does inside is not what it would do elsewhere.
        """
        if self.patched:
            raise LabError(
                "This run cannot be looked into while it trains.",
                "Unsloth has rewritten its model's modules for training.",
                "Open its newest checkpoint (RUN@latest).",
            )
        plain: dict[int, Any] = {}  # for `deepcopy`: layers that are already copied, by their ids
        for module in self.model.modules():
            if _is_peft_layer(module):
                plain[id(module)] = plain[id(module.base_layer)] = _plain_layer(module.base_layer, _peft_change(module))
            elif is_quantised(module) and id(module) not in plain:
                plain[id(module)] = _plain_layer(module)
        copied: nn.Module = copy.deepcopy(base_model(self.model), plain)
        forget_quantisation(copied)
        copied = copied.float().cpu()
        merge(copied)
        return copied.eval().requires_grad_(False)


def prepare(
    settings: FinetuneSettings, outputs: Path, device: Device, progress: Progress, seed: int, rank: int = 0
) -> Prepared:
    """Opens settings.model.base and makes it ready for its method. seed: of the adapters' first weights.

    rank: which of the run's processes this is; the first looks whether there is room for all. torch's global generators
    are seeded with `seed`. LabError in sentences when the base cannot be opened, has no tokenizer, has no layer for an
    adapter, or does not fit into memory.
    """
    base = _base(settings, outputs)
    if settings.model.method == QLORA:
        require_four_bits(device)
    if rank == 0:
        _require_room(settings, outputs, device)
    if settings.model.backend == "unsloth":
        return _with_unsloth(base, settings, progress, seed)
    opened = _open(base, settings.model.method, device, progress)
    torch.manual_seed(seed)
    model, adapter_config = opened.model, None
    if settings.model.method == FULL:
        model.requires_grad_(True)
    else:
        targets = target_layers(model, settings.lora.targets)
        require_rank(model, targets, settings.lora.rank)
        adapter_config = _adapter_config(model, targets, settings.lora, opened.reference)
        if settings.model.method == QLORA and not any(is_quantised(module) for module in model.modules()):
            quantise_layers(model, target_layers(model, ALL), device, progress)
        if isinstance(model, GPT):
            insert(model, settings.lora.rank, settings.lora.alpha, settings.lora.dropout, targets)
        else:
            model = _with_peft(model, adapter_config, targets)
    if settings.train.activation_checkpointing:
        _recompute(model)
    return _prepared(model.to(device.kind), opened.reference, opened.tokenizer, adapter_config)


def _base(settings: FinetuneSettings, outputs: Path) -> Source:
    """What is named as the base. UsageError when nothing is, or what still changes; LabError without a tokenizer."""
    base = base_named(settings.model.base, outputs)
    if isinstance(base, Folder) and not isinstance(base, Hub) and not has_tokenizer(base.folder()):
        raise no_tokenizer(base.name)
    return base


def _require_room(settings: FinetuneSettings, outputs: Path, device: Device) -> None:
    """LabError when weights, gradients and optimizer do not fit, whatever the examples; UsageError for the rank."""
    try:
        need = kind_of(settings).memory(settings, outputs)
    except UsageError:
        raise
    except LabError:  # no sizes without downloading it, or damaged files: who opens them says which
        return
    if need is not None:
        if device.kind != "cpu":  # each process has a device of its own, and saves from main memory
            need = replace(need, processes=1, saving=0)
        require_room(settings, need, device.free_bytes(), outputs)


def _open(base: Source, method: str, device: Device, progress: Progress) -> OpenModel:
    if method == QLORA and isinstance(base, Folder):
        opened = open_quantised(base.fetched(progress), str(base), base.name, device, progress)
    else:
        opened = base.open(progress)
    if isinstance(opened.tokenizer, IdTokenizer):
        raise no_tokenizer(opened.name)
    return opened


def _recompute(model: nn.Module) -> None:
    """Has the backward pass compute blocks anew, with the dropout that they had. LabError where a family cannot."""
    if isinstance(model, GPT):
        model.recomputes = True
        return
    plain: Any = base_model(model)
    newer = getattr(plain, "activation_checkpointing_enable", None)  # its name since transformers 5.24
    try:
        (newer or plain.gradient_checkpointing_enable)({"use_reentrant": False})
    except ValueError as error:
        raise LabError(
            f"{type(plain).__name__} cannot compute its blocks anew in the backward pass.",
            "transformers has no activation checkpointing for it.",
            "Set train.activation_checkpointing=false.",
        ) from error


def _prepared(
    model: nn.Module, base: str, tokenizer: TextTokenizer, adapter_config: dict[str, Any] | None, patched: bool = False
) -> Prepared:
    parameters = list(model.parameters())
    what = Prepared(
        model=model,
        base=base,
        tokenizer=tokenizer,
        context=context_of(model),
        adapter_config=adapter_config,
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        total=sum(number_count(p) for p in parameters),
        patched=patched,
    )
    if not isinstance(model, GPT) and not patched:
        what.head = find_head(model, lambda ids: what.logits(Batch(ids, ids, torch.ones_like(ids))))
    return what


def _with_unsloth(base: Source, settings: FinetuneSettings, progress: Progress, seed: int) -> Prepared:
    require_unsloth()
    if not isinstance(base, Folder):
        raise UsageError(
            f"Unsloth cannot open {base}.",
            "It takes a Hugging Face folder or a model of the hub.",
            "Set model.backend=peft.",
        )
    folder, name = base.fetched(progress), base.name
    tokenizer = _require_openable(folder, name, progress)
    with translated(name):
        model = open_with_unsloth(folder, settings, seed)
    plain = base_model(model)
    targets = [path for path, module in plain.named_modules() if _is_peft_layer(module)]
    return _prepared(model, str(base), tokenizer, _adapter_config(plain, targets, settings.lora, str(base)), True)


def _require_openable(folder: Path, name: str, progress: Progress) -> TextTokenizer:
    """Holds a folder that another library will open to the checks of `open_folder`; no weights are taken into memory.

    LabError as there, and for an adapter in it, which such a library would follow to a base that nobody named.
    """
    if (folder / ADAPTER_FILE).is_file():
        raise LabError(
            f"{name} cannot be fine-tuned by Unsloth.",
            f"It holds an adapter ({ADAPTER_FILE}), which Unsloth would open on the base that its settings name.",
            "Name the base itself, or set model.backend=peft and name BASE+ADAPTER.",
        )
    return open_folder(folder, str(folder), progress, name=name, loading={"device_map": "meta"}).tokenizer


def _adapter_config(model: nn.Module, targets: list[str], lora: LoraSettings, base: str) -> dict[str, Any]:
    """What adapter_config.json says; what is not here is PEFT's default."""
    return {
        "peft_type": "LORA",
        "task_type": None if isinstance(model, GPT) else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha.is_integer() else lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": short_names(model, targets),
        "fan_in_fan_out": any(lies_on_its_side(model.get_submodule(name)) for name in targets),
        "bias": "none",
        "inference_mode": True,
    }


def _with_peft(model: nn.Module, adapter_config: dict[str, Any], targets: list[str]) -> nn.Module:
    """LabError when PEFT would put adapters elsewhere: in some families it takes layers' names for their experts'."""
    with without_compiler():
        from peft import LoraConfig, get_peft_model

    values = {name: value for name, value in adapter_config.items() if name != "peft_type"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # between the versions of peft and transformers; none is about this adapter
        wrapped: nn.Module = get_peft_model(model, LoraConfig(**(values | {"inference_mode": False})))
    adapted = {name for name, module in base_model(wrapped).named_modules() if _is_peft_layer(module)}
    if adapted != set(targets):
        strange = min(adapted ^ set(targets))
        raise LabError(
            "These layers cannot get adapters.",
            f"PEFT treats {strange} in a way of its own: the model has experts.",
            "Set lora.targets=attention.",
        )
    return wrapped


def _is_peft_layer(module: nn.Module) -> bool:
    return hasattr(module, "base_layer") and hasattr(module, "get_delta_weight")


def _plain_layer(base: Any, change: Tensor | None = None) -> nn.Linear:
    """A linear layer, in 4 bits or not, with what an adapter adds to it: as a plain one in fp32, on the CPU."""
    width_in, width_out = layer_size(base)
    plain = nn.Linear(width_in, width_out, bias=base.bias is not None)
    plain.weight.copy_(full_weight(base))
    if change is not None:
        plain.weight += change.to("cpu", torch.float32)
    if base.bias is not None:
        plain.bias.copy_(base.bias)
    return plain


def _peft_change(layer: Any) -> Tensor:
    """What a layer's adapter adds to its weights, [out, in] even where the layer's own matrix is transposed."""
    return layer.lora_B[_ADAPTER].weight @ layer.lora_A[_ADAPTER].weight * layer.scaling[_ADAPTER]


def _peft_name(name: str) -> str:
    name = name.replace(f".{_ADAPTER}.", ".")
    return name if name.startswith(PEFT_PREFIX) else f"{PEFT_PREFIX}{name}"


def _stream(model: GPT, ids: Tensor, positions: Tensor | None) -> Tensor:
    """The residual stream of the lab's GPT at its end, [B, T, C].

    The GPT sees all that is before a token: examples that share a row go through it in rows of their own. ids,
    positions [B, T]; an example begins wherever positions say 0.
    """
    if positions is None:
        return model.residual_stream(ids)
    time = ids.shape[1]
    example = (positions == 0).flatten().cumsum(0) - 1  # [B * T] number of the example; each row begins one
    columns = positions.flatten()
    rows = ids.new_zeros(int(example[-1]) + 1, min(time, int(columns.max()) + 1))
    rows[example, columns] = ids.flatten()
    return model.residual_stream(rows)[example, columns].view(*ids.shape, -1)
