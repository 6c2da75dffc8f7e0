"""Training: read `Loop.train` first, it is the whole of it. `Trainer` trains a GPT on text, from scratch."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from llmlab.anatomy.modules import evaluating
from llmlab.core.config import to_mapping
from llmlab.core.device import Device
from llmlab.core.errors import LabError
from llmlab.core.run_settings import SampleSettings
from llmlab.core.settings import PretrainSettings, Sampling
from llmlab.core.task_settings import TaskSettings
from llmlab.data.dataset import Dataset
from llmlab.data.sequences import Sequences, fixed_sequences, gather, sequences_end_to_end
from llmlab.data.sharded_tokens import MixedTokens, Tokens
from llmlab.data.tokenizers import Tokenizer
from llmlab.gpt.estimate import flops_per_token
from llmlab.gpt.generate import generate_batch
from llmlab.gpt.model import GPT
from llmlab.models.scratch import load_weights
from llmlab.store.checkpoints import Checkpoint
from llmlab.training import state
from llmlab.training.compilation import compiled_loss
from llmlab.training.control import StopRequested
from llmlab.training.optimizer import average_weights, make_pretraining_optimizer, set_learning_rates
from llmlab.training.processes import Connected, Loss, Processes
from llmlab.training.run import TrainingRun
from llmlab.training.workplace import Facts, StepResult, Workplace


class Loop(TrainingRun):
    """Optimizer steps on batches that are a function of their number, and what several processes do together."""

    @abstractmethod
    def part_of_loss(self, index: int, batches: int) -> torch.Tensor:
        """What training batch number `index`, of so many in its step, adds to the step's mean loss in nats: a scalar
        with its graph."""

    @abstractmethod
    def size_of_step(self, step: int) -> tuple[int, int]:
        """Batches, and tokens in all of them, of the step that follows `step` finished ones."""

    def train(self) -> None:
        self.model.train()
        try:
            self.begin()
            while self.goes_on:
                self.control.handle_requests(self)
                begin = time.perf_counter()
                result = self.optimizer_step()
                self.after_step(result, begin)
            self.finish()
        except StopRequested:
            self.stop()

    def follow(self, processes: Connected) -> None:
        """What every rank but 0 does in place of `train`: what it hears, until it hears that this is all."""
        self.model.train()
        while True:
            what, self.progress.step = processes.hear()
            match what:
                case "step":
                    self.optimizer_step()
                    self.spin.look()
                case "losses":
                    self.losses()
                case "weights":
                    self.whole_weights()
                case "moments":
                    self.whole_moments()
                case "gradients":
                    self.whole_gradients()
                case "parameters":
                    self.whole_parameters()
                case _:
                    return

    def optimizer_step(self) -> StepResult:
        """One step of the optimizer on the mean gradient of `grad_accum` batches, or of fewer during a warm-up."""
        train = self.settings.train
        self.processes.order("step", self.progress.step)
        batches, tokens = self.size_of_step(self.progress.step)
        lr = set_learning_rates(self.optimizer, self.progress.step, train)
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.device.kind)
        for micro in range(batches):
            index = self.progress.step * train.grad_accum + micro
            with self.processes.batch(train.seed, index, last=micro + 1 == batches):
                with self.device.autocast():
                    part = self.part_of_loss(index, batches)
                self.scaler.scale(part).backward()
            part = part.detach()  # or the graph, of which layers in 4 bits keep their part, would stay for a step
            loss += part
        loss = self.processes.mean(loss)
        self.scaler.unscale_(self.optimizer)
        limit = train.grad_clip or math.inf
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit, foreach=True)
        grad_norm = self.processes.norm(grad_norm)
        result = StepResult(self.progress.step + 1, loss, grad_norm, lr, tokens, self.device)
        if not self.device.queues:  # elsewhere see `report` and `save`
            self.require_finite(result)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return result

    @abstractmethod
    def whole_weights(self) -> dict[str, torch.Tensor]:
        """What is saved, by name. Where each rank has all of it, none needs another to save it."""

    def whole_moments(self) -> dict[str, dict[str, torch.Tensor]]:
        if self.processes.sharded:
            self.processes.order("moments", self.progress.step)
        moments = super().whole_moments()
        return {name: self.processes.whole(values) for name, values in moments.items()}

    def whole_gradients(self) -> dict[str, torch.Tensor]:
        """Of a model that is held in parts, after a step: of the step's batches, clipped; by name."""
        self.processes.order("gradients", self.progress.step)
        named = self.model.named_parameters()
        return self.processes.whole({name: weight.grad for name, weight in named if weight.grad is not None})

    def whole_parameters(self) -> dict[str, torch.Tensor]:
        """Of a model that is held in parts: all of them, those that do not learn among them; by name."""
        self.processes.order("parameters", self.progress.step)
        return self.processes.whole(dict(self.model.named_parameters()))


