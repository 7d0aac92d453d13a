"""Addresses of servers: what a server listens on is no address to ask, and what is asked instead is said."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai_server import Scripted, said, scripted_server
from sweeping import Program, program

from ollama_sweep.machine import address

NOTE = "is where a server listens, not where one is asked"


@pytest.mark.parametrize("text", ["0.0.0.0", "0.0.0.0:11434", "http://0.0.0.0:11434", "[::]:11434", "https://[::]/v1"])
def test_addresses_that_mean_every_one_of_a_computer(text: str) -> None:
    assert address.means_everywhere(text)
    assert address.address(text, allow_remote=False, port=11434).name == "127.0.0.1"


@pytest.mark.parametrize("text", ["127.0.0.1", "localhost:11434", "[::1]:1", ":11434", "10.0.0.0", "http://[", "h:x"])
def test_addresses_that_mean_one(text: str) -> None:
    assert not address.means_everywhere(text)


@pytest.fixture
def version_only() -> Iterator[Scripted]:
    """A server that says that it is an Ollama, without a model."""
    with scripted_server() as server:
        nothing = [said({"models": []})]
        server.replies = {"/api/version": [said({"version": "0.34.0"})], "/api/tags": nothing, "/api/ps": nothing}
        yield server


def said_of_hosts(program: Program, *words: str, **environment: str) -> list[str]:
    """The notes on addresses of a run that ends because there is no model."""
    found = program("run", program.grid(), "--ollama", "/bin/true", *words, env=environment).must(5)
    assert "m is not installed here" in found.stderr
    return [line for line in found.stdout.splitlines() if NOTE in line]


@pytest.mark.parametrize("engine", ["ollama", "ollama_http"])
def test_a_host_that_was_taken_for_another_is_said_once_at_the_start(
    engine: str, program: Program, version_only: Scripted
) -> None:
    port = version_only.port
    used = f"{NOTE}; this computer's own at http://127.0.0.1:{port} is used"
    assert said_of_hosts(program, "--engine", engine, OLLAMA_HOST=f"0.0.0.0:{port}") == [
        f"Note: OLLAMA_HOST (0.0.0.0:{port}) {used}"
    ]
    assert said_of_hosts(program, "--engine", engine, "--host", f"[::]:{port}") == [f"Note: host ([::]:{port}) {used}"]
    assert said_of_hosts(program, "--engine", engine, OLLAMA_HOST=f"127.0.0.1:{port}") == []


def test_a_variable_that_is_not_asked_is_not_spoken_of(program: Program, version_only: Scripted) -> None:
    words = ("--engine", "ollama", "--host", version_only.host)
    assert said_of_hosts(program, *words, OLLAMA_HOST="0.0.0.0") == []
    found = program("run", program.grid(), env={"OLLAMA_HOST": "0.0.0.0"}).must()
    assert NOTE not in found.stdout
