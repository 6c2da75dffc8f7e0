"""Numbers of pages that come from runs stand in what the runs gave: the lab's reports, and the results of the pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import exp, log
from statistics import mean, stdev
from typing import Any

from cases import each
from page_runs import FILE, trials_of

from llmlab.core.paths import resources_dir
from llmlab.data.papers import read_paper

_ROOT = resources_dir()
# A page that sums up, and where its reports are; of a part without a link of its own, the report of the page.
_SUMMARIES = {
    "results/learnings": "",
    "results/experiments": "",
    "results/papers": "",
    "papers/attention-sinks/notes": "results/papers/attention-sinks",
    "papers/bayesian-geometry/notes": "results/papers/bayesian-geometry",
    "papers/grokking/notes": "results/papers/grokking",
}
_OUTCOMES = re.compile(r"^## What (?:came out|was found)\n(.*)", re.MULTILINE | re.DOTALL)
_SAID = re.compile(r"(?<![\w.])(\d+\.\d+|\d+(?:\.\d+)?(?= %))(?![\w.])(?!/)")
_LOSS = re.compile(r"(?<![\w.])\d+\.\d{3,4}(?![\w.])")  # three digits or more: a loss, or a difference of two
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")
_CODE_OR_ADDRESS = re.compile(r"`[^`]*`|\]\([^)]*\)")


def is_among(said: str, values: Iterable[float]) -> bool:
    """Whether one of them, or a hundred times that, is written so."""
    digits = len(said.partition(".")[2])
    return any(said in (f"{abs(value):.{digits}f}", f"{100 * abs(value):.{digits}f}") for value in values)


def numbers_of(report: str) -> list[float]:
    text = (_ROOT / f"{report}/report.md").read_text(encoding="utf-8")
    return [float(number.replace(",", "")) for number in _NUMBER.findall(text)]


def losses(experiment: str, **wanted: object) -> list[float]:
    """The validation losses of an experiment's trials that have these values, in the order of their seeds."""
    trials = json.loads((_ROOT / f"results/experiments/{experiment}/results.json").read_text(encoding="utf-8"))["arms"]
    chosen = [trial for trial in trials if all(trial[name] == value for name, value in wanted.items())]
    return [trial["val_loss"] for trial in sorted(chosen, key=lambda trial: trial["seed"])]


def derived() -> dict[str, list[float]]:
    """What the pages compute from a result, by its report."""
    one, four = (losses("depth", x=layers) for layers in (1.0, 4.0))
    pairs = [b - a for a, b in zip(one, four, strict=True)]
    least, *rest = (
        mean(losses("lora-rank", group=group, x=rank))
        for group, rank in (("all", 1.0), ("all", 64.0), ("attention", 64.0), ("feed_forward", 64.0))
    )
    return {
        "results/experiments/depth": [2.776 * stdev(pairs) / len(pairs) ** 0.5],  # Student's t, 4 degrees of freedom
        "results/experiments/lora-rank": [least, least - rest[0], rest[1] - rest[0], rest[2] - rest[0]],
    }


def parts_of(page: str) -> list[tuple[list[str], str]]:
    """The reports that each paragraph, row or section of a summary rests on, and its words."""
    text = (_ROOT / f"{page}.md").read_text(encoding="utf-8")
    if _SUMMARIES[page]:
        (outcomes,) = _OUTCOMES.findall(text)
        return [([_SUMMARIES[page]], outcomes.partition("\n## ")[0])]
    pieces = text.split("\n## ") if page == "results/papers" else re.split(r"\n\s*\n|\n(?=\| )", text)
    found = [(re.findall(r"\(((?:experiments|papers)/[\w-]+)/report\.md\)", piece), piece) for piece in pieces]
    return [([f"results/{name}" for name in names], piece) for names, piece in found if names]


@each("page", _SUMMARIES)
def test_what_a_summary_says_stands_in_its_reports(page: str) -> None:
    missing = []
    for reports, words in parts_of(page):
        values = [value for report in reports for value in (*numbers_of(report), *derived().get(report, ()))]
        said = _SAID.findall(_CODE_OR_ADDRESS.sub("", words))
        missing += [(number, reports) for number in said if not is_among(number, values)]
    assert missing == []


