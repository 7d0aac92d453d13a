"""How much sooner several lanes are done than one: scripted lanes whose cells take two seconds each, in turn.

A lane is a process of its own, and the coordinator commits twice a cell. On a machine with fewer cores than lanes the
lanes share them; scripted ones only wait.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sqlite3
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from _common import SWEEP, clean_environment, head, must, percentile, table, temporary_folder, timed

CELL_S = 2.0
READ = """select count(*), max(julianday(finished_at)) - min(julianday(started_at)) from attempts where status = 'ok'"""


@dataclass(frozen=True)
class Measured:
    """One sweep: the seconds of the whole command, and those from the first cell's begin to the last one's end."""

    command_s: float
    cells_s: float
    cells: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].replace("\n", " "))
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--cells", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=CELL_S, help="of a cell")
    given = parser.parse_args()
    head(parser)
    one, several = [], []
    with temporary_folder() as folder:
        for number in range(given.rounds):
            one.append(measure(folder / f"one-{number}", 1, given.cells, given.seconds))
            several.append(measure(folder / f"several-{number}", given.lanes, given.cells, given.seconds))
    table(
        ["lanes", "cells", "seconds from the first cell to the last", "seconds a cell, median", "whole command"],
        [row(1, one), row(given.lanes, several)],
    )
    print()
    for what, name in (("from the first cell to the last", "cells_s"), ("with start and end", "command_s")):
        each = [[getattr(one, name) / one.cells for one in found] for found in (one, several)]
        ratios = [a / b for a, b in zip(*each, strict=True)]
        words = f"{statistics.median(ratios):.2f} times as fast as one ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{given.lanes} lanes are {words}, {what} (rounds: {given.rounds})")


def row(lanes: int, found: list[Measured]) -> list[str]:
    each = [one.cells_s / one.cells for one in found]
    return [str(lanes), str(found[0].cells), f"{statistics.median(one.cells_s for one in found):.1f}",
            f"{percentile(each, 0.5):.3f}", f"{statistics.median(one.command_s for one in found):.1f} s"]  # fmt: skip


def measure(folder: Path, lanes: int, cells: int, seconds: float) -> Measured:
    """A sweep of so many cells over so many lanes, each cell one run of so many seconds."""
    folder.mkdir()
    config = {
        "model": "m", "engine": "fake", "prompt": {"text": "one two three"}, "num_batch": [8], "warmup": 0,
        "repeats": 1,
        "num_ctx": [512 + 8 * number for number in range(cells)], "interim": "off", "control": "off",
        "second_look": "off", "hosts": [{"name": f"lane{n}", "host": f"127.0.0.1:{n}"} for n in range(1, lanes + 1)],
    }  # fmt: skip
    (folder / "s.yaml").write_text(json.dumps(config), "utf-8")
    (folder / "fake.json").write_text(json.dumps({"seconds": seconds}), "utf-8")
    env = clean_environment(OLLAMA_SWEEP_FAKE=str(folder / "fake.json"))
    started = time.perf_counter()
    must(timed([*SWEEP, "run", "s.yaml"], folder=folder, env=env))
    command_s = time.perf_counter() - started
    with contextlib.closing(sqlite3.connect(folder / "sweeps.db")) as connection:
        done, days = connection.execute(READ).fetchone()
    if done != cells:
        sys.exit(f"{done} of {cells} cells were measured")
    return Measured(command_s, days * 86400, done)


if __name__ == "__main__":
    main()
