"""Requests of several threads are all ended at once, whatever they wait for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest
from openai_asking import cell
from openai_server import refused, scripted_server

from ollama_sweep import engines
from ollama_sweep.core.errors import CellFailed, SweepError
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.ollama.requests import Requests
from ollama_sweep.engines.ollama.server import OllamaServer
from ollama_sweep.engines.openai.engine import Engine

GIVE_UP_S = 60.0
COUNT = 3
Sockets = Sequence[socket.socket]


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes every connection and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def taken(server: socket.socket) -> list[socket.socket]:
    """As many connections, each with a request in it."""
    found = [server.accept()[0] for _ in range(COUNT)]
    assert all(one.recv(1) for one in found)
    return found


def ended_by(
    cut: Callable[[], None], ask: Callable[[], object], are_waiting: Callable[[], Sequence[socket.socket]]
) -> list[str]:
    """What each of the threads that ask is told when all is cut, once they wait."""
    said: list[str] = []

    def one() -> None:
        try:
            ask()
        except (CellFailed, SweepError) as error:
            said.append(type(error).__name__)

    threads = [threading.Thread(target=one, daemon=True) for _ in range(COUNT)]
    for thread in threads:
        thread.start()
    kept = are_waiting()
    cut()
    for thread in threads:
        thread.join(GIVE_UP_S)
    assert not any(thread.is_alive() for thread in threads)
    for connection in kept:
        connection.close()
    return said


def host_of(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_those_that_wait_for_the_first_byte(silent: socket.socket) -> None:
    with closing(Engine(EngineSettings(host=host_of(silent)))) as engine:
        said = ended_by(engine.cut_short, lambda: engine.generate(cell(), "Hi", 600.0), lambda: taken(silent))
    assert len(said) == COUNT


def test_the_same_of_an_ollama(silent: socket.socket) -> None:
    settings = EngineSettings(host=host_of(silent))
    server = OllamaServer(settings, needs_program=False)
    requests = Requests(server, settings)
    body = {"model": "m", "prompt": "Hi"}
    with closing(server):
        said = ended_by(server.connections.cut, lambda: requests.generate(body, 600.0), lambda: taken(silent))
    assert said == ["CellFailed"] * COUNT


def test_those_that_a_busy_server_lets_wait() -> None:
    told = threading.Semaphore(0)
    with scripted_server() as server:
        server.chat(refused(429, "slow down", Retry_After="50"))
        settings = EngineSettings(host=server.host, say=lambda line: told.release())

        def all_told() -> list[socket.socket]:
            assert all(told.acquire(timeout=GIVE_UP_S) for _ in range(COUNT))
            return []

        with closing(Engine(settings)) as engine:
            said = ended_by(engine.cut_short, lambda: engine.generate(cell(), "Hi", 600.0), all_told)
    assert len(said) == COUNT


def test_who_can_be_asked_so() -> None:
    own = ("fake", "llamacpp", "lmstudio", "ollama", "ollama_http", "openai", "sentence_transformers")
    able = [name for name in own if engines.facts(name).asks_at_once]
    assert able == ["fake", "lmstudio", "ollama_http", "openai"]
    assert engines.facts("auto").asks_at_once
