"""Who may write, and what a broken disk or a strange file does."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by their names
from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import store_helpers as help_
from store_helpers import BreakingDisk, failed, grid, header, measure, ok, path, register, rows, said, store

from ollama_sweep.core.errors import ConfigError, DatabaseInUse, StorageError
from ollama_sweep.core.outcome import Status
from ollama_sweep.store import file as files
from ollama_sweep.store import schema
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import PlannedCell
from ollama_sweep.store.transactions import Guarding
from ollama_sweep.store.writer import Store


def test_second_writer_is_refused_and_named_the_first(store: Store, path: Path, tmp_path: Path) -> None:
    sweep = register(store, grid((1024,)))
    alias = tmp_path / "alias.db"
    alias.symlink_to(path)
    for name in (path, alias):
        with pytest.raises(DatabaseInUse, match=rf"^Already running: pid {os.getpid()} since \d\d:\d\d on host \S+$"):
            Store.open(name)
    measure(store, sweep)


def test_lock_ends_with_its_process_even_where_a_child_lives_on(path: Path) -> None:
    store = Store.open(path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        store.close()
        with Store.open(path) as again:
            register(again, grid((1024,)))
        assert child.poll() is None
        child.communicate()


def test_reader_that_keeps_the_log_from_being_emptied_is_mentioned_once(
    store: Store, path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = register(store, grid(range(1, 20)))
    monkeypatch.setattr(files, "JOURNAL_LIMIT_BYTES", 100_000)
    with Reader.open(path) as reader, reader.snapshot():
        before = reader.counts(sweep)
        for _ in range(30):
            measure(store, sweep)
        assert reader.counts(sweep) == before
        assert len(reader.warnings()) == 1
    (line,) = said
    assert line.startswith("sweeps.db-wal has grown to")


def test_readers_never_disturb_and_never_see_the_count_fall(path: Path) -> None:
    cells = grid(range(1, 251))
    counts: list[int] = []
    with Store.open(path) as store:
        sweep = register(store, cells)
    problems: list[BaseException] = []

    def write() -> None:
        try:
            with Store.open(path) as store:
                for _ in range(500):
                    measure(store, sweep, ok(runs=1))
        except BaseException as error:
            problems.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        with Reader.open(path) as reader, reader.snapshot():
            done = reader.counts(sweep).get(Status.OK, 0)
            if len(counts) % 20 == 0:
                assert done == sum(result.status is Status.OK for result in reader.results(sweep))
            counts.append(done)
    writer.join()
    assert problems == []
    assert counts == sorted(counts)
    with Reader.open(path) as reader:
        assert reader.counts(sweep) == {Status.OK: 500}


def test_strangers_write_is_waited_for_with_one_warning(path: Path) -> None:
    stranger = sqlite3.connect(path, isolation_level=None)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        stranger.execute("ROLLBACK")

    with Store.open(path, say=say) as store:
        stranger.execute("BEGIN IMMEDIATE")
        sweep = register(store, grid((1024,)))
        measure(store, sweep)
    stranger.close()
    assert said == [f"waiting for the database: another program is writing to {path}"]


def test_strangers_write_that_does_not_end_stops_the_sweep(path: Path) -> None:
    stranger = sqlite3.connect(path, isolation_level=None)
    with Store.open(path, guarding=Guarding(patience_s=0)) as store:
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="is locked by another program"):
            register(store, grid((1024,)))
        stranger.execute("ROLLBACK")
        register(store, grid((1024,)))
    stranger.close()


def test_reader_of_a_folder_that_cannot_be_written() -> None:
    with help_.public_folder() as folder:
        path = folder / "sweeps.db"
        with Store.open(path) as store:
            measure(store, register(store, grid((1024,))))
        path.chmod(0o444)
        folder.chmod(0o555)

        def count() -> str:
            with Reader.open(path) as reader:
                return str(reader.counts(1))

        assert help_.unprivileged(count) == str({Status.OK: 1, Status.PENDING: 1})
        assert sorted(file.name for file in folder.iterdir()) == ["sweeps.db", "sweeps.db.done", "sweeps.db.lock"]


def test_full_disk_keeps_every_earlier_cell(path: Path) -> None:
    with Store.open(path) as store:
        sweep = register(store, grid(range(1, 100)))
    (pages,) = rows(path, "PRAGMA page_count")[0]
    assert isinstance(pages, int)
    done = 0
    caught: StorageError | None = None
    with Store.open(path, guarding=Guarding(max_pages=pages + 20)) as store:
        while done < 198 and not caught:
            try:
                measure(store, sweep, replace(ok(), raw=os.urandom(500).hex()))
                done += 1
            except StorageError as error:
                caught = error
        assert store.counts(sweep)[Status.OK] == done
    assert done > 0
    assert caught
    assert caught.exit_code == 4
    assert str(caught) == (
        f"No space for the database ({path}). {done} cells are safe. Free space and run: ollama-sweep run"
    )
    with Store.open(path) as store:
        assert store.refresh_sweep(header(), timeout_s=600, repeats_minimum=3) == sweep
        measure(store, sweep)
        assert store.counts(sweep) == {Status.OK: done + 1, Status.PENDING: 197 - done}
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("stores_first", [True, False])
@pytest.mark.parametrize("failures", [1, 2])
def test_commit_that_failed_is_looked_up_and_stored_exactly_once(
    path: Path, stores_first: bool, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BreakingDisk, "stores_first", stores_first)
    with Store.open(path, guarding=Guarding(factory=BreakingDisk)) as store:
        sweep = register(store, grid((1024,), (64,)))
        cell = store.next_pending(sweep)
        assert cell
        attempt = store.begin_attempt(sweep, cell.cell_id, timeout_s=600)
        monkeypatch.setattr(BreakingDisk, "failures", failures)
        if failures == 2:
            with pytest.raises(StorageError, match="The disk reported an error while saving"):
                store.finish_attempt(attempt, ok(), cell_status=Status.OK)
        store.finish_attempt(attempt, ok(), cell_status=Status.OK)
        store.finish_attempt(attempt, ok(), cell_status=Status.OK)
        with pytest.raises(ValueError, match="has ended as ok, not as oom"):
            store.finish_attempt(attempt, failed(), cell_status=Status.OOM)
        assert store.counts(sweep) == {Status.OK: 1}
    assert rows(path, "SELECT attempts, runs FROM results") == [(1, 3)]
    assert rows(path, "SELECT count(*) FROM runs") == [(4,)]


def test_what_the_disk_did_not_confirm_is_written_again_before_it_is_believed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync the system shows what was written and never writes it by itself, so looking is not enough."""
    asked: list[str] = []
    write_again = files.write_again

    class Watched(BreakingDisk):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            asked.append(sql.split()[0])
            return super().execute(sql, *parameters)

    def watched(log: Path) -> None:
        asked.append(log.name)
        before = log.read_bytes()
        write_again(log)
        assert log.read_bytes() == before

    monkeypatch.setattr(files, "write_again", watched)
    monkeypatch.setattr(BreakingDisk, "stores_first", True)
    with Store.open(path, guarding=Guarding(factory=Watched)) as store, Reader.open(path) as reader:
        sweep = register(store, grid((1024,)))
        cell = store.next_pending(sweep)
        assert cell
        attempt = store.begin_attempt(sweep, cell.cell_id, timeout_s=600)
        asked.clear()
        monkeypatch.setattr(BreakingDisk, "failures", 1)
        with reader.snapshot():
            reader.counts(sweep)
            store.finish_attempt(attempt, ok(), cell_status=Status.OK)
        ends = [word for word in asked if word in ("COMMIT", "sweeps.db-wal")]
        assert ends == ["COMMIT", "sweeps.db-wal", "COMMIT"]
        assert asked[asked.index("sweeps.db-wal") - 1] == "BEGIN"


