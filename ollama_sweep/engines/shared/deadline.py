"""The end of an answer that comes in pieces: a client's own time limit begins anew with each of them."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Any

from ollama_sweep.machine.crew import start


class Deadline:
    """Cuts an answer's connection when its time is over; `has_passed` says whether that has happened.

    The answer is one of httpx, or of what has the same `extensions`.
    """

    def __init__(self, answer: Any, seconds: float) -> None:
        stream = answer.extensions.get("network_stream")
        self._socket = stream.get_extra_info("socket") if stream is not None else None
        self._timer = threading.Timer(max(0.001, seconds), self._end)
        self._timer.daemon = True
        self.has_passed = False

    def _end(self) -> None:
        self.has_passed = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Deadline:
        start(self._timer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
