"""Real processes of the lab without the seconds in which torch is imported: forked from one that has imported it.
So are the processes in which pytest-xdist tests, for which it has imported the tests, too.

On Linux `install` answers `subprocess.Popen` of the modules in SERVED, in the two forms in which `module_command`
and `python -m` (or `python -u -m`) start them, of the files in BENCHMARKS, of FAULTY, of FAKE_HOST, and of what
pytest-xdist starts.
What comes is a process as it was asked for: its own id, environment, folder, files, session and exit code, a child of
the one that asked, and it runs the very code of the command. Only the start of the interpreter is shared.
Whatever else is asked for, and tests marked `real_start`, get what they would get without this.

A template forks twice for each, and the one between ends at once, so that the kernel hands the process to the one
that asked, which for that moment takes orphans (PR_SET_CHILD_SUBREAPER). One clone with CLONE_PARENT would do, but
runs nothing of what libraries registered for after a fork: tokenizers then waits for threads that are not there. Each
process that may start others has a template of its own, forked from the same, before it ran anything.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import inspect
import io
import json
import os
import pkgutil
import random
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import hypothesis.strategies
import pytest
from processes import MARK

# The modules, and whether each may start others of them.
SERVED = {
    "llmlab": True,
    "llmlab.jobs.worker": True,  # a run of several processes
    "llmlab.studies.worker": True,
    "llmlab.jobs.model_host": False,
    "llmlab.exercises.check_process": False,
    "llmlab.cli.self_test": False,
    "torch.distributed.run": True,
    "submitit.local._local": True,  # a job of its local cluster, and what runs in it
    "submitit.core._submit": True,
    "execnet": True,  # a process that tests
}
BENCHMARKS = Path(__file__).parent / "benchmarks"  # each may start others
FAULTY = Path(__file__).with_name("faulty_worker.py")
FAKE_HOST = Path(__file__).parent / "gui" / "fake_host.py"
# With what pytest-xdist starts a process that tests: popen_bootstrapline of execnet.gateway_io.
_TESTS = "import sys;exec(eval(sys.stdin.readline()))"
# What takes long to import, besides the lab's own modules.
_LIBRARIES = (
    "torch._dynamo",  # with the first step of an optimizer
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.generation",
    "safetensors.torch",
    "datasets",
    "filelock",
    "rich.console",
    "pyarrow",
    "matplotlib.figure",  # and what draws its files
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
)
# Variables that libraries or the interpreter read when they start.
_READ_AT_START = re.compile(
    r"(PYTHON|HF_|HUGGING|TRANSFORMERS_|TORCH(?!ELASTIC_|_NCCL_)|OMP_|MKL_|LD_|LANG|LC_|HOME$|XDG_CACHE_HOME$|TZ$)"
)
_UNBUFFERED, _ENCODING = "PYTHONUNBUFFERED", "PYTHONIOENCODING"
_MODULE = re.compile(r"run_module\('([\w.]+)', run_name='__main__', alter_sys=True\)$")
_DEATH_SIGNAL, _SUBREAPER = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER of linux/prctl.h
_COLLAPSE, _HUGE_PAGE = 25, 2 << 20  # MADV_COLLAPSE of linux/mman.h, and bytes
_LENGTH = 8  # bytes before a request

_execute_child: Any = subprocess.Popen._execute_child
_lock = threading.RLock()
_template: Template | None = None
_enabled = True  # the first test's mark is read before `install`
_tested: list[str] = []  # folders whose tests the template imports
_mark_at: int | None = None  # in a template and its copies: where /proc/ID/environ has the mark of tests


class Template:
    """The link to the process that forks: a socket, on which one request is answered at a time."""

    def __init__(self, link: socket.socket, pid: int, environment: Mapping[str, str]) -> None:
        self.pid = pid
        self._link = link
        self._environment = _read_at_start(environment)

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether a process with this environment would have begun as the template did."""
        return _read_at_start(environment) == self._environment

    def fork(self, request: dict[str, Any], files: tuple[int, int, int]) -> int:
        """The id of a new child of this process."""
        message = json.dumps(request).encode()
        _prctl(_SUBREAPER, 1)
        try:
            socket.send_fds(self._link, [len(message).to_bytes(_LENGTH, "big")], files)
            self._link.sendall(message)
            answer = _exactly(self._link, _LENGTH)
        finally:
            _prctl(_SUBREAPER, 0)
        if not answer:
            raise OSError("the process that forks has ended")
        return int.from_bytes(answer, "big")

    def close(self) -> None:
        """Ends it."""
        self._link.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def install(tested: Iterable[str] = ()) -> None:
    """Serves this process from now on; the template is started when first asked. tested: folders of the tests that
    processes of pytest-xdist will run."""
    _tested[:] = tested
    if sys.platform == "linux":
        subprocess.Popen._execute_child = _start


