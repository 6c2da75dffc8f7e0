"""What is told of a change is what its product, formed in full, says; and it takes neither torch nor a model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import new_run, train_here
from tuned_runs import LLAMA_TARGETS, SCRATCH_TARGETS, copy_adapter, full_run, llama_folder, lora_run, peft_model
from waits import SECONDS

from llmlab.core.errors import LabError, UsageError
from llmlab.inspection.archive import read_archive
from llmlab.inspection.weight_change import adapter_change, change_of, effective_rank, write_change
from llmlab.models.adapter_file import read_factors
from llmlab.models.reference import parse
from llmlab.models.source import open_model, source_of


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scratch run and a Llama, each with a run that fine-tuned it."""
    outputs = tmp_path_factory.mktemp("outputs")
    train_here(new_run(outputs, name="small", model__block_size=32))
    lora_run(outputs, "small@final", SCRATCH_TARGETS, "on-small")
    base = llama_folder(outputs / "models" / "tiny")
    lora_run(outputs, str(base), LLAMA_TARGETS, "on-llama", use_rslora=True, alpha_pattern={"q_proj": 30})
    return outputs


def weights(reference: str, outputs: Path) -> dict[str, torch.Tensor]:
    return {key: value.detach() for key, value in open_model(reference, outputs).model.named_parameters()}


@pytest.mark.parametrize("name", ["on-small", "on-llama"])
def test_norms_and_singular_values_are_those_of_the_weights_differences(outputs: Path, name: str) -> None:
    change = change_of(f"{name}@50", outputs)
    after, before = weights(f"{name}@50", outputs), weights(change.base, outputs)
    changed = {row.module: row for row in change.modules}
    moved = {
        key: (after[key] - before[key]).double().numpy() for key in before if not torch.equal(after[key], before[key])
    }
    assert moved
    assert {f"{module}.weight" for module in changed} == set(moved)
    for module, row in changed.items():
        difference = moved[f"{module}.weight"]
        assert row.shape == difference.shape
        assert row.norm == pytest.approx(np.linalg.norm(difference), rel=1e-4)
        assert row.base_norm == pytest.approx(before[f"{module}.weight"].double().norm().item(), rel=1e-6)
        exact = np.linalg.svd(difference, compute_uv=False)
        np.testing.assert_allclose(row.singular, exact[: len(row.singular)], rtol=1e-3, atol=1e-5)
        assert exact[row.rank :].max(initial=0.0) < 1e-4
        assert row.effective_rank == pytest.approx(effective_rank(exact[: row.rank].tolist()), rel=1e-3)
    assert change.norm == pytest.approx(np.sqrt(sum(np.square(d).sum() for d in moved.values())), rel=1e-4)
    assert {row.layer for row in change.modules} == set(range(2 if name == "on-llama" else 1))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(0, 9))
@settings(max_examples=60)
def test_any_shape_also_a_rank_above_the_width(
    tmp_path_factory: Any, out: int, width: int, rank: int, seed: int
) -> None:
    folder, random = tmp_path_factory.mktemp("any"), np.random.default_rng(seed)
    a, b = random.normal(size=(rank, width)), random.normal(size=(out, rank))
    save(folder, {"x.2.lin.lora_A.weight": a, "x.2.lin.lora_B.weight": b}, lora_alpha=5, r=rank)
    (row,) = adapter_change(folder)
    product = 5 / rank * (b.astype(np.float32) @ a.astype(np.float32)).astype(np.float64)
    assert row.norm == pytest.approx(np.linalg.norm(product), rel=1e-4)
    exact = np.linalg.svd(product, compute_uv=False)
    kept = min(len(exact), len(row.singular))
    np.testing.assert_allclose(row.singular[:kept], exact[:kept], rtol=1e-3, atol=1e-4)
    assert (row.layer, row.part, row.rank) == (2, "lin", rank)


