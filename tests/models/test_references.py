"""A reference names one thing, is written as it is read, and what it cannot mean is said in a sentence."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
from fakes import FakeRun
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab.core.errors import LabError, UsageError
from llmlab.models.available import available_models, folder_name
from llmlab.models.reference import (
    AdaptedModel,
    Base,
    GgufFile,
    HubModel,
    LiveRun,
    ModelFolder,
    Reference,
    SavedRun,
    parse,
    without_folders,
)
from llmlab.store.run_folder import RunFolder


@pytest.fixture(autouse=True)
def _no_other_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-cache"))
    monkeypatch.delenv("LLMLAB_MODELS", raising=False)


def make_run(outputs: Path, name: str, track: str = "pretraining") -> RunFolder:
    run = RunFolder(outputs / track / name)
    run.path.mkdir(parents=True)
    run.run_json.write_text("{}")
    return run


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def make_adapter(folder: Path, base: object = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return folder


def make_gguf(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF")
    return path


ASCII = st.characters(max_codepoint=127)  # of all characters, Hypothesis counts those that have an encoding for seconds
RUN_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,12}", fullmatch=True, alphabet=ASCII)
# What folders are called: also with the signs that references are made of.
NAMES = st.text(st.sampled_from("ab1.-_+@ é日"), min_size=1, max_size=8).map(lambda name: f"n{name}")
WHICH = st.sampled_from(["final", "best", "latest"]) | st.integers(0, 10**9).map(str)


@st.composite
def references(draw: st.DrawFn) -> tuple[Path, Reference]:
    """An outputs folder and something in or beside it, made on the disk."""
    root = Path(tempfile.mkdtemp())
    outputs = root / "outputs"
    make_run(outputs, "other")

    def base(kind: str) -> Base:
        if kind == "hub":
            pattern = r"[a-z][a-z0-9]{0,4}(\.[a-z0-9]{1,4})?/[A-Z][a-z0-9_]{0,8}"
            return HubModel(draw(st.from_regex(pattern, fullmatch=True, alphabet=ASCII)))
        if kind == "run":
            run = make_run(outputs, draw(RUN_NAMES.filter(lambda name: name != "other")))
            return SavedRun(run, run.id, draw(WHICH))
        if kind == "gguf":
            return GgufFile(make_gguf(root / "base" / f"{draw(NAMES)}.gguf"))
        return ModelFolder(make_model(root / "base" / draw(NAMES)))

    kind = draw(st.sampled_from(["run", "far run", "live", "folder", "hub", "gguf", "adapter"]))
    match kind:
        case "run" | "live":
            run = make_run(outputs, draw(RUN_NAMES.filter(lambda name: name != "other")))
            return outputs, LiveRun(run, run.id) if kind == "live" else SavedRun(run, run.id, draw(WHICH))
        case "far run":
            run = make_run(root / draw(NAMES), draw(RUN_NAMES))
            return outputs, SavedRun(run, str(run.path), draw(WHICH))
        case "adapter":
            adapter = make_adapter(root / "adapter" / draw(NAMES))
            return outputs, AdaptedModel(base(draw(st.sampled_from(["folder", "hub", "gguf", "run"]))), adapter)
        case _:
            return outputs, base(kind)


@given(references())
@settings(max_examples=60)
def test_what_is_written_is_read_as_the_same_thing(made: tuple[Path, Reference]) -> None:
    outputs, reference = made
    assert parse(str(reference), outputs) == reference


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_names_something_or_is_refused_in_a_sentence(text: str) -> None:
    outputs = Path(tempfile.mkdtemp())
    with contextlib.suppress(UsageError):
        assert isinstance(parse(text, outputs), HubModel) or Path(text).exists()


@pytest.mark.parametrize("text", ["bar@150", "bar@0150"])
def test_a_step_is_a_number(outputs: Path, text: str) -> None:
    run = make_run(outputs, "bar")
    assert parse(text, outputs) == SavedRun(run, "bar", "150")


def test_a_run_alone_is_its_latest_checkpoint_and_a_checkpoints_folder_its_step(outputs: Path) -> None:
    run = make_run(outputs, "bar")
    assert parse("bar", outputs) == parse(str(run.path), outputs) == SavedRun(run, "bar", "latest")
    folder = run.checkpoints / "step-00000150"
    folder.mkdir(parents=True)
    assert parse(str(folder), outputs) == SavedRun(run, "bar", "150")


def test_a_run_whose_id_a_folder_bears_too_is_named_by_its_path(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(outputs, "bar")
    model = make_model(tmp_path / "here" / "bar")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match=r"'bar' can mean 2 things.*bar; .*bar\. Write the whole path"):
        parse("bar", outputs)
    assert parse("./bar", outputs) == ModelFolder(model)
    named = parse(str(run.path), outputs)
    assert str(named) == f"{run.path}@latest"
    assert parse(str(named), outputs) == named


def test_two_runs_of_one_id_are_told_apart_by_their_full_names(outputs: Path) -> None:
    first, second = make_run(outputs, "bar"), make_run(outputs, "bar", "finetuning")
    with pytest.raises(UsageError, match="can mean 2 things") as refused:
        parse("bar@best", outputs)
    assert str(first.path) in refused.value.why
    assert second.full_name in refused.value.why
    for text in (second.full_name, second.path):
        assert parse(f"{text}@best", outputs) == SavedRun(second, second.full_name, "best")


def test_signs_that_belong_to_a_name_are_read_as_such(outputs: Path, tmp_path: Path) -> None:
    plus, at = make_model(tmp_path / "a+b"), make_model(tmp_path / "c@best")
    assert parse(str(plus), outputs) == ModelFolder(plus)
    assert parse(str(at), outputs) == ModelFolder(at)


def test_a_sum_that_can_be_cut_in_two_ways_is_refused(outputs: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "a")
    make_model(tmp_path / f"a+{tmp_path}".lstrip("/"))
    inner = tmp_path / "x"
    base, other = make_model(inner / "a"), make_model(Path(f"{inner}/a+{inner}/b"))
    adapter, second = make_adapter(Path(f"{inner}/b+{inner}/c")), make_adapter(inner / "c")
    assert {base, other, adapter, second}
    with pytest.raises(UsageError, match="can mean 2 things"):
        parse(f"{inner}/a+{inner}/b+{inner}/c", outputs)


def test_an_adapter_alone_sits_on_the_base_that_its_settings_name(outputs: Path, tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    assert parse(str(make_adapter(tmp_path / "one", str(base))), outputs) == AdaptedModel(
        ModelFolder(base), tmp_path / "one"
    )
    assert parse(str(make_adapter(tmp_path / "two", "maker/model")), outputs) == AdaptedModel(
        HubModel("maker/model"), tmp_path / "two"
    )
    for name, strange in {"three": None, "four": 5, "five": "/nowhere/at/all", "six": str(tmp_path / "six")}.items():
        with pytest.raises(UsageError, match="is an adapter, which needs its base"):
            parse(str(make_adapter(tmp_path / name, strange)), outputs)


def test_an_adapter_alone_sits_on_neither_of_two_runs_that_bear_its_bases_name(outputs: Path, tmp_path: Path) -> None:
    make_run(outputs, "bar")
    adapter = make_adapter(tmp_path / "one", "bar@5")
    assert str(parse(str(adapter), outputs)) == f"bar@5+{adapter}"
    make_run(outputs, "bar", "finetuning")
    with pytest.raises(UsageError, match="can mean 2 things"):
        parse(str(adapter), outputs)


def test_an_adapter_sits_on_a_checkpoint_and_not_on_what_trains_or_has_one_already(
    outputs: Path, tmp_path: Path
) -> None:
    run, adapter = make_run(outputs, "bar"), make_adapter(tmp_path / "lora")
    for base, which in (("bar", "latest"), ("bar@150", "150"), (f"{run.path}@best", "best")):
        assert parse(f"{base}+{adapter}", outputs) == AdaptedModel(SavedRun(run, "bar", which), adapter)
    for base, way_out in (("bar@live", "Name bar@latest"), (f"bar+{adapter}", "llmlab-run export")):
        with pytest.raises(UsageError, match=f"cannot sit on .*{way_out}"):
            parse(f"{base}+{adapter}", outputs)


def test_only_a_run_that_fine_tunes_is_an_adapter(outputs: Path, tmp_path: Path) -> None:
    make_run(outputs, "bar")
    make_run(outputs, "foo")
    with pytest.raises(UsageError, match="There is no model"):
        parse("bar+foo@150", outputs)
    tuned = make_run(outputs, "tuned", "finetuning")
    tuned.run_json.write_text('{"track": "finetuning"}')
    with pytest.raises(UsageError, match="tuned has no checkpoint @150"):
        parse("bar+tuned@150", outputs)


def test_a_folder_with_one_gguf_is_that_file_and_with_two_is_asked_back(outputs: Path, tmp_path: Path) -> None:
    file = make_gguf(tmp_path / "models" / "a.gguf")
    assert parse(str(tmp_path / "models"), outputs) == GgufFile(file)
    make_gguf(tmp_path / "models" / "b.gguf")
    with pytest.raises(UsageError, match=r"holds 2 GGUF files. They are a.gguf, b.gguf"):
        parse(str(tmp_path / "models"), outputs)


def test_models_of_the_models_folder_and_of_the_cache_have_names(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    monkeypatch.setenv("LLMLAB_MODELS", str(models))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    folder = make_model(models / "maker" / "tiny")
    (folder / "model.safetensors").touch()
    file = make_gguf(models / "small.gguf")
    snapshot = make_model(tmp_path / "hf" / "hub" / "models--gpt2" / "snapshots" / "abc")
    (snapshot / "model.safetensors").touch()
    assert parse("tiny", outputs) == ModelFolder(folder)
    assert parse("small", outputs) == GgufFile(file)
    assert parse("gpt2", outputs) == HubModel("gpt2")
    assert parse(f"tiny+{make_adapter(models / 'lora')}", outputs) == AdaptedModel(ModelFolder(folder), models / "lora")
    assert parse("tiny+lora", outputs) == AdaptedModel(ModelFolder(folder), models / "lora")

    def offered() -> list[str]:
        found = available_models(outputs)
        return sorted(model.name for model in found if "SmolLM2" not in model.name and model.kind != "run")

    assert offered() == ["gpt2", "lora", "small", "tiny"]
    (models / "again").symlink_to(models / "maker" / ".." / "maker" / "tiny")
    (models / "small-again.gguf").symlink_to(file)
    (models / "of-the-cache").symlink_to(snapshot)
    assert [name.partition("-")[0] for name in offered()] == ["lora", "of", "small", "tiny"]  # each once
    (models / "of-the-cache").unlink()
    make_run(outputs, "gpt2")
    with pytest.raises(UsageError, match=r"the run in .*; gpt2 of the Hugging Face hub"):
        parse("gpt2", outputs)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "No model was named"),
        ("bra", r"There is no model 'bra'.*Did you mean bar\?"),
        ("bra@best", r"There is no model 'bra'.*Did you mean bar\?"),
        ("bar@bets", r"@bets names no checkpoint.*Did you mean bar@best\?"),
        ("bar@", "names no checkpoint"),
        ("bar@-1", "names no checkpoint"),
        ("bar@½", "names no checkpoint"),
        ("bar@١٥", "names no checkpoint"),
        ("/nowhere", "There is no model '/nowhere'"),
        ("a/b/c", "There is no model"),
        ("maker/model+/nowhere", "There is no model '/nowhere'"),
        ("x" * 5000, "There is no model 'x{40}…x{80}'"),
        ("\0", "There is no model"),
        ("~nobody-of-that-name/x", "There is no model"),
    ],
)
def test_what_is_not_there_is_named_with_what_is_near(outputs: Path, text: str, said: str) -> None:
    make_run(outputs, "bar")
    with pytest.raises(UsageError, match=said):
        parse(text, outputs)


def test_files_and_folders_that_are_no_model_are_refused(outputs: Path, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "model.safetensors").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabError, match=r"is not a model.*Name the folder that it is in"):
        parse(str(folder / "model.safetensors"), outputs)
    with pytest.raises(LabError, match="There is no model in"):
        parse(str(tmp_path / "empty"), outputs)


def test_a_live_run_is_listed_as_such(outputs: Path) -> None:
    fake = FakeRun(outputs, "busy").start()
    assert parse("busy@live", outputs) == LiveRun(fake.run, "busy")


def test_a_folder_with_a_digest_for_a_name_is_called_as_its_settings_say(tmp_path: Path) -> None:
    for key, said in (("_name_or_path", "people/Tiny"), ("_model_name_or_path", "Tiny"), ("_name_or_path", "/a/Tiny/")):
        for name, expected in (("0123456789abcdef" * 2, "Tiny"), ("mine", "mine")):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            (folder / "config.json").write_text(json.dumps({key: said}))
            assert folder_name(folder) == expected
    (folder := tmp_path / ("ab" * 20)).mkdir()
    assert folder_name(folder) == folder.name


def test_a_gguf_file_in_a_cache_keeps_its_name(outputs: Path, tmp_path: Path) -> None:
    """As huggingface_hub keeps it: a link, in a folder named by a digest, to a file named by another one."""
    (snapshot := tmp_path / "snapshots" / ("ab" * 20)).mkdir(parents=True)
    (tmp_path / ("cd" * 32)).touch()
    (file := snapshot / "tiny.gguf").symlink_to(tmp_path / ("cd" * 32))
    assert parse(str(file), outputs) == parse(str(snapshot), outputs) == GgufFile(file)
    assert without_folders(str(file)) == without_folders(str(snapshot)) == "tiny.gguf"