_RUNS: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["runs"]
_OF_STEPS = ("batch_loss", "gradient_norm")  # so many that one is always near: what pages say of them is in `COMPUTED`
_TOLD_ELSEWHERE = re.compile(r"\]\(concept:([\w-]+)\)")
_REPORT = re.compile(r"\]\(concept:(results/[\w/-]+)/report\)")


def numbers_in(found: object) -> Iterator[float]:
    """All numbers of a record, also those that a command printed."""
    if isinstance(found, str):
        yield from (float(number.replace(",", "")) for number in _NUMBER.findall(found))
    elif isinstance(found, dict):
        yield from (number for name, part in found.items() if name not in _OF_STEPS for number in numbers_in(part))
    elif isinstance(found, list):
        yield from (number for part in found for number in numbers_in(part))
    elif isinstance(found, (int, float)):
        yield float(found)


def numbers_of_page(page: str) -> list[float]:
    """What the commands of a page measured, and what it computes from that."""
    commands = [words for _, trial in trials_of(page) for words in trial]
    return [
        *numbers_in(commands),
        *numbers_in([_RUNS.get(words, {}) for words in commands]),
        *numbers_in(_RUNS.get(page, {})),  # of `page_measures`
        *(COMPUTED[page]() if page in COMPUTED and set(commands) <= set(_RUNS) else ()),
        95,  # per cent, of confidence
    ]


_SHORT = "pretrain --steps 300 --set train.eval_interval=100"
_LETTERS = 5_053_163 / 1_856_712  # all of Shakespeare's, by the tokens of `data.tokenizer=bpe`
_CONSTANT = " --set train.schedule=constant --set train.eval_interval=25"
_NARROW = "finetune --model base@final --set lora.rank=1 --set lora.alpha=2 --name rank-one"
_SWIGLU = f"{_SHORT} --set model.activation=swiglu"


def _run(words: str) -> dict[str, Any]:
    """The run whose command ends so."""
    return next(run for command, run in _RUNS.items() if command.endswith(words))


def _end(words: str) -> float:
    """The validation loss at a run's end."""
    return float([*_RUNS[words]["validation"].values()][-1])


def _batches(words: str) -> list[float]:
    losses: list[float] = _RUNS[words]["batch_loss"]
    return losses


def _gradients() -> list[float]:
    """The first steps' lengths with two and twelve blocks; how much longer six times as many weights would make it."""
    return [*(_RUNS[f"pretrain --steps 1 --set model.n_layer={n}"]["gradient_norm"][0] for n in (2, 12)), 6**0.5]


def _branch() -> list[float]:
    """How far the branch's training losses are below the parent's: in steps 211 to 220, 231 to 250, the last fifty."""
    interval = "--set checkpoints.interval=100 --set checkpoints.keep_last=3 --set train.eval_interval=50"
    parent = _batches(f"pretrain --steps 300 {interval} --name parent")[200:]
    branch = _batches("pretrain --from parent@200 --set train.learning_rate=1e-4 --name branch")
    pairs = [a - b for a, b in zip(parent, branch, strict=True)]
    return [mean(pairs[10:20]), mean(pairs[30:50]), mean(pairs[50:])]


def _stability() -> list[float]:
    """Of each rate the loss of the last step, and how many steps it rose in."""
    found = []
    for words, run in _RUNS.items():
        if "data.train_tokens=769" in words:
            losses = run["batch_loss"]
            found += [losses[-1], sum(b > a for a, b in pairwise(losses))]
    return found


def _seeds() -> list[float]:
    """Both activations with five seeds: differences, means, standard deviations and 95 % intervals."""
    gelu, swiglu = ([_end(f"{words} --seed {seed}") for seed in range(1, 6)] for words in (_SHORT, _SWIGLU))
    pairs = [a - b for a, b in zip(gelu, swiglu, strict=True)]
    spread = ((stdev(gelu) ** 2 + stdev(swiglu) ** 2) / 5) ** 0.5
    of_all = [number for values in (gelu, swiglu, pairs) for number in (mean(values), stdev(values))]
    # Student's t for 7.6 degrees of freedom, Welch's, and for 4.
    return [*pairs, *of_all, 2.33 * spread, 2.776 * stdev(pairs) / 5**0.5, _end(_SHORT) - _end(_SWIGLU)]


