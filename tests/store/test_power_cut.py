"""The power is cut after any system call: the database is sound, and every cell that was called done is in it."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import hashlib
import random
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from power_cut import DATABASE, FOLDER, RECORDING, Step, recorded, states
from sweep_runner import Ended
from sweeping import Program, program
from traced import SAID, Traced, traced

pytestmark = pytest.mark.timeout(3600)
SEEDS = 2
MARK = "✓".encode()
DONE = """select num_ctx, num_batch from results where status = 'ok' and prompt_eval_rate > 0
    and runs = (select count(*) from runs join attempts on attempts.id = attempt_id
        where attempts.cell_id = (select id from cells where key = results.cell) and not warmup)"""


def record(traced: Traced, program: Program, *strace: str, **environment: str) -> tuple[Ended, list[Step]]:
    """A sweep to its end, or to where it dies, and what it did to the disk."""
    ended = traced.run(program, "run", config(program), strace=[*RECORDING, *strace], also=[SAID], **environment)
    return ended, recorded(program.folder)


def config(program: Program, contexts: int = 3) -> Path:
    return program.grid(num_ctx=list(range(512, 512 + contexts)), warmup=0, repeats=1, control="off")


class Judge:
    """Looks at one state of the disk after another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir()
        self._known: dict[tuple[tuple[str, bytes], ...], set[str]] = {}
        self.states = 0

    def check(self, where: str, acknowledged: set[str], files: dict[str, bytes]) -> None:
        self.states += 1
        print_ = tuple((name, hashlib.sha256(files[name]).digest()) for name in sorted(files))
        try:
            if print_ not in self._known:
                self._known[print_] = self._done(files)
            assert acknowledged <= self._known[print_], sorted(acknowledged - self._known[print_])
        except BaseException as error:
            error.add_note(f"{where}: { ({name: len(content) for name, content in files.items()}) }")
            raise

    @property
    def different(self) -> int:
        return len(self._known)

    def put(self, files: dict[str, bytes], folder: Path) -> None:
        for old in folder.glob("sweeps.db*"):
            old.unlink()
        for name, content in files.items():
            (folder / name).write_bytes(content)

    def _done(self, files: dict[str, bytes]) -> set[str]:
        """The cells that the database has, after it was found sound."""
        self.put(files, self._folder)
        if not files.get(DATABASE[0]):
            return set()
        with contextlib.closing(sqlite3.connect(self._folder / DATABASE[0])) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'results'").fetchall():
                return set()
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            return {f"num_ctx {context}, num_batch {batch}" for context, batch in connection.execute(DONE)}


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    made = Judge(tmp_path / "disk")
    yield made
    sys.stderr.write(f"{made.states} states of the disk, {made.different} of them different\n")


all_of_them = pytest.mark.parametrize(
    "share", [pytest.param(0.1, id="some"), pytest.param(1.0, id="all", marks=pytest.mark.slow)]
)


def some(steps: list[Step], share: float) -> set[int]:
    """The cuts to look at: every one, or some of them and each that follows a promise."""
    promises = {number for number, step in enumerate(steps) if MARK in step.data and step.kind == "said"}
    return promises | set(random.Random(len(steps)).sample(range(len(steps)), int(len(steps) * share)))


@all_of_them
def test_a_cut_at_any_step_of_a_sweep_loses_nothing(
    share: float, traced: Traced, program: Program, judge: Judge
) -> None:
    ended, steps = record(traced, program)
    assert ended.must().stdout.count("✓") == 6
    last: set[str] = set()
    for where, acknowledged, files in states(steps, some(steps, share), SEEDS):
        judge.check(where, acknowledged, files)
        last = acknowledged
    assert len(last) == 6
    assert judge.different > judge.states / 10


@all_of_them
def test_a_cut_after_a_kill_and_a_new_start_loses_nothing(
    share: float, traced: Traced, program: Program, judge: Judge
) -> None:
    died, first = record(traced, program, SWEEP_CRASH_AT="before_finish:4")
    assert died.returncode == -9
    ended, second = record(traced, program)
    assert "3 of 6 cells already done, 3 to run" in ended.must().stdout
    steps = [*first, *second]
    for where, acknowledged, files in states(steps, some(steps, share), SEEDS):
        judge.check(where, acknowledged, files)


