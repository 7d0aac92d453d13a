"""Days in minutes: tens of thousands of cells with kills at random, and nothing grows."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import psutil
import pytest
import sweeping
from ollama_fixture import ROOT, clean_environment
from sweep_runner import Started
from sweeping import Program, program

from ollama_sweep import cli
from ollama_sweep.results.plots import heatmap
from ollama_sweep.store.file import JOURNAL_LIMIT_BYTES
from ollama_sweep.store.writer import Store

BATCHES = 100
MIB = 1024 * 1024
GROWTH_BYTES = 8 * MIB
"""How much a run may grow after its warm-up, however many cells it measures: allocators, caches of SQLite."""
WARM_CELLS = 300
FILES = 3
"""How many more files may be open for a moment: the journal, a reader of what waits."""
LEFT = "select count(*) as n from attempts where finished_at is null"


@dataclass
class Seen:
    """What a run looked like from outside, after its warm-up."""

    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    log: list[int] = field(default_factory=list)


class Soak:
    """A sweep that is killed and gone on with, and looked at all the time."""

    def __init__(self, program: Program, cells: int) -> None:
        self.program = program
        self.cells = cells
        contexts = list(range(512, 512 + cells // BATCHES))
        self._config = program.grid(
            num_ctx=contexts, num_batch=list(range(1, BATCHES + 1)), warmup=0, repeats=1, control="off", interim="off"
        )
        program.script(noise=0.01)

    def done(self) -> int:
        rows = self.program.rows_now("select cells from status_counts where status = 'ok'")
        return rows[0]["cells"] if rows else 0

    def run(self, kill_after: int | None) -> Seen:
        """A run to its end, or until it has done so many more cells; then it is killed."""
        argv = [sys.executable, __file__, "run", str(self._config)]
        env = {**clean_environment(), **self.program.environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        begun, seen = self.done(), Seen()
        child = Started(argv, self.program.folder, env)
        try:
            looked_at = psutil.Process(child.pid)
            while child.is_running():
                new = self.done() - begun
                if kill_after is not None and new >= kill_after:
                    child.kill()
                    break
                if new >= min(WARM_CELLS, self.cells // 10) and begun + new < self.cells:
                    self._look(looked_at, seen)
                time.sleep(0.05)
            ended = child.wait()
            assert ended.returncode == (-9 if kill_after is not None else 0), ended.stderr
        finally:
            if child.is_running():
                child.kill()
                child.wait()
        return seen

    def _look(self, process: psutil.Process, seen: Seen) -> None:
        log = self.program.folder / "sweeps.db-wal"
        with contextlib.suppress(psutil.Error, FileNotFoundError):
            memory, files, size = process.memory_info().rss, process.num_fds(), log.stat().st_size
            if memory:
                seen.memory.append(memory)
                seen.files.append(files)
                seen.log.append(size)

    def check(self) -> None:
        """Sound, and what was finished is still there."""
        with contextlib.closing(sqlite3.connect(self.program.folder / "sweeps.db")) as connection:
            assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("cells", "kills", "most"), [(2_000, 4, 200), pytest.param(50_000, 25, 1_500, marks=pytest.mark.slow)]
)
def test_nothing_grows_and_nothing_is_lost(cells: int, kills: int, most: int, program: Program) -> None:
    Store.open(program.folder / "sweeps.db").close()  # what makes a database is loaded by no later run
    chance, soak = random.Random(cells), Soak(program, cells)
    seen: list[Seen] = []
    for _ in range(kills):
        before = soak.done()
        seen.append(soak.run(chance.randint(1, most)))
        soak.check()
        assert soak.done() > before
    left = cells - soak.done()
    assert left > cells / 3
    seen.append(soak.run(None))
    soak.check()

    assert soak.done() == cells
    rows = program.rows(sql="select status, reason, count(*) as n from attempts group by status, reason")
    assert {(row["status"], row["reason"]) for row in rows} <= {("ok", ""), ("interrupted", "died")}
    assert sum(row["n"] for row in rows if row["status"] == "ok") == cells
    interrupted = sum(row["n"] for row in rows if row["status"] == "interrupted")
    assert interrupted <= kills
    generations = Counter(program.measured())
    assert len(generations) == cells
    assert sum(count - 1 for count in generations.values()) <= interrupted
    assert program.rows(sql=LEFT) == [{"n": 0}]

    last = seen[-1]
    assert len(last.memory) > 10
    quarter = len(last.memory) // 4
    growth = max(last.memory[-quarter:]) - max(last.memory[:quarter])
    assert growth <= GROWTH_BYTES, f"{growth / MIB:.1f} MiB more after {left} cells"
    for one in seen:
        assert not one.files or max(one.files) - min(one.files) <= FILES
        assert max(one.log, default=0) <= JOURNAL_LIMIT_BYTES
    firsts = [one.memory[0] for one in seen if one.memory]
    assert max(firsts) - min(firsts) <= 4 * GROWTH_BYTES
    log = max(max(one.log, default=0) for one in seen)
    text = f"{left} cells in the last run, memory {max(last.memory) / MIB:.0f} MiB ({growth / MIB:+.1f}), "
    sys.stderr.write(f"{text}{min(last.files)} to {max(last.files)} open files, log up to {log / MIB:.1f} MiB\n")


def main() -> None:
    """The program without the drawing of pictures, which has nothing to do with the length of a sweep."""
    with mock.patch.object(heatmap, "render", sweeping._pretend_to_draw):
        cli.main()


if __name__ == "__main__":
    main()
