"""Killed, lied to or slowed down at single system calls on the database: nothing that was acknowledged is lost."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import random
import re
import signal
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from ollama_fixture import until
from sweep_runner import Ended
from sweeping import Program, program
from traced import Traced, traced

from ollama_sweep.core.outcome import Status
from ollama_sweep.store.reader import Reader

pytestmark = pytest.mark.timeout(3600)
CALLS = ("pwrite64", "fdatasync", "ftruncate", "unlink", "openat")
"""Everything SQLite and the store do to files that matters after a crash; `-shm` is mapped and does not."""
CELLS = 4
FINISHED = "select key, status, attempts, runs from cells where status not in ('pending', 'started')"
ATTEMPTS = "select status, reason, count(*) as n from attempts group by status, reason"
STORAGE = re.compile(
    r"^error: (The disk reported an error while saving|No space for the database|.* cannot be (opened or used|written)|"
    r"SQLite refused|.* is (locked by another program|damaged)|.*: no space left|.* could not be read)"
)
_ACKNOWLEDGED = re.compile(r"\d+/\d+  (num_ctx \d+, num_batch \d+): ✓")


class Rounds:
    """One sweep for each round, in a folder of its own; what was asked of it must hold after each."""

    def __init__(self, traced: Traced, folder: Path) -> None:
        self._traced = traced
        self._folder = folder
        self.codes: Counter[int] = Counter()
        self.attempts: list[tuple[str, str, int]] = []
        """Status, reason and number of the last sweep's attempts, before it went on."""

    def recorded(self) -> list[tuple[str, str]]:
        """The calls that a sweep makes to its end, and on which file; every sweep makes the same ones."""
        with contextlib.closing(self._program()) as program:
            ended = self._run(program, f"trace={','.join(CALLS)}", "-y")
            assert ended.must().stdout.count("✓") == CELLS
            return self._traced.calls(program)

    def fault(self, call: str, what: str) -> Ended:
        """A sweep with this fault; afterwards the same sweep goes on to its end."""
        with contextlib.closing(self._program()) as program:
            ended = self._run(program, f"trace={call}", "-e", f"inject={call}:{what}")
            self.attempts = [tuple(row.values()) for row in program.rows_now(ATTEMPTS)]
            try:
                self._check(program, ended)
            except BaseException as error:
                error.add_note(f"{call}:{what}\nexit {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
                raise
            self.codes[ended.returncode] += 1
            return ended

    def _program(self) -> Program:
        folder = self._folder / str(len(list(self._folder.iterdir())))
        folder.mkdir()
        return Program(folder)

    def _run(self, program: Program, *strace: str) -> Ended:
        return self._traced.run(program, "run", self._config(program), strace=["-e", *strace])

    def _config(self, program: Program) -> Path:
        return program.grid(warmup=0, repeats=1, retries=0)

    def _check(self, program: Program, ended: Ended) -> None:
        acknowledged = set(_ACKNOWLEDGED.findall(ended.stdout))
        assert "Traceback" not in ended.stderr
        before, prepared = self._finished(program), Counter(program.events("prepare"))
        labels = {f"num_ctx {row['num_ctx']}, num_batch {row['num_batch']}" for row in self._results(program)}
        assert acknowledged <= labels
        check_whole(program)

        said = program("run", self._config(program)).must().stdout
        assert f"{len(labels)} of {CELLS} cells already done, {CELLS - len(labels)} to run" in said
        check_whole(program)
        after = self._finished(program)
        assert {key: after[key] for key in before} == before
        assert {row[0] for row in after.values()} == {"ok"}
        assert {row[1] for row in after.values()} == {1}
        again = Counter(program.events("prepare"))
        assert {label: again[label] for label in labels} == {label: prepared[label] for label in labels}
        assert program.rows(sql="select * from ledger") == []

    def _finished(self, program: Program) -> dict[str, tuple[object, ...]]:
        return {row["key"]: tuple(row.values())[1:] for row in program.rows_now(FINISHED)}

    def _results(self, program: Program) -> list[dict[str, object]]:
        return program.rows_now("select * from results where status not in ('pending', 'started')")


def check_whole(program: Program) -> None:
    path = program.folder / "sweeps.db"
    if not path.exists():
        return
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.fixture
def rounds(traced: Traced, tmp_path: Path) -> Iterator[Rounds]:
    made = Rounds(traced, tmp_path)
    yield made
    sys.stderr.write(f"{made.codes.total()} sweeps, by exit code: {dict(made.codes)}\n")


Calls = list[tuple[str, str]]


@pytest.fixture(scope="module")
def recorded(traced: Traced, tmp_path_factory: pytest.TempPathFactory) -> Calls:
    return Rounds(traced, tmp_path_factory.mktemp("recorded")).recorded()


def some(total: int, most: int, seed: int) -> list[int]:
    """The first call, the last one and others between them; all where there are no more."""
    if total <= most:
        return list(range(1, total + 1))
    return sorted({1, total, *random.Random(seed).sample(range(2, total), most - 2)})


all_of_them = pytest.mark.parametrize(
    "share", [pytest.param(False, id="some"), pytest.param(True, id="all", marks=pytest.mark.slow)]
)


def points(recorded: Calls, call: str, most: int, share: bool) -> list[int]:
    """Which of the calls of a kind are spoilt, one for each sweep."""
    total = sum(name == call for name, _ in recorded)
    assert total, f"{call} is never called"
    return list(range(1, total + 1)) if share else some(total, most, seed=len(call))


def before_the_end(recorded: Calls, call: str, commits: int) -> int:
    """The number of the last such call on the log before so many of its commits are left."""
    left = 0
    for number in reversed(range(len(recorded))):
        name, file = recorded[number]
        left += (name, file) == ("fdatasync", "sweeps.db-wal")
        if left > commits and name == call and file == "sweeps.db-wal":
            return sum(name == call for name, _ in recorded[: number + 1])
    raise AssertionError("there are not so many")


@all_of_them
@pytest.mark.parametrize(
    ("call", "most"), [("pwrite64", 14), ("fdatasync", 7), ("ftruncate", 2), ("unlink", 2), ("openat", 4)]
)
def test_a_kill_at_any_system_call_costs_at_most_the_cell_at_hand(
    call: str, most: int, share: bool, rounds: Rounds, recorded: Calls
) -> None:
    for number in points(recorded, call, most, share):
        assert rounds.fault(call, f"signal=KILL:when={number}").returncode == -signal.SIGKILL


@all_of_them
@pytest.mark.parametrize("then", ["", "+"], ids=["once", "from then on"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", pytest.param("EDQUOT", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("call", "most"), [("pwrite64", 4), ("fdatasync", 4), ("ftruncate", 2), ("openat", 2)])
def test_a_disk_that_reports_errors_keeps_what_was_acknowledged(
    call: str, most: int, error: str, then: str, share: bool, rounds: Rounds, recorded: Calls
) -> None:
    for number in points(recorded, call, most, share):
        ended = rounds.fault(call, f"error={error}:when={number}{then}")
        assert ended.returncode in (0, 4), ended
        assert ended.returncode == 0 or STORAGE.match(ended.stderr), ended.stderr
        assert len(re.findall("^error: ", ended.stderr, re.MULTILINE)) == ended.returncode // 4
    if then and call in ("pwrite64", "fdatasync"):
        assert rounds.codes[4]


# Signals and slowness


@all_of_them
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_inside_a_commit_lets_it_complete(times: int, share: bool, rounds: Rounds, recorded: Calls) -> None:
    """It comes while the disk is asked to keep what was written, and the answer takes a while."""
    for number in points(recorded, "fdatasync", 5, share):
        when = f"{number}..{number + times - 1}"
        ended = rounds.fault("fdatasync", f"signal=INT:delay_exit=5000:when={when}")
        assert ended.returncode in (0, 130), ended
        interrupted = [] if times == 1 else [("interrupted", "stopped", 1)]
        assert [one for one in rounds.attempts if one[0] != "ok"] in ([], interrupted)
    assert rounds.codes[130]


def test_a_slow_disk_only_slows_the_sweep_and_readers_go_on(traced: Traced, program: Program) -> None:
    config, ended = program.grid(warmup=0, repeats=1), []
    slowly = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_exit=1000000:when=14+3"]
    sweep = threading.Thread(target=lambda: ended.append(traced.run(program, "run", config, strace=slowly)))
    sweep.start()
    seen: list[int] = []
    while sweep.is_alive():
        if not program.rows_now("select 1 from sweeps"):
            continue
        with Reader.open(program.folder / "sweeps.db") as reader:
            row = reader.last_sweep()
            assert row is not None
            seen.append(reader.counts(row.sweep_id).get(Status.OK, 0))
    sweep.join()
    assert ended[0].must().stdout.count("✓") == CELLS
    assert seen == sorted(seen)
    assert set(seen) & {1, 2, 3}
    assert len(Traced.calls(program)) > 14


# What is said. At its end a sweep syncs its log four times: with the last cell, before that one is copied into the
# database, with the engine's ledger, and when the database is closed.


def test_a_disk_error_while_saving_is_said_with_what_is_safe(rounds: Rounds, recorded: Calls) -> None:
    ended = rounds.fault("fdatasync", f"error=EIO:when={before_the_end(recorded, 'fdatasync', 4)}+")
    assert ended.returncode == 4
    assert re.fullmatch(
        r"error: The disk reported an error while saving \(sweeps\.db: \[Errno 5\] Input/output error\)\. "
        r"3 cells are safe\. "
        r"Then: ollama-sweep run\. The cell at hand was saved to sweeps\.db\.rescued-[-0-9]+\.json\n",
        ended.stderr,
    )


def test_an_error_that_passes_costs_nothing(rounds: Rounds, recorded: Calls) -> None:
    """What the disk did not confirm is written again, so that the sweep may go on."""
    for call in ("fdatasync", "pwrite64"):
        rounds.fault(call, f"error=EIO:when={before_the_end(recorded, call, 2)}").must()
        assert rounds.attempts == [("ok", "", CELLS)]
