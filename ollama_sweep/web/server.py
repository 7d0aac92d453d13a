"""Listens, says where, and ends when it is asked to."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from ollama_sweep.core.errors import ConfigError

PORT, MOST_TRIED = 8437, 100
GRACE_S = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens: at the port that was named, else at the first free one from PORT on.

    Raises ConfigError for one that is taken or not allowed, and for an address that is not this computer's.
    """
    for tried in range(PORT, PORT + MOST_TRIED) if port is None else (port,):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, tried))
            found.listen(128)
        except OSError as error:
            found.close()
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            raise _refused(error, host, tried) from error
        return found
    raise ConfigError(f"none of {PORT} to {PORT + MOST_TRIED - 1} is free on {host}", "--port")


def _refused(error: OSError, host: str, port: int) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"{port} is in use on {host}; leave it out for the next free one", "--port")
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigError(f"{port} may not be used by this user; take one from 1024 on", "--port")
    return ConfigError(f"{host} is no address of this computer ({error.strerror or error})", "--host")


def address(listening: socket.socket) -> str:
    """`http://127.0.0.1:8437/`."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class Server(uvicorn.Server):
    """uvicorn, which here says when it is ready, sleeps until there is something to do, and ends quietly by each of the
    signals.
    """

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], None], ending: Callable[[], None], *, with_parent: bool
    ) -> None:
        super().__init__(config)
        self._ready, self._ending, self._with_parent = ready, ending, with_parent
        self._asked_to_end = asyncio.Event()

    async def main_loop(self) -> None:
        """uvicorn looks ten times a second whether it shall end, which costs more than all that a page is told."""
        await self.on_tick(0)
        while not self.should_exit:
            await self._asked_to_end.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """By a signal."""
        super().handle_exit(sig, frame)
        self._asked_to_end.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Open streams end first: they would not by themselves."""
        self._ending()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first asks for the end, a second one does not wait for open answers."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        if self._with_parent:
            loop.add_reader(0, self._heard_parent)
        try:
            yield
        finally:
            loop.remove_reader(0)
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _heard_parent(self) -> None:
        if not os.read(0, 4096):
            asyncio.get_running_loop().remove_reader(0)
            self.should_exit = True
            self._asked_to_end.set()


def serve(
    app: Starlette, listening: socket.socket, ready: Callable[[], None], ending: Callable[[], None], *,
    with_parent: bool = False,
) -> None:  # fmt: skip
    """Answer until a signal comes, or with a parent until that has closed our input, as it does by its end.

    No access log: an address may hold what is nobody else's.
    """
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", server_header=False, date_header=False, loop="asyncio",
        http="h11", ws="none", timeout_graceful_shutdown=GRACE_S, timeout_keep_alive=20,
        h11_max_incomplete_event_size=16 * 1024,
    )  # fmt: skip
    server = Server(config, ready, ending, with_parent=with_parent)
    asyncio.run(server.serve([listening]))
