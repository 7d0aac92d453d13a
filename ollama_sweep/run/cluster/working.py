"""A worker: this computer as a host of a cluster. It starts attempt processes, watches and delivers.

A worker of Dask that has lost its scheduler ends, and cannot come back (dask/distributed#6391). So this one is made
anew as often as it takes; what is measured meanwhile goes on in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import Any

from ollama_sweep.core.errors import EngineUnavailable
from ollama_sweep.core.text import one_line
from ollama_sweep.run.cluster import sides
from ollama_sweep.run.cluster.ways import CELL, Way, dask, host_resource, probe

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
LOOPBACK = "127.0.0.1"
CLOSE_S = 5.0


def serve(way: Way, say: Callable[[str], None]) -> None:
    """Work for the scheduler of this way under the name of its host, until SIGTERM or SIGINT. Raises ConfigError."""
    dask()
    asyncio.run(_serve(way, say))


async def _serve(way: Way, say: Callable[[str], None]) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    wait_s = FIRST_WAIT_S
    while not ended.is_set():
        worker = await _joined(way, ended, say)
        if worker is not None:
            wait_s = FIRST_WAIT_S
            say(f"host {way.host} works for {way.url}")
            await _first(ended.wait(), worker.finished())
            if ended.is_set():
                await worker.close()
                return
            say(f"host {way.host} has lost {way.url}: what it measures goes on, and it tries again")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def _worker_kind() -> Any:
    from distributed import Worker

    class Leaving(Worker):
        """It waits for nothing that is measured when it ends: that is not in its hands."""

        async def close(self, *words: Any, **how: Any) -> Any:
            return await super().close(**{**how, "timeout": CLOSE_S, "executor_wait": False})

    return Leaving


async def _joined(way: Way, ended: asyncio.Event, say: Callable[[str], None]) -> Any:
    """A worker that is known to the scheduler; None where that cannot be reached now. Raises ConfigError."""
    try:
        await asyncio.to_thread(probe, way)
    except EngineUnavailable as error:
        say(f"{error}; host {way.host} tries again")
        return None
    worker = _worker_kind()(
        way.url,
        nthreads=1,
        name=way.host,
        resources={CELL: 1, host_resource(way.host): 1},
        security=way.security(),
        memory_limit=0,
        dashboard=False,
        dashboard_address=f"{LOOPBACK}:0",
        startup_information={sides.EXTRA: lambda worker: sides.own(way.host).as_dict()},
        validate=False,
    )
    started = asyncio.ensure_future(worker.start())
    await _first(ended.wait(), started)
    if started.done() and started.exception() is None:
        return worker
    if started.done():
        failure = started.exception()
        refusal = str((failure.__cause__ if failure is not None else None) or failure)
        why = "another one there has that name" if "name taken" in refusal else one_line(refusal)
        say(f"host {way.host} cannot join {way.url} ({why}); it tries again")
    started.cancel()
    with contextlib.suppress(Exception, asyncio.CancelledError):
        await started
    return None


async def _first(*these: Any) -> None:
    """Wait until one of them is done; the others go on, and end with the program."""
    waiting = [asyncio.ensure_future(one) for one in these]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
