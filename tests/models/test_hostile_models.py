"""Damaged, foreign and hostile model files: a sentence, nothing of theirs is run, and no memory is taken for lies."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import psutil
import pytest
import safetensors.torch
import tiny_models
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmlab.core.errors import LabError
from llmlab.core.paths import module_command
from llmlab.models import adapter_patterns as patterns
from llmlab.models.gguf_file import count_gguf_parameters
from llmlab.models.source import open_model
from llmlab.models.weights import count_parameters


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tiny_models.llama(), tmp_path_factory.mktemp("hostile") / "tiny")


@pytest.fixture(scope="module")
def gguf_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return tiny_models.save_gguf(tiny_models.llama(tie_word_embeddings=False), path).read_bytes()


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


class _Touch:
    """A pickle of this makes a file when it is read."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


def _change(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | changes))


def _cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def _without(folder: Path, name: str) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    del weights[name]
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _resized(folder: Path, name: str) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights[name] = weights[name][:-1].contiguous()
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _into_index(folder: Path, file: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": file}}))


def _spoiled(folder: Path, file: str, value: float) -> None:
    weights = safetensors.torch.load_file(folder / file)
    last = sorted(weights)[-1]
    weights[last].view(-1)[-1] = value
    safetensors.torch.save_file(weights, folder / file, {"format": "pt"})


# What libraries call themselves and their own: none of it belongs into a sentence.
FOREIGN_WORDS = (
    "Error:",
    "torch/csrc",
    "ignore_mismatched",
    "Validation error",
    "trust_remote_code",
    "0x",
    "Traceback",
)

HARM: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights cut": (lambda f: _cut(f / "model.safetensors", 0.5), "cut short"),
    "weights cut in the header": (lambda f: _cut(f / "model.safetensors", 0.001), "damaged or foreign"),
    "weights empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged or foreign"),
    "weights of noise": (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 5000), "damaged or foreign"),
    "a weight missing": (lambda f: _without(f, "model.layers.1.mlp.up_proj.weight"), "lacks the weight"),
    "a weight of another shape": (
        lambda f: _resized(f, "model.layers.1.mlp.up_proj.weight"),
        r"holds in another shape the weight model\.layers\.1\.mlp\.up_proj\.weight",
    ),
    "a weight that is no number": (lambda f: _spoiled(f, "model.safetensors", float("nan")), "not finite"),
    "a weight without end": (lambda f: _spoiled(f, "model.safetensors", -float("inf")), "not finite"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "There is no model.safetensors"),
    "an index that leads elsewhere": (lambda f: _into_index(f, "../../model.safetensors"), "not in its folder"),
    "an index of nothing": (lambda f: _into_index(f, "gone.safetensors"), "not in its folder"),
    "settings that are no JSON": (lambda f: (f / "config.json").write_text("{"), "missing or damaged"),
    "settings that are a list": (lambda f: (f / "config.json").write_text("[]"), "missing or damaged"),
    "an unknown family": (lambda f: _change(f / "config.json", model_type="marvin"), "does not know"),
    "a family that is a list": (lambda f: _change(f / "config.json", model_type=["llama"]), "does not know"),
    "another family": (lambda f: _change(f / "config.json", model_type="gpt2"), "cannot be opened"),
    "not a language model": (lambda f: _change(f / "config.json", model_type="vit"), "cannot be opened"),
    "an encoder and a decoder": (lambda f: _change(f / "config.json", model_type="t5"), "cannot be opened"),
    "quantized": (
        lambda f: _change(
            f / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}
        ),
        "quantized",
    ),
    "more layers than weights": (lambda f: _change(f / "config.json", num_hidden_layers=3), "lacks the weight"),
    "fewer layers than weights": (lambda f: _change(f / "config.json", num_hidden_layers=1), "has no layer"),
    "endless layers": (lambda f: _change(f / "config.json", num_hidden_layers=10**9), "describe a model"),
    "an endless vocabulary": (lambda f: _change(f / "config.json", vocab_size=10**9), "describe a model"),
    "a width of text": (lambda f: _change(f / "config.json", hidden_size="wide"), "hidden_size = 'wide'"),
    "no heads": (lambda f: _change(f / "config.json", num_attention_heads=0), "num_attention_heads = 0"),
    "heads below zero": (lambda f: _change(f / "config.json", num_attention_heads=-4), "num_attention_heads = -4"),
    "heads that do not divide": (
        lambda f: _change(f / "config.json", num_attention_heads=5),
        "hidden_size 32 in 5 heads",
    ),
    "keys and values that do not divide": (
        lambda f: _change(f / "config.json", num_key_value_heads=3),
        "in another shape",
    ),
    "no keys and values": (lambda f: _change(f / "config.json", num_key_value_heads=0), "num_key_value_heads = 0"),
    "layers below zero": (lambda f: _change(f / "config.json", num_hidden_layers=-1), "num_hidden_layers = -1"),
    "no layers": (lambda f: _change(f / "config.json", num_hidden_layers=0), "num_hidden_layers = 0"),
    "no context": (lambda f: _change(f / "config.json", max_position_embeddings=0), "max_position_embeddings = 0"),
    "a vocabulary beyond numbers": (lambda f: _change(f / "config.json", vocab_size=10**30), "which no model has"),
    "a feed-forward beyond numbers": (lambda f: _change(f / "config.json", intermediate_size=10**30), "no model has"),
    "a head of width 0": (lambda f: _change(f / "config.json", head_dim=0), "head_dim = 0"),
    "a bias of text": (lambda f: _change(f / "config.json", attention_bias="x"), "attention_bias = 'x'"),
    "a tokenizer of noise": (lambda f: (f / "tokenizer.json").write_bytes(b"\xff" * 99), "tokenizer"),
    "an empty tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer"),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_harmed_folder_is_a_sentence(folder: Path, outputs: Path, harm: str) -> None:
    do, said = HARM[harm]
    do(folder)
    before = psutil.Process().memory_info().rss
    with pytest.raises(LabError, match=said) as refused:
        open_model(str(folder), outputs)
    assert all(part.endswith((".", "?")) for part in (refused.value.what, refused.value.why))
    assert not any(word in str(refused.value) for word in FOREIGN_WORDS)
    assert psutil.Process().memory_info().rss - before < 500e6


