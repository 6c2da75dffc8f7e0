"""FakeModelHost: a model host that answers in this process from random archives of known numbers. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QTimer

from llmlab.core.errors import LabError
from llmlab.inspection.archive import Metadata, write_archive
from llmlab_gui.host.messages import ModelAbout, TokenizedPrompt
from llmlab_gui.host.process import Request
from llmlab_gui.host.selection import PromptToken, Working

LAYERS, HEADS, WIDTH, TOP = 4, 3, 8, 5
Tensors = dict[str, np.ndarray]
Made = tuple[Tensors, dict[str, str]]


class FakeModelHost:
    """Words are tokens, and their ids are their places in `vocabulary`. `held`: requests that wait for `release`."""

    def __init__(self, refusals: Mapping[str, str] | None = None) -> None:
        self.refusals = dict(refusals or {})
        self.kind = "scratch"  # of models that do not train
        self.context = 5000
        self.vocabulary: list[str] = [f"w{number}" for number in range(500)]
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.cancelled: list[Request] = []
        self.hold: set[str] = set()
        self.fail: dict[str, LabError] = {}
        self.answers: dict[str, Callable[[FakeModelHost, Mapping[str, Any], list[int]], Made]] = {
            "inspect": make_inspection
        }
        self._held: dict[Request, Callable[[], None]] = {}
        self._waiting: set[Request] = set()
        self._closed = False

    def open(self, model: str) -> Request:
        about = ModelAbout(
            reference=model, name=model, kind="live" if model.endswith("@live") else self.kind, step=150,
            parameters=1000, bytes=4000, family="GPT", n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH, vocab_size=500,
            context=self.context, refusals=self.refusals,
        )  # fmt: skip

        def go(request: Request) -> None:
            if "open" in self.fail:
                request.end(request.failed, self.fail["open"])
            else:
                request.end(request.answered, about)

        return self._later("open", go)

    def tokenize(self, model: str, text: str, beginning: bool) -> Request:
        cuts = tuple(PromptToken(id, self.vocabulary[id]) for id in self.ids_of(text))

        def go(request: Request) -> None:
            if "tokenize" in self.fail:
                request.end(request.failed, self.fail["tokenize"])
            else:
                request.end(request.answered, TokenizedPrompt(cuts))

        return self._later("tokenize", go)

    def texts(self, model: str, ids: Sequence[int]) -> Request:
        cuts = tuple(PromptToken(id, self.vocabulary[id]) for id in ids)
        return self._later("texts", lambda request: request.end(request.answered, TokenizedPrompt(cuts)))

    def ask(self, model: str, question: str, values: Mapping[str, Any], out: Path) -> Request:
        return self._answer(question, model, values, out)

    def compare(self, first: str, second: str, values: Mapping[str, Any], out: Path) -> Request:
        return self._answer("compare", f"{first}|{second}", values, out)

    def evolve(self, run: str, values: Mapping[str, Any], out: Path) -> Request:
        return self._answer("evolve", run, values, out)

    def change(self, model: str, out: Path) -> Request:
        return self._answer("change", model, {}, out)

    def cancel(self, request: Request) -> None:
        if request in self._waiting:
            self._waiting.remove(request)
            self._held.pop(request, None)
            self.cancelled.append(request)
            QTimer.singleShot(0, lambda: request.deleteLater() if self._closed else request.end(request.cancelled))

    def shutdown(self) -> None:
        """As the host's: unanswered requests end silently."""
        self._closed = True
        for request in self._waiting:
            request.deleteLater()
        self._held.clear()
        self._waiting.clear()

    def release(self) -> None:
        """Answers what was held."""
        held, self._held = self._held, {}
        for go in held.values():
            go()

    def tell_progress(self, what: str, done: float, total: float, eta: float | None = None) -> None:
        """Of every held request."""
        for request in self._held:
            request.tell(request.progressed, Working(what, done / total, eta))

    def ids_of(self, text: str) -> list[int]:
        for word in text.split():
            if word not in self.vocabulary:
                self.vocabulary.append(word)
        return [self.vocabulary.index(word) for word in text.split()]

    def _answer(self, question: str, model: str, values: Mapping[str, Any], out: Path) -> Request:
        self.asked.append((question, dict(values)))
        ids = [*values.get("ids", self.ids_of(values.get("text", "")))]

        def go(request: Request) -> None:
            if question in self.fail:
                request.end(request.failed, self.fail[question])
                return
            tensors, more = self.answers[question](self, values, ids)
            words = [self.vocabulary[id] for id in ids]
            about = Metadata(question, model, "0" * 64, ids, words, question=dict(values), more=more)
            write_archive(out, tensors, about)
            request.end(request.answered, out)

        return self._later(question, go)

    def _later(self, what: str, go: Callable[[Request], None]) -> Request:
        request = Request(lambda: self.cancel(request))

        def answer() -> None:
            if request in self._waiting:
                self._waiting.remove(request)
                go(request)

        self._waiting.add(request)
        if what in self.hold:
            self._held[request] = answer
        else:
            QTimer.singleShot(0, answer)
        return request


