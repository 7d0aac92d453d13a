"""Several readers of one moment: each sees what the first one sees, or there are none of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import store_helpers

from ollama_sweep.core.errors import UnreadableValue
from ollama_sweep.core.outcome import Status
from ollama_sweep.store.many import abreast
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.writer import Store


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A sweep of four cells, two of them measured."""
    path = tmp_path / "sweeps.db"
    with Store.open(path) as store:
        store_helpers.register(store, store_helpers.grid([64, 128]))
        for _ in range(2):
            store_helpers.measure(store, 1)
    return path


def test_all_see_what_the_first_one_sees_whatever_is_committed_meanwhile(db: Path) -> None:
    with Store.open(db) as store, Reader.open(db) as reader, reader.snapshot():
        assert reader.counts(1)[Status.OK] == 2
        with reader.abreast(3) as readers, ThreadPoolExecutor(3) as threads:
            store_helpers.measure(store, 1)
            counts = list(threads.map(lambda one: one.counts(1), readers))
        assert counts == [reader.counts(1)] * 3
        assert counts[0][Status.OK] == 2


def test_after_a_commit_it_reads_alone_what_it_saw_before(db: Path) -> None:
    with Store.open(db) as store, Reader.open(db) as reader, reader.snapshot():
        before = reader.counts(1)
        store_helpers.measure(store, 1)
        with reader.abreast(2) as readers:
            assert [one.counts(1) for one in readers] == [before]


def test_commits_that_come_too_quickly_leave_it_alone(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = abreast._version
    with Store.open(db) as store, Reader.open(db) as reader:

        def busy(connection: object) -> object:
            store_helpers.measure(store, 1)
            return look(connection)  # type: ignore[arg-type]

        monkeypatch.setattr(abreast, "_version", busy)
        with reader.snapshot(), reader.abreast(2) as readers:
            assert list(readers) == [reader]


def test_without_further_connections_it_reads_alone(db: Path) -> None:
    with Reader.open(db) as reader, reader.snapshot():
        db_there = db.rename(db.with_name("elsewhere.db"))
        with reader.abreast(2) as readers:
            assert list(readers) == [reader]
        db_there.rename(db)


def counted_abreast(db: Path) -> list[int]:
    """How many cells each of two readers can read."""
    with Reader.open(db) as reader, reader.snapshot(), reader.abreast(2) as readers, ThreadPoolExecutor(2) as threads:
        return list(threads.map(lambda one: len(list(one.results(1))), readers))


def test_what_one_of_them_cannot_read_is_told_once_by_the_first(db: Path) -> None:
    with store_helpers.stranger(db) as connection:
        connection.execute("UPDATE plan SET coordinates = 'nonsense' WHERE position = 1")
    with pytest.warns(UnreadableValue) as told:
        assert counted_abreast(db) == [3, 3]
    assert len(told) == 1


def test_they_leave_nothing_beside_the_database(db: Path) -> None:
    before = sorted(file.name for file in db.parent.iterdir())
    with Reader.open(db) as reader, reader.snapshot(), reader.abreast(2) as readers:
        assert len(readers) == 2
    assert sorted(file.name for file in db.parent.iterdir()) == before
