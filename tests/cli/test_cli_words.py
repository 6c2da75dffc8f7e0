"""What the words of the command line mean: settings, errors, exit codes; and that they answer at once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from fakes import FakeRun

import llmlab
from llmlab.cli import compare, inspect, train, walk
from llmlab.cli.main import main
from llmlab.cli.output import MovingLine, terminal_progress
from llmlab.cli.words import Commands, Parser
from llmlab.core.paths import resources_dir
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder, RunInfo

REPOSITORY = Path(llmlab.__file__).parents[1]


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch, outputs: Path) -> list[RunFolder]:
    """Commands make their run and train nothing; the list holds the runs that they would have trained."""
    runs: list[RunFolder] = []

    def only_make(run: RunFolder, *_: object) -> int:
        runs.append(run)
        return 0

    monkeypatch.setattr(train, "train", only_make)
    return runs


def _made(runs: list[RunFolder], words: list[str]) -> RunInfo:
    assert main(words) == 0
    return runs[-1].info()


# The words ------------------------------------------------------------------------------------------------------


def test_pretrain_alone_is_the_default_preset_on_shakespeare(untrained: list[RunFolder]) -> None:
    info = _made(untrained, ["pretrain"])
    assert (info.preset, info.settings.data.corpus, info.settings.data.tokenizer) == ("baby", "shakespeare", "char")


def test_the_shared_words_change_what_they_name(untrained: list[RunFolder], tmp_path: Path) -> None:
    words = "pretrain --preset nano --corpus tiny --steps 150 --set train.eval_interval=50 --seed 1 --name bar --json"
    info = _made(untrained, [*words.split(), "--outputs", str(tmp_path / "elsewhere")])
    train = info.settings.train
    assert (info.preset, info.settings.data.corpus, info.settings.data.tokenizer) == ("nano", "tiny", "gpt2")
    assert (train.steps, train.eval_interval, train.seed) == (150, 50, 1)
    assert untrained[-1].path == tmp_path / "elsewhere" / "pretraining" / "bar"


def test_many_settings_can_be_set_at_once(untrained: list[RunFolder]) -> None:
    words = (
        "pretrain --corpus shakespeare --steps 20 --set model.n_layer=4 --set model.n_head=4 --set model.n_embd=128 "
        "--set model.block_size=64 --set model.dropout=0.0 --set model.bias=false --set data.tokenizer=char "
        "--set data.batch_size=12 --set train.log_interval=1 --set train.eval_interval=0 "
        "--set train.sample_interval=0 --set checkpoints.interval=0 --set train.device=cpu --set train.threads=2"
    )
    settings = _made(untrained, words.split()).settings
    assert (settings.train.steps, settings.train.threads, settings.train.device) == (20, 2, "cpu")
    assert (settings.train.eval_interval, settings.train.sample_interval, settings.checkpoints.interval) == (0, 0, 0)
    assert (settings.model.bias, settings.model.dropout, settings.data.batch_size) == (False, 0.0, 12)


def test_a_file_overrides_the_preset_and_words_override_the_file(untrained: list[RunFolder], tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[train]\nsteps = 7\nseed = 8\nlearning_rate = 2e-3\n[data]\ncorpus = "tiny"\n')
    words = ["pretrain", "--settings", str(file), "--seed", "9", "--steps", "5", "--set", "train.steps=6"]
    settings = _made(untrained, words).settings
    assert settings.data.corpus == "tiny"
    assert (settings.train.learning_rate, settings.train.seed, settings.train.steps) == (2e-3, 9, 6)


def test_a_path_to_a_text_is_kept_absolute_so_that_a_resume_finds_it_from_anywhere(
    untrained: list[RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.txt").write_text("A text of my own. " * 200)
    monkeypatch.chdir(tmp_path)
    info = _made(untrained, ["pretrain", "--corpus", "mine.txt"])
    assert info.settings.data.corpus == str(tmp_path / "mine.txt")


def test_a_branch_has_its_parents_settings_and_records_it(untrained: list[RunFolder], outputs: Path) -> None:
    parent = FakeRun(outputs, "parent", steps=100).start().advance(50)
    parent.save_checkpoint()
    words = ["pretrain", "--from", "parent@50", "--name", "child", "--set", "train.learning_rate=5e-4"]
    info = _made(untrained, words)
    assert info.parent is not None
    assert (info.parent["run"], info.parent["step"]) == ("parent", 50)
    assert info.settings.train.steps == 100
    assert info.settings.train.learning_rate == 5e-4


def test_a_branch_is_estimated_in_the_precision_that_it_has_from_its_parent(
    untrained: list[RunFolder], outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = FakeRun(outputs, "parent", steps=100).start().advance(50)
    parent.save_checkpoint()
    for counted in ("fp32", "bf16"):
        parent.run.write_info(replace(parent.run.info(), device="cpu", precision=counted))
        with monkeypatch.context() as patch:
            estimate = mock.Mock(side_effect=train.estimate_pretraining)
            patch.setattr(train, "estimate_pretraining", estimate)
            info = _made(untrained, ["pretrain", "--from", "parent@50", "--name", f"child-{counted}"])
        assert estimate.call_args.args[0].train.precision == counted
        assert info.settings.train.precision == "auto"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "model.n_layer=9"], "model.n_layer cannot change"),
        (["--preset", "nano"], "--preset and --from exclude each other"),
        (["--steps", "50"], "nothing to do"),
    ],
)
def test_a_branch_that_cannot_be_is_refused_before_it_is_made(
    words: list[str], said: str, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeRun(outputs, "parent", steps=100).start().advance(50).save_checkpoint()
    assert main(["pretrain", "--from", "parent@50", "--name", "child", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (outputs / "pretraining" / "child").exists()


def test_a_resume_says_which_settings_change(
    untrained: list[RunFolder], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeRun(outputs, "bar", steps=100).start().advance(100).finish()
    assert main(["resume", str(fake.run.path), "--steps", "300", "--set", "train.eval_interval=10", "--json"]) == 0
    output = capsys.readouterr()
    assert "train.steps: 100 -> 300" in output.err
    assert "train.eval_interval: 250 -> 10." in output.err
    assert untrained[-1].info().settings.train.steps == 300


# What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pretrian"], "Did you mean pretrain?"),
        (["pretrain", "--step", "5"], "Did you mean --steps?"),
        (["walk", "bar", "--se", "1"], "Did you mean --seed or --sequence?"),
        (["pretrain", "--set", "model.n_layers=2"], "Did you mean model.n_layer?"),
        (["pretrain", "--set", "train.learning_rate=fast"], "train.learning_rate cannot be 'fast'. It takes 0 to 10."),
        (["pretrain", "--set", "model.n_layer"], "A setting is written section.field=value."),
        (["pretrain", "--steps", "0"], "train.steps cannot be '0'."),
        (["pretrain", "--preset", "bady"], "Did you mean baby?"),
        (["pretrain", "--corpus", "shakespear"], "Did you mean shakespeare?"),
        (["pretrain", "--corpus", "~nobody-of-that-name/text.txt"], "~nobody-of-that-name/text.txt leads nowhere."),
        (["pretrain", "--outputs", "~nobody-of-that-name/runs"], "~nobody-of-that-name/runs leads nowhere."),
        (["runs", "--outputs", "~nobody-of-that-name"], "~nobody-of-that-name leads nowhere."),
        (
            ["compare", "~nobody-of-that-name/a", "b", "--prompt", "x", "--out", "c"],
            "~nobody-of-that-name/a leads nowhere.",
        ),
        (["pretrain", "--corpus", 300 * "a"], "cannot be a file or a folder."),
        (["pretrain", "--outputs", 300 * "a"], "cannot be a file or a folder."),
        (["runs", "--outputs", "a\0b"], "cannot be a file or a folder."),
        (["pretrain", "--settings", "missing.toml"], "missing.toml could not be read"),
        (["pretrain", "--name", "../up"], "cannot be a run's name"),
        (["resume", "nothing"], "There is no run 'nothing'."),
        (["resume"], "RUN"),
        (["request", "nothing", "jump"], "jump"),
        (["--json", "runs"], "Options come after it."),
        (["generate", "nothing@final"], "There is no model 'nothing'."),
        (["export", "nothing"], "--out"),
    ],
)
def test_wrong_use_gives_2_and_one_sentence_on_stderr(
    words: list[str], said: str, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert said in output.err
    assert list_runs(outputs) == []


def test_a_name_that_is_taken_is_refused_and_the_run_left_alone(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeRun(outputs, "bar").start().advance(3)
    before = fake.run.events.read_bytes()
    assert main(["pretrain", "--corpus", "tiny", "--name", "bar"]) == 2
    assert "llmlab-run resume bar" in capsys.readouterr().err
    assert fake.run.events.read_bytes() == before


def test_a_finished_run_without_more_steps_is_refused_with_the_way_on(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeRun(outputs, "bar", steps=10).start().advance(10).finish()
    assert main(["resume", "bar"]) == 2
    assert "--steps 20" in capsys.readouterr().err


def test_a_live_run_is_not_resumed_and_its_settings_stay(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeRun(outputs, "bar", steps=10).start().advance(3).pause()
    assert main(["resume", "bar", "--steps", "50"]) == 1
    assert "llmlab-run request bar resume" in capsys.readouterr().err
    assert fake.run.info().settings.train.steps == 10


def test_a_corpus_that_is_not_here_says_where_to_put_it_and_leaves_no_run(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", "--corpus", "tinystories", "--json"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert os.environ["LLMLAB_CACHE"] in output.err
    assert list_runs(outputs) == []


def test_an_unforeseen_error_is_one_sentence_and_debug_shows_its_traceback(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(train, "create_run", explode)
    assert main(["pretrain", "--corpus", "tiny"]) == 1
    error = capsys.readouterr().err
    assert "ZeroDivisionError: by nothing" in error
    assert "--debug" in error
    assert "Traceback" not in error
    assert main(["pretrain", "--corpus", "tiny", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


# At once --------------------------------------------------------------------------------------------------------


def test_commands_that_only_look_never_import_torch(outputs: Path) -> None:
    fake = FakeRun(outputs, "bar", steps=10).start().advance(10)
    fake.save_checkpoint().finish()
    code = """
