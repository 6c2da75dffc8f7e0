"""The reading version of LoRA: the outputs, gradients and names that PEFT has, and what merging means."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from small_models import COMBINATIONS, VOCAB, lively, shape, some_ids
from tiny_models import TOKENIZER, llama
from torch import Tensor, nn

from llmlab.gpt.model import GPT
from llmlab.models.adapter_file import PEFT_PREFIX
from llmlab.training.finetuning import lora
from llmlab.training.finetuning.lora import LoraLinear, insert, merge
from llmlab.training.finetuning.targets import short_names, target_layers

RANK, ALPHA = 4, 8.0


def adapted(model: nn.Module) -> nn.Module:
    """With the lab's adapters at all linear layers of the blocks."""
    insert(model, RANK, ALPHA, 0.0, target_layers(model, "all"))
    return model


def by_peft(model: nn.Module) -> PeftModel:
    """The same by PEFT."""
    names = short_names(model, target_layers(model, "all"))
    return get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=names))


def give_weights(model: nn.Module, seed: int = 3) -> None:
    """Adapters that change something, equal for equal names."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted((n, p) for n, p in model.named_parameters() if ".lora_" in n):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def loss_of(logits: Tensor) -> Tensor:
    """Some number that all logits matter to."""
    return F.cross_entropy(logits.flatten(0, 1), torch.zeros(logits.shape[0] * logits.shape[1], dtype=torch.int64))


def test_the_reading_version_can_be_read_in_one_sitting() -> None:
    assert len(inspect.getsource(lora).splitlines()) < 100


def test_outputs_and_gradients_are_pefts_on_a_scratch_gpt() -> None:
    ours, theirs = adapted(lively(shape(bias=True))), by_peft(lively(shape(bias=True)))
    give_weights(ours)
    give_weights(theirs)
    _same(ours, theirs, ours(some_ids(2, 12)), theirs(some_ids(2, 12)))


def test_outputs_and_gradients_are_pefts_on_a_llama() -> None:
    ours, theirs = adapted(llama()), by_peft(llama())
    give_weights(ours)
    give_weights(theirs)
    ids = some_ids(2, 12, vocab_size=TOKENIZER.vocab_size)
    _same(ours, theirs, ours(ids).logits, theirs(ids).logits)


def _same(ours: nn.Module, theirs: PeftModel, our_logits: Tensor, their_logits: Tensor) -> None:
    torch.testing.assert_close(our_logits, their_logits, rtol=1e-5, atol=1e-5)
    loss_of(our_logits).backward()
    loss_of(their_logits).backward()
    our_gradients = {name: p.grad for name, p in ours.named_parameters() if p.requires_grad}
    their_gradients = {
        name.removeprefix("base_model.model.").replace(".default", ""): p.grad
        for name, p in theirs.named_parameters()
        if p.requires_grad
    }
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in our_gradients.items():
        assert gradient is not None
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-4, atol=1e-6)


def adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' own tensors, by PEFT's names."""
    return {f"{PEFT_PREFIX}{name}": weight for name, weight in model.named_parameters() if ".lora_" in name}


@pytest.mark.parametrize("seed", [0, 1])
def test_first_weights_are_drawn_as_peft_draws_them(seed: int) -> None:
    torch.manual_seed(seed)
    ours = adapted(lively(shape()))
    torch.manual_seed(seed)
    theirs = by_peft(lively(shape()))
    expected = get_peft_model_state_dict(theirs, save_embedding_layers=False)
    found = adapter_weights(ours)
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert torch.equal(weight, expected[name])
        assert (weight.abs().max() == 0) == (".lora_B." in name)


@pytest.mark.parametrize("options", COMBINATIONS[::5], ids=str)
def test_a_model_begins_as_it_was(options: dict[str, object]) -> None:
    plain, ids = lively(shape(**options)), some_ids(2, 12)
    before = plain(ids)
    assert torch.equal(adapted(plain)(ids), before)


def test_only_adapters_learn() -> None:
    model = adapted(lively(shape()))
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):  # A moves only once B has left zero
        loss_of(model(some_ids(2, 12))).backward()
        optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if ".lora_" in name}


def test_merged_is_base_plus_adapter_and_plain_again() -> None:
    plain, model = lively(shape(bias=True)), adapted(lively(shape(bias=True)))
    give_weights(model)
    ids = some_ids(2, 12)
    expected = model(ids)
    changes = {name: m.change() for name, m in model.named_modules() if isinstance(m, LoraLinear)}
    merge(model)
    assert isinstance(model, GPT)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    torch.testing.assert_close(model(ids), expected, rtol=1e-4, atol=1e-5)
    for name, change in changes.items():
        difference = model.get_submodule(name).weight - plain.get_submodule(name).weight
        torch.testing.assert_close(difference, change, rtol=1e-3, atol=1e-6)


def test_dropout_is_on_the_adapters_input_and_only_in_training() -> None:
    layer = LoraLinear(nn.Linear(6, 5), (6, 5), 2, 4.0, 0.5)
    give_weights(nn.ModuleDict({"x": layer}))
    x = torch.randn(4, 6)
    assert torch.equal(layer.eval()(x), layer(x))
    torch.manual_seed(0)
    noisy = layer.train()(x)
    torch.manual_seed(0)
    dropped = F.dropout(x, 0.5)
    expected = layer.base_layer(x) + 2.0 * dropped @ layer.lora_A.weight.T @ layer.lora_B.weight.T
    torch.testing.assert_close(noisy, expected)


def test_files_open_in_peft(tmp_path: Path) -> None:
    model = adapted(lively(shape()))
    give_weights(model)
    names = short_names(lively(shape()), target_layers(lively(shape()), "all"))
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": names, "inference_mode": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    safetensors.torch.save_file(adapter_weights(model), tmp_path / "adapter_model.safetensors")
    opened = PeftModel.from_pretrained(lively(shape()), tmp_path)
    ids = some_ids(2, 12, vocab_size=VOCAB)
    torch.testing.assert_close(opened(ids), model(ids), rtol=1e-5, atol=1e-5)
