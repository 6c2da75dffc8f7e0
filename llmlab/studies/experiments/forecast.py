"""What small models say about the next larger one: written down before that one is trained."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from llmlab.core.files import write_json
from llmlab.studies.experiments.fits import PowerLaw, fit_power_law
from llmlab.studies.experiments.outcomes import Forecast, read_forecast
from llmlab.studies.experiments.records import Arm, ExperimentFolder, ExperimentRecord
from llmlab.studies.experiments.results import Gathered, gather


def forecast_next(folder: ExperimentFolder, record: ExperimentRecord, arm: Arm) -> None:
    """Writes forecast.json from the arms that have finished, unless it is there, or their fit says nothing."""
    begun = (folder.run_of(one, record.track).events.exists() for one in record.arms if one.forecast)
    if read_forecast(folder) is not None or any(begun):  # a run of its size with another seed tells as much
        return  # what was not said before is not said afterwards
    gathered = gather(folder, record)
    law = law_of_others(gathered)
    if law is None:
        return
    spread = law.forecast(arm.x)
    fitted = [one.name for one in gathered.finished() if not record.arm(one.name).forecast]
    forecast = Forecast(
        arm=arm.name,
        x=arm.x,
        value=float(law(np.array(arm.x))),
        low=spread[0] if spread else None,
        high=spread[1] if spread else None,
        a=law.a,
        b=law.b,
        c=law.c,
        arms=fitted,
        written=time.time(),
    )
    write_json(folder.forecast_json, dataclasses.asdict(forecast))


def law_of_others(gathered: Gathered) -> PowerLaw | None:
    """The power law through all finished arms but those to be predicted."""
    arms = [arm for arm in gathered.finished() if not gathered.record.arm(arm.name).forecast]
    if not arms:
        return None
    return fit_power_law(np.array([arm.x for arm in arms]), np.array([gathered.loss(arm) for arm in arms], dtype=float))
