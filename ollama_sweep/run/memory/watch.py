"""Out of memory while a sweep runs: what is recorded of it, what is loaded a second time, and what is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.events import Event, Notice
from ollama_sweep.core.outcome import Outcome, Status
from ollama_sweep.plan.memory.limits import load_options
from ollama_sweep.run.turns import Turn
from ollama_sweep.store.memory.failures import Failed, FreeMemory, Surroundings
from ollama_sweep.store.memory.pruning import Pruned
from ollama_sweep.store.rows import PendingCell
from ollama_sweep.store.writer import Store


@dataclass
class MemoryWatch:
    """Of one session. `free` says what memory is free now; with `prunes` cells are left out."""

    store: Store
    sweep_id: int
    emit: Callable[[Event], None]
    surroundings: Surroundings
    free: Callable[[], FreeMemory] = FreeMemory
    prunes: bool = False
    _loaded: tuple[object, ...] | None = None
    _said: set[int] = field(default_factory=set)

    def turn(self, pending: PendingCell) -> PendingCell:
        """The cell to measure now: before one that would be left out if another failed again, that other one."""
        found = self.store.in_doubt(self.sweep_id, pending.position) if self.prunes else None
        if found is None:
            return pending
        if found.cell_id not in self._said:
            self._said.add(found.cell_id)
            label = self.store.planned(self.sweep_id, found.position).cell.label()
            self.emit(Notice(f"{label} ran out of memory once; a second load decides whether larger ones are left out"))
        return found

    def after(self, turn: Turn, cell: Cell, attempt_id: int, outcome: Outcome, engine_version: str) -> None:
        """Record a failure for want of memory; leave out what it leaves out, or no longer, and say so."""
        is_fresh, self._loaded = self._loaded != cell.load_key, cell.load_key if outcome.status is Status.OK else None
        if outcome.status is Status.OOM:
            where = replace(self.surroundings, engine_version=engine_version)
            failed = Failed(where, load_options(cell), is_fresh or turn.further is not None, self.free())
            self.store.record_failure(attempt_id, failed)
        changed = self.store.prune(self.sweep_id, turn.cell_id) if self.prunes else None
        if changed is not None and (text := _words(cell, changed)):
            self.emit(Notice(text))


def _words(cell: Cell, changed: Pruned) -> str:
    if changed.left_out:
        probed = f"; {changed.probed} more will be measured all the same, as a probe" if changed.probed else ""
        return (f"{cell.label()} ran out of memory in two fresh loads; left out because they are at least as large: "
                f"{changed.left_out} of the cells to do{probed}")  # fmt: skip
    if not changed.released:
        return ""
    witness = ", ".join(f"{name} {value}" for name, value in changed.witness.items())
    return (f"{cell.label()} had memory enough. Measured after all, though {witness} had left them out: "
            f"{changed.released} cells")  # fmt: skip
