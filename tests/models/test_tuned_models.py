"""What was fine-tuned opens as base and adapter, whichever way it is named, on the lab's own GPT and on others."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from small_runs import new_run, train_here
from tiny_models import logits
from tuned_runs import (
    LLAMA_TARGETS,
    SCRATCH_TARGETS,
    copy_adapter,
    full_run,
    llama_folder,
    lora_run,
    new_tuned,
    peft_model,
    rebased,
)

from llmlab.core.errors import LabError, UsageError
from llmlab.core.progress import Progress
from llmlab.inspection.archive import read_archive
from llmlab.inspection.compare import compare
from llmlab.inspection.evolve import evolve
from llmlab.jobs.model_host import Host
from llmlab.models import hub
from llmlab.models.about import about, about_live
from llmlab.models.available import available_models
from llmlab.models.reference import AdaptedModel, LiveRun, ModelFolder, SavedRun, parse
from llmlab.models.source import open_model, source_of
from llmlab.store.run_folder import RunFolder

TEXT = "the king and the thing"


@dataclass(frozen=True)
class Made:
    """An outputs folder with a fine-tuning run on `base`."""

    outputs: Path
    base: str
    run: RunFolder
    targets: list[str]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Made:
    outputs = tmp_path_factory.mktemp("scratch")
    train_here(new_run(outputs, name="small", model__block_size=32))
    return Made(outputs, "small@final", lora_run(outputs, "small@final", SCRATCH_TARGETS), SCRATCH_TARGETS)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Made:
    outputs = tmp_path_factory.mktemp("llama")
    base = str(llama_folder(outputs / "models" / "tiny"))
    return Made(outputs, base, lora_run(outputs, base, LLAMA_TARGETS), LLAMA_TARGETS)


@pytest.fixture(params=["scratch", "llama"])
def made(request: pytest.FixtureRequest) -> Made:
    return request.getfixturevalue(request.param)


def test_a_checkpoint_is_pefts_model_on_the_same_base(made: Made) -> None:
    opened, base = open_model("tuned@50", made.outputs), open_model(made.base, made.outputs)
    ids = opened.tokenizer.encode(TEXT)
    plain = logits(base.model, ids)
    theirs = logits(peft_model(base.model, made.targets, 50), ids)
    torch.testing.assert_close(logits(opened.model, ids), theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain, theirs, atol=1e-2)
    assert (opened.reference, opened.kind, opened.step) == ("tuned@50", "finetuned", 50)


def test_all_names_of_an_adapter_on_its_base_open_the_same_model(made: Made, tmp_path: Path) -> None:
    folder = made.run.checkpoints / "step-00000100"
    published = copy_adapter(folder, tmp_path / "published")
    wanted = open_model("tuned@final", made.outputs).weights_sha256
    for name in (
        "tuned",
        "tuned@latest",
        "tuned@best",
        str(folder),
        f"{made.base}+tuned@100",
        f"{made.base}+tuned",
        f"{made.base}+{folder}",
        f"{made.base}+{published}",
    ):
        assert open_model(name, made.outputs).weights_sha256 == wanted, name
        reference = parse(name, made.outputs)
        assert parse(str(reference), made.outputs) == reference
    assert open_model("tuned@50", made.outputs).weights_sha256 != wanted


def test_an_adapter_of_a_run_keeps_its_base_when_it_is_named_alone(scratch: Made, tmp_path: Path) -> None:
    published = copy_adapter(scratch.run.checkpoints / "step-00000100", tmp_path / "published")
    settings = json.loads((published / "adapter_config.json").read_text())
    (published / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": scratch.base}))
    named = parse(str(published), scratch.outputs)
    assert isinstance(named, AdaptedModel)
    assert str(named.base) == scratch.base


def test_a_full_run_is_its_base_with_other_weights(made: Made) -> None:
    run = full_run(made.outputs, made.base)
    try:
        opened, base = open_model("whole", made.outputs), open_model(made.base, made.outputs)
        torch.manual_seed(3)
        for (name, weight), (_, before) in zip(
            opened.model.named_parameters(), base.model.named_parameters(), strict=True
        ):
            assert torch.equal(weight, before + 0.1 * torch.randn_like(before)), name
        with pytest.raises(UsageError, match="whole has no adapter"):
            parse(f"{made.base}+whole@final", made.outputs)
    finally:
        shutil.rmtree(run.path)


def test_an_adapter_of_another_base_is_refused_in_a_sentence(scratch: Made, llama: Made, tmp_path: Path) -> None:
    wider = train_here(new_run(tmp_path, name="wide", model__n_embd=32))
    for base in (f"{wider.path}@final", llama.base):
        with pytest.raises(LabError, match=r"was not made for|cannot be opened"):
            open_model(f"{base}+{scratch.run.checkpoints / 'step-00000100'}", scratch.outputs)
    with pytest.raises(LabError, match="was not made for small, step 12"):
        open_model(f"small@final+{llama.run.checkpoints / 'step-00000100'}", scratch.outputs)


def test_a_run_whose_base_is_gone_says_which(scratch: Made, tmp_path: Path) -> None:
    away = RunFolder(tmp_path / "finetuning" / "tuned")
    shutil.copytree(scratch.run.path, away.path)
    with pytest.raises(LabError, match=r"without its base, small@final\. There is no model 'small'"):
        open_model(f"{away.path}@final", scratch.outputs)


def test_bases_that_lead_in_a_circle_are_refused(outputs: Path) -> None:
    run = new_tuned(outputs, "b@latest", "a")
    new_tuned(outputs, "a@latest", "b")
    with pytest.raises(LabError, match="is built on the run itself"):
        _ = source_of(SavedRun(run, run.id)).base


def test_a_run_can_stand_on_a_fine_tuned_one(scratch: Made) -> None:
    second = lora_run(scratch.outputs, "tuned@50", SCRATCH_TARGETS, "second")
    try:
        opened, base = open_model("second@100", scratch.outputs), open_model("tuned@50", scratch.outputs)
        ids = opened.tokenizer.encode(TEXT)
        theirs = logits(peft_model(base.model, SCRATCH_TARGETS, 100), ids)
        torch.testing.assert_close(logits(opened.model, ids), theirs, rtol=1e-4, atol=1e-4)
    finally:
        shutil.rmtree(second.path)


def test_a_fingerprint_changes_with_the_base(scratch: Made, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    shutil.copytree(scratch.outputs, outputs)
    reference = parse("tuned@final", outputs)
    assert isinstance(reference, SavedRun)
    before = source_of(reference).fingerprint()
    assert source_of(parse("tuned@final", outputs)).fingerprint() == before
    rebased(reference.run, "small@5")
    assert source_of(reference).fingerprint() != before


def test_it_is_described_listed_compared_and_followed(made: Made, tmp_path: Path) -> None:
    described, base = about(open_model("tuned", made.outputs)), about(open_model(made.base, made.outputs))
    assert (described.n_layer, described.parameters) == (base.n_layer, base.parameters)
    assert not described.refusals
    row = next(model for model in available_models(made.outputs) if model.name == "tuned")
    assert row.reference == "tuned@latest"
    assert row.detail == f"lora on {made.base}, 1,000 parameters trained, saved at steps 50, 100"

    values = {"text": TEXT, "what": ["residual"]}
    compare(made.base, "tuned@final", made.outputs, values, tmp_path / "compared.safetensors")
    assert float(read_archive(tmp_path / "compared.safetensors")["kl"].max()) > 1e-3
    evolve("tuned", made.outputs, values, tmp_path / "evolved.safetensors")
    assert json.loads(read_archive(tmp_path / "evolved.safetensors").metadata.more["steps"]) == [50, 100]


def test_a_live_run_is_described_by_its_base_and_reads_as_it(made: Made) -> None:
    live = parse("tuned@live", made.outputs)
    assert isinstance(live, LiveRun)
    base = open_model(made.base, made.outputs)
    seen, wanted = about_live(live), about(base)
    for name in ("parameters", "n_layer", "n_head", "n_embd", "context"):
        assert getattr(seen, name) == getattr(wanted, name), name
    assert source_of(live).tokenizer().encode(TEXT) == base.tokenizer.encode(TEXT)


def test_a_live_run_is_described_once_its_base_is_downloaded(
    llama: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    told: list[str] = []

    def hub_snapshot(name: str, progress: Progress) -> Path:
        progress(f"Downloading {name}", 0, 0)
        snapshot = tmp_path / "home" / "hub" / "models--maker--tiny" / "snapshots" / ("1" * 40)
        shutil.copytree(llama.base, snapshot)
        return snapshot

    monkeypatch.setattr(hub, "hub_snapshot", hub_snapshot)
    run = new_tuned(tmp_path / "outputs", "maker/tiny")
    seen = about_live(LiveRun(run, run.id), lambda what, *_: told.append(what))
    assert told == ["Downloading maker/tiny"]
    assert seen.parameters == open_model(llama.base, llama.outputs).parameters


def test_a_checkpoint_that_was_changed_is_refused(llama: Made, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "finetuning" / "tuned")
    shutil.copytree(llama.run.path, run.path)
    (run.checkpoints / "step-00000100" / "adapter_config.json").write_text("{}")
    with pytest.raises(LabError, match=r"adapter_config\.json"):
        open_model(f"{run.path}@100", tmp_path)
    assert parse(llama.base, tmp_path) == ModelFolder(Path(llama.base))


def test_the_host_tells_what_fine_tuning_changed_and_reads_as_the_base(made: Made, tmp_path: Path) -> None:
    said = io.StringIO()
    host = Host(said, made.outputs)
    asked = [
        {"id": 1, "do": "change", "model": "tuned@final", "out": str(tmp_path / "change.safetensors")},
        {"id": 2, "do": "tokenize", "model": "tuned@final", "text": TEXT},
        {"id": 3, "do": "tokenize", "model": "tuned@live", "text": TEXT},
        {"id": 4, "do": "open", "model": "tuned@50"},
        {"id": 5, "do": "change", "model": made.base, "out": str(tmp_path / "none.safetensors")},
    ]
    host.listen([json.dumps(line) for line in asked])
    host.answer_all()
    answers = {
        line["id"]: line for line in map(json.loads, said.getvalue().splitlines()) if line["event"] != "progress"
    }
    assert [answers[number]["event"] for number in range(1, 6)] == ["answered", "tokens", "tokens", "opened", "error"]
    change = read_archive(tmp_path / "change.safetensors")
    assert change.metadata.model == "tuned@100"
    assert answers[2]["ids"] == answers[3]["ids"] == open_model(made.base, made.outputs).tokenizer.encode(TEXT)
    assert answers[4]["about"]["kind"] == "finetuned"
    assert "was not fine-tuned" in answers[5]["what"]
