"""Which tokens of a conversation are trained on: token by token, in the templates of the families and in ours."""

from __future__ import annotations

import functools
import io
import json
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import chat_tokenizers as make
import psutil
import pytest
from chat_tokenizers import CONVERSATION, FAMILIES, byte_level, chat, example, runs
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab.core.errors import LabError, UsageError
from llmlab.data import chat_template
from llmlab.data import template_rendering as rendering
from llmlab.data.chat import ALL, ANSWERS, ChatFormat, Encoded
from llmlab.data.chat_formats import chat_format
from llmlab.data.chat_template import TemplateFormat
from llmlab.data.examples import TEXT, Example, Message
from llmlab.data.hf_tokenizer import IdTokenizer
from llmlab.data.tokenizers import BpeTokenizer, CharTokenizer, Gpt2Tokenizer, TextTokenizer, Tokenizer

LONG = 10_000
CHATML = make.byte_level(make.CHATML, FAMILIES["chatml"].special)


@functools.cache
def chatml() -> ChatFormat:
    """Made by the first test that asks: a process renders it."""
    return chat_format(CHATML)


OURS: dict[str, Tokenizer] = {
    "gpt2": Gpt2Tokenizer(),
    "bpe": BpeTokenizer([("t", "h"), ("th", "e"), ("Ġ", "the")]),
    "char": CharTokenizer(make.TEXT + "UASB:"),
}


def trained_text(tokenizer: TextTokenizer, encoded: Encoded) -> list[str]:
    return [text for text, trained in runs(tokenizer, encoded) if trained]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_token_is_trained_on_or_not_as_the_template_says(family: str) -> None:
    described = FAMILIES[family]
    tokenizer = make.byte_level(described.template, described.special)
    encoded = chat_format(tokenizer).encode(Example(1, CONVERSATION), LONG, ANSWERS)
    letters = [trained for text, trained in described.pieces for _ in text]
    assert tokenizer.decode(encoded.ids) == "".join(text for text, _ in described.pieces)
    place = 0
    for id, trained in zip(encoded.ids, encoded.trained, strict=True):
        covered = letters[place : place + len(tokenizer.token_text(id))]
        place += len(covered)
        assert set(covered) == {trained}, (tokenizer.token_text(id), place)
    assert place == len(letters)


def test_the_space_of_sentencepiece_is_part_of_the_answer() -> None:
    described = FAMILIES["mistral"]
    tokenizer = make.sentencepiece(described.template, described.special)
    encoded = chat_format(tokenizer).encode(Example(1, CONVERSATION), LONG, ANSWERS)
    pieces = tokenizer.inner.convert_ids_to_tokens(encoded.ids)
    answers = ["".join(p for p, t in run) for run in _trained_runs(pieces, encoded.trained)]
    # One space is the template's, the other the one that this tokenizer puts before every text.
    assert answers == ["▁▁The▁sky▁is▁blue.</s>", "▁▁It▁is▁green,▁too.</s>"]


def _trained_runs(pieces: list[str], trained: list[bool]) -> list[list[tuple[str, bool]]]:
    found: list[list[tuple[str, bool]]] = [[]]
    for piece, is_trained in zip(pieces, trained, strict=True):
        if is_trained:
            found[-1].append((piece, True))
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


@pytest.mark.parametrize("kind", OURS)
def test_the_labs_own_format_trains_on_answers_and_their_end(kind: str) -> None:
    tokenizer = OURS[kind]
    end = "\n" if tokenizer.end_of_text is None else "<|endoftext|>"
    begin, line = ("", "") if tokenizer.end_of_text is None else ("<|endoftext|>", "\n")
    format = chat_format(tokenizer)
    encoded = format.encode(Example(1, CONVERSATION), LONG, ANSWERS)
    assert runs(tokenizer, encoded) == [
        (f"{begin}System: Be brief.\nUser: What is the color of the sky?\nAssistant:", False),
        (f" The sky is blue.{end}", True),
        (f"{line}User: And of the sea?\nAssistant:", False),
        (f" It is green, too.{end}", True),
    ]
    assert encoded.ids[-1:] == list(format.end_ids)


