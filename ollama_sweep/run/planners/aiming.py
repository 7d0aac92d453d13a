"""What a session measures for: the goal of the file, of the command line, or the one that the sweep has kept."""

from __future__ import annotations

from dataclasses import dataclass

from ollama_sweep.core.surface.goal import MAP, OFF, Goal
from ollama_sweep.core.units import format_duration
from ollama_sweep.plan.goals import goal as goals
from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.store.goals.keeping import KeptGoal, settled
from ollama_sweep.store.writer import Store


@dataclass(frozen=True)
class Aim:
    """The goal, None where nothing says one, and what the file says of it. `within_s`: so long may the session take."""

    goal: Goal | None
    of_file: str
    within_s: float | None = None

    @property
    def chosen(self) -> Goal | None:
        """The goal that a planner chooses cells for; None for the order of the plan."""
        return None if self.goal is None or self.goal.is_off else self.goal

    @property
    def words(self) -> str:
        """For a person; "" without a goal."""
        if self.chosen is None:
            return ""
        return f"Goal: {self.chosen.words}" + (f", within {format_duration(self.within_s)}" if self.within_s else "")

    def keep(self, store: Store, sweep_id: int) -> None:
        """The goal is the sweep's from now on."""
        if self.goal is not None:
            store.keep_goal(sweep_id, self.goal, self.of_file)
        elif store.goal(sweep_id) is not None:
            store.keep_goal(sweep_id, Goal(OFF), self.of_file)


def aim_of(spec: SweepSpec, kept: KeptGoal | None, within_s: float | None) -> Aim:
    """What a session is for; `kept` is the sweep's goal until now. Raises ConfigError where its grid is none for it."""
    goal, of_file = settled(spec.goal, kept)
    if within_s is not None and (goal is None or goal.is_off):
        goal = Goal(MAP, is_given=True)
    if goal is not None:
        goals.check(goal, spec)
    return Aim(goal, of_file, within_s)
