"""The process: it says where it answers, keeps to its port, and ends well."""

from __future__ import annotations

import contextlib
import signal
import socket
from pathlib import Path

import pytest
from served import Page, serving
from sweeping import GRID, Program
from sweeping import program as program  # a fixture


@pytest.fixture
def db(program: Program) -> Path:
    """A finished sweep."""
    program("run", program.config(**GRID)).must()
    return program.folder / "sweeps.db"


def test_it_answers_where_it_says_and_ends_by_a_signal(program: Program, db: Path) -> None:
    with serving(program, "--port", "0") as found:
        assert "Sweep grid" in Page(found.get().text).said
        assert found.get("nowhere").status_code == 404
        found.process.kill(signal.SIGINT)
        ended = found.process.wait(60).must(0)
    assert ended.stderr == ""
    assert "GET" not in ended.stdout


def test_a_port_that_was_named_and_is_taken_is_an_error(program: Program, db: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        ended = program("serve", "--port", str(port)).must(2)
    assert f"--port: {port} is in use" in ended.stderr


def test_without_a_name_it_takes_the_next_free_port(program: Program, db: Path) -> None:
    with contextlib.suppress(OSError), contextlib.closing(socket.create_server(("127.0.0.1", 8437))):
        pass  # free, or taken by somebody: both are fine below
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 8437))))
        found = stack.enter_context(serving(program))
        assert found.url != "http://127.0.0.1:8437/"
        assert found.get().status_code == 200


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [(None, 2, "no database"), (b"", 2, "is empty"), (b"no database" * 500, 4, "not a SQLite database")],
)
def test_a_database_that_is_none_is_one_line(program: Program, content: bytes | None, code: int, words: str) -> None:
    if content is not None:
        (program.folder / "sweeps.db").write_bytes(content)
    before = sorted(path.name for path in program.folder.iterdir())
    ended = program("serve").must(code)
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert sorted(path.name for path in program.folder.iterdir()) == before