import contextlib, io, json, sys
from llmlab.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    for words in json.loads(sys.argv[1]):
        try:
            main(words)
        except SystemExit:
            pass
heavy = ("torch", "transformers", "datasets", "matplotlib", "rich", "PySide6")
print([name for name in heavy if name in sys.modules])
"""
    names = ["pretrain", "resume", "runs", "show", "request", "checkpoints", "models", "generate", "export"]
    names += ["corpora", "presets", "settings", "doctor", "compare", "evolve", "intervene"]
    looking = [["--help"], *([name, "--help"] for name in names), ["runs"], ["show", "bar"], ["settings"]]
    looking += [["presets"], ["corpora"], ["checkpoints", "bar"], ["checkpoints", "bar", "verify"]]
    looking += [["models"], ["request", "bar", "pause"], ["pretrain", "--set", "model.n_layr=3"], ["resume", "bar"]]
    command = [sys.executable, "-c", code, json.dumps(looking)]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert finished.stdout == "[]\n", finished.stderr


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("inspect bar --prompt x --out seen --beginning", "beginning", True),
        ("compare bar baz --out seen --beginning", "beginning", True),
        ("walk bar --backwards --window 2", "sequence", 2),
    ],
)
def test_an_option_with_a_new_name_keeps_its_old_one(words: str, name: str, value: object) -> None:
    parser = Parser(prog="llmlab-run")
    commands = Commands(parser)
    for group in (inspect, compare, walk):
        group.add_commands(commands)
    assert getattr(parser.parse_args(words.split()), name) == value


def test_the_help_of_each_command_ends_with_its_text_and_its_facts(capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> str:
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        return capsys.readouterr().out

    texts = {path.stem: path.read_text("utf-8").rstrip() for path in (resources_dir() / "commands").iterdir()}
    about_all = told()
    assert about_all.rstrip().endswith(texts.pop("llmlab-run"))
    commands = set(re.findall(r"^    ([a-z]+) ", about_all, re.MULTILINE))
    assert commands - set(texts) == {"runs", "show", "presets"}
    for name, text in texts.items():
        *before, end = re.split(r"\{[a-z]+\}", text)
        help_of = told(name).rstrip()
        assert help_of.endswith(end)
        assert all(part in help_of for part in before)
        assert not re.search(r"\{[a-z]+\}", help_of)


def test_help_and_the_list_of_runs_load_two_small_libraries_and_no_other(outputs: Path) -> None:
    code = """
