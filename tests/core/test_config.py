"""Settings: what text and files become, what is refused and how, and that a run file gives the same settings back."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cases import each
from hypothesis import given
from hypothesis import strategies as st
from preset_settings import resolve_settings

from llmlab.core.config import differences, from_mapping, parse_assignments, read_toml, to_mapping, with_values
from llmlab.core.errors import LabError, UsageError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.paths import resources_dir
from llmlab.core.presets import load_preset, preset_names
from llmlab.core.setting_info import SettingInfo, describe, parse_value, setting
from llmlab.core.settings import PretrainSettings
from llmlab.gpt.estimate import estimate_pretraining


@dataclass(frozen=True)
class FakeSection:
    whole: int = setting(3, "A whole number.", low=1, high=10)
    real: float = setting(0.5, "A number.", low=0.0, high=1.0)
    free: float = setting(0.0, "Any number.")
    flag: bool = setting(False, "Yes or no.")
    word: str = setting("red", "A choice.", choices=("red", "green"))
    text: str = setting("", "Any text.")
    texts: tuple[str, ...] = setting(("a",), "Texts.")


@dataclass(frozen=True)
class FakeSettings:
    part: FakeSection = field(default_factory=FakeSection)


INFO = {info.name: info for info in describe(FakeSettings)}
EVERY = list(describe(PretrainSettings))


@each(
    ("name", "given", "parsed"),
    [
        ("whole", "7", 7),
        ("whole", "1e1", 10),
        ("whole", 4.0, 4),
        ("real", "0.25", 0.25),
        ("real", 1, 1.0),
        ("free", "-1e-3", -0.001),
        ("flag", "true", True),
        ("flag", "No", False),
        ("flag", "1", True),
        ("flag", "off", False),
        ("word", "green", "green"),
        ("text", "a = b", "a = b"),
        ("texts", "one|two", ("one", "two")),
        ("texts", '["one|two", "\\n"]', ("one|two", "\n")),
        ("texts", ["a", "b"], ("a", "b")),
        ("texts", "", ("",)),
    ],
)
def test_text_and_plain_values_become_the_settings_type(name: str, given: Any, parsed: Any) -> None:
    value = parse_value(INFO[name], given)
    assert value == parsed
    assert type(value) is type(parsed)


@each(
    ("name", "bad"),
    [
        *(("whole", "0"), ("whole", "11"), ("whole", "2.5"), ("whole", "many"), ("whole", ""), ("whole", True)),
        *(("whole", "nan"), ("whole", "inf"), ("whole", 10**400), ("whole", None), ("real", "1.0001")),
        *(("real", "-0.1"), ("real", "0,5"), ("real", "nan"), ("real", [1]), ("free", "inf"), ("free", "1e999")),
        *(("flag", "perhaps"), ("flag", 2), ("word", "blue"), ("word", 1), ("text", 1), ("text", "\udcff")),
        *(("texts", 5), ("texts", [1, 2]), ("texts", '["half'), ("texts", "[" * 100_000), ("texts", ["\ud800"])),
    ],
)
def test_what_does_not_fit_is_refused_with_the_field_and_its_range(name: str, bad: Any) -> None:
    with pytest.raises(UsageError) as refused:
        parse_value(INFO[name], bad)
    assert f"part.{name} cannot be" in refused.value.what
    assert INFO[name].range_text in refused.value.why
    str(refused.value).encode()  # can be printed


def test_the_range_is_told_in_words() -> None:
    assert INFO["whole"].range_text == "1 to 10"
    assert INFO["word"].range_text == "red | green"
    assert INFO["flag"].range_text == "true | false"
    assert INFO["free"].range_text == "any number"
    ranges = {info.key: info.range_text for info in EVERY}
    assert ranges["train.steps"] == "1 to 1,000,000,000"
    assert not [text for text in ranges.values() if "e+" in text]


def test_a_wrong_choice_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="Did you mean 'cosine'"):
        resolve_settings(overrides=["train.schedule=cosin"])


def test_an_unknown_setting_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"no setting 'train.learning_rat'.*Did you mean train.learning_rate"):
        resolve_settings(overrides=["train.learning_rat=1"])
    with pytest.raises(UsageError, match="llmlab-run settings"):
        resolve_settings(overrides=["zzz=1"])
    with pytest.raises(UsageError, match=r"no setting 'zzz'.*`llmlab-run settings --finetune` lists"):
        with_values(FinetuneSettings(), {"zzz": 1})


def test_a_typo_of_a_former_name_is_answered_with_todays() -> None:
    with pytest.raises(UsageError, match=r"no setting 'train.eval_window'.*Did you mean train.eval_sequences"):
        resolve_settings(overrides=["train.eval_window=5"])


def test_a_setting_of_another_kind_of_training_is_told_of_as_one() -> None:
    scratch, tuned = "a run from scratch on text", "a fine-tuning run"
    for settings, key, mine, other in (
        (FinetuneSettings(), "train.optimizer", tuned, f"{scratch}. `llmlab-run settings --finetune` lists"),
        (PretrainSettings(), "lora.rank", scratch, f"{tuned}. `llmlab-run settings` lists"),
        (FinetuneSettings(), "model.n_layer", tuned, f"{scratch} and of a run on a task of a paper. "),
    ):
        said = f"There is no setting '{key}' in {mine}. It is a setting of {other}"
        with pytest.raises(UsageError, match=re.escape(said)):
            with_values(settings, {key: "1"})


def test_an_assignment_needs_an_equals_sign_and_keeps_the_others() -> None:
    assert parse_assignments(["samples.prompts=a=b", " train.steps = 5"]) == {
        "samples.prompts": "a=b",
        "train.steps": " 5",
    }
    with pytest.raises(UsageError, match="sets nothing"):
        parse_assignments(["train.steps"])


def test_a_setting_under_its_former_name_is_the_one_of_today(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[train]\neval_windows = 5\n")
    assert resolve_settings("nano", file, []).train.eval_sequences == 5
    assert resolve_settings("nano", file, ["train.eval_windows=6"]).train.eval_sequences == 6
    assert parse_assignments(["train.eval_windows=6"]) == {"train.eval_sequences": "6"}


def test_a_file_comes_after_the_preset_and_assignments_come_last(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[preset]\ntitle = "Mine"\n[train]\nsteps = 11\nseed = 5\n[samples]\nprompts = ["x"]\n')
    settings = resolve_settings("nano", file, ["train.steps=12"])
    assert (settings.train.steps, settings.train.seed, settings.samples.prompts) == (12, 5, ("x",))
    assert settings.data == load_preset("nano").settings.data


@pytest.mark.parametrize(
    "content", [b"[train\nsteps = 1", b"\xff\xfe", b"x = " + b"[" * 9999, b"x = 1" + b"0" * 9999, None]
)
def test_a_file_that_is_not_toml_is_refused_with_its_name(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "bad.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"bad\.toml"):
        read_toml(file)


@pytest.mark.parametrize(
    "assignments",
    [
        ["model.n_embd=130"],
        ["model.n_kv_head=3"],
        ["model.n_kv_head=8"],
        ["model.position=rotary", "model.n_embd=36"],
        ["train.min_learning_rate=0.5"],
    ],
)
def test_combinations_that_cannot_work_are_refused(assignments: list[str]) -> None:
    with pytest.raises(UsageError):
        resolve_settings("baby", overrides=assignments)


def test_every_preset_loads_and_the_smallest_model_comes_first() -> None:
    names = preset_names()
    assert set(names) == {"baby", "quick", "nano", "small", "medium", "gpt2", "gpt2-medium", "smollm-135m"}
    assert names[:2] == ["quick", "baby"]  # of two alike, the shorter run
    quick, baby, *sizes = (estimate_pretraining(load_preset(name).settings).parameters for name in names)
    assert quick == pytest.approx(baby, rel=0.02)  # a race between them is one of equals
    assert sizes == sorted(sizes)
    for name in names:
        preset = load_preset(name)
        assert preset.title
        assert preset.description


def test_presets_with_a_source_have_its_number_of_parameters_and_read_as_many_tokens() -> None:
    # As transformers counts gpt2, gpt2-medium and SmolLM-135M, whose vocabulary has 49,152 tokens of width 576.
    published = {"gpt2": 124_439_808, "gpt2-medium": 354_823_168, "smollm-135m": 134_515_008 + (50_257 - 49_152) * 576}
    for name, parameters in published.items():
        assert estimate_pretraining(load_preset(name).settings).parameters == parameters
    for name, a_step, in_all in (("gpt2-medium", 2**19, 300e9), ("smollm-135m", 2**20, 600e9)):
        settings = load_preset(name).settings
        assert settings.tokens_per_step == a_step
        assert settings.tokens_until(settings.train.steps) == pytest.approx(in_all, rel=1e-6)


@pytest.mark.parametrize("name", ["bab", "../presets/baby", "baby/../baby", "", "x\0y"])
def test_a_preset_that_is_none_is_refused_with_the_names_that_are(name: str) -> None:
    with pytest.raises(UsageError, match="baby"):
        load_preset(name)


def test_every_preset_file_belongs_to_a_name() -> None:
    assert {path.stem for path in (resources_dir() / "presets").glob("*.toml")} == set(preset_names())


def _values(info: SettingInfo) -> st.SearchStrategy[Any]:
    """Any value that the setting takes."""
    if info.choices:
        return st.sampled_from(info.choices)
    if info.kind is bool:
        return st.booleans()
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    if info.kind is str:
        return text
    if info.kind is tuple:
        return st.lists(text, max_size=4).map(tuple)
    low, high = info.low if info.low is not None else -1e9, info.high if info.high is not None else 1e9
    if info.kind is int:
        return st.integers(math.ceil(low), math.floor(high))
    return st.floats(low, high, allow_nan=False)


@given(st.data())
def test_settings_come_back_from_a_run_file_as_they_were(data: st.DataObject) -> None:
    info = data.draw(st.sampled_from([info for info in EVERY if info.section != "model"]))
    value = data.draw(_values(info))
    try:
        settings = with_values(PretrainSettings(), {info.key: value})
    except UsageError:  # a combination, not this value
        return
    through_json = json.loads(json.dumps(to_mapping(settings)))
    assert from_mapping(PretrainSettings, through_json) == settings
    assert [changed.key for changed, _, _ in differences(PretrainSettings(), settings)] == (
        [] if value == info.default else [info.key]
    )


@given(
    st.sampled_from(EVERY),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(exclude_categories=["Cs"])),  # by their encoding, Hypothesis counts them for seconds
        st.binary(),
    ),
)
def test_any_value_is_taken_or_refused_in_a_sentence(info: SettingInfo, value: Any) -> None:
    try:
        settings = with_values(PretrainSettings(), {info.key: value})
    except LabError:
        return
    parsed = getattr(getattr(settings, info.section), info.name)
    assert with_values(PretrainSettings(), {info.key: parsed}) == settings


def test_every_default_passes_its_own_check() -> None:
    for info in EVERY:
        if info.section != "model":
            assert parse_value(info, info.default) == info.default
    assert with_values(PretrainSettings(), {info.key: info.default for info in EVERY}) == PretrainSettings()


def test_differences_name_the_old_and_the_new_value() -> None:
    old = PretrainSettings()
    new = replace(old, train=replace(old.train, steps=7, eval_interval=0))
    found = [(info.key, before, after, info.exact) for info, before, after in differences(old, new)]
    assert found == [("train.steps", 2000, 7, True), ("train.eval_interval", 250, 0, False)]
