"""What is said of a commit to an open page: the progress, and each cell that changed, drawn anew.

A whole page is made anew only as often as that may cost, at once where the sweep begins, waits or ends.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ollama_sweep.core.errors import ConfigError, SweepError
from ollama_sweep.machine.secrets import masked
from ollama_sweep.web import pages

if TYPE_CHECKING:
    from ollama_sweep.core.outcome import CellResult
    from ollama_sweep.results.grids import Grid
    from ollama_sweep.results.page.tiles import Tiled
    from ollama_sweep.results.plots.shared.heatmap_data import HeatmapData
    from ollama_sweep.store.log import Following
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow
    from ollama_sweep.web.asked import Asked
    from ollama_sweep.web.library import Library

PULSE_SHARE, PAGE_SHARE = 0.0035, 0.001
"""How much of one core it may cost to tell changes, and to make whole pages anew."""
SHORTEST_PAGE_S, UNREADABLE_S = 2.0, 5.0
ASKED_S = 300.0
"""A page that was told that it is old and does not ask is told again after so long."""
MOST_CELLS, MOST_KEPT, MOST_TILED = 40, 8, 2
STALE = ("stale", "")

Message = tuple[str, str]
"""An event's name and what it says."""


@dataclass(frozen=True)
class Rest:
    """After something was told: in how many seconds that is paid for, and for how many nothing more shall be said."""

    owed_s: float = 0.0
    silent_s: float = 0.0


@dataclass
class Shape:
    """A page that was made: its maps, the last attempt that they know, and when it may be made again."""

    drawn: Sequence[tuple[HeatmapData, Grid]] = ()
    last_attempt: int = 0
    mark: tuple[int, int, int] = (0, 0, 0)
    """That of the database when the page was made."""
    state: str = ""
    due_at: float = 0.0
    is_old: bool = False
    tiled: Sequence[Tiled] = ()
    """Its maps in tiles, which are kept for the pages that were made last."""
    told: dict[int, CellResult] = field(default_factory=dict)
    """The cells that were told last, by their places in the plan."""


class Pulses:
    """The pages that were made last, by what they were asked, and what is new of them. Called by one thread a time."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._shapes: OrderedDict[Asked, Shape] = OrderedDict()

    def remember(self, asked: Asked, shape: Shape, cost_s: float) -> None:
        """A page was made, which took so much of a core."""
        shape.due_at = time.monotonic() + max(SHORTEST_PAGE_S, cost_s / PAGE_SHARE)
        self._shapes[asked] = shape
        self._shapes.move_to_end(asked)
        while len(self._shapes) > MOST_KEPT:
            self._shapes.popitem(last=False)
        for old in [one for one in self._shapes.values() if one.tiled][:-MOST_TILED]:
            old.tiled = ()

    def is_due(self, asked: Sequence[Asked]) -> bool:
        """One of these pages is old, and may be made anew now."""
        now = time.monotonic()
        return any(one.is_old and one.due_at <= now for one in map(self._shapes.get, asked) if one is not None)

    def is_behind(self, asked: Sequence[Asked], followed: Following) -> bool:
        """Since one of these pages was made something has changed: its stream began later."""
        shapes = [shape for one in asked if (shape := self._shapes.get(one)) is not None]
        try:
            return bool(shapes) and self._library.read_on(
                followed, lambda reader: any(shape.mark != reader.mark() for shape in shapes)
            )
        except SweepError:  # what is wrong is said with the next commit
            return False

    def made(
        self, asked: Sequence[Asked], followed: Following, *, is_new: bool
    ) -> tuple[dict[Asked, list[Message]], Rest]:
        """What each page is told, and how long it is to be paid for. `is_new`: there was a commit."""
        begun = time.thread_time()
        found: dict[Asked, list[Message]] = {one: [] for one in asked}
        if is_new:
            try:
                self._library.read_on(followed, lambda reader: self._read(reader, found))
            except SweepError:  # gone, damaged, locked: the page says which
                return {one: [STALE] for one in asked}, Rest(silent_s=UNREADABLE_S)
        for one, messages in found.items():
            shape = self._shapes.get(one)
            if shape is None or (shape.is_old and shape.due_at <= time.monotonic()):
                messages.append(STALE)
            if shape is not None and STALE in messages:
                shape.is_old, shape.due_at = False, time.monotonic() + ASKED_S
        return found, Rest((time.thread_time() - begun) / PULSE_SHARE)

    def _read(self, reader: Reader, found: dict[Asked, list[Message]]) -> None:
        for asked, messages in found.items():
            try:
                row = pages.row_of(reader, asked)
            except ConfigError:  # there is no such sweep, or not any more: its page says so
                messages[:] = [STALE]
                continue
            status = pages.progress(reader, row, self._library.told)
            messages.append(("progress", pages.page("progress.jinja", hide=str, status=status)))
            shape = self._shapes.get(asked)
            if shape is None:
                messages[:] = _hidden(messages)
                continue
            if cells := list(self._cells(reader, row, shape)):
                messages.append(("cells", json.dumps(cells)))
            shape.is_old = True
            messages[:] = _hidden(messages)
            if shape.state != status["state"]:
                shape.state, shape.due_at = status["state"], 0.0

    def _cells(self, reader: Reader, row: SweepRow, shape: Shape) -> Iterator[tuple[str, str, str]]:
        """Each cell that changed in each map, or the tile that holds it: the map, the place, and how it looks."""
        if shape.tiled:
            yield from pages.tiles_anew(reader, row, shape, self._library.sheets, MOST_CELLS)
            return
        shape.last_attempt, positions = reader.changed_since(row.sweep_id, shape.last_attempt, MOST_CELLS)
        before, shape.told = shape.told, {}
        for position in positions:
            result = shape.told[position] = reader.result(row.sweep_id, position)
            if result == before.get(position):
                continue
            for number, (data, grid) in enumerate(shape.drawn):
                drawn = pages.cell_anew(data, grid, result, row)
                if drawn is not None:
                    yield f"s1-map{number}", *drawn


def _hidden(messages: Sequence[Message]) -> list[Message]:
    """The same without secrets, looked at once for all."""
    between = "\n\0\n"
    texts = masked(between.join(text for _, text in messages)).split(between)
    return [(name, text) for (name, _), text in zip(messages, texts, strict=True)]
