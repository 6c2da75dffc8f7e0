"""Fine-tuning a model that exists, by the loop of all trainings (`llmlab.training.loop`).

A step's loss is the mean over the trained tokens of all its batches, which hold different numbers of them: each batch
adds its own sum, divided by the tokens of the step. Where several processes train, each reads some rows of a batch.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from llmlab.anatomy.modules import base_model, evaluating
from llmlab.core.errors import Cancelled, LabError
from llmlab.core.finetuning_settings import FULL, FinetuneSettings
from llmlab.core.settings import Sampling
from llmlab.data.answer_scoring import ScoredItem, checkable, score
from llmlab.data.examples import Example, Message
from llmlab.data.finetuning_data import Batch, FinetuningData, load_finetuning_data
from llmlab.models.adapter_file import BASE_DIGEST
from llmlab.models.available import ADAPTER_FILE
from llmlab.models.generation import continued, text_after
from llmlab.models.reference import parse
from llmlab.models.source import source_of
from llmlab.store.checkpoints import ADAPTER_WEIGHTS_FILE, MODEL_FILE, Checkpoint
from llmlab.store.events import Scored, Warned
from llmlab.training.finetuning.backends import Prepared, prepare
from llmlab.training.finetuning.packing import require_apart
from llmlab.training.finetuning.quantise import is_quantised
from llmlab.training.finetuning.targets import blocks_of
from llmlab.training.loop import Loop
from llmlab.training.optimizer import make_optimizer
from llmlab.training.processes import Loss
from llmlab.training.state import system_errors
from llmlab.training.workplace import Facts, Workplace

# Held-out examples whose answers are shown as samples, where the settings name no prompts.
_SAMPLES = 3


class Finetuner(Loop):
    """A base, what of it learns, and its examples. `train` runs until the end, a stop, or an error."""

    settings: FinetuneSettings

    def __init__(self, place: Workplace, settings: FinetuneSettings) -> None:
        """Opens the base and reads the examples, which takes a while. Raises Cancelled when a stop is asked."""
        if place.device.precision == "fp16":
            raise LabError("Fine-tuning has no fp16.", "It needs a scaler of gradients.", "Set train.precision=auto.")
        seed = settings.train.seed
        self.prepared: Prepared = prepare(
            settings, place.run.outputs, place.device, place.tell, seed, place.processes.rank
        )
        self.model, self.tokenizer = self.prepared.model, self.prepared.tokenizer
        self.data: FinetuningData = load_finetuning_data(
            settings.data, seed, self.tokenizer, self.prepared.context, place.tell
        )
        if self.data.packing:
            with evaluating(self.model), place.device.autocast():
                require_apart(self.prepared, self.data, place.device.precision)
        super().__init__(place, settings, self.data.key)
        self.optimizer = make_optimizer(self.model, settings.train)
        self.scaler = torch.amp.GradScaler(place.device.kind, enabled=False)
        self.flops_per_token = self.prepared.flops_per_token()
        self._base_sha256 = source_of(parse(self.prepared.base, place.run.outputs)).digest()
        self._asked: dict[str, Example] = {}
        self._loss_of: Loss = self._mean_of_rows
        self._step_batches: tuple[int, list[Batch]] | None = None
        self._hollow: nn.Module | None = None  # where the model is held in parts: what holds its parameters whole
        self._writer: nn.Module | None = None
        self._mean_tokens = sum(len(one.ids) for one in self.data.train) / len(self.data.rows)  # of a row

    def distribute(self) -> None:
        if self.processes.sharded and self.processes.rank == 0:
            self._hollow = hollow(self.model)
        self._loss_of = self.processes.around(self.model, self._loss_of, blocks_of(self.model))
        if self.processes.sharded:  # the model has other parameters then
            self.optimizer = make_optimizer(self.model, self.settings.train)

    def begin(self) -> None:
        if self.progress.step == 0 and self.data.bad:
            self.record(Warned(0, time.time(), self._left_out()))
        super().begin()
        if self.progress.step == 0 and not self.progress.score_seconds:
            self.score()

    def finish(self) -> None:
        self.score()
        super().finish()

    def size_of_step(self, step: int) -> tuple[int, int]:
        batches = self._batches_of(step)
        return len(batches), sum(int(batch.attention_mask.sum()) for batch in batches)

    def part_of_loss(self, index: int, batches: int) -> Tensor:
        step, number = divmod(index, batches)
        of_step = self._batches_of(step)
        batch, tokens = of_step[number], sum(one.predicted for one in of_step)
        return self._loss_of(*batch.tensors) * (len(batch.ids) / max(1, tokens))

    def _batches_of(self, step: int) -> list[Batch]:
        """Those of the step that follows `step` finished ones; kept for it."""
        if self._step_batches is None or self._step_batches[0] != step:
            count = self.settings.train.grad_accum
            self._step_batches = step, [self.data.batch(step * count + number) for number in range(count)]
        return self._step_batches[1]

    def _mean_of_rows(self, ids: Tensor, labels: Tensor, mask: Tensor | None = None, *positions: Tensor) -> Tensor:
        """A row's summed loss, nats: a mean over a batch's rows. Of trained tokens, some rows have more than others."""
        batch = Batch(ids, labels, torch.ones_like(ids) if mask is None else mask, *positions)
        return self.loss_sum(batch) / len(ids)

    def loss_sum(self, batch: Batch) -> Tensor:
        """Sum of the losses of the batch's trained tokens, nats."""
        with self.device.autocast():
            return self.prepared.loss_sum(batch)

    def score(self) -> None:
        """Lets the model answer held-out items that a program can check, and writes `scored`."""
        items = checkable(self.data.held_out_examples)[: self.settings.data.scored]
        if not items:
            return
        begin, scored = time.perf_counter(), list[ScoredItem]()
        try:
            with self._writing():
                self._tell_scored(0, len(items))
                for item in score(items, self.data.chat, self._answer, self.control.stop_wanted):
                    scored.append(item)
                    self._tell_scored(len(scored), len(items))
        except Cancelled:  # someone wants to stop: the next step boundary hears it
            scored.clear()
        self.control.until_written(self, partial(self.recorder.update, doing=""))
        if not scored:
            return
        self.progress.score_seconds = time.perf_counter() - begin
        right = sum(item.right for item in scored)
        told = [dict(vars(item)) for item in scored]
        self.record(Scored(self.progress.step, time.time(), right, len(scored), told, self.progress.score_seconds))

    def _tell_scored(self, done: int, total: int) -> None:
        self.recorder.prepare(f"Answering held-out questions ({done} of {total})")

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a step reads, on average; padding does not count."""
        if self.progress.step:
            return self.progress.tokens / self.progress.step
        return self._mean_tokens * self.settings.data.batch_size * self.settings.train.grad_accum

    def choose_prompts(self) -> None:
        """The settings' prompts, as a user's words; where there are none, the first held-out questions."""
        wanted = [_question(prompt) for prompt in self.settings.samples.prompts]
        wanted = wanted or self.data.held_out_examples[:_SAMPLES]
        self._asked = {}
        for example in wanted:
            try:
                self.data.chat.prompt_ids(example)
                self._asked[example.question] = example
            except LabError as error:
                self.control.warn(self, f"The prompt {example.question!r} is left out of the samples. {error}")
        self._prompts = list(self._asked)

    def losses(self) -> tuple[float, float]:
        """Over the trained tokens of fixed examples of both splits."""
        self.processes.order("losses", self.progress.step)
        found = []
        with evaluating(self.model), torch.no_grad():
            for split in ("train", "val"):
                total, count = 0.0, 0
                for batch in self.data.fixed_batches(split, self.settings.train.eval_sequences):
                    total += float(self._loss_of(*batch.tensors)) * len(batch.ids)
                    count += batch.predicted
                (total,) = self.processes.total(total)
                found.append(total / self.processes.size / count)
        return found[0], found[1]

    def continuations(self, prompts: Sequence[str], seed: int) -> list[dict[str, str]]:
        how, written = self.settings.samples, []
        with self._writing():
            for number, prompt in enumerate(prompts):
                ids = self.data.chat.prompt_ids(self._asked.get(prompt) or _question(prompt))
                text = self._continue(ids, Sampling(how.temperature, how.top_k), seed + number)
                written.append({"prompt": prompt, "text": text})
        return written

    def about(self) -> dict[str, Any]:
        return {
            "method": self.settings.model.method,
            "base": self.prepared.base,
            BASE_DIGEST: self._base_sha256,
            "parameters": self.prepared.trainable,
        }

    def save_weights(self, folder: Path) -> None:
        """What learned: an adapter as PEFT writes it, or every weight."""
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.whole_weights().items()}
        config = self.prepared.adapter_config
        about = {"format": "pt", "base": self.prepared.base, BASE_DIGEST: self._base_sha256}
        with system_errors(folder):
            file = folder / (MODEL_FILE if config is None else ADAPTER_WEIGHTS_FILE)
            safetensors.torch.save_file(weights, file, about)
        if config is not None:
            (folder / ADAPTER_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def whole_weights(self) -> dict[str, Tensor]:
        """Of what learned."""
        if self.processes.sharded:
            self.processes.order("weights", self.progress.step)
        return self.processes.whole(self.prepared.trained_weights())

    def load_weights(self, checkpoint: Checkpoint) -> None:
        try:
            weights = safetensors.torch.load_file(checkpoint.weights)
        except Exception as error:  # a damaged file can fail anywhere inside the reader
            raise LabError(f"The weights of {checkpoint.name} cannot be read.", f"{error}.") from error
        self.prepared.load_trained(weights)

    def require_same_text(self, checkpoint: Checkpoint) -> None:
        """LabError when the base is not the one that the checkpoint was trained on."""
        if self.settings.model.method != FULL and checkpoint.about.get(BASE_DIGEST) != self._base_sha256:
            raise LabError(
                f"{self.run.id} cannot be resumed: its base has changed.",
                f"{self.prepared.base} has other weights than when {checkpoint.name} was saved.",
                "Put the old base back, or start a new run.",
            )

    def plain_model(self) -> nn.Module:
        """A copy with the adapters merged."""
        return replace(self.prepared, model=self._whole()).merged()

    def facts(self) -> Facts:
        """Of examples and what learns."""
        vocab_size = _vocab_size(self.model)
        return Facts(
            parameters=self.prepared.trainable,
            vocab_size=vocab_size,
            train_tokens=sum(len(one.ids) for one in self.data.train),
            val_tokens=sum(len(one.ids) for one in self.data.held_out),
            tokenizer=self.data.chat.name,
            uniform_loss=math.log(vocab_size),
            bytes_per_token=self.data.bytes_per_token(self.settings.train.eval_sequences),
        )

    def _left_out(self) -> str:
        """How many lines of the source are unusable, as a sentence."""
        bad, source = self.data.bad, self.settings.data.source
        lines = len(bad) + len(self.data.train) + len(self.data.held_out)
        return (
            f"{len(bad):,} of {lines:,} examples of {source} are unusable. Number {bad[0].number}: {bad[0].why} "
            "`llmlab-run data` lists them."
        )

    def _whole(self) -> nn.Module:
        """The model; where it is held in parts, a copy in main memory."""
        return filled(self._hollow, self.whole_parameters()) if self._hollow is not None else self.model

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Inside, `_continue` writes, with dropout off."""
        self._writer = self._whole()
        try:
            with evaluating(self._writer):
                yield
        finally:
            self._writer = None

    def _answer(self, prompt: list[int]) -> str:
        return self._continue(prompt, Sampling(temperature=0.0), seed=0)

    def _continue(self, prompt: list[int], how: Sampling, seed: int) -> str:
        """The model's words after a prompt, up to where its answer ends."""
        written: list[int] = []
        assert self._writer is not None, "nothing writes outside of `_writing`"
        for token in continued(self._writer, prompt, self.settings.samples.tokens, how, seed=seed):
            if token.id in self.data.chat.end_ids:
                break
            written.append(token.id)
        return text_after(self.tokenizer, prompt, written)


def _question(text: str) -> Example:
    return Example(0, (Message("user", text),))


def _vocab_size(model: nn.Module) -> int:
    plain: Any = base_model(model)
    config = getattr(plain, "config", None)
    return int(plain.vocab_size if config is None else config.get_text_config().vocab_size)


# A model that is held in parts, whole again: to write with, and to look into -------------------------------------


def hollow(model: nn.Module) -> nn.Module:
    """A copy in main memory whose parameters have shapes and no numbers; `filled` gives them some."""
    empty = {id(p): torch.empty(p.shape, dtype=p.dtype, device="meta") for p in model.parameters()}
    copied = copy.deepcopy(model, {id(p): nn.Parameter(empty[id(p)], p.requires_grad) for p in model.parameters()})
    for module in copied.modules():
        if is_quantised(module):
            module.quant_state.to("cpu")  # its scales are no parameters
    return copied


def filled(hollow: nn.Module, parameters: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a hollow model with these numbers, whose names it has; a parameter of two names stays one."""
    learning = {id(p): nn.Parameter(parameters[name], p.requires_grad) for name, p in hollow.named_parameters()}
    model = copy.deepcopy(hollow, learning)
    return model.cpu()
