"""What a reader says of goals: what a sweep is for, how far it is, and why a cell was chosen."""

from __future__ import annotations

from ollama_sweep.store.file import Reading
from ollama_sweep.store.goals import keeping
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
