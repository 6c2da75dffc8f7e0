"""The training of a GPT with pieces of the learner's own: this process runs their code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from llmlab.anatomy.modules import evaluating
from llmlab.core.rebuilt_settings import RebuiltSettings
from llmlab.core.settings import Sampling
from llmlab.data.dataset import Dataset
from llmlab.exercises.functions import load_functions
from llmlab.exercises.own_tokens import OwnEncoding
from llmlab.exercises.put_in import KeptCache, rebuilt
from llmlab.gpt.generate import choose
from llmlab.store.run_folder import RunFolder
from llmlab.training.loop import Trainer
from llmlab.training.optimizer import make_pretraining_optimizer
from llmlab.training.plain_optimizer import AdamW
from llmlab.training.workplace import StepResult, Workplace

_TOP_P = 0.95  # of samples that the learner's own function draws; ours have top_k, which theirs has no place for


class RebuiltTrainer(Trainer):
    """As `Trainer`, with the pieces that lie in the run's folder."""

    settings: RebuiltSettings

    def __init__(self, place: Workplace, settings: RebuiltSettings, data: Dataset) -> None:
        self.functions = load_pieces(place.run, settings.pieces.yours)
        self.encode: Callable[[str], list[int]] = data.tokenizer.encode
        if (encode := self.functions.get("encode")) is not None:
            self.encode = own = OwnEncoding(data.tokenizer, encode)
            data = replace(data, train=own.again(data.train, place.tell), val=own.again(data.val, place.tell))
        super().__init__(place, settings, data)
        torch.manual_seed(settings.train.seed)
        self.model = rebuilt(settings.model, data.tokenizer.vocab_size, self.functions).to(place.device.kind)
        self.optimizer = make_pretraining_optimizer(self.model, settings.train)
        self.optimizer.__class__ = type("RebuiltAdamW", (RebuiltAdamW,), {"functions": self.functions})
        self._loss_of = self.model.loss

    def optimizer_step(self) -> StepResult:
        if (rate := self.functions.get("learning_rate")) is None:
            return super().optimizer_step()
        train, optimizer = self.settings.train, self.optimizer
        assert isinstance(optimizer, RebuiltAdamW)
        step = self.progress.step
        optimizer.rate = float(
            rate(step, train.steps, train.warmup_steps, train.learning_rate, train.min_learning_rate)
        )
        return replace(super().optimizer_step(), lr=optimizer.rate)

    def plain_model(self) -> nn.Module:
        """The lab's own model with the same weights: panels read it by its modules."""
        model = self._whole()
        for name, parameter in self.model.named_parameters():
            model.get_parameter(name).grad = parameter.grad
        return model

    def continuations(self, prompts: Sequence[str], seed: int) -> list[dict[str, str]]:
        if not {"probabilities", "attend", "encode"} & self.functions.keys():
            return super().continuations(prompts, seed)
        with evaluating(self.model), torch.no_grad():
            texts = [self._written(prompt, seed + number) for number, prompt in enumerate(prompts)]
        return [{"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)]

    def _written(self, prompt: str, seed: int) -> str:
        """A sample, token by token, with the learner's cache and distribution where they are there."""
        tokenizer, samples = self.data.tokenizer, self.settings.samples
        context, generator = self.settings.model.block_size, torch.Generator().manual_seed(seed)
        start = self.encode(prompt) or [tokenizer.end_of_text or 0]
        ids, cache = start[-context:], KeptCache(self.settings.model.n_layer)
        begun, unread = len(ids), list(ids)
        for _ in range(samples.tokens):
            if "attend" in self.functions and len(ids) <= context:
                logits = self._next(unread, cache, len(ids) - len(unread))
            else:
                logits = self.model(torch.tensor([ids[-context:]], device=self.device.kind))[0, -1]
            logits = logits[: self.model.vocab_size].float().cpu()
            if (probabilities := self.functions.get("probabilities")) is not None:
                p = probabilities(logits, samples.temperature, _TOP_P)
                chosen = int(torch.multinomial(p, 1, generator=generator))
            else:
                chosen = choose(logits, Sampling(samples.temperature, samples.top_k), ids, generator).id
            ids.append(chosen)
            unread = [chosen]
        return tokenizer.decode(ids[begun:])

    def _next(self, unread: list[int], cache: KeptCache, read: int) -> Tensor:
        """Logits [V] of the token after `unread` ones, which follow `read` that are in the cache."""
        device = self.device.kind
        cache.positions = torch.arange(read, read + len(unread), device=device)[None]
        stream = self.model.residual_stream(torch.tensor([unread], device=device), cache)
        return self.model.logits(stream[0, -1])


class RebuiltAdamW(AdamW):
    """With the learner's step and learning rate, where they are there; its state has torch's names."""

    functions: dict[str, Callable[..., Any]]
    rate: float | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        if self.rate is not None:
            for group in self.param_groups:
                group["lr"] = self.rate
        if (adamw := self.functions.get("adamw")) is None:
            return super().step()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight in (one for one in group["params"] if one.grad is not None):
                kept = self.state[weight]
                if not kept:
                    kept["step"] = torch.zeros((), device=weight.device)
                    kept["exp_avg"], kept["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
                kept["step"] += 1
                new, kept["exp_avg"], kept["exp_avg_sq"] = adamw(
                    weight.detach(),
                    weight.grad,
                    kept["exp_avg"],
                    kept["exp_avg_sq"],
                    int(kept["step"]),
                    group["lr"],
                    beta1,
                    beta2,
                    group["eps"],
                    group["weight_decay"],
                )
                weight.copy_(new)
        return None


def load_pieces(run: RunFolder, names: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """The functions of a run's pieces, by their names. LabError as `load_functions`."""
    functions: dict[str, Callable[..., Any]] = {}
    for name in names:
        functions |= load_functions(name, run.pieces / f"{name}.py")
    return functions
