"""The program as a person uses it: `python sweep.py …` as a child process in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forked
import psutil
import undrawn
import yaml
from ollama_fixture import END_S, MARK, ROOT, clean_environment, end_marked, marked

if TYPE_CHECKING:
    from namespaces import Host

ONE_LOAD: Mapping[str, Any] = {"control": "off", "second_look": "off"}
"""Keys of a sweep that loads each cell once and nothing else."""
FIRST_PAGE = 4096
"""No address of a program is as small, so a call whose second argument is larger is not a sleep."""


@dataclass(frozen=True)
class Ended:
    """A finished child."""

    returncode: int
    stdout: str
    stderr: str

    def must(self, returncode: int = 0) -> Ended:
        """Itself, where it ended as it must."""
        assert self.returncode == returncode, f"exit {self.returncode}\n{self.stdout}\n{self.stderr}"
        assert "Traceback" not in self.stderr, self.stderr
        return self


class Started:
    """A running child; its output is kept in files, so that it never waits for a reader."""

    def __init__(self, argv: list[str], folder: Path, env: Mapping[str, str]) -> None:
        stem = f"output-{time.monotonic_ns()}"
        self._files = folder / f"{stem}.out", folder / f"{stem}.err"
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self._child = forked.child(
                argv, folder=folder, env=env, stdin=subprocess.DEVNULL, stdout=out.fileno(), stderr=err.fileno()
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def is_running(self) -> bool:
        return self._child.poll() is None

    @property
    def said(self) -> str:
        """What it has printed by now."""
        return self._files[0].read_text("utf-8", "replace")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the program itself, not to what it started."""
        self._child.send_signal(number)

    def wait(self, timeout_s: float = 300.0) -> Ended:
        """Wait for its end."""
        code = self._child.wait(timeout_s)
        return Ended(code, *(file.read_text("utf-8", "replace") for file in self._files))


class Sweep:
    """Calls the program; every process it starts carries `mark`, and what is left is ended with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.draws = False
        """Whether `run` really draws, which takes longer than a small sweep; pictures have tests of their own."""
        self._mark = f"sweep-{folder.name}-{time.monotonic_ns()}"
        self._is_marking = False
        self._started: list[Started] = []

    @property
    def file(self) -> Path:
        """What is given to Python."""
        return ROOT / "sweep.py" if self.draws else undrawn.FILE

    @property
    def mark(self) -> str:
        """What a process has in its environment that this object ends; without one there is nothing to look for."""
        self._is_marking = True
        return self._mark

    def __call__(self, *words: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 300.0) -> Ended:
        """Run a command to its end."""
        return self.start(*words, env=env).wait(timeout_s)

    def start(self, *words: str | Path, env: Mapping[str, str] | None = None, on: Host | None = None) -> Started:
        """Start a command, or on another computer of the test."""
        argv = [sys.executable, str(self.file), *(str(word) for word in words)]
        argv = argv if on is None else on.command(*argv)
        started = Started(argv, self.folder, {**clean_environment(), MARK: self.mark, **(env or {})})
        self._started.append(started)
        return started

    def config(self, name: str = "grid", **keys: Any) -> Path:
        """A sweep file of this name with these keys."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(keys, sort_keys=False), "utf-8")
        return path

    def rows(self, db: str = "sweeps.db", sql: str = "select * from results order by position") -> list[dict[str, Any]]:
        """What a person sees with `sqlite3 sweeps.db`; nothing where there is no database yet."""
        with contextlib.closing(sqlite3.connect(f"file:{self.folder / db}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql)]

    def cells(self, db: str = "sweeps.db") -> dict[tuple[int, int], dict[str, Any]]:
        """The results by (num_ctx, num_batch)."""
        return {(row["num_ctx"], row["num_batch"]): row for row in self.rows(db)}

    def rows_now(self, sql: str, db: str = "sweeps.db") -> list[dict[str, Any]]:
        """The same during a run: nothing while the database is being made."""
        try:
            return self.rows(db, sql)
        except sqlite3.OperationalError:
            return []

    def left_running(self) -> list[str]:
        """Command lines of what the program started and did not end."""
        lines = []
        for process in marked(self.mark):
            with contextlib.suppress(psutil.Error):
                lines.append(" ".join(process.cmdline()))
        return lines

    def close(self) -> None:
        """End everything this object started."""
        for started in self._started:
            if started.is_running():
                started.kill()
                started.wait(END_S)
        if self._is_marking:
            end_marked(self.mark)


def stands_at(pid: int, *files: int) -> bool:
    """Whether a process waits in a read or a write of one of these of its files; told by the kernel, on Linux only."""
    try:
        words = Path(f"/proc/{pid}/syscall").read_text("ascii").split()
    except OSError:
        return psutil.Process(pid).status() == psutil.STATUS_SLEEPING
    return len(words) > 2 and int(words[1], 16) in files and int(words[2], 16) > FIRST_PAGE


def write_fake_script(path: Path, script: Mapping[str, Any]) -> Path:
    """The script of the fake engine (see ollama_sweep/engines/fake.py)."""
    path.write_text(json.dumps(dict(script)), "utf-8")
    return path


def statuses(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[int, int], str]:
    """The status of each (num_ctx, num_batch)."""
    return {(row["num_ctx"], row["num_batch"]): row["status"] for row in rows}