def enable(how: bool) -> None:
    """Whether processes are forked or truly started."""
    global _enabled
    _enabled = how


def enabled() -> bool:
    """Whether they are forked."""
    return _enabled


def serve_copies() -> None:
    """Serves a fork of a test's process: what it starts are copies of it as it is now."""
    if sys.platform == "linux":
        atexit._clear()  # which ends without what is registered there, and so do its copies
        _have_template()


def running() -> Template | None:
    """The template of this process, if one was asked."""
    return _template


def close() -> None:
    """Ends the template."""
    global _template
    enable(False)
    if _template is not None:
        _template.close()
        _template = None


def _start(self: Any, *given: Any, **named: Any) -> None:
    """In place of Popen._execute_child: the same, or a fork."""
    asked = inspect.signature(_execute_child).bind(self, *given, **named).arguments
    with _lock:
        pid = _forked(asked)
    if pid is None:
        _execute_child(self, *given, **named)
        return
    self.pid = pid
    self._child_created = True
    ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
    self._close_pipe_fds(*(asked[name] for name in ends))


def _forked(asked: Mapping[str, Any]) -> int | None:
    """The id of a forked process; None where one must be truly started."""
    command, environment = asked["args"], asked["env"]
    unbuffered = not isinstance(command, (str, bytes)) and list(command[1:2]) == ["-u"]
    if unbuffered:
        command = [command[0], *command[2:]]
    module = module_of(command)
    plain = not any(asked[name] for name in ("preexec_fn", "pass_fds", "executable", "shell"))
    if not (_enabled and plain and module and asked["close_fds"]):
        return None
    environment = dict(os.environ if environment is None else environment)
    template = _template or _first_template()
    if not template.fits(environment):
        return None
    given, taken, told = (asked[name] for name in ("p2cread", "c2pwrite", "errwrite"))
    files = (given if given >= 0 else 0, taken if taken >= 0 else 1, told if told >= 0 else 2)
    request = {
        "command": [str(word) for word in command],
        "unbuffered": unbuffered or bool(environment.get(_UNBUFFERED)),
        "environment": environment,
        "folder": os.fspath(asked["cwd"] or os.getcwd()),
        "session": asked["start_new_session"],
        "starts_others": SERVED.get(module, module != str(FAKE_HOST)),
    }
    return template.fork(request, files)


def module_of(command: Any) -> str | None:
    """The module that a command of this interpreter runs, or the benchmark's file; None where neither is served."""
    if isinstance(command, (str, bytes)) or len(command) < 2 or command[0] != sys.executable:
        return None
    form, what = str(command[1]), str(command[2]) if len(command) > 2 else ""
    if Path(form) in (FAULTY, FAKE_HOST) or Path(form).parent == BENCHMARKS:
        return form
    if form == "-c" and what == _TESTS:
        return "execnet"
    if form == "-c":
        found = _MODULE.search(what)
        what = found[1] if found else ""
    return what if form in ("-m", "-c") and what in SERVED else None


def _first_template() -> Template:
    """Starts the process that imports what takes long, with this one's environment, and room in it for a mark."""
    global _template
    ours, its = socket.socketpair()
    command = [sys.executable, __file__, str(its.fileno()), *_tested]
    environment = {MARK: "0" * 32} | os.environ
    process = subprocess.Popen(command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, env=environment)
    its.close()
    process.returncode = 0  # nobody waits for it but Template.close
    _template = Template(ours, process.pid, os.environ)
    return _template


