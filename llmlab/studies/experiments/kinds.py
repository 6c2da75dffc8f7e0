"""The experiments that the lab offers, as resources/experiments/kinds.toml has them. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmlab.core.charts import Axis
from llmlab.core.errors import unknown
from llmlab.core.records import named_records

# The tracks, as llmlab.store.run_folder names them.
PRETRAINING, FINETUNING = "pretraining", "finetuning"
_LOSS = Axis("validation loss", "nats per token")


@dataclass(frozen=True)
class Kind:
    """One experiment. hypothesis: from the literature, written before anything is run; source: of it.

    varies: what changes, in words. setting: which one, "" where it is no single one. grids: its default values by
    track. quantities: names of what its results say and a prediction may (llmlab.notebook.quantities), the chief one
    first. metric: which loss of a run counts, its last or its best (of TrialResult). seeds: runs a value, where not
    said otherwise. groups: the curves that can be compared, where there are several. trains: false where a run that
    is there is looked at.
    """

    name: str
    title: str
    question: str
    hypothesis: str
    source: str
    varies: str
    x_axis: Axis
    quantities: list[str]
    grids: dict[str, list[float]]
    setting: str = ""
    y_axis: Axis = _LOSS
    metric: str = "val_loss"
    seeds: int = 1
    groups: list[str] = field(default_factory=list)
    trains: bool = True

    @property
    def tracks(self) -> tuple[str, ...]:
        """Where it makes sense."""
        return tuple(self.grids)

    def groups_of(self, track: str) -> list[str]:
        """What can be compared there: where a kind also trains from scratch, its groups are ways to fine-tune."""
        return [] if track == PRETRAINING and FINETUNING in self.grids else self.groups


KINDS = named_records(Kind, "experiments/kinds.toml")


def find_kind(name: str) -> Kind:
    """The experiment of that name; UsageError naming the nearest when there is none."""
    if name not in KINDS:
        raise unknown("experiment", name, KINDS)
    return KINDS[name]
