"""What a reader says of goals: what a sweep is for, how far it is, and why a cell was chosen."""

from __future__ import annotations

from collections.abc import Mapping

from ollama_sweep.store import values
from ollama_sweep.store.file import Reading
from ollama_sweep.store.goals import cells, keeping
from ollama_sweep.store.goals.cells import GoalCell
from ollama_sweep.store.goals.keeping import Chosen, KeptGoal


class GoalReading(Reading):
    """The part of `Reader` about goals."""

    def goal(self, sweep_id: int) -> KeptGoal | None:
        """What the sweep is for; None for all of its cells."""
        with self._storage_errors():
            return keeping.goal(self._connection, sweep_id, self._notes)

    def chosen(self, attempt_id: int) -> Chosen | None:
        """Why a planner chose the cell of this attempt; None where none did."""
        with self._storage_errors():
            return keeping.chosen(self._connection, attempt_id, self._notes)

    def goal_cells(self, sweep_id: int) -> list[GoalCell]:
        """Every cell of the plan as a planner sees it."""
        with self._storage_errors():
            return cells.cells(self._connection, sweep_id, self._notes)

    def goal_kinds(self, sweep_id: int) -> dict[int, str]:
        """By position what a cell is beside its num_ctx and num_batch."""
        with self._storage_errors():
            return cells.kinds(self._connection, sweep_id)

    def measured_in(self, sweep_id: int) -> list[Mapping[str, object]]:
        """The surroundings in which the cells of a sweep were measured, each once."""
        with self._storage_errors():
            rows = self._connection.execute(_MEASURED_IN, (sweep_id,))
            found = self._notes.rows("surroundings", lambda text: values.json_object(text), rows)
            return [one for one in found if one]


_MEASURED_IN = """SELECT DISTINCT segments.fingerprint FROM plan JOIN cells ON cells.id = plan.cell_id
    JOIN attempts ON attempts.id = cells.attempt_id JOIN segments ON segments.id = attempts.segment_id
    WHERE plan.sweep_id = ? ORDER BY segments.id"""