def test_pickled_weights_are_not_read(folder: Path, outputs: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Touch(tmp_path / "witness"), protocol=2))
    with pytest.raises(LabError, match=r"pytorch_model\.bin is a pickle"):
        open_model(str(folder), outputs)
    assert not (tmp_path / "witness").exists()


def test_code_that_comes_with_a_model_is_not_run(folder: Path, outputs: Path, tmp_path: Path) -> None:
    code = f"from pathlib import Path\nPath({str(tmp_path / 'witness')!r}).touch()\nclass Thing: pass\n"
    (folder / "evil.py").write_text(code)
    auto = {"AutoConfig": "evil.Thing", "AutoModelForCausalLM": "evil.Thing", "AutoTokenizer": ["evil.Thing", None]}
    _change(folder / "config.json", auto_map=auto)
    _change(folder / "tokenizer_config.json", auto_map=auto)
    open_model(str(folder), outputs)  # a family that transformers knows needs none of it
    _change(folder / "config.json", model_type="marvin")
    with pytest.raises(LabError, match="runs no code of a model"):
        open_model(str(folder), outputs)
    assert not (tmp_path / "witness").exists()


def test_a_tokenizer_that_needs_code_is_a_sentence(folder: Path, outputs: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("the\nking\n")
    _change(
        folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Thing", None]}, tokenizer_class="EvilThing"
    )
    with pytest.raises(LabError, match="runs no code of a model") as refused:
        open_model(str(folder), outputs)
    assert "trust_remote_code" not in str(refused.value)


@pytest.mark.parametrize("step", ["normalizer", "pre_tokenizer"])
def test_a_tokenizers_pattern_that_tries_too_much_is_a_sentence(folder: Path, outputs: Path, step: str) -> None:
    pattern = {"pattern": {"Regex": "(a+)+$"}}
    steps = {
        "normalizer": {"type": "Replace", **pattern, "content": "x"},
        "pre_tokenizer": {"type": "Split", **pattern, "behavior": "Isolated", "invert": False},
    }
    _change(folder / "tokenizer.json", **{step: steps[step]})
    opened = open_model(str(folder), outputs)
    with pytest.raises(
        LabError, match=r"could not finish a text\. A pattern in its tokenizer\.json takes too long on it"
    ):
        opened.tokenizer.encode("a" * 40 + "b")
    assert opened.tokenizer.encode("the king")


DEEP_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json")


@pytest.mark.parametrize("file", DEEP_FILES)
def test_json_that_nests_without_end_is_a_sentence(folder: Path, outputs: Path, file: str) -> None:
    deep = "[" * 200_000 + "]" * 200_000
    (folder / file).write_text(f'{{"model_type": "llama", "a": {deep}}}')
    with pytest.raises(LabError, match=rf"{re.escape(file)} is (missing or )?damaged"):
        open_model(str(folder), outputs)


def test_an_attention_program_that_settings_name_is_not_fetched(folder: Path, outputs: Path) -> None:
    _change(folder / "config.json", _attn_implementation="evil/kernel", attn_implementation="evil/kernel")
    opened = open_model(str(folder), outputs)
    assert opened.model.config._attn_implementation in ("sdpa", "eager")


def test_a_folder_without_a_tokenizer_is_opened_and_asked_by_ids(folder: Path, outputs: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    opened = open_model(str(folder), outputs)
    assert opened.tokenizer.token_text(7) == "<7>"
    with pytest.raises(LabError, match="came without a tokenizer"):
        opened.tokenizer.encode("the")


# Each character more doubles what Python's `re` tries on a name that it does not fit.
ENDLESS = r"(\w+\.?)+!"
ADAPTER_HARM: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a weight that is no number": (lambda f: _spoiled(f, "adapter_model.safetensors", float("nan")), "not finite"),
    "weights cut": (lambda f: _cut(f / "adapter_model.safetensors", 0.5), "cut short"),
    "settings that are no JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "damaged"),
    "an unknown kind": (lambda f: _change(f / "adapter_config.json", peft_type="MARVIN"), "does not know"),
    "a kind of prompts": (
        lambda f: _change(f / "adapter_config.json", peft_type="PROMPT_TUNING"),
        "does not change weights",
    ),
    "a kind that opens others": (
        lambda f: _change(f / "adapter_config.json", peft_type="XLORA"),
        "does not change weights",
    ),
    "a kind that is a list": (lambda f: _change(f / "adapter_config.json", peft_type=["LORA"]), "does not know"),
    **{
        f"endless {key}": (
            lambda f, key=key, value=value: _change(f / "adapter_config.json", **{key: value}),
            "pattern",
        )
        for key, value in (
            ("target_modules", ENDLESS),
            ("exclude_modules", ENDLESS),
            ("modules_to_save", [ENDLESS]),
            ("rank_pattern", {ENDLESS: 4}),
            ("alpha_pattern", {"q_proj": 4, ENDLESS: 4}),
        )
    },
    "an endless layers_pattern": (
        lambda f: _change(f / "adapter_config.json", layers_pattern=ENDLESS, layers_to_transform=[0]),
        "pattern",
    ),
    "a rank of a billion": (lambda f: _change(f / "adapter_config.json", r=10**9), "rank 1,000,000,000"),
    "a rank of a billion in some": (
        lambda f: _change(f / "adapter_config.json", rank_pattern={"q_proj": 10**9}),
        "rank 1,000,000,000",
    ),
    "a rank that is no number": (lambda f: _change(f / "adapter_config.json", r="four"), "rank 'four'"),
    "a rank below zero": (lambda f: _change(f / "adapter_config.json", r=-4), "rank -4"),
    "layers over and over": (
        lambda f: _change(f / "adapter_config.json", layer_replication=[[0, 2]] * 10**4),
        "repeats layers",
    ),
    "modules that are not there": (
        lambda f: _change(f / "adapter_config.json", target_modules=["nowhere"]),
        "cannot be opened",
    ),
    "modules without weights": (
        lambda f: _change(f / "adapter_config.json", target_modules=["q_proj", "down_proj", "up_proj"]),
        "was not made for",
    ),
    "weights without modules": (
        lambda f: _change(f / "adapter_config.json", target_modules=["q_proj"]),
        "was not made for",
    ),
    "a module to import": (
        lambda f: _change(f / "adapter_config.json", megatron_config={"a": 1}, megatron_core="this"),
        "Megatron",
    ),
}


def _does_not_end(command: list[str], *, input: bytes, timeout: float, **_: object) -> None:
    assert ENDLESS in json.loads(input)["patterns"]
    raise subprocess.TimeoutExpired(command, timeout)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ADAPTER_HARM)
