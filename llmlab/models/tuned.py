"""What a run that fine-tunes stands on: the model that it started from. No torch is needed here."""

from __future__ import annotations

from llmlab.core.errors import LabError, UsageError
from llmlab.models.reference import (
    LATEST,
    AdaptedModel,
    AmbiguousName,
    LiveRun,
    Reference,
    SavedRun,
    is_fine_tuned,
    parse,
)
from llmlab.store.checkpoints import select
from llmlab.store.run_folder import RunFolder


def base_of(run: RunFolder) -> Reference:
    """The model that a fine-tuning run changes; runs are looked for beside it.

    LabError when it is not here, or when bases lead around in a circle.
    """
    base = _named_base(run)
    seen, below = {run.path.resolve()}, base
    while True:
        if isinstance(below, AdaptedModel):
            below = below.base
        if not (isinstance(below, SavedRun) and is_fine_tuned(below.run)):
            return base
        if below.run.path.resolve() in seen:
            raise LabError(f"{run.id} cannot be opened.", f"Its base, {base}, stands on the run itself.")
        seen.add(below.run.path.resolve())
        below = _named_base(below.run)


def base_and_fine_tuned(reference: Reference) -> tuple[str, str]:
    """References of a base and of what fine-tuning made of it, which are compared to see what that did.

    Of a live run, its newest checkpoint. LabError when nothing was fine-tuned there, or the base is not here.
    """
    if isinstance(reference, AdaptedModel):
        return str(reference.base), str(reference)
    if not isinstance(reference, (SavedRun, LiveRun)) or not is_fine_tuned(reference.run):
        raise LabError(f"{reference} was not fine-tuned.", "It has no base to be compared with.")
    which = reference.which if isinstance(reference, SavedRun) else LATEST
    step = select(reference.run.checkpoints, which).step
    return str(base_of(reference.run)), f"{reference.named}@{step}"


def _named_base(run: RunFolder) -> Reference:
    text = run.info().settings.base
    try:
        base = parse(text, run.path.parent.parent)
    except UsageError as error:
        raise LabError(
            f"{run.id} cannot be opened without its base, {text or 'which it does not name'}.",
            f"{error.what} {error.why}".strip(),
            f"Write its full name as model.base into {run.run_json}."
            if isinstance(error, AmbiguousName)
            else "Put the base back where it was when the run began.",
        ) from error
    if isinstance(base, LiveRun):
        raise LabError(f"{run.id} cannot be opened.", f"Its base, {base}, changes from step to step.")
    return base
