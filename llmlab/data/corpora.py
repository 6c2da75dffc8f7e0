"""The corpora by name, and a learner's own files by path."""

from __future__ import annotations

import os

from llmlab.core.errors import UsageError, did_you_mean
from llmlab.core.paths import expanded
from llmlab.core.progress import Progress, quiet
from llmlab.core.settings import mixture_parts
from llmlab.data.corpus import Corpus
from llmlab.data.embedded_corpora import embedded_corpora
from llmlab.data.fetched_corpora import fetch, fetched_corpora
from llmlab.data.mixture import mixed_corpus
from llmlab.data.own_texts import own_corpus
from llmlab.data.shards import built_corpora, require_finished
from llmlab.data.stories import stories_corpus

__all__ = ["Corpus", "corpora", "fetch", "find_corpus"]


def corpora() -> list[Corpus]:
    """Every corpus that has a name, those that are always here first, those that were built here last."""
    return [*embedded_corpora(), stories_corpus(), *fetched_corpora(), *built_corpora()]


def find_corpus(name_or_path: str, progress: Progress = quiet) -> Corpus:
    """The corpus of that name, else the text at that path, else the mixture (`books:0.7,web:0.3`). UsageError naming
    the nearest when there is none of these.

    progress: of looking through a folder.
    """
    named = {corpus.name: corpus for corpus in corpora()}
    if name_or_path in named:
        return named[name_or_path]
    path = expanded(name_or_path)
    if name_or_path and os.path.exists(path):  # false, and no error, where it may not be looked at
        return own_corpus(path, progress)
    if parts := mixture_parts(name_or_path):
        return mixed_corpus(parts, lambda name: find_corpus(name, progress))
    require_finished(name_or_path)
    hint = did_you_mean(name_or_path, named) or "A path names a .txt, .jsonl or .parquet file or a folder."
    raise UsageError(
        f"There is no corpus {name_or_path!r}, and no file or folder of that name.",
        f"There are: {', '.join(named)}.",
        hint,
    )
