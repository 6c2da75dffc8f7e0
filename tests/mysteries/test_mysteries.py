"""Runs with a sealed fault: what each changes, that nothing tells its name, and what an answer is worth."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from preset_settings import resolve_finetune_settings
from safetensors.torch import load_file
from small_runs import kill_and_resume, same_weights, train_here, weights_of
from telltales import TELLS, Readings, curves_of, showing, solve

from llmlab.cli.main import main
from llmlab.core.config import to_mapping, with_values
from llmlab.core.errors import LabError, UsageError
from llmlab.core.mystery_settings import MysterySettings
from llmlab.core.settings import PretrainSettings, Sampling
from llmlab.core.source_code import find_source
from llmlab.data.sequences import Sequences
from llmlab.gpt.generate import generate_batch
from llmlab.gpt.model import GPT
from llmlab.inspection.answers import ask
from llmlab.jobs.launcher import create_run
from llmlab.models.live import still
from llmlab.models.reference import LiveRun, SavedRun
from llmlab.models.source import SealedRun
from llmlab.mysteries import case as mysteries
from llmlab.mysteries.broken_loop import InOrder, Spiked
from llmlab.mysteries.faults import LEVELS, NOTHING, candidates, fault_of, faults, seal
from llmlab.mysteries.readings import data_of, measures_of
from llmlab.store.history import read_history
from llmlab.store.run_folder import RunFolder
from llmlab.training.batches import Batches
from llmlab.training.inspections import answer_request
from llmlab.training.loop import Trainer
from llmlab.training.run import TrainingRun

# Of what is written alone: the weights learn as in a healthy run. (Dropout draws random numbers in evaluation, too.)
_ONLY_SHOWN = {"wrong-tokenizer"}
STEPS = 12


def small(fault: str, **changes: Any) -> MysterySettings:
    """The settings of a mystery, so small that a run takes a tenth of a second."""
    values = {
        "mystery.token": seal(fault),
        "model.n_layer": 2,
        "model.n_head": 2,
        "model.n_embd": 16,
        "model.block_size": 16,
        "data.corpus": "tiny",
        "data.batch_size": 4,
        "data.train_tokens": 600,
        "train.steps": STEPS,
        "train.warmup_steps": 5,
        "train.eval_interval": 10,
        "train.eval_sequences": 8,
        "train.sample_interval": STEPS,
        "train.threads": 1,
        "train.seed": 3,
        "samples.prompts": "T",
        "samples.tokens": 8,
    }
    return with_values(MysterySettings(), values | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """One of each fault, all of one seed."""
    outputs = tmp_path_factory.mktemp("mysteries")
    return {name: train_here(create_run(outputs, small(name), name=f"run-{at}")) for at, name in enumerate(faults())}


@pytest.fixture(scope="module")
def readings(runs: dict[str, RunFolder]) -> dict[str, Readings]:
    data = data_of(runs[NOTHING])
    return {name: Readings(curves_of(run, data), measures_of(run, data)) for name, run in runs.items()}


def test_each_level_has_eight_causes_and_one_of_them_is_that_nothing_is_broken() -> None:
    every = [name for level in LEVELS for name in candidates(level)]
    assert [len(candidates(level)) for level in LEVELS] == [8, 8, 8]
    assert set(every) == set(faults())
    assert set(TELLS) == set(faults()) - {NOTHING}


def test_the_lines_that_a_page_compares_are_there() -> None:
    for fault in faults().values():
        if fault.name == NOTHING:
            continue
        right, broken = fault.lines()
        assert find_source(fault.right).code.count(fault.at) >= 1, fault.name
        assert fault.at in right, fault.name
        assert broken.strip(), fault.name


def test_a_run_in_which_nothing_is_broken_is_a_run_from_scratch(outputs: Path, runs: dict[str, RunFolder]) -> None:
    sections = to_mapping(small(NOTHING))
    plain = with_values(
        PretrainSettings(),
        {f"{section}.{key}": v for section, f in sections.items() if section != "mystery" for key, v in f.items()},
    )
    assert same_weights(train_here(create_run(outputs, plain, name="plain")), runs[NOTHING])


def test_every_other_fault_changes_what_is_learned_or_only_what_is_shown_of_it(runs: dict[str, RunFolder]) -> None:
    shapes = {name: weights_of(run, "final") for name, run in runs.items()}
    for name in set(faults()) - {NOTHING}:
        same = shapes[name].keys() == shapes[NOTHING].keys() and all(
            torch.equal(shapes[name][key], shapes[NOTHING][key]) for key in shapes[name]
        )
        if name == "spike":  # its noise comes later than a run as short as this
            continue
        assert same == (name in _ONLY_SHOWN), name


def test_the_broken_sequences_are_the_right_ones_but_for_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.random.default_rng(0).integers(0, 50, 2000)
    monkeypatch.setattr(Spiked, "NOISY", (1, 5))
    right, spiked, ordered = (kind(tokens, 16, 4, "sliding", seed=1) for kind in (Sequences, Spiked, InOrder))
    noisy = [at for at in range(8) if not np.array_equal(right.batch(at)[0], spiked.batch(at)[0])]
    assert noisy == [1, 5]
    for at in range(right.batches_per_epoch):
        assert np.array_equal(ordered.starts(at), 64 * at + 16 * np.arange(4))
        assert np.array_equal(ordered.batch(at)[1], ordered.batch(at + right.batches_per_epoch)[1])


def test_a_model_without_a_mask_writes_what_it_predicts_for_the_whole_text(runs: dict[str, RunFolder]) -> None:
    """Its keys and values change with every token that follows: those of a cache would be wrong."""
    opened = SealedRun(SavedRun(runs["no-mask"], "r")).open()
    assert isinstance(opened.model, GPT)
    prompts = [[3, 1, 4, 1, 5], [9, 2]]
    texts = [list(prompt) for prompt in prompts]
    for written in generate_batch(opened.model, prompts, 20, Sampling(0.0), seeds=[0, 0]):  # beyond its 16 positions
        for text, token in zip(texts, written, strict=True):
            expected = opened.model.next_token(torch.tensor([text]))[0]
            assert torch.allclose(token.logits, expected, atol=1e-5)
            text.append(token.id)


def test_a_mystery_shows_no_training_sequences_since_what_it_reads_may_be_its_fault(runs: dict[str, RunFolder]) -> None:
    with pytest.raises(LabError, match="does not show what it read"):
        Batches(runs[NOTHING], read_history(runs[NOTHING])).rows(1, lambda _: pytest.fail("opened"))


def test_no_mystery_is_walked_through_and_all_are_refused_in_the_same_words(runs: dict[str, RunFolder]) -> None:
    said = set()
    for run in runs.values():
        for reference in (SavedRun(run, "r", "final"), LiveRun(run, "r")):
            with pytest.raises(UsageError) as refused:
                still(reference)
            said.add(str(refused.value))
    assert len(said) == 1


def test_a_mystery_that_was_fine_tuned_is_not_walked_through_either(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    settings = resolve_finetune_settings("scratch", overrides={"model.base": f"{runs[NOTHING].path}@final"})
    tuned = create_run(tmp_path, settings, name="tuned")
    for reference in (SavedRun(tuned, "t", "final"), LiveRun(tuned, "t")):
        with pytest.raises(UsageError, match="A mystery is not walked through"):
            still(reference)


def test_a_checkpoint_opens_as_the_model_that_was_trained(readings: dict[str, Readings]) -> None:
    for name, read in readings.items():
        assert (abs(read.curves.val - read.measures.same) < 1e-5) == (name != "dropout-on"), name


def test_the_tell_tales_of_wrong_building_show_at_once_and_in_no_healthy_run(readings: dict[str, Readings]) -> None:
    healthy = readings[NOTHING]
    for level in LEVELS:
        assert not showing(healthy, healthy, candidates(level))
    for name in ("no-mask", "no-residual", "no-norm", "frozen", "untied", "bf16", "rate-low"):
        read, among = readings[name], candidates(faults()[name].level)
        assert name in showing(read, healthy, among), name
        assert solve(read, healthy, among)[name] > 1 / len(among), name
    assert re.search(r"ahead: a later position gets 0\.\d+\.$", readings["no-mask"].measures.refused["attention"])


def test_what_is_measured_names_its_steps_and_its_units(readings: dict[str, Readings]) -> None:
    first, *_, last = readings["no-mask"].measures.lines()
    assert first == f"Checkpoint of step {STEPS}, compared with that of step 1; losses in nats per token."
    assert last.startswith("Attention is withheld. In layer 0")


@pytest.mark.parametrize("fault", ["untied", "bf16", "repeated", "no-warmup"])
def test_a_broken_run_that_was_killed_ends_as_one_that_was_not(
    outputs: Path, runs: dict[str, RunFolder], fault: str
) -> None:
    run = create_run(outputs, small(fault), name="killed")
    assert same_weights(kill_and_resume(run, STEPS - 3), runs[fault])


def test_nothing_in_a_runs_files_names_its_fault(
    runs: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, run in runs.items():
        told = [path for path in run.path.rglob("*") if path.suffix in (".json", ".jsonl", ".log", ".md")]
        words = "\n".join(path.read_text() for path in told) + run.info().settings.title
        for tell in (name, faults()[name].title, *re.findall(r"::(\w+)", faults()[name].broken)):
            assert tell == NOTHING or not re.search(rf"\b{re.escape(tell)}\b", words), (name, tell)
        assert fault_of(json.loads(run.run_json.read_text())["settings"]["mystery"]["token"]).name == name


def test_a_broken_run_that_fails_does_not_say_what_is_broken(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = create_run(outputs, small("dropout-on"), name="run")
    wrong = LabError("The losses cannot be measured.")
    with mock.patch.object(Trainer, "losses", side_effect=wrong), pytest.raises(LabError):
        train_here(run)
    logged = capsys.readouterr().err
    assert "Traceback" in logged
    assert "in losses" not in logged  # where this fault overrides the loop


def test_what_is_logged_of_the_learning_rate_is_what_was_asked_for(runs: dict[str, RunFolder]) -> None:
    rates = {
        name: [e["lr"] for e in map(json.loads, run.events.read_text().splitlines()) if e["event"] == "step"]
        for name, run in runs.items()
    }
    assert all(found == rates[NOTHING] for found in rates.values())


def test_a_damaged_seal_is_said_in_a_sentence() -> None:
    with pytest.raises(LabError, match="seal of this run is damaged"):
        fault_of("0123-4567")


def _mystery(outputs: Path, level: int = 1) -> RunFolder:
    run = mysteries.start(outputs, level, seed=3)
    run.change_info(lambda now: now.__class__(**{**vars(now), "settings": small(_cause(run))}))
    return run


def _cause(run: RunFolder) -> str:
    return fault_of(run.info().settings_as(MysterySettings).mystery.token).name


def test_a_mystery_is_answered_once_and_its_score_is_the_log_loss(outputs: Path) -> None:
    run = _mystery(outputs)
    with pytest.raises(UsageError, match="not answered yet"):
        mysteries.revealed(run)
    cause = _cause(run)
    case = mysteries.record_answer(run, {cause: 0.5, "other": 0.5})
    assert case.bits == pytest.approx(1.0)
    assert (case.cause, case.chance) == (cause, 3.0)
    assert mysteries.revealed(run).name == cause
    with pytest.raises(UsageError, match="answered already"):
        mysteries.record_answer(run, {cause: 1.0})
    (score,) = mysteries.scores(outputs)
    assert (score.cause, score.given, score.bits, score.right) == (cause, 0.5, case.bits, True)
    assert mysteries.calibrated(outputs).count == 1


def test_certainty_that_was_wrong_costs_as_much_as_the_notebook_lets_it(outputs: Path) -> None:
    run = _mystery(outputs)
    wrong = next(name for name in candidates(1) if name != _cause(run))
    assert mysteries.record_answer(run, {wrong: 1.0}).bits == pytest.approx(math.log2(100))


def test_probabilities_make_up_a_hundred_per_cent_and_what_is_not_named_shares_the_rest() -> None:
    among = ["a", "b", "c", "nothing"]
    assert mysteries.parse_answer("a=0.6,other=0.4", among) == pytest.approx(
        {"a": 0.6, "b": 0.4 / 3, "c": 0.4 / 3, "nothing": 0.4 / 3}
    )
    assert mysteries.parse_answer("a=60%, b=20%", among)["c"] == pytest.approx(0.1)
    for words in (
        *("a=0.6,other=0.1", "a=0.9,b=0.3", "a=2", "a=nan", "a=0.5,a=0.5", "d=1", "a", "a=0.1,b=0,c=0,nothing=0"),
    ):
        with pytest.raises(UsageError):
            mysteries.parse_answer(words, among)
    assert mysteries.parse_answer("a=0.5,b=0.5005", among)["c"] == 0.0  # what is rounded is no negative probability


def test_further_experiments_cost_until_the_answer_and_never_twice(outputs: Path) -> None:
    run = _mystery(outputs)
    healthy = mysteries.ask(run, "healthy")
    assert healthy is not None
    assert (_cause(healthy), healthy.info().settings.train.seed) == (NOTHING, 3)
    assert mysteries.ask(run, "healthy") == healthy
    assert mysteries.case_of(run).left == 2
    other = mysteries.ask(run, "seed")
    assert other is not None
    assert (_cause(other), other.info().settings.train.seed) == (_cause(run), 4)
    with pytest.raises(UsageError, match="measure costs 2, and 1 of 4 is left"):
        mysteries.ask(run, "measure")
    shutil.rmtree(healthy.path)
    again = mysteries.ask(run, "healthy")
    assert again == healthy
    assert _cause(healthy) == NOTHING
    assert mysteries.case_of(run).left == 1
    mysteries.give_up(run)
    assert mysteries.ask(run, "measure") is None
    assert mysteries.case_of(run).left == 1
    slower = mysteries.ask(run, "rate")
    assert slower is not None
    whole, third = (each.info().settings.train for each in (run, slower))
    assert (third.learning_rate, third.min_learning_rate) == (whole.learning_rate / 3, whole.min_learning_rate / 3)
    assert [found.id for found in mysteries.cases(outputs)] == [run.id]


def test_evidence_is_kept_with_the_panel_that_has_it(outputs: Path) -> None:
    run = _mystery(outputs)
    mysteries.mark(run, "loss@10", "falls  too far")
    case = mysteries.mark(run, "head@1.0")
    assert [(mark.where, mark.note, mark.dock) for mark in case.marks] == [
        ("loss@10", "falls too far", "loss"),
        ("head@1.0", "", "attention"),
    ]
    assert [mark.where for mark in mysteries.unmark(run, 0).marks] == ["head@1.0"]
    with pytest.raises(UsageError, match="not a place for evidence"):
        mysteries.mark(run, "somewhere")


def test_a_damaged_mystery_is_none_and_the_others_are_listed(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = _mystery(outputs), _mystery(outputs)
    known = json.loads((run.path / "mystery.json").read_text())
    even = dict.fromkeys(known["candidates"], 0.125)
    for change in (
        {"candidates": []},
        {"candidates": ["what"]},
        {"level": 9},
        {"cause": "no-mask"},
        {"answer": even},
        {"answer": even, "bits": 3.0, "cause": "what"},
        {"answer": {"no-mask": 1.0}, "bits": 0.0, "cause": "no-mask"},
        {"marks": [{"where": "what"}]},
    ):
        (run.path / "mystery.json").write_text(json.dumps(known | change))
        with pytest.raises(LabError, match="is not a mystery"):
            mysteries.case_of(run)
    assert main(["mystery", "list", "--json"]) == 0
    listed = capsys.readouterr()
    assert [value["name"] for value in json.loads(listed.out)] == [other.id]
    assert f"{run.id} is not a mystery" in listed.err


def test_the_newest_mystery_is_listed_first_whichever_was_changed(outputs: Path) -> None:
    old, new = _mystery(outputs), _mystery(outputs)
    for run, seconds in ((old, 1e9), (new, 2e9)):
        os.utime(run.run_json, (seconds, seconds))
    mysteries.mark(old, "lens")
    assert [run.id for run in mysteries.cases(outputs)] == [new.id, old.id]


def test_measures_have_those_of_the_healthy_run_beside_them(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train_here(_mystery(outputs))
    assert "healthy" not in _measured(run, capsys)
    healthy = mysteries.ask(run, "healthy")
    assert healthy is not None
    train_here(healthy)
    assert _measured(run, capsys)["healthy"]["moved"] == measures_of(healthy, data_of(run)).moved
    assert mysteries.case_of(run).left == 0


def test_what_cannot_be_measured_costs_nothing(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _mystery(outputs)
    assert main(["mystery", "ask", run.id, "measure"]) == 1
    assert "no two checkpoints" in capsys.readouterr().err
    assert mysteries.case_of(run).left == 4
    mysteries.ask(run, "healthy")
    mysteries.ask(run, "seed")
    assert main(["mystery", "ask", run.id, "measure"]) == 2  # before anything is measured
    assert "costs 2, and 1 of 4 is left" in capsys.readouterr().err


def _measured(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["mystery", "ask", run.id, "measure", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_a_wrongly_built_run_answers_while_it_trains_as_its_checkpoint_does(outputs: Path, tmp_path: Path) -> None:
    asked, plain, out = {"text": "The"}, TrainingRun.after_step, tmp_path / "saved.safetensors"

    def after_step(self: TrainingRun, *of_step: Any) -> None:
        plain(self, *of_step)
        if self.progress.step == 10:
            assert answer_request(self, {"question": "inspect", "values": asked, "out": "live"}, lambda: False)

    for name in ("no-mask", "no-residual", "no-norm", "untied", "nothing"):
        run = create_run(outputs, small(name), name=name)
        with mock.patch.object(TrainingRun, "after_step", after_step):
            train_here(run)
        ask(f"{run.id}@10", "inspect", asked, out, outputs)
        saved, found = load_file(out), load_file(run.inspections / "live.safetensors")
        assert saved.keys() == found.keys()
        assert ("attention/0" in found) == (name != "no-mask"), name
        assert ("contributions/norm/pre_attn" in found) == (name != "no-residual"), name
        assert ("lens/entropy" in found) == (name != "no-norm"), name
        for key, value in saved.items():
            assert torch.allclose(value.double(), found[key].double(), atol=1e-5, equal_nan=True), (name, key)


def test_a_resume_cannot_exchange_the_fault(outputs: Path) -> None:
    from llmlab.jobs.launcher import prepare_resume

    with pytest.raises(UsageError, match=r"mystery\.token cannot change"):
        prepare_resume(_mystery(outputs), {"mystery.token": seal(NOTHING)})