def test_a_harmed_adapter_is_a_sentence(
    saved: Path, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    if harm == "endless target_modules":
        monkeypatch.setattr(patterns, "_SECONDS", 0.5)
    elif "endless" in harm:  # that a process stops at such a pattern, the one above shows
        monkeypatch.setattr(patterns.subprocess, "run", _does_not_end)
    adapter = tiny_models.save_adapter(saved, tmp_path / "lora")
    do, said = ADAPTER_HARM[harm]
    do(adapter)
    before = psutil.Process().memory_info().rss
    with pytest.raises(LabError, match=said) as refused:
        open_model(f"{saved}+{adapter}", outputs)
    assert not any(word in str(refused.value) for word in FOREIGN_WORDS)
    assert psutil.Process().memory_info().rss - before < 500e6


def test_patterns_that_end_are_understood_as_peft_does(saved: Path, outputs: Path, tmp_path: Path) -> None:
    adapter = tiny_models.save_adapter(saved, tmp_path / "lora")
    listed = open_model(f"{saved}+{adapter}", outputs).weights_sha256
    _change(adapter / "adapter_config.json", target_modules=r"(?:.*?(?:model|text).*?\.(?:q_proj|down_proj))|nowhere")
    _change(adapter / "adapter_config.json", rank_pattern={r"^model\.layers\.\d+\.self_attn\.q_proj": 4})
    assert open_model(f"{saved}+{adapter}", outputs).weights_sha256 == listed


@pytest.mark.parametrize("start", [True, "gaussian", "pissa"])
def test_memory_is_taken_for_what_an_adapter_holds_and_not_for_the_rank_that_one_odd_weight_allows(
    saved: Path, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bool | str
) -> None:
    adapter, rank = tiny_models.save_adapter(saved, tmp_path / "lora"), 20_000
    path = adapter / "adapter_model.safetensors"
    odd = {"base_model.model.model.layers.0.odd.lora_A.weight": torch.zeros(rank, 1, dtype=torch.int8)}
    safetensors.torch.save_file(safetensors.torch.load_file(path) | odd, path, {"format": "pt"})
    _change(adapter / "adapter_config.json", r=rank, rank_pattern={}, init_lora_weights=start)
    taken = []
    fill = torch.nn.init.kaiming_uniform_

    def filled(tensor: torch.Tensor, *how: Any, **more: Any) -> torch.Tensor:
        taken.append(0 if tensor.is_meta else tensor.numel())
        return fill(tensor, *how, **more)

    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", filled)
    with pytest.raises(LabError, match=r"have other shapes|and its weights have \d+ at most"):
        open_model(f"{saved}+{adapter}", outputs)
    assert max(taken, default=0) < rank


@pytest.mark.parametrize("start", [True, False, "gaussian", "pissa", "olora", "orthogonal"])
def test_however_an_adapter_began_it_is_what_peft_opens(
    saved: Path, outputs: Path, tmp_path: Path, start: bool | str
) -> None:
    base = transformers.AutoModelForCausalLM.from_pretrained(saved)
    config = peft.LoraConfig(r=4, init_lora_weights=start, target_modules=["q_proj", "down_proj"])
    tuned: Any = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_" in name:
                weight.add_(torch.randn_like(weight) * 0.05)
    tuned.save_pretrained(tmp_path / "lora")
    opened = open_model(f"{saved}+{tmp_path / 'lora'}", outputs).model.state_dict()
    for name, weight in tuned.merge_and_unload().state_dict().items():
        assert torch.allclose(opened[name], weight, atol=1e-6), name


def test_the_process_that_tries_patterns_ends_also_when_nobody_waits_for_it_any_more() -> None:
    request = {"patterns": ["(a+)+b"], "names": ["a" * 60], "seconds": 0.5}
    tried = subprocess.run(
        module_command("llmlab.models.adapter_patterns"),
        input=json.dumps(request).encode(),
        stderr=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert tried.returncode != 0


def test_an_adapter_of_another_base_is_refused(saved: Path, outputs: Path, tmp_path: Path) -> None:
    adapter = tiny_models.save_adapter(saved, tmp_path / "lora")
    other = tiny_models.save(tiny_models.llama(hidden_size=64, head_dim=16), tmp_path / "wider")
    deeper = tiny_models.save(tiny_models.llama(num_hidden_layers=3), tmp_path / "deeper")
    foreign = tiny_models.save(tiny_models.gpt2(), tmp_path / "gpt2")
    for base, said in ((other, "was not made for"), (deeper, "was not made for"), (foreign, "lora")):
        with pytest.raises(LabError, match=said):
            open_model(f"{base}+{adapter}", outputs)


def test_pickled_adapters_are_not_read(saved: Path, outputs: Path, tmp_path: Path) -> None:
    adapter = tiny_models.save_adapter(saved, tmp_path / "lora")
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(_Touch(tmp_path / "witness"), protocol=2))
    with pytest.raises(LabError, match=r"adapter_model\.bin is a pickle"):
        open_model(f"{saved}+{adapter}", outputs)
    assert not (tmp_path / "witness").exists()


@given(share=st.floats(0, 0.999))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_gguf_file_cut_anywhere_is_refused(gguf_bytes: bytes, tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(gguf_bytes[: int(len(gguf_bytes) * share)])
    with pytest.raises(LabError, match=r"cut.gguf is damaged or foreign: "):
        count_gguf_parameters(path, "cut")


@given(data=st.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_header_with_any_bytes_changed_is_counted_or_refused(
    saved: Path, gguf_bytes: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    def spoil(plain: bytes, length: int) -> bytes:
        spoiled = bytearray(plain)
        for _ in range(data.draw(st.integers(1, 4))):
            spoiled[data.draw(st.integers(0, length - 1))] = data.draw(st.integers(0, 255))
        return bytes(spoiled)

    path = tmp_path / "spoiled.gguf"
    path.write_bytes(spoil(gguf_bytes, 2000))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(spoil((saved / "model.safetensors").read_bytes(), 2000))
    for file, count in (
        (path, lambda: count_gguf_parameters(path, "x")),
        (weights, lambda: count_parameters(tmp_path, "x")),
    ):
        begin = time.process_time()
        with contextlib.suppress(LabError):
            assert 0 <= count() <= 8 * file.stat().st_size  # no format packs a number into less than a bit
        assert time.process_time() - begin < 2


def test_a_header_that_claims_more_numbers_than_its_bytes_hold_is_refused(saved: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes((saved / "model.safetensors").read_bytes().replace(b'"shape":[32]', b'"shape":[99]'))
    with pytest.raises(LabError, match=r"model\.safetensors is damaged or foreign"):
        count_parameters(tmp_path, "x")
    one = struct.pack("<Q1sIQIQ", 1, b"w", 1, 32, 0, 0)  # 32 numbers in fp32, at the beginning of the data
    path = tmp_path / "shared.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1000, 0) + one * 1000 + bytes(256))
    with pytest.raises(LabError, match="it should have"):
        count_gguf_parameters(path, "x")


def test_a_gguf_of_an_architecture_unknown_here_is_a_sentence(gguf_bytes: bytes, outputs: Path, tmp_path: Path) -> None:
    path = tmp_path / "strange.gguf"
    path.write_bytes(gguf_bytes.replace(b"llama", b"marvi"))
    with pytest.raises(LabError, match="strange cannot be opened"):
        open_model(str(path), outputs)
