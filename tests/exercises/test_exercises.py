"""Exercises: our own code passes each check, each listed mistake is caught by its name, and no file is written over."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
import torch
from forks import wait_until
from torch import Tensor, nn
from written_pieces import WRITTEN

from llmlab.cli.main import main
from llmlab.core.errors import LabError
from llmlab.core.paths import module_command
from llmlab.core.records import from_plain
from llmlab.core.settings import ModelSettings
from llmlab.core.source_code import find_source
from llmlab.exercises import checker, checking
from llmlab.exercises.checker import Answer, check_file
from llmlab.exercises.checking import Wrong, load_file, load_parts, recognised, steps_of, take
from llmlab.exercises.parts import Draw, Part
from llmlab.exercises.pieces import Piece, Workbook, all_pieces, find_piece
from llmlab.gpt.model import GPT

PIECES = [piece.name for piece in all_pieces()]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in PIECES if name not in ("softmax", "attention", "bpe")]
SHAPE = ModelSettings(n_layer=2, n_head=2, n_embd=16, block_size=8)
ATTENTION = """
import math, torch
def attention(q, k, v, softmax):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return softmax(scores.masked_fill(later, -torch.inf)) @ v
"""


def first_wrong(
    parts: tuple[Part, ...], functions: dict[str, Callable[..., Any]], file: Path = Path("yours.py")
) -> tuple[str, Wrong] | None:
    """The step that fails, and the fact; None where all pass."""
    for step in steps_of(parts):
        try:
            take(step, parts, functions, file)
        except Wrong as wrong:
            return step.name, wrong
    return None


def right(parts: tuple[Part, ...]) -> dict[str, Callable[..., Any]]:
    return {part.name: part.right for part in parts}


def written(piece: str, code: str, tmp_path: Path) -> tuple[str, str]:
    """The step at which a file fails, and its fact."""
    parts, file = load_parts(find_piece(piece).folder), tmp_path / f"{piece}.py"
    file.write_text(code, encoding="utf-8")
    try:
        functions = load_file(file, [part.name for part in parts])
    except Wrong as wrong:
        return "runs", str(wrong)
    found = first_wrong(parts, functions, file)
    return ("", "") if found is None else (found[0], str(found[1]))


@pytest.mark.parametrize("name", ["softmax", "attention", "bpe", *SLOW])
def test_our_own_code_passes_and_ten_mistakes_are_caught_by_their_names(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [step for step in checking._STEPS if step.name != "speed"]  # wrong is not slow
    monkeypatch.setattr(checking, "_STEPS", tuple(steps))
    parts = load_parts(find_piece(name).folder)
    assert first_wrong(parts, right(parts)) is None
    mistakes = {id(mistake): (part, mistake) for part in parts for mistake in part.mistakes}.values()
    assert len(mistakes) >= 10
    assert [recognised(part, part.right) for part in parts] == [None] * len(parts)
    for part, mistake in mistakes:
        assert mistake.why
        found = first_wrong(parts, {**right(parts), part.name: mistake.function})
        assert found is not None, mistake.name
        known = found[1].mistake
        assert known is not None, (mistake.name, str(found[1]))
        assert known.name == mistake.name


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_has_a_page_hints_a_skeleton_without_solution_and_our_code(name: str, tmp_path: Path) -> None:
    piece = find_piece(name)
    assert len(piece.hints) == 3
    assert "## " not in piece.page
    assert [find_source(line[6:]).code for line in piece.ours.splitlines() if line.startswith("@code ")]
    step, fact = written(name, piece.skeleton, tmp_path)
    assert step == "runs"
    assert fact.endswith("is not written yet.")


@pytest.mark.slow
def test_a_matrix_b_that_begins_at_anything_but_zero_is_named_and_no_mistake_of_lora_fits_the_case_by_hand() -> None:
    parts = load_parts(find_piece("lora").folder)

    def small(width_in: int, width_out: int, rank: int) -> tuple[Tensor, Tensor]:
        return torch.rand(rank, width_in), 0.02 * torch.rand(width_out, rank) + 0.01

    found = first_wrong(parts, {**right(parts), "start": small})
    assert found is not None
    assert found[1].mistake is not None
    assert "B must begin at zero" in found[1].mistake.why
    for part in parts[1:]:
        for mistake in part.mistakes:
            found = first_wrong(parts, {**right(parts), part.name: mistake.function})
            assert found is not None
            assert found[0] == "hand", mistake.name


def the_function(piece: str, name: str) -> Callable[..., Any]:
    return right(load_parts(find_piece(piece).folder))[name]


def test_the_right_functions_are_what_our_gpt_computes() -> None:
    """The checks compare with them, so they must be the lab's own model, part by part."""
    torch.manual_seed(1)
    model, draw = GPT(SHAPE, 11), Draw(0)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) / 10)
    block, x = model.blocks[0], draw(2, 8, 16)
    one_head, many = the_function("attention", "attention"), the_function("heads", "heads")

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return one_head(q, k, v, lambda scores: scores.softmax(-1))

    def norm_of(norm: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda x: the_function("layer-norm", "layer_norm")(x, norm.weight, norm.bias, norm.EPS)

    def close(mine: Tensor, theirs: Tensor) -> None:
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)

    close(norm_of(block.attention_norm)(x), block.attention_norm(x))
    close(many(x, block.attention.qkv.weight, block.attention.out.weight, 2, attention), block.attention(x))
    feed_forward = block.feed_forward
    close(
        the_function("feed-forward", "feed_forward")(x, feed_forward.up.weight, feed_forward.down.weight),
        feed_forward(x),
    )
    close(
        the_function("block", "block")(x, block.attention_norm, block.attention, block.feed_forward_norm, feed_forward),
        block(x),
    )
    ids, rows = draw.ids(11, 2, 8), model.token_embedding.weight
    gpt = the_function("gpt", "gpt")
    logits = gpt(ids, rows, model.position_embedding.weight, list(model.blocks), model.final_norm)
    close(logits, model(ids))
    tokens = draw.ids(11, 2, 9)
    loss = the_function("loss", "loss")(model, tokens, the_function("cross-entropy", "cross_entropy"))
    close(loss, model.loss(tokens[:, :-1], tokens[:, 1:]))


