"""What the number of cells costs: starting a sweep, going on with it, `status`, and saving one cell.

For every size a grid of the fake engine is planned by `run` itself, all cells but the last 400 are finished through
the store (one run each with its raw output, many in a transaction), and then measured:

- `run` until its first cell has begun (it is ended there by SIGKILL at a named point of a cell's life), and its memory
- `status`, wall time of the process and its memory
- saving: begin and finish of single cells, each a durable transaction of its own as in a real run

The last columns divide by the number of cells, so that a cost that grows faster than the grid shows at once. A grid of
a million cells takes some minutes and half a gigabyte of disk.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import _common

if TYPE_CHECKING:
    from ollama_sweep.core.outcome import Outcome
    from ollama_sweep.store.writer import Store

SWEEP_ID = 1
PENDING = 400
SAVED = 300
RUNS = 5
IN_A_TRANSACTION = 5000
FIRST_CTX, FIRST_BATCH = 100_000, 16
RATE = 300.0
RAW = """total duration:       4.9s
load duration:        45.1ms
prompt eval count:    1273 token(s)
prompt eval duration: 4.24s
prompt eval rate:     300.00 tokens/s
eval count:           2 token(s)
eval duration:        31.7ms
eval rate:            31.55 tokens/s
"""


@dataclass(frozen=True)
class Grid:
    """A planned grid: its first `run` as it was timed, and how long it took to finish its cells."""

    folder: Path
    cells: int
    new: _common.Ended
    generate_s: float


@dataclass(frozen=True)
class Figures:
    """What was measured of a grid: seconds and bytes."""

    grid: Grid
    again_s: float
    again_bytes: int
    status_s: float
    status_bytes: int
    saves_s: Sequence[float]
    file_bytes: int


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description="Store: what the number of cells costs.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 30_000, 1_000_000], help="cells of the grids")
    return parser, parser.parse_args()


def write_config(folder: Path, cells: int) -> int:
    """A grid of about so many cells, as square as it gets; how many it has."""
    columns = math.isqrt(cells)
    rows = cells // columns
    (folder / "grid.yaml").write_text(
        "model: none\nengine: fake\nprompt: {text: one two three four five six seven eight}\nwarmup: 0\nrepeats: 1\n"
        f"num_ctx: {{start: {FIRST_CTX}, end: {FIRST_CTX + columns - 1}, step: 1}}\n"
        f"num_batch: {{start: {FIRST_BATCH}, end: {FIRST_BATCH + rows - 1}, step: 1}}\n",
        "utf-8",
    )
    return columns * rows


def until(folder: Path, point: str) -> _common.Ended:
    """`run` until a named point of a cell's life, where it is killed."""
    environment = _common.clean_environment(SWEEP_CRASH_AT=point)
    return _common.must(_common.timed([*_common.SWEEP, "run", "grid.yaml"], folder=folder, env=environment), -9)


def outcome(number: int) -> Outcome:
    """What a cell with one run leaves, raw output included."""
    from ollama_sweep.core.outcome import Effective, Outcome, Run, Status
    from ollama_sweep.core.summary import summarize

    rate = RATE + number % 97 / 10
    run = Run(
        number=1,
        warmup=False,
        nonce=f"{10_000_000 + number}",
        prompt_eval_count=1273,
        cached_count=0,
        prompt_eval_duration_s=1273 / rate,
        prompt_eval_rate=rate,
        eval_count=2,
        eval_duration_s=0.0317,
        eval_rate=31.55,
        total_duration_s=4.9,
        load_duration_s=0.0451,
        printed_rate=round(rate, 2),
        client_duration_s=5.0,
        believed=True,
        raw=f"{number}\n{RAW}",
    )
    effective = Effective(FIRST_CTX, FIRST_BATCH, 2_400_000_000, 2_400_000_000, 0.5)
    return Outcome(Status.OK, runs=(run,), summary=summarize([run]), effective=effective)


def generate(store: Store, count: int) -> None:
    """Finish so many cells as `run` would, many in one transaction."""
    from ollama_sweep.core.outcome import Status
    from ollama_sweep.store import attempts

    now = "2026-01-01T00:00:00.000+00:00"
    for start in range(0, count, IN_A_TRANSACTION):
        with store.transaction() as connection:
            for _ in range(min(IN_A_TRANSACTION, count - start)):
                pending = store.next_pending(SWEEP_ID)
                if pending is None:
                    raise SystemExit("the grid has fewer cells than it should have")
                attempt = attempts.begin(connection, SWEEP_ID, pending.cell_id, 600.0, now, None)
                attempts.finish(connection, attempt, outcome(pending.position), Status.OK, now)