@all_of_them
@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_cut_after_syncs_that_failed_loses_nothing(
    failures: int, share: float, traced: Traced, tmp_path: Path, judge: Judge
) -> None:
    """What the disk has once refused is in memory only, until it is written again."""
    numbers = range(8, 30) if share == 1.0 else (17, 18)
    codes: set[int] = set()
    for number in numbers:
        folder = tmp_path / str(number)
        folder.mkdir()
        with contextlib.closing(Program(folder)) as program:
            fault = f"inject=fdatasync:error=EIO:when={number}..{number + failures - 1}"
            ended, steps = record(traced, program, "-e", fault)
            assert any(step.kind == "sync" and step.size < 0 for step in steps)
            codes.add(ended.must(ended.returncode).returncode)
            for where, acknowledged, files in states(steps, some(steps, share / 4), SEEDS):
                judge.check(f"sync {number} failed, {where}", acknowledged, files)
    assert (0 if failures < 3 else 4) in codes
    assert codes <= {0, 4}


@all_of_them
def test_what_is_left_after_a_cut_is_gone_on_with(share: float, traced: Traced, program: Program, judge: Judge) -> None:
    _, steps = record(traced, program)
    cuts = set(random.Random(1).sample(range(len(steps)), int(10 + 90 * share)))
    for number, (where, acknowledged, files) in enumerate(states(steps, cuts, 1)):
        if number % 4:
            continue
        judge.put(files, program.folder)
        prepared = program.events("prepare")
        said = program("run", config(program)).must().stdout
        again = program.events("prepare")[len(prepared) :]
        assert not acknowledged & set(again), where
        assert f"{6 - len(again)} of 6 cells already done, {len(again)} to run" in said, where
        assert {row["status"] for row in program.rows()} == {"ok"}, where


@pytest.mark.slow
def test_a_cut_while_the_log_is_copied_into_the_database_loses_nothing(
    traced: Traced, program: Program, judge: Judge
) -> None:
    """SQLite does so when its log has a thousand pages: after about fifty cells."""
    words = ("run", config(program, 40))
    assert traced.run(program, *words, strace=RECORDING, also=[SAID]).must().stdout.count("✓") == 80
    steps = recorded(program.folder)
    first_cell = next(number for number, step in enumerate(steps) if MARK in step.data)
    copied = [number for number, step in enumerate(steps) if step.name == DATABASE[0] and number > first_cell]
    cuts = {number + more for number in copied[::3] for more in (-1, 0, 1)} & set(range(len(steps)))
    assert any(steps[number].kind == "write" for number in copied if number < copied[-1] - 500)
    for where, acknowledged, files in states(steps, cuts, 1):
        judge.check(where, acknowledged, files)


# The model itself


def test_a_write_that_was_not_synced_may_be_lost_torn_or_there(tmp_path: Path) -> None:
    """Without this every test above would pass for a database that never syncs."""
    old, new = bytes(4096), b"\x01" * 4096
    known = [Step("write", "sweeps.db", 0, old), Step("sync", "sweeps.db"), Step("sync", FOLDER)]
    seen = {files["sweeps.db"] for _, _, files in states([*known, Step("write", "sweeps.db", 0, new)], {3}, 8)}
    assert {old, new} < seen
    assert len(seen) > 4
    assert {piece for content in seen for piece in (content[at : at + 512] for at in range(0, 4096, 512))} == {
        old[:512], new[:512],
    }  # fmt: skip


def test_a_new_file_is_there_for_certain_only_after_what_its_kind_of_disk_asks_for() -> None:
    log = "sweeps.db-wal"
    steps = [Step("create", log), Step("write", log, 0, b"frame"), Step("sync", log)]
    found = {
        (where.split("names ")[1].split(",")[0], where.split("unsynced ")[1].split(",")[0]): files
        for where, _, files in states(steps, {2}, 1)
    }
    assert found["at once", "none"] == {log: b"frame"}
    assert found["with the next sync", "none"] == {log: b"frame"}
    assert found["with a sync of the folder", "none"] == {}
    assert found["with a sync of the folder", "all"] == {log: b"frame"}


def test_a_sync_that_failed_is_never_made_up_for_by_the_next_one() -> None:
    steps = [Step("write", "sweeps.db", 0, b"a"), Step("sync", "sweeps.db", size=-1), Step("sync", "sweeps.db")]
    assert {files.get("sweeps.db") for _, _, files in states(steps, {2}, 8)} >= {b"", b"a"}
    steps += [Step("write", "sweeps.db", 0, b"a"), Step("sync", "sweeps.db"), Step("sync", FOLDER)]
    assert {files.get("sweeps.db") for _, _, files in states(steps, {5}, 8)} == {b"a"}