def test_the_examples_of_the_pages_are_what_the_right_functions_give() -> None:
    ln_3 = torch.tensor(3.0).log()
    soft, merge = the_function("softmax", "softmax"), the_function("bpe", "merge")
    said = lambda *numbers: ", ".join(f"{float(number):.4g}" for number in numbers)  # noqa: E731
    examples = {"bpe": [f"is `{merge([1, 2, 1, 2, 3], (1, 2), 9)}`"]}
    ids = the_function("bpe", "encode")([0, 1, 2], {(1, 2): 3, (0, 1): 4})
    examples["bpe"].append(f"the ids 0 1 2 become {' '.join(map(str, ids))}")
    low, high = soft(torch.tensor([0.0, ln_3]))
    examples["softmax"] = [f"it gives {low:.2f} and {high:.2f}"]
    loss = the_function("cross-entropy", "cross_entropy")(torch.tensor([[0.0, ln_3]]), torch.tensor([1]))
    examples["cross-entropy"] = [f"it is −ln {high:.2f} = {loss:.4f}"]
    normal = the_function("layer-norm", "layer_norm")(torch.tensor([1.0, 3.0]), torch.ones(2), None, 0.0)
    examples["layer-norm"] = [f"so [{said(*normal)}]".replace("-", "−")]
    q, k, v = (torch.tensor([[0.0], [x]]) for x in (1.0, ln_3, 20.0))
    v[0] = 10.0
    first, second = the_function("attention", "attention")(q, k, v, soft)[:, 0]
    examples["attention"] = [
        f"its output is {first:.0f}; row 1 has weights {low:.2f} and {high:.2f}, and its output is {second:.1f}"
    ]
    feed = the_function("feed-forward", "feed_forward")
    one, minus = torch.ones(1, 1), -torch.ones(1, 1)
    parts = feed(one, one, one), feed(one, minus, one), feed(one, torch.cat([one, minus]), torch.ones(1, 2))
    examples["feed-forward"] = [f"{parts[0].item():.4f} − {-parts[1].item():.4f} = {parts[2].item():.4f}"]
    same = lambda x: x  # noqa: E731
    middle = the_function("block", "block")(one, same, lambda x: 2 * x, same, lambda x: 0 * x)
    end = the_function("block", "block")(one, same, lambda x: 2 * x, same, lambda x: x + 1)
    examples["block"] = [f"x = 1 becomes {middle.item():.0f}, and then {middle.item():.0f} + 4 = {end.item():.0f}"]
    gpt = the_function("gpt", "gpt")
    logits = gpt(torch.tensor([[1, 0]]), torch.eye(2), torch.tensor([[0.0, 0.0], [1.0, 0.0]]), [], same)[0]
    examples["gpt"] = [f"the logits [{said(*logits[0])}] and [{said(*logits[1])}]"]
    moved = the_function("adamw", "adamw")(
        torch.ones(1), torch.full((1,), 0.5), torch.zeros(1), torch.zeros(1), 1, 0.1, 0.9, 0.99, 0.0, 0.0
    )
    examples["adamw"] = [f"m is {said(moved[1])} and v {said(moved[2])};", f"by lr to {said(moved[0])}"]
    rates = [the_function("schedule", "learning_rate")(step, 109, 9, 1.0, 0.0) for step in (0, 9, 59)]
    examples["schedule"] = ["step 0 has {}, step 9 has {}, and step 59, halfway, {}.".format(*map(said, rates))]
    kept = the_function("sampling", "probabilities")(torch.tensor([0.5, 0.3, 0.2]).log(), 1.0, 0.7)
    examples["sampling"] = [f"with {said(kept[0])} and {said(kept[1])}."]
    a, b = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    changed = the_function("lora", "lora")(torch.ones(3), torch.eye(2, 3), a, b, 4.0)
    examples["lora"] = [f"= [{said(*changed)}]"]
    seen = the_function("logit-lens", "logit_lens")(torch.tensor([[[0.0, ln_3]]]), same, torch.eye(2))[0, 0]
    examples["logit-lens"] = [f"says {seen[0]:.2f} and {seen[1]:.2f}."]
    missing = [
        (name, words)
        for name, all_words in examples.items()
        for words in all_words
        if words not in find_piece(name).page
    ]
    assert missing == []


