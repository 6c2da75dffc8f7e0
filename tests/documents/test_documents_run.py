"""The commands of README, the guides and the first hour run, in order, in an empty folder, and do what is said of them.

Training is made small: a fiftieth of the steps, small batches and models, little text, few measurements, two values of
a grid. What is quoted of the output is compared where no long training is behind it. With DOCUMENTS_WHOLE=1 every
command runs as it stands, on one thread, which takes about an hour; then all quotes are compared. What a training gives
is equal to the last digit on processors of one kind alone.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from cases import each
from test_documents import DOCUMENTS, MANUAL, code_of, commands_of

from llmlab.cli.main import main
from llmlab.store.run_folder import RunFolder

WHOLE = bool(os.environ.get("DOCUMENTS_WHOLE"))
CLAIMS = "guides/checking-claims.md"
HOUR = sorted(name for name in DOCUMENTS if name.startswith("first-hour/"))

# Beginnings of commands that are not run here, and why. Besides, the manual starts the window (tests/gui does),
# installs the lab and runs the tests (.ci/run does), and measures for hours (tests/benchmarks).
NOT_RUN = {
    "doctor": "it trains and opens a model of its own: tests/cli/test_cli_reports.py",
    "corpora fetch": "it needs a network",
    "corpora build": "it needs a folder of texts: tests/data/test_shards.py",
    "mystery start": "it trains for a minute: tests/cli/test_cli_mystery.py",
    "practice": "it waits for answers: tests/practice/test_practice_deck.py",
    "request": "it needs a run that trains meanwhile: tests/cli/test_cli_runs.py",
    "finetune --preset smollm2-135m": "it needs a model from a package, and minutes: tests/test_real_model.py",
}

_SHARE = 50  # of the steps
_ONE_THREAD = " --set train.threads=1"
# Sequences of a step; windows that a loss is measured on; tokens of the samples, which take longer than so few steps.
_FEW = " --set data.batch_size=2 --set train.eval_sequences=2 --set samples.tokens=8"
_SMALL = " --set data.max_tokens=60000 --set model.n_embd=32"  # what begins from scratch
_STEPS = r"(?<=--steps )\d+|(?<=_interval=)\d+|(?<=checkpoints\.interval=)\d+|(?<=\w@)\d+(?= )"


def _small(words: str) -> str:
    """A fiftieth of the steps, of the intervals between things, and of the checkpoints that are named."""
    return re.sub(_STEPS, lambda steps: str(max(1, int(steps[0]) // _SHARE)), words)


def _as_it_is(words: str) -> str:
    return words


def _agreed(words: str) -> str:
    """Without the question, which nobody could answer here."""
    return f"{words} --yes"


def _looks(words: str) -> str:
    """Without figures, which tests/cli/test_cli_inspect.py draws."""
    return words if WHOLE else _small(words).removesuffix(" --plots")


def _trains(words: str) -> str:
    """On one thread, small."""
    if WHOLE:
        return words + _ONE_THREAD
    words = _small(words) + _ONE_THREAD
    if words.startswith("resume"):
        return words  # the rest is the run's
    words += _FEW if "--steps" in words else f"{_FEW} --steps 6"
    if "--from" in words:
        return words
    if "--model" in words:  # it fine-tunes
        return words + " --set data.scored=4"
    words += _SMALL + " --set model.n_layer=3" * ("model.n_layer" not in words)
    return words + " --set data.tokenizer=bpe" * ("--preset nano" in words)  # 2,048 tokens, and not GPT-2's 50,257


def _experiment(words: str) -> str:
    """With the first two values of its grid, one seed, and one curve."""
    action = words.split()[1] in ("list", "show", "resume", "cancel", "report", "loss-curves")
    if action or WHOLE:
        return words + _ONE_THREAD * (not action)
    words = re.sub(r"(?<=--seeds )\d+", "1", words)
    return _trains(re.sub(r"(--grid [^\s,]+,[^\s,]+|--compare [^\s,]+)\S*", r"\1", words))


# How the commands are run: what becomes of their words.
HOW: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(("pretrain", "resume", "finetune"), _trains),
    "experiment": _experiment,
    **dict.fromkeys(("generate", "export", "inspect", "intervene", "compare", "evolve", "adapter"), _looks),
    **dict.fromkeys(("models", "data", "notebook", "paper", "runs", "checkpoints"), _as_it_is),
    "show": lambda words: re.sub("--batch$", "--batch 5", words),  # a short run has no spike
    **dict.fromkeys(("walk", "exercise", "mystery", "practice", "learn"), _as_it_is),
    "delete": _agreed,
    "rename": _as_it_is,
    **dict.fromkeys(("corpora", "presets", "settings", "doctor", "request"), _as_it_is),
}


@dataclass(frozen=True)
class Quote:
    """What a document says that a command prints.

    said: in the document, or in the guide to claims. command: how it begins. printed: each is in the output; `said`
    itself where none is named. trained: it comes from a whole training or text, so a small run does not print it.
    """

    said: str
    command: str
    printed: tuple[str, ...] = ()
    trained: bool = False


def block(after: str) -> list[str]:
    """The lines of that guide's code block after these words; what it cut with three dots is left out."""
    code = DOCUMENTS[CLAIMS].partition(after)[2].split("```\n")[1]
    return [line.removesuffix("...").strip() for line in code.splitlines() if line]


