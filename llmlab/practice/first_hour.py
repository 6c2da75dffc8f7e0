"""What pages of the first hour ask of the reader's own: the model (its answers are quoted on the page), the fine-tuned
one, and the check of a claim."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath
from random import Random
from typing import Any

import torch

from llmlab.anatomy.capture import run
from llmlab.core.errors import LabError
from llmlab.core.files import read_json
from llmlab.core.kinds import PAPERS
from llmlab.inspection.intervening import Interventions, parse_intervention, require_intervention
from llmlab.practice.kinds import Facts, Found, NothingToAsk, choice, ordered
from llmlab.practice.readings import by_head, most_likely_next, needed, settled_after, text_of_id, token
from llmlab.practice.subject import Subject
from llmlab.store.events import Scored

_PROMPT = "I pray you, sir, I pray"


def first_look(subject: Subject, random: Random) -> Found:
    with subject.reading(_PROMPT):
        settled = settled_after(subject, random)
        return replace(settled, facts=settled.facts | most_likely_next(subject, random).facts)


def first_look_back(subject: Subject, random: Random) -> Found:
    with subject.reading(_PROMPT):
        ids = subject.seen.metadata.token_ids
        expected = int(needed(subject, "lens/ids")[-1, -1, 0])
        before = [position for position, id in enumerate(ids[:-1]) if id == expected]
        if not before:
            raise NothingToAsk("What it expects did not stand in the text before.")
        scores = by_head(needed(subject, "heads/previous"))
        rows = {pair: subject.seen[f"attention/{pair[0]}"][pair[1], -1] for pair in scores}
        count = sum(int(row.argmax()) in before for row in rows.values())
        best = max(scores, key=lambda pair: scores[pair])
        facts = {
            "token": text_of_id(subject, expected),
            "heads": len(rows),
            "count": count,
            "head": f"{best[0]}.{best[1]}",
            "weight": rows[best][-2],
            "before": token(subject, len(ids) - 2),
            "without": _without(subject, best, expected),
        }
        return ordered(min(count, 2), prompt=subject.prompt, **facts)


def _without(subject: Subject, head: tuple[int, int], id: int) -> str:
    """What becomes of a token's probability without a head; "" where that head cannot be taken away."""
    opened = subject.opened
    ids = torch.tensor([subject.seen.metadata.token_ids])
    change = parse_intervention(f"zero head:{head[0]}.{head[1]}")
    try:
        require_intervention(opened.anatomy, change)
    except LabError:
        return ""
    shares = [
        float(run(opened.model, opened.anatomy, ids, (), made)[0, -1].float().softmax(-1)[id])
        for made in ([], [Interventions([change], ids.shape[1])])
    ]
    return (
        f" Without that head (zero ablation) {text_of_id(subject, id)} goes from {100 * shares[0]:.2f} % "
        f"to {100 * shares[1]:.2f} %."
    )


def _scored(subject: Subject) -> Scored:
    """The held-out items as the run answered them at its end."""
    scores = subject.history.scores if subject.run is not None else []
    if len(scores) < 2:
        raise NothingToAsk("It was not asked about held-out items before and after.")
    return scores[-1]


def first_answers_right(subject: Subject, random: Random) -> Found:
    last = _scored(subject)
    by_mark = {mark: [item for item in last.items if item["right"] is mark] for mark in (True, False)}
    if not by_mark[True]:
        raise NothingToAsk("It answered none right.")
    right, wrong = random.choice(by_mark[True]), random.sample(by_mark[False], min(3, len(by_mark[False])))
    gave = (f"“{item['prompt']}”: “{str(item['answer']).strip()}”, not “{item['expected']}”." for item in wrong)
    facts: Facts = {"total": last.total, "correct": last.correct, "expected": right["expected"]}
    prompts = [str(item["prompt"]) for item in wrong]
    return choice(random, str(right["prompt"]), prompts, others=" ".join(gave), **facts)


def first_answers_form(subject: Subject, random: Random) -> Found:
    last = _scored(subject)
    wrong = [(str(item["answer"]).split(), str(item["expected"]).split()) for item in last.items if not item["right"]]
    if not wrong:
        raise NothingToAsk("It answered all right.")
    alike, every = sum(len(answer) == len(expected) for answer, expected in wrong), len(wrong)
    losses = subject.history.evaluations["val_loss"]
    facts: Facts = {"wrong": every, "total": last.total, "alike": alike, "first": losses[0], "last": losses[-1]}
    return ordered(_of_all(alike, every), **facts)


def _of_all(count: int, every: int) -> int:
    """Which of: none, fewer than half, half or more, all."""
    return 0 if not count else 3 if count == every else 1 if 2 * count < every else 2


def _sink(subject: Subject) -> dict[str, Any]:
    """The verdict on the first hour's model, of its newest check, as verdict.json has it."""
    found = []
    for path in (subject.outputs / PAPERS).glob("*/verdict.json"):
        result = read_json(path) or {}
        models = [PurePath(one.rpartition("@")[0]).name for one in result.get("models", ())]
        if result.get("paper") == "attention-sinks" and models == ["first-gpt"]:
            verdicts = (one for one in result["verdicts"] if one["claim"] == "sink" and one["interval"])
            found += [(path.stat().st_mtime, one) for one in verdicts]
    if not found:
        raise NothingToAsk("The claim was not checked.")
    return max(found, key=lambda pair: pair[0])[1]


def first_check_layers(subject: Subject, random: Random) -> Found:
    verdict = _sink(subject)
    shares, uniform = verdict["charts"][0]["series"][0]["y"], verdict["evidence"]["uniform"]
    above = sum(share > uniform for share in shares)
    by_layer = ", ".join(f"{100 * share:.1f} %" for share in shares)
    facts: Facts = {"uniform": 100 * uniform, "layers": len(shares), "above": above, "by_layer": by_layer}
    return ordered(_of_all(above, len(shares)), **facts)


def first_check_bound(subject: Subject, random: Random) -> Found:
    verdict = _sink(subject)
    scale = 1 if verdict["statistic"]["unit"] == "%" else 100
    low, high, mean = (scale * value for value in (*verdict["interval"], verdict["statistic"]["value"]))
    right = f"{low:.2f} %, the lower end of its interval"
    wrong = (
        f"{mean:.2f} %, the mean",
        f"{high:.2f} %, the upper end of its interval",
        f"{100 * verdict['evidence']['uniform']:.2f} %, what uniform attention gives",
    )
    facts: Facts = {"mean": mean, "n": verdict["n"], "verdict": verdict["verdict"], "threshold": verdict["threshold"]}
    return choice(random, right, wrong, **facts)
