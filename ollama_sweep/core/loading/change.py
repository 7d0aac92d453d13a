"""What a cell needs before its first run, by what differs from the cell before it, and how often that is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.options import LOAD_OPTIONS, is_server_setting


class Change(StrEnum):
    """The kinds, the cheapest first. It is what differs, and no promise of what an engine does about it."""

    KEPT = "kept"
    """Nothing that a load hangs on: the load of the cell before is measured in."""
    RELOAD = "reload"
    """The same weights with other options."""
    MODEL = "model"
    """Other weights, which the disk may have to be read for."""
    RESTART = "restart"
    """Another setting of the server, which is started again and loads after that."""


LoadKey = tuple[object, str, object]
"""Settings of the server (falsy for none), the model, its load options: as `Cell.load_key` has them, or as texts."""


def change(before: LoadKey | None, now: LoadKey, *, is_released: bool = False) -> Change:
    """What a cell needs after the one before it; None: nothing is loaded, and no server of ours runs.

    `is_released`: the load of the cell before was ended.
    """
    if before is None:
        return Change.RESTART if now[0] else Change.MODEL
    if before[0] != now[0]:
        return Change.RESTART
    if before[1] != now[1]:
        return Change.MODEL
    return Change.RELOAD if is_released or before != now else Change.KEPT


def change_by(dimension: str) -> Change:
    """What another value of a dimension needs, all else the same."""
    if is_server_setting(dimension):
        return Change.RESTART
    if dimension == "model":
        return Change.MODEL
    return Change.RELOAD if dimension in LOAD_OPTIONS else Change.KEPT


def is_more_than_reloads(dimensions: Iterable[str]) -> bool:
    """Whether cells differ in what they need: else each one is a reload."""
    return any(change_by(name) is not Change.RELOAD for name in dimensions)


@dataclass(frozen=True)
class Loading:
    """How many of some cells, in their order, need what; the first of them is no change of anything.

    `restarts` are of the server, `models` changes of model, those with a restart among them.
    """

    cells: int = 0
    loads: int = 0
    models: int = 0
    restarts: int = 0

    @property
    def kept(self) -> int:
        """Cells that are measured in the load of the one before them."""
        return self.cells - self.loads

    def __add__(self, other: Loading) -> Loading:
        """Of both, one behind the other."""
        return Loading(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def is_less_than(self, other: Loading) -> bool:
        """Something is needed less often, and the dearest of that."""
        own, others = ((one.models, one.loads, one.restarts) for one in (self, other))
        return own < others


def counted(cells: Iterable[Cell]) -> Loading:
    """What these cells need, one after the other."""
    counting = Counting()
    for cell in cells:
        counting.add(cell)
    return counting.found


class Counting:
    """The same of cells that pass by."""

    def __init__(self) -> None:
        self._before: LoadKey | None = None
        self._cells = self._loads = self._models = self._restarts = 0

    def add(self, cell: Cell) -> Change:
        """One more; what it needs."""
        before, self._before = self._before, cell.load_key
        needs = change(before, cell.load_key)
        self._cells += 1
        self._loads += needs is not Change.KEPT
        if before is not None:
            self._models += before[1] != cell.model
            self._restarts += before[0] != cell.server
        return needs

    @property
    def found(self) -> Loading:
        """Of all that passed by."""
        return Loading(self._cells, self._loads, self._models, self._restarts)