_PAPERS = block("The first command printed, with its longest titles cut here:")
_HEADER, *_VERDICT = block("The verdict on the model of the first hour:")
QUOTES = {
    CLAIMS: tuple(Quote(line, "paper list") for line in _PAPERS),
    "first-hour/1-train.md": (
        Quote("ln 2,048 = 7.62 nats per token", "pretrain", ("knowing nothing costs 7.62",)),
        Quote(
            "how often each token occurs costs 6.13",
            "pretrain",
            ("knowing how often each token occurs 6.13",),
            trained=True,
        ),
        Quote("from 7.631 to 4.352", "pretrain", ("validation 7.631", "validation 4.352"), trained=True),
        Quote("And not the mercy is to do you.", "pretrain", trained=True),
        Quote("LAVANG.", "pretrain", trained=True),
    ),
    "first-hour/2-look-inside.md": (
        Quote("from before the attention of layer 1 on", "inspect", trained=True),
        Quote("34.69 % at the end, before \",\" with 8.02 %", "inspect", ("' you' 34.69 %, ',' 8.02 %",), trained=True),
        Quote("the command lists it", "inspect", ("Attention of ' pray' (7), the first token aside, layer.head: ",)),
        Quote("2.1 0.92 to ' I' (6)", "inspect", trained=True),
        Quote("`induction`, was at most 0.03", "inspect", ("induction heads, as layer.head: 0.3 0.03",), trained=True),
        Quote(
            "from 34.69 % to 30.05 %", "intervene", ("Before: ' you' 34.69 %", "After: ' you' 30.05 %"), trained=True
        ),
    ),
    "first-hour/3-predict.md": (Quote("it ended at 4.324", "pretrain", ("was 4.324: outside.",), trained=True),),
    "first-hour/4-fine-tune.md": (
        Quote("Thirty-two other questions", "finetune", ("held-out items answered right",)),
        Quote("and I have a man of the world To be a crop of the crost", "finetune", trained=True),
        Quote("\"wind\" at step 100", "finetune", ("letter fire rain -> wind",), trained=True),
        Quote("\"fire\" at step 300", "finetune", ("letter fire rain -> fire",), trained=True),
        Quote("from 7.921 to 0.973", "finetune", ("validation 7.921", "validation 0.973"), trained=True),
        Quote("8 of the 32", "finetune", ("0 of 32 before, 8 after",), trained=True),
    ),
    "first-hour/5-check-a-claim.md": (
        Quote("first of 64 tokens 5.9 %", "paper run attention", ("the first of 64", "would give it 5.9 %")),
        Quote(_HEADER, "paper run attention"),
        *(Quote(line, "paper run attention", trained=True) for line in _VERDICT),
        Quote("got 4.7 % of the attention", "paper run attention", ("4.7 % of the attention",), trained=True),
        Quote("random weights at most 6.0 %", "paper run attention", ("at most 6.0 %",), trained=True),
        Quote("wrong. 2.3 bits: a surprise", "paper run attention", ("wrong. 2.3 bits: a surprise",), trained=True),
    ),
}  # fmt: skip


