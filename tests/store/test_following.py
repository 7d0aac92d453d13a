"""A database is followed: each commit, each file that takes its place, and nothing else makes another version."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import store_helpers

from ollama_sweep.run import control
from ollama_sweep.store.log import Following
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


def test_it_keeps_no_log_and_leaves_nothing(db: Path) -> None:
    with closing(Following(db)) as followed, Store.open(db) as store:
        followed.version()
        for _ in range(4):
            store_helpers.measure(store, 1)
        assert store_helpers.rows(db, "PRAGMA wal_checkpoint(TRUNCATE)") == [(0, 0, 0)]
    assert not [name for name in os.listdir(db.parent) if name.endswith(("-wal", "-shm"))]
