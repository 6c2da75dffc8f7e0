"""Training with the learner's pieces: the same model and steps as the lab's own, recorded as theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tiny_models
import torch
from small_runs import new_run, quick_settings, train_here
from tuned_runs import LLAMA_TARGETS, SCRATCH_TARGETS, lora_run, peft_model
from written_pieces import WRITTEN

from llmlab.cli.main import main
from llmlab.core.config import with_values
from llmlab.core.errors import Cancelled, LabError
from llmlab.core.files import sha256_of
from llmlab.core.progress import quiet
from llmlab.core.rebuilt_settings import RebuiltSettings
from llmlab.core.settings import DataSettings, ModelSettings, PretrainTrainSettings
from llmlab.data.dataset import load_dataset
from llmlab.data.tokenizers import BpeTokenizer
from llmlab.exercises import own_tokens
from llmlab.exercises.checking import load_file, load_parts, steps_of, take
from llmlab.exercises.own_tokens import OwnEncoding
from llmlab.exercises.pieces import Workbook, all_pieces, find_piece
from llmlab.exercises.put_in import KeptCache, rebuilt
from llmlab.exercises.rebuilding import ON_A_MODEL
from llmlab.exercises.rebuilt_run import RebuiltAdamW, load_pieces
from llmlab.exercises.retuned_run import put_lora_in
from llmlab.gpt.model import GPT
from llmlab.jobs.rebuilt import beside, make_ours, make_yours, twin_of
from llmlab.models.adapter_file import read_factors
from llmlab.store.checkpoints import select
from llmlab.store.history import read_history
from llmlab.store.run_folder import RunFolder
from llmlab.training.finetuning.lora import insert
from llmlab.training.finetuning.targets import target_layers
from llmlab.training.optimizer import make_pretraining_optimizer, set_learning_rates

SHAPE = ModelSettings(n_layer=2, n_head=2, n_embd=16, block_size=8)
SMALL = ["--set", "model.n_layer=2", "--set", "model.n_embd=16", "--set", "model.block_size=16"]
QUICK = [
    "--steps",
    "6",
    "--set",
    "train.eval_interval=3",
    "--set",
    "train.eval_sequences=4",
    "--set",
    "samples.tokens=24",
]


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[..., Any]]:
    """All that the written pieces have, by name."""
    folder, found = tmp_path_factory.mktemp("written"), {}
    for name, code in WRITTEN.items():
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
        found |= load_file(folder / f"{name}.py", [part.name for part in load_parts(find_piece(name).folder)])
    return found


@pytest.mark.parametrize("name", [piece.name for piece in all_pieces()])
def test_a_piece_written_from_its_page_passes(name: str, tmp_path: Path) -> None:
    parts, file = load_parts(find_piece(name).folder), tmp_path / f"{name}.py"
    file.write_text(WRITTEN[name], encoding="utf-8")
    written = load_file(file, [part.name for part in parts])
    for step in steps_of(parts):
        if step.name != "speed":
            take(step, parts, written, file)


def test_a_rebuilt_model_computes_what_ours_does(functions: dict[str, Callable[..., Any]]) -> None:
    """All pieces at once, and each by itself: weights, logits, loss, gradients; token by token with the cache."""
    torch.manual_seed(3)
    ours = GPT(SHAPE, 11)
    ids, targets = torch.randint(11, (2, 9)).split((8, 1), dim=1)
    targets = torch.cat((ids[:, 1:], targets), 1)
    ours.loss(ids, targets).backward()
    for chosen in [functions, *({name: function} for name, function in functions.items())]:
        torch.manual_seed(3)
        mine = rebuilt(SHAPE, 11, chosen)
        assert mine.state_dict().keys() == ours.state_dict().keys()
        for name, parameter in ours.named_parameters():
            assert torch.equal(mine.get_parameter(name), parameter), (chosen, name)
        torch.testing.assert_close(mine(ids), ours(ids), rtol=1e-4, atol=1e-5)
        mine.loss(ids, targets).backward()
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(mine.get_parameter(name).grad, parameter.grad, rtol=1e-3, atol=1e-5)
    mine, cache = rebuilt(SHAPE, 11, functions), KeptCache(2)
    mine.load_state_dict(ours.state_dict())
    rows = []
    for places in (range(3), range(3, 4), range(4, 8)):
        cache.positions = torch.tensor([list(places)])
        rows.append(mine.residual_stream(ids[:1, list(places)], cache))
    torch.testing.assert_close(torch.cat(rows, 1), ours.residual_stream(ids[:1]), rtol=1e-4, atol=1e-5)


def test_what_a_piece_makes_itself_is_on_the_device_of_its_arguments(tmp_path: Path) -> None:
    """A mask of torch.ones without a device, as the hint has it; `meta` mixes with the CPU no better than a GPU."""
    (tmp_path / "pieces").mkdir()
    (tmp_path / "pieces" / "attention.py").write_text(WRITTEN["attention"], encoding="utf-8")
    attention = load_pieces(RunFolder(tmp_path), ["attention"])["attention"]
    for device in ("cpu", "meta"):
        q = torch.ones(2, 6, 8, device=device)
        assert attention(q, q, q, lambda scores: scores.softmax(-1)).device.type == device


def test_a_rebuilt_optimizer_takes_our_steps(functions: dict[str, Callable[..., Any]]) -> None:
    train = PretrainTrainSettings(steps=20, warmup_steps=3, learning_rate=1e-2, min_learning_rate=1e-3)
    torch.manual_seed(3)
    ours = GPT(SHAPE, 11)
    mine = rebuilt(SHAPE, 11, {})
    mine.load_state_dict(ours.state_dict())
    optimizers = [make_pretraining_optimizer(model, train) for model in (ours, mine)]
    optimizers[1].__class__ = type("Mine", (RebuiltAdamW,), {"functions": functions})
    ids = torch.randint(11, (2, 9))
    for step in range(5):
        for model, optimizer in zip((ours, mine), optimizers, strict=True):
            optimizer.zero_grad()
            model.loss(ids[:, :-1], ids[:, 1:]).backward()
            rate = set_learning_rates(optimizer, step, train)
            if model is mine:
                optimizer.rate = functions["learning_rate"](step, 20, 3, 1e-2, 1e-3)
                assert optimizer.rate == pytest.approx(rate)
            optimizer.step()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(mine.get_parameter(name), parameter, rtol=1e-4, atol=1e-5)
    kept = [{key: value for values in one.state.values() for key, value in values.items()} for one in optimizers]
    assert kept[0].keys() == kept[1].keys()  # a checkpoint of one is a checkpoint of the other


def test_a_run_with_all_pieces_is_like_ours_and_is_said_to_be_theirs(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workbook = Workbook(outputs)
    workbook.folder.mkdir(parents=True)
    used = [piece for piece in all_pieces() if piece.name not in ON_A_MODEL]
    for piece in used:
        workbook.file(piece).write_text(WRITTEN[piece.name], encoding="utf-8")
        workbook.record(piece, sha256_of(workbook.file(piece)), True)
    words = ["exercise", "use", "--name", "mine", "--set", "data.corpus=tiny", *SMALL, *QUICK]
    assert main([*words, "--set", "model.norm=rmsnorm"]) == 2
    assert "--set model.norm=layernorm" in capsys.readouterr().err
    assert main([*words, "--set", "model.norm=rmsnorm", "--set", "train.schedule=linear"]) == 2
    assert "Add --set model.norm=layernorm --set train.schedule=cosine" in capsys.readouterr().err
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "times as fast" in said
    mine, ours = RunFolder(outputs / "rebuilt" / "mine"), RunFolder(outputs / "pretraining" / "ours-mine")
    info = mine.info()
    in_the_run = tuple(piece.name for piece in used if piece.name != "bpe")  # characters are not merged
    assert info.settings_as(RebuiltSettings).pieces.yours == in_the_run
    assert info.settings.words.does == "pretraining, yours"
    assert (mine.path / "pieces" / "attention.py").read_text(encoding="utf-8") == WRITTEN["attention"]
    found = beside(read_history(mine), read_history(ours))
    assert [step for step, _, _ in found.losses] == [0, 3, 6]
    for _, my_loss, our_loss in found.losses:
        assert my_loss == pytest.approx(our_loss, abs=2e-3)
    assert found.losses[-1][1] < found.losses[0][1]
    assert twin_of(mine) == ours
    ours.change_info(lambda now: replace(now, precision="bf16"))  # no comparison to the last digits
    assert twin_of(mine) is None
    samples = read_history(mine).samples
    assert samples
    workbook.file(find_piece("attention")).write_text("broken", encoding="utf-8")  # the run has a copy
    assert main(["resume", "mine", "--steps", "8"]) == 0
    assert mine.recorded_status().step == 8
    assert main(["generate", "mine@final", "--prompt", "The", "--tokens", "3"]) == 0  # by the lab's own model
    assert main(["pretrain", "--from", "mine@final", "--steps", "9", "--name", "branch"]) == 0
    assert RunFolder(outputs / "rebuilt" / "branch").recorded_status().step == 9
    capsys.readouterr()
    assert main(["exercise", "use", "attention"]) == 2
    assert "attention has not passed as it stands." in capsys.readouterr().err
    assert main(["exercise", "use", "lora", "softmax"]) == 2
    assert "lora is not part of training from scratch." in capsys.readouterr().err
    assert main(["exercise", "use", "bpe"]) == 2
    assert "Add --set data.tokenizer=bpe" in capsys.readouterr().err
    assert make_ours(mine).id == "ours-mine-2"  # the first was deleted, perhaps, or failed
    assert main(["runs", "--json"]) == 0
    assert {"mine", "ours-mine"} <= {row["id"] for row in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize("kind", [pytest.param("gpt2", marks=pytest.mark.slow), "bpe", "compact"])
def test_a_text_encoded_by_the_learners_merges_is_the_labs(
    kind: str, functions: dict[str, Callable[..., Any]], outputs: Path
) -> None:
    settings = DataSettings(corpus="tiny", tokenizer=kind, bpe_vocab_size=300)
    data = load_dataset(settings, 8, quiet)
    own = OwnEncoding(data.tokenizer, functions["encode"])
    seen: list[tuple[float, float]] = []
    own.again(data.train, lambda what, done, total: seen.append((done, total)))
    assert seen[0] == (0, len(data.train))
    with pytest.raises(Cancelled):
        own.again(data.train, mock.Mock(side_effect=Cancelled))
    for tokens in (data.train, data.val, data.train[3:-2]):
        again = own.again(tokens)
        assert np.array_equal(again, tokens)
        assert again.dtype == tokens.dtype
        with mock.patch.object(own_tokens, "_AT_ONCE", 50):
            assert np.array_equal(own.again(tokens), tokens)
    for text in ("The naïve king said: 1,234 —  tea!\n\nIt's", "", "\u2019tis"):
        assert own(text) == data.tokenizer.encode(text)
    lazy = OwnEncoding(data.tokenizer, lambda ids, merges: ids)
    with pytest.raises(LabError, match="does not encode this corpus rightly"):
        lazy.again(data.train)


def test_tokens_of_a_word_that_is_cut_in_two_stay(functions: dict[str, Callable[..., Any]]) -> None:
    """Within a character, or where the rest alone would be other words: `'l` of `she'll`."""
    tokenizer = BpeTokenizer([("f", "Ã"), ("c", "a"), ("'", "l"), ("l", "a")])
    for text, lost in (("one x café", "\\xa9"), ("she'll", "l")):
        *ids, last = tokenizer.encode(text)
        assert tokenizer.token_text(last) == lost
        assert OwnEncoding(tokenizer, functions["encode"]).again(np.array(ids)).tolist() == ids
    rest = tokenizer.encode("she'lland x")[4:]
    assert tokenizer.decode(rest) == "land x"  # of the words `'ll` and `and`
    assert OwnEncoding(tokenizer, functions["encode"]).again(np.array(rest)).tolist() == rest


def test_a_run_reads_the_text_as_the_learner_encodes_it(outputs: Path) -> None:
    passed(outputs, "bpe")
    assignments = {"data.corpus": "tiny", "data.tokenizer": "bpe", "data.bpe_vocab_size": 300, "model.dropout": 0.0}
    run = make_yours(outputs, ["bpe"], with_values(quick_settings(2), assignments), name="mine")
    called: list[int] = []
    plain = OwnEncoding.again
    with mock.patch.object(
        OwnEncoding, "again", lambda self, tokens, tell: called.append(len(tokens)) or plain(self, tokens, tell)
    ):
        train_here(run)
    assert len(called) == 2
    assert run.recorded_status().state == "finished"


def test_the_learners_logit_lens_reads_a_model_beside_ours(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_here(new_run(outputs, 4, "bar", model__n_layer=2))
    words = ["exercise", "use", "logit-lens", "--model", "bar", "--prompt", "the king"]
    assert main(words) == 2
    assert "logit-lens has not passed as it stands." in capsys.readouterr().err
    passed(outputs, "logit-lens")
    assert main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["layer"] for row in rows] == [0, 1]
    assert all(row["yours"] == row["ours"] and row["apart"] < 1e-5 for row in rows)
    head = "def logit_lens(streams, final_norm, unembedding):\n    "
    passed(outputs, "logit-lens", f"print('begins')\n{head}print('reads')\n    return streams @ unembedding.T / 0")
    assert main([*words, "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("begins\nreads\n")
    assert "nan or infinity" in printed.err
    passed(outputs, "logit-lens", f"{head}return streams / 0 @ nothing\n")
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "Your logit-lens failed." in said
    assert "Line 2" in said
    with mock.patch("llmlab.models.source.open_model", side_effect=RuntimeError("the lab's own")):
        assert main(words) == 1
    assert "Your" not in capsys.readouterr().err
    assert main(words[:3]) == 2
    assert "--model RUN" in capsys.readouterr().err


def test_adapters_that_the_learner_computes_make_the_model_that_was_fine_tuned(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_here(new_run(outputs, 4, "bar"))
    lora_run(outputs, "bar@final", SCRATCH_TARGETS)
    passed(outputs, "lora")
    words = ["exercise", "use", "lora", "--prompt", "the king", "--json", "--model"]
    assert main([*words, "tuned"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["apart"] < 1e-5
    assert found["merged"] < 1e-5
    assert any(abs(ours - base) > 1e-3 for _, _, ours, base in found["rows"])
    assert main([*words, "bar"]) == 2
    assert "has no adapter" in capsys.readouterr().err


def test_an_error_of_a_piece_in_a_run_is_said_with_its_line(outputs: Path) -> None:
    """From a neighbour, too, which the run has beside it."""
    passed(outputs, "softmax", "from helper_of_mine import nothing\ndef softmax(scores):\n    return nothing(scores)\n")
    (outputs / "exercises" / "helper_of_mine.py").write_text(
        "def nothing(scores):\n    return 1 / 0\n", encoding="utf-8"
    )
    run = make_yours(outputs, ["softmax"], with_values(quick_settings(2), {"model.dropout": 0.0}), name="mine")
    with pytest.raises(
        LabError, match=r"Your softmax failed. ZeroDivisionError.* Line 3: return noth.* It is .*softmax.py"
    ):
        train_here(run)


@pytest.mark.parametrize("kind", ["scratch", "llama", "gpt2"])
def test_an_adapter_that_the_learner_computes_has_our_outputs_and_gradients(
    kind: str, functions: dict[str, Callable[..., Any]]
) -> None:
    """Beside the lab's layers, and beside PEFT's, with a matrix that lies either way."""
    torch.manual_seed(3)
    if kind == "scratch":
        model = GPT(SHAPE, 11)
        insert(model, 2, 3.0, 0.0, target_layers(model, "all"))
    else:
        targets = {"llama": LLAMA_TARGETS, "gpt2": ["c_attn", "c_proj", "c_fc"]}[kind]
        model = peft_model(getattr(tiny_models, kind)(), targets, 1, r=2, lora_alpha=3)
    learning = [p for name, p in model.named_parameters() if ".lora_" in name]
    ids = torch.randint(11, (2, 8))
    found = []
    with torch.no_grad():
        for factor in learning:
            factor.normal_()
    kept = [factor.clone() for factor in learning]
    for mine in (False, True):
        if mine:
            put_lora_in(model, 3.0, 0, functions)
            assert not any(b.any() for b in learning[1::2])
            with torch.no_grad():
                for factor, before in zip(learning, kept, strict=True):
                    factor.copy_(before)
        logits = model(ids) if kind == "scratch" else model(ids).logits
        found.append((logits.detach(), torch.autograd.grad(logits.square().mean(), learning)))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-4, atol=1e-4)
    for ours, mine in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(mine, ours, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_model_is_fine_tuned_with_the_learners_lora_and_ours_beside_it(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_here(new_run(outputs, 2, "bar", data__tokenizer="gpt2", model__block_size=64))
    words = ["exercise", "use", "lora", "--steps", "3", "--set", "lora.rank=2", "--set", "train.eval_interval=2"]
    words += ["--set", "train.eval_sequences=2", "--set", "data.batch_size=2", "--set", "samples.tokens=3"]
    words += ["--set", "data.scored=0", "--name", "mine", "--model", "bar@final"]
    assert main(words) == 2
    assert "lora has not passed as it stands." in capsys.readouterr().err
    passed(outputs, "lora")
    assert main([*words, "--set", "lora.dropout=0.1"]) == 2
    assert "Add --set lora.dropout=0.0" in capsys.readouterr().err
    assert main(words) == 0
    assert "times as fast" in capsys.readouterr().out
    mine, ours = RunFolder(outputs / "rebuilt-finetuning" / "mine"), RunFolder(outputs / "finetuning" / "ours-mine")
    assert mine.info().settings.words.does == "lora, rank 2, yours"
    assert (mine.path / "pieces" / "lora.py").read_text(encoding="utf-8") == WRITTEN["lora"]
    found = beside(read_history(mine), read_history(ours)).losses
    assert found[0][1] == pytest.approx(found[0][2], abs=1e-6)  # B is zero in both
    assert found[-1][1] == pytest.approx(found[-1][2], abs=0.1)  # the first A is drawn otherwise
    assert found[-1][1] < found[0][1]
    first, second = (next(iter(read_factors(select(run.checkpoints, "final").path))) for run in (mine, ours))
    assert (first.module, first.a.shape, first.scale) == (second.module, second.a.shape, second.scale)
    assert main(["exercise", "use", "lora", "--model", "mine@final", "--prompt", "the", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["apart"] < 1e-5
    assert main(["resume", "mine", "--steps", "4"]) == 0
    assert main(["exercise", "use", "lora"]) == 2
    assert "No model was named." in capsys.readouterr().err


def passed(outputs: Path, name: str, code: str = "") -> Path:
    """A piece of the workbook that has passed."""
    workbook, piece = Workbook(outputs), find_piece(name)
    workbook.folder.mkdir(parents=True, exist_ok=True)
    workbook.file(piece).write_text(code or WRITTEN[name], encoding="utf-8")
    workbook.record(piece, sha256_of(workbook.file(piece)), True)
    return workbook.file(piece)
