"""The process that runs an experiment, or a check of a paper: `python -m llmlab.studies.worker <its folder>`.

Exit codes: llmlab.jobs.worker_process.
"""

from __future__ import annotations

import signal
from pathlib import Path

from llmlab.jobs.worker_process import work_as
from llmlab.studies.check_worker import CheckWorker
from llmlab.studies.experiment_worker import ExperimentWorker
from llmlab.studies.plans.records import CheckFolder, ExperimentFolder


def main(argv: list[str] | None = None) -> int:
    """Entry of the worker process."""
    return work_as("llmlab.studies.worker", "experiment", _work, argv)


def _work(path: Path) -> None:
    """Runs the plan in a folder. SIGTERM ends it when the runs that train have saved."""
    check = CheckFolder(path)
    worker = CheckWorker(check) if check.experiment_json.is_file() else ExperimentWorker(ExperimentFolder(path))

    def end(*_: object) -> None:
        worker.terminated = True
        worker.stop_signal.set()

    signal.signal(signal.SIGTERM, end)
    worker.run()


if __name__ == "__main__":
    raise SystemExit(main())
