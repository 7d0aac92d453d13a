"""Clusters for tests: a scheduler and hosts, as people start them, each a process that can be killed."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest
from namespaces import Network
from ollama_fixture import free_port, until
from sweep_runner import Started
from sweeping import Program

from ollama_sweep.run import control

IMPATIENT = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"}
"""A way that is cut is noticed soon; nothing else hangs on it."""
HEAD = "head"
WORKER, SCHEDULER, COORDINATOR = "worker", "scheduler", "coordinator"
"""Who may die."""


class Cluster:
    """On loopback, or with a network each process but `run` on a computer of its own, which can be cut off. It has
    certificates of its own; hosts keep what they finish in folders of the test.
    """

    def __init__(self, program: Program, network: Network | None = None) -> None:
        self._program, self._network = program, network
        program("hosts", "init", "tls").must()
        here = network.host(HEAD).address if network is not None else "127.0.0.1"
        self.address = f"{here}:{free_port()}"
        self.workers: dict[str, Started] = {}
        self.scheduler = self.start_scheduler()

    def start_scheduler(self) -> Started:
        """Start it (again): it listens when this returns."""
        self.scheduler = self._started(HEAD, "scheduler", "--listen", self.address, "--tls", "tls/coordinator")
        until("the scheduler listens", lambda: "Listening" in self.scheduler.said or self._has_ended(self.scheduler))
        return self.scheduler

    def worker(self, name: str, tls: str = "tls/worker", path: str = "") -> Started:
        """Start a host of this name (again), whose programs are in `path` first: it has joined when this returns."""
        words = ("worker", self.address, "--name", name, "--tls", tls)
        self.workers[name] = made = self._started(name, *words, **({"PATH": path} if path else {}))
        until(f"host {name} has joined", lambda: "works for" in made.said or self._has_ended(made))
        return made

    def join(self, *names: str) -> None:
        """Start these hosts."""
        for name in names:
            self.worker(name)

    def _has_ended(self, started: Started) -> bool:
        if not started.is_running():
            pytest.fail(str(started.wait()))
        return False

    def _started(self, name: str, *words: str, **environment: str) -> Started:
        env = {**self._program.environment(), **IMPATIENT, "XDG_STATE_HOME": str(self.state(name)), **environment}
        return self._program.start(*words, env=env, on=self._network.host(name) if self._network is not None else None)

    def has_said(self, name: str, words: str, times: int = 1) -> bool:
        """The worker of this host, since it was started last."""
        return self.workers[name].said.count(words) >= times

    def state(self, name: str) -> Path:
        """What a host keeps."""
        return self._program.folder / f"output-state-{name}"

    @property
    def words(self) -> tuple[str, ...]:
        """The options of `run` that measure here."""
        return ("--cluster", self.address, "--tls", "tls/coordinator")

    def run(self, config: Path, *words: str | Path) -> Started:
        """Start a sweep on all hosts."""
        return self._program.start("run", config, *self.words, *words, env={**self._program.environment(), **IMPATIENT})

    def run_at_once(self, config: Path, lanes: int, *words: str | Path) -> Started:
        """The same; so many hosts are ready before the first begins a cell, so that each of them has one."""
        control.ask_to_pause(self._program.folder / "sweeps.db")
        running = self.run(config, *words)
        until(f"{lanes} lanes are ready", lambda: len(self._ready()) >= lanes or self._has_ended(running), 900.0)
        self._program("continue").must()
        until(f"{lanes} lanes measure", lambda: len(self.begun()) >= lanes or self._has_ended(running), 900.0)
        return running

    def _ready(self) -> list[object]:
        return [row["name"] for row in self._program.rows_now("select name from lanes where state = 'at work'")]

    def begun(self) -> set[str]:
        """The lanes that have had an order."""
        return {file.parent.name for file in self._program.folder.glob("sweeps.db.lanes/*/order.json")}

    def kill(self, whom: str, running: Started, host: str = "a") -> None:
        """SIGKILL, for the worker of this host, the scheduler, or the coordinator, which is this `run`."""
        victim = {WORKER: self.workers.get(host), SCHEDULER: self.scheduler, COORDINATOR: running}[whom]
        assert victim is not None
        victim.kill(signal.SIGKILL)
        victim.wait()

    def replace(self, whom: str, running: Started, config: Path, *words: str | Path, host: str = "a") -> Started:
        """Start who was killed again, as people would; the `run` that goes on."""
        if whom == COORDINATOR:
            return self.run(config, *words)
        if whom == SCHEDULER:
            self.start_scheduler()
        else:
            self.worker(host)
        return running

    def flap(self, host: str, times: int) -> None:
        """Cut a host off and let it come back, so often; each time it has noticed both."""
        assert self._network is not None
        for number in range(1, times + 1):
            self._network.host(host).cut()
            until("it has noticed", partial(self.has_said, host, "has lost", number), 900.0)
            self._network.host(host).join()
            until("it is back", partial(self.has_said, host, "works for", number + 1), 900.0)

    def cut(self, *hosts: str) -> None:
        """Cut these off; they have noticed when this returns."""
        assert self._network is not None
        for name in hosts:
            self._network.host(name).cut()
        for name in hosts:
            until(f"{name} has noticed", partial(self.has_said, name, "has lost"), 900.0)

    def mend(self, *hosts: str) -> None:
        """Let them come back."""
        assert self._network is not None
        for name in hosts:
            self._network.host(name).join()


@pytest.fixture
def cluster(program: Program) -> Cluster:
    """With a scheduler and no host yet; everything ends with the program's own fixture."""
    return Cluster(program)


@pytest.fixture
def rack(network: Network, program: Program) -> Cluster:
    """The same, each host a computer that can be cut off."""
    return Cluster(program, network)
