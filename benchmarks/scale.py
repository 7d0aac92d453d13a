"""How many lanes one coordinator bears: simulated ones, whose cells are done as soon as they are begun.

Everything of a run is there but the processes of the lanes: the plan, orders as JSON, results read strictly, both
commits of a cell, leases. So the cells of a second are what a coordinator can take at most; what arrives are as many as
there are lanes, divided by the seconds of a cell.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import _common
import psutil
from store import outcome

import ollama_sweep
from ollama_sweep.core.events import CellFinished, Event
from ollama_sweep.core.lanes import order as lines
from ollama_sweep.core.lanes import plain
from ollama_sweep.core.lanes.lane import Standing
from ollama_sweep.core.lanes.order import VERSION, Handed, HandedIn, Line, Order, Ready
from ollama_sweep.run.lanes.choosing import Chosen
from ollama_sweep.run.lanes.session import LanesSession
from ollama_sweep.run.lanes.side import Side
from ollama_sweep.run.session import SessionOptions

if TYPE_CHECKING:
    from ollama_sweep.plan.survey import Survey
    from ollama_sweep.run.lanes.post import Post
    from ollama_sweep.store.writer import Store

CELL_S = 120.0
"""Of a cell, where it is said how many lanes that is."""


class Simulated:
    """The connection to a lane that is done at once. What it hands in goes through the same JSON, and no disk."""

    how_it_ended = ""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._made = plain.as_text(outcome(1))
        self._lines: deque[Line] = deque()
        self._box: dict[str, str] = {}
        self._heard_at, self._told_at = os.pipe()
        self.is_running = False

    def begin(self, post: Post) -> None:
        self.is_running = True
        self._say(Ready(self._standing))

    def give(self, order: Order) -> None:
        name = f"{order.attempt_id:012d}-{order.database[:8]}.json"
        given = {"order": plain.as_text(order), "outcome": self._made, "took_s": "1.0", "version": str(VERSION)}
        self._box[name] = "{" + ",".join(f'"{key}":{text}' for key, text in given.items()) + "}"
        self._say(HandedIn(name, order.attempt_id), Ready(self._standing))

    def _say(self, *said: Line) -> None:
        self._lines += said
        os.write(self._told_at, b"." * len(said))

    def heard(self) -> list[Line]:
        found = list(self._lines)
        if found:
            os.read(self._heard_at, len(found))
        self._lines.clear()
        return found

    def names(self) -> list[str]:
        return sorted(self._box)

    def read(self, name: str) -> Handed:
        return lines.handed_of(self._box[name], name)

    def remove(self, name: str) -> None:
        self._box.pop(name, None)

    def fileno(self) -> int | None:
        return self._heard_at if self.is_running else None

    def end(self, grace_s: float) -> None:
        if self.is_running:
            os.close(self._heard_at)
            os.close(self._told_at)
        self.is_running = False

    def release(self) -> None: ...
    def dismiss(self) -> None: ...
    def cut(self) -> None: ...
    def leave(self) -> None: ...
    def set_aside(self, name: str) -> None: ...


class SimulatedSession(LanesSession):
    """A run over simulated lanes."""

    def _side(self, store: Store, found: Survey, one: Chosen) -> Side:
        side = super()._side(store, found, one)
        digests = {name: model.digest for name, model in found.models.items()}
        standing = Standing("fake", "1", "here", digests, {"engine": "fake"})
        side.connection = Simulated(standing)
        return side


@dataclass(frozen=True)
class Borne:
    """What a run over so many lanes came to: cells in a second, and of the coordinator processor time of a cell in
    seconds and memory in bytes."""

    lanes: int
    cells: int
    rate: float
    processor_s: float
    resident_bytes: int
    database_bytes: int


def measured(folder: Path, lanes: int, cells: int) -> Borne:
    """A sweep of so many cells over so many simulated lanes."""
    folder.mkdir()
    side = math.isqrt(cells)
    config = {
        "name": "scale", "model": "m", "engine": "fake", "prompt": {"text": "one two three"}, "warmup": 0, "repeats": 1,
        "num_ctx": [512 + 8 * number for number in range(side)], "num_batch": list(range(1, side + 1)),
        "interim": "off", "control": "off", "second_look": "off",
        "hosts": [{"name": f"lane{n}", "host": f"127.0.0.1:{n}"} for n in range(1, lanes + 1)],
    }  # fmt: skip
    (folder / "s.yaml").write_text(json.dumps(config), "utf-8")
    moments: list[tuple[float, float]] = []

    def listen(event: Event) -> None:
        if isinstance(event, CellFinished):
            moments.append((time.monotonic(), time.process_time()))

    db = folder / "sweeps.db"
    SimulatedSession(ollama_sweep.load(folder / "s.yaml"), db, SessionOptions(), [listen]).run()
    (began_s, began_processor_s), (ended_s, ended_processor_s) = moments[0], moments[-1]
    later = len(moments) - 1
    return Borne(lanes, len(moments), later / (ended_s - began_s), (ended_processor_s - began_processor_s) / later,
                 psutil.Process().memory_info().rss, db.stat().st_size)  # fmt: skip


def row(found: Borne) -> list[str]:
    return [
        str(found.lanes), str(found.cells), f"{found.rate:.0f}", f"{1000 * found.processor_s:.2f} ms",
        f"{found.rate * CELL_S:.0f}", f"{found.resident_bytes / 2**20:.0f} MiB",
        f"{found.database_bytes / found.cells:.0f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lanes", type=int, nargs="+", default=[4, 64, 256, 1000])
    parser.add_argument("--cells", type=int, default=4900, help="of each sweep, about (default 4900)")
    given = parser.parse_args()
    _common.head(parser)
    with _common.temporary_folder() as folder:
        rows = [row(measured(folder / str(lanes), lanes, given.cells)) for lanes in given.lanes]
    columns = ["lanes", "cells", "cells/s", "processor a cell", f"lanes of {CELL_S:.0f} s a cell", "memory",
               "bytes a cell"]  # fmt: skip
    _common.table(columns, rows)


if __name__ == "__main__":
    main()
