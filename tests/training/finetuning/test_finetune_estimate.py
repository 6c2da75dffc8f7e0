"""What is estimated without loading anything is what a prepared model has, and what autograd keeps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import family_models
import pytest
import tiny_models
import torch
import transformers
from bases import KINDS, prepared, settings_for
from cases import each
from peft import LoraConfig, get_peft_model
from small_models import COMBINATIONS, lively, shape, some_ids
from torch import Tensor, nn

import llmlab
from llmlab.anatomy.sizes import context_length
from llmlab.core.errors import LabError, UsageError
from llmlab.core.finetuning_settings import ALL, ATTENTION, FEED_FORWARD, FinetuneSettings
from llmlab.core.run_settings import DistributedSettings
from llmlab.gpt.estimate import _SENT_PER_SECOND
from llmlab.gpt.model import GPT
from llmlab.gpt.shapes import block_layers
from llmlab.jobs.launcher import create_run
from llmlab.models.base_shape import _FAMILIES, BaseShape, shape_of_folder, shape_of_gpt
from llmlab.models.source import base_named
from llmlab.training.finetuning.backends import _recompute
from llmlab.training.finetuning.estimate import NF4_BYTES, activations, estimate_finetuning
from llmlab.training.finetuning.lora import insert
from llmlab.training.finetuning.targets import layer_size, target_layers
from llmlab.training.room import ran_out


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_the_prepared_model(bases: dict[str, str], outputs: Path, kind: str, method: str) -> None:
    for targets in (ALL, ATTENTION, FEED_FORWARD) if method == "lora" else (ALL,):
        expected = estimate_finetuning(settings_for(bases[kind], method, targets=targets), outputs)
        what = prepared(bases[kind], outputs, method, targets=targets)
        assert (expected.trainable, expected.total) == (what.trainable, what.total)
        assert expected.checkpoint_bytes == 12 * what.trainable  # fp32 weights and AdamW's two moments


@pytest.mark.parametrize("family", [*_FAMILIES, "gpt2", "gpt_neox", "opt"])
def test_settings_alone_tell_the_sizes_of_a_family(family: str, tmp_path: Path) -> None:
    model = _small(family)
    if family in ("gpt_neox", "opt"):  # of families that are not described, the header of the weights is read
        model.save_pretrained(tmp_path)
    else:
        model.config.save_pretrained(tmp_path)
    found = base_named(str(tmp_path), tmp_path).shape()
    assert found.parameters == sum(p.numel() for p in model.parameters())
    for part in (ATTENTION, FEED_FORWARD):
        sizes = [layer_size(model.get_submodule(name)) for name in target_layers(model, part)]
        assert sorted((layer.width_in, layer.width_out) for layer in found.targeted(part)) == sorted(sizes)
    assert (found.n_embd, found.n_layer, found.vocab_size) == (32, 2, 99)


@each("family", family_models.KINDS)
def test_a_folder_of_any_family_that_the_lab_opens_says_its_sizes(family: str, tmp_path: Path) -> None:
    model: Any = family_models.family_model(family)
    model.save_pretrained(tmp_path / family)
    config, shape = model.config.get_text_config(), shape_of_folder(tmp_path / family, family)
    wanted = (config.num_hidden_layers, config.hidden_size, context_length(config))
    assert (shape.n_layer, shape.n_embd, shape.context) == wanted
    learned = sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.numel() for buffer in model.buffers())  # a file holds some of them too
    assert learned <= shape.parameters <= learned + buffers


def _small(family: str) -> Any:
    sizes: dict[str, Any] = {
        "vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0,
    }  # fmt: skip
    if family == "gpt2":
        sizes = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24}
    elif family == "opt":
        sizes = {"vocab_size": 99, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        sizes |= {"word_embed_proj_dim": 32, "max_position_embeddings": 24}
    elif family in ("qwen2", "olmo2", "phi3", "smollm3", "granite", "gpt_neox"):
        del sizes["head_dim"]
    config = transformers.CONFIG_MAPPING[family](**sizes)
    return transformers.AutoModelForCausalLM.from_config(config)


@each("options", COMBINATIONS)
def test_the_layers_of_a_scratch_block(options: dict[str, Any]) -> None:
    settings = shape(n_layer=1, **options)
    model = GPT(settings, 31)
    found = [(rows, columns) for _, rows, columns in block_layers(settings)]
    sizes = [layer_size(model.get_submodule(name)) for name in target_layers(model, ALL)]
    assert sorted(found) == sorted(sizes)
    attention = [(rows, columns) for is_attention, rows, columns in block_layers(settings) if is_attention]
    assert attention == [layer_size(model.get_submodule(name)) for name in target_layers(model, ATTENTION)]


def _llama(layers: int) -> nn.Module:
    return tiny_models.llama(hidden_size=128, intermediate_size=256, num_hidden_layers=layers)


def _gpt2(layers: int) -> nn.Module:
    config = transformers.GPT2Config(vocab_size=99, n_positions=24, n_embd=128, n_layer=layers, n_head=4)
    return transformers.GPT2LMHeadModel(config)


def _scratch(layers: int) -> nn.Module:
    return lively(shape(n_layer=layers, n_embd=128, block_size=24))


def _normed(layers: int) -> nn.Module:
    return lively(shape(n_layer=layers, n_embd=128, block_size=24, position="rotary", qk_norm=True))


def _mixed(layers: int) -> nn.Module:
    return lively(shape(n_layer=layers, n_embd=128, block_size=24, value_residual=True))


def _gated(layers: int) -> nn.Module:
    options = {"norm": "rmsnorm", "position": "rotary", "activation": "swiglu", "n_kv_head": 2}
    return lively(shape(n_layer=layers, n_embd=128, block_size=24, **options))


@pytest.mark.slow
@pytest.mark.parametrize("make", [_llama, _gpt2, _scratch, _normed, _mixed, _gated])
@pytest.mark.parametrize(("method", "targets"), [("lora", ALL), ("lora", ATTENTION), ("full", ALL)])
def test_activations_of_a_layer_are_what_autograd_keeps(
    make: Callable[[int], nn.Module], method: str, targets: str, tmp_path: Path
) -> None:
    kept = (_kept(make(4), method, targets) - _kept(make(2), method, targets)) / 2
    settings = settings_for("", method, targets=targets)
    expected = 2 * 24 * activations(_shape_of(make(1), tmp_path), settings, row=24)
    assert expected == pytest.approx(kept, rel=0.03)


def _long_gpt2(layers: int) -> nn.Module:
    config = transformers.GPT2Config(vocab_size=99, n_positions=96, n_embd=128, n_layer=layers, n_head=4)
    return transformers.GPT2LMHeadModel(config)


def _dropping(layers: int) -> nn.Module:
    return GPT(shape(n_layer=layers, n_embd=128, block_size=96, dropout=0.1), 31)


@pytest.mark.parametrize("make", [_long_gpt2, _dropping])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_patterns_that_dropout_keeps_grow_with_the_length_of_rows(
    make: Callable[[int], nn.Module], method: str, tmp_path: Path
) -> None:
    kept = (_kept(make(4), method, ALL, 96) - _kept(make(2), method, ALL, 96)) / 2
    expected = 2 * 96 * activations(_shape_of(make(1), tmp_path), settings_for("", method), row=96)
    assert expected == pytest.approx(kept, rel=0.03)


def _shape_of(model: nn.Module, folder: Path) -> BaseShape:
    if isinstance(model, GPT):
        return shape_of_gpt(model.settings, 31)
    model.config.save_pretrained(folder)
    return base_named(str(folder), folder).shape()


@pytest.mark.parametrize("make", [_llama, _gpt2, _scratch])
def test_of_a_block_that_is_computed_anew_its_input_is_kept(make: Callable[[int], nn.Module]) -> None:
    for method in ("lora", "full"):
        kept = (_kept(make(4), method, ALL, anew=True) - _kept(make(2), method, ALL, anew=True)) / 2
        # Beside it the generator's state, for what dropout draws: 5,056 bytes.
        assert 0 <= kept - 2 * 24 * 128 <= 1300


def _kept(model: nn.Module, method: str, targets: str, row: int = 24, anew: bool = False) -> float:
    """Numbers that autograd keeps of a pass over two rows of tokens, each storage once, parameters left out."""
    if method == "full":
        model.requires_grad_(True)
    else:
        names = target_layers(model, targets)
        if isinstance(model, GPT):
            insert(model, 4, 8.0, 0.0, names)
        else:
            model = get_peft_model(model, LoraConfig(r=4, target_modules=names, fan_in_fan_out="h.0" in names[0]))
    if anew:
        _recompute(model)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}
    held: list[Tensor] = []  # so that no place in memory is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    ids = some_ids(2, row)
    mask = torch.ones_like(ids)
    mask[1, row - 4 :] = 0
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.train()
        out = model(ids) if isinstance(model, GPT) else model(input_ids=ids, attention_mask=mask, use_cache=False)
    del out
    return sum(kept.values()) / 4


def test_memory_grows_with_what_it_is_made_of(bases: dict[str, str], outputs: Path) -> None:
    plain = settings_for(bases["llama"])
    lora = estimate_finetuning(plain, outputs)
    assert estimate_finetuning(settings_for(bases["llama"], "qlora"), outputs).memory_bytes < lora.memory_bytes
    assert estimate_finetuning(settings_for(bases["llama"], "full"), outputs).memory_bytes > lora.memory_bytes
    longer = estimate_finetuning(replace(plain, data=replace(plain.data, batch_size=16)), outputs)
    assert longer.memory_bytes > lora.memory_bytes
    assert longer.step_seconds > lora.step_seconds
    assert lora.row_tokens == 64  # the base's context, which is shorter than data.max_length
    short = estimate_finetuning(plain, outputs, row_tokens=16)
    assert short.row_tokens == 16
    assert short.memory_bytes < lora.memory_bytes
    assert lora.seconds > plain.train.steps * lora.step_seconds  # the start and the evaluations, too


def test_weights_in_4_bits_are_turned_back_in_every_pass(bases: dict[str, str], outputs: Path) -> None:
    def longer(again: bool) -> float:
        both = [settings_for(bases["llama"], method) for method in ("qlora", "lora")]
        both = [replace(one, train=replace(one.train, activation_checkpointing=again)) for one in both]
        in_4_bits, exact = (estimate_finetuning(one, outputs).step_seconds for one in both)
        return in_4_bits - exact

    assert longer(True) == pytest.approx(3 / 2 * longer(False))


def test_every_process_turns_all_weights_back_and_gathers_their_packed_bytes(
    bases: dict[str, str], outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmlab.gpt.estimate.available_cores", lambda: 2)
    in_blocks = sum(layer.numbers for layer in base_named(bases["llama"], outputs).shape().layers)

    def longer(strategy: str, processes: int) -> float:
        both = [settings_for(bases["llama"], method) for method in ("qlora", "lora")]
        shared = DistributedSettings(strategy=strategy, processes=processes)
        in_4_bits, exact = (estimate_finetuning(replace(one, distributed=shared), outputs).step_seconds for one in both)
        return in_4_bits - exact

    assert longer("ddp", 8) == pytest.approx(4 * longer("ddp", 2))  # on two cores
    less = 2 * in_blocks * (4 - NF4_BYTES) / 2  # gathered twice, one half of it from the other process
    assert longer("fsdp2", 2) == pytest.approx(longer("ddp", 2) - less / _SENT_PER_SECOND["fsdp2"])


def test_a_fine_tuned_run_is_as_large_as_its_base(bases: dict[str, str], outputs: Path) -> None:
    create_run(outputs, settings_for(bases["llama"]), name="tuned")
    assert base_named("tuned", outputs).shape() == base_named(bases["llama"], outputs).shape()


def test_blocks_computed_anew_are_not_advised_where_unsloth_does_so_anyway(
    bases: dict[str, str], outputs: Path
) -> None:
    plain = settings_for(bases["llama"])
    settings = replace(plain, data=replace(plain.data, batch_size=1, max_length=64))
    for backend in ("peft", "unsloth"):
        tried = replace(settings, model=replace(settings.model, backend=backend))
        advised = str(ran_out(tried, outputs, 0))
        assert ("train.activation_checkpointing" in advised) == (backend == "peft"), advised


def test_what_is_not_here_is_not_guessed(outputs: Path) -> None:
    with pytest.raises(LabError, match="not on this machine yet"):
        estimate_finetuning(settings_for("nobody/nothing"), outputs)
    with pytest.raises(UsageError, match="No base"):
        estimate_finetuning(FinetuneSettings(), outputs)


def test_settings_of_the_hub_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--maker--tiny" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    tiny_models.llama().config.save_pretrained(snapshot)
    assert base_named("maker/tiny", tmp_path).shape().parameters == sum(
        p.numel() for p in tiny_models.llama().parameters()
    )


@pytest.mark.parametrize(
    ("settings", "lacking"),
    [
        ('{"model_type": "llama", "hidden_size": 32}', "intermediate_size"),
        ('{"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 9}', "max_position_embeddings"),
    ],
)
def test_damaged_settings_are_said_to_be(tmp_path: Path, settings: str, lacking: str) -> None:
    (tmp_path / "config.json").write_text(settings)
    with pytest.raises(LabError, match=f"lacks '{lacking}'"):
        base_named(str(tmp_path), tmp_path).shape()


def test_no_torch_is_needed(bases: dict[str, str], outputs: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from llmlab.training.finetuning.estimate import estimate_finetuning;"
        "from llmlab.core.finetuning_settings import *;"
        "[estimate_finetuning(FinetuneSettings(model=BaseSettings(base=b)), Path(sys.argv[1])) for b in sys.argv[2:]];"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(outputs), *bases.values()]
    root = Path(llmlab.__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
