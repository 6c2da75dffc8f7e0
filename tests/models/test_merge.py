"""What is exported is the model that the lab shows, whoever opens it; and it is whole, or not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import safetensors.torch
import tiny_models
import torch
import transformers
from peft import PeftModel
from small_runs import new_run, train_here
from tiny_models import logits
from transformers import Qwen2Config, Qwen2ForCausalLM
from tuned_runs import LLAMA_TARGETS, SCRATCH_TARGETS, copy_adapter, full_run, llama_folder, lora_run

from llmlab.core.errors import LabError, UsageError
from llmlab.data.chat_formats import chat_format
from llmlab.data.examples import Example, Message
from llmlab.data.hf_tokenizer import HuggingFaceTokenizer
from llmlab.inspection.weight_change import change_of
from llmlab.models.export import merge
from llmlab.models.export.merge import export
from llmlab.models.reference import parse
from llmlab.models.source import open_model, source_of

TEXT = "the king and the thing: 12 kings"
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scratch run, a Llama with a chat template and a Qwen2, each with a run that fine-tuned it."""
    outputs = tmp_path_factory.mktemp("outputs")
    train_here(new_run(outputs, name="small", model__block_size=64, model__n_layer=2))
    lora_run(outputs, "small@final", SCRATCH_TARGETS, "on-small")
    base = llama_folder(outputs / "models" / "llama")
    (base / "chat_template.jinja").write_text(TEMPLATE)
    lora_run(outputs, str(base), LLAMA_TARGETS, "on-llama")
    lora_run(outputs, str(tiny_models.save(qwen2(), outputs / "models" / "qwen2")), LLAMA_TARGETS, "on-qwen2")
    return outputs


def qwen2(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "vocab_size": tiny_models.TOKENIZER.vocab_size + 5,  # padded, as Qwen2's own
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50_000.0},
        "bos_token_id": None,
        "eos_token_id": tiny_models.TOKENIZER.end_of_text,
    }
    return tiny_models.lively(Qwen2ForCausalLM(Qwen2Config(**(values | changes))))


@pytest.mark.parametrize("name", ["on-small@50", "on-llama@50", "on-qwen2@50"])
def test_a_folder_is_the_merged_model_for_transformers_and_for_the_lab(
    outputs: Path, tmp_path: Path, name: str
) -> None:
    export(name, outputs, tmp_path / "merged", "hf")
    shown = open_model(name, outputs)
    ids = shown.tokenizer.encode(TEXT.replace("12", "").replace(":", ""))
    wanted = logits(shown.model, ids)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer(shown.tokenizer.decode(ids), add_special_tokens=False)["input_ids"] == ids
    torch.testing.assert_close(logits(theirs, ids), wanted, rtol=1e-4, atol=1e-4)
    again = open_model(str(tmp_path / "merged"), outputs)
    torch.testing.assert_close(logits(again.model, ids), wanted, rtol=1e-4, atol=1e-4)
    base = open_model(name.replace("@50", "@100"), outputs)
    assert not torch.allclose(logits(base.model, ids), wanted, atol=1e-2)


def test_a_full_run_is_exported_with_its_own_weights(outputs: Path, tmp_path: Path) -> None:
    run = full_run(outputs, str(outputs / "models" / "llama"))
    try:
        export("whole", outputs, tmp_path / "whole", "hf")
        assert (
            open_model(str(tmp_path / "whole"), outputs).weights_sha256 == open_model("whole", outputs).weights_sha256
        )
        with pytest.raises(UsageError, match="has no adapter to export"):
            export("whole", outputs, tmp_path / "adapter", "adapter")
    finally:
        shutil.rmtree(run.path)


def test_the_chat_template_goes_along(outputs: Path, tmp_path: Path) -> None:
    export("on-llama", outputs, tmp_path / "merged", "hf")
    export("on-llama", outputs, tmp_path / "merged.gguf", "gguf")
    for reference in (str(tmp_path / "merged"), str(tmp_path / "merged.gguf")):
        tokenizer = open_model(reference, outputs).tokenizer
        assert isinstance(tokenizer, HuggingFaceTokenizer)
        turns = [{"role": "user", "content": "hi"}]
        assert tokenizer.inner.apply_chat_template(turns, tokenize=False) == "<|user|>hi"


