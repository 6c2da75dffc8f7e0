"""Every number of a walk equals what the model computed."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import each
from family_models import family_model
from small_models import lively, shape
from tiny_models import TOKENIZER, gpt2
from torch import nn
from watched_models import SETTINGS

from llmlab.core.config import read_toml
from llmlab.core.errors import LabError, UsageError
from llmlab.core.paths import resources_dir
from llmlab.core.settings import Sampling
from llmlab.data.tokenizers import CharTokenizer
from llmlab.gpt.generate import generate
from llmlab.models.generation import continued
from llmlab.models.model import OpenModel
from llmlab.walk.forwards import Walk, next_token, walk
from llmlab.walk.stage import CHANGEABLE, Stage, StageText
from llmlab.walk.sums import dot, number

TEXT = "the king of the kings"
IDS = (5, 17, 3, 40, 22, 5, 8)
# What is computed in every family that the lab takes apart wholly.
COMPUTED = {
    *("embedding", "position", "stream", "norm", "query", "key", "value", "score", "mask", "softmax", "weighted_sum"),
    *("attention", "middle", "feed_forward_norm", "up", "neurons", "feed_forward", "after", "final_norm", "logits"),
    *("probabilities", "draw"),
}


def opened(model: nn.Module) -> OpenModel:
    return OpenModel("tiny", "tiny", "scratch" if type(model).__name__ == "GPT" else "huggingface", model, TOKENIZER)


def scratch(**options: Any) -> OpenModel:
    return opened(lively(shape(block_size=24, **options), TOKENIZER.vocab_size).requires_grad_(False))


def by_name(stages: list[Stage]) -> dict[str, Stage]:
    assert len({stage.name for stage in stages}) == len(stages)
    return {stage.name: stage for stage in stages}


def array(stages: list[Stage], stage: str, value: int = 0) -> np.ndarray:
    return by_name(stages)[stage].values[value].array


@each("options", SETTINGS)
def test_each_stage_of_the_labs_own_gpt_recomputed_is_what_the_model_computed(options: dict[str, Any]) -> None:
    model = scratch(**options)
    for layer, head, position in ((0, 0, -1), (1, 3, 2)):
        asked = Walk(text=TEXT, layer=layer, head=head, position=position, temperature=0.8, top_k=9, top_p=0.9)
        stages = walk(model, asked)
        named = by_name(stages)
        expected = COMPUTED | ({"rest"} if layer == 0 else set())
        expected |= {"rotation"} if options["position"] == "rotary" else set()
        expected |= {"query_norm"} if options.get("qk_norm") else set()
        expected |= {"value_mix"} if options.get("value_residual") and layer else set()
        assert {stage.name for stage in stages if stage.difference is not None} == expected
        assert all(stage.difference is None or stage.difference < 1e-4 for stage in stages)
        assert {"text", "bytes", "tokens", "temperature", "top_k", "top_p", "next"} <= named.keys()
        assert all(stage.why and stage.title and stage.numbers for stage in stages)
        assert all(stage.code is not None for stage in stages if stage.name in expected), [
            stage.name for stage in stages if stage.name in expected and stage.code is None
        ]


@each(
    ("kind", "lacking", "more"),
    [
        ("llama", set(), {"rotation"}),
        ("qwen2", set(), {"rotation"}),
        ("qwen3", set(), {"rotation", "query_norm"}),
        ("mistral", set(), {"rotation"}),
        ("gemma2", set(), {"rotation", "softcap", "output_projection", "down"}),
        ("gpt2", set(), set()),
        ("phi3", set(), {"rotation"}),
        ("gpt_neox parallel", {"middle"}, {"rotation"}),
        ("glm4", set(), {"rotation", "output_projection", "down"}),
    ],
)
def test_each_stage_of_a_family_recomputed_is_what_the_model_computed(
    kind: str, lacking: set[str], more: set[str]
) -> None:
    stages = walk(opened(family_model(kind)), Walk(ids=IDS, layer=1, head=2, position=-2))
    computed = {stage.name for stage in stages if stage.difference is not None}
    assert computed == (COMPUTED | more | {"rest"}) - lacking
    code = {stage.name: stage.code for stage in stages if stage.difference is not None}
    assert not [name for name, lines in code.items() if lines is None and name not in ("stream", "position")]
    assert all(lines is None or lines.file.startswith(("transformers/", "llmlab/gpt/")) for lines in code.values())


def test_every_family_that_can_be_walked_shows_the_models_own_numbers() -> None:
    for kind in ("gptj", "bloom", "mixtral", "olmo2", "granite", "falcon new"):
        model = opened(family_model(kind))
        stages = walk(model, Walk(ids=IDS, layer=0, head=1))
        logits = model.model(input_ids=torch.tensor([IDS])).logits[0, -1]
        assert np.allclose(array(stages, "logits", 1), logits.detach().numpy(), atol=1e-4)
        assert all(stage.note for stage in stages if stage.name in COMPUTED and stage.difference is None)


def test_the_code_of_a_stage_is_what_stands_at_its_line() -> None:
    from pathlib import Path

    import transformers

    import llmlab

    roots = (Path(llmlab.__file__).parents[1], Path(transformers.__file__).parents[1])
    for model in (scratch(), opened(gpt2())):
        for stage in walk(model, Walk(text=TEXT)):
            if stage.code is None:
                continue
            path = next(root / stage.code.file for root in roots if (root / stage.code.file).is_file())
            line = path.read_text(encoding="utf-8").splitlines()[stage.code.line - 1]
            assert line.strip() == stage.code.text.splitlines()[0].strip()


def test_only_a_model_whose_tokens_are_no_letters_knows_nothing_of_them() -> None:
    letters = replace(scratch(), tokenizer=CharTokenizer(TEXT))
    whys = [by_name(walk(model, Walk(text=TEXT)))["text"].why for model in (scratch(), letters)]
    assert ["letters" in why for why in whys] == [True, False]
    assert whys[1].endswith("this text.")


def test_a_line_break_of_the_prompt_has_the_panels_sign() -> None:
    stages = by_name(walk(replace(scratch(), tokenizer=CharTokenizer(f"{TEXT}\n")), Walk(text="the\n", position=3)))
    assert stages["text"].numbers == "4 characters: 'the⏎'"
    assert "Position 3 is '⏎'" in stages["tokens"].numbers


def test_the_merges_of_a_token_end_in_that_token() -> None:
    king = by_name(walk(scratch(), Walk(text="the king")))["tokens"].numbers
    assert "k + i = ki (merge 3), n + g = ng (merge 4), ki + ng = king (merge 5), Ġ + king = Ġking (merge 6)" in king


@pytest.mark.parametrize("how", [Sampling(), Sampling(0.7, 20, 0.9), Sampling(0.0)])
def test_tokens_drawn_by_walks_are_those_that_generation_writes(how: Sampling) -> None:
    for model in (scratch(), opened(gpt2())):
        ids = tuple(TOKENIZER.encode(TEXT))
        if type(model.model).__name__ == "GPT":
            written = [token.id for token in generate(model.model, ids, 4, how, seed=3)]
        else:
            written = [token.id for token in continued(model.model, list(ids), 4, how, seed=3)]
        drawn: list[int] = []
        for _ in written:
            asked = Walk(
                ids=(*ids, *drawn),
                temperature=how.temperature,
                top_k=how.top_k,
                top_p=how.top_p,
                seed=3,
                drawn=len(drawn),
            )
            drawn.append(next_token(model, asked))
        assert drawn == written


@pytest.mark.parametrize("options", [{}, {"position": "rotary", "n_kv_head": 2}])
def test_with_a_cache_keys_values_and_logits_are_those_without(options: dict[str, Any]) -> None:
    for model in (scratch(**options), opened(family_model("llama")), opened(gpt2())):
        stages = walk(model, Walk(ids=IDS, layer=1, head=3, cache=True))
        cache = by_name(stages)["cache"]
        assert cache.difference is not None
        assert cache.difference < 1e-4
        assert "6 rows of this head kept, 1 new" in cache.numbers
        assert by_name(stages)["softmax"].reused.startswith("One row")
        assert not by_name(stages)["tokens"].reused
    for wrong in (Walk(ids=IDS, position=2, cache=True), Walk(ids=(5,), cache=True)):
        with pytest.raises(UsageError, match="KV cache"):
            walk(model, wrong)


HOW = {"temperature": 0.8, "top_k": 9, "top_p": 0.9}


CHANGED = [*SETTINGS, "llama", "qwen3", "gpt2", "gemma2", "glm4", "phi3", "gpt_neox parallel"]


@pytest.mark.slow
@each("which", CHANGED)
def test_any_number_can_be_changed_and_what_follows_is_computed_with_it(which: dict[str, Any] | str) -> None:
    """Each stage that follows is recomputed from the one before it, down to the logits, which are the model's.

    All numbers of two models, which have between them all that can be changed; of the others an eighth, another one of
    each.
    """
    begin, share = (0, 1) if which in (SETTINGS[6], "gemma2") else (CHANGED.index(which) % 8, 8)
    model = opened(family_model(which)) if isinstance(which, str) else scratch(**which)
    asked = Walk(ids=IDS, layer=1 if isinstance(which, dict) else 0, head=2, position=-2, key=1, **HOW)
    plain = walk(model, asked)
    values = {(stage.name, value.name): value for stage in plain for value in stage.values}
    there = {of: values[where] for of, where in CHANGEABLE.items() if where in values}
    assert len(there) >= 24
    for of, value in list(there.items())[begin::share]:
        where = CHANGEABLE[of]
        place = value.picked[1] if where[0] in HOW else 3
        changed = walk(model, dataclasses.replace(asked, changes=(f"{of}[{place}]=0.75",)))
        names = [stage.name for stage in changed]
        at = names.index(where[0])
        assert not any(one.changed for one in changed[:at]), of
        now = next(one for one in changed[at].values if one.name == where[1])
        whole = now.array if now.whole is None else now.whole
        assert whole[place] == pytest.approx(0.75, abs=1e-6), of
        assert "set to 0.75" in changed[at].note
        assert changed[at].changed
        assert {one.name for one in changed if one.difference is not None} == {
            one.name for one in plain if one.difference is not None
        }, of
        assert all(one.difference is None or one.difference < 1e-4 for one in changed), of
        if at < names.index("logits"):
            before = by_name(plain)["logits"].values[1].array
            assert by_name(changed)["logits"].values[1].changed, of
            assert np.array_equal(by_name(changed)["logits"].values[1].was, before)


def test_a_changed_score_moves_the_pattern_of_its_row_alone() -> None:
    model = scratch()
    plain = by_name(walk(model, Walk(text=TEXT, layer=1, head=1, position=4)))
    changed = by_name(walk(model, Walk(text=TEXT, layer=1, head=1, position=4, changes=("score[2]=3",))))
    scores = plain["score"].values[1].array.copy()
    scores[2] = 3.0
    expected = np.exp(scores[:5]) / np.exp(scores[:5]).sum()
    assert np.allclose(changed["softmax"].values[0].array[:5], expected, atol=1e-6)
    assert np.array_equal(
        np.delete(changed["softmax"].values[1].array, 4, 0), np.delete(plain["softmax"].values[1].array, 4, 0)
    )


def test_a_changed_probability_is_drawn_from() -> None:
    model = scratch()
    stages = by_name(walk(model, Walk(text=TEXT, changes=("probabilities[7]=1000",))))
    assert int(stages["next"].values[0].array[0]) == 7
    with pytest.raises(UsageError, match="cannot be -1"):
        walk(model, Walk(text=TEXT, changes=("probabilities[7]=-1",)))


def test_a_changed_token_is_marked_from_the_text_on() -> None:
    changed = by_name(walk(scratch(), Walk(text="the king of", changes=("token:1= the",))))
    assert changed["text"].changed
    assert "the king of" in changed["text"].was
    assert "the the of" in changed["text"].numbers
    assert not by_name(walk(scratch(), Walk(text=TEXT, changes=("norm[1]=2",))))["text"].changed


def test_what_a_token_had_before_a_change_is_shown_beside_that_token() -> None:
    """Those that are likeliest after the change are others, in another order, than before."""
    model = scratch()
    changed = walk(model, Walk(text=TEXT, layer=0, seed=3, changes=("stream[2]=9",)))
    before = by_name(walk(model, Walk(text=TEXT, layer=0, seed=3)))
    for stage, place, whole in (
        ("logits", 0, "logits"),
        ("probabilities", 0, "probabilities"),
        ("draw", 1, "probabilities"),
    ):
        shown = by_name(changed)[stage].values[place]
        assert shown.picked != before[stage].values[place].picked
        assert np.array_equal(shown.was, before[whole].values[1].array[list(shown.picked)])


def test_a_changed_token_and_a_changed_weight_are_those_of_another_model() -> None:
    model = scratch()
    changed = walk(model, Walk(text="the king of", changes=("token:1= the",)))
    other = walk(model, Walk(ids=tuple(TOKENIZER.encode("the the of"))))
    assert np.array_equal(array(changed, "logits", 1), array(other, "logits", 1))
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    weight = "blocks.0.attention.out.weight"
    changed = walk(model, Walk(text=TEXT, changes=(f"weight:{weight}[2,5]=7", f"weight:{weight}[2,5]=3")))
    assert all(torch.equal(one, before[key]) for key, one in model.model.state_dict().items())
    model.model.get_parameter(weight)[2, 5] = 3.0
    assert np.array_equal(array(changed, "logits", 1), array(walk(model, Walk(text=TEXT)), "logits", 1))
    assert by_name(changed)["attention"].values[0].changed == 1


def test_a_changed_neuron_of_up_is_that_one_where_gate_and_up_are_one_matrix() -> None:
    model = opened(family_model("phi3"))
    plain = by_name(walk(model, Walk(ids=IDS)))
    changed = by_name(walk(model, Walk(ids=IDS, changes=("up[3]=1.5",))))
    assert changed["up"].values[0].array[3] == 1.5
    assert changed["up"].values[0].changed == 1
    assert np.array_equal(changed["up"].values[1].array, plain["up"].values[1].array)  # the gate


def test_numbers_that_run_away_are_said_in_a_sentence() -> None:
    weight = "weight:blocks.0.attention.out.weight[3,4]"
    for which in ("final_norm[0]", "stream[0]", "top_k[3]", "probabilities[3]", weight):
        for huge in ("1e999", "-1e39"):  # the second is finite, but no number of a model's
            with pytest.raises(UsageError, match="too large"):
                walk(scratch(), Walk(text=TEXT, top_k=5, changes=(f"{which}={huge}",)))
    with pytest.raises(LabError, match="not finite"):
        walk(scratch(), Walk(text=TEXT, changes=("softmax[3]=1e30",)))
    half = scratch()
    half.model.half()
    for which in ("norm[3]", "stream[0]", weight):
        with pytest.raises(LabError, match="not finite"):
            walk(half, Walk(text=TEXT, changes=(f"{which}=1e6",)))
    assert half.model.get_parameter("blocks.0.attention.out.weight").isfinite().all()


def test_two_numbers_of_one_stage_are_refused_and_none_is_dropped() -> None:
    with pytest.raises(UsageError, match="One number of norm is set already"):
        walk(scratch(), Walk(text=TEXT, changes=("norm[3]=1", "norm[4]=1")))


@pytest.mark.slow
def test_what_was_set_is_not_told_as_what_a_formula_gives() -> None:
    for written, of in (("q[0]=3", "query"), ("k[0]=3", "key"), ("v[0]=3", "value"), ("score[2]=3", "score")):
        asked = Walk(text=TEXT, key=2)
        plain = by_name(walk(scratch(), asked))[of]
        changed = by_name(walk(scratch(), dataclasses.replace(asked, changes=(written,))))[of]
        assert changed.numbers == f"{of}[{written[written.index('[') + 1]}] = 3, as it was set"
        assert changed.was == plain.numbers
    assert plain.values[0].shape_words == "[8 dimensions of the head]"
    plain = by_name(walk(scratch(), Walk(text=TEXT)))
    keys = {by_name(walk(scratch(), Walk(text=TEXT, key=at)))["score"].title: at for at in range(4)}
    for at in range(4):  # the key that is set is the one that is written out, before and after
        changed = by_name(walk(scratch(), Walk(text=TEXT, changes=(f"score[{at}]=9",))))["score"]
        assert keys[changed.title] == at
        assert changed.was == by_name(walk(scratch(), Walk(text=TEXT, key=at)))["score"].numbers
    for written, asked in (("norm[5]", Walk(text=TEXT)), ("score[1]", Walk(text=TEXT, key=2))):
        of, at = written[:-3], int(written[-2])
        changed = by_name(walk(scratch(), dataclasses.replace(asked, changes=(f"{written}=9",))))[of]
        (before,) = (one for one in plain[of].values if one.name == CHANGEABLE[of][1])
        assert changed.was == f"{written} = {number(float(before.array[at]))}"
    with pytest.raises(UsageError, match=r"which number of score.*score\[0\]=5"):
        walk(scratch(), Walk(text=TEXT, changes=("score=5",)))


def test_where_no_token_is_left_none_is_drawn() -> None:
    best = by_name(walk(scratch(), Walk(text=TEXT)))["logits"].values[0].picked[0]
    for how in ({"top_k": 1}, {"temperature": 0.0}):
        with pytest.raises(UsageError, match="No token is left"):
            walk(scratch(), Walk(text=TEXT, changes=(f"probabilities[{best}]=0",), **how))


def test_the_angle_of_a_rotation_is_position_times_theta() -> None:
    for model in (scratch(position="rotary"), opened(family_model("llama"))):
        for position in (0, 1, 5):
            stage = by_name(walk(model, Walk(ids=IDS, position=position)))["rotation"]
            angle = next(value for value in stage.values if value.name == "angle").array
            assert angle[0] == pytest.approx(position, abs=1e-4)
            assert np.all(angle > -1e-5)
    alone = by_name(walk(scratch(position="rotary"), Walk(ids=(5,))))["rotation"]
    assert not next(value for value in alone.values if value.name == "angle").array.any()


def test_the_formula_of_a_querys_norm_takes_the_mean_away_where_the_norm_does() -> None:
    model = copy.deepcopy(family_model("qwen3"))  # others share it
    attention = model.get_submodule("model.layers.0.self_attn")
    assert by_name(walk(opened(model), Walk(ids=IDS)))["query_norm"].formula.startswith("q = q / ")
    attention.q_norm = nn.LayerNorm(attention.head_dim).requires_grad_(False)  # as in Phi
    stage = by_name(walk(opened(model), Walk(ids=IDS)))["query_norm"]
    assert stage.difference is not None
    assert stage.formula == "q = (q − mean) / √(var + ε) · w + b"
    q, before = (value.array for value in stage.values)
    assert f"q[0] = ({before[0]:.4g} \u2212 ".replace("-", "\u2212") in stage.numbers
    assert stage.numbers.endswith(f"= {q[0]:.4g}".replace("-", "\u2212"))


def test_a_product_written_out_gives_its_result_with_each_negative_number_in_brackets() -> None:
    a, b = torch.tensor([0.5, -2.0]), torch.tensor([-3.0, 0.25])
    assert dot(a, b, float(a @ b) - 1, bias=-1.0) == "0.5·(−3) + (−2)·0.25 + (−1) = −3"
    long = torch.arange(1.0, 7.0)
    assert dot(long, long, float(long @ long)) == "1·1 + 2·2 + 3·3 + … + 6·6 = 91"


def test_what_a_formula_takes_for_granted_is_noted() -> None:
    tied, gemma = (
        by_name(walk(scratch(), Walk(text=TEXT))),
        by_name(walk(opened(family_model("gemma2")), Walk(ids=IDS))),
    )
    assert "U is the embedding E itself" in tied["logits"].note
    assert "w is 1 + the stored weight" in gemma["norm"].note
    assert not tied["norm"].note


@each(
    "wrong",
    [
        {"layer": 2},
        {"head": 4},
        {"position": 8},
        {"key": 8},
        {"text": ""},
        {"changes": ("norm[32]=1",)},
        {"changes": ("norm=1",)},
        {"changes": ("scores[1]=1",)},
        {"changes": ("rotation[1]=1",)},
        {"changes": ("rest[1]=1",), "layer": 1},
        {"changes": ("token:8= the",)},
        {"changes": ("token:0=the king",)},
        {"changes": ("weight:nothing[0]=1",)},
        {"changes": ("weight:final_norm.weight[0,1]=1",)},
        {"changes": ("weight:final_norm.weight[32]=1",)},
        {"changes": ("norm[0]=1",), "cache": True},
    ],
)
def test_what_cannot_be_walked_is_said_in_a_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        walk(scratch(), Walk(**({"text": TEXT} | wrong)))


def test_every_entry_of_the_stages_texts_is_of_a_stage_and_no_line_of_it_goes_unread() -> None:
    code = "".join(path.read_text() for path in Path(inspect.getfile(StageText)).parent.glob("*.py"))
    texts = read_toml(resources_dir() / "walk" / "stages.toml")
    assert [name for name in texts if f'"{name}"' not in code] == []
    read = {field.name for field in dataclasses.fields(StageText)}
    assert {line for entry in texts.values() for line in entry} <= read
