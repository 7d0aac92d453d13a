"""The process: it says where it answers, keeps to its port, and ends well."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import psutil
import pytest
from ollama_fixture import stand_still, until
from served import Page, Served, serving
from sweeping import GRID, Program
from sweeping import program as program  # a fixture

from ollama_sweep.store import file as files


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


def test_a_server_that_stands_still_inside_a_read_refuses_no_commit_and_is_named(
    program: Program, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held in its transaction as SIGSTOP would hold it there: another connection of it reads and does not end."""
    code = (
        "import sys, sqlite3; c = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True, isolation_level=None); "
        "c.execute('BEGIN'); c.execute('SELECT * FROM cells').fetchone(); print('reads', flush=True); "
        "sys.stdin.read()"
    )
    monkeypatch.setattr(files, "JOURNAL_LIMIT_BYTES", 1000)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(db), "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"reads\n"
        os.kill(reader.pid, signal.SIGSTOP)
        try:
            program("run", program.config("second", **GRID)).must()
            assert len(program.rows(sql="select * from results where status = 'ok'")) == 8
            said = program("status").must().stderr
            assert f"pid {reader.pid} (ollama-sweep serve) keeps reading the database" in said
        finally:
            os.kill(reader.pid, signal.SIGCONT)
            reader.kill()


def test_a_real_server_that_is_stopped_inside_a_read_refuses_no_commit_and_is_named(
    program: Program, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP strikes again and again until the kernel says that the server holds a place in the log to read from."""
    if not Path("/proc/locks").exists():
        pytest.skip("who holds a lock is told by the kernel of Linux only")
    monkeypatch.setattr(files, "JOURNAL_LIMIT_BYTES", 1000)
    with serving(program, "--port", "0") as found:
        asking = threading.Thread(target=ask_again_and_again, args=(found,), daemon=True)
        asking.start()
        server = psutil.Process(found.process.pid)
        while not (stand_still(server) and reads_from_log(server.pid, db)):
            server.resume()
        try:
            program("run", program.config("second", **GRID, num_predict=3)).must()
            assert len(program.rows(sql="select * from results where status = 'ok'")) == 8
            said = program("status").must().stderr
            assert f"pid {server.pid} (" in said
            assert "keeps reading the database" in said
        finally:
            server.resume()
        until("it answers again", lambda: found.get().status_code == 200)
        asking.join(60)


def ask_again_and_again(found: Served) -> None:
    """As often as it takes, and no longer than it answers."""
    with contextlib.suppress(httpx.HTTPError):
        for _ in range(400):
            httpx.get(found.url, timeout=2)


def reads_from_log(pid: int, db: Path) -> bool:
    """It holds one of the five locks of a reader in the database's `-shm`, and does not just look who writes."""
    shm = db.with_name(f"{db.name}-shm")
    number = shm.stat().st_ino if shm.exists() else -1
    held = [words for line in Path("/proc/locks").read_text("ascii").splitlines()
            if (words := line.split())[-4] == str(pid)]  # fmt: skip
    return all("FLOCK" not in words for words in held) and any(
        words[-3].endswith(f":{number}") and 123 <= int(words[-2]) <= 127 for words in held
    )


def test_a_server_that_is_killed_again_and_again_is_not_noticed(program: Program) -> None:
    """Between any two looks: the sweep's cells are all there, and nothing of the server is left in the way."""
    gate = program.folder / "gate"
    program.script(gate=str(gate))
    running = program.start("run", program.config(**GRID), env=program.environment())
    database = program.folder / "sweeps.db"
    until("it measures", lambda: database.exists() and database.stat().st_size > 0 and program.rows_now("select 1"))
    for number in range(3):
        started = program.start("serve", "--port", "0")
        if number:
            until("it listens", lambda: "http://" in started.said)  # noqa: B023
        started.kill()
        started.wait(60)
    gate.touch()
    assert "warning" not in running.wait(120).must(0).stderr.lower()
    assert [row["status"] for row in program.rows()] == ["ok"] * 4
