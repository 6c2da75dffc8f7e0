"""Starting the processes of a run that several train: torchrun's elastic agent, on this machine."""

from __future__ import annotations

import os
import signal

import psutil

from llmlab.core.errors import LabError
from llmlab.core.paths import module_command
from llmlab.core.processes import follow_parent
from llmlab.store.run_folder import RunFolder

_LOOPBACK = "127.0.0.1"


def run_ranks(run: RunFolder, count: int) -> LabError | None:
    """Starts `count` workers on `run` and waits for their end; what to say where one of them ended otherwise than by
    itself. A signal to this process is passed on to all of them.

    None of them is started again: a run that failed says so, and is resumed by whoever has seen why. torchrun by hand
    has --max-restarts.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args
    from torch.distributed.run import run as torchrun

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun would set it too, and warn
    if (loopback := _loopback()) is not None:  # the machine's own name may lead nowhere, without a network
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    where = ["--standalone", "--local-addr", _LOOPBACK, "--nproc-per-node", str(count), "--max-restarts", "0"]
    try:
        torchrun(parse_args([*where, "--no-python", *module_command("llmlab.jobs.worker"), str(run.path)]))
    except SignalException:
        return None
    except ChildFailedError as error:
        # Who was killed comes first: the others end by themselves when they notice, or by torchrun's SIGTERM.
        ends = {rank: failure.exitcode for rank, failure in error.failures.items()}
        rank = min(ends, key=lambda rank: (ends[rank] == -signal.SIGTERM, ends[rank]))
        how = f"was killed ({signal.Signals(-ends[rank]).name})" if ends[rank] < 0 else f"ended with {ends[rank]}"
        why = "The system does that where memory runs out." if ends[rank] == -signal.SIGKILL else ""
        return LabError(
            f"Process {rank} of the run's {count} {how}.", why, "Resume the run: it goes on from its newest checkpoint."
        )
    return None


def die_with_torchrun() -> None:
    """Ends this process when the agent that started it is gone, which could not end it any more."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        follow_parent(os.getppid())


def _loopback() -> str | None:
    """The name of the network interface that leads to this machine itself."""
    interfaces = psutil.net_if_addrs().items()
    return next((name for name, there in interfaces if any(one.address == _LOOPBACK for one in there)), None)