class FromScratch(Loop):
    """A model whose every weight is learned."""

    settings: PretrainSettings | TaskSettings

    @abstractmethod
    def loss_of_batch(self, index: int) -> torch.Tensor:
        """Mean loss of training batch number `index`, nats: a scalar with its graph."""

    def part_of_loss(self, index: int, batches: int) -> torch.Tensor:
        return self.loss_of_batch(index) / batches

    @property
    def tokens_per_step(self) -> int:
        return self.settings.tokens_per_step

    def size_of_step(self, step: int) -> tuple[int, int]:
        return self.settings.train.grad_accum, self.tokens_per_step

    @property
    def model_or_average(self) -> nn.Module:
        """What is measured, sampled, inspected and saved: the model, or its average where one is kept."""
        return self.model if self.averaged is None else self.averaged

    def save_weights(self, folder: Path) -> None:
        state.save_weights(folder, self.whole_weights())

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """Of the model that is shown."""
        if self.processes.sharded:
            self.processes.order("weights", self.progress.step)
        return self.processes.whole(self.model_or_average.state_dict())

    def load_weights(self, checkpoint: Checkpoint) -> None:
        load_weights(checkpoint.path, self.model)
        if self.averaged is not None:  # the model's own are in the training state, if they are others
            self.averaged.load_state_dict(self.model.state_dict())

    def plain_model(self) -> nn.Module:
        """What is shown, without torch.compile around it; an average with the gradients of the weights that train."""
        if self.averaged is not None:
            for mean, weight in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
                mean.grad = weight.grad
        return self.model_or_average

    def _parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