def _serve(link: socket.socket) -> None:
    """What a template does until nobody is left to ask: a process for each request. Returns in each of them alone."""
    while True:
        head, files, _, _ = socket.recv_fds(link, _LENGTH, 3)
        message = _exactly(link, int.from_bytes(head, "big")) if len(head) == _LENGTH else b""
        if not message:
            os._exit(0)
        told, tell = os.pipe()  # the id, from the process between
        held, go = os.pipe()  # the new process waits until it is whose it shall be
        between = os.fork()
        if between == 0:
            child = os.fork()
            if child:
                os.write(tell, child.to_bytes(_LENGTH, "big"))
                os._exit(0)
            try:
                os.close(go)
                os.read(held, 1)
                _become(json.loads(message), files, link)
            finally:
                os._exit(70)  # only after an error of this module
        os.waitpid(between, 0)
        pid = os.read(told, _LENGTH)
        for descriptor in (*files, told, tell, held, go):
            os.close(descriptor)
        link.sendall(pid)


def _become(request: dict[str, Any], files: list[int], link: socket.socket) -> None:
    """Makes of a copy of the template what was asked for, runs it, and ends as the interpreter does."""
    for number, descriptor in enumerate(files):
        os.dup2(descriptor, number)
    link.close()
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    if request["session"]:
        os.setsid()
    # Where psutil reads it: a copy began with the environment of the first template.
    if _mark_at is not None and MARK in request["environment"]:
        ctypes.memmove(_mark_at, request["environment"][MARK].encode(), 32)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if request["starts_others"] and not _trains_alone(request["command"]):
        _have_template()
    _open_standard_files(request["unbuffered"])
    random.seed()
    sys.modules["numpy"].random.seed()
    code = 1
    try:
        _run(request["command"][1:])
        code = 0
    except SystemExit as end:
        if not isinstance(end.code, int) and end.code is not None:
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = -signal.SIGINT
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(BaseException):
        threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if code < 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


def _trains_alone(command: list[str]) -> bool:
    """Whether it is the worker of a run that one process trains: it starts no other."""
    if module_of(command) != "llmlab.jobs.worker":
        return False
    with contextlib.suppress(Exception):  # the worker will say what is wrong with the run
        return sys.modules["llmlab.store.run_folder"].RunFolder(Path(command[3])).info().settings.distributed.count == 1
    return False


def _have_template() -> None:
    """Forks this process, which has run nothing yet, into a template of its own."""
    global _template
    ours, its = socket.socketpair()
    owner, pid = os.getpid(), os.fork()
    if pid == 0:
        ours.close()
        _prctl(_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != owner:
            os._exit(0)
        _ignore_signals()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        _serve(its)
    its.close()
    install()
    enable(True)  # which a fork forgets
    _template = Template(ours, pid, os.environ)


def _open_standard_files(written: bool) -> None:
    """New ones: a copy of the template has its own. written: at once."""
    encoding = os.environ.get(_ENCODING) or None
    sys.stdin = open(0, encoding=encoding, closefd=False)  # noqa: SIM115
    for name, number, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):
        raw = io.FileIO(number, "w", closefd=False)
        buffer: Any = raw if written else io.BufferedWriter(raw)
        lines = number == 2 or os.isatty(number)
        stream = io.TextIOWrapper(buffer, encoding, errors=errors, line_buffering=lines, write_through=written)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.__stdin__ = sys.stdin


def _run(words: list[str]) -> None:
    """`python WORDS`, in one of the forms that are served."""
    module = str(module_of([sys.executable, *words]))
    if module not in SERVED:
        sys.argv, sys.path[0] = words, str(Path(module).parent)
        if Path(module).name.startswith("gui_"):  # its window starts processes, too
            sys.path.append(str(FAKE_HOST.parent))
            importlib.import_module("forks_for_qt").install()
        runpy.run_path(module, run_name="__main__")
        return
    form, what, *arguments = words
    package = hasattr(sys.modules.get(module), "__path__")
    sys.modules.pop(f"{module}.__main__" if package else module, None)  # it runs as __main__: nobody has imported it
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [form, *arguments]
    sys.path[0] = os.getcwd() if form == "-m" else ""
    if form == "-m":
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        exec(what, main.__dict__)