def test_log_that_cannot_be_written_again_stops_the_sweep(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(log: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(log))

    monkeypatch.setattr(BreakingDisk, "stores_first", True)
    with Store.open(path, guarding=Guarding(factory=BreakingDisk)) as store, Reader.open(path) as reader:
        sweep = register(store, grid((1024,)))
        measure(store, sweep)
        cell = store.next_pending(sweep)
        assert cell
        attempt = store.begin_attempt(sweep, cell.cell_id, timeout_s=600)
        monkeypatch.setattr(files, "write_again", refuse)
        monkeypatch.setattr(BreakingDisk, "failures", 1)
        for _ in range(2):
            with pytest.raises(StorageError, match="The disk reported an error while saving"):
                store.finish_attempt(attempt, ok(), cell_status=Status.OK)
        reader.counts(sweep)
        store.close()
        with pytest.raises(StorageError, match="The disk reported an error while saving"):
            Store.open(path)
        monkeypatch.undo()
        with Store.open(path) as again:
            register(again, grid((1024,)))
            assert again.counts(sweep)[Status.OK] in (1, 2)


def test_begin_that_failed_is_one_attempt(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BreakingDisk, "stores_first", True)
    with Store.open(path, guarding=Guarding(factory=BreakingDisk)) as store:
        sweep = register(store, grid((1024,)))
        monkeypatch.setattr(BreakingDisk, "failures", 1)
        measure(store, sweep)
    assert rows(path, "SELECT number, status FROM attempts") == [(1, "ok")]


@pytest.mark.parametrize("replaced", [True, False])
def test_database_replaced_or_deleted_under_the_sweep_is_noticed(store: Store, path: Path, replaced: bool) -> None:
    sweep = register(store, grid((1024,)))
    cell = store.next_pending(sweep)
    assert cell
    attempt = store.begin_attempt(sweep, cell.cell_id, timeout_s=600)
    if replaced:
        other = path.with_name("other.db")
        other.write_bytes(b"something else")
        other.replace(path)
    else:
        path.unlink()
    with pytest.raises(StorageError, match="was deleted or replaced while the sweep ran") as caught:
        store.finish_attempt(attempt, ok(), cell_status=Status.OK)
    assert caught.value.exit_code == 4
    assert path.exists() == replaced
    assert not replaced or path.read_bytes() == b"something else"


def test_database_replaced_while_a_transaction_is_open_is_noticed_before_its_commit(store: Store, path: Path) -> None:
    aside = path.with_name("aside.db")
    register(store, grid((1024,)))

    def cells() -> Iterator[PlannedCell]:
        yield from grid((2048,))
        path.rename(aside)

    with pytest.raises(StorageError, match="was deleted or replaced"):
        store.register_sweep(header(fingerprint="2"), cells(), timeout_s=600, repeats_minimum=3)
    assert rows(aside, "SELECT count(*) FROM cells") == [(2,)]


def test_interrupt_in_a_transaction_changes_nothing(store: Store, path: Path) -> None:
    sweep = register(store, grid((1024,)))

    def cells() -> Iterator[PlannedCell]:
        yield from grid((1, 2, 3))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.register_sweep(header(fingerprint="2"), cells(), timeout_s=600, repeats_minimum=3)
    assert store.counts(sweep) == {Status.PENDING: 2}
    assert rows(path, "SELECT count(*) FROM cells") == [(2,)]


def test_crash_while_the_schema_is_made_leaves_nothing_half_done(path: Path) -> None:
    class Dies(sqlite3.Connection):
        def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
            if sql.startswith("PRAGMA user_version ="):
                raise KeyboardInterrupt
            return super().execute(sql, *parameters)  # type: ignore[arg-type]

    with pytest.raises(KeyboardInterrupt):
        Store.open(path, guarding=Guarding(factory=Dies))
    assert rows(path, "SELECT name FROM sqlite_master") == []
    with pytest.raises(ConfigError, match=r"is empty\."):
        Reader.open(path)
    with Store.open(path) as store:
        register(store, grid((1024,)))
    assert rows(path, "PRAGMA application_id") == [(schema.APPLICATION_ID,)]
    assert rows(path, "PRAGMA user_version") == [(schema.USER_VERSION,)]


def test_settings_of_the_connection_are_those_that_keep_data(store: Store) -> None:
    with store.transaction() as connection:
        found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert found == ["wal", 2]


def test_database_without_a_sweep_is_taken_back(path: Path, tmp_path: Path) -> None:
    store = Store.open(path)
    store.discard()
    assert list(tmp_path.iterdir()) == []
    store = Store.open(path)
    register(store, grid((1024,)))
    store.discard()
    with Reader.open(path) as reader:
        assert reader.last_sweep() is not None
        assert reader.writer() is None


def test_file_that_took_the_place_of_a_new_database_is_not_taken_back(path: Path) -> None:
    store = Store.open(path)
    path.unlink()
    path.write_text("mine")
    store.discard()
    assert path.read_text() == "mine"


def test_disk_that_fails_to_be_read_is_said_as_such(path: Path) -> None:
    class Unreadable(sqlite3.Connection):
        broken = False

        def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
            if Unreadable.broken:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
                raise error
            return super().execute(sql, *parameters)  # type: ignore[arg-type]

    with Store.open(path, guarding=Guarding(factory=Unreadable)) as store:
        sweep = register(store, grid((1024,)))
        Unreadable.broken = True
        for asked in (lambda: store.next_pending(sweep), store.leftovers, lambda: store.counts(sweep)):
            assert help_.message(asked).startswith(f"StorageError: The disk reported an error while saving ({path}")
        Unreadable.broken = False
        assert measure(store, sweep)


def test_missing_database_is_not_created_by_a_reader(path: Path) -> None:
    assert help_.message(lambda: Reader.open(path)) == (
        f"ConfigError: no database at {path}. Start with: ollama-sweep run CONFIG"
    )
    assert list(path.parent.iterdir()) == []


def test_empty_file_is_new_for_the_writer_only(path: Path) -> None:
    path.touch()
    with pytest.raises(ConfigError, match=r"sweeps\.db is empty"):
        Reader.open(path)
    with Store.open(path) as store:
        register(store, grid((1024,)))


def test_database_of_another_program_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    connection.close()
    before = path.read_bytes()
    for opening in (Store.open, Reader.open):
        assert help_.message(lambda opening=opening: opening(path)) == (  # type: ignore[misc]
            f"DatabaseInUse: {path} belongs to another program (tables: bookmarks)"
        )
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.write_text("dear diary, " * 100)
    for opening in (Store.open, Reader.open):
        assert help_.message(lambda opening=opening: opening(path)) == (  # type: ignore[misc]
            f"StorageError: {path} is not a SQLite database, or it is damaged"
        )
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_damaged_database_is_said(store: Store, path: Path) -> None:
    register(store, grid(range(1, 1000)))
    store.close()
    with Reader.open(path) as reader:
        assert reader.damage() is None
    half = path.stat().st_size // 2
    with path.open("r+b") as file:
        file.seek(half)
        file.write(b"\xff" * half)
    with Reader.open(path) as reader:
        assert reader.damage()
        with pytest.raises(StorageError, match="is damaged"):
            list(reader.results(1))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * half)
    for opening in (Store.open, Reader.open):
        with pytest.raises(StorageError, match="is damaged"):
            opening(path)


