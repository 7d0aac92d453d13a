"""The only file that starts processes: deadline, own session, end of the whole group, bounded output.

Every child gets its own session, so that a terminal's Ctrl-C does not reach it and its whole group can be ended.
Every child carries `OLLAMA_SWEEP_TOKEN`, which its own children inherit: a later session finds by it what a killed
one left behind (`end_by_token`). No child gets a secret of the environment that it does not need.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import select
import selectors
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, NoReturn, TypeVar

from ollama_sweep.core.errors import EngineStuck
from ollama_sweep.machine import secrets
from ollama_sweep.machine.crew import start

TOKEN = "OLLAMA_SWEEP_TOKEN"  # noqa: S105 - the name of a variable
GRACE_S = 0.5
UNKILLABLE_S = 10.0
DRAIN_S = 1.0
SEND_S = 60.0
ORPHANED_PIPES_S = 0.2  # how soon it is noticed that a child ended while a grandchild holds its pipes open
MOST_FILES = 1 << 16
KEPT_BYTES = 256 * 1024  # of each stream's beginning, and of its end


Needs = Callable[[str], bool]
"""Whether a child needs the secret in a variable of this name; where it is not said, it needs none."""


class DeadlineExceeded(Exception):
    """The child did not answer in time."""


@dataclass(frozen=True)
class Completed:
    """A finished child. `returncode` is negative for a signal; `timed_out` when the deadline ended it.

    `first_output_s`: when the first byte of stdout came, the child's own start included; None where nothing came.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    duration_s: float
    timed_out: bool
    first_output_s: float | None = None


