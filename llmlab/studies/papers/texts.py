"""What the verdicts on a paper say in words: resources/papers/<name>/verdicts.toml. No torch.

    [claims.<id>]     statistic and its unit; threshold; paper: why its own criterion cannot be applied
    [charts.<name>]   title, axes, caption, as in `llmlab.core.charts.Chart`

Names in braces are numbers of the paper's thresholds.py, or what a verdict gives beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from llmlab.core.charts import Chart, Series
from llmlab.core.config import read_toml
from llmlab.core.records import from_plain
from llmlab.data.papers import INCONCLUSIVE, PAPERS_DIR
from llmlab.studies.papers.agreement import models_sentence
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict


class PaperTexts:
    """The texts of one paper."""

    def __init__(self, paper: str, bounds: Mapping[str, Any]) -> None:
        """bounds: numbers by name. Reads nothing yet."""
        self._paper, self._bounds = paper, bounds

    def verdict(
        self,
        claim: str,
        verdict: str,
        value: float | None,
        *,
        criterion: PapersCriterion | None = None,
        facts: Mapping[str, Any] | None = None,
        **rest: Any,
    ) -> Verdict:
        """value: of the statistic. criterion: where the paper's own can be applied. rest: as `Verdict` has it."""
        texts, named = self._texts["claims"][claim], {**self._bounds, **(facts or {})}
        return Verdict(
            claim=claim,
            verdict=verdict,
            statistic=Statistic(texts["statistic"].format(**named), value, texts.get("unit", "").format(**named)),
            threshold=texts["threshold"].format(**named),
            papers_criterion=criterion or PapersCriterion(None, texts["paper"].format(**named)),
            **rest,
        )

    def nothing_measured(self, claim: str, refused: Mapping[str, str]) -> Verdict:
        """The verdict where no model could be asked. refused: why, by model."""
        criterion, reason = PapersCriterion(None, "No model could be asked."), models_sentence([], refused)
        return self.verdict(claim, INCONCLUSIVE, None, criterion=criterion, n=0, seeds=[], reason=reason)

    def chart(
        self, name: str, series: Sequence[Series], categories: Sequence[str] = (), *, end: str = "", **facts: object
    ) -> Chart:
        """end: of its file's name, where there are several of one kind."""
        texts = self._texts["charts"][name]
        own = {"name": f"{name}{end}", "title": texts["title"].format(**facts)}
        return from_plain(Chart, texts | own | {"series": list(series), "categories": list(categories)})

    @cached_property
    def _texts(self) -> dict[str, Any]:
        return read_toml(PAPERS_DIR / self._paper / "verdicts.toml")
