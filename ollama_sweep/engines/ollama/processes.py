"""The processes of an Ollama server on this machine, as far as the system lets us see them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from ollama_sweep.machine.computer import RUNNERS

if TYPE_CHECKING:
    import psutil

BATCH = ("-b", "--batch-size")
PARALLEL = ("-np", "--parallel")
PORT = ("--port",)


def family(pid: int | None) -> tuple[int, ...]:
    """A living server and the runners that it has started."""
    import psutil

    try:
        return (pid, *(runner.pid for runner in _runners(pid))) if pid and psutil.pid_exists(pid) else ()
    except (psutil.Error, OSError):
        return ()


def batch_of(pid: int | None) -> int | None:
    """The num_batch that a server has started its only runner with; None where that does not show."""
    return _given(pid, BATCH)


def parallel_of(pid: int | None) -> int | None:
    """How many requests at once a server has started its only runner for; None where that does not show."""
    return _given(pid, PARALLEL)


def port_of(pid: int | None) -> int | None:
    """Where the only runner of a server listens; None where that does not show."""
    return _given(pid, PORT)


def _given(pid: int | None, names: tuple[str, ...]) -> int | None:
    import psutil

    try:
        found = _runners(pid) if pid else []
        words = found[0].cmdline() if len(found) == 1 else []
    except (psutil.Error, OSError):
        return None
    given = [after for word, after in itertools.pairwise(words) if word in names]
    return int(given[-1]) if given and given[-1].isdigit() else None


def _runners(pid: int) -> list[psutil.Process]:
    import psutil

    return [child for child in psutil.Process(pid).children(recursive=True) if child.name().startswith(RUNNERS)]
