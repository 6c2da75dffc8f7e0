"""What a change does is exactly what its definition says, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cases import each
from experiment_models import hooks_of, opened, weights
from torch import Tensor

from llmlab.anatomy.capture import Observer, Point, run
from llmlab.core.errors import UsageError
from llmlab.inspection.archive import read_archive
from llmlab.inspection.intervening import Intervention, Interventions, Recorder, Sources, align, parse_intervention
from llmlab.inspection.interventions import Intervene, intervene
from llmlab.inspection.questions import from_values, to_values
from llmlab.models.model import OpenModel

PROMPT, SOURCE = "the king said", "a queen wept."  # 13 tokens each
KINDS = (
    {"block_size": 16},
    {"block_size": 16, "norm": "rmsnorm", "position": "rotary", "activation": "swiglu", "bias": True, "n_kv_head": 2},
)
PARTS = (
    "head:1.2",
    "attention:0",
    "feed_forward:1",
    "layer:1",
    "residual:1.pre_attn",
    "residual:0.attn_out",
    "token:4",
)


@pytest.fixture(params=KINDS, ids=["gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> OpenModel:
    return opened(**request.param)


class Points(Observer):
    """Keeps every point of every layer."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, str], Tensor] = {}

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        self.kept[layer, point] = x.clone()


def ids_of(model: OpenModel, text: str) -> list[int]:
    return model.tokenizer.encode(text)


def output_weights(model: OpenModel, layer: int, head: int) -> Tensor:
    """How one head output is written into the stream [C, D]."""
    weight = model.model.state_dict()[f"blocks.{layer}.attention.out.weight"]
    return weight[:, 8 * head : 8 * (head + 1)]


def changed(model: OpenModel, *edits: str, text: str = PROMPT, sources: Sources | None = None) -> tuple[Tensor, Points]:
    points, ids = Points(), ids_of(model, text)
    edit = Interventions([parse_intervention(edit) for edit in edits], len(ids), sources)
    return run(model.model, model.anatomy, ids, [points], [edit])[0], points


def unchanged(model: OpenModel, text: str = PROMPT) -> tuple[Tensor, Points]:
    points = Points()
    return run(model.model, model.anatomy, ids_of(model, text), [points])[0], points


def taken(model: OpenModel, text: str, *edits: str) -> dict[tuple[int, str], Tensor]:
    recorder = Recorder(slot for edit in edits for slot in parse_intervention(edit).takes)
    run(model.model, model.anatomy, ids_of(model, text), [recorder])
    return recorder.values


def patching(model: OpenModel, source: str, *edits: str, alignment: dict[int, int] | None = None) -> Sources:
    time = len(ids_of(model, source))
    return Sources(patches=taken(model, source, *edits), alignment=alignment or {t: t for t in range(time)})


@each("part", PARTS)
def test_patching_a_model_with_itself_changes_no_bit(model: OpenModel, part: str) -> None:
    edit = f"patch {part}"
    assert torch.equal(changed(model, edit, sources=patching(model, PROMPT, edit))[0], unchanged(model)[0])


@each("part", PARTS)
def test_scaling_by_one_changes_no_bit(model: OpenModel, part: str) -> None:
    assert torch.equal(changed(model, f"scale:1 {part}")[0], unchanged(model)[0])


@each("part", PARTS)
def test_scaling_by_zero_is_zeroing(model: OpenModel, part: str) -> None:
    assert torch.equal(changed(model, f"scale:0 {part}")[0], changed(model, f"zero {part}")[0])
    assert not torch.equal(changed(model, f"zero {part}")[0], unchanged(model)[0])


def test_zeroing_a_head_takes_its_contribution_out_of_attention(model: OpenModel) -> None:
    z = taken(model, PROMPT, "mean head:1.2")[1, "heads"][:, 2]  # [T, D]
    contribution = z @ output_weights(model, 1, 2).T
    before, after = unchanged(model)[1].kept, changed(model, "zero head:1.2")[1].kept
    torch.testing.assert_close(after[1, "attn_out"], before[1, "attn_out"] - contribution)
    assert contribution.norm() > 0.1


def test_all_heads_zeroed_leave_the_output_bias_alone(model: OpenModel) -> None:
    after = changed(model, *(f"zero head:1.{head}" for head in range(4)))[1].kept[1, "attn_out"]
    bias = model.model.state_dict().get("blocks.1.attention.out.bias")
    expected = torch.zeros_like(after) if bias is None else bias.expand_as(after)
    assert torch.equal(after, expected)


def test_zeroed_attention_and_feed_forward_add_nothing(model: OpenModel) -> None:
    points = changed(model, "zero attention:0", "zero feed_forward:0")[1].kept
    assert torch.equal(points[0, "post_ffn"], points[0, "pre_attn"])
    assert torch.equal(points[0, "post_attn"], points[0, "pre_attn"])