def make_inspection(host: FakeModelHost, values: Mapping[str, Any], ids: list[int]) -> Made:
    """Random numbers, the same for the same question; an attribution's bars sum to its logit."""
    dice = np.random.default_rng(abs(hash((tuple(ids), values.get("position", -1)))) % 2**32)
    count, rows = len(ids), 2 * LAYERS + 1
    tensors: Tensors = {}
    more: dict[str, str] = {}
    for what in values["what"]:
        if what == "contributions":
            for point in ("pre_attn", "attn_out", "post_attn", "mlp_out", "post_ffn"):
                tensors[f"contributions/norm/{point}"] = dice.uniform(1, 9, (LAYERS, count))
            for part in ("attention", "feed_forward", "block"):
                tensors[f"contributions/cosine/{part}"] = dice.uniform(-1, 1, (LAYERS, count))
            tensors["contributions/heads"] = dice.uniform(0, 2, (LAYERS, HEADS, count))
            shares = dice.normal(size=(2 * LAYERS + 1, count))
            shares /= shares.sum(axis=0)
            tensors["contributions/share/embedding"] = shares[0]
            tensors["contributions/share/attention"] = shares[1 : LAYERS + 1]
            tensors["contributions/share/feed_forward"] = shares[LAYERS + 1 :]
        elif what == "attribution":
            tensors |= _attribution(dice)
            answer = values.get("answer") or host.vocabulary[7]
            against = values.get("against") or ""
            more |= {"position": str(values.get("position", -1)), "answer": "7", "answer_text": answer}
            more |= {"against": "", "against_text": against}
        elif what == "lens":
            chances = np.sort(dice.uniform(size=(rows, count, TOP)), axis=-1)[..., ::-1]
            tensors["lens/ids"] = dice.integers(0, 300, (rows, count, TOP)).astype(np.int32)
            tensors["lens/probability"] = chances / 6
            tensors["lens/rank"] = dice.integers(1, 200, (rows, count)).astype(np.int32)
            tensors["lens/target_probability"] = dice.uniform(size=(rows, count))
            tensors["lens/entropy"] = dice.uniform(0, 5, (rows, count))
            tensors["lens/kl"] = dice.uniform(0, 5, (rows, count))
        elif what == "heads":
            for score in ("entropy", "previous", "first", "distance", "duplicate", "induction"):
                tensors[f"heads/{score}"] = dice.uniform(size=(LAYERS, HEADS))
            tensors["heads/mosaic"] = dice.uniform(size=(LAYERS, HEADS, count, count))
    return tensors, more


def _attribution(dice: np.random.Generator) -> Tensors:
    heads, bias = dice.normal(size=(LAYERS, HEADS)), dice.normal(size=LAYERS)
    attention, feed_forward = heads.sum(axis=1) + bias, dice.normal(size=LAYERS)
    embedding, constant = dice.normal(size=1), dice.normal(size=1)
    whole = embedding + constant + attention.sum() + feed_forward.sum()
    return {
        "attribution/heads": heads, "attribution/attention_bias": bias, "attribution/attention": attention,
        "attribution/feed_forward": feed_forward, "attribution/embedding": embedding, "attribution/bias": constant,
        "attribution/sum": whole, "attribution/logit": whole,
    }  # fmt: skip
