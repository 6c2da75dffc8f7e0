"""Tokens of bytes say which bytes of which character they are."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab.data.token_bytes import character_parts, spelled
from llmlab.data.tokenizers import BpeTokenizer

TOKENIZER = BpeTokenizer([])  # the 256 bytes


@settings(max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\\"), max_size=12))
def test_every_byte_of_a_character_is_named_in_turn(text: str) -> None:
    tokens = [TOKENIZER.token_text(id) for id in TOKENIZER.encode(text)]
    parts = character_parts(tokens)
    assert spelled(tokens) == text
    wanted = []
    for character in text:
        size = len(character.encode())
        wanted += [f"byte {at} of {size} of {character}" if size > 1 else "" for at in range(1, size + 1)]
    assert parts == wanted


def test_tokens_of_several_bytes_name_them_and_what_spells_no_character_names_none() -> None:
    you = "你".encode()
    assert you == b"\xe4\xbd\xa0"
    assert character_parts(["a", r" \xe4\xbd", r"\xa0", "b"]) == [
        "",
        "bytes 1 to 2 of 3 of 你",
        "byte 3 of 3 of 你",
        "",
    ]
    assert (
        character_parts([r"\xe4", r"\xbd\xa0\xe5\xa5", r"\xbd"])[1]
        == "bytes 2 to 3 of 3 of 你 and bytes 1 to 2 of 3 of 好"
    )
    assert character_parts([r"\xe4\xbd"]) == [""]  # cut within
    assert spelled(["a", r"\xe4\xbd"]) == "a"
    assert spelled(["\\", "x", "41"]) == r"\x41"  # as it was written, in tokens of whole characters
    assert spelled([r"\x41"]) == r"\x41"  # and in one: a byte below 128 is a character itself
    assert character_parts(["\\", "x", "41", "x"]) == [""] * 4
