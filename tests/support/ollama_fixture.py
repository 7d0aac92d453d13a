"""Real Ollama servers for tests: private builds on free ports, with their own folders, ended with all they started.

Every process of a server carries a mark in its environment, so that a runner is found even after its server died.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("0.34.0", "0.33.0")
MODEL = "smol"
MARK = "OLLAMA_SWEEP_TEST_MARK"
NO_COMPILER = 5
START_S = 120.0
END_S = 30.0
ANSWER_S = 600.0
"""What a client of a test waits for its answer, also where other programs keep all cores busy."""

_AT_REST = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
_STARTING = 'msg="starting llama-server"'
_LOAD = re.compile(_STARTING)
_OPTION = {name: re.compile(rf"(?<=\s|\"){flag}\s+(\d+)") for name, flag in (("ctx", "-c"), ("batch", "-b"))}
_PROMPT = re.compile(r"prompt eval time =\s*([0-9.]+) ms /\s*([0-9]+) tokens")

ONE_ARENA = "env MALLOC_ARENA_MAX=1 "
"""Before a program whose memory is limited: how many arenas malloc makes, each some 64 MB of address space, hangs on
how busy the machine is."""
_LIMITED_RUNNER = f"""#!/bin/sh
exec {ONE_ARENA}prlimit --as={{limit}} "$(dirname "$0")/llama-server.real" "$@"
"""

T = TypeVar("T")


def until(what: str, ask: Callable[[], T | None], seconds: float = 120.0, pause_s: float = 0.02) -> T:
    """The first answer that is not None or False; fails the test when the deadline comes first."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s for: {what}")
        time.sleep(pause_s)


def stand_still(process: psutil.Process) -> bool:
    """Stop a process; whether it stands still now, or had ended before."""
    try:
        process.suspend()
        stopped = until("it stands still", lambda: process.status() if process.status() in _AT_REST else None)
    except psutil.NoSuchProcess:
        return False
    return stopped == psutil.STATUS_STOPPED


def is_answering(log: str, *options: str) -> bool:
    """Whether the llama-server that was started last, with these options, has taken a request and not ended it.

    As its own log says.
    """
    load = log.rpartition(_STARTING)[2]
    command = load.partition("\n")[0]
    return all(f" {option} " in command for option in options) and load.rfind("launch_slot_") > load.rfind("release:")