def save(store: Store) -> float:
    """Seconds of begin and finish together, of one cell, each a transaction of its own."""
    from ollama_sweep.core.outcome import Status

    pending = store.next_pending(SWEEP_ID)
    if pending is None:
        raise SystemExit("no cell is pending any more")
    made = outcome(pending.position)
    started = time.perf_counter()
    attempt = store.begin_attempt(SWEEP_ID, pending.cell_id, timeout_s=600.0)
    store.finish_attempt(attempt, made, cell_status=Status.OK)
    return time.perf_counter() - started


def prepare(folder: Path, size: int) -> Grid:
    """Plan a grid by `run`, and finish all its cells but the last ones."""
    from ollama_sweep.store.writer import Store

    folder.mkdir()
    cells = write_config(folder, size)
    new = until(folder, "after_begin")
    with Store.open(folder / "sweeps.db") as store:
        started = time.perf_counter()
        generate(store, cells - PENDING)
        return Grid(folder, cells, new, time.perf_counter() - started)


def save_in_turn(grids: Sequence[Grid]) -> list[list[float]]:
    """Seconds of single saves for each grid, the grids in turn, so that what the disk does meets all of them."""
    from ollama_sweep.store.writer import Store

    with contextlib.ExitStack() as opened:
        stores = [opened.enter_context(Store.open(grid.folder / "sweeps.db")) for grid in grids]
        rounds = [[save(store) for store in stores] for _ in range(SAVED)]
    return [[seconds[i] for seconds in rounds] for i in range(len(grids))]


def measure(grid: Grid, saves_s: Sequence[float]) -> Figures:
    """Going on, and `status`."""
    again = [until(grid.folder, "after_begin") for _ in range(RUNS)]
    argv, environment = [*_common.SWEEP, "status"], _common.clean_environment()
    shown = [_common.must(_common.timed(argv, folder=grid.folder, env=environment)) for _ in range(RUNS)]
    return Figures(
        grid=grid,
        again_s=median([ended.seconds for ended in again]),
        again_bytes=max(ended.peak_bytes for ended in again),
        status_s=median([ended.seconds for ended in shown]),
        status_bytes=max(ended.peak_bytes for ended in shown),
        saves_s=saves_s,
        file_bytes=(grid.folder / "sweeps.db").stat().st_size,
    )


def whole(found: Figures) -> list[str]:
    """The row of the first table."""
    from ollama_sweep.core.units import format_bytes

    p50, p99 = (1000 * _common.percentile(found.saves_s, share) for share in (0.5, 0.99))
    new = found.grid.new
    return [
        f"{found.grid.cells:,}",
        f"{new.seconds:.2f} s, {format_bytes(new.peak_bytes)}",
        f"{found.again_s:.2f} s, {format_bytes(found.again_bytes)}",
        f"{found.status_s:.2f} s, {format_bytes(found.status_bytes)}",
        f"{p50:.2f} ms",
        f"{p99:.2f} ms",
        format_bytes(found.file_bytes),
    ]


def per_cell(found: Figures, smallest: Figures) -> list[str]:
    """The row of the second table: microseconds and bytes of one cell, saving as a ratio to the first grid's."""
    cells = found.grid.cells
    saving = _common.percentile(found.saves_s, 0.5) / _common.percentile(smallest.saves_s, 0.5)
    return [
        f"{cells:,}",
        f"{found.grid.new.seconds / cells * 1e6:.1f} us",
        f"{found.again_s / cells * 1e6:.1f} us",
        f"{found.file_bytes / cells:.0f} B",
        f"{found.grid.generate_s / (cells - PENDING) * 1e6:.0f} us",
        f"{saving:.2f}",
    ]


def main() -> None:
    parser, options = parse_arguments()
    if min(options.sizes) <= 2 * PENDING:
        parser.error(f"a grid must have more than {2 * PENDING} cells")
    _common.head(parser)
    with _common.temporary_folder() as folder:
        grids = [prepare(folder / str(number), size) for number, size in enumerate(options.sizes)]
        found = [measure(grid, saves_s) for grid, saves_s in zip(grids, save_in_turn(grids), strict=True)]
    _common.table(
        ("cells", "run, new", "run, going on", "status", "save p50", "save p99", "database"),
        [whole(figures) for figures in found],
    )
    print("\nDivided by the cells; saving one as a ratio to the first row:\n")
    _common.table(
        ("cells", "run, new", "run, going on", "database", "finish in bulk", "saving one"),
        [per_cell(figures, found[0]) for figures in found],
    )


if __name__ == "__main__":
    main()
