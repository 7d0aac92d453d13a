"""Which pending cell comes next where a sweep has a goal, how often it is run, and when the goal is reached.

All that decides lies in the database: whoever goes on after a crash chooses as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ollama_sweep.core.events import Notice
from ollama_sweep.core.summary import PROMPT_RATE
from ollama_sweep.core.surface.goal import BEST, FULL, LARGEST, MAP, PER_CONTEXT, Goal, Runs
from ollama_sweep.core.surface.places import Noise
from ollama_sweep.core.units import format_duration
from ollama_sweep.machine.clocks import REAL, Clock
from ollama_sweep.run.planners import best, largest, per_context
from ollama_sweep.run.planners import map as whole_map
from ollama_sweep.run.planners.base import DOUBT, STILL, Next, Problem, Reached
from ollama_sweep.run.waiting import Emit
from ollama_sweep.store.goals.cells import GoalCell
from ollama_sweep.store.goals.keeping import Chosen
from ollama_sweep.store.rows import PendingCell
from ollama_sweep.store.writer import Store

PLANNERS: Mapping[str, Callable[[Problem, Goal], Next | Reached]] = {
    MAP: lambda problem, goal: whole_map.decide(problem),
    BEST: lambda problem, goal: best.decide(problem),
    PER_CONTEXT: lambda problem, goal: per_context.decide(problem),
    LARGEST: largest.decide,
}


class By(Protocol):
    """Who decides in place of the goal's own planner: `kind` is what the cells are beside num_ctx and num_batch."""

    def decide(self, kind: str, problem: Problem, goal: Goal) -> Next | Reached:
        """What comes next."""
        ...


class ByGoal:
    """The planner of the goal."""

    def decide(self, kind: str, problem: Problem, goal: Goal) -> Next | Reached:
        """What comes next."""
        return PLANNERS[goal.kind](problem, goal)


@dataclass(frozen=True)
class Choice:
    """The pending cell whose turn it is, why, and how often it is run."""

    pending: PendingCell
    why: Chosen
    runs: Runs = FULL


@dataclass
class Steering:
    """Asks the planner of a goal. `within_s`: so long may this session take, None for as long as it takes.

    A grid is what differs in num_ctx and num_batch alone; each has the goal for itself, one after the other.
    """

    store: Store
    sweep_id: int
    goal: Goal
    emit: Emit
    within_s: float | None = None
    clock: Clock = REAL
    by: By = field(default_factory=ByGoal)
    _begun_s: float = field(init=False)
    _kinds: Mapping[int, str] | None = None
    _has_ended: bool = False
    _was_reached: bool = False

    def __post_init__(self) -> None:
        self._begun_s = self.clock.monotonic_s()

    @property
    def wants_all(self) -> bool:
        """Every cell is measured, so the time left is known."""
        return self.goal.kind == MAP and self.within_s is None and isinstance(self.by, ByGoal)

    def next(self) -> Choice | None:
        """The cell whose turn it is; None where the goal is reached, or cannot be. That is stored and said, once."""
        cells = self._cells()
        ended: list[Reached] = []
        for kind, group in self._groups(cells).items():
            found = self.by.decide(kind, self._problem(group), self.goal)
            if isinstance(found, Next):
                self._has_ended = False
                return self._choice(group, found)
            ended.append(found)
        self._end(cells, ended)
        return None

    def is_reached(self) -> bool:
        """Whether there is nothing to measure for it; nothing is stored or said."""
        groups = self._groups(self._cells()).items()
        return all(isinstance(self.by.decide(kind, self._problem(group), self.goal), Reached) for kind, group in groups)

    def _cells(self) -> list[GoalCell]:
        stored = self.store.goal(self.sweep_id)
        self._was_reached = stored is not None and stored.is_reached
        return self.store.goal_cells(self.sweep_id)

    def _groups(self, cells: Sequence[GoalCell]) -> dict[str, list[GoalCell]]:
        if self._kinds is None:
            self._kinds = self.store.goal_kinds(self.sweep_id)
        found: dict[str, list[GoalCell]] = {}
        for cell in cells:
            found.setdefault(self._kinds.get(cell.place.position, ""), []).append(cell)
        return found

    def _problem(self, group: Sequence[GoalCell]) -> Problem:
        return Problem(
            places=tuple(cell.place for cell in group),
            open=frozenset(cell.place.position for cell in group if cell.is_open),
            results={cell.place.position: cell.found for cell in group if cell.found is not None and not cell.is_open},
            noise=Noise.of(self.store.spreads(self.sweep_id).get(PROMPT_RATE)),
            doubt=STILL if self._was_reached else DOUBT,
            left_s=None
            if self.within_s is None
            else max(0.0, self._begun_s + self.within_s - self.clock.monotonic_s()),
        )

    def _choice(self, group: Sequence[GoalCell], found: Next) -> Choice:
        cell = next(cell for cell in group if cell.place.position == found.position)
        return Choice(cell.pending, Chosen(self.goal.kind, found.why, found.how_far), found.runs)

    def _end(self, cells: Sequence[GoalCell], ended: Sequence[Reached]) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        is_reached = all(not one.failed for one in ended)
        says = "; ".join(one.says for one in ended)
        key = {cell.place.position: cell.pending.key for cell in cells}
        answers = [key[position] for one in ended for position in one.answers]
        self.store.end_goal(self.sweep_id, says, answers, is_reached=is_reached)
        left = sum(cell.is_open for cell in cells)
        word = "Goal reached" if is_reached else "Goal not reached"
        over = "" if self.within_s is None else f" within {format_duration(self.within_s)}"
        more = "" if self.goal.kind == MAP or not left else ". Every cell with: --goal map"
        self.emit(Notice(f"{word}{over}, {left} of {len(cells)} not measured. {self.goal.words}: {says}{more}"))
