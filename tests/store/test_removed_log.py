"""The `-wal` is removed, or an older copy put in place: what can be kept is kept, and what is missing is said."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by their names
from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import store_helpers as help_
from store_helpers import grid, header, measure, ok, path, register, rows, said, store
from sweeping import Program, json_of, program

from ollama_sweep.core.errors import StorageError
from ollama_sweep.core.outcome import Status
from ollama_sweep.store import beside
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.transactions import Guarding
from ollama_sweep.store.writer import Store

REMOVED = "sweeps.db-wal was removed while the sweep ran; what was in it is in the database now"
OLDER = "are not in this file: its -wal was removed, or this is an older copy"


def side(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def finished(path: Path) -> int:
    """What anybody finds in the file and its log after the process is gone."""
    copy = path.parent / "look" / path.name
    copy.parent.mkdir(exist_ok=True)
    for ending in ("", "-wal"):
        side(copy, ending).unlink(missing_ok=True)
        if side(path, ending).exists():
            shutil.copy(side(path, ending), side(copy, ending))
    return int(str(rows(copy, "SELECT count(*) FROM cells WHERE status = 'ok'")[0][0]))


@pytest.mark.parametrize("endings", [["-wal"], ["-wal", "-shm"]], ids=len)
def test_a_log_that_is_removed_between_cells_costs_nothing(
    endings: list[str], store: Store, path: Path, said: list[str]
) -> None:
    sweep = register(store, grid(range(1, 20)))
    for _ in range(5):
        measure(store, sweep)
    for ending in endings:
        side(path, ending).unlink()
    assert finished(path) == 5, "the database has it already"
    for number in range(6, 9):
        measure(store, sweep)
        assert finished(path) == number
    assert said == [REMOVED]
    assert store.counts(sweep)[Status.OK] == 8


def test_a_log_that_is_removed_in_mid_cell_costs_nothing(store: Store, path: Path, said: list[str]) -> None:
    sweep = register(store, grid(range(1, 20)))
    measure(store, sweep)
    for number in (2, 3):
        cell = store.next_pending(sweep)
        assert cell
        attempt = store.begin_attempt(sweep, cell.cell_id, timeout_s=600)
        side(path, "-wal").unlink()
        store.finish_attempt(attempt, ok(), cell_status=Status.OK)
        assert finished(path) == number
    assert said == [REMOVED, REMOVED]


def test_a_log_that_is_removed_while_a_transaction_is_open_is_saved_after_its_commit(
    store: Store, path: Path, said: list[str]
) -> None:
    register(store, grid((1024,)))
    with store.transaction() as connection:
        connection.execute("UPDATE sweeps SET machine = 'another'")
        side(path, "-wal").unlink()
    assert said == [REMOVED]
    store.close()
    assert rows(path, "SELECT machine FROM sweeps") == [("another",)]


def test_a_reader_beside_a_removed_log_loses_nothing_and_is_told(store: Store, path: Path) -> None:
    sweep = register(store, grid(range(1, 20)))
    cell = store.next_pending(sweep)
    assert cell
    attempt = store.begin_attempt(sweep, cell.cell_id, timeout_s=600)
    side(path, "-wal").unlink()

    def look() -> object:
        with Reader.open(path) as reader:
            return reader.running(sweep)

    assert help_.message(look).startswith("StorageError: sweeps.db-wal was removed; a sweep that runs puts")
    store.finish_attempt(attempt, ok(), cell_status=Status.OK)
    with Reader.open(path) as reader:
        assert reader.counts(sweep)[Status.OK] == 1


def test_where_the_log_cannot_be_saved_all_goes_into_a_copy(path: Path, said: list[str]) -> None:
    """A program that reads all the time is in the way, or another log lies in its place."""
    with Store.open(path, say=said.append, guarding=Guarding(say=said.append, patience_s=0)) as store:
        sweep = register(store, grid(range(1, 20)))
        with Reader.open(path) as reader, reader.snapshot():
            reader.counts(sweep)
            measure(store, sweep)
            side(path, "-wal").unlink()
            with pytest.raises(
                StorageError, match=r"was removed while the sweep ran\. All that was measured was saved to"
            ):
                measure(store, sweep)
        (copy,) = path.parent.glob("sweeps.db.saved-*.db")
        assert rows(copy, "SELECT count(*) FROM cells WHERE status = 'ok'") == [(1,)]
        assert rows(copy, "PRAGMA integrity_check") == [("ok",)]


def test_another_log_in_its_place_is_left_alone(path: Path) -> None:
    store = Store.open(path)
    sweep = register(store, grid(range(1, 20)))
    measure(store, sweep)
    other = side(path, "-other")
    other.write_bytes(b"somebody else's" * 1000)
    other.replace(side(path, "-wal"))
    for _ in range(2):
        with pytest.raises(
            StorageError, match=r"was replaced while the sweep ran\. All that was measured was saved to"
        ):
            measure(store, sweep)
    store.close()
    assert side(path, "-wal").read_bytes() == b"somebody else's" * 1000
    (copy,) = path.parent.glob("sweeps.db.saved-*.db")
    assert rows(copy, "SELECT count(*) FROM cells WHERE status = 'ok'") == [(1,)]


# What was called done, and is not there at the next start


def older_copy(program: Program, cells: int = 2) -> None:
    """A sweep of four cells, of which a copy with the first ones comes back."""
    database = program.folder / "sweeps.db"
    died = program.start(
        "run", program.grid(), env={**program.environment(), "SWEEP_CRASH_AT": f"before_begin:{cells + 1}"}
    )
    died.wait()
    with sqlite3.connect(database) as old, sqlite3.connect(program.folder / "old.db") as copy:
        old.backup(copy)
    old.close()
    copy.close()
    program("run", program.grid()).must()
    os.replace(program.folder / "old.db", database)
    database.chmod(0o600)


def test_an_older_copy_is_noticed_and_measured_again(program: Program) -> None:
    older_copy(program)
    line = f"2 cells that were called done {OLDER}"
    assert f"warning: {line}" in program("status").must().stderr
    assert json_of(program("status", "--json"))["missing_cells"] == 2
    assert line in program("verify").must().stderr
    ended = program("run", program.grid()).must()
    assert ended.stdout.count(line) == 1
    assert "2 of 4 cells already done, 2 to run" in ended.stdout
    assert program("status").must().stderr == ""
    assert line not in program("run", program.grid()).must().stdout


def test_a_removed_log_of_a_dead_sweep_is_noticed(path: Path, said: list[str]) -> None:
    """The passive copies are left out here, as a program that reads all the time would."""
    code = f"""
