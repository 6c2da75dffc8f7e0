"""Compiled training is the same training: exact on resume, and without a compiler it goes on as it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kills import differences, events_of
from preset_settings import resolve_settings
from small_runs import kill_and_resume, new_run, same_weights, train_here
from torch._inductor import config as inductor
from torch._inductor.exc import InvalidCxxCompiler

from llmlab.core.config import from_mapping, to_mapping, with_values
from llmlab.core.device import Device
from llmlab.gpt.model import GPT
from llmlab.jobs.launcher import prepare_resume
from llmlab.store.checkpoints import STATE_FILE, select
from llmlab.store.run_folder import RunFolder
from llmlab.training.compilation import CompiledLoss, pays
from llmlab.training.state import load_state

CPU, MPS, CUDA = (Device(kind, "fp32") for kind in ("cpu", "mps", "cuda"))
STEPS = 12
SETTINGS = {"train__sample_interval": 8}
ON = SETTINGS | {"train__compile": "on"}


@pytest.fixture
def as_written(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """torch.compile with a backend that runs the graph as it is: equal bits, in a second. Gives what was compiled."""
    compiled: list[Any] = []
    plain = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", lambda model, **options: (compiled.append(model), plain(model, **options))[1])
    return compiled


def test_a_run_is_compiled_by_itself_where_that_is_earned_back() -> None:
    def auto(device: Device, steps: int, peak: float = 1e12) -> bool:
        return pays(resolve_settings("baby", overrides={"train.steps": steps}), device, peak)

    assert [auto(CUDA, steps) for steps in (2_000, 200_000)] == [False, True]
    assert not auto(CUDA, 200_000, peak=1e15)  # the faster the device, the shorter the run
    assert not auto(CPU, 10**9)
    assert not auto(MPS, 10**9)


def test_compiling_draws_no_number_and_leaves_no_trace(outputs: Path, as_written: list[Any], alone: RunFolder) -> None:
    compiled = train_here(new_run(outputs, STEPS, "compiled", **ON))
    assert len(as_written) == 1
    assert differences(alone, compiled) == []  # with dropout
    assert [run.info().compiled for run in (compiled, alone)] == [True, False]
    assert [events_of(run, "started")[0]["compile_seconds"] is not None for run in (compiled, alone)] == [True, False]


def test_what_the_first_worker_chose_by_itself_holds_for_later_ones(
    outputs: Path, as_written: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter((True, False))
    monkeypatch.setattr("llmlab.training.compilation.pays", lambda *_: next(answers))
    kept = {name: train_here(new_run(outputs, 4, name, train__compile="auto")) for name in ("compiled", "plain")}
    assert next(answers, None) is None
    for run in kept.values():
        prepare_resume(run, {"train.steps": 8})
        train_here(run)
    assert [run.info().compiled for run in kept.values()] == [True, False]
    assert len(as_written) == 2


def test_batches_of_another_shape_are_computed_as_they_are_written(as_written: list[Any]) -> None:
    torch.manual_seed(0)
    model = GPT(resolve_settings("baby", overrides={"model.n_layer": 1}).model, 65)
    loss = CompiledLoss(model, torch.zeros(2, 8, dtype=torch.int64), CPU)
    entered: list[torch.Size] = []
    model.residual_stream = _counting(model.residual_stream, entered)
    for shape in ((2, 8), (1, 8), (2, 4)):
        ids = torch.randint(65, shape)
        assert torch.equal(loss(ids, ids), model.loss_at(GPT.residual_stream(model, ids), ids))
    assert entered == [torch.Size((1, 8)), torch.Size((2, 4))]


def _counting(stream: Callable[..., torch.Tensor], entered: list[torch.Size]) -> Callable[..., torch.Tensor]:
    def counted(ids: torch.Tensor) -> torch.Tensor:
        entered.append(ids.shape)
        return stream(ids)

    return counted


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (InvalidCxxCompiler(), "There is no C++ compiler here. Install one"),
        (RuntimeError("a log of a compiler\nand a linker"), "The reason is in worker.log."),
    ],
)
def test_a_run_that_cannot_be_compiled_says_so_and_trains_all_the_same(
    outputs: Path,
    alone: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    why: str,
) -> None:
    def fail(ids: torch.Tensor) -> torch.Tensor:
        torch.rand(1)
        raise error

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    run = train_here(new_run(outputs, STEPS, "compiled", **ON))
    (warning,) = events_of(run, "warned")
    assert warning["message"].startswith(f"The model is not compiled, and trains as it is. {why}")
    assert str(error) in capsys.readouterr().err
    assert run.info().compiled is False
    assert differences(alone, run) == []


@pytest.mark.slow  # a compiler runs, for some seconds
def test_a_compiled_run_that_is_killed_ends_as_one_left_alone(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real compiler, whose code draws dropout its own way. It takes a second or two for each kernel, and ten for
    the processor's instructions and its headers, so there are no blocks and none of those."""

    def without_blocks(self: GPT, ids: torch.Tensor, cache: Any = None) -> torch.Tensor:
        return self.final_norm(self.dropout(self.token_embedding(ids)))

    monkeypatch.setattr(GPT, "residual_stream", without_blocks)
    with inductor.patch({"cpp.vec_isa_ok": False, "cpp_cache_precompile_headers": False}):
        compiled = train_here(new_run(outputs, STEPS, "compiled", **ON))
        torch.compiler.reset()  # as in another process
        run = kill_and_resume(new_run(outputs, STEPS, "killed", **ON), before_step=9)
    assert differences(compiled, run) == []
    assert events_of(run, "warned") == []
    assert not same_weights(train_here(new_run(outputs, STEPS, "plain", **SETTINGS)), run)  # it was compiled


def test_a_state_that_does_not_say_whether_it_was_compiled_was_where_that_was_asked_for(
    alone: RunFolder, tmp_path: Path
) -> None:
    checkpoint = select(alone.checkpoints).path
    for asked in (True, False):
        folder = tmp_path / str(asked) / checkpoint.name
        folder.mkdir(parents=True)
        state = torch.load(checkpoint / STATE_FILE, weights_only=True)
        del state["origin"]["compiled"]
        state["origin"]["settings"]["train"]["compile"] = asked
        torch.save(state, folder / STATE_FILE)
        assert load_state(folder).origin.compiled is asked


def test_the_setting_that_was_yes_or_no_is_still_read_and_written_so() -> None:
    for before, now, written in (("true", "on", True), ("False", "off", False), ("auto", "auto", "auto")):
        settings = with_values(resolve_settings("baby"), {"train.compile": before})
        assert settings.train.compile == now
        assert to_mapping(settings)["train"]["compile"] == to_mapping(settings.train)["compile"] == written
        assert from_mapping(type(settings), to_mapping(settings)) == settings