def test_a_model_without_a_template_gets_ours() -> None:
    tokenizer = make.byte_level(None)
    encoded = chat_format(tokenizer).encode(Example(1, CONVERSATION), LONG, ANSWERS)
    assert runs(tokenizer, encoded) == [
        ("System: Be brief.\nUser: What is the color of the sky?\nAssistant:", False),
        (" The sky is blue.</s>", True),
        ("\nUser: And of the sea?\nAssistant:", False),
        (" It is green, too.</s>", True),
    ]


WORDS = st.text(st.sampled_from("as user\n tm:éß€😀|_>"), min_size=1, max_size=12)


@settings(max_examples=60)
@given(asked=WORDS, answer=WORDS.filter(lambda text: text.strip() != "" and text[0] not in "\n "))
def test_whatever_is_said_its_answer_and_end_are_trained_on(asked: str, answer: str) -> None:
    encoded = chatml().encode(example(asked, answer), LONG, ANSWERS)
    assert trained_text(CHATML, encoded) == [f"{answer}<|im_end|>"]


@pytest.mark.parametrize("answer", ["    return x", "\n  two lines"])
def test_white_space_at_the_beginning_of_an_answer_is_trained_on(answer: str) -> None:
    [learned] = trained_text(CHATML, chatml().encode(example("code?", answer), LONG, ANSWERS))
    assert learned.endswith(f"{answer}<|im_end|>")


@pytest.mark.parametrize("answer", ["user", "assistant", "s", "<", "system\n", "im_start"])
def test_an_answer_that_stands_in_the_template_too_is_found_in_its_own_place(answer: str) -> None:
    encoded = chatml().encode(example("assistant", answer, "user", answer), LONG, ANSWERS)
    assert trained_text(CHATML, encoded) == [f"{answer}<|im_end|>"] * 2


def test_training_on_all_leaves_out_only_the_first_token() -> None:
    encoded = chatml().encode(example("sky", "sea"), LONG, ALL)
    assert encoded.trained == [False] + [True] * (len(encoded.ids) - 1)


def test_plain_text_is_all_trained_on_and_ends() -> None:
    text = Example(1, (Message(TEXT, "the sky"),))
    encoded = chatml().encode(text, LONG, ANSWERS)
    assert runs(CHATML, encoded)[-1] == (CHATML.decode(encoded.ids[1:]), True)
    assert CHATML.decode(encoded.ids) == "the sky</s>"
    ours = chat_format(OURS["gpt2"]).encode(text, LONG, ANSWERS)
    assert OURS["gpt2"].decode(ours.ids) == "<|endoftext|>the sky<|endoftext|>"
    assert ours.trained == [False] + [True] * 3


@pytest.mark.parametrize("length", [1, 5, 20, 40])
def test_the_maximal_length_cuts_the_end_and_says_how_much(length: int) -> None:
    whole = chatml().encode(example("sky", "the sea is green"), LONG, ANSWERS)
    cut = chatml().encode(example("sky", "the sea is green"), length, ANSWERS)
    assert cut.ids == whole.ids[:length]
    assert cut.trained == whole.trained[:length]
    assert len(cut.ids) + cut.cut == len(whole.ids)


def _formats() -> list[tuple[str, ChatFormat]]:
    formats = [(name, chat_format(tokenizer)) for name, tokenizer in OURS.items()]
    formats += [(name, make.chat(family.template, family.special)) for name, family in FAMILIES.items()]
    formats += [("gemma", make.chat(make.GEMMA, ("<start_of_turn>", "<end_of_turn>")))]
    formats += [("thinking", make.chat(make.THINKING, ("<|im_start|>", "<|im_end|>"))), ("none", make.chat(None))]
    return formats


@pytest.mark.parametrize(("name", "format"), _formats(), ids=[name for name, _ in _formats()])
def test_a_prompt_ends_where_the_last_answer_begins_and_tells_nothing_of_it(name: str, format: ChatFormat) -> None:
    asked = ("What is the color of the sky?", "The sky is blue.", "And of the sea?")
    one, other = (format.prompt_ids(example(*asked, answer)) for answer in ("It is green.", "Blue"))
    assert one == other == format.prompt_ids(example(*asked))
    encoded = format.encode(example(*asked, "It is green."), LONG, ANSWERS)
    assert encoded.ids[: len(one)] == one
    assert encoded.trained[len(one)]
    assert not encoded.trained[len(one) - 1]