def _power_law() -> list[float]:
    """Three losses, each with four times the parameters, as a power law with a floor; what it predicts, and missed."""
    widths = (" --set model.n_embd=32", " --set model.n_embd=64", "", " --set model.n_embd=256")
    one, two, three, four = (_end(f"{_SHORT}{width}") for width in widths)
    ratio = (two - three) / (one - two)
    predicted = three - (two - three) * ratio
    return [ratio, three - (two - three) * ratio / (1 - ratio), -log(ratio, 4), predicted, predicted - four]


def _rates() -> list[float]:
    """Of high rates the training losses that the page names."""
    bare = "pretrain --steps 200 --set train.eval_interval=50 --set train.learning_rate="
    cold = _batches(f"{bare}1e-2 --set train.warmup_steps=0")
    return [_batches(f"{bare}1e-1")[7], cold[3], cold[5], mean(cold[6:24]), _batches(f"{bare}1e-2")[23], *_lines()]


def _scores() -> list[float]:
    """How far outside the first range was; the Brier score of 80 %, and the interval scores of both ranges."""
    beyond = _end("pretrain --steps 300 --name later") - 2.2
    return [beyond, 0.8**2, 0.3 + beyond * 2 / 0.2, 0.06]


def _lines() -> list[float]:
    """What knowing nothing and knowing only the letters' frequencies cost."""
    return [*numbers_in(_RUNS[_SHORT]["printed"])]


def _parts() -> list[float]:
    """The shares of the stream by part, and how far two norms' training losses are apart at most."""
    shares = [sum(_run("--out stream")[f"contributions/share/{part}"]) for part in ("attention", "feed_forward")]
    norms = zip(_batches(_SHORT), _batches(f"{_SHORT} --set model.norm=rmsnorm"), strict=True)
    return [*shares, max(abs(a - b) for a, b in norms)]


COMPUTED: dict[str, Callable[[], list[float]]] = {
    "backpropagation": _gradients,
    "checkpoints": _branch,
    "distillation": lambda: [0.5],  # the temperature of the command that writes the text
    "edge-of-stability": _stability,
    "experiments": _seeds,
    "optimisation": _rates,
    "loss": _lines,
    "lora": lambda: [_end(_NARROW) - _end("finetune --model base@final --name adapted")],
    "mixed-precision": lambda: [2.0**-8],  # half of the smallest step
    "predicting": _scores,
    "quantisation": lambda: [_RUNS["quantisation"]["off"] ** 2],
    "residual-stream": _parts,
    "scaling-laws": _power_law,
    "tokens": lambda: [_LETTERS, _end(f"{_SHORT} --set data.tokenizer=bpe") / _LETTERS],
}


@each("page", sorted(path.stem for path in (_ROOT / "concepts").glob("*.md")))
def test_what_a_page_tells_of_its_runs_is_what_they_measured(page: str) -> None:
    missing = []
    for block, commands in trials_of(page):
        if not set(commands) <= set(_RUNS):
            continue
        values = numbers_of_page(page)
        values += [number for other in _TOLD_ELSEWHERE.findall(block) for number in numbers_of_page(other)]
        values += [number for report in _REPORT.findall(block) for number in numbers_of(report)]
        said = _SAID.findall(_CODE_OR_ADDRESS.sub("", block))
        losses = [float(number) for number in said if _LOSS.fullmatch(number)]
        between = [a - b for a, b in combinations(losses, 2)]
        missing += [number for number in said if not is_among(number, (*values, *between))]
    assert missing == []


def _noise(words: str) -> Iterator[float]:
    return (float(line.split()[1]) for line in _RUNS[words]["printed"] if line.startswith("noise_scale"))


@dataclass(frozen=True)
class Text:
    """Shakespeare in one tokenizer's tokens, and what knowing only their frequencies costs."""

    vocabulary: int
    tokens: int
    unigram: float