def test_a_gguf_file_of_a_base_without_a_template_is_asked_as_the_run_is(outputs: Path, tmp_path: Path) -> None:
    export("on-qwen2", outputs, tmp_path / "merged.gguf", "gguf")
    asked = Example(1, (Message("user", "the king?"),))
    back, wanted = (open_model(name, outputs).tokenizer for name in (str(tmp_path / "merged.gguf"), "on-qwen2"))
    assert isinstance(back, HuggingFaceTokenizer)
    assert chat_format(back).prompt_ids(asked) == chat_format(wanted).prompt_ids(asked)
    turns = [{"role": "user", "content": "the king?"}]
    text = back.inner.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert back.encode(text) == chat_format(wanted).prompt_ids(asked)


@pytest.mark.parametrize("name", ["on-llama", "on-qwen2"])
@pytest.mark.parametrize(("precision", "error"), [("f32", 1e-4), ("f16", 3e-2)])
def test_a_gguf_file_read_back_is_the_merged_model(
    outputs: Path, tmp_path: Path, name: str, precision: str, error: float
) -> None:
    export(name, outputs, tmp_path / "merged.gguf", "gguf", precision=precision)
    shown, back = open_model(name, outputs), open_model(str(tmp_path / "merged.gguf"), outputs)
    ids = shown.tokenizer.encode(TEXT)
    assert back.tokenizer.encode(TEXT) == ids
    assert back.tokenizer.beginning == shown.tokenizer.beginning
    wanted = logits(shown.model, ids)
    torch.testing.assert_close(logits(back.model, ids), wanted, rtol=error, atol=error * wanted.abs().max().item())


def test_an_untied_head_is_written_too(outputs: Path, tmp_path: Path) -> None:
    folder = tiny_models.save(qwen2(tie_word_embeddings=False), tmp_path / "untied")
    export(str(folder), outputs, tmp_path / "untied.gguf", "gguf", precision="f32")
    shown, back = open_model(str(folder), outputs), open_model(str(tmp_path / "untied.gguf"), outputs)
    ids = shown.tokenizer.encode(TEXT)
    torch.testing.assert_close(logits(back.model, ids), logits(shown.model, ids), rtol=1e-4, atol=1e-4)


def test_a_gguf_base_with_an_adapter_becomes_a_folder_and_a_file_again(outputs: Path, tmp_path: Path) -> None:
    file = tiny_models.save_gguf(tiny_models.llama(), tmp_path / "base.gguf")
    adapter = outputs / "finetuning/on-llama/checkpoints/step-00000100"
    wanted = open_model("on-llama@100", outputs)
    ids = wanted.tokenizer.encode(TEXT)
    for out, to in (("merged", "hf"), ("merged.gguf", "gguf")):
        export(f"{file}+{adapter}", outputs, tmp_path / out, to, precision="f32")
        back = open_model(str(tmp_path / out), outputs)
        torch.testing.assert_close(logits(back.model, ids), logits(wanted.model, ids), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["on-small", "on-llama"])
