"""The page of a long sweep is made before it is asked for, not beside a sweep that runs, and is given up at the end."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import many_cells
import pytest
from served import Page, serving
from sweeping import Program
from sweeping import program as program  # a fixture

from ollama_sweep.cli.commands.serve import library_of
from ollama_sweep.core.errors import StorageError
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.writer import Store
from ollama_sweep.web import ahead, app
from ollama_sweep.web.guard import Access
from ollama_sweep.web.library import Library

SIDE = 60


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep that is long."""
    monkeypatch.setattr(ahead, "FROM_CELLS", SIDE * SIDE)
    return many_cells.fill(tmp_path, SIDE)


def has_kept(library: Library) -> bool:
    """The sweep was read: its sheet needs no cell any more."""
    library.sheets.end()
    with contextlib.ExitStack() as stack, contextlib.suppress(StorageError):
        reader = stack.enter_context(Reader.open(library.db))
        stack.enter_context(library.sheets.of(reader, reader.sweep("grid")))
        return True
    return False


def test_a_long_sweep_is_read_before_it_is_asked_for(db: Path) -> None:
    library = library_of(db)
    made = app.make(library, Access("", False, 0, False))
    made.begin_ahead()
    made.wait()
    assert has_kept(library)


def test_nothing_is_read_beside_a_sweep_that_runs_and_of_a_short_one(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = library_of(db)
    with Store.open(db):
        made = app.make(library, Access("", False, 0, False))
        made.begin_ahead()
        made.wait()
    assert not has_kept(library)
    monkeypatch.setattr(ahead, "FROM_CELLS", SIDE * SIDE + 1)
    library = library_of(db)
    made = app.make(library, Access("", False, 0, False))
    made.begin_ahead()
    made.wait()
    assert not has_kept(library)


def test_who_asks_meanwhile_is_given_the_same_page(program: Program) -> None:
    many_cells.fill(program.folder, 320)
    with serving(program, "--port", "0") as found:
        first, second = Page(found.get().text).said, Page(found.get().text).said
    assert "102,400 cells" in first
    assert first == second


def test_a_server_that_is_asked_to_end_while_it_reads_ends_and_leaves_nothing(program: Program) -> None:
    path = many_cells.fill(program.folder, 320)
    before = sorted(file.name for file in path.parent.glob("sweeps.db*"))
    with serving(program, "--port", "0") as found:
        found.process.kill(signal.SIGTERM)
        ended = found.process.wait(60).must(0)
    assert ended.stderr == ""
    assert sorted(file.name for file in path.parent.glob("sweeps.db*")) == before
