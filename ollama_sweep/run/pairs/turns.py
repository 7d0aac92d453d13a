"""Whose turn it is of two sweeps: load by load A B B A, so that what the machine does meanwhile meets both alike.

It follows from what is stored: which place each arm has come to. So a session that goes on with a pair needs to
remember nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ollama_sweep.core.events import SweepFinished, SweepStarted
from ollama_sweep.core.outcome import Purpose, Status
from ollama_sweep.plan.pairs.matching import Places
from ollama_sweep.run.loop import Execution
from ollama_sweep.run.turns import FurtherTurn, Turn
from ollama_sweep.run.waiting import Emit

IN_PLACE = frozenset({Purpose.REPEATS, Purpose.PAIR})
"""Further loads that are made where their cell stands in the plan; all others follow when every cell is done."""


@dataclass
class TakingTurns:
    """Both arms, each with its own plan, segment, controls and second look; one is measured at a time."""

    name: str
    arms: tuple[Execution, Execution]
    places: Places
    emit: Emit
    _at: int | None = None

    def __post_init__(self) -> None:
        for one, other in (self.arms, self.arms[::-1]):
            one.left_beside = other.seconds_left
        self.arms[1].watches_clock = False  # a clock that was set is said once

    def run(self) -> None:
        """Measure until no cell of either is pending. Raises as `Execution.run`."""
        self.emit(self._started())
        try:
            while (found := self._next()) is not None:
                number, turn = found
                self._take(number, turn)
        finally:
            for arm in self.arms:
                arm.correct()
        self.arms[0].look_at_clock()
        self.emit(SweepFinished(self.name, stopped=False))

    def _started(self) -> SweepStarted:
        both = [arm.started() for arm in self.arms]
        counts: Counter[Status] = Counter()
        for one in both:
            counts.update(one.counts)
        left = [one.seconds_left for one in both if one.seconds_left is not None]
        return SweepStarted(
            self.name, sum(one.total for one in both), sum(one.done for one in both), dict(counts),
            sum(left) if len(left) == len(both) else None,
        )  # fmt: skip

    def _take(self, number: int, turn: Turn) -> None:
        arm, other = self.arms[number], self.arms[1 - number]
        if self._at != number and not arm.stopping.requested:
            other.unload()  # one model in memory at a time, and a fresh load in each turn
            self._at = number
        arm.take(turn)
        if other.cooling is not None:
            other.cooling.after_cell()

    # -- whose turn ------------------------------------------------------------------------------------------------

    def _next(self) -> tuple[int, Turn] | None:
        """The arm and its load; None where nothing is left to do."""
        in_place = [self._in_place(arm) for arm in self.arms]
        if any(in_place):
            return self._first(in_place, self._by_place)
        return self._first([arm.further_turn() for arm in self.arms], self._by_stage)

    @staticmethod
    def _in_place(arm: Execution) -> Turn | None:
        """The first place of the plan at which an arm has something to do."""
        own, load = arm.own_turn(), arm.store.next_further(arm.sweep_id, IN_PLACE)
        if load is None or (own is not None and own.position <= load.position):
            return own
        return arm.further_turn(load)

    def _first(self, turns: Sequence[Turn | None], which: Callable[[Turn, Turn], int]) -> tuple[int, Turn] | None:
        a, b = turns
        number = which(a, b) if a is not None and b is not None else 0 if a is not None else 1
        turn = turns[number]
        return None if turn is None else (number, turn)

    def _by_place(self, a: Turn, b: Turn) -> int:
        """Who is behind; at the same load who has begun it, or A in every other one."""
        of_a, of_b = (loads[turn.position] for loads, turn in zip(self.places.loads, (a, b), strict=True))
        if of_a != of_b:
            return int(of_b < of_a)
        begun = [self._begun(number, turn.position) for number, turn in enumerate((a, b))]
        return int(begun[1] > begun[0]) if begun[0] != begun[1] else of_a % 2

    def _begun(self, number: int, position: int) -> int:
        """How many cells of the same load stand before this one."""
        loads, count = self.places.loads[number], 0
        while position > count and loads[position - count - 1] == loads[position]:
            count += 1
        return count

    @staticmethod
    def _by_stage(a: Turn, b: Turn) -> int:
        """The same of further loads: passes, then second looks, each in its order."""
        of_a, of_b = _stage(a), _stage(b)
        return int(of_b < of_a) if of_a != of_b else of_a[-1] % 2


def _stage(turn: Turn) -> tuple[int, int, int]:
    assert isinstance(turn, FurtherTurn)
    load, is_look = turn.further, turn.further.purpose is Purpose.SECOND_LOOK
    return int(is_look), load.number, load.place - (not is_look)  # a stage counts its places from 0, a pass from 1


def order_of(places: Places, number: int) -> list[int]:
    """The positions of an arm, in an order in which those of the other arm stand at the same places; -1: none."""
    own, other = places.partners[number], places.partners[1 - number]
    if number == 0:
        return [*range(len(own)), *(-1 for at in other if at < 0)]
    return [*other, *(at for at, partner in enumerate(own) if partner < 0)]
