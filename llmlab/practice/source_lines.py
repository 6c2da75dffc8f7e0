"""Reading code: which line of the lab's own source does what. The source is read when the question is made."""

from __future__ import annotations

import ast
import textwrap
from dataclasses import dataclass
from random import Random

from llmlab.core.errors import LabError
from llmlab.core.source_code import find_source
from llmlab.practice.kinds import NOTHING, Draft, NothingToAsk, choice, kind
from llmlab.practice.question import READ
from llmlab.practice.subject import Subject

_LONGEST = 110  # characters of a line that is shown


@dataclass(frozen=True)
class Line:
    """A line to find. symbol: FILE::NAME, as @code of pages. has: what no other line of it has. why: what is told.

    beside: the start of a line that could be meant as well, and is not offered; "" for none.
    """

    name: str
    concept: str
    panel: str
    asked: str
    symbol: str
    has: str
    why: str
    beside: str = ""


LINES = (
    Line(
        "line-causal",
        "attention",
        "attention",
        "Which line makes attention causal, so that no position sees a later one?",
        "llmlab/gpt/model.py::CausalSelfAttention.forward",
        "scaled_dot_product_attention",
        "Its last argument but one, is_causal, is true where no mask is given: later positions get minus infinity.",
        beside="mask =",
    ),
    Line(
        "line-residual",
        "residual-stream",
        "residual",
        "Which line lets attention add to the residual stream, instead of replacing it?",
        "llmlab/gpt/model.py::Block.forward",
        "x = x + self.attention(",
        "The stream x goes on, with what attention found added to it.",
    ),
    Line(
        "line-positions",
        "embeddings",
        "geometry",
        "Which line tells the model where a token stands, where positions are learned?",
        "llmlab/gpt/model.py::GPT.residual_stream",
        "x = x + self.position_embedding",
        "A vector for each position is added to every sequence alike.",
    ),
    Line(
        "line-grouped",
        "attention",
        "attention",
        "Which line makes one group of query heads share its keys?",
        "llmlab/gpt/model.py::CausalSelfAttention.forward",
        "k = k.repeat_interleave",
        "Each key head is repeated for the query heads of its group; the cache keeps it once.",
    ),
    Line(
        "line-scale",
        "attention",
        "attention",
        "Which line divides by the root of a head's dimension?",
        "llmlab/gpt/model.py::CausalSelfAttention.__init__",
        "math.sqrt(self.head_dim)",
        "Sums over D products grow as √D; without it the softmax would begin saturated.",
    ),
    Line(
        "line-untied",
        "embeddings",
        "parameters",
        "Which line gives a model a matrix of its own for its logits, where the token embedding does not serve as one?",
        "llmlab/gpt/model.py::GPT.__init__",
        "self.head = nn.Linear(",
        "Without untied_head there is none, and the token embedding is the output matrix, too.",
    ),
    Line(
        "line-small-start",
        "residual-stream",
        "parameters",
        "Which line computes the smaller start of the projections into the residual stream, the deeper the model?",
        "llmlab/gpt/model.py::GPT.initialise",
        "math.sqrt(2 * self.settings.n_layer)",
        "2 · n_layer projections add up in the stream, so each begins smaller by the root of their number.",
    ),
    Line(
        "line-targets",
        "loss",
        "prompt",
        "Which line makes the next token each position's target?",
        "llmlab/data/sequences.py::gather",
        "sequences[:, 1:]",
        "y is x one token later.",
    ),
    Line(
        "line-clips",
        "optimisation",
        "learning_rate",
        "Which line keeps a single bad batch from throwing the weights far?",
        "llmlab/training/loop.py::Loop.optimizer_step",
        "clip_grad_norm_",
        "All gradients are scaled down together when their common norm is above the limit.",
    ),
    Line(
        "line-forgets-gradients",
        "backpropagation",
        "setup",
        "Which line forgets the gradients of the step before?",
        "llmlab/training/loop.py::Loop.optimizer_step",
        "zero_grad(",
        "Gradients are added up by each backward pass, so a step begins without any.",
    ),
    Line(
        "line-decay",
        "optimisation",
        "setup",
        "Which line spares norms and biases from weight decay?",
        "llmlab/training/optimizer.py::make_optimizer",
        "p.dim() < 2",
        "What has one dimension sets a scale, and is in the group without decay.",
    ),
    Line(
        "line-warm-up",
        "learning-rate",
        "learning_rate",
        "Which line makes the learning rate rise at first?",
        "llmlab/training/schedule.py::learning_rate",
        "return peak * (step + 1)",
        "Before the end of warm-up the rate is that share of its peak.",
    ),
    Line(
        "line-temperature",
        "sampling",
        "write",
        "Which line applies the temperature when text is written?",
        "llmlab/gpt/generate.py::sampling_steps",
        "logits = logits / how.temperature",
        "Smaller than 1 it spreads the logits apart, so that likely tokens become likelier.",
    ),
    Line(
        "line-nucleus",
        "sampling",
        "write",
        "Which line decides which tokens top_p rules out?",
        "llmlab/gpt/generate.py::sampling_steps",
        "out = less_likely <=",
        "A token goes where it and all less likely ones have at most 1 − p together.",
    ),
    Line(
        "line-lora-start",
        "lora",
        "adapter",
        "Which line makes a model with a fresh LoRA adapter answer as it did without?",
        "llmlab/training/finetuning/lora.py::LoraLinear.__init__",
        "nn.init.zeros_(self.lora_B",
        "B is zero, so the product B A is.",
    ),
    Line(
        "line-lora-frozen",
        "lora",
        "adapter",
        "Which line keeps the base's weights as they are while LoRA learns?",
        "llmlab/training/finetuning/lora.py::LoraLinear.__init__",
        "requires_grad_(False)",
        "No gradient is computed for the base layer, so the optimizer never sees it.",
    ),
)


def lines_of(symbol: str) -> list[str]:
    """The code of FILE::NAME by lines: no docstring, comments, blank lines. NothingToAsk when it is not there."""
    try:
        text = find_source(symbol).code
    except LabError as error:
        raise NothingToAsk(f"The source of {symbol} cannot be read.", error.why) from error
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef)
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    lines = textwrap.dedent("\n".join(text.splitlines()[body[0].lineno - 1 : node.end_lineno])).splitlines()
    code = (line.partition("  #")[0].strip() for line in lines)
    return [line for line in code if len(line) > 8 and not line.startswith("#")]


def _ask(line: Line) -> None:
    @kind(line.name, line.concept, READ, line.panel, NOTHING)
    def found(subject: Subject, random: Random) -> Draft:
        lines = lines_of(line.symbol)
        right = next((one for one in lines if line.has in one), "")
        if not right:
            raise NothingToAsk(f"{line.symbol} has no such line.")
        others = [
            one[:_LONGEST] for one in lines if line.has not in one and not (line.beside and one.startswith(line.beside))
        ]
        path, _, name = line.symbol.partition("::")
        how = f"`{name}` in {path}. {line.why}"
        return choice(random, f"{line.asked} (In `{name}`.)", right[:_LONGEST], others, how)


for _line in LINES:
    _ask(_line)