@pytest.mark.parametrize(("name", "format"), _formats(), ids=[name for name, _ in _formats()])
def test_what_ends_an_answer_is_trained_on(name: str, format: ChatFormat) -> None:
    encoded = format.encode(example("What is the sky?", "The sky is blue."), LONG, ANSWERS)
    last = max(place for place, trained in enumerate(encoded.trained) if trained)
    assert encoded.ids[last] in format.end_ids


def test_an_empty_thought_before_an_answer_is_asked_for_and_not_trained_on() -> None:
    special = ("<|im_start|>", "<|im_end|>")
    tokenizer = make.byte_level(make.THINKING, special)
    format = chat_format(tokenizer)
    encoded = format.encode(example("sky", "blue", "sea", "green"), LONG, ANSWERS)
    assert trained_text(tokenizer, encoded) == ["blue<|im_end|>", "green<|im_end|>"]
    assert tokenizer.decode(format.prompt_ids(example("sky", "blue"))).endswith("assistant\n<think>\n\n</think>\n\n")


def test_a_template_that_rewrites_earlier_turns_says_so() -> None:
    with pytest.raises(LabError, match="writes earlier turns differently when later ones follow"):
        make.chat(make.COUNTING).encode(example("sky", "blue"), LONG, ANSWERS)


def test_what_a_template_refuses_is_said_in_its_words() -> None:
    gemma = make.chat(make.GEMMA, ("<start_of_turn>", "<end_of_turn>"))
    with pytest.raises(LabError, match="System role not supported"):
        gemma.encode(Example(1, CONVERSATION), LONG, ANSWERS)
    mistral = make.chat(make.MISTRAL, ("[INST]", "[/INST]"))
    with pytest.raises(LabError, match="Roles must alternate"):
        mistral.encode(Example(1, (Message("assistant", "a"), Message("user", "b"))), LONG, ANSWERS)


def test_a_template_that_writes_the_date_writes_the_same_one_every_day() -> None:
    tokenizer = make.byte_level(make.LLAMA3, FAMILIES["llama3"].special)
    ids = chat_format(tokenizer).encode(example("sky", "blue"), LONG, ANSWERS).ids
    assert "Today Date: 26 Jul 2024" in tokenizer.decode(ids)


def test_a_text_that_spells_a_sign_of_the_template_is_refused() -> None:
    with pytest.raises(LabError, match=r"spells <\|im_end\|>"):
        chatml().encode(example("say <|im_end|>", "no"), LONG, ANSWERS)


def test_a_character_that_a_vocabulary_lacks_is_named() -> None:
    format = chat_format(OURS["char"])
    with pytest.raises(LabError, match="lacks 'X'"):
        format.encode(example("X", "sky"), LONG, ANSWERS)
    with pytest.raises(LabError, match="several lines"):
        format.encode(example("sky", "one\ntwo"), LONG, ANSWERS)


def test_a_model_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(UsageError, match="without a tokenizer"):
        chat_format(IdTokenizer("bare"))


# Templates, and what is said of each.
ENDLESS = {
    "loops without end": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}"
        "{% endfor %}{% endfor %}",
        "not done after 0.3 seconds",
    ),
    "a text that doubles without end": (
        "{% set box = namespace(text='a' * 1000) %}"
        "{% for a in range(99999) %}{% set box.text = box.text ~ box.text %}{% endfor %}",
        "It took more than .* of memory",
    ),
    "one operation without end": ("{{ ('a' * 10**10) | length }}", "It took more than .* of memory"),
    "a text wider than memory": ("{{ '%1000000000000d' % 1 }}", "refuses it"),
}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow) if kind != "one operation without end" else kind for kind in ENDLESS],
)
def test_a_template_without_end_is_given_up_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = psutil.Process().memory_info().rss
    template, why = ENDLESS[kind]
    with monkeypatch.context() as soon:
        if "seconds" in why:
            soon.setattr(rendering, "_SECONDS", 0.3)
        soon.setattr(rendering, "_MOST_BYTES", 1 << 28)  # it takes 0.1 GB by itself
        format = chat(template + "{# only here #}")  # it is rendered for the first time
        for _ in range(200):  # a template that was given up is not run again for each of many examples
            with pytest.raises(LabError, match=why) as raised:
                format.encode(example("a", "b"), 100, ANSWERS)
    assert len(traceback.extract_tb(raised.tb)) < 20  # what it said is kept, and not all that was done where it said it
    assert psutil.Process().memory_info().rss - before < 200e6
    assert chat(FAMILIES["chatml"].template, FAMILIES["chatml"].special).encode(example("a", "b"), 100, ANSWERS).ids


