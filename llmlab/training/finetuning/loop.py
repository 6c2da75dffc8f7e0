"""Fine-tuning a model that exists: transformers' Trainer takes the steps, the lab watches between them.

`Finetuner.train` hands a dataset, an optimizer and a schedule to transformers' Trainer, which does the loop. At its
step boundaries our callback answers requests and does what every training of the lab does (`llmlab.training.run`).
Batches, learning rate and dropout follow from seed and step, so a resumed run is what an uninterrupted one would be.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from llmlab.anatomy.modules import base_model
from llmlab.core.errors import Cancelled, LabError
from llmlab.core.finetuning_settings import FULL, FinetuneSettings
from llmlab.core.settings import Sampling
from llmlab.data.answer_scoring import ScoredItem, checkable, score
from llmlab.data.examples import Example, Message
from llmlab.data.finetuning_data import NOT_IN_LOSS, Batch, FinetuningData, load_finetuning_data
from llmlab.models.adapter_file import BASE_DIGEST
from llmlab.models.available import ADAPTER_FILE
from llmlab.models.generation import continued, text_after
from llmlab.models.reference import parse
from llmlab.models.source import source_of
from llmlab.store.checkpoints import ADAPTER_WEIGHTS_FILE, MODEL_FILE, Checkpoint
from llmlab.store.events import Scored, Warned
from llmlab.training.control import StopRequested
from llmlab.training.finetuning.backends import Prepared, prepare
from llmlab.training.finetuning.packing import require_apart
from llmlab.training.optimizer import make_optimizer
from llmlab.training.run import TrainingRun
from llmlab.training.schedule import learning_rate
from llmlab.training.state import evaluating, random_state, restore_random, system_errors
from llmlab.training.workplace import Facts, StepResult, Workplace

# Held-out examples whose answers are shown as samples, where the settings name no prompts.
_SAMPLES = 3


class Finetuner(TrainingRun):
    """A base, what of it learns, and its examples. `train` runs until the end, a stop, or an error."""

    settings: FinetuneSettings

    def __init__(self, place: Workplace, settings: FinetuneSettings) -> None:
        """Opens the base and reads the examples, which takes a while. Raises Cancelled when a stop is asked."""
        if place.device.precision == "fp16":
            raise LabError("Fine-tuning has no fp16.", "It needs a scaler of gradients.", "Set train.precision=auto.")
        seed = settings.train.seed
        self.prepared: Prepared = prepare(settings, place.run.outputs, place.device, place.tell, seed)
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
        # Forward 2 FLOPs a parameter, backward 2 through all and 2 for those that learn (Kaplan et al. 2020, 2.1).
        self.flops_per_token = 4.0 * self.prepared.total + 2.0 * self.prepared.trainable
        self._base_sha256 = source_of(parse(self.prepared.base, place.run.outputs)).digest()
        self._asked: dict[str, Example] = {}
        self._mean_tokens = sum(len(one.ids) for one in self.data.train) / len(self.data.train)

    def train(self) -> None:
        """Steps until `train.steps`, by transformers' Trainer."""
        try:
            if self.progress.step == 0 and self.data.bad:
                self.record(Warned(0, time.time(), self._left_out()))
            self.begin()
            if self.progress.step == 0 and not self.progress.score_seconds:
                self.score()
            if self.goes_on:  # a run that was killed before its last word has no step left, which the Trainer refuses
                with tempfile.TemporaryDirectory() as nothing:  # it wants a folder, and is told to save nothing
                    _Trainer(self, nothing).train()
            self.score()
            self.finish()
        except StopRequested:
            self.stop()

    def loss_sum(self, batch: Batch) -> Tensor:
        """Sum of the losses of the batch's trained tokens, nats."""
        with self.device.autocast():
            logits = self.prepared.logits(batch)[:, :-1]  # [B, T - 1, V]: each position predicts the next token
        labels = batch.labels[:, 1:].to(logits.device)
        counts = labels != NOT_IN_LOSS
        return F.cross_entropy(logits[counts].float(), labels[counts], reduction="sum")

    def score(self) -> None:
        """Lets the model answer held-out items that a program can check, and writes `scored`."""
        items = checkable(self.data.held_out_examples)[: self.settings.data.scored]
        if not items:
            return
        begin, scored = time.perf_counter(), list[ScoredItem]()
        try:
            with evaluating(self.model):
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
        """Tokens that a step reads, on average; filling does not count."""
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
        found = []
        with evaluating(self.model), torch.no_grad():
            for split in ("train", "val"):
                total, count = 0.0, 0
                for batch in self.data.fixed_batches(split, self.settings.train.eval_windows):
                    total += float(self.loss_sum(batch))
                    count += int((batch.labels[:, 1:] != NOT_IN_LOSS).sum())
                found.append(total / count)
        return found[0], found[1]

    def continuations(self, prompts: Sequence[str], seed: int) -> list[dict[str, str]]:
        how, written = self.settings.samples, []
        with evaluating(self.model):
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
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.prepared.trained_weights().items()}
        config = self.prepared.adapter_config
        about = {"format": "pt", "base": self.prepared.base, BASE_DIGEST: self._base_sha256}
        with system_errors(folder):
            file = folder / (MODEL_FILE if config is None else ADAPTER_WEIGHTS_FILE)
            safetensors.torch.save_file(weights, file, about)
        if config is not None:
            (folder / ADAPTER_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

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
                f"{self.run.id} cannot be resumed: its base is another model now.",
                f"{self.prepared.base} has other weights than when {checkpoint.name} was saved.",
                "Put the old base back, or start a new run.",
            )

    def plain_model(self) -> nn.Module:
        """A copy with the adapters merged."""
        return self.prepared.merged()

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
            bytes_per_token=self.data.bytes_per_token(self.settings.train.eval_windows),
        )

    def _left_out(self) -> str:
        """How many lines of the source are unusable, as a sentence."""
        bad, source = self.data.bad, self.settings.data.source
        lines = len(bad) + len(self.data.train) + len(self.data.held_out)
        return (
            f"{len(bad):,} of {lines:,} examples of {source} are unusable. Number {bad[0].number}: {bad[0].why} "
            "`llmlab-run data` lists them."
        )

    def _answer(self, prompt: list[int]) -> str:
        return self._continue(prompt, Sampling(temperature=0.0), seed=0)

    def _continue(self, prompt: list[int], how: Sampling, seed: int) -> str:
        """The model's words after a prompt, up to where its answer ends."""
        written: list[int] = []
        for token in continued(self.model, prompt, self.settings.samples.tokens, how, seed=seed):
            if token.id in self.data.chat.end_ids:
                break
            written.append(token.id)
        return text_after(self.tokenizer, prompt, written)