def save(folder: Path, tensors: dict[str, np.ndarray], dtype: torch.dtype = torch.float32, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    named = {
        f"base_model.model.{key}": torch.from_numpy(value).to(dtype).contiguous() for key, value in tensors.items()
    }
    safetensors.torch.save_file(named, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    return folder


def test_effective_rank_is_one_for_one_direction_and_all_for_equal_ones() -> None:
    assert effective_rank([3.0, 0.0, 0.0]) == pytest.approx(1.0)
    assert effective_rank([2.0, 2.0, 2.0, 2.0]) == pytest.approx(4.0)
    assert effective_rank([0.0, 0.0]) == 0.0
    # p = 3/4, 1/4: H = 2 ln 2 - 3/4 ln 3
    assert effective_rank([3.0, 1.0]) == pytest.approx(4 / 3**0.75)


def test_bfloat16_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    a = np.random.default_rng(0).normal(size=(2, 6))
    folder = save(tmp_path / "a", {"m.lora_A.weight": a, "m.lora_B.weight": a.T}, torch.bfloat16, lora_alpha=2)
    (pair,) = read_factors(folder)
    assert np.array_equal(pair.a, torch.from_numpy(a).bfloat16().float().numpy())


def test_an_embeddings_and_a_transposed_layers_change_lie_as_their_weights_do(tmp_path: Path) -> None:
    base = tiny_models.save(tiny_models.gpt2(), tmp_path / "gpt2")
    model = peft_model(open_model(str(base), tmp_path).model, ["c_attn", "wte"], 1, fan_in_fan_out=True)
    model.save_pretrained(tmp_path / "lora")
    merged = dict(model.merge_and_unload().named_parameters())
    before = source_of(parse(str(base), tmp_path)).weights()
    pairs = read_factors(tmp_path / "lora")
    assert sorted(pair.module for pair in pairs) == [
        "transformer.h.0.attn.c_attn",
        "transformer.h.1.attn.c_attn",
        "transformer.wte",
    ]
    for pair in pairs:
        weight = before(f"{pair.module}.weight")
        assert weight is not None
        np.testing.assert_allclose(weight + pair.delta, merged[f"{pair.module}.weight"].detach(), rtol=1e-4, atol=1e-5)


def test_a_full_runs_change_is_its_weights_minus_the_bases(outputs: Path) -> None:
    run = full_run(outputs, "small@final")
    try:
        change = change_of("whole@final", outputs)
        after, before = weights("whole", outputs), weights("small@final", outputs)
        total = sum(float((after[key] - before[key]).double().square().sum()) for key in before)
        assert change.norm == pytest.approx(total**0.5, rel=1e-5)
        matrices = {key.removesuffix(".weight") for key, value in before.items() if value.dim() == 2}
        assert len(matrices) == 6  # the tokens', the positions', and four in the block
        assert {row.module for row in change.modules} == matrices
        for row in change.modules:
            difference = (after[f"{row.module}.weight"] - before[f"{row.module}.weight"]).double().numpy()
            np.testing.assert_allclose(row.singular, np.linalg.svd(difference, compute_uv=False), rtol=1e-5, atol=1e-6)
    finally:
        shutil.rmtree(run.path)


def test_the_norms_of_a_gguf_base_are_those_of_its_weights(tmp_path: Path) -> None:
    model = tiny_models.llama()
    read = source_of(parse(str(tiny_models.save_gguf(model, tmp_path / "tiny.gguf")), tmp_path)).weights()
    for name, weight in model.named_parameters():
        found = read(name)
        assert found is not None, name
        assert np.linalg.norm(found) == pytest.approx(weight.norm().item(), rel=1e-6)
    assert read("model.layers.0.nothing.weight") is None


def test_an_adapter_without_its_base_is_told_without_what_needs_it(outputs: Path, tmp_path: Path) -> None:
    alone = copy_adapter(outputs / "finetuning/on-small/checkpoints/step-00000100", tmp_path / "alone")
    change, whole = change_of(str(alone), outputs), change_of("on-small@final", outputs)
    assert [row.norm for row in change.modules] == [row.norm for row in whole.modules]
    assert change.relative is None
    assert whole.relative is not None
    assert "Without its base" in change.notes[0]


def test_what_is_no_plain_lora_is_refused(outputs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"small@final was not fine-tuned"):
        change_of("small@final", outputs)
    a, b = np.ones((2, 3)), np.ones((4, 2))
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"m.lora_A.weight": a}, {}, "only one of the two factors of m"),
        ({"m.lora_A.weight": a, "m.lora_B.weight": a}, {}, "have the shapes"),
        ({"m.lora_A.weight": a, "m.lora_B.weight": b}, {"use_dora": True}, "use_dora"),
        ({"m.ia3_l": a}, {"peft_type": "IA3"}, "of the kind IA3"),
        ({"m.bias": a}, {}, "is not a factor"),
        ({}, {}, "holds no weights"),
        ({"m.lora_A.weight": a * np.nan, "m.lora_B.weight": b}, {}, "not finite"),
        ({"m.lora_A.weight": a, "m.lora_B.weight": b}, {"lora_alpha": "x"}, "settings are wrong"),
        ({"m.lora_A.weight": a, "m.lora_B.weight": b}, {"lora_alpha": float("nan")}, "settings are wrong"),
        ({"m.lora_A.weight": a, "m.lora_B.weight": b}, {"lora_alpha": 10**400}, "settings are wrong"),
    ]
    for number, (tensors, config, words) in enumerate(cases):
        with pytest.raises(LabError, match=words):
            adapter_change(save(tmp_path / str(number), tensors, **config))
    cut = save(tmp_path / "cut", {"m.lora_A.weight": a, "m.lora_B.weight": b})
    file = cut / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(LabError, match=r"is damaged or foreign: it is cut short"):
        adapter_change(cut)


def test_its_archive_says_the_same(outputs: Path, tmp_path: Path) -> None:
    change = change_of("on-llama@final", outputs)
    write_change("on-llama@final", outputs, tmp_path / "change.safetensors")
    archive = read_archive(tmp_path / "change.safetensors")
    assert archive.metadata.kind == "change"
    np.testing.assert_allclose(archive["norm"], [row.norm for row in change.modules], rtol=1e-6)
    assert json.loads(archive.metadata.more["modules"]) == [row.module for row in change.modules]
    assert archive["singular"].shape == (len(change.modules), 4)
    assert float(archive.metadata.more["norm"]) == change.norm


def test_no_torch_is_needed(outputs: Path) -> None:
    program = (
        "import sys, pathlib; from llmlab.inspection.weight_change import change_of; "
        "change_of(sys.argv[2], pathlib.Path(sys.argv[1])); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    for name in ("on-small@final", "on-llama@final"):
        finished = subprocess.run([sys.executable, "-c", program, str(outputs), name], timeout=SECONDS)
        assert finished.returncode == 0