def test_a_templates_time_begins_when_its_process_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "transformers.utils.chat_template_utils"  # what renders: on a slow disk its import takes seconds
    monkeypatch.delitem(sys.modules, module)
    ready: list[bool] = []
    clock = SimpleNamespace(
        dump_traceback_later=lambda *_, **__: ready.append(module in sys.modules),
        cancel_dump_traceback_later=lambda: None,
    )
    monkeypatch.setattr(rendering, "faulthandler", clock)
    request = {"template": "{{ messages[0].content }}", "seconds": 1, "calls": [{"conversation": [{"content": "a"}]}]}
    answers = io.BytesIO()
    rendering._serve(io.BytesIO(json.dumps(request).encode() + b"\n"), answers)
    assert json.loads(answers.getvalue()) == ["a"]
    assert ready == [True]


def test_the_labs_own_template_is_rendered_once_for_each_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    format = chat_format(byte_level(None, ("</s>",)))
    calls: list[Any] = []

    def rendered(template: str, call: dict[str, Any]) -> str:
        calls.append(call)
        return rendering.rendered(template, call)

    monkeypatch.setattr(chat_template, "rendered", rendered)
    format.tokens(CONVERSATION)
    told = [(len(call["conversation"]), call["add_generation_prompt"]) for call in calls]
    assert len(set(told)) == len(told)
    assert rendering.rendered(format.template, calls[0]) == rendering.render(format.template, calls[:1])[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_rendered_apart_is_what_transformers_renders(family: str) -> None:
    format = chat(FAMILIES[family].template, FAMILIES[family].special)
    assert isinstance(format, TemplateFormat)
    inner = byte_level(FAMILIES[family].template, FAMILIES[family].special).inner
    turns = [{"role": message.role, "content": message.content} for message in CONVERSATION]
    text = inner.apply_chat_template(turns, tokenize=False, date_string="26 Jul 2024", enable_thinking=False)
    ids, _ = format.tokens(CONVERSATION)
    assert inner.decode(ids, skip_special_tokens=False) == text


def test_a_fork_leaves_the_process_that_renders_to_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    rendering.render("{{ 1 }}", [{"conversation": []}])
    process = rendering.running()
    assert process is not None
    with monkeypatch.context() as fork:
        fork.setattr(rendering.os, "getpid", lambda: -1)
        assert rendering.running() is None
        process.end()  # as at the fork's end
    assert rendering.running() is process


def test_templates_are_rendered_from_several_threads_at_once() -> None:
    format = chat(FAMILIES["chatml"].template, FAMILIES["chatml"].special)
    asked = [example(f"What is {number}?", f"It is {number}.") for number in range(40)]
    alone = [format.encode(one, 100, ANSWERS) for one in asked]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda one: format.encode(one, 100, ANSWERS), asked)) == alone


def test_a_conversation_of_many_turns_is_rendered_in_parts_that_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each answer asks for all before it: of 1,000 turns of 300 characters, for half a gigabyte."""
    format = chat(FAMILIES["chatml"].template, FAMILIES["chatml"].special)
    turns = [Message("assistant" if place % 2 else "user", f"This is {place}. " * 10) for place in range(40)]
    at_once = format.tokens(turns)
    characters = 50_000
    asked: list[int] = []

    def render(template: str, calls: list[dict[str, Any]]) -> list[str]:
        texts = rendering.render(template, calls)
        asked.append(sum(map(len, texts)))
        return texts

    monkeypatch.setattr(chat_template, "render", render)
    monkeypatch.setattr(chat_template, "_CHARACTERS_AT_ONCE", characters)
    assert format.tokens(turns) == at_once
    assert sum(asked) > 4 * characters
    assert max(asked) < 2 * characters


@pytest.mark.parametrize("template", [5, ["a"], {"other": "a"}])
def test_what_is_no_template_is_a_sentence(template: object) -> None:
    tokenizer = byte_level(None)
    tokenizer.inner.chat_template = template
    with pytest.raises(LabError, match="chat template"):
        chat_format(tokenizer).tokens(CONVERSATION)
