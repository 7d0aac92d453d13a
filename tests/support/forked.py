"""Programs forked from a process that has everything imported: `python undrawn.py …` in a tenth of its time.

What a child of its own has, such a one has as well: pid, working folder, environment, the files 0 to 2 and no other,
signals as Python sets them, a session and a terminal where asked for, its words and its environment in `/proc`, and the
end of an interpreter with its exit code. Only its parent is the server, which waits for it when it is asked to.

`child(…)` starts a real one where a fork would not be the same: another file than `undrawn.py`, an environment that
decides how Python or its libraries start, no Linux. `python forked.py` is the server.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import undrawn

ROOM = "OLLAMA_SWEEP_TEST_ROOM"
ROOM_BYTES = 96 * 1024
_OWN = frozenset({"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"})
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "OMP_", "OPENBLAS_", "COVERAGE_")
_HEAVY = ("numpy", "pandas", "scipy", "matplotlib", "seaborn")
"""They start threads, which do not come along with a fork; a sweep that needs them imports them itself."""
_MESSAGE_BYTES = 1 << 20
_AT_START = dict(os.environ)


class Child(Protocol):
    """What tests use of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | Any: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


def child(
    argv: Sequence[str],
    *,
    folder: Path,
    env: Mapping[str, str],
    stdin: int,
    stdout: int,
    stderr: int,
    on_terminal: bool = False,
) -> Child:
    """A command in a folder, with these files; `on_terminal` makes stdin the terminal of a session of its own."""
    if list(argv[:2]) == [sys.executable, str(undrawn.FILE)] and _starts_alike(env) and (server := _server()):
        files = (stdin, stdout, stderr)
        return server.start(argv[2:], folder=folder, env=env, files=files, on_terminal=on_terminal)
    if on_terminal:
        argv = [sys.executable, "-c", CONTROL, *argv]
    return subprocess.Popen(
        argv, cwd=folder, env=dict(env), stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=on_terminal
    )


CONTROL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal on standard input the one that Ctrl-C comes from; the program is then its session's leader."""


def is_server(words: Sequence[str]) -> bool:
    """These are the words of the process that programs are forked from."""
    return any(Path(word).name == Path(__file__).name for word in words[1:2])


def _starts_alike(env: Mapping[str, str]) -> bool:
    """Nothing in this environment would make Python or its libraries start in another way than the server did."""
    mine, server = (
        {name: value for name, value in one.items() if name.startswith(_READ_AT_START) and value and name not in _OWN}
        for one in (env, _AT_START)
    )
    return mine == server and len(_block(env)) < ROOM_BYTES


def _block(env: Mapping[str, str]) -> bytes:
    return b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in env.items())


@functools.cache
def _server() -> _Server | None:
    """The server of this test process, started when it is first needed; None where this does not work."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return None
    server = _Server()
    atexit.register(server.close)
    return server


class _Server:
    """The side of the tests."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), " " * ROOM_BYTES],
                env={**_AT_START, ROOM: " " * ROOM_BYTES},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._pid = os.getpid()

    def close(self) -> None:
        if os.getpid() == self._pid:
            self._socket.close()
            self._process.wait(60)

    def start(
        self,
        words: Sequence[str],
        *,
        folder: Path,
        env: Mapping[str, str],
        files: tuple[int, int, int],
        on_terminal: bool,
    ) -> _Forked:
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            sent = [nothing if file == subprocess.DEVNULL else file for file in files]
            sent[2] = sent[1] if sent[2] == subprocess.STDOUT else sent[2]
            request = {"words": list(words), "folder": str(folder), "env": dict(env), "on_terminal": on_terminal}
            pid = self.ask(request, sent)
            assert pid, f"not started in {folder}: {words}"
            return _Forked(self, pid)
        finally:
            os.close(nothing)

    def ask(self, request: Mapping[str, Any], files: Sequence[int] = ()) -> Any:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], files)
            return json.loads(self._socket.recv(_MESSAGE_BYTES))


