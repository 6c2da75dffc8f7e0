"""Models and prompts that were used lately, newest first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from llmlab.models.reference import without_folders
from llmlab.store.checkpoints import checkpoint_name
from llmlab.store.run_folder import RunFolder

_MOST = 20
_LONGEST_PROMPT = 20_000


@dataclass(frozen=True)
class RecentModel:
    """What opened a model, and what it was."""

    reference: str
    name: str
    detail: str = ""


@dataclass
class Recent:
    """Both lists, as the window's settings keep them; and the reference of the model that is open, which is offered
    again at the next start."""

    models: list[RecentModel] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    open: str = ""

    def add_model(self, model: RecentModel) -> None:
        """To the front: it is open now."""
        self.open = model.reference
        others = [other for other in self.models if other.reference != model.reference]
        self.models = [model, *others][:_MOST]

    def add_cancelled(self, reference: str) -> None:
        """One whose opening was cancelled, unless it has been open before."""
        if reference and all(model.reference != reference for model in self.models):
            cancelled = RecentModel(reference, without_folders(reference), "its opening was cancelled")
            self.models = [cancelled, *self.models][:_MOST]

    def add_prompt(self, text: str) -> None:
        """To the front, in place of the one before if that was only half of it."""
        if not text.strip() or len(text) > _LONGEST_PROMPT:
            return
        others = [other for other in self.prompts if other != text]
        if others and (text.startswith(others[0]) or others[0].startswith(text)):
            others = others[1:]
        self.prompts = [text, *others][:_MOST]

    def there(self, outputs: Path) -> list[RecentModel]:
        """The models without the checkpoints that were deleted since, and without live ones, which are offered by
        themselves while they train. outputs: where runs are found by their names."""
        kept = (model for model in self.models if not model.reference.endswith("@live"))
        return [model for model in kept if not is_gone(model.reference, outputs)]

    def left_open(self, outputs: Path) -> RecentModel | None:
        """The one that is open, or was when the window closed, where it is still there; in place of a live one what its
        run saved last."""
        left = [model for model in self.models if model.reference == self.open]
        if self.open.endswith("@live"):
            run = self.open.removesuffix("@live")
            try:
                saved = any(any(found.checkpoints.glob("step-*")) for found in _runs_called(run, outputs))
            except OSError:
                saved = False
            left = [replace(model, reference=f"{run}@latest") for model in left if saved]
        return next(iter(Recent(left).there(outputs)), None)


def is_gone(reference: str, outputs: Path) -> bool:
    """Whether it names a checkpoint, by its step, that is not there any more."""
    run, _, step = reference.rpartition("@")
    if not run or not step.isdecimal() or "+" in run:
        return False
    try:
        if Path(reference).exists():  # a folder of that name
            return False
        name = checkpoint_name(int(step))
        return not any((found.checkpoints / name).is_dir() for found in _runs_called(run, outputs))
    except OSError:
        return False


def _runs_called(name: str, outputs: Path) -> list[RunFolder]:
    """What a reference may mean: the name, or TRACK/NAME, among the outputs, or a folder."""
    return [RunFolder(track / name) for track in (outputs, *(outputs.iterdir() if outputs.is_dir() else ()))]
