"""A scheduler, which brings the hosts of a cluster and a sweep together. It measures nothing and keeps nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
from collections.abc import Callable

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.run.cluster.ways import Way, dask

LOOPBACK = "127.0.0.1"


def serve(way: Way, say: Callable[[str], None], *, dashboard_port: int | None = None) -> None:
    """Listen at the address of this way until SIGTERM or SIGINT; `say` gets the address. Raises ConfigError."""
    dask()
    if dashboard_port is not None:
        _check_dashboard()
    asyncio.run(_serve(way, say, dashboard_port))


def _check_dashboard() -> None:
    try:
        import bokeh  # noqa: F401
    except ImportError:
        raise ConfigError("needs the package bokeh. Run: pip install bokeh", "--dashboard") from None


def _refused(error: BaseException) -> str:
    """Why nobody can listen there. Raises what is no trouble of the system."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        raise error
    hints = {
        errno.EADDRINUSE: "another program listens there; end it, or name another port",
        errno.EADDRNOTAVAIL: "this computer has no such address; name one of its own",
        errno.EACCES: "only root may listen there; name a port from 1024 on",
    }
    return f"cannot listen: {hints.get(cause.errno or 0, cause.strerror or str(cause))}"


async def _serve(way: Way, say: Callable[[str], None], dashboard_port: int | None) -> None:
    from distributed import Scheduler

    protocol, _, place = way.url.partition("://")
    host, _, port = place.rpartition(":")
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    scheduler = Scheduler(
        host=host.strip("[]"),
        port=int(port),
        protocol=protocol,
        security=way.security(),
        dashboard=dashboard_port is not None,
        dashboard_address=f"{LOOPBACK}:{dashboard_port or 0}",
    )
    try:
        await scheduler
    except (OSError, RuntimeError) as error:  # Dask wraps the one in the other
        raise ConfigError(_refused(error), way.url) from error
    say(f"{scheduler.address}")
    with contextlib.suppress(asyncio.CancelledError):
        await ended.wait()
    await scheduler.close()
