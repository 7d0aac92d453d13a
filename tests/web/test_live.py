"""Open pages hear what is new: progress and cells at once, no more than four of one browser, and nothing is held."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import pytest
import store_helpers
from ollama_fixture import until
from served import Page, Served, never_reads, serving
from sweeping import GRID, Program
from sweeping import program as program  # a fixture

from ollama_sweep.store import file as files
from ollama_sweep.store.writer import Store


@pytest.fixture
def db(program: Program) -> Path:
    """A sweep of eight cells, none of them measured."""
    path = program.folder / "sweeps.db"
    with Store.open(path) as store:
        store_helpers.register(store, store_helpers.grid([64, 128, 256, 512]))
    return path


class Heard:
    """What a page has heard by now."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.events: list[tuple[str, str]] = []
        self.is_over = False
        self._reading = threading.Thread(target=self._read, args=(lines,), daemon=True)
        self._reading.start()

    def _read(self, lines: Iterator[str]) -> None:
        name, data = "", []
        try:
            for line in lines:
                field, _, rest = line.partition(": ")
                if field == "event":
                    name = rest
                elif field == "data":
                    data.append(rest)
                elif not line and name:
                    self.events.append((name, "\n".join(data)))
                    name, data = "", []
        except httpx.HTTPError:
            pass
        self.is_over = True

    def until(self, name: str, words: str = "") -> str:
        """What the first event of this name with these words says."""
        return until(f"{name} {words}", lambda: next((t for n, t in self.events if n == name and words in t), None))


@contextmanager
def listening(found: Served, query: str = "") -> Iterator[Heard]:
    """A page that is seen."""
    with httpx.stream("GET", f"{found.url}events{query}", timeout=None) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        heard = Heard(answer.iter_lines())
        heard.until("hello") if answer.is_success else None
        yield heard


def test_a_commit_reaches_an_open_page_with_the_cell_it_was_about(program: Program, db: Path) -> None:
    with serving(program, "--port", "0") as found, Store.open(db) as store:
        found.get()
        with listening(found) as heard:
            store_helpers.measure(store, 1)
            assert "1 of 8 cells done" in Page(heard.until("progress", "1 of 8")).said
            (first, *_) = json.loads(heard.until("cells", "100"))
            assert first[:2] == ["s1-map0", "0,0"]
            assert "100 tokens/s" in Page(first[2]).said
            store_helpers.measure(store, 1, store_helpers.failed())
            heard.until("cells", "CUDA")


def test_a_page_hears_of_what_was_committed_before_it_began_to_listen(program: Program, db: Path) -> None:
    with serving(program, "--port", "0") as found, Store.open(db) as store:
        found.get()
        store_helpers.measure(store, 1)
        with listening(found) as heard:
            heard.until("progress", "1 of 8")
            heard.until("cells", "100")


def test_a_cell_is_told_once_and_again_only_where_it_has_changed(program: Program, db: Path) -> None:
    with serving(program, "--port", "0") as found, Store.open(db) as store:
        found.get()
        with listening(found) as heard:
            for number in range(1, 5):
                store_helpers.measure(store, 1)
                heard.until("progress", f"{number} of 8")
            told = [cell[1:] for name, text in heard.events if name == "cells" for cell in json.loads(text)]
    done = [cell for cell in told if "100 tokens/s" in cell[1]]
    assert len(done) == len({json.dumps(cell) for cell in done}) == 4


def test_a_page_that_shows_a_part_hears_of_its_cells_only(program: Program, db: Path) -> None:
    with serving(program, "--port", "0") as found, Store.open(db) as store:
        found.get("?only.num_ctx=128")
        with listening(found, "?only.num_ctx=128") as heard:
            for _ in range(3):
                store_helpers.measure(store, 1)
            (first, *_) = json.loads(heard.until("cells"))
            assert "num_ctx 128" in Page(first[2]).said
            assert "num_ctx 64" not in "".join(text for name, text in heard.events if name == "cells")


def test_a_page_of_a_sweep_that_there_is_not_costs_the_others_nothing(program: Program, db: Path) -> None:
    with serving(program, "--port", "0") as found, Store.open(db) as store:
        found.get()
        with listening(found, "?sweep=gone") as gone, listening(found) as heard:
            for number in (1, 2):
                store_helpers.measure(store, 1)
                heard.until("progress", f"{number} of 8")
                heard.until("cells", f"at={number - 1}")
            gone.until("stale")
            assert not [name for name, _ in gone.events if name in ("progress", "cells")]


def test_the_fifth_stream_ends_the_oldest(program: Program, db: Path) -> None:
    with serving(program, "--port", "0") as found, ExitStack() as stack:
        pages = [stack.enter_context(listening(found)) for _ in range(4)]
        assert not any(page.is_over for page in pages)
        fifth = stack.enter_context(listening(found))
        pages[0].until("ended")
        until("it is over", lambda: pages[0].is_over)
        assert not any(page.is_over for page in (*pages[1:], fifth))


def test_no_page_keeps_the_log_from_being_emptied(program: Program, db: Path) -> None:
    """Ten pages that listen and one that never reads its answer: a checkpoint takes everything, as without them."""
    with serving(program, "--port", "0") as found, ExitStack() as stack:
        for number in range(10):
            heard = stack.enter_context(listening(found, f"?page=1&metric={number}" if number > 8 else ""))
        unread = stack.enter_context(httpx.stream("GET", found.url, timeout=60))
        assert unread.status_code == 200
        with Store.open(db) as store:
            for _ in range(8):
                store_helpers.measure(store, 1)
            heard.until("progress", "8 of 8") if not heard.is_over else None
            with closing(sqlite3.connect(db)) as other:
                assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall() == [(0, 0, 0)]
        assert found.get().status_code == 200


def test_ten_tabs_that_never_read_neither_refuse_a_commit_nor_let_the_log_grow(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log may keep 200 kB here, in place of 64 MB. Three sweeps: beside pages that read, beside ten that never do,
    and, to see that this says something, beside a program that stands in the middle of a read.
    """
    monkeypatch.setattr(files, "JOURNAL_LIMIT_BYTES", 200_000)
    keys = {**GRID, "num_ctx": [*range(512, 512 * 17, 512)], "control": "off"}
    db, wal = program.folder / "sweeps.db", program.folder / "sweeps.db-wal"
    program("run", program.config("first", **keys)).must()
    with ExitStack() as stack, serving(program, "--port", "0") as found:
        for path in ("", "events", "events?page=1", "cell?at=0", "sweeps", "api/cells", "metrics", "log", "", "events"):
            stack.enter_context(never_reads(found, path))
        until("three of them listen", lambda: "ollama_sweep_pages 3" in found.get("metrics").text)
        program("run", program.config("second", **{**keys, "num_predict": 3})).must()
        assert wal.stat().st_size <= 200_000
        assert program("status").must().stderr == ""
        assert found.get("?sweep=second").status_code == 200
        with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM cells").fetchall()
            program("run", program.config("third", **{**keys, "num_predict": 4})).must()
            assert wal.stat().st_size > 400_000
    assert [row["n"] for row in program.rows(sql="select count(*) as n from results where status = 'ok'")] == [96]


def test_a_server_that_ends_ends_its_streams(program: Program, db: Path) -> None:
    with serving(program, "--port", "0") as found, listening(found) as heard:
        found.process.kill(15)
        found.process.wait(60).must(0)
        until("it is over", lambda: heard.is_over)
    assert not [path.name for path in db.parent.iterdir() if path.name.endswith(("-wal", "-shm", ".serve"))]
