"""Clusters for tests: a scheduler and workers, as people start them, each a process that can be killed."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
from namespaces import Network
from ollama_fixture import MARK, ROOT, free_port, until
from sweep_runner import Started
from sweeping import Program


class Cluster:
    """On loopback, with certificates of its own; hosts keep what they finish in folders of the test."""

    def __init__(self, program: Program) -> None:
        self._program = program
        program("hosts", "init", "tls").must()
        self.port = free_port()
        self.workers: dict[str, Started] = {}
        self.scheduler = self.start_scheduler()

    def start_scheduler(self) -> Started:
        """Start it (again): it listens when this returns."""
        words = ("scheduler", "--listen", f"127.0.0.1:{self.port}", "--tls", "tls/coordinator")
        self.scheduler = self._started(*words)
        until("the scheduler listens", lambda: "Listening" in self.scheduler.said or self._has_ended(self.scheduler))
        return self.scheduler

    def worker(self, name: str, tls: str = "tls/worker") -> Started:
        """Start a host of this name (again): it has joined when this returns."""
        self.workers[name] = made = self._started(
            "worker", f"127.0.0.1:{self.port}", "--name", name, "--tls", tls, state=name
        )
        until(f"host {name} has joined", lambda: "works for" in made.said or self._has_ended(made))
        return made

    def _has_ended(self, started: Started) -> bool:
        if not started.is_running():
            pytest.fail(str(started.wait()))
        return False

    def _started(self, *words: str, state: str = "") -> Started:
        places = {"XDG_STATE_HOME": str(self.state(state))} if state else {}
        return self._program.start(*words, env={**self._program.environment(), **places})

    def state(self, name: str) -> Path:
        """What a host keeps."""
        return self._program.folder / f"output-state-{name}"

    @property
    def words(self) -> tuple[str, ...]:
        """The options of `run` that measure here."""
        return ("--cluster", f"127.0.0.1:{self.port}", "--tls", "tls/coordinator")


@pytest.fixture
def cluster(program: Program) -> Cluster:
    """With a scheduler and no host yet; everything ends with the program's own fixture."""
    return Cluster(program)


IMPATIENT = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"}
"""A way that is cut is noticed soon; nothing else hangs on it."""


class Rack:
    """A scheduler and hosts, each in a network namespace."""

    def __init__(self, network: Network, program: Program) -> None:
        self._network, self._program = network, program
        program("hosts", "init", "tls").must()
        self.head = network.host("head")
        log = self._start("head", "scheduler", "--listen", self.head.address, "--tls", "tls/coordinator")
        until("the scheduler listens", lambda: "Listening" in log.read_text())

    def _start(self, name: str, *words: str) -> Path:
        folder = self._program.folder
        log = folder / f"output-{name}.log"
        env = {**self._program.environment(), **IMPATIENT, "XDG_STATE_HOME": str(folder / f"output-state-{name}"),
               MARK: self._program.mark}  # fmt: skip
        tls = str(folder / words[-1])
        self._network.host(name).start(sys.executable, ROOT / "sweep.py", *words[:-1], tls, env=env, log=log)
        return log

    def join(self, *names: str) -> None:
        for name in names:
            self._start(name, "worker", self.head.address, "--name", name, "--tls", "tls/worker")
            until(f"{name} has joined", partial(self.has_said, name, "works for"))

    def has_said(self, name: str, words: str, times: int = 1) -> bool:
        return (self._program.folder / f"output-{name}.log").read_text().count(words) >= times

    def run(self, config: Path, *words: str | Path) -> Started:
        """A sweep on all of them."""
        where = ("--cluster", self.head.address, "--tls", "tls/coordinator")
        return self._program.start("run", config, *where, *words, env={**self._program.environment(), **IMPATIENT})


@pytest.fixture
def rack(network: Network, program: Program) -> Rack:
    return Rack(network, program)
