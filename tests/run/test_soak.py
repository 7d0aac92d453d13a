"""Days in minutes: tens of thousands of cells with kills at random, and nothing grows."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import psutil
import pytest
import undrawn
from ollama_fixture import ROOT, clean_environment, until
from sweep_runner import Started
from sweeping import Program, program

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.outcome import Effective
from ollama_sweep.engines import fake
from ollama_sweep.store.file import JOURNAL_LIMIT_BYTES
from ollama_sweep.store.writer import Store

BATCHES = 100
MIB = 1024 * 1024
JITTER_BYTES = 32 * MIB
"""How far runs may lie apart in their memory."""
WARM_CELLS = 300
FILES = 3
"""How many more files may be open for a moment: the journal, a reader of what waits."""
MOST_TOO_MANY = 50
"""How many cells a run may do after the kill was due, however late that comes."""
PATIENCE_S = 3000.0
LOOKS = "TEST_SOAK_LOOKS"
LEFT = "select count(*) as n from attempts where finished_at is null"


@dataclass
class Seen:
    """What a run looked like after its warm-up, every so many cells."""

    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    log: list[int] = field(default_factory=list)


class Soak:
    """A sweep that is killed and gone on with, and looks at itself all the time."""

    def __init__(self, program: Program, cells: int) -> None:
        self.program = program
        self.cells = cells
        self._looks = program.folder / "looks.txt"
        contexts = list(range(512, 512 + cells // BATCHES))
        self._config = program.grid(
            num_ctx=contexts, num_batch=list(range(1, BATCHES + 1)), warmup=0, repeats=1, control="off", interim="off"
        )
        program.script(noise=0.01)

    def done(self) -> int:
        rows = self.program.rows_now("select cells from status_counts where status = 'ok'")
        return rows[0]["cells"] if rows else 0

    def run(self, kill_after: int | None) -> Seen:
        """A run to its end, or until it has done so many more cells; then it is killed, and soon dies by itself."""
        argv = [sys.executable, __file__, "run", str(self._config)]
        own = {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/support'}",
            LOOKS: f"{self._looks} {min(WARM_CELLS, self.cells // 10)}",
        }
        if kill_after is not None:
            own["SWEEP_CRASH_AT"] = f"after_finish:{kill_after + MOST_TOO_MANY}"
        begun = self.done()
        self._looks.unlink(missing_ok=True)
        child = Started(argv, self.program.folder, {**clean_environment(), **self.program.environment(), **own})
        try:
            if kill_after is not None:
                until("it has done so many", lambda: self._has_done(child, begun + kill_after), PATIENCE_S)
                child.kill()
            ended = child.wait(PATIENCE_S)
            assert ended.returncode == (-9 if kill_after is not None else 0), ended.stderr
        finally:
            if child.is_running():
                child.kill()
                child.wait()
        return self._seen()

    def _has_done(self, child: Started, cells: int) -> bool:
        return self.done() >= cells or not child.is_running()

    def _seen(self) -> Seen:
        """A look that the kill cut off is left out."""
        lines = self._looks.read_text("ascii").splitlines() if self._looks.exists() else []
        looks = [[int(word) for word in line.split()[:3]] for line in lines if line.endswith(" .")]
        return Seen(*map(list, zip(*looks, strict=True))) if looks else Seen()

    def check(self) -> None:
        """Sound, and what was finished is still there."""
        with contextlib.closing(sqlite3.connect(self.program.folder / "sweeps.db")) as connection:
            assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("cells", "kills", "most", "growth_bytes"),
    [(1_000, 4, 100, 4 * MIB), pytest.param(50_000, 25, 1_500, 8 * MIB, marks=pytest.mark.slow)],
)
def test_nothing_grows_and_nothing_is_lost(
    cells: int, kills: int, most: int, growth_bytes: int, program: Program
) -> None:
    """A run may grow by so much after its warm-up: allocators, caches of SQLite."""
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
    assert growth <= growth_bytes, f"{growth / MIB:.1f} MiB more after {left} cells"
    for one in seen:
        assert not one.files or max(one.files) - min(one.files) <= FILES
        assert max(one.log, default=0) <= JOURNAL_LIMIT_BYTES
    firsts = [one.memory[0] for one in seen if one.memory]
    assert max(firsts) - min(firsts) <= JITTER_BYTES
    log = max(max(one.log, default=0) for one in seen)
    text = f"{left} cells in the last run, memory {max(last.memory) / MIB:.0f} MiB ({growth / MIB:+.1f}), "
    sys.stderr.write(f"{text}{min(last.files)} to {max(last.files)} open files, log up to {log / MIB:.1f} MiB\n")


class Looking:
    """Writes down the memory, the open files and the size of the log of this process before every tenth cell."""

    def __init__(self, file: str, warm: str) -> None:
        self._file = Path(file)
        self._log = self._file.with_name("sweeps.db-wal")
        self._warm = int(warm)
        self._cells = 0
        self._process = psutil.Process()

    def __call__(self) -> None:
        self._cells += 1
        if self._cells > self._warm and self._cells % 10 == 0:
            memory, files, log = self._process.memory_info().rss, self._process.num_fds(), self._log.stat().st_size
            with self._file.open("a", encoding="ascii") as looks:
                looks.write(f"{memory} {files} {log} .\n")


def main() -> None:
    """The program, looking at itself."""
    look, prepare = Looking(*os.environ[LOOKS].split()), fake.Engine.prepare

    def prepare_and_look(engine: fake.Engine, cell: Cell) -> Effective:
        look()
        return prepare(engine, cell)

    with mock.patch.object(fake.Engine, "prepare", prepare_and_look):
        undrawn.main()


if __name__ == "__main__":
    main()
