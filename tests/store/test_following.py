"""A database is followed: each commit, each file that takes its place, and nothing else makes another version."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import store_helpers
from older_database import SCHEMA_11, lay_out

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.outcome import Status
from ollama_sweep.run import control
from ollama_sweep.store.log import Following
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.writer import Store


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A sweep of four cells."""
    path = tmp_path / "sweeps.db"
    with Store.open(path) as store:
        store_helpers.register(store, store_helpers.grid([64, 128]))
    return path


@pytest.fixture
def followed(db: Path) -> Iterator[Following]:
    """It, followed."""
    with closing(Following(db)) as found:
        yield found


def test_each_commit_is_noticed_and_nothing_else(db: Path, followed: Following) -> None:
    with Store.open(db) as store:
        seen = [followed.version()]
        for _ in range(3):
            assert followed.version() == seen[-1]
            store_helpers.measure(store, 1)
            seen.append(followed.version())
        assert followed.version() == seen[-1]
    assert len(set(seen)) == 4


def test_a_pause_and_another_file_in_its_place_are_noticed(db: Path, followed: Following, tmp_path: Path) -> None:
    seen = [followed.version()]
    control.ask_to_pause(db)
    seen.append(followed.version())
    shutil.copy(db, tmp_path / "copy.db")
    os.replace(tmp_path / "copy.db", db)
    seen.append(followed.version())
    db.unlink()
    seen.append(followed.version())
    assert len(set(seen)) == 4
    assert followed.version() == seen[-1]


def test_a_reader_on_it_sees_each_commit_and_holds_nothing_between(db: Path, followed: Following) -> None:
    with Store.open(db) as store:
        for number in range(3):
            store_helpers.measure(store, 1)
            with Reader.following(followed).snapshot():
                assert Reader.following(followed).counts(1)[Status.OK] == number + 1
        assert store_helpers.rows(db, "PRAGMA wal_checkpoint(TRUNCATE)") == [(0, 0, 0)]


def test_a_reader_on_it_reads_the_file_that_is_there_now(db: Path, followed: Following, tmp_path: Path) -> None:
    assert [row.name for row in Reader.following(followed).sweeps()] == ["s"]
    with Store.open(tmp_path / "other.db") as store:
        store_helpers.register(store, store_helpers.grid([64]), "other")
    os.replace(tmp_path / "other.db", db)
    assert [row.name for row in Reader.following(followed).sweeps()] == ["other"]
    db.unlink()
    with pytest.raises(ConfigError, match="no database at"):
        Reader.following(followed)


def test_a_database_of_an_earlier_version_is_read_as_it_is_until_a_writer_has_brought_it_up_to_date(
    tmp_path: Path,
) -> None:
    lay_out(tmp_path, SCHEMA_11)
    db = tmp_path / "sweeps.db"
    with closing(Following(db)) as followed:
        assert Reader.following(followed).is_older
        seen = followed.version()
        with Store.open(db):
            pass
        assert followed.version() != seen
        reader = Reader.following(followed)
        assert not reader.is_older
        assert reader.sweeps()


def test_it_keeps_no_log_and_leaves_nothing(db: Path) -> None:
    with closing(Following(db)) as followed, Store.open(db) as store:
        followed.version()
        for _ in range(4):
            store_helpers.measure(store, 1)
        assert store_helpers.rows(db, "PRAGMA wal_checkpoint(TRUNCATE)") == [(0, 0, 0)]
    assert not [name for name in os.listdir(db.parent) if name.endswith(("-wal", "-shm"))]
