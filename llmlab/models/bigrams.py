"""What follows a token in the text that a run was trained on: what a bigram model would say where the run's does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from llmlab.core.errors import LabError
from llmlab.core.mystery_settings import MysterySettings
from llmlab.core.progress import Progress, quiet
from llmlab.core.settings import PretrainSettings
from llmlab.data.corpora import find_corpus
from llmlab.data.dataset import saved_training_tokens
from llmlab.data.mixture import MixedCorpus
from llmlab.data.sharded_tokens import Tokens
from llmlab.data.tokenizers import Tokenizer
from llmlab.models.model import OpenModel
from llmlab.models.reference import Reference, SavedRun
from llmlab.models.replies import BigramShares
from llmlab.store.run_log import first_started

# Tokens looked at once: 8 MB of uint16.
_BLOCK = 1 << 22
# Of a larger text only the beginning is counted, since someone types meanwhile: 0.04 to 0.5 s on one core, longer for
# a frequent token.
_MOST_TOKENS = 100_000_000
# The most frequent followers that are named, whatever the model expects.
_NAMED = 3


class Bigrams:
    """Counts the pairs of a text that begin with one token; keeps those of the last one asked about."""

    def __init__(self, tokens: Tokens, vocab_size: int) -> None:
        """tokens: of the training split, [tokens]."""
        self._beginning = _MOST_TOKENS if len(tokens) > _MOST_TOKENS else 0
        self._tokens, self._vocab_size = tokens[:_MOST_TOKENS], vocab_size
        self._known: tuple[int, np.ndarray] | None = None

    def followers(self, last: int, progress: Progress = quiet) -> np.ndarray:
        """How often each id comes right after `last`, int64 [vocabulary], in constant memory. Raises Cancelled, and
        ValueError for an id beyond the vocabulary."""
        if self._known is None or self._known[0] != last:
            counts = np.zeros(self._vocab_size, dtype=np.int64)
            for start in range(0, len(self._tokens) - 1, _BLOCK):
                progress("Counting bigrams", start, len(self._tokens))
                block = np.asarray(self._tokens[start : start + _BLOCK + 1])
                counts += np.bincount(block[1:][block[:-1] == last], minlength=self._vocab_size)
            self._known = last, counts
        return self._known[1]

    def beside(
        self, p: np.ndarray, ids: Sequence[int], last: int, text_of: Callable[[int], str], progress: Progress = quiet
    ) -> BigramShares | None:
        """The shares of `ids` after `last`, each token's text by `text_of`; None where the tokens are damaged. p: the
        model's distribution, [vocabulary]. Raises Cancelled."""
        try:
            counts = self.followers(last, progress)
        except ValueError:  # of shards; a training run says so
            return None
        occurrences = int(counts.sum())
        if not occurrences:
            return BigramShares(text_of(last), 0, (), 0.0, (), self._beginning)
        shares = counts / occurrences
        overlap = float(np.minimum(p, shares).sum())
        first = [int(id) for id in np.argsort(-counts, kind="stable")[:_NAMED] if counts[id]]
        most = tuple((text_of(id), float(shares[id])) for id in first)
        asked = tuple(shares[list(ids)].tolist())
        return BigramShares(text_of(last), occurrences, asked, overlap, most, self._beginning)


def bigrams_of(reference: Reference, opened: OpenModel) -> Bigrams | str:
    """Those of the text that a run from scratch was trained on; why there are none of another run; "" for a model that
    is no run, whose text nobody expects here."""
    if not isinstance(reference, SavedRun):
        return ""
    gone = "its training text is not here any more"
    try:
        settings, began = reference.run.info().settings, first_started(reference.run)
        if isinstance(settings, MysterySettings):
            return "a mystery does not show what it read"
        if not isinstance(settings, PretrainSettings) or not isinstance(opened.tokenizer, Tokenizer):
            return "it was not trained from scratch on a text"
        if isinstance(find_corpus(settings.data.corpus), MixedCorpus):
            return "its text is a mixture of sources"
        if began is None:
            return gone
        tokens = saved_training_tokens(settings.data, opened.tokenizer.key(), began.data_key)
    except (LabError, OSError):  # the run or its text is gone
        return gone
    return gone if tokens is None else Bigrams(tokens, opened.vocab_size)