def test_a_zeroed_layer_is_skipped(model: OpenModel) -> None:
    points = changed(model, "zero layer:1")[1].kept
    assert torch.equal(points[1, "post_ffn"], points[1, "pre_attn"])
    assert torch.equal(points[1, "pre_attn"], unchanged(model)[1].kept[1, "pre_attn"])


def test_half_a_layer_is_half_of_what_it_adds(model: OpenModel) -> None:
    before, after = unchanged(model)[1].kept, changed(model, "scale:0.5 layer:0")[1].kept
    torch.testing.assert_close(after[0, "post_ffn"], (before[0, "pre_attn"] + before[0, "post_ffn"]) / 2)


@each("part", ["residual:1.pre_attn@9", "head:0.1@9", "feed_forward:1@9", "layer:0@9", "token:9"])
def test_changing_a_later_token_leaves_earlier_rows_alone(model: OpenModel, part: str) -> None:
    before, after = unchanged(model)[0], changed(model, f"zero {part}")[0]
    assert torch.equal(before[:9], after[:9])
    assert not torch.equal(before[9], after[9])


def test_a_position_alone_is_changed_where_it_is_named(model: OpenModel) -> None:
    before, after = unchanged(model)[1].kept, changed(model, "zero residual:0.attn_out@3,-1")[1].kept
    expected = before[0, "attn_out"].clone()
    expected[[3, 12]] = 0.0
    assert torch.equal(after[0, "attn_out"], expected)


def test_a_mean_is_that_of_the_text_it_is_taken_over(model: OpenModel) -> None:
    edits = ("mean head:0.1", "mean feed_forward:1")
    sources = Sources(means=taken(model, SOURCE, *edits))
    before, after = unchanged(model, SOURCE)[1].kept, changed(model, *edits, sources=sources)[1].kept
    torch.testing.assert_close(after[1, "mlp_out"], before[1, "mlp_out"].mean(0).expand_as(after[1, "mlp_out"]))
    z = taken(model, PROMPT, "mean head:0.1")[0, "heads"]
    mean = sources.means[0, "heads"][:, 1].mean(0)
    difference = (mean - z[:, 1]) @ output_weights(model, 0, 1).T
    own = unchanged(model)[1].kept[0, "attn_out"]
    torch.testing.assert_close(after[0, "attn_out"], own + difference)


def test_a_layer_averaged_adds_its_mean(model: OpenModel) -> None:
    sources = Sources(means=taken(model, PROMPT, "mean layer:0"))
    before, after = unchanged(model)[1].kept, changed(model, "mean layer:0", sources=sources)[1].kept
    added = before[0, "post_ffn"] - before[0, "pre_attn"]
    torch.testing.assert_close(after[0, "post_ffn"], before[0, "pre_attn"] + added.mean(0))


def test_patching_the_last_layer_gives_the_predictions_of_the_source(model: OpenModel) -> None:
    sources = patching(model, SOURCE, "patch layer:1")
    assert torch.equal(changed(model, "patch layer:1", sources=sources)[0], unchanged(model, SOURCE)[0])


def test_an_alignment_says_which_values_go_where(model: OpenModel) -> None:
    edit = "patch residual:1.pre_attn"
    sources = patching(model, "an owl", edit, alignment={2: 5, 7: 0})
    after, source = changed(model, edit, sources=sources)[1].kept, unchanged(model, "an owl")[1].kept
    expected = unchanged(model)[1].kept[1, "pre_attn"].clone()
    expected[2], expected[7] = source[1, "pre_attn"][5], source[1, "pre_attn"][0]
    assert torch.equal(after[1, "pre_attn"], expected)


def test_alignments_that_can_be_written() -> None:
    assert align("", 2, 2) == {0: 0, 1: 1}
    assert align("start", 4, 2) == {0: 0, 1: 1}
    assert align("end", 4, 2) == {2: 0, 3: 1}
    assert align("end", 2, 4) == {0: 2, 1: 3}
    assert align("-1=0,1=-1", 4, 3) == {3: 0, 1: 2}
    with pytest.raises(UsageError, match="has 4 tokens and the source 3"):
        align("", 4, 3)
    with pytest.raises(UsageError, match="no token 3"):
        align("0=3", 4, 3)
    with pytest.raises(UsageError, match="not an alignment"):
        align("middle", 4, 3)


def test_weights_and_hooks_are_as_before(model: OpenModel, tmp_path: Path) -> None:
    before = weights(model)
    edits = ("zero head:0.1", "mean layer:1", "patch attention:0", "scale:2 feed_forward:1@3")
    intervene(model, Intervene(text=PROMPT, source=SOURCE, edits=edits), tmp_path / "a")
    with pytest.raises(UsageError):
        intervene(model, Intervene(text=PROMPT, edits=("zero residual:0.pre_attn@20",)), tmp_path / "b")
    assert hooks_of(model) == 0
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.state_dict().items())
    assert not (tmp_path / "b").exists()


