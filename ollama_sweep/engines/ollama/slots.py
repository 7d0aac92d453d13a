"""Whether a runner answered others while it answered us. Only one with several slots can: the requests share its speed.

llama-server says of each slot which request it had last, and whether it is at work (`GET /slots`). The server in front
of it does not say. What cannot be read is no sign of others.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

READ_S = 5.0


@dataclass(frozen=True)
class Slot:
    """A slot: the number of the request that it had last, and whether it works on that."""

    task: int | None
    is_busy: bool


@dataclass
class Slots:
    """The slots of a runner; `port` says where it listens now, None where that is not seen."""

    port: Callable[[], int | None]
    saw_others: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ours: int = 0
    _at_once: bool = False

    @contextlib.contextmanager
    def during(self) -> Iterator[None]:
        """One of our requests. Where several of ours are under way at once, nothing is told of others."""
        with self._lock:
            self._ours += 1
            self._at_once |= self._ours > 1
            is_first = self._ours == 1
        before = self.read() if is_first else None
        try:
            yield
        finally:
            with self._lock:
                self._ours -= 1
                was_alone = not self._at_once
                self._at_once &= self._ours > 0
        if before is not None and was_alone and (after := self.read()) is not None:
            self.saw_others |= were_others(before, after)

    def read(self) -> dict[int, Slot] | None:
        """Each slot by its number; None where that cannot be read."""
        import httpx

        port = self.port()
        if port is None:
            return None
        try:
            return _slots(httpx.get(f"http://127.0.0.1:{port}/slots", timeout=READ_S, trust_env=False).json())
        except (httpx.HTTPError, ValueError):
            return None


def were_others(before: dict[int, Slot], after: dict[int, Slot]) -> bool:
    """A slot was at work when we came, or another one than ours had a request since then."""
    if any(slot.is_busy for slot in before.values()):
        return True
    return sum(number not in before or before[number].task != slot.task for number, slot in after.items()) > 1


def _slots(found: object) -> dict[int, Slot] | None:
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        return None
    return {
        number: Slot(task if isinstance(task := one.get("id_task"), int) else None, one.get("is_processing") is True)
        for one in found
        if isinstance(number := one.get("id"), int)
    }
