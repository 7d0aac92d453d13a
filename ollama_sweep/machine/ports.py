"""Who listens on a port of this computer, with which settings, and whether a server is on this computer at all."""

from __future__ import annotations

import contextlib
from urllib.parse import urlsplit

from ollama_sweep.machine.address import Address, is_loopback
from ollama_sweep.machine.computer import OLLAMA

FORWARDERS = ("ssh", "docker-proxy", "com.docker", "rootlessport", "rootlesskit", "slirp4netns", "pasta", "passt",
              "conmon", "gvproxy", "vpnkit", "lima", "colima", "wslrelay", "socat", "kubectl", "stunnel", "nginx",
              "haproxy", "caddy", "traefik", "envoy", "cloudflared", "tailscale", "frpc", "chisel")  # fmt: skip
"""How programs begin that listen here and pass on what they hear: to a container, or to another machine."""


def is_elsewhere(url: str) -> bool:
    """A server's processes, memory and GPUs are not this computer's, or cannot be told: it is on another machine, or
    behind a program that passes requests on (a tunnel, a container's port).
    """
    parts = urlsplit(url)
    if not is_loopback(parts.hostname or ""):
        return True
    listeners = _listeners(parts.port)
    return bool(listeners) and all(map(_passes_on, listeners))


def _passes_on(pid: int) -> bool:
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return psutil.Process(pid).name().lower().startswith(FORWARDERS)
    return False


def serving_pid(url: str) -> int | None:
    """The process that listens at this address of this machine; None where it may not be seen, or is elsewhere."""
    parts = urlsplit(url)
    servers = _servers(parts.port) if is_loopback(parts.hostname or "") else []
    return next(iter(servers), None)


def listening_on(address: Address) -> tuple[int, ...]:
    """The processes of this machine that listen on the address's port; empty where that cannot be seen."""
    return tuple(sorted(_servers(address.port))) if address.is_local else ()


def server_settings(port: int) -> dict[str, str] | None:
    """The environment of the Ollama server that listens on a port here; None where it may not be seen."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for pid in _listeners(port):
            program = psutil.Process(pid)
            if program.name().startswith(OLLAMA):
                return dict(program.environ())
    return None


def _servers(port: int | None) -> list[int]:
    """Who listens on a port and answers itself."""
    return [pid for pid in _listeners(port) if not _passes_on(pid)]


def _listeners(port: int | None) -> dict[int, None]:
    """The ids of the processes that listen on a port, as far as they may be seen."""
    import psutil

    found: dict[int, None] = {}
    with contextlib.suppress(psutil.Error, OSError):
        for entry in psutil.net_connections("tcp"):
            if entry.status == psutil.CONN_LISTEN and entry.laddr and entry.laddr.port == port and entry.pid:
                found[int(entry.pid)] = None
    return found
