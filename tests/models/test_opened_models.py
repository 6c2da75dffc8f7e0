"""Every kind of model opens as what plain transformers, peft and the lab's own GPT make of the same files."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import gguf
import pytest
import tiny_models
import torch
import transformers
from peft import PeftModel
from small_runs import new_run, train_here
from tiny_models import TOKENIZER, logits
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from torch import nn

from llmlab.anatomy import kept_probe, probe
from llmlab.anatomy.anatomy import Anatomy, Refusals
from llmlab.core import memory
from llmlab.core.errors import Cancelled, LabError
from llmlab.core.files import sha256_of
from llmlab.core.settings import Sampling
from llmlab.data.hf_tokenizer import HuggingFaceTokenizer
from llmlab.models import gguf_cache
from llmlab.models.about import about
from llmlab.models.generation import next_tokens, write
from llmlab.models.model import ModelKind, OpenModel
from llmlab.models.scratch import open_checkpoint
from llmlab.models.source import open_model
from llmlab.store.checkpoints import select

PROMPT = "the king and the thing"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tiny_models.llama(), tmp_path_factory.mktemp("llama"))


def test_a_folder_is_the_plain_librarys_model(folder: Path, outputs: Path) -> None:
    before = sha256_of(folder / "model.safetensors")
    opened = open_model(str(folder), outputs)
    ids = opened.tokenizer.encode(PROMPT)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(opened.model, ids), logits(plain, ids))
    assert ids == transformers.AutoTokenizer.from_pretrained(folder)(PROMPT)["input_ids"]
    assert (opened.kind, opened.reference, opened.name) == ("huggingface", str(folder), folder.name)
    assert opened.parameters == sum(parameter.numel() for parameter in plain.parameters())
    assert opened.bytes == 4 * opened.parameters
    assert not opened.model.training
    assert sha256_of(folder / "model.safetensors") == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_opened_in_fp32(outputs: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    saved = tiny_models.save(tiny_models.gpt2().to(dtype), tmp_path / "half")
    opened = open_model(str(saved), outputs)
    assert {parameter.dtype for parameter in opened.model.parameters()} == {torch.float32}
    plain = transformers.AutoModelForCausalLM.from_pretrained(saved).float()
    ids = TOKENIZER.encode(PROMPT)
    assert torch.equal(logits(opened.model, ids), logits(plain, ids))


def test_several_weight_files_are_one_model(folder: Path, outputs: Path, tmp_path: Path) -> None:
    parts = tiny_models.save(tiny_models.llama(), tmp_path / "parts", max_shard_size="20KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    assert open_model(str(parts), outputs).weights_sha256 == open_model(str(folder), outputs).weights_sha256


def test_a_gguf_file_is_the_plain_librarys_model_and_the_one_it_was_made_of(outputs: Path, tmp_path: Path) -> None:
    made = tiny_models.llama(tie_word_embeddings=False)
    path = tiny_models.save_gguf(made, tmp_path / "tiny.gguf")
    told: list[str] = []
    opened = open_model(str(path), outputs, lambda what, *_: told.append(what))
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
    ids = opened.tokenizer.encode(PROMPT)
    assert ids == TOKENIZER.encode(PROMPT)
    assert torch.equal(logits(opened.model, ids), logits(plain, ids))
    assert torch.allclose(logits(opened.model, ids), logits(made, ids), atol=1e-5)
    assert [opened.tokenizer.token_text(id) for id in ids[:3]] == ["the", " king", " "]
    assert (opened.kind, opened.reference) == ("gguf", str(path))
    assert told[0] == "Reading the header"


def test_a_gguf_file_is_dequantized_once_and_a_damaged_copy_is_never_read(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
    path = tiny_models.save_gguf(tiny_models.llama(), tmp_path / "tiny.gguf")
    read: list[str] = []
    dequantize = gguf.dequantize
    monkeypatch.setattr(gguf, "dequantize", lambda *args: read.append("tensor") or dequantize(*args))

    def reopened() -> bool:
        """Whether the file itself was read again; the model is the same either way."""
        read.clear()
        found = open_model(str(path), outputs)
        assert found.weights_sha256 == first.weights_sha256
        assert (found.kind, found.reference, found.name) == (first.kind, first.reference, first.name)
        assert found.model.generation_config.eos_token_id == first.model.generation_config.eos_token_id
        ids = first.tokenizer.encode(PROMPT)
        assert found.tokenizer.encode(PROMPT) == ids
        assert torch.equal(logits(found.model, ids), logits(first.model, ids))
        return bool(read)

    first = open_model(str(path), outputs)
    (folder,) = (tmp_path / "cache" / "gguf").iterdir()
    assert not reopened()
    for name in ("manifest.json", "model.safetensors", "tokenizer.json"):
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        assert reopened(), name
    assert not reopened()
    (folder / "added.json").write_text("{}")
    assert reopened()
    os.utime(path, (1, 1))  # another file, as far as anyone knows: the copy of what it was goes
    assert reopened()
    assert [other for other in folder.parent.iterdir() if other == folder] == []
    assert not reopened()
    monkeypatch.setattr(gguf_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=first.bytes))
    path.write_bytes(path.read_bytes())
    assert reopened()
    assert reopened()  # nothing was kept: the disk has no room for it
    monkeypatch.setattr(gguf_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 40))
    with mock.patch.object(gguf_cache, "_write", side_effect=RuntimeError("os error 28")):
        assert reopened()
    assert reopened()
    assert not reopened()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of peft about transformers
def test_an_adapter_on_its_base_is_pefts_model(folder: Path, outputs: Path, tmp_path: Path) -> None:
    adapter = tiny_models.save_adapter(folder, tmp_path / "lora")
    digests = [sha256_of(path) for path in (folder / "model.safetensors", adapter / "adapter_model.safetensors")]
    base = open_model(str(folder), outputs)
    opened = open_model(f"{folder}+{adapter}", outputs)
    plain = PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(folder), adapter).eval()
    ids = TOKENIZER.encode(PROMPT)
    assert torch.allclose(logits(opened.model, ids), logits(plain, ids), atol=1e-4)
    assert not torch.allclose(logits(opened.model, ids), logits(base.model, ids), atol=1e-2)
    assert (opened.kind, opened.reference) == ("adapter", f"{folder}+{adapter}")
    assert opened.parameters == base.parameters
    assert about(opened).n_layer == tiny_models.LAYERS
    assert [
        sha256_of(path) for path in (folder / "model.safetensors", adapter / "adapter_model.safetensors")
    ] == digests


def test_a_model_that_is_opened_again_is_not_probed_again(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
    plain, probed = kept_probe.probe, []

    def counted(model: nn.Module, anatomy: Anatomy) -> Anatomy:
        probed.append(model)
        found = plain(model, anatomy)
        assert found.refusals == Refusals()
        return replace(found, head_dim=3, refusals=Refusals(heads="They are refused."))  # none of which settings say

    def probes_of(reference: Path | str) -> int:
        del probed[:]
        anatomy = open_model(str(reference), outputs).anatomy
        assert anatomy.refusals == Refusals(heads="They are refused.")
        assert anatomy.head_dim == 3
        return len(probed)

    monkeypatch.setattr(kept_probe, "probe", counted)
    folder = tiny_models.save(tiny_models.llama(), tmp_path / "llama")
    assert [probes_of(folder) for _ in range(2)] == [1, 0]
    adapter = tiny_models.save_adapter(folder, tmp_path / "lora")
    assert [probes_of(f"{folder}+{adapter}") for _ in range(2)] == [1, 0]
    tiny_models.save(tiny_models.llama(seed=1), folder)  # other weights under the same name
    assert [probes_of(folder) for _ in range(2)] == [1, 0]
    for kept in (tmp_path / "cache" / "probes").iterdir():
        kept.write_text(kept.read_text().replace("3", "-"))
    assert [probes_of(folder) for _ in range(2)] == [1, 0]


@pytest.fixture
def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models that the probe was asked about; what it found is kept in a folder of the test."""
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
    plain, found = kept_probe.probe, list[nn.Module]()

    def counted(model: nn.Module, anatomy: Anatomy) -> Anatomy:
        found.append(model)
        return plain(model, anatomy)

    monkeypatch.setattr(kept_probe, "probe", counted)
    return found


