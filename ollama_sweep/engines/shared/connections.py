"""The connections of an HTTP client that several threads use, so that all of them can be cut at once.

A thread that waits for an answer is woken by nothing else: closing the client does not end what another thread reads.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

_MADE = ("connection.connect_tcp.complete", "connection.start_tls.complete")
"""What httpx says of a new connection (its request extension `trace`)."""


class Connections:
    """All connections of one client, whose requests carry `watched` as a hook."""

    def __init__(self) -> None:
        self._sockets: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._cut = threading.Event()

    def watched(self, request: httpx.Request) -> None:
        """The hook of a client (`event_hooks={"request": [watched]}`)."""
        request.extensions = {**request.extensions, "trace": self._note}

    def _note(self, name: str, info: dict[str, Any]) -> None:
        if name not in _MADE:
            return
        made = info["return_value"].get_extra_info("socket")
        if made is not None:
            with self._lock:
                self._sockets.add(made)

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until all are cut: whether they were."""
        return self._cut.wait(seconds)

    def cut(self) -> None:
        """End every connection there is, and every wait; new ones may be made. For any thread."""
        with self._lock:
            there = list(self._sockets)
            was, self._cut = self._cut, threading.Event()
        was.set()
        for one in there:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """What was cut in the middle of something may have been left open; nobody uses any of it now."""
        self.cut()
        with self._lock:
            there = list(self._sockets)
        for one in there:
            one.close()


def limits() -> httpx.Limits:
    """As many connections as there are requests at once, none of which waits for another one's."""
    import httpx

    return httpx.Limits(max_connections=None, max_keepalive_connections=None)