class BoundedText:
    """Keeps the head and the tail of a stream, however much arrives; `began_at` is when the first byte came."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept = kept_bytes
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._dropped = 0
        self.began_at: float | None = None

    def add(self, data: bytes) -> None:
        self.began_at = self.began_at or time.monotonic()
        room = self._kept - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data:
            return
        self._tail.append(data)
        self._tail_bytes += len(data)
        while self._tail_bytes - len(self._tail[0]) >= self._kept:
            gone = self._tail.popleft()
            self._tail_bytes -= len(gone)
            self._dropped += len(gone)

    def text(self) -> str:
        gap = f"\n[… {self._dropped} bytes left out …]\n".encode() if self._dropped else b""
        return (bytes(self._head) + gap + b"".join(self._tail)).decode("utf-8", "replace")


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    token: str = "",
    is_cut: Callable[[], bool] = lambda: False,
) -> Completed:
    """Run a command to its end or its deadline; its group is gone when this returns or raises.

    It is asked again and again whether `is_cut`; once that is true the command is ended, too, as `timed_out`. stdin is
    written and closed, so a child never waits for a terminal. Raises FileNotFoundError, PermissionError,
    and EngineStuck where the child cannot be ended.
    """
    started = time.monotonic()
    child = _start(argv, env, cwd, token, stdin_pipe=True, stderr=subprocess.PIPE)
    out, err = streams = BoundedText(), BoundedText()
    try:
        in_time = _converse(child, stdin, streams, started + timeout_s, is_cut)
    finally:
        end_group(child)
        _drain(child, streams)
        _close_pipes(child)
    return Completed(
        argv=tuple(argv),
        returncode=child.returncode,
        stdout=out.text(),
        stderr=err.text(),
        duration_s=time.monotonic() - started,
        timed_out=not in_time,
        first_output_s=out.began_at - started if out.began_at else None,
    )


def _start(
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    cwd: Path | None,
    token: str,
    *,
    stdin_pipe: bool,
    stderr: int | IO[bytes],
    stdout: int | IO[bytes] = subprocess.PIPE,
    dies_with_parent: bool = False,
    kept_files: Sequence[int] = (),
    needs: Needs | None = None,
) -> subprocess.Popen[bytes]:
    environment = secrets.without(os.environ if env is None else env, needs)
    if token:
        environment[TOKEN] = token
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE if stdin_pipe else subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=cwd,
        start_new_session=True,
        pass_fds=kept_files,
        preexec_fn=_ask_for_death_signal if dies_with_parent and sys.platform == "linux" else None,
    )


def _ask_for_death_signal() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


Streams = tuple[BoundedText, BoundedText]


def _converse(
    child: subprocess.Popen[bytes], stdin: bytes, streams: Streams, deadline: float, is_cut: Callable[[], bool]
) -> bool:
    """Feed stdin and collect both streams until the child ends; False when the deadline came first, or a cut."""
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    for pipe in (child.stdin, child.stdout, child.stderr):
        os.set_blocking(pipe.fileno(), False)
    waiting = memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, streams[0])
        selector.register(child.stderr, selectors.EVENT_READ, streams[1])
        if waiting:
            selector.register(child.stdin, selectors.EVENT_WRITE)
        else:
            child.stdin.close()
        while selector.get_map():
            left_s = deadline - time.monotonic()
            if left_s <= 0 or is_cut():
                return False
            ready = selector.select(min(left_s, ORPHANED_PIPES_S))
            if not ready and child.poll() is not None:
                return True
            for key, _ in ready:
                if key.fileobj is child.stdin:
                    waiting = _feed(child, selector, waiting)
                else:
                    _collect(selector, key)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(max(0.0, deadline - time.monotonic()))
        return True
    return False


def _feed(child: subprocess.Popen[bytes], selector: selectors.BaseSelector, waiting: memoryview) -> memoryview:
    assert child.stdin is not None
    try:
        waiting = waiting[os.write(child.stdin.fileno(), waiting[:65536]) :]
    except BlockingIOError:
        return waiting
    except BrokenPipeError:
        waiting = waiting[:0]
    if not waiting:
        selector.unregister(child.stdin)
        child.stdin.close()
    return waiting


def _collect(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    data = _read(key.fd)
    if data:
        key.data.add(data)
    elif data is not None:
        selector.unregister(key.fileobj)


def _read(fd: int) -> bytes | None:
    """What is there to read; b"" at the end of the stream, None when there is nothing now."""
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return None


def _drain(child: subprocess.Popen[bytes], streams: Streams) -> None:
    """Take what is still in the pipes of an ended child; a grandchild that holds them open is not waited for."""
    until = time.monotonic() + DRAIN_S
    for pipe, into in zip((child.stdout, child.stderr), streams, strict=True):
        assert pipe is not None
        while time.monotonic() < until and (data := _read(pipe.fileno())):
            into.add(data)


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def end_group(child: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> int:
    """End the child's whole group: SIGTERM, after the grace SIGKILL. Raises EngineStuck where neither helps."""
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
    _signal_group(child.pid, signal.SIGKILL)
    try:
        return child.wait(UNKILLABLE_S)
    except subprocess.TimeoutExpired:
        raise EngineStuck(
            f"pid {child.pid} cannot be ended; the GPU may need a reset or the machine a reboot"
        ) from None


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


@dataclass(frozen=True)
class Apart:
    """What `run_apart` did: the lines it was told, and how it ended, "" for well."""

    lines: tuple[str, ...]
    failure: str
    is_cut: bool = False


def run_apart(
    work: Callable[[Callable[[str], None]], None],
    *,
    timeout_s: float,
    is_cut: Callable[[], bool] = lambda: False,
    started: Callable[[], None] = lambda: None,
) -> Apart:
    """Do some work on what is in memory in a child of its own, which can be ended at any time and harms nothing here.

    `work` gets a function that takes a line for us. It sees memory as it is now, and must use no database: what SQLite
    has open does not survive a fork. Raises OSError where there is no room for a child.
    """
    reading, writing = os.pipe()
    deadline = time.monotonic() + timeout_s
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the child asks nothing of the threads here
            child = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if child == 0:
        _work_apart(work, writing)
    os.close(writing)
    heard, cut = b"", False
    try:
        started()
        while time.monotonic() < deadline and not (cut := is_cut()):
            if select.select([reading], [], [], ORPHANED_PIPES_S)[0]:
                data = os.read(reading, 65536)
                if not data:
                    break
                heard += data
        else:
            os.kill(child, signal.SIGKILL)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.close(reading)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = tuple(heard.decode("utf-8", "replace").splitlines())
    if cut or time.monotonic() >= deadline:
        return Apart(lines, "stopped" if cut else f"not done within {timeout_s:.0f} s", cut)
    return Apart(lines, "" if code == 0 else f"ended by signal {-code}" if code < 0 else f"exit {code}")