def test_gpt2s_merges_give_gpt2s_tokens() -> None:
    checks: ModuleType = checking._import(find_piece("bpe").folder / "checks.py", "bpe_checks")
    for word in checks._WORDS:
        assert checks.encode(checks._bytes_of(word), checks._gpt2()) == checks.gpt2_ids(word)


@pytest.mark.slow
def test_the_first_fact_is_said_with_its_numbers(tmp_path: Path) -> None:
    for code, step, fact in (
        (ATTENTION, "", ""),
        ("def attention(q, k, v, softmax)\n    return v", "runs", "Line 1 is not Python"),
        ("def other(): ...", "runs", "There is no function attention in it."),
        ("def attention(q, k, v, softmax): pass", "runs", "returns None. Is the `return` missing?"),
        ("def attention(q, k, v, softmax):\n    return q @ k", "runs", "Line 2: return q @ k"),
        ("def attention(q, k, v, softmax):\n    return v[0]", "shape", "Its shape is [6, 8], and should be [2, 6, 8]."),
        (ATTENTION.replace("triu(1)", "triu(4)"), "causal", "Row 0 attends to position 1, which it must not see"),
        (ATTENTION.replace("@ v", "@ (2 * v)"), "hand", "two positions: it gives [[20.0000], [35.0000]], and should"),
        (ATTENTION.replace("@ v", "@ v.detach()"), "gradient", "No gradient reaches v"),
        (ATTENTION.replace("scores = q", "v.mul_(1.5); scores = q"), "runs", "changes its argument v in place"),
        ("def attention(q, k, v, softmax): assert q is k", "runs", "AssertionError. Line 1: def attention"),
        ("def attention(q, k, v, softmax): return q,", "shape", "a tuple of a tensor [2, 6, 8], and should return a t"),
        (ATTENTION.replace("triu(1)", "triu(0)"), "causal", "Row 0 has nan or infinity in it."),
    ):
        got = written("attention", code, tmp_path)
        assert got[0] == step, got
        assert fact in got[1], got
    softmax = "def softmax(scores): return scores.softmax(-1)"
    for code, step, fact in (
        (f"{softmax}.view(-1).view(scores.shape)", "", ""),
        (f"{softmax}.numpy()", "shape", "It returns an ndarray, and should return a tensor ["),
        (f"{softmax}.double()", "shape", "Its numbers are float64, and should be float32."),
        (f"{softmax} * float('nan')", "hand", "it gives [nan, nan], and should give [0.2500, 0.7500]."),
        (
            "def softmax(scores): return scores.copy_(scores.softmax(-1))",
            "runs",
            "changes its argument scores in place",
        ),
        ("def softmax(scores): return softmax(scores)", "runs", "RecursionError: maximum recursion depth exceeded"),
    ):
        got = written("softmax", code, tmp_path)
        assert got[0] == step, got
        assert fact in got[1], got
    emptied = WRITTEN["bpe"].replace("    return ids\n", "    merges.clear()\n    return ids\n")
    assert "changes its argument merges in place" in written("bpe", emptied, tmp_path)[1]
    attend = "def attend(q, k, v, kept): return "
    for code, fact in (
        (f"{attend}None", "attend: It returns None, and should return two things: the answers, and what is kept."),
        (f"{attend}q", "attend: It returns a tensor [2, 3, 1, 4], and should return two things"),
        (f"{attend}(k, v), q", "It returns a tuple of a tensor [2, 3, 1, 4], a tensor [2, 3, 1, 4], and should"),
    ):
        got = written("kv-cache", code, tmp_path)
        assert got[0] == "runs", got
        assert fact in got[1], got
    parts = load_parts(find_piece("gpt").folder)
    found = first_wrong(parts, {**right(parts), "initialise": lambda parameters, n_layer: None})
    assert found is not None
    assert "0.02, and mean of token_embedding.weight: It gives [50.0906, " in str(found[1])


