"""What Qt starts is forked, hears what it is told, and ends as its fork does; a fork ends with it."""

from __future__ import annotations

import sys

import fork_server
import psutil
import pytest
from PySide6.QtCore import QCoreApplication, QProcess
from pytestqt.qtbot import QtBot
from waits import WAIT

from llmlab.core.paths import module_command

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")


@pytest.fixture
def host(qapp: QCoreApplication) -> QProcess:
    return QProcess()


def fork_of(host: QProcess, qtbot: QtBot) -> psutil.Process:
    """Starts it; the process that was forked, which answers."""
    program, *arguments = module_command("llmlab.jobs.model_host")
    before = {process.pid for process in psutil.Process().children()}
    host.start(program, arguments)
    host.write(b'{"id": 7, "do": "open", "model": "nothing@1"}\n')
    qtbot.waitUntil(lambda: b'"id": 7' in host.readAllStandardOutput().data())
    template = fork_server.running()
    assert template is not None
    before |= {template.pid, host.processId()}
    (fork,) = [process for process in psutil.Process().children() if process.pid not in before]
    return fork


def test_it_answers_and_ends_with_the_code_of_its_fork(host: QProcess, qtbot: QtBot) -> None:
    fork = fork_of(host, qtbot)
    host.closeWriteChannel()
    assert host.waitForFinished(WAIT)
    assert (host.exitStatus(), host.exitCode()) == (QProcess.ExitStatus.NormalExit, 0)
    assert not fork.is_running()


@pytest.mark.parametrize("how", [QProcess.terminate, QProcess.kill])
def test_its_fork_ends_with_it(host: QProcess, qtbot: QtBot, how) -> None:
    fork = fork_of(host, qtbot)
    how(host)
    assert host.waitForFinished(WAIT)
    assert host.exitStatus() == QProcess.ExitStatus.CrashExit
    qtbot.waitUntil(lambda: not fork.is_running())


def test_one_that_is_ended_at_once_does_not_hold_up_the_next(qtbot: QtBot) -> None:
    program, *arguments = module_command("llmlab.jobs.model_host")
    for moment in (0, 20, 60, 120):
        host = QProcess()
        host.start(program, arguments)
        qtbot.wait(moment)
        host.kill()
        assert host.waitForFinished(WAIT)
    fork = fork_of(again := QProcess(), qtbot)
    again.kill()
    assert again.waitForFinished(WAIT)
    qtbot.waitUntil(lambda: not fork.is_running())
