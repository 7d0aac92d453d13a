"""What the rest relies on: a deadline that holds, a group that is gone, output that stays bounded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from ollama_fixture import ROOT

from ollama_sweep.machine import process


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


def test_the_deadline_ends_the_grandchild_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour has passed as soon as the grandchild is there."""
    code = """
import pathlib, subprocess, sys, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
pathlib.Path("ready").touch()
time.sleep(600)
"""
    ready = tmp_path / "ready"
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * ready.exists())
    monkeypatch.setattr(process, "time", clock)
    done = process.run(python(code), timeout_s=600, cwd=tmp_path)
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


FLOOD = r"""
import sys
noise = b"\xff\xfe\x00 \x1b[31mred\x1b[0m \r\r\x1b]0;title\x07 \xe2\xa0\x8b " * 2**15
for number in range(200 * 2**20 // len(noise) + 1):
    for stream in sys.stdout, sys.stderr:
        stream.buffer.write(b"HEAD " * (number == 0) + noise)
for stream in sys.stdout, sys.stderr:
    stream.buffer.write(b"\nError: TAIL")
"""
READER = """
import json, pathlib, resource, sys
from ollama_sweep.machine import process
from ollama_sweep.engines.ollama.output import clean
done = process.run([sys.executable, "-c", sys.argv[1]], timeout_s=300)
status = pathlib.Path("/proc/self/status")
own = [line.split()[1] for line in status.read_text().splitlines() if "VmHWM" in line] if status.exists() else []
peak = int(own[0]) * 1024 if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([done.returncode, peak, [len(done.stdout), len(done.stderr)], clean(done.stdout), clean(done.stderr)]))
"""
"""On Linux the peak of `getrusage` begins with that of the parent, so the program's own one is read."""


def test_200_mb_of_anything_on_each_stream_cost_little_memory_and_leave_clean_text() -> None:
    asked = subprocess.run([*python(READER), FLOOD], cwd=ROOT, capture_output=True, check=True, text=True)
    returncode, peak_bytes, kept, *texts = json.loads(asked.stdout)
    assert returncode == 0
    assert peak_bytes < 64 * 2**20
    for length, text in zip(kept, texts, strict=True):
        assert length < 3 * process.KEPT_BYTES
        assert text.startswith("HEAD ")
        assert text.endswith("\nError: TAIL")
        (left_out,) = re.findall(r"\[… (\d+) bytes left out …\]", text)
        assert int(left_out) > 200 * 2**20 - 2 * process.KEPT_BYTES
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
        assert "red" in text


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
        assert list(process.end_by_token("token-of-a-dead-session")) == [mine.pid]
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
