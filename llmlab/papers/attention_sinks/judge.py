"""Measures models and judges the claims about attention sinks and norms on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from typing import Any

from llmlab.errors import LabError
from llmlab.experiments.records import Arm
from llmlab.papers.attention_sinks.findings import Found
from llmlab.papers.attention_sinks.first_tokens import FirstTokens, candidates, put_first
from llmlab.papers.attention_sinks.plan import NORMS, POSITION, SINK, SIZES, Size
from llmlab.papers.attention_sinks.reading import Reading, read
from llmlab.papers.attention_sinks.thresholds import UNTRAINED_MODELS
from llmlab.papers.attention_sinks.verdicts import norms_verdict, position_verdict, sink_verdict
from llmlab.papers.judging import Check
from llmlab.papers.prompts import Prompts, draw_prompts
from llmlab.papers.records import Verdict
from llmlab.papers.untrained import untrained_like
from llmlab.progress import Progress
from llmlab.records import from_plain
from llmlab.runs.folder import RunFolder
from llmlab.sessions.memory import give_back
from llmlab.sessions.model import OpenModel
from llmlab.sessions.open import open_model

# Fewer tokens leave the first one little to stand out from.
_LEAST_TOKENS = 16


def measure(check: Check, arm: Arm, run: RunFolder) -> dict[str, Any]:
    """Nothing: this paper's plan has no runs."""
    return {}


def early(check: Check) -> list[Verdict]:
    """None: models are opened once all is ready."""
    return []


def late(check: Check) -> Iterator[Verdict]:
    """Each model is measured once, for all claims; then they are judged."""
    found, refused = [], {}
    for reference in check.models:
        try:
            found.append(_Model(check, reference).found())
        except LabError as error:
            refused[reference] = " ".join(part for part in (error.what, error.why) if part)
        give_back()
    for claim, judge in {SINK: sink_verdict, POSITION: position_verdict, NORMS: norms_verdict}.items():
        if claim in check.claims:
            yield judge(found, refused)


class _Model:
    """One model of a check: opened when the first thing about it is not known yet."""

    def __init__(self, check: Check, reference: str) -> None:
        self._check, self._reference = check, reference
        self._size: Size = SIZES[check.size]

    def found(self) -> Found:
        """All that the claims ask. LabError when it cannot be opened, or its attention cannot be watched."""
        about = self._kept("about", lambda: {"parameters": self._opened.parameters})
        text, first = None, None
        untrained: list[Reading] = []
        if {SINK, NORMS} & {*self._check.claims}:
            text = from_plain(Reading, self._kept("text", self._text))
            untrained = [
                from_plain(Reading, self._kept(f"random weights {seed}", lambda seed=seed: self._untrained(seed)))
                for seed in range(UNTRAINED_MODELS)
            ]
        if POSITION in self._check.claims:
            first = from_plain(FirstTokens, self._kept("first tokens", self._first))
        return Found(self._reference, about["parameters"], text, tuple(untrained), first)

    @cached_property
    def _opened(self) -> OpenModel:
        return open_model(self._reference, self._check.outputs, self._progress("opening"))

    def _text(self) -> dict[str, Any]:
        return asdict(read(self._opened.model, self._prompts(self._size.texts), self._progress("reading prompts")))

    def _untrained(self, seed: int) -> dict[str, Any]:
        say = self._progress(f"random weights, {seed + 1} of {UNTRAINED_MODELS}")
        say("", 0, 0)
        fresh = untrained_like(self._opened.model, seed)
        return asdict(read(fresh, self._prompts(self._size.untrained), say))

    def _first(self) -> dict[str, Any]:
        tokens = candidates(self._opened.tokenizer)
        say = self._progress("other first tokens")
        return asdict(put_first(self._opened.model, self._prompts(self._size.first), tokens, say))

    def _prompts(self, each: int) -> Prompts:
        """As long as the size says, or as the model can read."""
        tokens = min(self._size.tokens, self._opened.anatomy.context)
        if tokens < _LEAST_TOKENS:
            raise LabError(f"It reads at most {tokens} tokens.", f"The test needs {_LEAST_TOKENS}.")
        return draw_prompts(self._opened.tokenizer, tokens, each)

    def _kept(self, part: str, make: Any) -> dict[str, Any]:
        return self._check.kept(f"{self._reference} {part}", make)

    def _progress(self, what: str) -> Progress:
        return lambda _, done, total: self._check.progress(f"{self._reference}: {what}", done, total)
