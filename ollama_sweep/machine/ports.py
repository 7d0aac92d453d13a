"""Who listens on a port of this computer, and with which settings."""

from __future__ import annotations

import contextlib
from urllib.parse import urlsplit

from ollama_sweep.machine.address import Address
from ollama_sweep.machine.computer import OLLAMA


def serving_pid(url: str) -> int | None:
    """The process that listens at this address of this machine; None where it may not be seen, or is elsewhere."""
    parts = urlsplit(url)
    is_here = parts.hostname in ("127.0.0.1", "localhost", "::1")
    return next(iter(_listeners(parts.port)), None) if is_here else None


def listening_on(address: Address) -> tuple[int, ...]:
    """The processes of this machine that listen on the address's port; empty where that cannot be seen."""
    return tuple(sorted(_listeners(address.port))) if address.is_local else ()


def server_settings(port: int) -> dict[str, str] | None:
    """The environment of the Ollama server that listens on a port here; None where it may not be seen."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for pid in _listeners(port):
            program = psutil.Process(pid)
            if program.name().startswith(OLLAMA):
                return dict(program.environ())
    return None


def _listeners(port: int | None) -> dict[int, None]:
    """The ids of the processes that listen on a port, as far as they may be seen."""
    import psutil

    found: dict[int, None] = {}
    with contextlib.suppress(psutil.Error, OSError):
        for entry in psutil.net_connections("tcp"):
            if entry.status == psutil.CONN_LISTEN and entry.laddr and entry.laddr.port == port and entry.pid:
                found[int(entry.pid)] = None
    return found