class Trainer(FromScratch):
    """A GPT and the text that it learns from."""

    settings: PretrainSettings
    model: GPT
    averaged: GPT | None

    def __init__(self, place: Workplace, settings: PretrainSettings, data: Dataset) -> None:
        super().__init__(place, settings, data.key)
        train, model, batches, device = settings.train, settings.model, settings.data, place.device
        torch.manual_seed(train.seed)
        self.data, self.tokenizer = data, data.tokenizer
        self.model = GPT(model, data.tokenizer.vocab_size).to(device.kind)
        self.averaged = copy.deepcopy(self.model) if train.ema_decay else None
        self.model.recomputes = train.activation_checkpointing
        self.optimizer = make_pretraining_optimizer(self.model, train)
        self.scaler = torch.amp.GradScaler(device.kind, enabled=device.precision == "fp16")
        self.sequences = Sequences(
            data.train, model.block_size, batches.batch_size, batches.order, batches.stride, train.seed
        )
        self._compiled, why_not = compiled_loss(self.model, settings, place)
        if self._compiled is not None:
            self.compile_seconds, self.origin.compiled = self._compiled.seconds, True
        elif why_not:
            self.warnings.append(why_not)
        self._loss_of: Loss = self._compiled or self.model.loss

    def distribute(self) -> None:
        self._loss_of = self.processes.around(self.model, self._loss_of, self.model.blocks)
        if self.processes.sharded:  # the model has other parameters then
            self.optimizer = make_pretraining_optimizer(self.model, self.settings.train)

    def plain_model(self) -> nn.Module:
        if not self.processes.sharded:
            return super().plain_model()
        model = self._whole()
        for name, gradient in self.whole_gradients().items():
            model.get_parameter(name).grad = gradient
        return model

    @property
    def model_or_average(self) -> GPT:
        return self.model if self.averaged is None else self.averaged

    def optimizer_step(self) -> StepResult:
        if self.averaged is not None:
            self.averaged.zero_grad()  # which `plain_model` gave it; else they would stay in memory beside the new ones
        result = super().optimizer_step()
        _, length = self.settings.batch_at(self.progress.step)
        read = dataclasses.replace(self.settings.model, block_size=length)  # attention multiplies less in a short one
        self.flops_per_token = flops_per_token(read, self.data.tokenizer.vocab_size)
        if self.averaged is not None:
            average_weights(self.averaged, self.model, result.step, self.settings.train.ema_decay)
        return result

    def size_of_step(self, step: int) -> tuple[int, int]:
        sequences, length = self.settings.batch_at(step)
        return -(-sequences // self.settings.data.batch_size), sequences * length

    def tokens_until(self, step: int) -> int:
        return self.settings.tokens_until(step)

    def loss_of_batch(self, index: int) -> torch.Tensor:
        ids, targets = self._batch(index)
        return self._loss_of(ids, targets)

    def choose_prompts(self) -> None:
        """The prompts of the settings, without those that the vocabulary cannot say, of which a warning is given."""
        self._prompts = []
        for prompt in self.settings.samples.prompts:
            try:
                self.data.tokenizer.encode(prompt)
                self._prompts.append(prompt)
            except LabError as error:
                self.control.warn(self, f"The prompt {prompt!r} is left out of the samples. {error}")

    def losses(self) -> tuple[float, float]:
        """On fixed sequences of both splits. Of a mixture: each source's mean by its weight."""
        self.processes.order("losses", self.progress.step)
        train, val = self.data.train, self.data.val
        if not isinstance(train, MixedTokens) or not isinstance(val, MixedTokens):
            return self._losses_on(train, val, self.settings.train.eval_sequences)
        found = []
        count = self.settings.train.eval_sequences
        for weight, of_train, of_val in zip(val.weights, train.sources, val.sources, strict=True):
            found.append(self._losses_on(of_train, of_val, max(1, round(weight * count)) if count else 0))
        by_source = zip(self.data.sources, found, strict=True)
        self.losses_by_source = {title: loss for title, (_, loss) in by_source if math.isfinite(loss)}
        means = [
            sum(float(w) * loss for w, loss in zip(val.weights, each, strict=True)) for each in zip(*found, strict=True)
        ]
        return means[0], means[1]

    def _losses_on(self, train: Tokens, val: Tokens, count: int) -> tuple[float, float]:
        """Means over `count` fixed sequences of each; 0 for all of `val`."""
        size, block, found = self.settings.data.batch_size, self.settings.model.block_size, []
        model, whole = self.model_or_average, sequences_end_to_end(val, block)
        for tokens in (train, val):
            starts = fixed_sequences(tokens, block, count or len(whole))
            if not count and tokens is val:
                starts = whole
            batches = (gather(tokens, starts[i : i + size], block) for i in range(0, len(starts), size))
            compiled = self._compiled if self.averaged is None else None  # it computes with the weights that train
            found.append(mean_loss(model, batches, self.device, self.processes, compiled or model.loss))
        return found[0], found[1]

    def continuations(self, prompts: Sequence[str], seed: int) -> list[dict[str, str]]:
        model = self._whole() if self.processes.sharded else self.model_or_average
        return write_samples(model, self.data.tokenizer, self.settings.samples, prompts, seed)

    def about(self) -> dict[str, Any]:
        averaged = {} if self.averaged is None else {"ema_decay": self.settings.train.ema_decay}
        return {
            "model": to_mapping(self.settings.model),
            "vocab_size": self.model.vocab_size,
            "tokenizer": self.data.tokenizer.key(),
            "parameters": self._parameters(),
            **averaged,
        }

    def require_same_text(self, checkpoint: Checkpoint) -> None:
        """LabError when the text gives another vocabulary than the checkpoint was trained with."""
        if checkpoint.about.get("tokenizer") != self.data.tokenizer.key():
            raise LabError(
                f"{self.run.id} cannot be resumed: its text now gives another vocabulary.",
                f"{checkpoint.name} was trained on other tokens than {self.settings.data.corpus} has today.",
                "Put the old text back, or start a new run.",
            )

    def facts(self) -> Facts:
        """With the losses of knowing nothing, of knowing frequencies, and of knowing the generator."""
        data = self.data
        return Facts(
            parameters=self._parameters(),
            vocab_size=self.model.vocab_size,
            train_tokens=len(data.train),
            val_tokens=len(data.val),
            tokenizer=data.tokenizer.kind,
            uniform_loss=math.log(self.model.vocab_size),
            unigram_loss=data.unigram_loss,
            floor_loss=data.floor_loss,
            bytes_per_token=data.bytes_per_token,
            comparable=data.tokenizer.comparable,
        )

    def _whole(self) -> GPT:
        """A copy of a model that is held in parts, in main memory."""
        weights = self.whole_weights()
        with torch.random.fork_rng([]):
            model = GPT(self.settings.model, self.data.tokenizer.vocab_size)
        model.load_state_dict(weights)
        return model

    def _batch(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = self.sequences.batch(index)  # int64 [batch, block]
        sequences, length = self.settings.batch_at(index // self.settings.train.grad_accum)
        ids, targets = (torch.from_numpy(each[:sequences, :length].copy()) for each in (x, y))
        if self.device.kind == "cuda":  # pinned memory lets the copy run beside the computation
            return ids.pin_memory().to("cuda", non_blocking=True), targets.pin_memory().to("cuda", non_blocking=True)
        return ids.to(self.device.kind), targets.to(self.device.kind)


@torch.no_grad()
def mean_loss(
    model: GPT, batches: Iterable[tuple[np.ndarray, np.ndarray]], device: Device, processes: Processes, loss_of: Loss
) -> float:
    """Mean loss in nats per token over (x, y) batches of ids [batch, time], dropout off. Draws no random number.

    Each of several processes reads its rows of every batch; the mean is over all. loss_of: the model's, compiled or as
    it is.
    """
    total, count = 0.0, 0.0
    with evaluating(model):
        for x, y in batches:
            mine, rows = processes.share(torch.from_numpy(x), torch.from_numpy(y))
            ids, targets = (each.to(device.kind) for each in mine)
            with device.autocast():
                total += float(loss_of(ids, targets)) * (rows * targets.shape[1])
            count += rows * targets.shape[1]
    total, count = processes.total(total, count)
    return total / count


def write_samples(
    model: GPT, tokenizer: Tokenizer, samples: SampleSettings, prompts: Sequence[str], seed: int
) -> list[dict[str, str]]:
    """A continuation of each prompt, as the `sampled` event holds them. An empty prompt begins at a text's start."""
    if not prompts:
        return []
    start = [0 if tokenizer.end_of_text is None else tokenizer.end_of_text]
    ids = [tokenizer.encode(prompt) or start for prompt in prompts]
    seeds = range(seed, seed + len(prompts))
    with evaluating(model):
        drawn = generate_batch(model, ids, samples.tokens, Sampling(samples.temperature, samples.top_k), seeds=seeds)
        steps = [[token.id for token in step] for step in drawn]
    texts = (tokenizer.decode(written) for written in zip(*steps, strict=True))
    return [{"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)]
