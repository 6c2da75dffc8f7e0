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
from llmlab.practice.kinds import MODEL, NOTHING, Draft, NothingToAsk, choice, kind, ordered
from llmlab.practice.question import CHECK, FINE_TUNE, KNOW, LOOK_INSIDE, PREDICT, READ
from llmlab.practice.readings import about, by_head, needed, settled_after, text_of_id, token
from llmlab.practice.subject import Subject
from llmlab.store.events import Scored

_PROMPT = "I pray you, sir, I pray"


@kind("first-look", LOOK_INSIDE, READ, "lens", MODEL)
def first_look(subject: Subject, random: Random) -> Draft:
    with subject.reading(_PROMPT):
        draft = settled_after(subject, random)
        ids, share = (needed(subject, f"lens/{name}")[-1, -1] for name in ("ids", "probability"))
        ends = f"At the end {text_of_id(subject, ids[0])} has {100 * share[0]:.2f} %, and "
        ends += f"{text_of_id(subject, ids[1])} follows with {100 * share[1]:.2f} %."
        return replace(draft, how=f"{draft.how} {ends}")


@kind("first-look-back", LOOK_INSIDE, READ, "attention", MODEL)
def first_look_back(subject: Subject, random: Random) -> Draft:
    with subject.reading(_PROMPT):
        ids = subject.seen.metadata.token_ids
        expected = int(needed(subject, "lens/ids")[-1, -1, 0])
        before = [position for position, id in enumerate(ids[:-1]) if id == expected]
        if not before:
            raise NothingToAsk("What it expects did not stand in the text before.")
        scores = by_head(needed(subject, "heads/previous"))
        rows = {pair: subject.seen[f"attention/{pair[0]}"][pair[1], -1] for pair in scores}
        count = sum(int(row.argmax()) in before for row in rows.values())
        marks = ("none", "one", "two or more")
        answer = text_of_id(subject, expected)
        text = (
            f"{about(subject)} It expects {answer}, which stood there before. How many of its {len(rows)} heads attend "
            f"from the last token to an earlier {answer} more than to anything else?"
        )
        best = max(scores, key=lambda pair: scores[pair])
        how = (
            f"In the last row of its pattern, {count} of {len(rows)} heads have their largest weight at an earlier "
            f"{answer}. Head {best[0]}.{best[1]} attends most to the token "
            f"before: there {rows[best][-2]:.2f} to {token(subject, len(ids) - 2)}. {_without(subject, best, expected)}"
        )
        return ordered(text, marks, marks[min(count, 2)], how.strip(), prompt=subject.prompt)


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
        f"Without that head (zero ablation) {text_of_id(subject, id)} goes from {100 * shares[0]:.2f} % "
        f"to {100 * shares[1]:.2f} %."
    )


def _scored(subject: Subject) -> Scored:
    """The held-out items as the run answered them at its end."""
    scores = subject.history.scores if subject.run is not None else []
    if len(scores) < 2:
        raise NothingToAsk("It was not asked about held-out items before and after.")
    return scores[-1]


@kind("first-answers-right", FINE_TUNE, PREDICT, "samples", MODEL)
def first_answers_right(subject: Subject, random: Random) -> Draft:
    last = _scored(subject)
    by_mark = {mark: [item for item in last.items if item["right"] is mark] for mark in (True, False)}
    if not by_mark[True]:
        raise NothingToAsk("It answered none right.")
    right, wrong = random.choice(by_mark[True]), random.sample(by_mark[False], min(3, len(by_mark[False])))
    text = (
        f"{subject.name} was asked {last.total} held-out questions at its end, and answered "
        f"{last.correct} right. Which of these is one of them?"
    )
    gave = (f"“{item['prompt']}”: “{str(item['answer']).strip()}”, not “{item['expected']}”." for item in wrong)
    how = f"It answered “{right['expected']}”. {' '.join(gave)}"
    return choice(random, text, str(right["prompt"]), [str(item["prompt"]) for item in wrong], how)


@kind("first-answers-form", FINE_TUNE, READ, "samples", MODEL)
def first_answers_form(subject: Subject, random: Random) -> Draft:
    last = _scored(subject)
    wrong = [(str(item["answer"]).split(), str(item["expected"]).split()) for item in last.items if not item["right"]]
    if not wrong:
        raise NothingToAsk("It answered all right.")
    alike, every = sum(len(answer) == len(expected) for answer, expected in wrong), len(wrong)
    losses = subject.history.evaluations["val_loss"]
    text = (
        f"{subject.name} answered {every} of {last.total} held-out questions wrong at its end. How many of these "
        "answers have at least the form, as many words as the right one?"
    )
    fell = f"The validation loss went from {losses[0]:.3f} to {losses[-1]:.3f} nats: form counts in it."
    return _of_all(text, alike, every, f"{alike} of {every}. {fell}")


def _of_all(text: str, count: int, every: int, how: str) -> Draft:
    marks = ("none", "fewer than half", "half or more", "all")
    return ordered(text, marks, marks[0 if not count else 3 if count == every else 1 if 2 * count < every else 2], how)


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


@kind("first-check-layers", CHECK, READ, "evidence", NOTHING)
def first_check_layers(subject: Subject, random: Random) -> Draft:
    verdict = _sink(subject)
    shares, uniform = verdict["charts"][0]["series"][0]["y"], verdict["evidence"]["uniform"]
    above = sum(share > uniform for share in shares)
    text = (
        f"Uniform attention would give the first token {100 * uniform:.1f} %. In how many of the {len(shares)} layers "
        "of first-gpt does it get more than that, on average over heads?"
    )
    by_layer = ", ".join(f"{100 * share:.1f} %" for share in shares)
    return _of_all(text, above, len(shares), f"{above} of {len(shares)}. Layer by layer: {by_layer}.")


@kind("first-check-bound", CHECK, KNOW, "claims", NOTHING)
def first_check_bound(subject: Subject, random: Random) -> Draft:
    verdict = _sink(subject)
    (low, high), mean = verdict["interval"], verdict["statistic"]["value"]
    text = (
        f"In the upper half of its layers first-gpt gave the first token {100 * mean:.2f} % of the attention, the mean "
        f"of {verdict['n']} prompts. The claim is {verdict['verdict']}. "
        "Which number has to lie above the bound for “supported”?"
    )
    right = f"{100 * low:.2f} %, the lower end of its interval"
    wrong = (
        f"{100 * mean:.2f} %, the mean",
        f"{100 * high:.2f} %, the upper end of its interval",
        f"{100 * verdict['evidence']['uniform']:.2f} %, what uniform attention gives",
    )
    return choice(random, text, right, wrong, f"The rule, fixed before the check: {verdict['threshold']}.")