class _Trainer(transformers.Trainer):
    """transformers' Trainer on the lab's batches and loss; it takes the steps that are left."""

    def __init__(self, finetuner: Finetuner, folder: str) -> None:
        settings, begin = finetuner.settings, finetuner.progress.step
        train, self.finetuner, self.step_loss = settings.train, finetuner, torch.zeros(())
        random = random_state()  # Trainer seeds every generator when it is made
        for group in finetuner.optimizer.param_groups:
            group["lr"] = 1.0  # what the schedule below is a multiple of
        schedule = torch.optim.lr_scheduler.LambdaLR(
            finetuner.optimizer, lambda done: learning_rate(begin + done, train)
        )
        logging.getLogger("transformers.trainer").setLevel(logging.ERROR)
        super().__init__(
            model=finetuner.model,
            args=transformers.TrainingArguments(
                output_dir=folder,
                max_steps=train.steps - begin,
                gradient_accumulation_steps=train.grad_accum,
                max_grad_norm=0.0,  # clipped in `on_pre_optimizer_step`, where the norm is looked at as well
                logging_strategy="no",
                logging_nan_inf_filter=False,
                save_strategy="no",
                eval_strategy="no",
                report_to=[],
                disable_tqdm=True,
                remove_unused_columns=False,
                use_cpu=finetuner.device.kind == "cpu",
                seed=train.seed,
            ),
            optimizers=(finetuner.optimizer, schedule),
            callbacks=[_Between(self, random)],
        )
        self.remove_callback(transformers.PrinterCallback)

    def get_train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Every batch that is left, in order; where they begin follows from the step."""
        batches = _Batches(self.finetuner)
        # A generator of its own: making an iterator would otherwise draw from the global one.
        return DataLoader(batches, batch_size=None, generator=torch.Generator())

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: Any = None
    ) -> tuple[list[dict[str, Tensor]], int]:
        """The batches of one step, and how many trained tokens they hold: the loss is the mean over these."""
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        self.step_tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
        return batches, sum(int((batch["labels"][:, 1:] != NOT_IN_LOSS).sum()) for batch in batches)

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward on one batch; gradients add up until the step is whole."""
        model.train()
        loss = self.finetuner.loss_sum(Batch(**inputs)) / num_items_in_batch
        loss.backward()
        self.step_loss = self.step_loss.to(loss.device) + loss.detach()
        return loss.detach()

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Not counted: see `Finetuner.flops_per_token`."""
        return 0


class _Between(transformers.TrainerCallback):
    """What the lab does at the step boundaries of transformers' Trainer."""

    def __init__(self, trainer: _Trainer, random: dict[str, Any]) -> None:
        self._trainer, self._finetuner, self._random = trainer, trainer.finetuner, random
        self._first = True
        self._begin = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Requests, before anything of the step is computed."""
        if self._first:
            restore_random(self._random)
            self._first = False
        self._finetuner.control.handle_requests(self._finetuner)
        self._trainer.step_loss = torch.zeros(())
        self._begin = time.perf_counter()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Gradients are clipped, and looked at before they can spoil the weights."""
        tuner, trainer = self._finetuner, self._trainer
        learning = [parameter for parameter in tuner.model.parameters() if parameter.requires_grad]
        limit = tuner.settings.train.grad_clip or math.inf
        grad_norm = torch.nn.utils.clip_grad_norm_(learning, limit, foreach=True)
        step = tuner.progress.step
        lr = learning_rate(step, tuner.settings.train)
        self._result = StepResult(step + 1, trainer.step_loss, grad_norm, lr, trainer.step_tokens, tuner.device)
        tuner.require_finite(self._result)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self._finetuner.after_step(self._result, self._begin)
        if not self._finetuner.goes_on:
            control.should_training_stop = True
        return control


class _Batches(Dataset[dict[str, Tensor]]):
    """The training batches from where a run stands to its end."""

    def __init__(self, finetuner: Finetuner) -> None:
        self._data = finetuner.data
        train, begin = finetuner.settings.train, finetuner.progress.step
        self._begin, self._count = begin * train.grad_accum, (train.steps - begin) * train.grad_accum

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if index >= self._count:
            raise IndexError(index)
        batch = self._data.batch(self._begin + index)
        return {name: value for name, value in vars(batch).items() if value is not None}


def _question(text: str) -> Example:
    return Example(0, (Message("user", text),))


def _vocab_size(model: nn.Module) -> int:
    plain: Any = base_model(model)
    config = getattr(plain, "config", None)
    return int(plain.vocab_size if config is None else config.get_text_config().vocab_size)
