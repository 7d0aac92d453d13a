"""What ordering by reloads saves: the same grid in each order, by a clock of its own, and what was said to be left.

The scripted engine takes its seconds by what differs from what is loaded, and by the model; nothing is waited for. All
else is the program's own: order, loop, passes, database, forecast. What counts is the ratio of two orders of one run.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING
from unittest import mock

import _common

if TYPE_CHECKING:
    from ollama_sweep.core.events import Event

ORDERS = ("auto", "column-first", "shuffled")
LAST_ATTEMPTS = 50
AT = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Measured:
    """A sweep in one order: the seconds of all of it, and what was loaded and changed how often.

    `left` has at shares of its cells what was said to be left, what was left, and what the mean of the last attempts
    would have said.
    """

    seconds: float
    loads: int
    models: int
    restarts: int
    left: tuple[tuple[float, float, float], ...]


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description="Order: what it saves to change models and servers seldom.")
    parser.add_argument("--load", type=float, default=90.0, help="seconds of a load (default 90)")
    parser.add_argument("--model", type=float, default=150.0, help="the same with other weights (default 150)")
    parser.add_argument("--restart", type=float, default=95.0, help="the same with a server's start (default 95)")
    parser.add_argument("--run", type=float, default=30.0, help="seconds of a run (default 30)")
    parser.add_argument("--slower", type=float, nargs="+", default=[1.0, 1.5, 3.0], metavar="FACTOR",
                        help="so many models, each so many times slower (default 1 1.5 3)")  # fmt: skip
    parser.add_argument("--sizes", type=float, nargs="+", default=[1.0, 2.0, 3.0], metavar="BILLIONS",
                        help="their parameters, as far as they say them (default 1 2 3)")  # fmt: skip
    parser.add_argument("--servers", type=int, default=2, help="settings of the server, 1 or 2 (default 2)")
    parser.add_argument("--temperatures", type=int, default=2, help="values that need no load (default 2)")
    parser.add_argument("--num-ctx", type=int, default=6, help="so many values (default 6)")
    parser.add_argument("--num-batch", type=int, default=4, help="so many values (default 4)")
    parser.add_argument("--passes", type=int, default=1, help="how often the grid is measured (default 1)")
    parser.add_argument("--control", default="off", help="the control cell, as the key says it (default off)")
    return parser, parser.parse_args()


def measure(options: argparse.Namespace, order: str, folder: Path) -> Measured:
    """One sweep, from its first cell to its last."""
    from ollama_sweep import load
    from ollama_sweep.core.events import CellFinished
    from ollama_sweep.engines import fake
    from ollama_sweep.run.session import measure as run

    models = {f"m{number}": factor for number, factor in enumerate(options.slower)}
    sizes = {f"m{number}": f"{size:g}B" for number, size in enumerate(options.sizes)}
    script = folder / "fake.json"
    costs = {"reload": options.load, "model": options.model, "restart": options.restart}
    told = {"models": [*models], "slower": models, "seconds": options.run, "loads": costs, "sizes": sizes}
    script.write_text(json.dumps(told), "utf-8")
    keys = {
        "engine": "fake", "name": "grid", "order": order, "prompt": {"text": "one two three"},
        "model": [*models], "num_ctx": [1024 * (at + 1) for at in range(options.num_ctx)],
        "num_batch": [2**at for at in range(2, options.num_batch + 2)],
        "dimensions": {"temperature": [at / 10 for at in range(options.temperatures)],
                       "flash_attention": [False, True][: options.servers]},
        "server": "managed", "warmup": 0, "repeats": 1, "passes": options.passes, "second_look": "off",
        "control": options.control,
    }  # fmt: skip
    said: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, CellFinished):
            said.append(event.seconds_left or 0.0)

    db = folder / f"{order}.db"
    with mock.patch.object(fake.Engine, "is_replayed", True), mock.patch.dict(os.environ, {fake.SCRIPT: str(script)}):
        run(load(**keys), db, listeners=[listen])
    return _read(db, said)


def _read(db: Path, said: list[float]) -> Measured:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(db)) as connection:
        rows = connection.execute(
            """SELECT started_at, finished_at, purpose, model, server, num_ctx, num_batch
            FROM attempts AS a JOIN cells AS c ON c.id = a.cell_id ORDER BY a.id"""
        ).fetchall()
    times = [[datetime.fromisoformat(text).timestamp() for text in row[:2]] for row in rows]
    kept = sum(later[2] is None and later[3:] == row[3:] for row, later in pairwise(rows))
    own = [end for (_, end), row in zip(times, rows, strict=True) if row[2] is None]
    took = [end - start for (start, end), row in zip(times, rows, strict=True) if row[2] is None]
    left = []
    for share in AT:
        done = int(len(own) * share)
        mean = fmean(took[max(0, done - LAST_ATTEMPTS) : done])
        left.append((said[done - 1], own[-1] - own[done - 1], mean * (len(own) - done)))
    return Measured(
        seconds=times[-1][1] - times[0][0],
        loads=len(rows) - kept,
        models=len([*groupby(row[3] for row in rows)]) - 1,
        restarts=len([*groupby(row[4] for row in rows)]) - 1,
        left=tuple(left),
    )


def main() -> None:
    """All orders, one after the other."""
    parser, options = parse_arguments()
    _common.head(parser)
    with _common.temporary_folder() as folder:
        found = {order: measure(options, order, folder) for order in ORDERS}
    auto = found["auto"].seconds
    _common.table(
        ["order", "loads", "changes of model", "restarts", "hours", "auto takes"],
        [[order, str(one.loads), str(one.models), str(one.restarts), f"{one.seconds / 3600:.1f}",
          f"{auto / one.seconds:.2f}"] for order, one in found.items()],
    )  # fmt: skip
    print()
    _common.table(
        ["order", *(f"said / true at {at:.0%}" for at in AT), *(f"mean of the last at {at:.0%}" for at in AT)],
        [[order, *(f"{said / true:.2f}" for said, true, _ in one.left),
          *(f"{mean / true:.2f}" for _, true, mean in one.left)] for order, one in found.items()],
    )  # fmt: skip


if __name__ == "__main__":
    main()
