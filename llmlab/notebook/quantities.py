"""What a run, an experiment or a check of a paper can be asked about before it starts."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from llmlab.core.errors import UsageError, did_you_mean
from llmlab.data.papers import VERDICTS, read_paper

RUN, EXPERIMENT, CHECK = "run", "experiment", "check"
NUMBER, CHOICE, CURVE, TEXT = "number", "choice", "curve", "text"
_A = {RUN: "a run", EXPERIMENT: "an experiment", CHECK: "a check of a paper"}
STEPS_TO = "steps_to_"  # then a validation loss: steps_to_2.5
# Then a paper and the id of one of its claims: claim:bayesian-geometry/keys. So it is read without asking which check
# it belongs to, and stays readable when the paper is there no longer.
CLAIM = "claim:"


@dataclass(frozen=True)
class Quantity:
    """One thing that can be predicted.

    subject: run, experiment, check, or "" for all. answer: number, choice, curve or text. log: values are spread over
    orders of magnitude, so that distances are measured between logarithms. choices: all answers that there are, where
    they are known beforehand. by_hand: no program reads it from the result; the learner says what came.
    """

    name: str
    title: str
    subject: str
    answer: str = NUMBER
    unit: str = ""
    log: bool = False
    choices: tuple[str, ...] = ()
    by_hand: bool = False

    @property
    def label(self) -> str:
        """In a sentence: what it is; of a claim its id, since its paper's words are a sentence themselves."""
        return self.name.rpartition("/")[2] if self.name.startswith(CLAIM) else self.title


QUANTITIES: tuple[Quantity, ...] = (
    Quantity("val_loss", "final validation loss", RUN, unit="nats per token"),
    Quantity("best_val_loss", "lowest validation loss", RUN, unit="nats per token"),
    Quantity("best_step", "step of the lowest validation loss", RUN, unit="steps"),
    Quantity("train_loss", "final training loss", RUN, unit="nats per token"),
    Quantity("gap", "validation minus training loss at the end", RUN, unit="nats per token"),
    Quantity("overfits", "validation loss rises again by more than 1 %", RUN, CHOICE, choices=("yes", "no")),
    Quantity("tokens_per_second", "training tokens a second, over the whole run", RUN, unit="tokens/s", log=True),
    Quantity("minutes", "time spent training", RUN, unit="minutes", log=True),
    Quantity("score", "right answers after training", RUN, unit="%"),
    Quantity("score_before", "right answers before training", RUN, unit="%"),
    Quantity("loss_curve", "validation loss over the steps", RUN, CURVE, unit="nats per token"),
    Quantity("best_lr", "learning rate of the lowest loss", EXPERIMENT, CHOICE, log=True),
    Quantity("best_rank", "LoRA rank of the lowest loss", EXPERIMENT, CHOICE, log=True),
    Quantity("best", "varied value of the lowest loss", EXPERIMENT, CHOICE, log=True),
    Quantity("best_arm", "trial with the lowest loss", EXPERIMENT, CHOICE),
    Quantity("best_loss", "lowest loss (mean over the seeds of a value)", EXPERIMENT, unit="nats per token"),
    Quantity("spread", "loss of the worst finished trial minus the best", EXPERIMENT, unit="nats per token"),
    Quantity("diverged", "trials that diverge", EXPERIMENT, unit="trials"),
    Quantity("exponent", "exponent of the scaling law", EXPERIMENT),
    Quantity("next_loss", "loss of the next size", EXPERIMENT, unit="nats per token"),
    Quantity("forgotten", "loss on general text, after minus before", EXPERIMENT, unit="nats per token"),
    Quantity(
        "forgotten_full",
        "loss on general text, after minus before, of full fine-tuning",
        EXPERIMENT,
        unit="nats per token",
    ),
    Quantity("lora_to_full", "best LoRA learning rate over the best of full fine-tuning", EXPERIMENT, log=True),
    Quantity("speedup", "training time of the baseline over the record's", EXPERIMENT, log=True),
    Quantity("processes_gain", "tokens a second of the fastest, over one process", EXPERIMENT, log=True),
    Quantity("losses_difference", "largest relative difference from one process", EXPERIMENT, log=True),
    Quantity("spikes", "spikes of the training loss", EXPERIMENT),
    Quantity("overfitting_step", "step at which overfitting begins", EXPERIMENT, unit="steps", log=True),
    Quantity("noise_scale", "gradient noise scale", EXPERIMENT, unit="sequences", log=True),
    Quantity("layer", "layer where it happens (say what in words)", "", CHOICE, by_hand=True),
    Quantity("text", "in words", "", TEXT, by_hand=True),
)
_BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}


def quantities_of_runs(*, fine_tuned: bool = False) -> list[Quantity]:
    """What a run can be asked about, but for steps_to_LOSS, of which there are endlessly many.

    fine_tuned: it answers items that a program checks. (What an experiment can be asked about, its kind names.)
    """
    scores = ("score", "score_before")
    return [q for q in QUANTITIES if q.subject in (RUN, "") and (fine_tuned or q.name not in scores)]


def find_quantity(name: str) -> Quantity:
    """The quantity of that name. UsageError with the nearest names otherwise."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    target = steps_to(name)
    if target is not None:
        title = f"steps until the validation loss is {target:g}"
        return Quantity(name, title, RUN, unit="steps", log=True)
    if name.startswith(CLAIM):
        return claim_quantity(name)
    raise UsageError(
        f"Nothing named {name!r} can be predicted.",
        did_you_mean(name, [*_BY_NAME, STEPS_TO + "LOSS"], 3, 0.5),
        "`llmlab-run notebook quantities` lists what can be; anything else is a sentence: text=...",
    )


def claim_quantity(name: str) -> Quantity:
    """The verdict on a claim. UsageError for a name that is not written `claim:PAPER/ID`."""
    paper, _, claim = name.removeprefix(CLAIM).partition("/")
    if not name.startswith(CLAIM) or not paper or not claim:
        raise UsageError(f"{name!r} names no claim.", "", f"Write {CLAIM}bayesian-geometry/keys=supported@70%.")
    return Quantity(name, _title(paper, claim), CHECK, CHOICE, choices=VERDICTS)


@functools.cache
def _title(paper: str, claim: str) -> str:
    """The claim in its paper's words; its id where there is no such paper here."""
    try:
        return read_paper(paper).claim(claim).title
    except UsageError:
        return f"the claim {claim} of {paper}"


def require_askable(name: str, subject: str) -> None:
    """UsageError when a run is asked for what only an experiment or a check can answer, or the other way round."""
    quantity = find_quantity(name)
    if quantity.subject not in ("", subject):
        raise UsageError(
            f"{name} cannot be predicted of {_A[subject]}.",
            f"{quantity.title[:1].upper()}{quantity.title[1:]}: that is predicted of {_A[quantity.subject]}.",
            "`llmlab-run notebook quantities` lists what can be.",
        )


def steps_to(name: str) -> float | None:
    """The loss in `steps_to_2.5`; None for other names."""
    if not name.startswith(STEPS_TO):
        return None
    try:
        target = float(name.removeprefix(STEPS_TO))
    except ValueError:
        return None
    return target if math.isfinite(target) and target > 0 else None
