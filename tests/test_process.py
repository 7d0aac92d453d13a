"""What the rest relies on: a deadline that holds, a group that is gone, output that stays bounded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from ollama_sweep import process


def _is_gone(pid: int) -> bool:
    """Ended, or ended and not yet collected by whoever inherited it."""
    try:
        leftover = psutil.Process(pid)
        return bool(leftover.status() == psutil.STATUS_ZOMBIE or not psutil.wait_procs([leftover], timeout=30)[1])
    except psutil.NoSuchProcess:
        return True


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_and_exit_code_are_kept_apart() -> None:
    done = process.run(
        python("import sys; print(sys.stdin.read()); print('bad', file=sys.stderr); sys.exit(3)"),
        stdin="größe".encode(),
        timeout_s=30,
    )
    assert (done.stdout, done.stderr, done.returncode, done.timed_out) == ("größe\n", "bad\n", 3, False)


def test_a_child_that_reads_nothing_does_not_block() -> None:
    done = process.run(python("pass"), stdin=b"x" * 5_000_000, timeout_s=30)
    assert done.returncode == 0


def test_the_deadline_ends_the_grandchild_too() -> None:
    code = """
import subprocess, sys, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
    done = process.run(python(code), timeout_s=2)
    assert done.timed_out
    assert done.returncode < 0
    grandchild = int(done.stdout)
    assert _is_gone(grandchild)


def test_a_grandchild_that_holds_the_pipes_is_not_waited_for() -> None:
    code = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("done", flush=True)
"""
    done = process.run(python(code), timeout_s=60)
    assert (done.stdout, done.timed_out, done.returncode) == ("done\n", False, 0)


def test_a_flood_keeps_head_and_tail() -> None:
    code = "import sys; w = sys.stdout.write; w('HEAD'); [w('x' * 65536) for _ in range(500)]; w('TAIL')"
    done = process.run(python(code), timeout_s=60)
    assert done.stdout.startswith("HEAD")
    assert done.stdout.endswith("TAIL")
    assert "bytes left out" in done.stdout
    assert len(done.stdout) < 3 * process.KEPT_BYTES


def test_invalid_utf8_is_shown_not_raised() -> None:
    done = process.run(python(r"import sys; sys.stdout.buffer.write(b'a\xff\x00b')"), timeout_s=30)
    assert done.stdout == "a�\x00b"


def test_a_worker_answers_and_its_death_is_seen() -> None:
    code = """
import sys
for line in sys.stdin:
    if line == "die\\n":
        sys.exit("why")
    print(line.upper(), end="", flush=True)
"""
    worker = process.spawn_worker(python(code))
    worker.send("hello")
    assert worker.receive(30) == "HELLO"
    with pytest.raises(process.DeadlineExceeded):
        worker.receive(0.05)
    worker.send("die")
    assert worker.receive(30) is None
    assert worker.end() == 1
    assert "why" in worker.stderr_text()


def test_a_left_over_is_found_by_its_token(tmp_path: Path) -> None:
    log = tmp_path / "log"
    mine = process.spawn_service(
        python("import time; time.sleep(600)"), env=dict(os.environ), log=log, token="token-of-a-dead-session"
    )
    other = process.spawn_service(python("import time; time.sleep(600)"), env=dict(os.environ), log=log, token="other")
    try:
        assert process.end_by_token("token-of-a-dead-session") == [mine.pid]
        assert other.is_alive
    finally:
        mine.end()
        other.end()


def test_a_worker_that_does_not_read_is_not_waited_for_for_ever() -> None:
    worker = process.spawn_worker(python("import time; time.sleep(600)"))
    try:
        with pytest.raises(process.DeadlineExceeded):
            worker.send("x" * 1_000_000, timeout_s=0.2)
    finally:
        worker.end()


def test_when_the_first_output_came() -> None:
    spoke = process.run(["/bin/sh", "-c", "echo said >&2; echo said"], timeout_s=30)
    assert 0 < (spoke.first_output_s or 0) <= spoke.duration_s
    assert process.run(["/bin/sh", "-c", "echo said >&2"], timeout_s=30).first_output_s is None
