"""Measures models and judges the claims about attention sinks and norms on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, parts
from llmlab.core.records import from_plain
from llmlab.models.model import OpenModel, untrained_like
from llmlab.models.source import open_model
from llmlab.store.run_folder import RunFolder
from llmlab.studies.papers.attention_sinks.norms import norms_verdict
from llmlab.studies.papers.attention_sinks.plan import NORMS, POSITION, SINK, SIZES, Size
from llmlab.studies.papers.attention_sinks.position import candidates, position_verdict, put_first
from llmlab.studies.papers.attention_sinks.reading import FirstTokens, Found, Reading, read
from llmlab.studies.papers.attention_sinks.sink import sink_verdict
from llmlab.studies.papers.attention_sinks.thresholds import UNTRAINED_MODELS
from llmlab.studies.papers.interface import Check, Questions, ask_models
from llmlab.studies.papers.prompts import Prompts, draw_prompts
from llmlab.studies.papers.records import Verdict
from llmlab.studies.plans.records import Trial

# Fewer tokens leave the first one little to stand out from.
_LEAST_TOKENS = 16


def measure(check: Check, trial: Trial, run: RunFolder) -> dict[str, Any]:
    """Nothing: this paper's plan has no runs."""
    return {}


def early(check: Check) -> list[Verdict]:
    """None: models are opened once all is ready."""
    return []


def late(check: Check) -> Iterator[Verdict]:
    """Each model is measured once, for all claims; then they are judged."""
    found, refused = ask_models(check, lambda reference, asked: _Model(check, reference, asked).questions)
    for claim, judge in {SINK: sink_verdict, POSITION: position_verdict, NORMS: norms_verdict}.items():
        if claim in check.claims:
            yield judge(found[claim], refused[claim])


class _Model:
    """One model of a check: opened when the first thing about it is not known yet."""

    def __init__(self, check: Check, reference: str, asked: Progress) -> None:
        """asked: is told how much of all that is asked of it is known."""
        self._check, self._reference = check, reference
        self._size: Size = SIZES[check.size]
        self._parts = parts(self._size.seconds(check.claims), asked)  # opening, texts, random weights, first tokens

    @property
    def questions(self) -> Questions[Found]:
        """LabError when it cannot be opened or watched, or models with random weights do not fit beside it."""
        return {(SINK, NORMS): self._on_texts, (POSITION,): self._with_first_tokens}

    def _on_texts(self) -> Found:
        parameters = self._parameters
        text = from_plain(Reading, self._kept("text", self._text))
        untrained = tuple(
            from_plain(Reading, self._kept(f"random weights {seed}", partial(self._untrained, seed)))
            for seed in range(UNTRAINED_MODELS)
        )
        return Found(self._reference, parameters, text, untrained)

    def _with_first_tokens(self) -> Found:
        parameters, first = self._parameters, self._kept("first tokens", self._first)
        return Found(self._reference, parameters, first=from_plain(FirstTokens, first))

    @property
    def _parameters(self) -> int:
        return int(self._kept("about", lambda: {"parameters": self._opened.parameters})["parameters"])

    @cached_property
    def _opened(self) -> OpenModel:
        return open_model(self._reference, self._check.outputs, self._progress("opening", 0))

    def _text(self) -> dict[str, Any]:
        return asdict(read(self._opened.model, self._prompts(self._size.texts), self._progress("reading prompts", 1)))

    def _untrained(self, seed: int) -> dict[str, Any]:
        say = self._progress(f"random weights, {seed + 1} of {UNTRAINED_MODELS}", 2 + seed)
        say("", 0, 0)
        fresh = untrained_like(self._opened.model, seed)
        return asdict(read(fresh, self._prompts(self._size.untrained), say))

    def _first(self) -> dict[str, Any]:
        tokens, prompts = candidates(self._opened.tokenizer), self._prompts(self._size.first)
        return asdict(put_first(self._opened.model, prompts, tokens, self._progress("other first tokens", -1)))

    def _prompts(self, each: int) -> Prompts:
        """As long as the size says, or as the model can read."""
        tokens = min(self._size.tokens, self._opened.anatomy.context)
        if tokens < _LEAST_TOKENS:
            raise LabError(f"It reads at most {tokens} tokens.", f"The test needs {_LEAST_TOKENS}.")
        return draw_prompts(self._opened.tokenizer, tokens, each)

    def _kept(self, part: str, make: Any) -> dict[str, Any]:
        return self._check.kept(f"{self._reference} {part}", make)

    def _progress(self, what: str, part: int) -> Progress:
        return self._check.telling(f"{self._reference}: {what}", self._parts[part])