def quoted() -> dict[str, list[str]]:
    """What pages count of their runs, or quote of another page's."""
    right = {words.split()[-1]: f"{run['right'][-1]} of 32" for words, run in _RUNS.items() if "right" in run}
    neurons = ", ".join(str(on) for on in _RUNS["mixtures-of-experts"]["on"])
    *rises, last = (f"{rises:.0f}" for rises in _stability()[::-2])
    tiny = _RUNS["pretrain --corpus tiny --steps 600 --set data.tokenizer=compact" + _CONSTANT]["validation"]
    stories, seen, lens = _run("--name stories")["validation"], _run("--out patterns"), _run("--out lens")
    rows = zip(*(lens[f"lens/{name}"] for name in ("rank", "target_probability")), strict=True)
    needle = _RUNS["long-context"]
    (pip,) = re.findall(r"Next: ' Pip' (\d+\.\d+ %)", "".join(seen["printed"]))
    noise = [round(next(_noise(f"experiment loss-curves {name} --name {name}-noise"))) for name in ("early", "later")]
    (sha,) = re.findall(
        r"model.safetensors .* sha256 (\w+)", "".join(_RUNS["checkpoints straight inspect final"]["printed"][:3])
    )
    tasks, texts = _RUNS["chat-templates"], {name: Text(**text) for name, text in _RUNS["tokens"].items()}
    said, (outside, inside) = tasks["answer"], tasks["means"]
    others = tasks["counts"][0] * outside
    known = f"{_RUNS['fine-tuning']['frequencies']:.2f}"
    padding = {name: f"{100 * share:.0f} %" for name, share in tasks["padding"].items()}
    fast = "pretrain --steps 200 --set train.eval_interval=50 --set train.learning_rate=5e-3 --set train.schedule="
    ends = ("constant", "constant --set train.ema_decay=0.95", "linear --set train.min_learning_rate=0")
    jumping, averaged, decayed = (f"{_end(fast + end):.3f}" for end in ends)
    adapted, any_stream = _RUNS["lora"], _RUNS["lora, any stream"]
    base, whole, ground = (f"{any_stream[name]['loss']:.2f}" for name in ("base", "whole", "ground"))
    end = any_stream["base"]["end"]
    longer = any_stream["ground"]["rows"] / any_stream["base"]["rows"]
    least_rank, *_, most_rank = adapted["gains"]["growing"]
    matrices = [line.split() for line in _RUNS["adapter adapted@final"]["printed"][2:-1]]
    relative, effective = ([float(cells[place]) for cells in matrices] for place in (4, 5))
    ((axis, moved, random),) = re.findall(
        r"\(\|rho\| (\S+) with entropy,.* moves beliefs by (\S+) bits .* random axes move them by (\S+) \(medians",
        (_ROOT / "results/papers/bayesian-geometry/report.md").read_text(encoding="utf-8"),
    )
    *orders, longest = (f"{loss:.3f}" for loss in _RUNS["n-grams"]["losses"])
    return {
        "chat-templates": [
            f"{100 * tasks['in_answers'] / tasks['tokens']:.1f} % of the tokens are answers",
            f"the {tasks['counts'][0]:,} predicted tokens outside of answers is {outside:.2f}",
            f"that of the {tasks['counts'][1]} in answers {inside:.2f}",
            f"{100 * others / (others + tasks['counts'][1] * inside):.0f} % of the loss's sum",
            f'a loss of {said[0]:.1f} on "letter", and of {said[1]:.1f} on the end',
            f"that is {padding['16']} of all positions, and {padding['4']} in batches of 4",
            f"this leaves {padding['packed']} empty",
        ],
        "checkpoints": [f"had the hash `{sha[:12]}…`"],
        "comparing-models": [f"validation falls from {stories['500']:.3f} to {stories['1500']:.3f} nats"],
        "critical-batch-size": [f"noise scale was {noise[0]} sequences after 50 steps and {noise[1]} after 300"],
        "direct-attribution": [f'back to " Pip" with {100 * seen["attention/1"][0]:.0f} % of its weight'],
        "edge-of-stability": [f"it rose in {', '.join(rises)} and {last} of them"],
        "experiments": [f"{_end(_SHORT):.3f} and {_end(_SWIGLU):.3f}"],
        "fine-tuning": [
            *(f"| {right[name]} |" for name in ("adapted", "whole")),
            *(f"{words} {known}" for words in ("has a loss of", "on which side of", "token frequencies at")),
        ],
        "induction-heads": [f"names Pip with {pip}"],
        "lora": [
            f"with {right['lifted']} questions answered right",
            *(
                f"| {rank} | {256 * int(rank):,} | {loss:.4f} | {least:.4f} |"
                for (rank, loss), least in zip(adapted["losses"].items(), adapted["best"], strict=True)
            ),
            f"The answer is {base} nats per token. The end-of-text token costs at least {end:.2f}, "
            f"a probability of {100 * exp(-end):.0f} %",
            f"the same search gave {whole}.",
            f"its rows are {longer:.2f} times as long: the search above gives a lower bound of {ground} "
            f"instead of {base}",
            f"a step of rank 64 is {most_rank / least_rank:.0f} times that of rank 1",
            f"singular values {', '.join(f'{value:.2f}' for value in adapted['values'][:4])}, and then zeros",
            *(f"| {' | '.join(f'{gain:.5f}' for gain in gains)} |" for gains in adapted["gains"].values()),
            f"the effective rank was between {min(effective):.1f} and {max(effective):.1f}",
            f"The norms were {min(relative):.1f} to {max(relative):.1f} times",
        ],
        "logit-lens": [f"| {rank:.0f} | {probability:.2f} |" for rank, probability in rows],
        "long-context": [f"| {' | '.join(needle)} |", f"| {' | '.join(f'{right:.2f}' for right in needle.values())} |"],
        "loss": [f"| ln 50,257 = {log(50_257):.2f} | {texts['gpt2'].unigram:.2f} |"],
        "loss-curves": [f"the validation loss was lowest at step {min(tiny, key=tiny.__getitem__)} with"],
        "mixtures-of-experts": [f"{' and'.join(neurons.rsplit(',', 1))} of the 512 neurons were on"],
        "n-grams": [f"print {', '.join(orders)} and {longest} for n = 1 to {1 + len(orders)}"],
        "optimisation": [f"were {jumping}, {averaged} and {decayed}, in this order: the average"],
        "probes-and-steering": [
            f"([rank correlation](glossary:rank-correlation) {axis})",
            f"moved beliefs by {float(moved):.2f} bits, and random axes by {float(random):.2f}",
        ],
        "tokens": [
            *(f"| {text.vocabulary:,} |" for text in texts.values() if text.vocabulary > 84),
            f"has {texts['char'].tokens:,} tokens as characters, {texts['bpe'].tokens:,} with a vocabulary of 2,048",
            f"and {texts['gpt2'].tokens:,} with GPT-2's",
            f"a token is {texts['char'].tokens / texts['gpt2'].tokens:.2f} characters long on average",
        ],
    }


