"""What the benchmarks share: the machine in words, timed child processes, tables, folders and servers that go away."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SWEEP = (sys.executable, str(ROOT / "sweep.py"))
BUSY_LOAD = 0.7
START_S = 30.0

sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Ended:
    """A finished child: wall time, peak memory of the process itself, and how it ended."""

    seconds: float
    peak_bytes: int
    returncode: int
    output: str


def timed(
    argv: Sequence[str], *, folder: Path, env: Mapping[str, str] | None = None, stdin: Path | None = None
) -> Ended:
    """Run a command to its end. `returncode` is negative for a signal."""
    with (folder / "output.txt").open("w+b") as output, (stdin or Path(os.devnull)).open("rb") as source:
        started = time.perf_counter()
        child = subprocess.Popen(
            list(argv), cwd=folder, env=None if env is None else dict(env), stdin=source, stdout=output, stderr=output
        )
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.terminate()
            child.wait()
            raise
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    unit = 1 if sys.platform == "darwin" else 1024
    return Ended(seconds, usage.ru_maxrss * unit, child.returncode, text)


def must(ended: Ended, returncode: int = 0) -> Ended:
    """The same, where it ended as it must; else the end of its output and exit 1."""
    if ended.returncode != returncode:
        tail = "\n".join(ended.output.strip().splitlines()[-15:])
        sys.exit(f"a command ended with {ended.returncode} instead of {returncode}:\n{tail}")
    return ended


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without settings that would reach an Ollama or a sweep by accident."""
    own = ("OLLAMA_", "LLAMA_ARG_", "SWEEP_")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(own)}, **more}


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for the time of the benchmark, removed however it ends; SIGTERM and SIGHUP end it like Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_exit)
    folder = Path(tempfile.mkdtemp(prefix="ollama-sweep-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _raise_exit(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def head(parser: argparse.ArgumentParser) -> None:
    """Say what is run, where and when, and whether the machine is quiet enough for the figures to mean something."""
    from ollama_sweep import __version__
    from ollama_sweep.machine import computer

    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    print(f"$ python benchmarks/{shlex.join(words)}")
    print(f"{parser.description}")
    print(f"Machine: {computer.machine().line()}; Python {sys.version.split()[0]}; ollama-sweep {__version__}")
    load = os.getloadavg()[0]
    busy = "" if load < BUSY_LOAD else "; THE MACHINE WAS BUSY, so these figures are not worth much"
    print(f"Date: {time.strftime('%Y-%m-%d')}; load at the start: {load:.2f}{busy}\n", flush=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, aligned, ready to paste."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    lines = [columns, ["-" * (widths[0]), *("-" * (width - 1) + ":" for width in widths[1:])], *rows]
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        print(f"| {' | '.join(cells)} |")
    sys.stdout.flush()


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by this share of them (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


# -- a real Ollama ---------------------------------------------------------------------------------------------------


def script_output(*words: str) -> Path:
    """The path that one of our scripts prints last; ends the benchmark with its words where it has none."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / words[0]), *words[1:]],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"{' '.join(words)} gave nothing: {done.stderr.strip() or 'not built yet; run: make ollama'}")
    return Path(done.stdout.strip().splitlines()[-1])


class OllamaServer:
    """An `ollama serve` of the benchmark's own on loopback, with its own model folder."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary = binary
        self.folder = folder
        self.host = f"127.0.0.1:{free_port()}"
        self._child: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        """What the server and its command line run with."""
        return clean_environment(
            HOME=str(self.folder), OLLAMA_HOST=self.host, OLLAMA_MODELS=str(self.folder / "models")
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "serve.log").open("wb") as log:
            self._child = subprocess.Popen(
                [str(self.binary), "serve"],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._child.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"`{self.binary} serve` did not start")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.host}/api/version", timeout=2):
                return True
        except OSError:
            return False

    def command(self, *words: str) -> None:
        """Run an `ollama` command that must go well."""
        must(timed([str(self.binary), *words], folder=self.folder, env=self.environment()))

    def stop(self) -> None:
        """End it with its runners."""
        if self._child is None:
            return
        self._child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()


@contextlib.contextmanager
def ollama_server(binary: Path, folder: Path) -> Iterator[OllamaServer]:
    """A running server for the time of the block."""
    server = OllamaServer(binary, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