def skip_outside_ci(reason: str) -> NoReturn:
    """The only way in which a real test skips; with CI=true it fails instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@functools.cache
def script_output(*words: str) -> Path:
    """The path that one of our scripts prints last, asked once; skips where there is no C compiler."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / words[0]), *words[1:]],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode == NO_COMPILER:
        skip_outside_ci(f"no real Ollama: {done.stderr.strip().splitlines()[-1]}")
    if done.returncode != 0:
        pytest.fail(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return Path(done.stdout.strip().splitlines()[-1])


def clean_environment() -> dict[str, str]:
    """This process's environment without settings that would reach an Ollama or a sweep by accident.

    Tests run side by side, so another server on the machine is no reason to refuse.
    """
    own = ("OLLAMA_", "LLAMA_ARG_", "SWEEP_", "COLUMNS", "LINES")
    kept = {"OLLAMA_SWEEP_FAKE"}
    environment = {name: value for name, value in os.environ.items() if name in kept or not name.startswith(own)}
    return {**environment, "OLLAMA_SWEEP_SHARE_SERVER": "1"}


def marked(mark: str) -> list[psutil.Process]:
    """All living processes that carry this mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_marked(mark: str) -> None:
    """End what carries this mark, stopped or not."""
    found = marked(mark)
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(found, timeout=END_S)


@dataclass(frozen=True)
class PromptRead:
    """One prompt as llama-server's own log has it: milliseconds for the tokens it really evaluated."""

    ms: float
    tokens: int

    @property
    def rate(self) -> float:
        return self.tokens / self.ms * 1000


def prompts_by_load(log: str) -> dict[tuple[int, int], list[PromptRead]]:
    """The prompts that llama-server evaluated, by the (num_ctx, num_batch) it was started with; in order."""
    found: dict[tuple[int, int], list[PromptRead]] = defaultdict(list)
    load = (0, 0)
    for line in log.splitlines():
        if _LOAD.search(line):
            load = (_option("ctx", line), _option("batch", line))
        elif prompt := _PROMPT.search(line):
            found[load].append(PromptRead(float(prompt[1]), int(prompt[2])))
    return dict(found)


def loads_of(log: str) -> list[tuple[int, int]]:
    """The (num_ctx, num_batch) of each llama-server that was started, in order."""
    return [(_option("ctx", line), _option("batch", line)) for line in log.splitlines() if _LOAD.search(line)]


def _option(name: str, line: str) -> int:
    option = _OPTION[name].search(line)
    return int(option[1]) if option else 0


class RealOllama:
    """One `ollama serve` of a private build with the small model installed as `smol`."""

    def __init__(self, version: str, binary: Path, folder: Path, num_parallel: int = 1) -> None:
        self.version = version
        self.num_parallel = num_parallel
        self.binary = binary
        self.folder = folder
        self.models_folder = folder / "models"
        self.log = folder / "serve.log"
        self.mark = f"{version}-{folder.name}-{os.getpid()}-{time.monotonic_ns()}"
        self.host = f"127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    # -- its life ------------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """What the server and its own command line run with.

        A runner has one thread where nothing asks for more: threads spin while they wait for each other, and runners
        side by side on few cores would wait for threads that have none.
        """
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return {
            **clean_environment(),
            "HOME": str(home),
            "OLLAMA_HOST": self.host,
            "OLLAMA_MODELS": str(self.models_folder),
            "OLLAMA_DEBUG": "1",
            "OLLAMA_NUM_PARALLEL": str(self.num_parallel),
            "LLAMA_ARG_THREADS": "1",
            MARK: self.mark,
        }

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.binary), "serve"],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(f"ollama {self.version} answers at {self.host}", self._answers, START_S)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail(f"ollama serve {self.version} ended:\n{self.log_text()[-2000:]}")
        try:
            return bool(self.get("/api/version"))
        except OSError:
            return False

    def import_model(self, gguf: Path) -> None:
        """Install the small model."""
        modelfile = self.folder / "Modelfile"
        modelfile.write_text(f"FROM {gguf}\n", "utf-8")
        done = self.command("create", MODEL, "-f", str(modelfile))
        if done.returncode != 0:
            pytest.fail(f"ollama create {MODEL}: {done.stderr}")

    def stop(self) -> None:
        """End it with everything it started; fails the test where a runner outlived an orderly end."""
        assert self._process is not None
        for process in marked(self.mark):
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_S)
        gone = time.monotonic() + END_S
        while (left := self.runner_pids()) and time.monotonic() < gone:
            time.sleep(0.05)
        end_marked(self.mark)
        assert not left, f"llama-server outlived ollama serve: {left}"

    # -- what tests look at --------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """The answer to a GET."""
        with urllib.request.urlopen(f"http://{self.host}{path}", timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, **body: Any) -> Any:
        """The answer to a POST, as another client of this server gets it."""
        question = json.dumps(body).encode()
        with urllib.request.urlopen(f"http://{self.host}{path}", question, timeout=ANSWER_S) as answer:
            return json.load(answer)

    def load(self, model: str) -> None:
        """Load a model, to stay for a while; nothing is generated."""
        assert self.post("/api/generate", model=model, keep_alive="5m")["done_reason"] == "load"

    def unload_all(self) -> None:
        """Nothing is loaded afterwards; an engine that loads nothing itself leaves its model for minutes."""
        for entry in self.ps():
            self.command("stop", entry["name"])
        until("nothing is loaded", lambda: not self.ps())

    def command(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run an `ollama` command against this server."""
        return subprocess.run(
            [str(self.binary), *words],
            check=False,
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def installed(self) -> dict[str, str]:
        """Every installed model with its digest."""
        return {entry["name"]: entry["digest"] for entry in self.get("/api/tags")["models"]}

    def ps(self) -> list[dict[str, Any]]:
        """The loaded models."""
        return list(self.get("/api/ps")["models"])

    def log_size(self) -> int:
        """Where the log ends now, for `log_text`."""
        return self.log.stat().st_size

    def log_text(self, start: int = 0, end: int | None = None) -> str:
        """The log from a place on, or between two."""
        with self.log.open("rb") as log:
            log.seek(start)
            return log.read(-1 if end is None else end - start).decode("utf-8", "replace")

    def prompts(self, start: int = 0, end: int | None = None) -> dict[tuple[int, int], list[PromptRead]]:
        """`prompts_by_load` of a part of the log."""
        return prompts_by_load(self.log_text(start, end))

    def loads(self, start: int = 0) -> list[tuple[int, int]]:
        """`loads_of` the log from a place on."""
        return loads_of(self.log_text(start))

    def runner_pids(self) -> list[int]:
        """The llama-servers of this server, orphans included."""
        found = []
        for process in marked(self.mark):
            with contextlib.suppress(psutil.Error):
                if process.name().startswith("llama-server"):
                    found.append(process.pid)
        return found

    def only_runner(self) -> int:
        """The one llama-server that is left, once those before it have ended; the server forgets them earlier."""
        return until("there is one llama-server", lambda: found[0] if len(found := self.runner_pids()) == 1 else None)

    def sweep_options(self) -> list[str]:
        """What makes `sweep.py run` use this server and its model."""
        return ["--engine", "ollama", "--host", self.host, "--ollama", str(self.binary), "--model", MODEL]


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def limited_binary(binary: Path, folder: Path, limit_as: int) -> Path:
    """A copy of a private build whose llama-server may take only so many bytes of address space."""
    if shutil.which("prlimit") is None:
        skip_outside_ci("no prlimit to limit a runner's memory with")
    copy = folder / "build"
    shutil.copytree(binary.parent.parent, copy)
    runner = copy / "lib" / "ollama" / "llama-server"
    runner.rename(runner.with_name("llama-server.real"))
    runner.write_text(_LIMITED_RUNNER.format(limit=limit_as), "utf-8")
    runner.chmod(0o755)
    return copy / "bin" / "ollama"


class Servers:
    """Makes real servers, each kind once, and ends all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: dict[tuple[str, int | None, int], RealOllama] = {}

    def __call__(self, version: str, limit_as: int | None = None, num_parallel: int = 1) -> RealOllama:
        """The running server of this version, with a memory limit for its runners if wanted.

        Nothing is loaded: tests come in any order, and some leave the server its model for minutes.
        """
        key = (version, limit_as, num_parallel)
        if key in self._started:
            self._started[key].unload_all()
        else:
            binary, gguf = script_output("get_ollama", version), script_output("get_model")
            folder = self._folder / f"{version}-{limit_as or 'free'}-{num_parallel}"
            folder.mkdir()
            program = limited_binary(binary, folder, limit_as) if limit_as else binary
            server = RealOllama(version, program, folder, num_parallel)
            self._started[key] = server
            server.start()
            server.import_model(gguf)
        return self._started[key]

    def stop(self) -> None:
        """End all servers."""
        with contextlib.ExitStack() as stack:
            for server in self._started.values():
                stack.callback(server.stop)


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Servers for the time of a test session."""
    made = Servers(folder)
    try:
        yield made
    finally:
        made.stop()
