"""Every question that can be asked of one open model, answered into an archive.

The command line, the model host and a training worker all come through here, so that a live run, a checkpoint and
a Hugging Face model are asked in the same words and answer in the same tensors:

    inspect     attention/{layer} [H, T, T]; attention/rollout [L, T, T]
                heads/{entropy,previous,first,distance,duplicate,induction} [L, H]; heads/mosaic [L, H, S, S]
                residual/{pre_attn,post_attn,post_ffn,attn_out,mlp_out} [L, T, C]; residual/final [T, C]
                contributions/norm/{point} [L, T]; contributions/cosine/{attention,feed_forward,block} [L, T]
                contributions/share/{attention,feed_forward} [L, T], /embedding [T]; contributions/heads [L, H, T]
                attribution/{attention,feed_forward,attention_bias} [L]; attribution/heads [L, H]
                attribution/{embedding,bias,sum,logit} [1]
                lens/{ids,probability} [2L + 1, T, K]; lens/{rank,target_probability,entropy,kl} [2L + 1, T]
    pattern     pattern [T, T] (of one head: query, key)
    stages      stages/{scores,scaled,masked,pattern} [T, T]; stages/{query,key,value} [T, D]
                where the family has them: stages/capped [T, T]; stages/sink [T]
    neurons     neurons/{index,activation,attribution} [K]; neurons/{bias,sum} [1]
    intervene, sweep, geometry, parameters: see the modules of these names (`intervene` is in `interventions`)

Of `inspect` only what was asked for and is not refused is there. All tensors are float32; ids, ranks and indices
int32. NaN stands where there is nothing: scores of layers without a pattern, of prompts of one token, of heads that
cannot be told apart.

Metadata, strings all of them, of every answer: schema, kind, model, weights_sha256, dtype, attention_path, family,
n_layer, step ("" for what is no run); as JSON token_ids, tokens, versions, notes, question. Besides: position, answer,
answer_text, against, against_text (inspect, neurons; ids and their texts, "" for no against), next (inspect: JSON list
of the most likely tokens there with their probabilities), scale and softcap (stages; "" for none).

L layers, H heads, T tokens of the prompt, C n_embd, D dimensions of a head, K tokens or neurons kept, S at most 64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from llmlab.core.device import is_out_of_memory
from llmlab.core.errors import LabError, UsageError, explained
from llmlab.core.progress import Progress, quiet
from llmlab.inspection.geometry import Geometry, geometry
from llmlab.inspection.inspect import inspect
from llmlab.inspection.interventions import Intervene, intervene
from llmlab.inspection.one_part import neurons, pattern, stages
from llmlab.inspection.parameters import Parameters, parameters
from llmlab.inspection.questions import Inspect, Neurons, Pattern, Stages, from_values
from llmlab.inspection.sweep import PatchingSweep, patching_sweep
from llmlab.models.live import ask_live
from llmlab.models.model import OpenModel
from llmlab.models.reference import LiveRun, parse
from llmlab.models.source import open_model

# By name: what is asked, and what answers it into a file.
Questions: TypeAlias = Mapping[str, tuple[type, Callable[[OpenModel, Any, Path, Progress], None]]]
_QUESTIONS: Questions = {
    "inspect": (Inspect, inspect),
    "pattern": (Pattern, pattern),
    "stages": (Stages, stages),
    "neurons": (Neurons, neurons),
    "intervene": (Intervene, intervene),
    "sweep": (PatchingSweep, patching_sweep),
    "geometry": (Geometry, geometry),
    "parameters": (Parameters, parameters),
}


def answer_question(
    opened: OpenModel,
    question: str,
    values: Mapping[str, Any],
    out: Path,
    progress: Progress = quiet,
    part: Callable[[Path], None] | None = None,
    more: Questions | None = None,
) -> Path:
    """Answers `question` into the file `out` and returns it.

    part: hears of archives with what was found so far, where a question wants to be answered in parts. more: questions
    besides those here, of packages above this one (`llmlab.walk.answers`).

    UsageError for an unknown question or field. LabError when a panel is refused for this model, when memory runs
    out (with what to do) or the disk is full. Cancelled when `progress` says so; nothing half-written is left.
    """
    questions = {**_QUESTIONS, **(more or {})}
    if question not in questions:
        raise UsageError(f"There is no question {question!r}.", f"There are: {', '.join(questions)}.")
    kind, answered = questions[question]
    try:
        asked: Any = from_values(kind, values)
        with explained(f"The answer could not be written to {out}."):
            if isinstance(asked, Inspect):
                inspect(opened, asked, out, progress, part)
            else:
                answered(opened, asked, out, progress)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise LabError(
            f"Memory ran out while {opened.name} was read.",
            "Attention patterns grow with the square of the prompt's length.",
            "Shorten the prompt, ask for fewer things at once, or open a smaller model.",
        ) from error
    return out


def ask(
    reference: str, question: str, values: Mapping[str, Any], out: Path, outputs: Path, progress: Progress = quiet
) -> Path:
    """Answers `question` about what `reference` names into the file `out`. outputs: where runs are found by their ids.

    A run that trains (RUN@live) answers itself; anything else is opened. Errors as `answer_question`, `open_model` and
    `ask_live`.
    """
    named = parse(reference, outputs)
    if isinstance(named, LiveRun):
        return ask_live(named, question, values, out, progress)
    return answer_question(open_model(named, outputs, progress), question, values, out, progress)
