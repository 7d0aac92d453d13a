"""What the writer does with goals: keep what a sweep is for and what it came to, and read what a planner must know."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ollama_sweep.core.surface.goal import Goal
from ollama_sweep.store.goals import cells as goal_cells
from ollama_sweep.store.goals import keeping
from ollama_sweep.store.goals.cells import GoalCell
from ollama_sweep.store.goals.keeping import KeptGoal
from ollama_sweep.store.transactions import Guard
from ollama_sweep.store.values import Notes


class GoalWriting:
    """The part of `Store` about goals."""

    _guard: Guard
    _notes: Notes
    _now: Callable[[], str]

    def goal(self, sweep_id: int) -> KeptGoal | None:
        """What the sweep is for; None for all of its cells."""
        return self._guard.read(keeping.goal, sweep_id, self._notes)

    def keep_goal(self, sweep_id: int, goal: Goal, of_file: str) -> None:
        """The sweep is for this from now on."""
        now = self._now()
        self._guard.write(lambda connection: keeping.keep_goal(connection, sweep_id, goal, of_file, now))

    def end_goal(self, sweep_id: int, says: str, answers: Iterable[str], *, is_reached: bool) -> None:
        """What the goal came to, and the keys of the cells that it names."""
        now, named = self._now(), list(answers)
        self._guard.write(lambda connection: keeping.end(connection, sweep_id, says, named, now, is_reached=is_reached))

    def goal_cells(self, sweep_id: int) -> list[GoalCell]:
        """Every cell of the plan as a planner sees it."""
        return self._guard.read(goal_cells.cells, sweep_id, self._notes)

    def goal_kinds(self, sweep_id: int) -> dict[int, str]:
        """By position what a cell is beside its num_ctx and num_batch."""
        return self._guard.read(goal_cells.kinds, sweep_id)