def opened_twice(model: nn.Module, kind: ModelKind = "huggingface") -> list[Anatomy]:
    return [OpenModel("tiny", "tiny", kind, model, TOKENIZER).anatomy for _ in range(2)]


def test_of_what_the_probe_found_the_last_used_is_kept(
    probed: list[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_probe, "_KEPT", 2)
    first, second, third = (tiny_models.llama(seed=seed) for seed in range(3))
    for model in (first, second):
        opened_twice(model)
    files = sorted((tmp_path / "cache" / "probes").iterdir())
    for file in files:
        os.utime(file, (1.0, 1.0))
    opened_twice(first)  # used again, so that the second is the oldest
    opened_twice(third)
    assert len(list((tmp_path / "cache" / "probes").iterdir())) == 2
    opened_twice(first)
    assert len(probed) == 3
    opened_twice(second)
    assert len(probed) == 4


def test_a_model_whose_code_has_changed_is_probed_again(
    probed: list[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "another_norm.py"
    code.write_text("from torch.nn import Identity\n\n\nclass Dropout(Identity):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = tiny_models.llama()
    model.model.layers[0].add_module("dropout", importlib.import_module("another_norm").Dropout())
    opened_twice(model)
    assert len(probed) == 1
    code.write_text(code.read_text() + "    more = 1\n")
    opened_twice(model)
    assert len(probed) == 2


def test_weights_that_are_parts_of_larger_ones_are_known_again(probed: list[nn.Module]) -> None:
    model = tiny_models.llama()
    norm = model.model.norm
    norm.weight = nn.Parameter(torch.cat((torch.zeros(1), norm.weight.detach()))[1:])  # 4 bytes behind an eight
    norm.register_buffer("same", torch.tensor(1.0).expand(1))  # of stride 0
    assert [anatomy.refusals for anatomy in opened_twice(model)] == [Refusals()] * 2
    assert len(probed) == 1
    with torch.no_grad():
        norm.weight[-1] += 1
    opened_twice(model)
    assert len(probed) == 2


def test_numbers_that_no_probe_finds_are_not_taken_from_the_cache(probed: list[nn.Module], tmp_path: Path) -> None:
    model = tiny_models.llama()
    found = opened_twice(model)[0]
    for name in ("n_kv_head", "head_dim"):
        (kept,) = (tmp_path / "cache" / "probes").iterdir()
        kept.write_text(json.dumps(json.loads(kept.read_text()) | {name: 0}))
        assert [(one.n_kv_head, one.head_dim) for one in opened_twice(model)] == [(found.n_kv_head, found.head_dim)] * 2
    assert len(probed) == 3


@pytest.mark.parametrize("passes", range(5))
def test_memory_that_ran_out_in_a_probe_is_said_and_not_kept_as_a_fault_of_the_model(
    probed: list[nn.Module], monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    plain, count = probe.run, itertools.count()

    def full(*what: Any, **how: Any) -> torch.Tensor:
        if next(count) == passes:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return plain(*what, **how)

    monkeypatch.setattr(probe, "run", full)
    model = tiny_models.llama()
    if passes < 4:
        with pytest.raises(LabError, match="Memory ran out"):
            opened_twice(model)
    assert [anatomy.refusals for anatomy in opened_twice(model)] == [Refusals()] * 2
    assert len(probed) == (2 if passes < 4 else 1)


def test_what_was_found_in_a_model_that_trains_is_not_kept(probed: list[nn.Module], tmp_path: Path) -> None:
    """It is another one at every look: files would pile up that nobody ever reads."""
    assert [anatomy.refusals for anatomy in opened_twice(tiny_models.llama(), "live")] == [Refusals()] * 2
    assert not (tmp_path / "cache").exists()


def test_a_checkpoint_is_the_labs_own_model(outputs: Path) -> None:
    run = train_here(new_run(outputs, 10))
    opened = open_model("run@5", outputs)
    assert (opened.kind, opened.reference, opened.step, opened.name) == ("scratch", "run@5", 5, "run, step 5")
    ids = opened.tokenizer.encode("the king")
    assert torch.equal(logits(opened.model, ids), logits(open_checkpoint(run, select(run.checkpoints, "5")).model, ids))
    assert open_model("run", outputs).reference == "run@10"
    assert open_model("run@best", outputs).reference in ("run@5", "run@4", "run@8", "run@10")


def test_about_says_what_it_is(folder: Path, outputs: Path) -> None:
    said = about(open_model(str(folder), outputs))
    assert (said.n_layer, said.n_head, said.n_embd, said.context) == (2, 4, 32, 64)
    assert said.vocab_size == TOKENIZER.vocab_size
    assert said.refusals == {}
    assert said.memory_bytes > said.bytes
    assert "llama" in said.family.lower()


def test_about_says_whether_the_tokenizer_puts_a_token_before_texts(folder: Path, outputs: Path) -> None:
    opened = open_model(str(folder), outputs)
    assert not about(opened).begins
    pipeline = Tokenizer(WordLevel({"<s>": 0, "the": 1}, unk_token="<s>"))
    pipeline.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    adds_one = HuggingFaceTokenizer(transformers.PreTrainedTokenizerFast(tokenizer_object=pipeline, bos_token="<s>"))
    assert about(replace(opened, tokenizer=adds_one)).begins


def test_greedy_writing_is_transformers_own(folder: Path, outputs: Path) -> None:
    opened = open_model(str(folder), outputs)
    ids = torch.tensor([opened.tokenizer.encode(PROMPT)])
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder)
    written = plain.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
    tokens = list(write(opened, PROMPT, 20, Sampling(0, 0), seed=0, top=2))
    assert "".join(token.text for token in tokens).rstrip("\ufffd") == opened.tokenizer.decode(written).rstrip("\ufffd")
    assert all(token.top[0][1] == pytest.approx(token.probability, abs=1e-6) for token in tokens)


def test_the_next_tokens_are_the_models_distribution(folder: Path, outputs: Path) -> None:
    opened = open_model(str(folder), outputs)
    expected = next_tokens(opened, PROMPT, TOKENIZER.vocab_size)
    p = logits(opened.model, opened.tokenizer.encode(PROMPT))[-1].softmax(-1)
    assert [q for _, q in expected.top] == pytest.approx(sorted(p.tolist(), reverse=True), abs=1e-6)
    assert expected.entropy == pytest.approx(-sum(q * math.log(q) for q in p.tolist()), abs=1e-4)


@pytest.mark.slow
def test_equal_seeds_write_equal_texts_also_beyond_the_context(folder: Path, outputs: Path) -> None:
    opened = open_model(str(folder), outputs)

    def text(seed: int) -> str:
        tokens = write(opened, "the king " * 30, 100, Sampling(1.0, 0), seed=seed)
        return "".join(token.text for token in tokens)

    assert text(1) == text(1) != text(2)


def test_writing_ends_with_the_end_of_text(outputs: Path, tmp_path: Path) -> None:
    model = tiny_models.gpt2()
    end = TOKENIZER.end_of_text
    with torch.no_grad():  # every final stream looks like the end's embedding
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(model.transformer.wte.weight[end] * 10)
    opened = open_model(str(tiny_models.save(model, tmp_path / "ends")), outputs)
    tokens = list(write(opened, PROMPT, 20, Sampling(0, 0), seed=0))
    assert [token.text for token in tokens] == ["<|endoftext|>"]


@pytest.mark.slow
def test_opening_can_be_cancelled_at_every_word_of_progress(folder: Path, outputs: Path, tmp_path: Path) -> None:
    adapter = tiny_models.save_adapter(folder, tmp_path / "lora")
    gguf = tiny_models.save_gguf(tiny_models.llama(tie_word_embeddings=False), tmp_path / "tiny.gguf")

    class Counter:
        """Counts words, and cancels at the given one."""

        def __init__(self, last: float) -> None:
            self.last, self.count = last, 0

        def __call__(self, *_: object) -> None:
            self.count += 1
            if self.count > self.last:
                raise Cancelled()

    def opened(reference: str, words: Counter, *, anew: bool) -> None:
        if anew:  # a file with another time is another file: nothing was kept of it
            os.utime(gguf, ns=(0, next(times)))
        open_model(reference, outputs, words)

    times = itertools.count(1)
    for reference, anew in (
        (str(folder), False),
        (f"{folder}+{adapter}", False),
        (str(gguf), True),
        (str(gguf), False),
    ):
        opened(reference, Counter(math.inf), anew=anew)
        words = Counter(math.inf)
        opened(reference, words, anew=anew)
        for last in range(0, words.count, max(1, words.count // 6)):
            with pytest.raises(Cancelled):
                opened(reference, Counter(last), anew=anew)


@pytest.mark.parametrize(("trouble", "wanted"), [(Cancelled, Cancelled), (MemoryError, "Memory ran out")])
def test_what_ends_the_reading_is_not_blamed_on_settings_that_the_family_does_not_read(
    trouble: type[Exception], wanted: type[Exception] | str, outputs: Path, tmp_path: Path
) -> None:
    folder = tiny_models.save(tiny_models.gpt2(), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": [1, 2]}))
    open_model(str(folder), outputs)

    def stop(what: str, done: float, total: float) -> None:
        if what == "Loading the weights" and total:
            raise trouble

    expected = (LabError, wanted) if isinstance(wanted, str) else (wanted, "")
    with pytest.raises(expected[0], match=expected[1]):
        open_model(str(folder), outputs, stop)


def test_what_does_not_fit_into_memory_is_not_loaded(
    folder: Path, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_here(new_run(outputs, 3))
    gguf = tiny_models.save_gguf(tiny_models.llama(tie_word_embeddings=False), tmp_path / "tiny.gguf")
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    for reference in (str(folder), str(gguf), "run"):
        with pytest.raises(LabError, match=r"does not fit into memory.*are free.*smaller model"):
            open_model(reference, outputs)


def test_running_out_of_memory_all_the_same_is_advice(
    folder: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", run_out)
    with pytest.raises(LabError, match=r"Memory ran out.*smaller model"):
        open_model(str(folder), outputs)
