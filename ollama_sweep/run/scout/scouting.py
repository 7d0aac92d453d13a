"""What planners are told in a scouted sweep: the scout of what does not fit, its sweep of what the scout has found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from ollama_sweep.core.summary import PROMPT_RATE
from ollama_sweep.core.surface.goal import Goal
from ollama_sweep.core.surface.places import Found, Known, Noise
from ollama_sweep.run.planners import scout
from ollama_sweep.run.planners.base import Next, Problem, Reached
from ollama_sweep.run.planners.steering import PLANNERS
from ollama_sweep.store.goals.scouting import Where, found_by, scouted_of
from ollama_sweep.store.writer import Store


@dataclass(frozen=True)
class WithoutBeyond:
    """The scout's own planner: what is known not to fit is never loaded."""

    beyond: frozenset[int]

    def decide(self, kind: str, problem: Problem, goal: Goal) -> Next | Reached:
        """As the goal's planner, with these positions failed."""
        known = {position: Found(Known.FAILED) for position in problem.open & self.beyond}
        told = replace(problem, open=problem.open - self.beyond, results={**problem.results, **known})
        return PLANNERS[goal.kind](told, goal)


@dataclass
class ByScout:
    """The planner of the sweep itself. `beyond` are positions of the scout's plan."""

    store: Store
    scout_id: int
    beyond: frozenset[int]

    @cached_property
    def _found(self) -> dict[Where, Found]:
        """Nothing of it changes any more when this is asked."""
        return found_by(self.store.goal_cells(self.scout_id), self.store.goal_kinds(self.scout_id), self.beyond)

    @cached_property
    def _noise(self) -> Noise:
        return Noise.of(self.store.spreads(self.scout_id).get(PROMPT_RATE))

    def decide(self, kind: str, problem: Problem, goal: Goal) -> Next | Reached:
        """What this engine must measure itself."""
        return scout.decide(problem, goal, scouted_of(kind, problem.places, self._found, self._noise))