import contextlib, io, sys
before = set(sys.modules)
from llmlab.cli.main import main
for words in (["--help"], ["pretrain", "--help"], ["runs"]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(words)
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(loaded - sys.stdlib_module_names - {"llmlab"}))
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert finished.stdout == "['platformdirs', 'psutil']\n", finished.stderr


def test_a_reader_that_has_seen_enough_is_no_error(outputs: Path) -> None:
    command = f"{sys.executable} -m llmlab settings --json | head -c 10; echo ${{PIPESTATUS[0]}}"
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert finished.stderr == ""
    assert finished.stdout.endswith("0\n")


def test_settings_lists_every_setting_with_value_range_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--json"]) == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["train.eval_interval"]["default"] == 250
    assert rows["data.tokenizer"]["choices"] == ["gpt2", "char", "compact", "bpe"]
    assert rows["checkpoints.keep_last"]["low"] == 0
    assert all(row["help"] for row in rows.values())
    assert main(["settings", "--preset", "nano"]) == 0
    printed = capsys.readouterr().out
    assert all(key in printed for key in rows)


def test_presets_lists_parameters_memory_and_the_time_that_set_up_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--json"]) == 0
    presets = {preset["name"]: preset for preset in json.loads(capsys.readouterr().out)}
    assert {"baby", "nano", "small", "medium", "gpt2"} <= set(presets)
    assert 123e6 < presets["gpt2"]["estimate"]["parameters"] < 125e6
    assert all(preset["minutes"] > 0 for preset in presets.values())
    scratch = [preset for preset in presets.values() if preset["track"] == "pretraining"]
    assert all(preset["estimate"]["memory_bytes"] > 1e8 for preset in scratch)
    assert all(preset["estimate"]["minutes"] == preset["minutes"] for preset in scratch)
    steps = {
        one["name"]: one["settings"]["train"]["steps"] * one["estimate"]["seconds_per_step"] / 60 for one in scratch
    }
    assert all(preset["minutes"] > steps[preset["name"]] for preset in scratch)  # its start and its evaluations, too
    assert presets["smollm2-135m"]["settings"]["model"]["method"] == "qlora"
    assert main(["presets"]) == 0
    assert "124M" in capsys.readouterr().out