_WRITE = ("chat-templates", "sampling")  # pages that quote what a model wrote
_QUOTED = re.compile(r'"([^"]*)"')


def test_what_pages_count_and_quote_of_runs_is_what_these_did() -> None:
    pages = {page: (_ROOT / f"concepts/{page}.md").read_text(encoding="utf-8") for page in (*quoted(), *_WRITE)}
    assert [words for page, said in quoted().items() for words in said if words not in pages[page]] == []
    for page in _WRITE:
        for block, commands in trials_of(page):
            printed = " ".join(line for words in commands for line in _RUNS[words].get("printed", ()))
            for words in _QUOTED.findall(re.sub(r"`[^`]*`", "", block)):
                if len(words) > 8:
                    _, found, printed = printed.partition(words)  # in the order of the commands
                    assert found, f"{page}: {words}"


@each("paper", sorted(path.name for path in (_ROOT / "results/papers").iterdir()))
def test_a_report_quotes_the_claims_as_they_stand(paper: str) -> None:
    text = (_ROOT / f"results/papers/{paper}/report.md").read_text(encoding="utf-8")
    verdicts = json.loads((_ROOT / f"results/papers/{paper}/verdict.json").read_text(encoding="utf-8"))["verdicts"]
    judged = [read_paper(paper).claim(verdict["claim"]) for verdict in verdicts]
    assert judged
    quoted = [line for claim in judged for line in (f"## {claim.title}: ", f"The paper: {claim.statement}\n")]
    quoted += [f"- Contested: {claim.contested}\n" for claim in judged if claim.contested]
    assert [line for line in quoted if f"\n{line}" not in text] == []