def test_a_piece_may_import_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "softmax.py").write_text("def softmax(x): return x.softmax(-1)", encoding="utf-8")
    monkeypatch.delitem(sys.modules, "softmax", raising=False)
    monkeypatch.setattr(sys, "path", [])
    own = ATTENTION.replace("def attention(q, k, v, softmax)", "from softmax import softmax\ndef attention(q, k, v, _)")
    assert written("attention", own, tmp_path) == ("", "")
    monkeypatch.delitem(sys.modules, "softmax")


def test_a_function_that_fits_a_mistake_only_on_an_edge_case_is_not_taken_for_it() -> None:
    """Of two numbers the mean deviation is the standard deviation: on an edge case it is `eps outside the root`."""
    (part,) = load_parts(find_piece("layer-norm").folder)

    def by_mean_deviation(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        normal = centred / (centred.abs().mean(-1, keepdim=True) + eps) * weight
        return normal if bias is None else normal + bias

    assert recognised(part, by_mean_deviation) is None


def test_a_loop_in_python_is_too_slow(tmp_path: Path) -> None:
    loop = """
import math, torch
def softmax(x):
    rows = [[math.exp(n) for n in row] for row in x.reshape(-1, x.shape[-1]).tolist()]
    return torch.tensor([[n / whole for n in row] for row in rows for whole in [sum(row)]]).view_as(x)
"""
    parts = load_parts(find_piece("softmax").folder)
    file = tmp_path / "softmax.py"
    file.write_text(loop, encoding="utf-8")
    functions = load_file(file, ["softmax"])
    speed = next(step for step in steps_of(parts) if step.name == "speed")
    with pytest.raises(Wrong, match="ms of processor time on \\[256, 1024\\]"):
        take(speed, parts, functions, file)


def checked(piece: Piece, code: str, tmp_path: Path, **limits: Any) -> Answer:
    file = tmp_path / f"{piece.name}.py"
    file.write_text(code, encoding="utf-8", errors="surrogateescape")
    return check_file(piece, file, **limits)


def test_what_a_file_does_stays_in_its_process(tmp_path: Path) -> None:
    attention = find_piece("attention")
    begun = "def attention(q, k, v, softmax):\n    "
    answer = checked(attention, f"import os\n{begun}print('about to end', flush=True)\n    os._exit(7)", tmp_path)
    assert (answer.passed, answer.fact) == (False, "It ended the process that checks it (exit code 7).")
    assert answer.printed == "about to end\n"
    begin = time.monotonic()
    answer = checked(attention, f"import torch\n{begun}return torch.ones(1 << 30)", tmp_path, memory=1 << 28)
    assert answer.fact == "It needs more memory than it is given. Line 3: return torch.ones(1 << 30)"
    enough = 4 + round(3 * (time.monotonic() - begin))  # seconds in which this machine, today, comes to that line
    answer = checked(attention, f"import time\n{begun}time.sleep(600)", tmp_path, seconds=enough)
    said = f"It did not end within {enough} seconds. Is there a loop without an end? It was at line 3: "
    assert answer.fact.startswith(said)
    assert [step.state for step in answer.steps][:2] == ["failed", "waits"]
    answer = checked(attention, f"{begun}print('x' * 100_000)\n    raise SystemExit", tmp_path)
    assert answer.fact == "It ends the process that checks it (sys.exit). Line 3: raise SystemExit"
    assert answer.printed == "x" * 2000 + "\n… (cut)"
    assert from_plain(Answer, json.loads(json.dumps(answer.as_json()))) == answer
    for code, fact in (
        ("import os\nos.abort()", "It ended the process that checks it (signal 6)."),
        ("import resource\nraise OSError(resource.getrlimit(resource.RLIMIT_CORE))", "(0, 0)"),
        ("import sys\nsys.exit(3)", "It ends the process that checks it (sys.exit). Line 2: sys.exit(3)"),
        ("x = bytearray(10**10)", "It needs more memory than it is given. Line 1: x = bytearray(10**10)"),
        ("print('x' * 100_000_000)", "It prints or writes more than a check takes. Line 1: print('x' * 100_000_000)"),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'. Line 1"),
        ("x = 1\0", "source code string cannot contain null bytes."),
        ("x = '\udce9'", "Line 1 is not Python: (unicode error) 'utf-8' codec can't decode byte 0xe9"),
        ("input()", "EOFError: EOF when reading a line. Line 1: input()"),
        ("import os\nos.remove(__file__)", "There is no function attention in it."),
    ):
        answer = checked(attention, code, tmp_path)
        assert fact in answer.fact, answer.fact
        assert not answer.passed


def test_a_file_that_changes_its_own_checks_has_not_passed(tmp_path: Path) -> None:
    softmax = find_piece("softmax")
    folder = shutil.copytree(softmax.folder, tmp_path / softmax.folder.name)
    checks = folder / "checks.py"
    for deed in (".write_text('PARTS = ()')", ".unlink()"):
        with pytest.raises(LabError, match=r"softmax has changed its own checks. .*checks.py is as it was again."):
            checked(Piece("softmax", folder), f"import pathlib\npathlib.Path({str(checks)!r}){deed}", tmp_path)
        assert checks.read_bytes() == (softmax.folder / "checks.py").read_bytes()


@pytest.mark.parametrize(
    ("deed", "fact"),
    [
        ("x = bytearray(1 << 27)", "It needs more memory than it is given."),
        ("print('x' * 5_000_000, flush=True)", "It prints or writes more than a check takes."),
    ],
)
def test_where_the_system_limits_nothing_a_check_is_ended(
    deed: str, fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS and Windows: a process that has set itself no limits."""
    begin = 'import sys, time; open(sys.argv[3], \'w\').write(\'{"steps": [["runs", "It runs"]]}\')'
    monkeypatch.setattr(
        checker, "module_command", lambda _: [sys.executable, "-c", f"{begin}; {deed}; time.sleep(600)"]
    )
    monkeypatch.setattr(checker, "_PYTHON_BYTES", 1 << 26)
    answer = checked(find_piece("softmax"), "", tmp_path, memory=0)
    assert answer.fact == fact


def test_a_file_that_goes_away_while_it_is_checked_is_said(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workbook, piece = Workbook(outputs), find_piece("softmax")
    workbook.start(piece)
    monkeypatch.setattr(Workbook, "require", lambda self, piece: self.file(piece))
    workbook.file(piece).unlink()
    with pytest.raises(LabError, match=r"softmax could not be checked. No such file.* .*softmax.py.. Was it moved"):
        checker.check(piece, workbook)


def test_pieces_that_pass_at_the_same_moment_are_all_remembered(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two windows, or a window and a terminal, have one list: what one reads, another must not write over."""
    workbook, (first, second) = Workbook(outputs), all_pieces()[:2]
    workbook.start(first)
    plain, others = Workbook._passed, list[threading.Thread]()

    def read(self: Workbook) -> dict[str, object]:
        found = plain(self)
        if not others:
            others.append(threading.Thread(target=self.record, args=(second, "2", True)))
            others[0].start()
            others[0].join(0.3)  # it waits for the lock; without one it has written by now
        return found

    monkeypatch.setattr(Workbook, "_passed", read)
    workbook.record(first, "1", True)
    others[0].join()
    assert plain(workbook) == {first.name: "1", second.name: "2"}


def test_a_file_that_is_shorter_by_the_time_its_loop_is_looked_for_is_no_crash(tmp_path: Path) -> None:
    file, told = tmp_path / "softmax.py", tmp_path / "answer.jsonl"
    told.with_suffix(checker.WHERE).write_text(f'  File "{file}", line 2 in softmax', encoding="utf-8")
    for code, said in (("while True:\n    pass", " It was at line 2: pass"), ("", "")):
        file.write_text(code, encoding="utf-8")
        assert checker._where(told, file) == said


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without telling it")
def test_what_the_code_of_a_check_that_is_ended_has_started_ends_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "exercises"
    folder.mkdir()
    code = "import subprocess, time\none = subprocess.Popen(['sleep', '600'])\nopen('begun', 'w').write(str(one.pid))\n"
    (folder / "softmax.py").write_text(f"{code}time.sleep(600)", encoding="utf-8")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [*module_command("llmlab"), "exercise", "check", "softmax", "--outputs", str(tmp_path)],
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    wait_until(lambda: (folder / "begun").exists() and (folder / "begun").read_text())
    process.terminate()
    process.wait(timeout=60)
    started = int((folder / "begun").read_text())
    wait_until(lambda: not psutil.pid_exists(started) or psutil.Process(started).status() == psutil.STATUS_ZOMBIE)
    assert not list(temporary.glob("llmlab-check-*"))


def test_a_file_is_started_once_checked_and_remembered(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workbook, piece = Workbook(outputs), find_piece("attention")
    assert main(["exercise", "check", "attention"]) == 2
    assert "llmlab-run exercise start attention" in capsys.readouterr().err
    assert main(["exercise", "start", "attention"]) == 0
    file = workbook.file(piece)
    assert str(file) in capsys.readouterr().out
    assert file.read_text(encoding="utf-8") == piece.skeleton
    file.write_text(ATTENTION, encoding="utf-8")
    assert main(["exercise", "start", "attention"]) == 0
    assert f"your file is {file}" in capsys.readouterr().out
    assert file.read_text(encoding="utf-8") == ATTENTION
    assert main(["exercise", "show", "attention", "--hints", "2"]) == 0
    shown = capsys.readouterr().out
    assert piece.hints[1] in shown
    assert piece.hints[2] not in shown
    assert "scaled_dot_product_attention" not in shown  # ours is shown after it has passed
    assert main(["exercise", "check", "attention", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True
    assert workbook.state(piece) == "passed"
    assert main(["exercise", "show", "attention"]) == 0
    assert "scaled_dot_product_attention" in capsys.readouterr().out
    file.write_text(f"{ATTENTION}\n# better", encoding="utf-8")
    assert workbook.state(piece) == "changed"
    assert main(["exercise", "list", "--json"]) == 0
    states = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert states["attention"] == "changed"
    assert states["softmax"] == "new"


def test_what_is_saved_while_an_older_version_is_checked_has_not_passed(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workbook, piece = Workbook(outputs), find_piece("attention")
    workbook.start(piece)

    def saved_meanwhile(piece: Piece, path: Path, **limits: Any) -> Answer:
        path.write_text("another version", encoding="utf-8")
        return Answer(piece.name, str(path), passed=True)

    monkeypatch.setattr(checker, "check_file", saved_meanwhile)
    checker.check(piece, workbook)
    workbook.file(piece).write_text(piece.skeleton, encoding="utf-8")
    assert workbook.state(piece) == "begun"


def test_no_piece_of_that_name_and_nothing_to_do_are_said(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["check", "atention"], "Did you mean attention?"),
        (["start"], "takes the name of one piece"),
        (["dance"], "There are: list, start, check"),
    ):
        assert main(["exercise", *words]) == 2
        assert said in capsys.readouterr().err
