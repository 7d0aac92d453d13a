"""A scheduler for the time of a run, with certificates of its own; and `--cluster local:N`, to try a cluster out here.

They speak TLS as any other: a port without it would let every user of this computer run programs as this one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ollama_sweep.core.errors import EngineUnavailable
from ollama_sweep.machine import process
from ollama_sweep.machine.clocks import REAL
from ollama_sweep.machine.hosts import certificates
from ollama_sweep.run.cluster.ways import Way, probe

START_S, LOOK_S = 60.0, 0.2
LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def started(count: int) -> Iterator[Way]:
    """The way to a scheduler, with so many workers on their way to it. Raises EngineUnavailable, StorageError."""
    with scheduler(None, LOOPBACK) as (way, there), contextlib.ExitStack() as ending:
        for number in range(count):
            words = ("worker", way.url, "--name", f"local{number}", "--tls", str(there))
            ending.callback(_start(there.parent, *words).end)
        yield way


@contextlib.contextmanager
def scheduler(parent: Path | None, host: str) -> Iterator[tuple[Way, Path]]:
    """The way to a scheduler that listens at this address, and the folder with the workers' certificates.

    All of it lies in a folder of `parent`, None for that of temporary files, and is gone with the block.
    """
    folder = Path(tempfile.mkdtemp(prefix="ollama-sweep-", dir=parent))
    service: process.Service | None = None
    try:
        certificates.make(folder / "tls", days=certificates.DAYS)
        here, there = (folder / "tls" / role for role in certificates.ROLES)
        place = f"{host}:{_free_port(host)}"
        service = _start(folder, "scheduler", "--listen", place, "--tls", str(here))
        way = Way(f"tls://{place}", str(here))
        _wait(way, service)
        yield way, there
    finally:
        if service is not None:
            service.end()
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, *words: str) -> process.Service:
    argv = [sys.executable, "-P", "-m", "ollama_sweep", *words]
    return process.spawn_service(argv, env=os.environ, log=folder / "log", needs=lambda name: True)


def _wait(way: Way, service: process.Service) -> None:
    until = REAL.monotonic_s() + START_S
    while True:
        try:
            probe(way)
            return
        except EngineUnavailable as error:
            if not service.is_alive or REAL.monotonic_s() > until:
                said = service.log.read_text("utf-8", "replace").strip().splitlines()
                raise EngineUnavailable(f"the scheduler did not start: {said[-1] if said else error}") from None
        REAL.sleep(LOOK_S)


def _free_port(host: str) -> int:
    with socket.socket() as tried:
        tried.bind((host, 0))
        return int(tried.getsockname()[1])
