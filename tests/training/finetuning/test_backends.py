"""Whatever the base is, what comes out of `prepare` trains, saves, loads and merges in the same way."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import psutil
import pytest
import safetensors.torch
import tiny_models
import torch
import transformers
from bases import CPU, KINDS, learn, loss_of, prepared, settings_for, shaken, some_batch
from fakes import CancelAfter
from peft import PeftModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from llmlab.core.errors import Cancelled, LabError, UsageError
from llmlab.core.finetuning_settings import ALL, ATTENTION, FEED_FORWARD, BaseSettings, FinetuneSettings
from llmlab.core.progress import quiet
from llmlab.data.finetuning_data import Batch
from llmlab.gpt.model import GPT
from llmlab.models.source import open_model
from llmlab.training.finetuning import unsloth
from llmlab.training.finetuning.backends import Prepared, prepare
from llmlab.training.finetuning.targets import short_names, target_layers
from llmlab.training.finetuning.unsloth import probe_unsloth

METHODS = ("lora", "qlora", "full")


# What learns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_alone_learn_and_begin_as_nothing(bases: dict[str, str], outputs: Path, kind: str) -> None:
    what, batch = prepared(bases[kind], outputs), some_batch()
    plain = open_model(bases[kind], outputs).model
    expected = plain(batch.ids) if isinstance(plain, GPT) else plain(input_ids=batch.ids).logits
    torch.testing.assert_close(what.logits(batch), expected, rtol=1e-5, atol=1e-5)
    learning = {name: p for name, p in what.model.named_parameters() if p.requires_grad}
    assert learning
    assert all(".lora_" in name for name in learning)
    assert what.trainable == sum(p.numel() for p in learning.values())
    assert what.total == what.trainable + sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_in_full_everything_learns_by_the_bases_own_names(bases: dict[str, str], outputs: Path, kind: str) -> None:
    what = prepared(bases[kind], outputs, "full")
    assert what.adapter_config is None
    assert what.trainable == what.total
    opened = open_model(bases[kind], outputs).model
    assert what.trained_weights().keys() == dict(opened.named_parameters()).keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_takes_the_products_of_its_forward_pass_as_often_as_they_are_needed(
    bases: dict[str, str], outputs: Path, kind: str
) -> None:
    full, adapted = prepared(bases[kind], outputs, "full"), prepared(bases[kind], outputs)
    one = torch.ones(1, 1, dtype=torch.long)  # attention over one position: next to nothing
    with FlopCounterMode(display=False) as counted:
        full.logits(Batch(one, one, one))
    forward = counted.get_total_flops()
    assert 3 * forward == pytest.approx(full.flops_per_token(), rel=0.03)  # norms and biases count as weights
    assert 2 * forward + 6 * adapted.trainable == pytest.approx(adapted.flops_per_token(), rel=0.03)


@pytest.mark.parametrize("method", ["lora", "full"])  # qlora: test_quantise.py
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls(bases: dict[str, str], outputs: Path, kind: str, method: str) -> None:
    rate = 2e-3 if method == "full" else 2e-2
    before, after = learn(prepared(bases[kind], outputs, method), some_batch(), rate=rate)
    assert after < 0.95 * before


@pytest.mark.parametrize("kind", ["scratch", "llama"])
def test_equal_seeds_give_equal_adapters(bases: dict[str, str], outputs: Path, kind: str) -> None:
    settings = settings_for(bases[kind])
    one, same, other = (prepare(settings, outputs, CPU, quiet, seed).trained_weights() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


# Which layers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_attention_and_feed_forward_are_all_linear_layers_of_the_blocks(
    bases: dict[str, str], outputs: Path, kind: str
) -> None:
    model = open_model(bases[kind], outputs).model
    attention, forward, every = (target_layers(model, part) for part in (ATTENTION, FEED_FORWARD, ALL))
    assert attention
    assert forward
    assert not set(attention) & set(forward)
    assert set(attention) | set(forward) == set(every)
    assert all("attn" in name or "attention" in name for name in attention)
    assert all("mlp" in name or "feed_forward" in name for name in forward)
    matrices = {n for n, p in model.named_parameters() if p.dim() == 2 and "emb" not in n and "head" not in n}
    assert {f"{name}.weight" for name in every} == matrices - {"transformer.wte.weight", "transformer.wpe.weight"}


@pytest.mark.parametrize("part", [ATTENTION, FEED_FORWARD, ALL])
@pytest.mark.parametrize("kind", KINDS)
def test_written_targets_mean_these_layers_and_no_other(
    bases: dict[str, str], outputs: Path, kind: str, part: str
) -> None:
    model = open_model(bases[kind], outputs).model
    wanted = target_layers(model, part)
    names = short_names(model, wanted)
    linear = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    meant = [
        name
        for name, module in model.named_modules()
        if isinstance(module, linear) and any(name == tail or name.endswith(f".{tail}") for tail in names)
    ]
    assert meant == wanted


def test_a_family_whose_experts_are_no_linear_layers_has_no_feed_forward_to_adapt() -> None:
    config = transformers.MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4,
    )  # fmt: skip
    model = transformers.MixtralForCausalLM(config)
    assert len(target_layers(model, ATTENTION)) == 8
    if target_layers(model, ALL) != target_layers(model, ATTENTION):
        pytest.skip("this version of transformers has experts as linear layers")
    with pytest.raises(LabError, match="feed-forward layer"):
        target_layers(model, FEED_FORWARD)


def test_layers_that_peft_takes_for_experts_are_refused(outputs: Path) -> None:
    config = transformers.Qwen3MoeConfig(
        vocab_size=tiny_models.TOKENIZER.vocab_size, hidden_size=32, intermediate_size=48, moe_intermediate_size=16,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=4,
        num_experts_per_tok=2, mlp_only_layers=[1],
    )  # fmt: skip
    folder = str(tiny_models.save(transformers.Qwen3MoeForCausalLM(config), outputs / "experts"))
    assert prepared(folder, outputs, targets=ATTENTION).trainable > 0
    assert "lora.targets=attention" in str(refused(settings_for(folder), outputs))


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("kind", KINDS)
def test_peft_opens_what_was_trained(
    bases: dict[str, str], outputs: Path, tmp_path: Path, kind: str, method: str
) -> None:
    what, batch = shaken(prepared(bases[kind], outputs, method)), some_batch()
    assert what.adapter_config is not None
    (tmp_path / "adapter_config.json").write_text(json.dumps(what.adapter_config))
    safetensors.torch.save_file(what.trained_weights(), tmp_path / "adapter_model.safetensors")
    plain = open_model(bases[kind], outputs).model
    opened = PeftModel.from_pretrained(plain, tmp_path)
    logits = opened(batch.ids) if kind == "scratch" else opened(input_ids=batch.ids).logits
    if method == "lora":
        torch.testing.assert_close(logits, what.logits(batch), rtol=1e-4, atol=1e-4)
    saved = set(what.trained_weights())
    used = {name.replace(".default.", ".") for name, _ in opened.named_parameters() if ".lora_" in name}
    assert used == saved
    assert what.adapter_config["base_model_name_or_path"] == what.base


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["scratch", "llama"])
def test_what_was_trained_is_taken_up_again(bases: dict[str, str], outputs: Path, kind: str, method: str) -> None:
    trained, fresh, batch = (
        shaken(prepared(bases[kind], outputs, method)),
        prepared(bases[kind], outputs, method, seed=9),
        some_batch(),
    )
    assert not torch.equal(fresh.logits(batch), trained.logits(batch))
    fresh.load_trained({name: weight.clone() for name, weight in trained.trained_weights().items()})
    assert torch.equal(fresh.logits(batch), trained.logits(batch))


def test_weights_that_do_not_fit_are_refused_and_change_nothing(bases: dict[str, str], outputs: Path) -> None:
    what, wider = prepared(bases["llama"], outputs), prepared(bases["llama"], outputs, rank=8)
    before = {name: weight.clone() for name, weight in what.trained_weights().items()}
    with pytest.raises(LabError, match="shape"):
        what.load_trained(wider.trained_weights())
    lacking = dict(list(before.items())[1:])
    with pytest.raises(LabError, match="lacks"):
        what.load_trained(lacking)
    assert all(torch.equal(weight, before[name]) for name, weight in what.trained_weights().items())


# A copy to look into -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_merged_says_what_the_training_model_says_and_is_its_own(
    bases: dict[str, str], outputs: Path, kind: str, method: str
) -> None:
    what, batch = shaken(prepared(bases[kind], outputs, method)), some_batch()
    what.model.eval()
    before = what.logits(batch)
    merged = what.merged()
    logits = merged(batch.ids) if kind == "scratch" else merged(input_ids=batch.ids).logits
    torch.testing.assert_close(logits, before, rtol=1e-4, atol=1e-4)
    parameters = list(merged.parameters())
    assert {p.dtype for p in parameters} == {torch.float32}
    assert not any(p.requires_grad for p in parameters)
    assert not any("lora" in name for name, _ in merged.named_modules())
    plain = open_model(bases[kind], outputs).model
    assert {name for name, _ in merged.named_parameters()} == {name for name, _ in plain.named_parameters()}
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    assert torch.equal(what.logits(batch), before)


# Rows that hold several examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["scratch", "llama", "qwen2"])
def test_examples_that_share_a_row_do_not_see_each_other(bases: dict[str, str], outputs: Path, kind: str) -> None:
    what = shaken(prepared(bases[kind], outputs))
    what.model.eval()
    lengths = [[4, 5], [6, 2]]  # the second row ends in a token of filling
    batch = some_batch(tokens=9)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 0, 1, 0]])
    mask = torch.tensor([[1] * 9, [1] * 8 + [0]])
    packed = what.logits(Batch(batch.ids, batch.ids, mask, positions))
    for row, sizes in enumerate(lengths):
        begin = 0
        for size in sizes:
            ids = batch.ids[row : row + 1, begin : begin + size]
            alone = what.logits(Batch(ids, ids, torch.ones_like(ids)))
            torch.testing.assert_close(packed[row, begin : begin + size], alone[0], rtol=1e-4, atol=1e-4)
            begin += size


@pytest.mark.parametrize("kind", ["scratch", "llama", "gpt2"])
def test_filling_at_the_end_of_a_row_changes_nothing_before_it(bases: dict[str, str], outputs: Path, kind: str) -> None:
    what, batch = prepared(bases[kind], outputs), some_batch(tokens=9)
    what.model.eval()
    filled = torch.cat([batch.ids, torch.full((2, 3), 7)], dim=1)
    mask = torch.cat([torch.ones(2, 9), torch.zeros(2, 3)], dim=1).long()
    logits = what.logits(Batch(filled, filled, mask))
    torch.testing.assert_close(logits[:, :9], what.logits(batch), rtol=1e-4, atol=1e-4)


# Refusals ------------------------------------------------------------------------------------------------------------


def refused(settings: FinetuneSettings, outputs: Path) -> LabError:
    with pytest.raises(LabError) as caught:
        prepare(settings, outputs, CPU, quiet, 0)
    return caught.value


def test_no_base() -> None:
    assert "No base was named" in str(refused(FinetuneSettings(), Path()))


def test_a_folder_without_weights_or_tokenizer(bases: dict[str, str], outputs: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in Path(bases["llama"]).iterdir():
        if file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    for method in METHODS:
        assert "no model.safetensors" in str(refused(settings_for(str(bare), method), outputs))
    for file in list(bare.glob("*token*")):
        file.unlink()
    for method in METHODS:
        assert "without a tokenizer" in str(refused(settings_for(str(bare), method), outputs))


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_above_the_narrowest_layer(bases: dict[str, str], outputs: Path, kind: str) -> None:
    said = refused(settings_for(bases[kind], rank=33), outputs)
    assert isinstance(said, UsageError)
    narrowest = 16 if kind in ("llama", "qwen2", "gguf") else 32
    assert f"Set lora.rank to {narrowest} or less" in str(said)
    assert prepared(bases[kind], outputs, rank=narrowest).trainable > 0


def test_a_hub_model_that_is_not_here(outputs: Path) -> None:
    for method in METHODS:
        assert "nor in the Hugging Face cache" in str(refused(settings_for("nobody/nothing", method), outputs))


def test_a_download_without_room(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = SimpleNamespace(rfilename="model.safetensors", size=10**18)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=[file], sha="0" * 40)
    )
    said = str(refused(settings_for("nobody/nothing"), outputs))
    assert "no room to download nobody/nothing" in said
    assert "1,000,000,000.00 GB" in said


def test_no_room_in_memory(bases: dict[str, str], outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(CPU), "free_bytes", lambda self: 10_000_000)
    said = str(refused(settings_for(bases["llama"]), outputs))
    assert "does not fit into memory" in said
    assert "qlora" in said


def test_a_family_that_cannot_compute_its_blocks_anew_is_refused(
    bases: dict[str, str], outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise ValueError("It does not support gradient checkpointing.")

    monkeypatch.setattr(transformers.PreTrainedModel, "activation_checkpointing_enable", none, raising=False)
    monkeypatch.setattr(transformers.PreTrainedModel, "gradient_checkpointing_enable", none)
    settings = settings_for(bases["llama"])
    settings = replace(settings, train=replace(settings.train, activation_checkpointing=True))
    assert "Set train.activation_checkpointing=false." in str(refused(settings, outputs))


def test_unsloth_is_refused_in_a_sentence_where_it_is_absent(bases: dict[str, str], outputs: Path) -> None:
    if probe_unsloth() is None:
        pytest.skip("Unsloth is here")
    settings = FinetuneSettings(model=BaseSettings(base=bases["llama"], backend="unsloth"))
    said = str(refused(settings, outputs))
    assert "Unsloth cannot be used here" in said
    assert "model.backend=peft" in said
    assert "unsloth" not in sys.modules


def test_the_trial_of_unsloth_can_be_cancelled_and_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsloth.importlib.util, "find_spec", lambda _: True)
    before = psutil.Process().children()  # of which one may end meanwhile
    monkeypatch.setattr(unsloth, "_PROBE", "import time; time.sleep(600)")
    with pytest.raises(Cancelled):
        probe_unsloth(CancelAfter(2))
    assert not set(psutil.Process().children()) - set(before)
    monkeypatch.setattr(unsloth, "_PROBE", "raise SystemExit('There is no CUDA device here.')")
    assert probe_unsloth() == "There is no CUDA device here."
    monkeypatch.setattr(unsloth, "_PROBE", "")
    assert probe_unsloth() is None


def test_a_patched_model_is_not_looked_into(bases: dict[str, str], outputs: Path) -> None:
    what: Prepared = prepared(bases["llama"], outputs)
    what.patched = True
    with pytest.raises(LabError, match="Unsloth has rewritten"):
        what.merged()


def test_plain_transformers_agrees(bases: dict[str, str], outputs: Path) -> None:
    what, batch = prepared(bases["qwen2"], outputs), some_batch()
    theirs = AutoModelForCausalLM.from_pretrained(bases["qwen2"])(input_ids=batch.ids, labels=batch.ids)
    torch.testing.assert_close(loss_of(what, batch), theirs.loss, rtol=1e-5, atol=1e-5)
