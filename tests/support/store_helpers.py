"""What the tests of the store share: grids, outcomes, a disk that breaks, and a child that is killed."""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ollama_sweep.core.cell import Cell, cell_key, content_hash
from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import Effective, Flag, Outcome, Run, Status, Summary
from ollama_sweep.store.rows import PlannedCell, SweepHeader
from ollama_sweep.store.writer import Store

DIGEST = "sha256:model"
PROMPT = content_hash("a prompt")


def planned(coordinates: Options, status: Status = Status.PENDING, reason: str = "", model: str = "m") -> PlannedCell:
    """A cell whose options are its coordinates and num_predict 2."""
    cell = Cell(coordinates, model, tuple(sorted((*coordinates, ("num_predict", 2)))))
    key = cell_key(cell, engine="fake", model_digest=DIGEST, modelfile="", prompt_hash=PROMPT, task_version=1)
    return PlannedCell(key, cell, DIGEST, PROMPT, "Q8_0", "135M", status, reason)


def grid(contexts: Sequence[Scalar], batches: Sequence[Scalar] = (64, 128)) -> list[PlannedCell]:
    """Column-first: num_ctx outside."""
    return [planned((("num_ctx", context), ("num_batch", batch))) for context in contexts for batch in batches]


def header(name: str = "s", fingerprint: str = "1", dimensions: tuple[str, ...] = ("num_ctx", "num_batch"),
           engine: str = "fake") -> SweepHeader:  # fmt: skip
    return SweepHeader(name, engine, f"configs/{name}.yaml", {"model": "m"}, fingerprint, "a machine", dimensions)


def register(store: Store, cells: Sequence[PlannedCell], name: str = "s", *, timeout_s: float = 600.0,
             repeats: int = 3, retry: frozenset[Status] = frozenset()) -> int:  # fmt: skip
    found = header(name, dimensions=tuple(dict(cells[0].cell.coordinates)))
    return store.register_sweep(found, cells, timeout_s=timeout_s, repeats_minimum=repeats, retry=retry)


def run(number: int, *, believed: bool = True, warmup: bool = False, rate: float = 100.0) -> Run:
    return Run(number, warmup, f"nonce {number}", 500, 0, 500 / rate, rate, 2, 0.1, 20.0, 6.0, 1.5, rate, 6.1,
               believed, "" if believed else "cached", f"raw {number}", {})  # fmt: skip


def ok(rate: float = 100.0, runs: int = 3, flags: Collection[Flag] = (Flag.SPILLED, Flag.CLAMPED)) -> Outcome:
    summary = Summary(runs, 500, rate, rate - 1, rate + 1, 500 / rate, 2, 20.0, 6.0)
    effective = Effective(4096, 64, 1000, 900, 1.5, ("other",))
    believed = tuple(run(number + 1, rate=rate) for number in range(runs))
    return Outcome(Status.OK, flags=frozenset(flags), runs=(run(1, warmup=True), *believed), summary=summary,
                   effective=effective, raw="loading\n")  # fmt: skip


def failed(status: Status = Status.OOM, reason: str = "cuda_oom", error: str = "CUDA error: out of memory") -> Outcome:
    return Outcome(status, reason, error, raw=error)


def measure(store: Store, sweep_id: int, outcome: Outcome | None = None, *, timeout_s: float = 600.0) -> str:
    """Measure the next pending cell; its key."""
    cell = store.next_pending(sweep_id)
    assert cell is not None, "nothing is pending"
    outcome = outcome or ok()
    attempt = store.begin_attempt(sweep_id, cell.cell_id, timeout_s=timeout_s)
    store.finish_attempt(attempt, outcome, cell_status=outcome.status)
    return cell.key


@contextmanager
def stranger(path: Path) -> Iterator[sqlite3.Connection]:
    """A database in the hands of somebody who asks nobody; each statement is its own transaction."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def rows(path: Path, sql: str, *values: Scalar) -> list[tuple[Scalar, ...]]:
    """What anybody's `sqlite3` shows."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


class BreakingDisk(sqlite3.Connection):
    """A connection whose next COMMIT reports an I/O error, after storing or instead of it; broken from then on."""

    failures = 0
    stores_first = False
    is_broken = False

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if not self.is_broken and (sql != "COMMIT" or BreakingDisk.failures == 0):
            return super().execute(sql, parameters)
        BreakingDisk.failures -= not self.is_broken
        self.is_broken = True
        if sql == "COMMIT" and BreakingDisk.stores_first:
            super().execute(sql)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that an unprivileged user can enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def unprivileged(action: Callable[[], str]) -> str:
    """What an action says when it is not root who does it (root may write everywhere)."""
    if os.geteuid() != 0:
        return action()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer = "died"
        try:
            os.setgid(65534)
            os.setuid(65534)
            answer = action()
        finally:
            os.write(writing, answer.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def message(action: Callable[[], object]) -> str:
    """The class and text of what an action raises."""
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sweeps.db"


@pytest.fixture
def said() -> list[str]:
    """What the store tells the person."""
    return []


@pytest.fixture
def store(path: Path, said: list[str]) -> Iterator[Store]:
    with Store.open(path, say=said.append) as opened:
        yield opened


def main() -> None:
    """A sweep that is killed in mid cell: `store_helpers.py DATABASE CELLS_TO_FINISH`."""
    store = Store.open(Path(sys.argv[1]), fs_type=lambda folder: "ext4")
    sweep_id = register(store, grid((1024, 2048)))
    for _ in range(int(sys.argv[2])):
        measure(store, sweep_id)
    cell = store.next_pending(sweep_id)
    assert cell is not None
    store.begin_attempt(sweep_id, cell.cell_id, timeout_s=600)
    os.kill(os.getpid(), 9)


if __name__ == "__main__":
    main()
