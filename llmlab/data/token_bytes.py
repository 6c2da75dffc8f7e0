"""Which bytes of which character a token is: what people read as one letter may be several tokens of bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, groupby

BROKEN = re.compile(r"\\x[89a-f][0-9a-f]")  # in the text of a token: a byte that is no whole character


def character_parts(texts: Sequence[str]) -> list[str]:
    """Of each token of a text that has only some bytes of a character: `byte 2 of 3 of 你`; of the others ""."""
    parts: list[str] = []
    for broken, run in groupby(texts, lambda text: BROKEN.search(text) is not None):
        tokens = list(run)
        parts += _parts([_bytes(text) for text in tokens]) if broken else [""] * len(tokens)
    return parts


def character_part(texts: Sequence[str], place: int) -> str:
    """The same of the token at a place."""
    return character_parts(texts)[place] if BROKEN.search(texts[place]) else ""


def spelled(texts: Sequence[str]) -> str:
    """What tokens spell together; bytes that are no whole character even so are left out."""
    return b"".join(map(_bytes, texts)).decode(errors="ignore")


def _bytes(text: str) -> bytes:
    return re.sub(BROKEN.pattern.encode(), lambda found: bytes.fromhex(found[0][2:].decode()), text.encode())


def _parts(tokens: list[bytes]) -> list[str]:
    """The same of tokens that spell whole characters together; nothing where they do not."""
    try:
        characters = b"".join(tokens).decode()
    except UnicodeDecodeError:
        return [""] * len(tokens)
    ends = list(accumulate(len(character.encode()) for character in characters))
    parts, start = list[str](), 0
    for token in tokens:
        end, said = start + len(token), list[str]()
        for character, last in zip(characters, ends, strict=True):
            size = len(character.encode())
            begin, stop = max(start - (last - size), 0), min(end - (last - size), size)  # of its bytes, from 0
            if 0 < stop - begin < size:
                which = f"byte {stop}" if stop - begin == 1 else f"bytes {begin + 1} to {stop}"
                said.append(f"{which} of {size} of {character}")
        parts.append(" and ".join(said))
        start = end
    return parts