def test_corpora_lists_what_is_here_and_what_can_be_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpora", "--json"]) == 0
    corpora = {corpus["name"]: corpus for corpus in json.loads(capsys.readouterr().out)}
    assert all(corpora[name]["here"] for name in ("tiny", "shakespeare", "austen", "stories"))
    assert {corpora[name]["kind"] for name in ("verdict", "tinystories", "wikitext2")} == {"fetched"}
    assert main(["corpora"]) == 0
    assert "tinystories" in capsys.readouterr().out
    assert main(["corpora", "fetch"]) == 2
    assert "wikitext2" in capsys.readouterr().err


def test_long_work_without_a_terminal_says_how_much_time_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("llmlab.core.progress.time.monotonic", lambda: now[0])
    with terminal_progress() as progress:
        for now[0], done in ((20.0, 50), (30.0, 51), (120.0, 75), (121.0, 76)):
            progress("Tokenizing", done, 100)
    said = ["Tokenizing (50 %)", "Tokenizing (51 %, 8:10 left)", "Tokenizing (75 %, 1:40 left)"]
    assert capsys.readouterr().err.splitlines() == said


def test_a_part_without_a_known_total_has_no_share_of_the_part_before() -> None:
    line = MovingLine(on_stderr=True)
    totals = []
    for what, done, total in (("Tokenizing", 50, 100), ("Waiting", 0, None), ("Tokenizing", 50, 80)):
        line.move("", what, done, total)
        assert line._bar is not None
        totals.append(line._bar.tasks[0].total)
    line.close()
    assert totals == [100, None, 80]
