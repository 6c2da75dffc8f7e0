"""Several corpora mixed by weights: `books:0.7,web:0.3` is a corpus whose sequences come from books and web in turn."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from llmlab.core.errors import UsageError
from llmlab.data.corpus import Corpus, Piece
from llmlab.data.shuffles import LONGEST_PERIOD


@dataclass(frozen=True)
class MixedCorpus(Corpus):
    """Its text is that of all sources, one after the other: of it, a vocabulary is learned.

    weights: shares of the sequences that are trained on, one a source; they sum to one.
    """

    sources: tuple[Corpus, ...]
    weights: tuple[Fraction, ...]

    def here(self) -> bool:
        return all(source.here() for source in self.sources)

    def pieces(self) -> Iterator[Piece]:
        for source in sorted(
            self.sources, key=lambda source: source.here()
        ):  # one that is not here says so before another is read
            yield from source.pieces()

    def content_key(self) -> str:
        parts = [f"{source.name} {source.content_key()}" for source in self.sources]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def mixed_corpus(parts: list[tuple[str, str]], find: Callable[[str], Corpus]) -> MixedCorpus:
    """The mixture of corpora by names or paths, with their weights. UsageError for weights that cannot be kept to."""
    sources = tuple(find(name) for name, _ in parts)
    given = [Fraction(weight) for _, weight in parts]
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise UsageError("A mixture names a corpus twice.", f"It names {', '.join(names)}.", "Add their weights.")
    if commas := [name for name in names if "," in name]:
        raise UsageError(
            f"{commas[0]} cannot be part of a mixture.",
            "A comma ends a name there.",
            "Rename or move the file or folder.",
        )
    if not all(given):
        raise UsageError("A weight of a mixture is 0.", "Its corpus would never be read.", "Leave it out.")
    weights = tuple(weight / sum(given) for weight in given)
    if math.lcm(*(weight.denominator for weight in weights)) > LONGEST_PERIOD:
        raise UsageError(
            "The weights of the mixture are too fine.",
            f"The shares come out even only after more than {LONGEST_PERIOD:,} sequences.",
            "Write them with fewer digits, so that they sum to 1.",
        )
    return MixedCorpus(
        name=",".join(f"{name}:{weight}" for name, (_, weight) in zip(names, parts, strict=True)),
        title=" + ".join(f"{float(100 * w):.3g} % {s.title}" for s, w in zip(sources, weights, strict=True)),
        description=f"A mixture of {len(sources)} texts.",
        kind="mixture",
        licence=", ".join(dict.fromkeys(source.licence for source in sources)),
        origin=", ".join(source.origin for source in sources),
        bytes=sum(source.bytes for source in sources),
        sources=sources,
        weights=weights,
    )
