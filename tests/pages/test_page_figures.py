"""Figures of the concept pages: each file is what its function draws today, and its numbers are those of the lab."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from page_figures import FIGURES
from page_figures.picture import Picture, Plot, Scale
from page_figures.sources import stages

from llmlab.core.paths import resources_dir
from llmlab.gpt.toy import IDS, toy_model

_FOLDER = resources_dir() / "concepts"
_NUMBER = re.compile(r"−?\d+(?:\.\d+)?")
_NEAR = 0.11  # of a coordinate, which has one decimal: machines may round differently
_LARGEST = 40_000  # bytes


def words_of(name: str) -> list[str]:
    """What a figure's file says."""
    return re.findall(r"<text [^>]*>(.*?)</text>", file_of(name).read_text(encoding="utf-8"))


def file_of(name: str) -> Path:
    return _FOLDER / "figures" / f"{name}.svg"


def numbers_of(words: list[str]) -> list[float]:
    return [float(number.replace("−", "-").replace("+", "")) for number in words]


def test_each_file_is_what_its_function_draws() -> None:
    assert {path.stem for path in (_FOLDER / "figures").iterdir()} == set(FIGURES)
    for name, draw in FIGURES.items():
        drawn, filed = draw().svg(), file_of(name).read_text(encoding="utf-8")
        assert _NUMBER.sub("#", drawn) == _NUMBER.sub("#", filed), name
        numbers = zip(_NUMBER.findall(drawn), _NUMBER.findall(filed), strict=True)
        assert [
            pair for pair in numbers if abs(float(pair[0].replace("−", "-")) - float(pair[1].replace("−", "-"))) > _NEAR
        ] == [], name
        assert len(filed.encode()) < _LARGEST, name


def test_each_concept_page_has_a_figure_with_words_for_it_and_each_figure_a_page() -> None:
    shown: list[str] = []
    for path in sorted(_FOLDER.glob("*.md")):
        figures = re.findall(r"^!\[(.*?)\]\(figures/(.*?)\.svg\)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert figures or path.stem == "notation", path.name  # tables of symbols
        assert all(len(words) >= 40 for words, _ in figures), path.name
        shown += [name for _, name in figures]
    assert sorted(shown) == sorted(FIGURES)  # each once


def test_a_drawing_can_be_read_on_a_page_of_360_pixels() -> None:
    for name in FIGURES:
        text = file_of(name).read_text(encoding="utf-8")
        assert re.search(r'<svg [^>]*width="460"', text), name
        assert min(map(int, re.findall(r'font-size="(\d+)"', text))) >= 12, name
        assert set(re.findall(r"<(\w+)[ >]", text)) <= {"svg", "title", "text", "rect", "polyline", "polygon", "circle"}


def test_the_parts_of_a_logit_add_up_to_it() -> None:
    *parts, logit = numbers_of([words for words in words_of("attributions") if words[0] in "+−"])
    model, ids = toy_model(), IDS
    assert sum(parts) == pytest.approx(logit, abs=0.005 * len(parts))
    assert float(model(ids)[0, -1, 4].detach()) == pytest.approx(logit, abs=0.005)


def test_the_stages_are_the_models_own() -> None:
    model, ids = toy_model(), IDS
    last = list(stages(model, ids).values())[-1]
    torch.testing.assert_close(model.final_norm(last), model.residual_stream(ids))


def test_attention_of_a_query_sums_to_one_and_the_lens_ends_at_the_prediction() -> None:
    shares = [float(words) for words in words_of("attention-scores") if re.fullmatch(r"0\.\d\d", words)]
    assert sum(shares) == pytest.approx(1, abs=0.02)
    model, ids = toy_model(), IDS
    cells = [float(words) for words in words_of("lens-by-depth") if re.fullmatch(r"0\.\d\d", words)]
    assert cells[-6:] == pytest.approx(model(ids)[0, -1].softmax(-1).tolist(), abs=0.006)


def test_the_entropy_of_elimination_is_the_logarithm_of_what_is_left() -> None:
    entropies = [float(words.split(" ")[0]) for words in words_of("belief-by-elimination") if words.endswith(" bits")]
    assert entropies == pytest.approx([math.log2(8 - seen) for seen in range(8)], abs=0.005)


def test_the_bytes_of_ranks_are_those_of_the_pages_formulas() -> None:
    said = [numbers_of(_NUMBER.findall(words)) for words in words_of("who-holds-what") if words.startswith("held")]
    parameters = 806_528 / 1e6
    assert said == [
        pytest.approx([16 * parameters, 2 * 3 / 4 * 4 * parameters], abs=0.05),
        pytest.approx([16 * parameters / 4, 3 * 3 / 4 * 4 * parameters], abs=0.05),
    ]


def test_a_value_beyond_its_axis_is_refused() -> None:
    plot = Plot(Picture("p", 200), Scale("x", 0, 1, (0, 1)), Scale("y", 1, 100, (1, 100), log=True))
    assert plot.at(0.5, 10) == ((plot.left + plot.right) / 2, (plot.top + plot.bottom) / 2)
    with pytest.raises(ValueError, match="200 lies beyond the axis 'y'"):
        plot.line([0, 1], [1, 200])
