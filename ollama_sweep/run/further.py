"""What is measured once every cell has been: further passes, then the second look. Decides; the loop measures.

Everything that it decides is in the database before it is done, so that a later session goes on with it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ollama_sweep.core.events import Notice
from ollama_sweep.core.outcome import CellResult, Purpose
from ollama_sweep.core.units import format_duration
from ollama_sweep.results import second_look
from ollama_sweep.results.second_look import Doubt
from ollama_sweep.run.waiting import Emit
from ollama_sweep.store.loads.further import FurtherLoad, Look, Wish
from ollama_sweep.store.writer import Store

T = TypeVar("T")
FIRST_STAGE, LAST_STAGE = 1, 2


def together(some: Sequence[T], weights: Callable[[T], tuple[str, str]]) -> list[T]:
    """In their order, but those of a model behind the first of it, and of these those of a server."""
    found = [weights(one) for one in some]
    ranks = [{key: rank for rank, key in enumerate(dict.fromkeys(keys))} for keys in zip(*found, strict=True)]
    return sorted(some, key=lambda one: tuple(rank[key] for rank, key in zip(ranks, weights(one), strict=True)))


def shuffled(order: Sequence[int], weights: Mapping[int, tuple[str, str]], seed: int) -> list[int]:
    """Positions in an order that looks random and is the same at every start; models and servers stay together."""
    found = [*order]
    random.Random(seed).shuffle(found)  # noqa: S311
    return together(found, lambda position: weights.get(position, ("", "")))


@dataclass
class Following:
    """The further loads of a sweep. `results` are its cells as they stand now; `order` is of the positions that a pass
    shuffles, where those below 0 are none.

    `weights` are by position what is dear to change, model and server: loads that need the same follow one another;
    empty where everything is shuffled. `doubtful` is the same as `results`, and which are off their neighbours by
    position where that cannot be seen of these cells.
    """

    store: Store
    sweep_id: int
    passes: int
    emit: Emit
    results: Callable[[], Sequence[CellResult]]
    order: Sequence[int]
    doubtful: Callable[[], tuple[Sequence[CellResult], Mapping[int, float] | None]]
    weights: Callable[[], Mapping[int, tuple[str, str]]] = dict

    def __call__(self) -> FurtherLoad | None:
        """The load whose turn is next; None where nothing is left to do."""
        while True:
            load = self.store.next_further(self.sweep_id)
            if load is not None and not self._is_too_much(load):
                return load
            if load is not None:
                self._go_on_from(self.store.second_look(self.sweep_id))
            elif not (self._next_pass() or self._go_on_from(self.store.second_look(self.sweep_id))):
                return None

    def _next_pass(self) -> bool:
        """Begin the next pass over the grid that is not done; False where all are."""
        for number in range(2, self.passes + 1):
            order = shuffled(self.order, self.weights(), number)
            if count := self.store.want_pass(self.sweep_id, number, order):
                self.emit(Notice(f"Pass {number} of {self.passes}: {count} cells once more, in another order"))
                return True
        return False

    # -- the second look ---------------------------------------------------------------------------------------------

    def _go_on_from(self, look: Look | None) -> bool:
        """Begin its next stage, or end it; False where there is none to go on with."""
        if look is None or look.is_over:
            return False
        if look.stage >= LAST_STAGE:
            self.store.end_look(self.sweep_id)
            return False
        loads = self._loads_left(look)
        if look.stage < FIRST_STAGE:
            results, off = self.doubtful()
            doubts = second_look.doubts(results, self.store.spreads(self.sweep_id), loads, off)
            self._begin(look, FIRST_STAGE, doubts, 1)
        else:
            of_all_loads = self.store.of_all_loads(self.sweep_id, second_look.AMONG_THE_BEST)
            best = second_look.best_ones(self.results(), of_all_loads)
            each = min(second_look.MOST_OF_THE_BEST, max(1, loads // max(1, len(best))))
            self._begin(look, LAST_STAGE, best[: max(1, loads)], each)
        return True

    def _begin(self, look: Look, stage: int, doubts: Sequence[Doubt], loads: int) -> None:
        weights = self.weights()
        wishes = [Wish(second_look.position_of(doubt.cell), doubt.reason) for doubt in doubts]
        wishes = together(wishes, lambda wish: weights.get(wish.position, ("", "")))
        self.store.begin_stage(look.look_id, stage, wishes, loads=loads)
        if wishes:
            limit = format_duration(self._budget_s(look))
            what = f"{len(wishes)} cell{'s' if len(wishes) > 1 else ''} once more" + (
                f", {loads} times" if loads > 1 else ""
            )
            self.emit(Notice(f"Second look (at most {limit}): {what}"))

    def _budget_s(self, look: Look) -> float:
        """So long may all second looks of the sweep take."""
        took = self.store.seconds(self.sweep_id)
        return look.share * sum(seconds for purpose, seconds in took.items() if purpose is not Purpose.SECOND_LOOK)

    def _spent_s(self) -> float:
        return self.store.seconds(self.sweep_id).get(Purpose.SECOND_LOOK, 0.0)

    def _loads_left(self, look: Look) -> int:
        """So many loads more fit into its time; at least one."""
        left_s, each_s = self._budget_s(look) - self._spent_s(), self._seconds_per_load()
        return max(1, int(left_s / each_s)) if each_s else 1

    def _seconds_per_load(self) -> float:
        history = [took.seconds for took in self.store.history(self.sweep_id)]
        return sum(history) / len(history) if history else 0.0

    def _is_too_much(self, load: FurtherLoad) -> bool:
        """The time of the second look is over; the best cell is looked at once whatever it takes."""
        if load.purpose is not Purpose.SECOND_LOOK:
            return False
        look = self.store.second_look(self.sweep_id)
        if look is not None and not look.is_over and self._has_time(look, load):
            return False
        self.store.drop_second_look(self.sweep_id)
        return True

    def _has_time(self, look: Look, load: FurtherLoad) -> bool:
        """Before the last stage one load is kept for it; its first one is made whatever it takes."""
        is_last = load.number >= LAST_STAGE
        if is_last and not self.store.has_looked(look.look_id, LAST_STAGE):
            return True
        kept_s = 0.0 if is_last else self._seconds_per_load()
        return self._spent_s() + kept_s < self._budget_s(look)