import os, sys
sys.path[:0] = {[str(Path(help_.__file__).parent)]!r}
from pathlib import Path
from store_helpers import Store, grid, measure, register
from ollama_sweep.store.transactions import Guard
Guard.shorten_log = lambda guard: None
store = Store.open(Path({str(path)!r}))
sweep = register(store, grid(range(1, 20)))
for _ in range(25):
    measure(store, sweep)
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    side(path, "-wal").unlink()
    with Reader.open(path) as reader:
        assert reader.warnings() == [f"25 cells that were called done {OLDER}"]
    with Store.open(path, say=said.append) as store:
        assert said == [f"25 cells that were called done {OLDER}"]
        assert store.counts(1) == {Status.PENDING: 38}
        measure(store, 1)
    assert beside.called_done(path) is not None
    with Store.open(path, say=said.append):
        assert len(said) == 1


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda done: done.unlink(),
        lambda done: done.write_bytes(b""),
        lambda done: done.write_bytes(b"\xff" * 100_000),
        lambda done: done.write_text("0" * 32 + " 000000000000099\n"),
        lambda done: done.write_text(done.read_text().replace(" 0", " -")),
        lambda done: done.write_text(done.read_text().strip() + "9" * 400 + "\n"),
        lambda done: (done.unlink(), done.mkdir()),
        lambda done: [act(done) for act in (os.unlink, os.mkfifo)],
        lambda done: (done.unlink(), done.symlink_to("/dev/zero")),
        lambda done: (done.unlink(), done.symlink_to(done)),
    ],
)
def test_a_count_that_says_nothing_is_passed_over(change: Change, path: Path, said: list[str]) -> None:
    with Store.open(path) as store:
        register(store, grid((1024,)))
        measure(store, 1)
    change(beside.done_path(path))
    with Reader.open(path) as reader:
        assert reader.warnings() == []
    with Store.open(path, say=said.append) as store:
        measure(store, 1)
    assert said == []


def test_several_sweeps_retries_imports_and_other_databases_are_no_loss(
    path: Path, tmp_path: Path, said: list[str]
) -> None:
    old = [{"num_ctx": 512, "num_batch": 64, "prompt_eval_rate": 5.0}]
    with Store.open(path) as store:
        for name in ("one", "two"):
            sweep = register(store, grid((1024, 2048)), name)
        measure(store, sweep, help_.failed())
        store.import_results("old", old, "old.json")
    with Store.open(path, say=said.append) as store:
        retry = frozenset({Status.OOM})
        store.refresh_sweep(header("two", dimensions=("num_ctx", "num_batch")), timeout_s=600, repeats_minimum=3,
                            retry=retry)  # fmt: skip
        assert store.counts(sweep) == {Status.PENDING: 4}
    shutil.copy(path, tmp_path / "copy.db")
    path.unlink()
    for database in (tmp_path / "copy.db", path):
        with Store.open(database, say=said.append) as store:
            register(store, grid((1,)))
            measure(store, 1) if database == path else None
    assert said == []
    with Reader.open(path) as reader:
        assert reader.missing_cells() == 0
