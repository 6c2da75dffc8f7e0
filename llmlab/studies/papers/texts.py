"""What the verdicts on a paper say in words: resources/papers/<name>/verdicts.toml. No torch.

    [claims.<id>]     statistic and its unit; threshold; paper: why its own criterion cannot be applied
    [charts.<name>]   title, axes, caption, as in `llmlab.core.charts.Chart`
    [says]            sentences of the reasons, by name

Names in braces are numbers of the paper's thresholds.py, or what a verdict gives beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from llmlab.core.charts import Chart, Series, Table
from llmlab.core.config import read_toml
from llmlab.core.records import from_plain
from llmlab.data.papers import PAPERS_DIR
from llmlab.studies.papers.agreement import Agreed, of_models
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict


class PaperTexts:
    """The texts of one paper."""

    def __init__(self, paper: str, bounds: Mapping[str, Any]) -> None:
        """bounds: numbers by name. Reads nothing yet."""
        self._paper, self._bounds = paper, bounds

    def verdict(
        self,
        claim: str,
        agreed: Agreed,
        value: float | None,
        interval: tuple[float, float] | None = None,
        *,
        said: Iterable[str],
        n: int,
        p: float | None = None,
        criterion: PapersCriterion | None = None,
        facts: Mapping[str, object] | None = None,
        charts: Sequence[Chart] = (),
        tables: Sequence[Table] = (),
        evidence: Mapping[str, Any] | None = None,
        after: str = "",
    ) -> Verdict:
        """value: of the statistic, and interval: shares where its unit is %, and written in per cent.

        said, after: sentences before and behind the one on how seeds or models are divided. criterion: where the
        paper's own can be applied. facts: numbers of its texts. The others as `Verdict` has them.
        """
        texts, named = self._texts["claims"][claim], {**self._bounds, **(facts or {})}
        unit = texts.get("unit", "").format(**named)
        scale = 100.0 if unit == "%" else 1.0
        return Verdict(
            claim=claim,
            verdict=agreed.word,
            statistic=Statistic(texts["statistic"].format(**named), None if value is None else scale * value, unit),
            threshold=texts["threshold"].format(**named),
            n=n,
            seeds=agreed.seeds,
            papers_criterion=criterion or PapersCriterion(None, texts["paper"].format(**named)),
            reason=" ".join(part for part in (*said, agreed.sentence, after) if part),
            interval=None if interval is None else (scale * interval[0], scale * interval[1]),
            p=p,
            charts=list(charts),
            tables=list(tables),
            evidence=dict(evidence or {}),
        )

    def nothing_measured(self, claim: str, refused: Mapping[str, str]) -> Verdict:
        """The verdict where no model could be asked. refused: why, by model."""
        criterion = PapersCriterion(None, "No model could be asked.")
        return self.verdict(claim, of_models([], refused), None, said=[], n=0, criterion=criterion)

    def say(self, name: str, **facts: object) -> str:
        """A sentence of [says]."""
        return str(self._texts["says"][name]).format(**self._bounds, **facts)

    def words(self, kind: str, name: str, **facts: object) -> dict[str, str]:
        """The texts of [<kind>.<name>], as `criteria` has them."""
        return {key: str(text).format(**self._bounds, **facts) for key, text in self._texts[kind][name].items()}

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
