"""A scheduler, which brings the hosts of a cluster and a sweep together. It measures nothing and keeps nothing."""

from __future__ import annotations

import asyncio
import contextlib
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
    except OSError as error:
        raise ConfigError(f"cannot listen there ({error.strerror or error})", way.url) from error
    say(f"{scheduler.address}")
    with contextlib.suppress(asyncio.CancelledError):
        await ended.wait()
    await scheduler.close()
