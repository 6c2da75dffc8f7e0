"""Every kind of question has one right answer and belongs to a page; which kinds a handful takes."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import re
from itertools import product
from pathlib import Path
from random import Random

import pytest
import torch
from asked import ask, middle
from small_runs import new_run, train_here

from llmlab.core.config import read_toml, with_values
from llmlab.core.paths import resources_dir
from llmlab.data.tokenizers import Gpt2Tokenizer
from llmlab.gpt.model import GPT
from llmlab.models.model import OpenModel
from llmlab.models.reference import ModelFolder
from llmlab.practice import readings, twin
from llmlab.practice.deck import Record
from llmlab.practice.kinds import NOTHING, SETTINGS, NothingToAsk, Words, all_kinds, handful, kinds_for
from llmlab.practice.question import CHOICE, HEAD, INTERVAL, OF_FIRST_HOUR, VALUE, WAYS, Question, mark
from llmlab.practice.source_lines import Line
from llmlab.practice.subject import Subject, subject_of
from llmlab.store.events import Evaluated


@pytest.fixture(scope="module")
def questions(subject: Subject) -> dict[int, dict[str, Question]]:
    """By seed and kind, of every kind that has something to ask."""
    asked: dict[int, dict[str, Question]] = {0: {}, 1: {}}
    for seed, (name, kind) in product(asked, all_kinds().items()):
        with contextlib.suppress(NothingToAsk):
            asked[seed][name] = kind.ask(subject, seed)
    return asked


def test_there_are_sixty_kinds_of_every_way_and_each_belongs_to_a_page() -> None:
    kinds = all_kinds().values()
    assert len(kinds) >= 60
    assert {kind.way for kind in kinds} == set(WAYS)
    pages = {path.stem for path in (resources_dir() / "concepts").glob("*.md")} | {*OF_FIRST_HOUR}
    of_pages = [kind.concept for kind in kinds]
    assert {page for page in pages if of_pages.count(page) >= 2} == pages  # each page ends with two
    assert set(of_pages) == pages
    assert all((resources_dir() / f"{page}.md").is_file() for page in OF_FIRST_HOUR)


def test_every_question_has_one_answer_that_is_marked_right_and_others_that_are_not(
    questions: dict[int, dict[str, Question]],
) -> None:
    for name, question in [pair for asked in questions.values() for pair in asked.items()]:
        assert question.text, name
        assert question.how, name
        if question.form == CHOICE:
            marks = [mark(question, choice).right for choice in question.choices]
            assert len(set(question.choices)) == len(question.choices) >= 2, name
            assert marks.count(True) == 1, name
        elif question.form == HEAD:
            assert mark(question, question.right[0]).right, name
            assert not mark(question, "9.9").right, name
        elif question.form == INTERVAL:
            low, high = sorted((question.low * 0.5 - 1, question.low * 1.5 + 1))
            assert mark(question, f"{low}..{high}").held, name
            assert not mark(question, f"{high}..{high + 1}").right, name
        else:
            assert question.form == VALUE
            assert mark(question, f"{middle(question)!r}").right, name
            assert not mark(question, f"{2 * question.high + 1}").right, name
    elsewhere = {kind.name for kind in all_kinds().values() if kind.concept in OF_FIRST_HOUR[1:]}
    left_out = set(all_kinds()) - elsewhere - set(questions[0]) - set(questions[1])
    assert len(left_out) <= 3, left_out


def test_a_number_below_zero_is_told_with_the_sign_of_the_pages(questions: dict[int, dict[str, Question]]) -> None:
    told = [text for asked in questions.values() for one in asked.values() for text in (one.answer, one.how)]
    assert any(re.search(r"(?:^|[ (])−\d", text) for text in told)
    assert not [text for text in told if re.search(r"(?:^|[ (])-[\d.]", text)]
    below = [all_kinds()["swing-at-a-rate"].ask(Subject(None, Path()), seed).how for seed in range(9)]
    assert any("= −1.5: " in how for how in below)


@pytest.mark.slow
def test_how_many_tokens_says_which_they_are(questions: dict[int, dict[str, Question]]) -> None:
    assert questions[0]["how-many-tokens"].how.endswith(" of it: one for each character, spaces too.")


def test_the_smallest_run_is_asked_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin, "STEPS", 1)
    train_here(new_run(tmp_path, model__n_head=1, model__block_size=4, train__steps=1, train__warmup_steps=0))
    small = subject_of("run", tmp_path)
    asked = set()
    for kind in all_kinds().values():
        with contextlib.suppress(NothingToAsk):
            asked.add(kind.ask(small, 0).kind)
    assert {"largest-fall", "worst-predicted"} <= asked


def test_counting_is_beaten_at_the_first_evaluation_below_it_and_a_branch_that_begins_there_is_not_asked(
    practised: Path,
) -> None:
    def asked(*losses: float) -> Question:
        about = subject_of("run", practised)
        assert about.history.started is not None
        started = dataclasses.replace(about.history.started, unigram_loss=3.0)
        evaluated = [Evaluated(10 * at, 1.0, loss, loss, best=True, seconds=0.1) for at, loss in enumerate(losses)]
        about.history.clear()
        about.history.extend([started, *evaluated])
        return ask(about, "beyond-counting")

    assert middle(asked(4.0, 3.5, 2.9, 2.5)) == 20
    assert middle(asked(4.0, 3.0, 3.1, 2.5)) == 10  # it may rise again
    for losses in ((2.9, 3.1, 2.5), (3.0, 2.9, 2.5), (4.0, 3.5, 3.1)):
        with pytest.raises(NothingToAsk):
            asked(*losses)


def test_the_layer_that_settles_is_not_given_away_by_its_place(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.zeros(2 * 20 + 1, 1, 1, dtype=torch.long).numpy()
    ids[:21] = 1  # another token up to row 20, before layer 10
    all_kinds()  # or a module that is imported only now would keep what follows
    monkeypatch.setattr(readings, "needed", lambda *_: ids)
    asked = [ask(subject, "settled-after", seed) for seed in range(12)]
    assert {question.answer for question in asked} == {"after layer 10"}
    assert {len(question.choices) for question in asked} == {9}
    assert len({question.choices.index("after layer 10") for question in asked}) > 3


def test_a_passage_of_which_a_cut_makes_fewer_tokens_is_drawn_again(tmp_path: Path) -> None:
    tokenizer = Gpt2Tokenizer()  # which reads the two line ends after a cut as one token
    opened = OpenModel("tiny", "tiny", "huggingface", torch.nn.Identity(), tokenizer)
    elsewhere = Subject(ModelFolder(tmp_path), tmp_path, opener=lambda reference: opened)
    for seed in range(30):
        ids = elsewhere.ids(Random(seed), 24)
        assert len(ids) == 24
        assert tokenizer.encode(tokenizer.decode(ids)) == ids


def test_every_entry_of_the_texts_is_of_a_kind_and_no_line_of_it_goes_unread() -> None:
    folder = resources_dir() / "practice"
    questions, lines = read_toml(folder / "questions.toml"), read_toml(folder / "lines.toml")
    assert {*questions, *lines} == set(all_kinds())
    for texts, shape in ((questions, Words), (lines, Line)):
        read = {field.name for field in dataclasses.fields(shape)}
        assert {line for entry in texts.values() for line in entry} <= read


@pytest.mark.slow
def test_equal_seeds_give_equal_questions(questions: dict[int, dict[str, Question]], practised: Path) -> None:
    again = subject_of("run", practised)
    for name, before in questions[1].items():
        assert json.dumps(ask(again, name, 1).as_dict()) == json.dumps(before.as_dict()), name
    assert any(questions[0][name].text != before.text for name, before in questions[1].items() if name in questions[0])


def test_without_a_run_there_are_questions_that_need_none(tmp_path: Path) -> None:
    nobody = subject_of("", tmp_path)
    for kind in all_kinds().values():
        assert nobody.has(kind.needs) == (kind.needs in (NOTHING, SETTINGS))
    assert ask(nobody, "kv-cache").form == VALUE
    assert ask(nobody, "what-refutes").model == ""


def test_a_page_that_asks_about_settings_alone_asks_about_the_preset_of_a_model_from_elsewhere(tmp_path: Path) -> None:
    elsewhere = Subject(ModelFolder(tmp_path), tmp_path)
    assert not kinds_for(elsewhere, concept="backpropagation", name="training-flops")
    found = list(handful(elsewhere, Record(), 2, 0, 0.0, concept="forward-pass"))
    assert found == list(handful(Subject(None, tmp_path), Record(), 2, 0, 0.0, concept="forward-pass"))
    assert len(found) == 2


def test_adamws_state_is_asked_about_where_a_checkpoint_holds_it_and_nothing_more(tmp_path: Path) -> None:
    kind = all_kinds()["adamw-state"]
    assert kind.ask(Subject(None, tmp_path), 0).answer == "3"
    for changed in ({"train.optimizer": "muon"}, {"train.ema_decay": 0.99}):
        subject = Subject(None, tmp_path)
        subject.settings = with_values(subject.settings, changed)
        with pytest.raises(NothingToAsk):
            kind.ask(subject, 0)


def test_an_interval_has_a_width_that_is_useful(questions: dict[int, dict[str, Question]]) -> None:
    intervals = [one for one in questions[0].values() if one.form == INTERVAL and one.useful]
    assert intervals
    for question in intervals:
        low = question.low - 0.4 * question.useful
        assert mark(question, f"{low}..{low + 0.9 * question.useful}").right, question.kind
        wide = mark(question, f"{question.low - 1.1 * question.useful}..{question.low + 1e-9}")
        assert wide.held, question.kind
        assert not wide.right, question.kind


def test_every_second_question_is_about_the_model_itself(subject: Subject, tmp_path: Path) -> None:
    asked: list[str] = []
    for _ in range(6):  # as the window asks: one at a time
        asked.append(next(handful(subject, Record(), 1, 3, 0.0, without=asked)).kind)
    kinds = all_kinds()
    assert [kinds[name].own for name in asked[::2]] == [True] * 3
    assert len(set(asked)) == 6
    assert [question.kind for question in handful(subject, Record(), 6, 3, 0.0)] == asked
    due = Record(due={"perplexity": -2.0, "kv-cache": -1.0})
    second = [question.kind for question in handful(subject, due, 2, 3, 0.0)][1]
    assert second == "perplexity"  # what is due comes in between
    nobody = subject_of("", tmp_path)
    assert len(list(handful(nobody, Record(), 3, 3, 0.0, quick=True))) == 3


def test_nothing_is_trained_for_a_quick_question(subject: Subject) -> None:
    trained = {kind.name for kind in all_kinds().values() if kind.trains}
    assert trained == {change.name for change in twin.CHANGES}
    page = {name for name in trained if all_kinds()[name].concept == "learning-rate"}
    left = {question.kind for question in handful(subject, Record(), 99, 0, 0.0, concept="learning-rate", quick=True)}
    assert len(page) == 2
    assert left
    assert not left & trained


def test_the_first_hours_page_asks_about_its_own_prompt_and_nowhere_else(subject: Subject, model: GPT) -> None:
    ids = subject.opened.tokenizer.encode("I pray you, sir, I pray")[-model.settings.block_size :]
    look, back = ask(subject, "first-look"), None
    assert subject.opened.tokenizer.decode(ids) == look.prompt
    with torch.no_grad():
        shares = model(torch.tensor([ids]))[0, -1].softmax(-1)
    best = float(shares.max())
    assert f"{100 * best:.2f} %" in look.how
    with contextlib.suppress(NothingToAsk):
        back = ask(subject, "first-look-back")
    if int(shares.argmax()) in ids:
        assert back is not None
        (first, second) = (float(share) for share in re.findall(r"from ([\d.]+) % to ([\d.]+) %", back.how)[0])
        assert first == pytest.approx(100 * best, abs=0.006)
        layer, head = map(int, re.search(r"Head (\d)\.(\d)", back.how).groups())
        changed = copy.deepcopy(model)
        width = model.settings.n_embd // model.settings.n_head
        with torch.no_grad():
            changed.blocks[layer].attention.out.weight[:, head * width : (head + 1) * width] = 0
            after = float(changed(torch.tensor([ids]))[0, -1].softmax(-1)[int(shares.argmax())])
        assert second == pytest.approx(100 * after, abs=0.006)
    general = {kind.name for kind in kinds_for(subject)}
    assert not general & {kind.name for kind in all_kinds().values() if kind.concept in OF_FIRST_HOUR}
    assert ask(subject, "most-likely-next").prompt != look.prompt
