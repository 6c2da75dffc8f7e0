"""Examples before a run: which tokens are in the loss, masked or truncated, and which lines are unusable."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np

from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import ExampleSettings
from llmlab.core.progress import Progress
from llmlab.data.chat_formats import chat_format
from llmlab.data.example_preview import (
    HELD_OUT,
    IN_LOSS,
    LEFT_OUT,
    MASKED,
    TRAIN,
    TRUNCATED,
    Preview,
    PreviewExample,
    PreviewToken,
)
from llmlab.data.examples import read_source
from llmlab.data.finetuning_data import FinetuningData, encode_source, split_data
from llmlab.data.tokenizers import TextTokenizer
from llmlab.models.reference import parse
from llmlab.models.source import source_of
from llmlab.training.finetuning.packing import packing_refusal

_MOST_BAD = 1000  # bad lines in one preview
_MOST_TOKENS = 4096  # tokens of one example in a preview
# Widths of a histogram's bins: the smallest that makes no more than so many.
_WIDTHS = (1, 2, 5)
_MOST_BINS = 60
_WHOLE = 1 << 40  # a maximal length that cuts nothing


class ExamplePreviews:
    """A source read with one model's tokenizer: a summary, and each example token by token.

    LabError and UsageError as `load_finetuning_data`, but for what only says that too little is left to train on: that
    is the preview's `trouble`.
    """

    def __init__(
        self, settings: ExampleSettings, seed: int, tokenizer: TextTokenizer, context: int, progress: Progress
    ) -> None:
        """context: the longest row that the model can read; 0 if unknown."""
        self._settings, self._tokenizer, self._context = settings, tokenizer, context
        source = read_source(settings.source, progress, settings.max_examples)
        self._encoded = encode_source(source, chat_format(tokenizer), settings, context, progress)
        self._data: FinetuningData | None = None
        self._trouble: tuple[str, str, str] | None = None
        try:
            self._encoded.check()
            self._data = split_data(self._encoded, settings, seed, progress)
        except LabError as error:
            self._trouble = (error.what, error.why, error.do)

    def __len__(self) -> int:
        return len(self._encoded.lengths)

    def preview(self, place: int = 0) -> Preview:
        """The summary, with the example at `place` (from 0; beyond the ends, the nearest)."""
        encoded, data = self._encoded, self._data
        lengths = sorted(length for _, length in encoded.lengths)
        width = _bin_width(lengths[-1]) if lengths else 1
        usable = [one for _, one in encoded.usable]
        return Preview(
            source=encoded.source.name,
            origin=encoded.source.origin,
            template=encoded.chat.name,
            examples=len(self),
            train=len(data.train) if data else 0,
            held_out=len(data.held_out) if data else 0,
            cut=sum(one.cut > 0 for one in usable),
            longer=sum(length > encoded.longest for length in lengths),
            tokens=sum(len(one.ids) for one in usable),
            trained=sum(sum(one.trained) for one in usable),
            filling=data.padding if data else 0.0,
            max_length=encoded.longest,
            context=self._context,
            shortest=lengths[0] if lengths else 0,
            median=round(statistics.median(lengths)) if lengths else 0,
            longest=lengths[-1] if lengths else 0,
            bin_width=width,
            lengths=_histogram(lengths, width),
            bad=tuple((line.number, line.why) for line in encoded.bad[:_MOST_BAD]),
            bad_total=len(encoded.bad),
            trouble=self._trouble,
            example=self._example(place) if len(self) else None,
        )

    def _example(self, place: int) -> PreviewExample:
        place = min(max(place, 0), len(self) - 1)
        example, length = self._encoded.lengths[place]
        whole = self._encoded.chat.encode(example, _WHOLE, self._settings.train_on)
        tokens = []
        for number, (id, trained) in enumerate(zip(whole.ids[:_MOST_TOKENS], whole.trained, strict=False)):
            state = TRUNCATED if number >= self._encoded.longest else IN_LOSS if trained else MASKED
            tokens.append(PreviewToken(id, self._tokenizer.token_text(id), state))
        return PreviewExample(place, example.number, self._part(place), length, tuple(tokens))

    def _part(self, place: int) -> str:
        example = self._encoded.lengths[place][0]
        data = self._data
        if data is None or not any(example is other for other, _ in self._encoded.usable):
            return LEFT_OUT
        return HELD_OUT if any(example is other for other in data.held_out_examples) else TRAIN


class Previewer:
    """Previews of one source after the other: the tokenizer and the source that were read last are kept."""

    def __init__(self, outputs: Path) -> None:
        """outputs: where runs are found by their ids."""
        self._outputs = outputs
        self._model: tuple[object, TextTokenizer, int] | None = None
        self._previews: tuple[object, ExamplePreviews] | None = None

    def preview(self, model: str, settings: ExampleSettings, seed: int, place: int, progress: Progress) -> Preview:
        """The summary, with the example at `place`. model: by its reference; its weights are not read.

        Raises as `ExamplePreviews`, and what opening the reference raises.
        """
        source = source_of(parse(model, self._outputs))
        opened = source.fingerprint()
        key = (opened, settings, seed, _stamp(settings.source))
        if self._previews is None or self._previews[0] != key:
            self._previews = None
            if self._model is None or self._model[0] != opened:
                progress("Reading the tokenizer", 0, 0)
                self._model = (opened, source.tokenizer(), source.context())
            _, tokenizer, context = self._model
            self._previews = key, ExamplePreviews(settings, seed, tokenizer, context, progress)
        found = self._previews[1].preview(place)
        refusal = packing_refusal(model, self._outputs) if settings.packing else None
        if refusal is None or found.trouble is not None:
            return found
        return replace(found, trouble=(refusal.what, refusal.why, refusal.do))


def _stamp(source: str) -> object:
    try:
        about = Path(source).expanduser().stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns


def _bin_width(longest: int) -> int:
    widths = (width * 10**scale for scale in itertools.count() for width in _WIDTHS)
    return next(width for width in widths if longest // width < _MOST_BINS)


def _histogram(lengths: list[int], width: int) -> tuple[int, ...]:
    """How many lengths there are in each bin of that width."""
    return tuple(np.bincount(np.array(lengths, np.int64) // width).tolist())
