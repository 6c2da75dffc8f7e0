"""What the second page of the first hour asks, of the reader's own model: marked, and then quoted on the page."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import torch

from llmlab.anatomy.capture import run
from llmlab.core.errors import LabError
from llmlab.inspection.edits import Interventions, parse_intervention, require_intervention
from llmlab.practice.kinds import MODEL, Draft, NothingToAsk, kind, ordered
from llmlab.practice.question import LOOK_INSIDE, READ
from llmlab.practice.readings import about, by_head, needed, settled_after, text_of_id, token
from llmlab.practice.subject import Subject

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
