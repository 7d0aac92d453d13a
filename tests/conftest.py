"""Fixtures that several test files share."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ollama_fixture
import psutil
import pytest
from hypothesis import HealthCheck, settings
from sweep_runner import Sweep, write_fake_script

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
# Hundreds of children would compile the program anew, and every worker the tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


IN_MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 << 30


def pytest_configure(config: pytest.Config) -> None:
    """A terminated test run still ends what it started. What it ignores its children would ignore as well: under
    nohup, or in the background of a script, they still get the signals that tests send them.
    """
    signal.signal(signal.SIGTERM, _stop)
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)
    if "not real" in config.option.markexpr and _has_room_in_memory():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))


def _has_room_in_memory() -> bool:
    """Whether tests may keep their files in memory, programs among them.

    A sweep has its disk keep each commit, milliseconds each time. What is asked of a disk, and what one does that fails
    or loses its power, is the same everywhere (`traced`, `power_cut`). Real engines keep their models on the disk.
    """
    if not (IN_MEMORY.is_dir() and os.access(IN_MEMORY, os.W_OK)):
        return False
    found = os.statvfs(IN_MEMORY)
    room = min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available)
    return room >= ROOM_BYTES and not found.f_flag & os.ST_NOEXEC


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def real_ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ollama_fixture.Servers]:
    """`real_ollama("0.34.0")` is a running private server with the model `smol`; `limit_as=` limits its runners."""
    with ollama_fixture.servers(tmp_path_factory.mktemp("ollama")) as servers:
        yield servers


@pytest.fixture(params=ollama_fixture.VERSIONS)
def server(request: pytest.FixtureRequest, real_ollama: ollama_fixture.Servers) -> ollama_fixture.RealOllama:
    """A running private server: the test runs once for each version."""
    return real_ollama(request.param)


@pytest.fixture(scope="session")
def small_model() -> Path:
    """The small model's file."""
    return ollama_fixture.script_output("get_model")


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    """`sweep("run", config, …)` runs `python sweep.py run …` in the test's own folder."""
    with contextlib.closing(Sweep(tmp_path)) as made:
        yield made


@pytest.fixture
def fake_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`fake_script(cells={…}, journal=…)` writes the fake engine's script and makes it the one that is read."""

    def write(**script: Any) -> Path:
        path = write_fake_script(tmp_path / "fake.json", script)
        monkeypatch.setenv("OLLAMA_SWEEP_FAKE", str(path))
        return path

    return write


def pytest_collection_finish() -> None:
    """What was collected and imported stays to the end: it is not looked through again at each search for garbage."""
    gc.collect()
    gc.freeze()
