"""What programs of others take while a cell is measured: of the processor, and which of those on a GPU are not ours."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_CORE_S = 2.0
"""So much time of all cores together must have passed: the system counts in ticks of 10 ms, for each process apart."""
_HELPERS = ("nvidia-cuda-mps",)
"""Programs that stand on a GPU for others and compute nothing themselves."""


@dataclass(frozen=True)
class CoreTime:
    """Seconds of all cores together since the computer's start: passed, in use, and in use by the engine and us."""

    passed_s: float
    used_s: float
    ours_s: float


def core_time(engine: Sequence[int], us: int | None = None) -> CoreTime | None:
    """How much the cores have done until now; None where the engine's processes or their times cannot be seen.

    `engine` are the engine's processes and `us` is this one; the children of both count with them, ended ones as well.
    What a hypervisor gave to other computers counts as in use.
    """
    import psutil

    times = psutil.cpu_times()
    parts = times._asdict()
    passed_s = sum(seconds for name, seconds in parts.items() if not name.startswith("guest"))  # counted in user time
    idle_s = parts["idle"] + parts.get("iowait", 0.0)
    living = family(engine)
    if not living or not passed_s:
        return None
    try:
        ours_s = sum(_seconds(program) for program in {**living, **family([us or os.getpid()])}.values())
    except (psutil.AccessDenied, OSError):
        return None
    return CoreTime(passed_s, passed_s - idle_s, ours_s)


def _seconds(program: Any) -> float:
    """What a process has computed, with its children that have ended. One that is gone is counted by its parent."""
    import psutil

    if program.pid == os.getpid():
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system
    try:
        found = program.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(found.user + found.system + found.children_user + found.children_system)


def others_share(before: CoreTime | None, after: CoreTime | None) -> float | None:
    """The share of all cores that was in use by others between two looks, 0 to 1; None where that is not known."""
    if before is None or after is None:
        return None
    passed_s = after.passed_s - before.passed_s
    if passed_s < LEAST_CORE_S:
        return None
    others_s = (after.used_s - before.used_s) - (after.ours_s - before.ours_s)
    return min(1.0, max(0.0, others_s / passed_s))


class Usage:
    """How much of the whole computer is in use, from one question to the next."""

    def __init__(self) -> None:
        self._before: tuple[float, float] | None = None

    def now(self) -> dict[str, float]:
        """cpu_share, of all cores since the last question (absent at the first), and used_bytes of memory."""
        import psutil

        parts = psutil.cpu_times()._asdict()
        passed_s = sum(seconds for name, seconds in parts.items() if not name.startswith("guest"))
        idle_s = parts["idle"] + parts.get("iowait", 0.0)
        before, self._before = self._before, (passed_s, idle_s)
        memory = psutil.virtual_memory()
        found = {"used_bytes": float(memory.total - memory.available)}
        if before is not None and passed_s > before[0]:
            share = 1 - (idle_s - before[1]) / (passed_s - before[0])
            found["cpu_share"] = min(1.0, max(0.0, share))
        return found


def family(roots: Iterable[int]) -> dict[int, Any]:
    """The processes that live, with all their children, by id."""
    import psutil

    found: dict[int, Any] = {}
    for root in dict.fromkeys(roots):
        if root in found:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            program = psutil.Process(root)
            found[root] = program
            found.update({child.pid: child for child in program.children(recursive=True)})
    return found


def foreign(programs: Iterable[int], engine: frozenset[int]) -> frozenset[int]:
    """Those of a GPU's programs that are neither the engine's nor ours, by their parents.

    To be asked only where the driver's ids are this system's: where the engine's own are among them.
    """
    ours = engine | {os.getpid()}
    return frozenset(pid for pid in programs if pid not in ours and not _belongs_to(pid, ours))


def _belongs_to(pid: int, ours: frozenset[int]) -> bool:
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        program = psutil.Process(pid)
        return program.name().startswith(_HELPERS) or any(parent.pid in ours for parent in program.parents())
    return False


def is_shared(programs: frozenset[int], pids: frozenset[int]) -> bool | None:
    """Whether others are among a GPU's programs. None where the engine is not: it uses another GPU, or the driver's ids
    are not this system's, as in a container.
    """
    return bool(foreign(programs, pids)) if programs & pids else None
