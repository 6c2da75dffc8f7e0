"""Changes that a walk can be asked with, each of one token, one number or one weight:

    token:3= king                    the token at position 3 is another one
    norm[5]=0.3                      a number of a stage is set, at the position that is walked
    weight:blocks.0.attention.out.weight[3,4]=0.1    one weight, for this pass alone

What can be set is in `llmlab.walk.stage.CHANGEABLE`: a component of a vector (of key and value at the position whose
score is written out), a score with one position (`score[2]=1`), a token's logit or probability, by its id.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from llmlab.core.errors import UsageError
from llmlab.inspection.questions import token_of
from llmlab.models.model import OpenModel
from llmlab.walk.stage import CHANGEABLE, Stage
from llmlab.walk.watched import number_in

_NUMBER = r"(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_TOKEN = re.compile(r"token:(?P<position>-?\d+)=(?P<text>.*)", re.DOTALL)
_WEIGHT = re.compile(rf"weight:(?P<name>[\w.]+)\[(?P<index>\d+(?:\s*,\s*\d+)?)\]\s*=\s*{_NUMBER}")
_VECTOR = re.compile(rf"(?P<stage>[a-z_]+)\[(?P<index>\d+)\]\s*=\s*{_NUMBER}")
_BARE = re.compile(rf"(?P<stage>[a-z_]+)\s*=\s*{_NUMBER}")
_LETTERS = {"q": "query", "k": "key", "v": "value"}  # as formulas call them
_LARGEST = 3e38  # of fp32
_FORMS = "A change is token:3= king, or a number such as norm[5]=0.3, or weight:blocks.0.attention.out.weight[3,4]=0.1."


@dataclass(frozen=True)
class Changes:
    """tokens: new text by position. vectors: (component, number) by stage. weights: (name, index, number)."""

    tokens: dict[int, str] = field(default_factory=dict)
    vectors: dict[str, tuple[int, float]] = field(default_factory=dict)
    weights: tuple[tuple[str, tuple[int, ...], float], ...] = ()

    def ids(self, opened: OpenModel, ids: Sequence[int]) -> list[int]:
        """The prompt with its tokens changed. UsageError for a position or a text that is none."""
        changed = list(ids)
        for position, text in self.tokens.items():
            if not -len(ids) <= position < len(ids):
                raise UsageError(f"The prompt has no token {position}.", f"It has {len(ids)}.")
            changed[position] = token_of(opened, text, "token")
        return changed

    def require(self, stages: Sequence[Stage]) -> None:
        """UsageError for a number that an unchanged walk does not have."""
        sizes = {
            (stage.name, value.name): len(value.array if value.whole is None else value.whole)
            for stage in stages
            for value in stage.values
        }
        for name, (component, number) in self.vectors.items():
            size = sizes.get(CHANGEABLE[name])
            if size is None:
                there = ", ".join(one for one, where in CHANGEABLE.items() if where in sizes)
                raise UsageError(f"This walk has no {name} that could be changed.", f"It has {there}.")
            if component >= size:
                raise UsageError(f"There is no {name}[{component}].", f"There are {size:,} numbers, from 0.")
            if name == "probabilities" and number < 0:
                raise UsageError(f"A probability cannot be {number:g}.", "It is 0 or more.")

    @contextlib.contextmanager
    def weights_changed(self, model: nn.Module) -> Iterator[None]:
        """While it lasts, weights are what the changes say. UsageError for one that is not there or is packed."""
        parameters, old = dict(model.named_parameters()), []
        with torch.no_grad():
            try:
                for name, index, value in self.weights:
                    parameter = parameters.get(name)
                    if parameter is None:
                        raise UsageError(f"The model has no weight {name}.", f"One is {next(iter(parameters))}.")
                    if not parameter.is_floating_point():
                        raise UsageError(f"{name} is quantized.", "Its numbers are packed, and cannot be changed.")
                    if len(index) != parameter.dim() or any(
                        i >= size for i, size in zip(index, parameter.shape, strict=True)
                    ):
                        raise UsageError(
                            f"{name} has no entry {list(index)}.", f"Its shape is {list(parameter.shape)}."
                        )
                    old.append((parameter, index, parameter[index].clone()))
                    parameter[index] = number_in(parameter, value)
                yield
            finally:
                for parameter, index, before in reversed(old):
                    parameter[index] = before


def parse_changes(texts: Sequence[str]) -> Changes:
    """Changes as they are written. UsageError, with the forms there are, for anything else."""
    tokens: dict[int, str] = {}
    vectors: dict[str, tuple[int, float]] = {}
    weights: list[tuple[str, tuple[int, ...], float]] = []
    for text in texts:
        if match := _TOKEN.fullmatch(text):
            tokens[int(match["position"])] = match["text"]
            continue
        if match := _WEIGHT.fullmatch(text.strip()):
            weights.append((match["name"], tuple(map(int, match["index"].split(","))), float(match["value"])))
        elif (match := _VECTOR.fullmatch(text.strip())) and (stage := _named(match)) in CHANGEABLE:
            if stage in vectors:
                raise UsageError(f"One number of {stage} is set already.", "A walk sets one of each stage.")
            vectors[stage] = int(match["index"]), float(match["value"])
        elif (match := _BARE.fullmatch(text.strip())) and (stage := _named(match)) in CHANGEABLE:
            do = f"Say which, such as {stage}[0]={match['value']}."
            raise UsageError(f"{text!r} does not say which number of {stage} is set.", "A stage has many.", do)
        else:
            raise UsageError(f"{text!r} is not a change.", f"{_FORMS} Numbers: {', '.join(CHANGEABLE)}.")
        if abs(float(match["value"])) > _LARGEST:
            raise UsageError(f"{text!r} sets a number that is too large.", "Nothing can be computed with it.")
    return Changes(tokens, vectors, tuple(weights))


def _named(match: re.Match[str]) -> str:
    """The stage, which may be called by its letter."""
    return _LETTERS.get(match["stage"], match["stage"])