def _ignore_signals() -> None:
    """Those that are meant for the process that a template serves, and for all of its group."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what is done for each by itself, and what torch sets when it is imported."""
    # With one thread, as in tests, there is nobody to wait for.
    left_out = (_UNBUFFERED, _ENCODING, "TORCHINDUCTOR_CACHE_DIR", "OMP_WAIT_POLICY")
    return {name: value for name, value in environment.items() if _READ_AT_START.match(name) and name not in left_out}


def _exactly(link: socket.socket, length: int) -> bytes:
    """So many bytes; none when the other side is gone."""
    parts = b""
    while len(parts) < length:
        part = link.recv(length - len(parts))
        if not part:
            return b""
        parts += part
    return parts


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _join_pages() -> None:
    """Has the kernel hold this process's memory in huge pages, where it can: a fork copies a table of all pages, of
    which there are a hundred thousand small ones, and its end takes that apart."""
    madvise = ctypes.CDLL(None).madvise
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, rights, _, _, file, *name = line.split()
        if rights == "rw-p" and file == "0" and name != ["[stack]"]:
            begin, end = (int(address, 16) for address in where.split("-"))
            for page in range(-begin // _HUGE_PAGE * -_HUGE_PAGE, end - _HUGE_PAGE + 1, _HUGE_PAGE):
                madvise(ctypes.c_void_p(page), ctypes.c_size_t(_HUGE_PAGE), _COLLAPSE)


def _import_all() -> None:
    """The libraries, and all modules of the lab that do not begin to work when they are imported."""
    for name in (*_LIBRARIES, *SERVED):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with importlib.import_module("llmlab.models.huggingface").without_compiler():  # as the lab imports it
        importlib.import_module("peft")
    lab = importlib.import_module("llmlab")
    for module in pkgutil.walk_packages(lab.__path__, "llmlab."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    sys.modules["llmlab.data.gpt2_vocabulary"].gpt2_encoding()  # a quarter of a second
    # The model host and workers of runs take as many threads, which wait for busy ones by spinning.
    sys.modules["llmlab.core.device"].available_cores = lambda: 1


def _import_tests(folders: list[str]) -> None:
    """What pytest collects there, with its assertions rewritten as in a process that tests: it then only finds it."""
    paths = sys.path[:]
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        pytest.main([*folders, "--collect-only", "-qq", "-n0", "-p", "no:cacheprovider"])
    sys.path[:] = paths
    # Before its first example Hypothesis reads the constants of all these modules: 2 s where it has no cache of them.
    hypothesis.settings(max_examples=1, database=None)(hypothesis.given(hypothesis.strategies.text())(lambda _: None))()


def _forget() -> None:
    """In a copy of a process: the template is the other's."""
    global _template, _enabled, _lock
    _template, _enabled, _lock = None, False, threading.RLock()


os.register_at_fork(after_in_child=_forget)

if __name__ == "__main__":
    gc.disable()  # of a million objects none goes again: looking through them is a quarter of all imports
    _ignore_signals()
    sys.modules["fork_server"] = sys.modules["__main__"]
    (getenv := ctypes.CDLL(None).getenv).restype = ctypes.c_void_p
    _mark_at = getenv(MARK.encode())
    asked_through = socket.socket(fileno=int(sys.argv[1]))
    sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
    _import_all()
    if sys.argv[2:]:
        _import_tests(sys.argv[2:])
    # What libraries take back when a process ends: in each copy that alone would copy 10,000 pages.
    weakref.finalize._registry.clear()
    gc.collect()
    gc.freeze()  # a collection in a copy would copy all memory
    gc.enable()
    _join_pages()
    _serve(asked_through)