def _work_apart(work: Callable[[Callable[[str], None]], None], writing: int) -> NoReturn:
    """The child's side: it never comes back, and cleans up nothing that is the parent's."""
    code = 1
    try:
        atexit._clear()
        os.setsid()
        os.closerange(3, writing)  # a lock on a file is held as long as anybody has it open
        os.closerange(writing + 1, MOST_FILES)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT):
            signal.signal(number, signal.SIG_DFL)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        work(lambda line: _write_all(writing, " ".join(line.split()).encode("utf-8", "replace") + b"\n"))
        code = 0
    except BaseException as error:
        with contextlib.suppress(BaseException):
            _write_all(writing, f"{type(error).__name__}: {' '.join(str(error).split())}\n".encode("utf-8", "replace"))
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        os._exit(code)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


class Worker:
    """A child that answers lines on stdout to lines on stdin; stderr is collected in a thread, or goes to a file."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._lines: deque[str] = deque()
        self._rest = b""
        self._stderr = BoundedText()
        assert child.stdout is not None
        assert child.stdin is not None
        os.set_blocking(child.stdout.fileno(), False)
        os.set_blocking(child.stdin.fileno(), False)
        self._reader = threading.Thread(target=self._read_stderr, daemon=True)
        if child.stderr is not None:
            start(self._reader)

    @property
    def pid(self) -> int:
        return self._child.pid

    def fileno(self) -> int:
        """What is readable when the child has said something, or has ended."""
        assert self._child.stdout is not None
        return self._child.stdout.fileno()

    def signal(self, number: int) -> None:
        """Send a signal to the child itself; one that has ended gets none."""
        if self._child.poll() is None:
            self._child.send_signal(number)

    def leave(self) -> None:
        """It outlives us: it hears the end of its input, and nobody waits for it from now on."""
        _close_pipes(self._child)
        self._child.returncode = 0

    def _read_stderr(self) -> None:
        assert self._child.stderr is not None
        while data := os.read(self._child.stderr.fileno(), 65536):
            self._stderr.add(data)

    def send(self, line: str, timeout_s: float = SEND_S) -> None:
        """Write one line. A dead child is noticed by `receive`. Raises DeadlineExceeded where nobody reads."""
        assert self._child.stdin is not None
        waiting = memoryview(line.encode() + b"\n")
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdin, selectors.EVENT_WRITE)
            while waiting:
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not selector.select(left_s):
                    raise DeadlineExceeded
                try:
                    waiting = waiting[os.write(self._child.stdin.fileno(), waiting[:65536]) :]
                except BrokenPipeError:
                    return

    def receive(self, timeout_s: float) -> str | None:
        """The next line; None when the child has ended. With no time: what is there. Raises DeadlineExceeded."""
        assert self._child.stdout is not None
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            while not self._lines:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise DeadlineExceeded
                data = os.read(self._child.stdout.fileno(), 65536)
                if not data:
                    return None
                *lines, self._rest = (self._rest + data).split(b"\n")
                self._lines.extend(line.decode("utf-8", "replace") for line in lines)
        return self._lines.popleft()

    def stderr_text(self) -> str:
        """What the child has said on stderr, head and tail."""
        return self._stderr.text()

    def end(self, grace_s: float = GRACE_S) -> int:
        """End the child's group and give its return code, negative for a signal."""
        code = end_group(self._child, grace_s)
        if self._reader.ident is not None:
            self._reader.join(DRAIN_S)
        _close_pipes(self._child)
        return code

    def wait(self, timeout_s: float) -> int | None:
        """The return code of a child that is ending by itself; None when it has not after `timeout_s`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout_s)
            return self.end()
        return None


def spawn_worker(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, token: str = "", needs: Needs | None = None
) -> Worker:
    """Start a child that talks in lines. Raises FileNotFoundError, PermissionError."""
    return Worker(_start(argv, env, None, token, stdin_pipe=True, stderr=subprocess.PIPE, needs=needs))


def spawn_outliving(argv: Sequence[str], *, env: Mapping[str, str], log: Path, needs: Needs | None = None) -> Worker:
    """The same for a child that outlives this process where it must; stderr goes to `log`. Raises OSError."""
    with open(log, "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        return Worker(_start(argv, env, None, "", stdin_pipe=True, stderr=file, needs=needs))


Who = TypeVar("Who", bound=Hashable)


class News(Generic[Who]):
    """Who has something to say, of however many: each by a file that can be read then (`Worker.fileno`)."""

    def __init__(self) -> None:
        self._poll = select.poll()  # select knows no file beyond the 1,024th, and epoll forgets one that was closed
        self._files: dict[Who, int] = {}
        self._who: dict[int, Who] = {}

    def expect(self, who: Who, file: int | None) -> None:
        """From now on by this file; None: nothing more."""
        before = self._files.pop(who, None)
        if before is not None and before != file and self._who.get(before) == who:
            del self._who[before]
            self._poll.unregister(before)
        if file is not None:
            self._files[who], self._who[file] = file, who
            self._poll.register(file, select.POLLIN)

    def wait(self, timeout_s: float) -> list[Who]:
        """Everybody who has, as soon as one has; nobody after so many seconds."""
        return [self._who[file] for file, _ in self._poll.poll(1000 * timeout_s)]


def wait_for_news(file: int, timeout_s: float) -> None:
    """Until this file can be read, at most so long."""
    news: News[int] = News()
    news.expect(file, file)
    news.wait(timeout_s)


class Service:
    """A process whose output goes to a log file: a server, which on Linux dies with its parent, or a detached run."""

    def __init__(self, child: subprocess.Popen[bytes], log: Path) -> None:
        self._child = child
        self.log = log

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        return self._child.poll() is None

    def wait(self) -> int:
        """Its return code, negative for a signal, once it has ended by itself."""
        return self._child.wait()

    def leave(self) -> None:
        """It outlives us: nobody waits for it from now on."""
        self._child.returncode = 0

    def end(self, grace_s: float = 5.0) -> None:
        """Ask it to end, so that it ends its own children; after the grace end its group."""
        end_group(self._child, grace_s)


def spawn_service(
    argv: Sequence[str], *, env: Mapping[str, str], log: Path, token: str = "", needs: Needs | None = None
) -> Service:
    """Start a server whose output goes to `log`. Raises FileNotFoundError, PermissionError, OSError."""
    return _spawn_logged(argv, env, log, token, dies_with_parent=True, needs=needs)


def spawn_detached(
    argv: Sequence[str], *, env: Mapping[str, str], log: Path, kept_files: Sequence[int], needs: Needs | None
) -> Service:
    """Start a process that outlives this one; its output goes to `log`, `kept_files` are open in it. Raises OSError."""
    return _spawn_logged(argv, env, log, kept_files=kept_files, needs=needs)


def _spawn_logged(
    argv: Sequence[str], env: Mapping[str, str], log: Path, token: str = "", **how: bool | Sequence[int] | Needs | None
) -> Service:
    with log.open("ab") as file:
        child = _start(argv, env, None, token, stdin_pipe=False, stdout=file, stderr=subprocess.STDOUT, **how)  # type: ignore[arg-type]
    return Service(child, log)


def end_by_token(token: str) -> dict[int, list[str]]:
    """End every process that carries this token in its environment (left by a killed session): words by process id."""
    import psutil

    found = [process for process in psutil.process_iter(["cmdline"]) if _carries(process, token)]
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found, timeout=UNKILLABLE_S)
    return {process.pid: process.info["cmdline"] or ["process"] for process in found}


def _carries(process: Any, token: str) -> bool:
    import psutil

    try:
        return process.pid != os.getpid() and bool(process.environ().get(TOKEN) == token)
    except (psutil.Error, OSError):
        return False
