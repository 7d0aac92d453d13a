"""What a reader says of memory: what is left out for want of it, what comes last, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ollama_sweep.store import one_cell, queries
from ollama_sweep.store.file import Reading
from ollama_sweep.store.memory import failures, pruning
from ollama_sweep.store.rows import LeftOut

if TYPE_CHECKING:
    from ollama_sweep.store.memory.failures import KnownFailure, Surroundings


class MemoryReading(Reading):
    """The part of `Reader` about memory."""

    def left_out(self, sweep_id: int) -> LeftOut:
        """What the sweep's plan leaves out for want of memory."""
        with self._storage_errors():
            return queries.left_out(self._connection, sweep_id)

    def late(self, sweep_id: int) -> int:
        """How many pending places of the plan come last."""
        with self._storage_errors():
            return queries.late(self._connection, sweep_id)

    def has_failures(self) -> bool:
        """Anything ran out of memory in this database, and is recorded."""
        return bool(self._rows("SELECT EXISTS (SELECT 1 FROM out_of_memory)")[0][0])

    def known_failures(self, where: Surroundings) -> list[KnownFailure]:
        """What ran out of memory before in the same surroundings."""
        with self._storage_errors():
            return failures.known(self._connection, where, self._notes)

    def out_of_memory(self) -> pruning.Known:
        """What every cell of the database that ran out of memory says for `prune`, by its key."""
        with self._storage_errors():
            return pruning.known(self._connection)

    def decided(self, sweep_id: int) -> pruning.Decided:
        """What was decided for the places of a plan that is stored."""
        with self._storage_errors():
            return pruning.decided(self._connection, sweep_id)

    def tried(self, keys: Sequence[str]) -> Mapping[str, bool]:
        """Of these cells those that are not pending, and whether they were ever measured."""
        with self._storage_errors():
            return pruning.tried(self._connection, keys)

    def witness(self, sweep_id: int, position: int) -> one_cell.Place | None:
        """The cell because of which a place of the plan is left out, or would be if it were not probed."""
        with self._storage_errors():
            return one_cell.witness(self._connection, self._notes, sweep_id, position)

    def is_late(self, sweep_id: int, position: int) -> bool:
        """A place of the plan comes last."""
        return bool(
            self._rows("SELECT max(late) FROM plan WHERE sweep_id = ? AND position = ?", sweep_id, position)[0][0]
        )