def test_an_exported_adapter_is_pefts_and_knows_its_base(outputs: Path, tmp_path: Path, name: str) -> None:
    export(name, outputs, tmp_path / "adapter", "adapter")
    wanted = open_model(name, outputs)
    assert open_model(str(tmp_path / "adapter"), outputs).weights_sha256 == wanted.weights_sha256
    folder = outputs / "models" / "llama"
    if name == "on-small":
        folder = tmp_path / "base"
        export("small@final", outputs, folder, "hf")
    base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = wanted.tokenizer.encode(TEXT.replace("12", "").replace(":", ""))
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(theirs, ids), logits(wanted.model, ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("targets", [SCRATCH_TARGETS, ["blocks.1.attention.qkv", "blocks.0.feed_forward.down"]])
def test_both_forms_of_an_adapter_sit_on_the_run_and_on_its_export(
    outputs: Path, tmp_path: Path, targets: list[str]
) -> None:
    patterns = {"rank_pattern": {"blocks.0.feed_forward.down": 2}, "alpha_pattern": {"blocks.1.attention.qkv": 9}}
    run = lora_run(outputs, "small@final", targets, "formed", use_rslora=True, **patterns)
    try:
        own = run.checkpoints / "step-00000100"
        export("small@final", outputs, tmp_path / "base", "hf")
        export("formed@100", outputs, tmp_path / "adapter", "adapter")
        wanted = open_model("formed@100", outputs)
        ids = wanted.tokenizer.encode("the king and the thing")
        base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        assert not torch.allclose(logits(base, ids), logits(wanted.model, ids), atol=1e-2)
        for below in ("small@final", str(tmp_path / "base")):
            for adapter in (own, tmp_path / "adapter"):
                opened = open_model(f"{below}+{adapter}", outputs)
                torch.testing.assert_close(logits(opened.model, ids), logits(wanted.model, ids), rtol=1e-4, atol=1e-4)
                moved = change_of(f"{below}+{adapter}", outputs)
                assert moved.norm == pytest.approx(change_of("formed@100", outputs).norm, rel=1e-5)
                assert all(row.base_norm for row in moved.modules)
        theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        torch.testing.assert_close(logits(theirs, ids), logits(wanted.model, ids), rtol=1e-4, atol=1e-4)
    finally:
        shutil.rmtree(run.path)


def test_an_export_is_known_as_the_base_that_it_was_until_its_weights_are_others(outputs: Path, tmp_path: Path) -> None:
    adapter = copy_adapter(outputs / "finetuning/on-small/checkpoints/step-00000100", tmp_path / "adapter")
    weights = safetensors.torch.load_file(adapter / "adapter_model.safetensors")
    about = {"base": "small@final", "base_sha256": source_of(parse("small@final", outputs)).digest()}
    safetensors.torch.save_file(weights, adapter / "adapter_model.safetensors", about)
    export("small@final", outputs, tmp_path / "base", "hf")
    opened = open_model(f"{tmp_path / 'base'}+{adapter}", outputs)
    wanted = open_model("on-small@100", outputs)
    ids = wanted.tokenizer.encode("the king and the thing")
    torch.testing.assert_close(logits(opened.model, ids), logits(wanted.model, ids), rtol=1e-4, atol=1e-4)
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        other.transformer.wpe.weight.add_(0.1)
    other.save_pretrained(tmp_path / "base")
    with pytest.raises(LabError, match=r"was not made for .*base\. "):
        open_model(f"{tmp_path / 'base'}+{adapter}", outputs)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "stretches its rotary"),
        ({"attention_bias": True}, "has biases"),
        ({"head_dim": 16}, "heads of another size"),
        ({"hidden_act": "gelu"}, "another activation"),
    ],
)
def test_what_a_gguf_file_could_not_say_is_refused(
    outputs: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = llama_folder(tmp_path / "odd", **changes)
    with pytest.raises(LabError, match=words):
        export(str(folder), outputs, tmp_path / "odd.gguf", "gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["odd"]


def test_other_families_are_refused_as_gguf(outputs: Path, tmp_path: Path) -> None:
    gpt2 = tiny_models.save(tiny_models.gpt2(), tmp_path / "gpt2")
    for name, family in ((str(gpt2), "gpt2"), ("on-small", "the lab's own GPT")):
        with pytest.raises(LabError, match=f"families llama and qwen2; this is {family}"):
            export(name, outputs, tmp_path / "x.gguf", "gguf")


def test_nothing_is_left_when_writing_fails_or_the_disk_is_full(outputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    full = mock.patch.object(merge, "_write_folder", side_effect=OSError(28, "No space left on device"))
    with full, pytest.raises(LabError, match=r"No space left on device. Make room"):
        export("on-llama", outputs, out / "merged", "hf")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    with mock.patch.object(shutil, "disk_usage", return_value=usage):
        for to, name in (("hf", "merged"), ("gguf", "merged.gguf"), ("adapter", "merged")):
            with pytest.raises(LabError, match=r"needs \d+ MB\. .* has 0 MB free"):
                export("on-llama", outputs, out / name, to)
    assert not list(out.iterdir())


def test_what_is_there_is_never_written_over(outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    (tmp_path / "taken.gguf").touch()
    for out, to in (("taken", "hf"), ("taken", "adapter"), ("taken.gguf", "gguf")):
        with pytest.raises(UsageError, match="never overwrites"):
            export("on-llama", outputs, tmp_path / out, to)
    with pytest.raises(UsageError, match=r"ends in \.gguf"):
        export("on-llama", outputs, tmp_path / "new", "gguf")
    with pytest.raises(UsageError, match="small@latest has no adapter"):
        export("small", outputs, tmp_path / "new", "adapter")


def test_a_checkpoint_that_was_changed_is_not_exported(outputs: Path, tmp_path: Path) -> None:
    copied = tmp_path / "finetuning" / "copied"
    shutil.copytree(outputs / "finetuning" / "on-llama", copied)
    config = copied / "checkpoints/step-00000100/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 1000}))
    with pytest.raises(LabError, match="cannot be exported"):
        export(f"{copied}@100", outputs, tmp_path / "adapter", "adapter")


@pytest.mark.parametrize(("name", "to"), [("turning", "gguf"), ("on-turning", "gguf"), ("turning", "adapter")])
def test_no_refusal_recommends_an_export_that_refuses_as_well(tmp_path: Path, name: str, to: str) -> None:
    train_here(new_run(tmp_path, name="turning", model__position="rotary"))
    lora_run(tmp_path, "turning@final", SCRATCH_TARGETS, "on-turning")
    with pytest.raises(LabError, match="position=rotary") as refused:
        export(name, tmp_path, tmp_path / "folder", "hf")
    assert "--to gguf" not in str(refused.value)
    with pytest.raises(LabError, match=r"cannot be written|has no adapter") as refused:
        export(name, tmp_path, tmp_path / "out.gguf" if to == "gguf" else tmp_path / "out", to)
    assert "Use --to" not in str(refused.value)


def test_an_adapter_whose_base_only_the_lab_opens_keeps_the_labs_names(outputs: Path, tmp_path: Path) -> None:
    train_here(new_run(tmp_path, name="turning", model__position="rotary"))
    lora_run(tmp_path, "turning@final", SCRATCH_TARGETS, "on-turning")
    export("on-turning", tmp_path, tmp_path / "adapter", "adapter")
    wanted = open_model("on-turning", tmp_path).weights_sha256
    assert open_model(f"turning@final+{tmp_path / 'adapter'}", tmp_path).weights_sha256 == wanted


def test_files_that_vanish_after_they_were_named_are_missed_in_a_sentence(outputs: Path, tmp_path: Path) -> None:
    adapter = copy_adapter(outputs / "finetuning/on-llama/checkpoints/step-00000100", tmp_path / "adapter")
    base = shutil.copytree(outputs / "models/llama", tmp_path / "base")
    named = parse(f"{base}+{adapter}", outputs)
    for folder in (adapter, base):
        shutil.rmtree(folder)
        for act in (open_model, lambda reference, _: source_of(reference).fingerprint()):
            with pytest.raises(LabError):
                act(named, outputs)


def test_an_adapter_whose_weights_are_gone_is_refused_in_a_sentence(outputs: Path, tmp_path: Path) -> None:
    adapter = copy_adapter(outputs / "finetuning/on-llama/checkpoints/step-00000100", tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "model.safetensors.index.json").write_text('{"weight_map": {"a": "a.safetensors"}}')
    shutil.copy(outputs / "models/llama/model.safetensors", adapter / "a.safetensors")  # other weights beside it
    reference = f"{outputs / 'models/llama'}+{adapter}"
    for act in (
        lambda: open_model(reference, outputs),
        lambda: export(reference, outputs, tmp_path / "out", "adapter"),
        lambda: export(reference, outputs, tmp_path / "out", "hf"),
        lambda: change_of(reference, outputs),
    ):
        with pytest.raises(LabError, match=r"adapter_model\.safetensors"):
            act()