def test_database_of_a_newer_version_is_refused(store: Store, path: Path) -> None:
    store.close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {schema.USER_VERSION + 1}")
    connection.close()
    for opening in (Store.open, Reader.open):
        with pytest.raises(ConfigError, match="made by a newer version"):
            opening(path)


def test_network_drive_needs_a_word(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Store.open(path, fs_type=lambda folder: "nfs4")
    assert str(caught.value) == (f"{path} is on a network drive (nfs4); SQLite can lose data there. --allow-network-db")
    assert list(path.parent.iterdir()) == []
    with Store.open(path, fs_type=lambda folder: "nfs4", allow_network=True) as store:
        register(store, grid((1024,)))


def test_folder_that_is_missing_or_given_as_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the folder .*/none does not exist"):
        Store.open(tmp_path / "none" / "s.db")
    for opening in (Store.open, Reader.open):
        with pytest.raises(ConfigError, match="is a folder"):
            opening(tmp_path)


def test_database_that_cannot_be_written() -> None:
    with help_.public_folder() as folder:
        path = folder / "sweeps.db"
        with Store.open(path) as store:
            register(store, grid((1024,)))
        path.chmod(0o444)
        said = help_.unprivileged(lambda: help_.message(lambda: Store.open(path)))
        assert said == f"StorageError: {path} cannot be written. Nothing was changed"
        folder.chmod(0o555)
        said = help_.unprivileged(lambda: help_.message(lambda: Store.open(folder / "new.db")))
        assert said == (
            f"StorageError: {folder / 'new.db'} cannot be written: its folder is read-only. Nothing was changed"
        )


def test_database_is_private_and_says_when_it_is_not(store: Store, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Reader.open(path) as reader:
        assert reader.warnings() == []
        path.chmod(0o644)
        assert reader.warnings() == [f"{path}: others can read it (mode 644)"]


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC, errno.EIO])
def test_a_used_up_quota_is_a_full_disk(number: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite reports it as an I/O error, while the disk has room for others."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
    monkeypatch.setattr(os, "pwrite", mock.Mock(side_effect=OSError(number, os.strerror(number))))
    found = files.storage_error(error, path)
    assert isinstance(found, StorageError)
    assert found.no_space is (number != errno.EIO)
    assert ("No space" in str(found)) is found.no_space
    assert list(path.parent.iterdir()) == []