def run(words: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `llmlab-run WORDS` prints. Fails when it fails, or when what it should write is not in the folder."""
    code = main(shlex.split(words))
    said = capsys.readouterr()
    assert code == 0, f"llmlab-run {words}\n{said.out}{said.err}"
    for out in re.findall(r"(?:--out|notebook export) (\S+)", words):
        path = folder / out
        assert path.is_file() or any(path.iterdir())
    return said.out


def follow(
    document: str, folder: Path, capsys: pytest.CaptureFixture[str], before: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Runs every command of a document that was not run `before`; -> what each printed, by its words."""
    printed = dict(before or {})
    for line in commands_of(DOCUMENTS[document]):
        words = shlex.join(shlex.split(line, comments=True)[1:])
        if words in printed or any(words.startswith(beginning) for beginning in NOT_RUN):
            continue
        printed[words] = run(HOW[words.split()[0]](words), folder, capsys)
    return printed


def unkept(document: str, printed: dict[str, str]) -> list[str]:
    """What a document says that its commands did not print."""
    broken = []
    for quote in QUOTES.get(document, ()):
        if quote.said not in DOCUMENTS[document] + DOCUMENTS[CLAIMS]:
            broken.append(f"no longer said: {quote.said}")
        if quote.trained and not WHOLE:
            continue
        (output,) = [_on_a_line(output) for words, output in printed.items() if words.startswith(quote.command)]
        broken += [f"not printed: {part}" for part in quote.printed or (quote.said,) if _on_a_line(part) not in output]
    return broken


def _on_a_line(words: str) -> str:
    """With a space between words."""
    return " ".join(words.split())


@each("document", [*MANUAL, *HOUR])
def test_it_is_said_here_how_a_command_is_run(document: str) -> None:
    new = {line for line in commands_of(DOCUMENTS[document]) if line.split()[1] not in HOW}
    assert new == set(), "Say in HOW how they are run; of what cannot be run here, in NOT_RUN why."


@pytest.fixture
def folder(tmp_path: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run: empty but for the outputs folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLMLAB_MODELS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))  # where the trash is
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(7200 if WHOLE else 1800)
def test_the_manual_keeps_its_word(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed: dict[str, str] = {}
    broken: dict[str, list[str]] = {}
    for document in MANUAL:
        printed = follow(document, folder, capsys, printed)
        broken[document] = unkept(document, printed)
    assert {page: words for page, words in broken.items() if words} == {}


@pytest.mark.slow
@pytest.mark.timeout(7200 if WHOLE else 1800)
def test_the_first_hour_keeps_its_word(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = {page: unkept(page, follow(page, folder, capsys)) for page in HOUR}
    assert {page: words for page, words in broken.items() if words} == {}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="torchrun on its own looks up the machine's name")
def test_torchruns_line_in_readme_trains_the_run_that_is_made_before_it(
    folder: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = list(code_of(DOCUMENTS["README.md"]))
    (line,) = (line for line in code if line.startswith("torchrun "))
    run(_trains(" ".join(code[code.index(line) - 1].split()[1:])), folder, capsys)
    torchrun = [sys.executable, "-m", "torch.distributed.run", *shlex.split(line, comments=True)[1:]]
    ended = subprocess.run(torchrun, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    trained = RunFolder(outputs / "pretraining" / "wide").status()
    assert (trained.state, trained.step) == ("finished", 6)
