"""A bridge's way through Dask to the host of its lane: a task for each thing asked, bound to it by a resource."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ollama_sweep.core.errors import EngineUnavailable
from ollama_sweep.core.text import one_line
from ollama_sweep.plan.hosts.handshake import Side, require
from ollama_sweep.run.cluster import sides
from ollama_sweep.run.cluster.ways import CELL, CONNECT_S, Way, dask, host_resource, probe

if TYPE_CHECKING:
    from distributed import Client, Future

LOOK_S = 1.0


class Lost(EngineUnavailable):
    """The way to the host is cut, or its worker is gone. What is measured there goes on."""


def connected(way: Way, timeout_s: float = CONNECT_S) -> Client:
    """A client of the scheduler. Raises ConfigError for certificates that do not hold, Lost."""
    distributed = dask()
    try:
        probe(way)
    except EngineUnavailable as error:
        raise Lost(str(error)) from error
    try:
        made: Client = distributed.Client(way.url, security=way.security(), timeout=timeout_s, set_as_default=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise Lost(f"no scheduler answers at {way.url}. Start it there: ollama-sweep scheduler") from error
    return made


def hosts_of(client: Client) -> dict[str, Side]:
    """What each worker says of itself, by the name of its host; one of another program is not ours."""
    found: dict[str, Side] = {}
    for worker in client.scheduler_info(n_workers=-1)["workers"].values():
        for resource in worker.get("resources") or {}:
            kind, _, name = str(resource).partition(":")
            if kind == "host" and name:
                found[name] = Side.read(worker.get(sides.EXTRA), one_line(name))
    return found


def require_fitting(client: Client, host: str) -> None:
    """Raises EngineMissing, in words, where the worker of a host is of another make; Lost where there is none."""
    theirs = hosts_of(client).get(host)
    if theirs is None:
        raise Lost(f"host {host} has no worker at the scheduler. Start it there: ollama-sweep worker")
    require(sides.own("this computer"), theirs)


class Link:
    """One client, made anew after the way was cut."""

    def __init__(self, way: Way, hear: Callable[[str], None]) -> None:
        """`hear` gets the lines that are told while something is asked."""
        self._way, self._hear = way, hear
        self.topic = f"ollama-sweep-{uuid.uuid4().hex}"
        self._client: Client | None = None
        self._worker = ""

    def renew(self) -> None:
        """Raises Lost, EngineMissing, ConfigError."""
        self.close()
        self._client = connected(self._way)
        self._client.subscribe_topic(self.topic, lambda event: self._hear(event[1]))
        require_fitting(self._client, self._way.host)

    def ask(self, what: str, function: Callable[..., Any], *words: object, look: Callable[[], None]) -> Any:
        """Have something done on the host; `look` is called now and then meanwhile, and may raise. Raises Lost.

        What is asked twice has two keys, so that Dask never takes an earlier result for it.
        """
        future = self._submitted(what, function, words)
        distributed = dask()
        try:
            while True:
                look()
                try:
                    return future.result(timeout=LOOK_S)
                except TimeoutError:
                    self._check_open(future)
                except distributed.CancelledError as error:
                    raise Lost(f"the way to host {self._way.host} is cut") from error
                except (distributed.scheduler.KilledWorker, OSError, RuntimeError) as error:
                    raise Lost(f"the worker of host {self._way.host} is gone") from error
        finally:
            with contextlib.suppress(Exception):  # a client that is closed has nothing to release
                future.release()

    def _submitted(self, what: str, function: Callable[..., Any], words: tuple[object, ...]) -> Future[Any]:
        if self._client is None:
            raise Lost(f"the way to host {self._way.host} is cut")
        try:
            return self._client.submit(
                function,
                *words,
                key=f"{what}-{uuid.uuid4().hex}",
                resources={CELL: 1, host_resource(self._way.host): 1},
                pure=False,
                retries=0,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise Lost(f"the way to host {self._way.host} is cut") from error

    def _check_open(self, future: Future[Any]) -> None:
        if self._client is None or self._client.status != "running" or future.status in ("cancelled", "lost"):
            raise Lost(f"the way to host {self._way.host} is cut")

    def aside(self, function: Callable[..., Any], *words: object) -> None:
        """Have something done at once, beside what is asked; nothing where the host cannot be reached now."""
        with contextlib.suppress(Exception):  # whoever cannot be reached measures on, and is asked again by its lease
            assert self._client is not None
            there = self._client.scheduler_info(n_workers=-1)["workers"]
            name = host_resource(self._way.host)
            ours = [address for address, worker in there.items() if name in (worker.get("resources") or {})]
            self._client.run(function, *words, workers=ours, on_error="ignore")

    def close(self) -> None:
        """A way that is cut is not waited for."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.close(timeout=1)
