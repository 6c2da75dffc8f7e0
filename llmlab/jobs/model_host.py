"""The model host: `python -m llmlab.jobs.model_host`, a process that holds a model and answers the window.

The window never imports torch and must survive a crash here. Requests come as JSON lines on stdin, answers go as
JSON lines to stdout; each answer carries its request's id. REF is a reference (llmlab.models.reference).

    {"id": 1, "do": "open", "model": REF}                         -> opened (about: llmlab.models.replies.About)
    {"id": 2, "do": "tokenize", "model": REF, "text": TEXT, "beginning": BOOL}
                                                                  -> tokens (ids, texts, beginning: id or null)
     or, to learn what tokens read like, "ids": [...] in place of the text
    {"id": 3, "do": "ask", "model": REF, "question": NAME, "values": {...}, "out": PATH}
         -> part (path: what was found so far, the asker's from now on) ..., answered (path, seconds)
    {"id": 4, "do": "compare", "models": [REF, REF], "values": {...}, "out": PATH}   -> answered
    {"id": 5, "do": "evolve", "run": REF, "values": {...}, "out": PATH}              -> answered
    {"id": 10, "do": "change", "model": REF, "out": PATH}         -> answered (what fine-tuning changed)
    {"id": 7, "do": "generate", "model": REF, "prompt": TEXT, "tokens": N, "temperature": T, "top_k": K, "top_p": P,
     "min_p": P, "repetition_penalty": R, "seed": S, "top": N, "chat": BOOL}
         -> loading, token (llmlab.models.replies.WrittenToken) ..., done (seconds)
    {"id": 8, "do": "next", "model": REF, "prompt": TEXT, "top": N, "chat": BOOL}
                               -> loading, next (llmlab.models.replies.Expected)
    {"id": 9, "do": "preview", "model": REF, "settings": {...}, "seed": S, "place": N}
                                                  -> previewed (preview: see llmlab.data.example_preview)
     settings: of the section `data` of a fine-tuning run; place: which example, from 0
    {"id": 11, "do": "practice", "model": REF or "", "seed": N, "concept": PAGE, "without": [KIND, ...],
     "quick": true or false}
                                                  -> asked (question: see llmlab.practice.question, null for none left)
    {"id": 12, "do": "batch", "run": RUN, "step": N}             -> read (rows: [[text, loss or null], ...])
    {"do": "cancel", "id": 1}                                     -> cancelled

Long work says progress (what, done, total, eta_seconds or null) in between. Any of them may end with error (what,
why, do) instead. One model is in memory: the last one asked for. It answers as long as it is there, also when its
checkpoint was deleted meanwhile, as a run that trains does with those it no longer keeps. A comparison leaves it there
where the others fit beside it, an evolution where its checkpoint is gone. What tokens of that model read like is told
in the midst of long work, too: who looks at a part of it needs the words.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from weakref import WeakKeyDictionary

from llmlab.core.errors import Cancelled, LabError
from llmlab.core.paths import outputs_dir
from llmlab.core.progress import Every, TimeLeft
from llmlab.core.records import from_plain
from llmlab.core.settings import Sampling
from llmlab.data.tokenizers import TextTokenizer
from llmlab.models.held import HeldModel
from llmlab.models.live import ask_live, still
from llmlab.models.model import OpenModel
from llmlab.models.reference import LiveRun, Reference, SavedRun, parse
from llmlab.models.source import source_of
from llmlab.store.checkpoints import list_checkpoints

if TYPE_CHECKING:
    from torch import nn

    from llmlab.inspection.answers import Questions
    from llmlab.models.bigrams import Bigrams
    from llmlab.training.batches import Batches
    from llmlab.training.finetuning.preview import Previewer

# News between two frames of the window would only be drawn over.
_TELL_SECONDS = 0.1


class Host:
    """Answers one request after the other; keeps the model of the last one open."""

    def __init__(self, output: TextIO, outputs: Path | None = None) -> None:
        """outputs: where runs are found by their ids; the usual place if not given."""
        self._output = output
        self._outputs = outputs or outputs_dir()
        self._requests: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.cancelled: set[int] = set()
        self.held = HeldModel(self._outputs)
        self._bigrams: WeakKeyDictionary[nn.Module, Bigrams | str] = WeakKeyDictionary()  # of the held model
        self._previewer: Previewer | None = None
        self._batches: tuple[object, Batches] | None = None  # of the run that was asked about last, by its workers
        self._live_tokenizer: tuple[Path, TextTokenizer] | None = None  # of a run that fine-tunes, by its folder

    def listen(self, lines: Iterable[str | bytes]) -> None:
        """Reads requests until the input ends; meant for a thread, so that a cancel is heard during an answer.

        Whatever a line holds, the next one is heard.
        """
        for line in lines:
            try:
                request = json.loads(line)
                if request["do"] == "cancel":
                    self.cancelled.add(int(request["id"]))
                else:
                    self._requests.put(request | {"id": int(request["id"])})
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                print(f"Not a request: {line[:200]!r}", file=sys.stderr)
        self._requests.put(None)

    def answer_all(self) -> None:
        while (request := self._requests.get()) is not None:
            self._answer_or_say_why(request)

    def _answer_or_say_why(self, request: dict[str, Any]) -> None:
        turn = _Turn(self, request["id"])
        try:
            turn.stop_if_cancelled()
            self._answer(turn, request)
        except Cancelled:
            turn.send("cancelled")
        except LabError as error:
            turn.send("error", **error.as_dict())
        except BrokenPipeError:
            raise
        except Exception as error:  # whatever a hostile request or checkpoint causes: the host lives on
            traceback.print_exc()
            turn.send("error", what="The model could not answer.", why=f"{error}", do="")
        self.cancelled.discard(turn.number)

    def _answer(self, turn: _Turn, request: dict[str, Any]) -> None:
        match request["do"]:
            case "ask" | "compare" | "evolve" | "change" as do:
                use_free_cores(self._outputs)
                begin = time.perf_counter()
                out = Path(request["out"])
                getattr(self, f"_{do}")(turn, request, out)
                turn.send("answered", path=str(out), seconds=time.perf_counter() - begin)
            case "open" | "tokenize" | "generate" | "next" | "preview" | "practice" | "batch" as do:
                getattr(self, f"_{do}")(turn, request)
            case unknown:
                raise LabError(f"The model host cannot {unknown!r}.")

    def _open(self, turn: _Turn, request: dict[str, Any]) -> None:
        from llmlab.models.about import about, about_live

        reference = self._parse(request["model"])
        if isinstance(reference, LiveRun):
            described = about_live(reference, turn)
        else:
            opened = self._model(turn, reference)
            turn("Finding its parts", 0, 0)
            described = about(opened)
        turn.send("opened", about=asdict(described))

    def _tokenize(self, turn: _Turn, request: dict[str, Any]) -> None:
        from llmlab.inspection.readout import text_of

        tokenizer = self._tokenizer(turn, self._parse(request["model"]))
        if "ids" in request:
            ids = [int(id) for id in request["ids"]]
        else:
            ids = tokenizer.encode(str(request["text"]).encode(errors="replace").decode())
            if request.get("beginning") and tokenizer.beginning is not None:
                ids = [tokenizer.beginning, *ids]
        texts = [text_of(tokenizer, id) for id in ids]
        turn.send("tokens", ids=ids, texts=texts, beginning=tokenizer.beginning)

    def _tokenizer(self, turn: _Turn, reference: Reference) -> TextTokenizer:
        """That of a run trained from scratch needs no weights; a live run that fine-tunes has that of its base."""
        from llmlab.models.scratch import text_tokenizer

        if isinstance(reference, (LiveRun, SavedRun)) and not reference.run.fine_tunes:
            return text_tokenizer(reference.run)
        if not isinstance(reference, LiveRun):
            return self._model(turn, reference).tokenizer
        if self._live_tokenizer is None or self._live_tokenizer[0] != reference.run.path:
            self._live_tokenizer = reference.run.path, source_of(reference).tokenizer()
        return self._live_tokenizer[1]

    def _ask(self, turn: _Turn, request: dict[str, Any], out: Path) -> None:
        from llmlab.inspection.answers import answer_question

        reference, question, values = self._parse(request["model"]), str(request["question"]), dict(request["values"])
        walks: Questions | None = None
        if question.startswith("walk"):
            from llmlab.walk.answers import walks_of

            reference = still(reference)
            walks = walks_of(reference)
        if isinstance(reference, LiveRun):
            ask_live(reference, question, values, out, turn)
        else:
            opened = self._model(turn, reference)
            answer_question(opened, question, values, out, turn, lambda path: turn.send("part", path=str(path)), walks)

    def _compare(self, turn: _Turn, request: dict[str, Any], out: Path) -> None:
        from llmlab.inspection.compare import Compare, compare_opened
        from llmlab.inspection.questions import from_values

        first, second = (partial(self.held.beside, self._parse(model)) for model in request["models"])
        compare_opened(first, second, from_values(Compare, request["values"]), out, turn)

    def _evolve(self, turn: _Turn, request: dict[str, Any], out: Path) -> None:
        from llmlab.inspection.evolve import evolve

        run, values = str(request["run"]), dict(request["values"])
        self.held.with_room(lambda: evolve(run, self._outputs, values, out, turn))

    def _change(self, turn: _Turn, request: dict[str, Any], out: Path) -> None:
        """Reads files alone: the model that is open stays."""
        from llmlab.inspection.weight_change import write_change

        write_change(str(request["model"]), self._outputs, out, turn)

    def _generate(self, turn: _Turn, request: dict[str, Any]) -> None:
        from llmlab.models.generation import write

        begin = time.perf_counter()
        model = self._model(turn, self._parse(request["model"]), announce=True)
        written = write(
            model,
            str(request["prompt"]),
            int(request["tokens"]),
            from_plain(Sampling, request),
            seed=int(request["seed"]),
            top=int(request["top"]),
            chat=bool(request.get("chat")),
        )
        for token in written:
            turn.stop_if_cancelled()
            turn.send("token", **asdict(token))
        turn.send("done", seconds=time.perf_counter() - begin)

    def _next(self, turn: _Turn, request: dict[str, Any]) -> None:
        from llmlab.models.bigrams import bigrams_of
        from llmlab.models.generation import next_tokens

        reference = self._parse(request["model"])
        opened = self._model(turn, reference, announce=True)
        if (known := self._bigrams.get(opened.model)) is None:
            known = self._bigrams[opened.model] = bigrams_of(reference, opened)
        bigrams, why = (None, known) if isinstance(known, str) else (known, "")
        prompt, chat = str(request["prompt"]), bool(request.get("chat"))
        found = next_tokens(opened, prompt, int(request["top"]), chat=chat, bigrams=bigrams, progress=turn)
        turn.send("next", **asdict(replace(found, no_bigrams=why)))

    def _preview(self, turn: _Turn, request: dict[str, Any]) -> None:
        """Examples as a model will read them; needs no weights, and leaves the open model where it is."""
        from llmlab.core.config import with_values
        from llmlab.core.finetuning_settings import FinetuneSettings
        from llmlab.training.finetuning.preview import Previewer

        if self._previewer is None:
            self._previewer = Previewer(self._outputs)
        values = {f"data.{name}": value for name, value in dict(request["settings"]).items()}
        preview = self._previewer.preview(
            str(request["model"]),
            with_values(FinetuneSettings(), values).data,
            int(request["seed"]),
            int(request["place"]),
            turn,
        )
        turn.send("previewed", preview=asdict(preview))

    def _practice(self, turn: _Turn, request: dict[str, Any]) -> None:
        """The next question about a model, of a run that trains its newest checkpoint; without one, about a preset."""
        from llmlab.practice.deck import Deck
        from llmlab.practice.kinds import handful
        from llmlab.practice.subject import Subject

        use_free_cores(self._outputs)
        reference = self._parse(request["model"]) if request["model"] else None
        if isinstance(reference, LiveRun) and list_checkpoints(reference.run.checkpoints):
            reference = SavedRun(reference.run, reference.named)
        subject = Subject(reference, self._outputs, turn, partial(self._model, turn))
        record, concept = Deck(self._outputs).read(), str(request.get("concept") or "")
        without, quick = [str(kind) for kind in request.get("without", ())], bool(request.get("quick"))
        asked = handful(
            subject, record, 1, int(request["seed"]), time.time(), concept=concept, without=without, quick=quick
        )
        question = next(asked, None)
        turn.send("asked", question=question.as_dict() if question is not None else None)

    def _batch(self, turn: _Turn, request: dict[str, Any]) -> None:
        """What a step of a run read."""
        from llmlab.store.history import read_history
        from llmlab.store.registry import resolve_run
        from llmlab.training.batches import Batches

        use_free_cores(self._outputs)
        run = resolve_run(str(request["run"]), self._outputs).run
        history = read_history(run, every_step=False)
        asked = (run.path, history.workers)
        if self._batches is None or self._batches[0] != asked:
            self._batches = asked, Batches(run, history)
        rows = self._batches[1].rows(int(request["step"]), lambda text: self._model(turn, self._parse(text)), turn)
        turn.send("read", rows=[[row.text, row.loss] for row in rows])

    def _parse(self, text: Any) -> Reference:
        return parse(str(text), self._outputs)

    def _model(self, turn: _Turn, reference: Reference, *, announce: bool = False) -> OpenModel:
        """The model, opened unless it is. announce: say `loading` first, as `generate` and `next` do."""
        return self.held.model(reference, turn, partial(turn.send, "loading") if announce else None)

    def tell_texts(self) -> None:
        """Answers whoever waits to hear what tokens of the open model read like, before all others."""
        with self._requests.mutex:
            waiting = self._requests.queue
            asked = [request for request in waiting if request and self._is_quick(request)]
            for request in asked:
                waiting.remove(request)
        for request in asked:
            self._answer_or_say_why(request)

    def _is_quick(self, request: dict[str, Any]) -> bool:
        if request["do"] != "tokenize" or "ids" not in request:
            return False
        try:
            return self.held.is_of(self._parse(request.get("model")))
        except (LabError, OSError):  # it is said when its turn comes
            return False

    def send(self, number: int, event: str, **values: Any) -> None:
        self._output.write(json.dumps({"id": number, "event": event, **values}) + "\n")
        self._output.flush()


def use_free_cores(outputs: Path) -> None:
    """Gives torch every core, or half of them while a run trains here: threads that compete wait by spinning."""
    import torch

    from llmlab.core.device import available_cores
    from llmlab.store.registry import list_runs

    cores = available_cores()
    training = any(run.status().live for run in list_runs(outputs))
    torch.set_num_threads(max(1, cores // 2) if training else cores)


class _Turn:
    """One request that is answered. Called with progress, it tells it, with the time left as far as it can be guessed:
    when a part of the work begins, and ten times a second at most."""

    def __init__(self, host: Host, number: int) -> None:
        self.number = number
        self._host, self._part = host, ""
        self._left, self._news = TimeLeft(), Every(_TELL_SECONDS)

    def __call__(self, what: str, done: float, total: float) -> None:
        self.stop_if_cancelled()
        self._host.tell_texts()
        left = self._left.seconds(what, done, total)
        if self._news.due() or what != self._part:
            self._part = what
            self.send("progress", what=what, done=done, total=total, eta_seconds=left)

    def send(self, event: str, **values: Any) -> None:
        self._host.send(self.number, event, **values)

    def stop_if_cancelled(self) -> None:
        """Raises Cancelled when the request is no longer wanted."""
        if self.number in self._host.cancelled:
            raise Cancelled()


def main() -> None:
    """Serves stdin until it ends. What libraries print goes to stderr: stdout is for answers alone."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    host = Host(output)
    threading.Thread(target=host.listen, args=(sys.stdin.buffer,), daemon=True).start()
    host.answer_all()


if __name__ == "__main__":
    main()
