"""How many lanes one coordinator bears: simulated ones, whose cells are done at once, or after a time.

Everything of a run is there but the processes of the lanes: the plan, orders as JSON, results read strictly, both
commits of a cell, leases. So the cells of a second are what a coordinator can take at most; what arrives are as many as
there are lanes, divided by the seconds of a cell. With `--every SECONDS` each lane takes that long for a cell, spread
evenly: does the coordinator keep up, and how long does a result wait for its commit?
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import json
import math
import os
import resource
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
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


class World:
    """When simulated lanes are done: at once, or so many seconds after their order, one lane after the other.

    The time begins once every lane has its first order. `waited_s` has when each result came, and how long it lay there
    until it was in the database.
    """

    def __init__(self, lanes: int, every_s: float) -> None:
        self._lanes, self._every_s = lanes, every_s
        self._first: list[Callable[[], None]] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self.began_s: float | None = None
        self.waited_s: list[tuple[float, float]] = []
        if every_s:
            threading.Thread(target=self._run, daemon=True).start()

    def after(self, hand_in: Callable[[], None]) -> None:
        """A lane has an order, and hands in when it is done."""
        if not self._every_s:
            hand_in()
            return
        with self._changed:
            if self.began_s is not None:
                self._push(time.monotonic() + self._every_s, hand_in)
                return
            self._first.append(hand_in)
            if len(self._first) == self._lanes:
                self.began_s = time.monotonic()
                for number, one in enumerate(self._first, 1):
                    self._push(self.began_s + self._every_s * number / self._lanes, one)
            self._changed.notify()

    def _push(self, due_s: float, hand_in: Callable[[], None]) -> None:
        heapq.heappush(self._due, (due_s, next(self._numbers), hand_in))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._changed.wait(min(0.05, self._due[0][0] - time.monotonic()) if self._due else 0.05)
                hand_in = heapq.heappop(self._due)[2]
            hand_in()


class Simulated:
    """The connection to a lane. What it hands in goes through the same JSON, and no disk."""

    how_it_ended = ""

    def __init__(self, standing: Standing, world: World) -> None:
        self._standing, self._world = standing, world
        self._made = plain.as_text(outcome(1))
        self._lines: deque[Line] = deque()
        self._box: dict[str, str] = {}
        self._came_s: dict[str, float] = {}
        self._bell = -1
        self.is_running = False

    def begin(self, post: Post) -> None:
        self.is_running, self._bell = True, os.eventfd(0, os.EFD_NONBLOCK)
        self._say(Ready(self._standing))

    def give(self, order: Order) -> None:
        self._world.after(partial(self._hand_in, order))

    def _hand_in(self, order: Order) -> None:
        name = f"{order.attempt_id:012d}-{order.database[:8]}.json"
        given = {"order": plain.as_text(order), "outcome": self._made, "took_s": "1.0", "version": str(VERSION)}
        self._box[name] = "{" + ",".join(f'"{key}":{text}' for key, text in given.items()) + "}"
        self._came_s[name] = time.monotonic()
        self._say(HandedIn(name, order.attempt_id), Ready(self._standing))

    def _say(self, *said: Line) -> None:
        self._lines += said
        os.eventfd_write(self._bell, 1)

    def heard(self) -> list[Line]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        found = []
        while self._lines:
            found.append(self._lines.popleft())
        return found

    def names(self) -> list[str]:
        return sorted(self._box)

    def read(self, name: str) -> Handed:
        return lines.handed_of(self._box[name], name)

    def remove(self, name: str) -> None:
        came_s = self._came_s.pop(name)
        self._box.pop(name)
        self._world.waited_s.append((came_s, time.monotonic() - came_s))

    def fileno(self) -> int | None:
        return self._bell if self.is_running else None

    def end(self, grace_s: float) -> None:
        if self.is_running:
            os.close(self._bell)
        self.is_running = False

    def release(self) -> None: ...
    def dismiss(self) -> None: ...
    def cut(self) -> None: ...
    def leave(self) -> None: ...
    def set_aside(self, name: str) -> None: ...


class SimulatedSession(LanesSession):
    """A run over simulated lanes, which take nothing of this computer."""

    world: World

    @contextlib.contextmanager
    def _lanes(self, name: str) -> Iterator[Sequence[Chosen]]:
        with super()._lanes(name) as found:
            yield [Chosen(one.lane) for one in found]

    def _side(self, store: Store, found: Survey, one: Chosen) -> Side:
        side = super()._side(store, found, one)
        digests = {name: model.digest for name, model in found.models.items()}
        standing = Standing("fake", "1", "here", digests, {"engine": "fake"})
        side.connection = Simulated(standing, self.world)
        return side


@dataclass(frozen=True)
class Borne:
    """What a run over so many lanes came to: cells in a second, and of the coordinator processor time of a cell in
    seconds and memory in bytes. `waited_s` are the seconds that results waited, in the order in which they came.
    """

    lanes: int
    cells: int
    rate: float
    processor_s: float
    resident_bytes: int
    database_bytes: int
    waited_s: Sequence[float]


def measured(folder: Path, lanes: int, cells: int, every_s: float = 0.0) -> Borne:
    """A sweep of so many cells over so many simulated lanes; with a time for each cell what came after the first ones
    were begun.
    """
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

    db, world = folder / "sweeps.db", World(lanes, every_s)
    session = SimulatedSession(ollama_sweep.load(folder / "s.yaml"), db, SessionOptions(), [listen])
    session.world = world
    session.run()
    (began_s, began_processor_s), (ended_s, ended_processor_s) = moments[0], moments[-1]
    later = len(moments) - 1
    return Borne(lanes, len(moments), later / (ended_s - began_s), (ended_processor_s - began_processor_s) / later,
                 psutil.Process().memory_info().rss, db.stat().st_size,
                 [waited for _, waited in sorted(world.waited_s)])  # fmt: skip


def row(found: Borne) -> list[str]:
    return [
        str(found.lanes), str(found.cells), f"{found.rate:.0f}", f"{1000 * found.processor_s:.2f} ms",
        f"{found.rate * CELL_S:.0f}", f"{found.resident_bytes / 2**20:.0f} MiB",
        f"{found.database_bytes / found.cells:.0f}",
    ]  # fmt: skip


def waiting_row(found: Borne, every_s: float) -> list[str]:
    tenth = max(1, len(found.waited_s) // 10)
    return [
        str(found.lanes), f"{every_s:g} s", str(found.cells), f"{found.lanes / every_s:.0f}", f"{found.rate:.0f}",
        f"{1000 * found.processor_s:.2f} ms", f"{median(found.waited_s):.3f} s", f"{max(found.waited_s):.2f} s",
        f"{median(found.waited_s[-tenth:]):.3f} s", f"{found.resident_bytes / 2**20:.0f} MiB",
    ]  # fmt: skip


WAITING = ["lanes", "a cell takes", "cells", "arrive/s", "taken/s", "processor a cell", "waited, median", "longest",
           "median of the last tenth", "memory"]  # fmt: skip
TAKEN = ["lanes", "cells", "cells/s", "processor a cell", f"lanes of {CELL_S:.0f} s a cell", "memory", "bytes a cell"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lanes", type=int, nargs="+", default=[4, 64, 256, 1000])
    parser.add_argument("--cells", type=int, default=4900, help="of each sweep, about (default 4900)")
    parser.add_argument("--every", type=float, default=0.0, help="the seconds of a cell (default: done at once)")
    given = parser.parse_args()
    _common.head(parser)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with _common.temporary_folder() as folder:
        found = [measured(folder / str(lanes), lanes, given.cells, given.every) for lanes in given.lanes]
    if given.every:
        _common.table(WAITING, [waiting_row(one, given.every) for one in found])
    else:
        _common.table(TAKEN, [row(one) for one in found])


if __name__ == "__main__":
    main()
