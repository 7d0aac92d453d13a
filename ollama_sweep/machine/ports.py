"""Who listens on a port of this computer, and with which settings."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    pass
from ollama_sweep.machine.address import Address


def serving_pid(url: str) -> int | None:
    """The process that listens at this address of this machine; None where it may not be seen, or is elsewhere."""
    import psutil

    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return None
    with contextlib.suppress(psutil.Error, OSError):
        for entry in psutil.net_connections("tcp"):
            if entry.status == psutil.CONN_LISTEN and entry.laddr and entry.laddr.port == parts.port and entry.pid:
                return int(entry.pid)
    return None


def listening_on(address: Address) -> tuple[int, ...]:
    """The processes of this machine that listen on the address's port; empty where that cannot be seen."""
    import psutil

    if not address.is_local:
        return ()
    try:
        found = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return ()
    pids = {
        entry.pid
        for entry in found
        if entry.status == psutil.CONN_LISTEN and entry.laddr and entry.laddr.port == address.port and entry.pid
    }
    return tuple(sorted(pids))


def server_settings(port: int) -> dict[str, str] | None:
    """The environment of the Ollama server that listens on a port here; None where it may not be seen."""
    import psutil

    try:
        for entry in psutil.net_connections("tcp"):
            if entry.status != psutil.CONN_LISTEN or not entry.laddr or entry.laddr.port != port or not entry.pid:
                continue
            program = psutil.Process(entry.pid)
            if program.name().startswith("ollama"):
                return dict(program.environ())
    except (psutil.Error, OSError):
        return None
    return None