def test_the_archive_holds_both_predictions_and_their_distance(model: OpenModel, tmp_path: Path) -> None:
    question = Intervene(
        text=PROMPT, source=SOURCE, edits=("patch layer:0@4",), answer="e", against="a", position=-2, top=3
    )
    intervene(model, question, tmp_path / "a.safetensors")
    archive = read_archive(tmp_path / "a.safetensors")
    before, source = unchanged(model)[0], unchanged(model, SOURCE)[0]
    after = changed(model, "patch layer:0@4", sources=patching(model, SOURCE, "patch layer:0"))[0]
    e, a = ids_of(model, "ea")
    for name, logits in (("before", before), ("after", after)):
        best = logits.softmax(-1).topk(3)
        assert archive[f"{name}/ids"].tolist() == best.indices.tolist()
        torch.testing.assert_close(torch.tensor(archive[f"{name}/probability"]), best.values.float())
        assert archive[f"target/{name}"][0] == pytest.approx(float(logits[-2, e] - logits[-2, a]), rel=1e-6)
        assert archive[f"{name}/logits"].tolist() == pytest.approx(logits[-2, [e, a]].tolist(), rel=1e-6)
    assert archive["target/source"][0] == pytest.approx(float(source[-2, e] - source[-2, a]), rel=1e-6)
    p, q = before.log_softmax(-1), after.log_softmax(-1)
    torch.testing.assert_close(torch.tensor(archive["kl"]), (p.exp() * (p - q)).sum(-1).float())
    assert archive["kl"][:4].max() == 0
    assert archive["change/post_ffn"].shape == (2, 13)
    assert archive["change/post_ffn"][:, :4].max() == 0
    assert archive["change/post_ffn"][0, 4] > 0.01
    about = archive.metadata
    assert (about.kind, about.more["answer_text"], about.more["against_text"], about.more["position"]) == (
        "intervention", "e", "a", "11",
    )  # fmt: skip
    assert json.loads(about.more["changes"]) == ["patch layer:0@4"]
    assert from_values(Intervene, about.question) == question
    assert from_values(Intervene, json.loads(json.dumps(to_values(question)))) == question


def test_patching_with_the_prompt_itself_has_no_divergence(model: OpenModel, tmp_path: Path) -> None:
    intervene(model, Intervene(text=PROMPT, source=PROMPT, edits=("patch layer:0", "patch head:1.1")), tmp_path / "a")
    archive = read_archive(tmp_path / "a")
    assert archive["kl"].max() == 0
    assert archive["change/post_ffn"].max() == 0
    assert archive["before/ids"].tolist() == archive["after/ids"].tolist()
    assert archive["target/before"] == archive["target/after"] == archive["target/source"]


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("zero head:3.2", Intervention("zero", "head", 3, head=2)),
        ("mean mlp:4", Intervention("mean", "feed_forward", 4)),
        ("scale:-0.5 layer:2@-1,3", Intervention("scale", "layer", 2, factor=-0.5, positions=(-1, 3))),
        ("patch residual:5.attn_out@7", Intervention("patch", "residual", 5, point="attn_out", positions=(7,))),
        ("zero token:3", Intervention("zero", "residual", 0, positions=(3,))),
    ],
)
def test_a_change_is_read_as_it_is_written(text: str, change: Intervention) -> None:
    assert parse_intervention(text) == change
    assert parse_intervention(str(change)) == change


NO_CHANGES = (
    *("", "zero", "zero head:3", "zero head:1.x", "zero layer:1.2", "half layer:1", "scale layer:1", "zero nose:1"),
    *("scale:1e layer:1", "zero residual:1", "zero residual:1.post_attn", "zero residual:1.middle", "zero layer:1@"),
)


@each("text", NO_CHANGES)
def test_what_is_no_change_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_intervention(text)
    assert caught.value.why


@pytest.mark.parametrize(
    ("edits", "source", "words"),
    [
        ((), "", "nothing to change"),
        (("zero head:2.0",), "", "no layer 2"),
        (("zero head:0.4",), "", "no head 4"),
        (("patch head:0.0",), "", "no source"),
        (("patch head:0.0",), "abc", "13 tokens and the source 3"),
        (("zero head:0.0@13",), "", "no token 13"),
    ],
)
def test_wrong_interventions_are_refused(edits: tuple[str, ...], source: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        intervene(opened(block_size=16), Intervene(text=PROMPT, source=source, edits=edits), tmp_path / "a")
