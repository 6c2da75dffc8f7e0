"""Processes that Qt starts, forked as `fork_server` forks those that Python starts.

In place of each, Qt starts a small process. That one hands its command and its standard files to the process that
tests, where the command is started with them; it passes on that it shall end, and ends as the command did. What was
started for it ends with it.
"""

# The small process imports as little as it can.
import json
import os
import signal
import socket
import sys

_LONGEST = 200_000  # bytes of a command and its environment; a socket's buffer holds 212,992


def install() -> None:
    """From now on, until this process ends."""
    import threading

    import fork_server
    from PySide6.QtCore import QProcess

    if sys.platform != "linux":
        return
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("")  # to a name that Linux finds, which is in no folder
    listener.listen()
    name = listener.getsockname()[1:].decode()
    start = QProcess.start

    def start_fork(self: QProcess, program: str, arguments: list[str]) -> None:
        if fork_server.enabled() and fork_server.module_of([program, *arguments]) is not None:
            program, arguments = sys.executable, ["-IS", __file__, name, program, *arguments]
        start(self, program, arguments)

    QProcess.start = start_fork
    threading.Thread(target=_serve, args=[listener], daemon=True, name="forks for Qt").start()


def _serve(listener: socket.socket) -> None:
    """Starts what is asked for, tells who asked how it ended, and ends it where nobody waits for it any more."""
    import select
    import subprocess

    poll = select.poll()
    poll.register(listener, select.POLLIN)
    of: dict[int, tuple[socket.socket, int, subprocess.Popen[bytes]]] = {}  # by both of its descriptors
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                link, _ = listener.accept()
                message, files, _, _ = socket.recv_fds(link, _LONGEST, 3)
                if not message:  # it was ended before it could ask
                    link.close()
                    continue
                command, environment = json.loads(message)
                process = subprocess.Popen(command, stdin=files[0], stdout=files[1], stderr=files[2], env=environment)
                for file in files:
                    os.close(file)
                _tell(link, process.pid)
                ended = os.pidfd_open(process.pid)
                for each in (link.fileno(), ended):
                    of[each] = (link, ended, process)
                    poll.register(each, select.POLLIN)
            elif descriptor in of:
                link, ended, process = of[descriptor]
                if descriptor != ended:
                    process.kill()
                code = process.wait()
                for each in (link.fileno(), ended):
                    poll.unregister(each)
                    del of[each]
                _tell(link, code)
                link.close()
                os.close(ended)


def _tell(link: socket.socket, number: int) -> None:
    """Who asked, unless it was ended meanwhile: that is seen at the next look."""
    import contextlib

    with contextlib.suppress(OSError):
        link.send(str(number).encode())


def _stand_in(name: str, command: list[str]) -> None:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.connect(f"\0{name}")
    socket.send_fds(link, [json.dumps([command, dict(os.environ)]).encode()], [0, 1, 2])
    os.closerange(0, 3)
    pid = int(link.recv(20))
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    code = int(link.recv(20))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    _stand_in(sys.argv[1], sys.argv[2:])