class _Forked:
    """A child of the server, as `subprocess.Popen` would show it."""

    def __init__(self, server: _Server, pid: int) -> None:
        self._server = server
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask({"ended": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            file = os.pidfd_open(self.pid)
            try:
                watch = select.poll()
                watch.register(file, select.POLLIN)
                watch.poll(None if timeout is None else timeout * 1000)
            finally:
                os.close(file)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


# -- the server ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Import, then fork for each request; a child comes out of here, becomes the program, and ends as Python does."""
    asked = socket.socket(fileno=int(sys.argv[1]))
    _import_all()
    gc.collect()
    gc.freeze()
    if found := _serve(asked):
        answer = None
        try:
            _become(*found)
            answer = os.getpid()
        finally:
            asked.send(json.dumps(answer).encode())
            asked.close()
        undrawn.main()


def _import_all() -> None:
    """Every command, and what a sweep imports, which another process finds out: nothing is done here but importing."""
    undrawn.import_without_heavy()
    reading, writing = os.pipe()
    if not os.fork():
        _sweep_and_tell(writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        names = told.read().decode().split()
    os.wait()
    from ollama_sweep.cli import commands

    names += [found.name for found in pkgutil.walk_packages(commands.__path__, f"{commands.__name__}.")]
    for name in names:
        if name.partition(".")[0] not in _HEAVY:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def _sweep_and_tell(writing: int) -> None:
    """A small sweep; the names of all modules that there are then."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        keys = {"model": "m", "prompt": {"text": "one"}, "num_ctx": [512], "num_batch": [2], "engine": "fake"}
        Path("grid.yaml").write_text(json.dumps(keys), "utf-8")
        Path("fake.json").write_text("{}", "utf-8")
        os.environ.update(OLLAMA_SWEEP_FAKE="fake.json", OLLAMA_SWEEP_SHARE_SERVER="1")
        sys.argv = [str(undrawn.FILE), "run", "grid.yaml"]
        with contextlib.suppress(SystemExit):
            undrawn.main()
    os.write(writing, " ".join(sys.modules).encode())
    os._exit(0)


def _serve(asked: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Answer until nobody asks; in a child: its request and its files."""
    while True:
        try:
            data, files, _, _ = socket.recv_fds(asked, _MESSAGE_BYTES, 3)
        except KeyboardInterrupt:  # the tests get it as well, and say so
            return None
        if not data:
            return None
        request = json.loads(data)
        if "ended" in request:
            pid, status = os.waitpid(request["ended"], os.WNOHANG)
            asked.send(json.dumps(os.waitstatus_to_exitcode(status) if pid else None).encode())
            continue
        if not os.fork():  # the child answers, once it is what was asked for
            return request, files
        for file in files:
            os.close(file)


def _become(request: Mapping[str, Any], files: Sequence[int]) -> None:
    """What a new process gets from the one that starts it."""
    if request["on_terminal"]:
        os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    if request["on_terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = [str(undrawn.FILE), *request["words"]]
    sys.orig_argv = [sys.executable, *sys.argv]
    _write_over("\0".join([" ".join(sys.orig_argv), ""]).encode(), _block(request["env"]))
    _open_streams()


def _write_over(words: bytes, env: bytes) -> None:
    """Write what others read in `/proc` of a process, where the kernel has put that of the server.

    A last byte of the words that is not zero tells the kernel that they were written over.
    """
    fields = Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()
    words_at, words_end, env_at, env_end = map(int, fields[45:49])
    for data, at, end, last in ((words, words_at, words_end, b"."), (env, env_at, env_end, b"\0")):
        size = end - at
        ctypes.memmove(at, data[: size - 2].ljust(size - 1, b"\0") + last, size)


def _open_streams() -> None:
    """As Python opens them at its start: what the server had was for its own files."""
    found: list[tuple[str, io.TextIOWrapper]] = []
    is_unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        was = getattr(sys, f"__{name}__")
        file = open(number, f"{mode}b", 0 if mode == "w" and is_unbuffered else -1, closefd=False)  # noqa: SIM115
        found.append((name, io.TextIOWrapper(
            file, was.encoding, was.errors, "\n", line_buffering=name == "stderr" or os.isatty(number),
            write_through=mode == "w" and is_unbuffered,
        )))  # fmt: skip
    for name, file in found:
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)


if __name__ == "__main__":
    main()
