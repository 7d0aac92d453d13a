"""The goal `per-context`: for each num_ctx that fits, the fastest num_batch within 5 %, assuming a smooth surface.

The num_batch that is likely the fastest is measured for each num_ctx. Before it is believed, the column may hold no
other one that is likely more than 5 % faster: else the cell is measured that says most about the columns in doubt for
its seconds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ollama_sweep.core.surface.places import Found, Known, Place
from ollama_sweep.core.surface.smooth import Smooth
from ollama_sweep.run.planners import base
from ollama_sweep.run.planners.base import DRAWN, Next, Problem, Reached

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

LIKELY = 0.5


def decide(problem: Problem) -> Next | Reached:
    """The next cell, or that every column has its fastest."""
    opening = base.opening(problem)
    if opening is not None:
        return opening
    columns = Columns(problem)
    how_far = columns.how_far()
    if not columns.doubtful:
        return Reached(f"{how_far} (assuming a smooth surface)", columns.answers())
    chosen = columns.next()
    if chosen is None:
        return Reached(f"the time is over; {how_far} (assuming a smooth surface)", columns.answers(), failed=True)
    index, why = chosen
    return Next(problem.places[index].position, why, how_far, base.once(problem))


class Columns:
    """What is likely of each num_ctx. Two surfaces: of what fits whole, and of what is spilled."""

    def __init__(self, problem: Problem) -> None:
        import numpy as np

        self._np, self.problem = np, problem
        fits, all_rates = problem.of(Known.FITS), problem.rated
        self._smooth = Smooth(problem.places, fits or all_rates, problem.noise)
        self.mean, self.deviation = self._smooth.said()
        self.chance = (problem.fitting.chance if fits else problem.fitting.loads).copy()
        self._spilled_columns(all_rates)
        self._measured = {problem.index[place.position] for place, _ in all_rates}
        self._tried = {problem.index[place.position] for place, _ in problem.known}
        self._miss: dict[int, float] = {}
        self.doubtful = [ctx for ctx in problem.contexts if self._in_doubt(ctx)]

    def _spilled_columns(self, rates: list[tuple[Place, Found]]) -> None:
        """Where no cell of a column fits whole, what is spilled is compared with what is spilled."""
        np, problem = self._np, self.problem
        spilled = [pair for pair in rates if pair[1].known is Known.SPILLED]
        if not spilled or not problem.of(Known.FITS):
            return
        mean, deviation = Smooth(problem.places, spilled, problem.noise).said()
        ctx = np.array([place.num_ctx for place in problem.places])
        for one in problem.contexts:
            column = ctx == one
            if self.chance[column].max() < LIKELY / 5:
                self.mean[column], self.deviation[column] = mean[column], deviation[column]
                self.chance[column] = problem.fitting.loads[column]

    def favourite(self, ctx: int) -> int | None:
        """The place of a column that is likely the fastest, of those that likely fit or are known to; None for none."""
        there = [
            i for i in self.problem.columns[ctx] if self.chance[i] >= LIKELY and (i in self._measured or self._can(i))
        ]
        return max(there, key=lambda i: (self.mean[i], -i)) if there else None

    def _can(self, index: int) -> bool:
        return bool(self.problem.is_open[index]) and index not in self._tried

    def answer(self, ctx: int) -> int | None:
        """The measured place that is named: the likely fastest, and no spilled one while another one fits."""
        column = self.problem.columns[ctx]
        there = [i for i in column if i in self._measured and self.chance[i] >= LIKELY]
        if not there and not any(self._can(i) and self.chance[i] >= LIKELY for i in column):
            there = [i for i in column if i in self._measured]
        return max(there, key=lambda i: (self.mean[i], -i)) if there else None

    def answers(self) -> tuple[int, ...]:
        found = [self.answer(ctx) for ctx in self.problem.contexts]
        return tuple(self.problem.places[i].position for i in found if i is not None)

    def _in_doubt(self, ctx: int) -> bool:
        answer = self.answer(ctx)
        if answer is None:
            return any(self._can(i) and self.chance[i] >= LIKELY for i in self.problem.columns[ctx])
        return self.miss(ctx) > self.problem.doubt

    def miss(self, ctx: int) -> float:
        """How likely an open place of the column is more than 5 % faster than the one that would be named."""
        if ctx not in self._miss:
            self._miss[ctx] = self._chance_of_better(ctx)
        return self._miss[ctx]

    def _chance_of_better(self, ctx: int) -> float:
        answer = self.answer(ctx)
        others = [i for i in self.problem.columns[ctx] if self._can(i) and self.chance[i] > 0.02]
        if answer is None or not others:
            return 0.0 if answer is not None else 1.0
        margin = self.mean[answer] + math.log(1 + self.problem.close)
        hopes = self.mean[others] + 2.5 * self._np.hypot(self.deviation[others], self.deviation[answer])
        if hopes.max() < margin:
            return 0.0
        return base.chance_of_faster(self._smooth, self.chance, answer, others, self.problem.close, DRAWN // 2)

    def next(self) -> tuple[int, str] | None:
        """The index of the cell that comes next, and why; None where no time is left for one."""
        problem = self.problem
        seconds = problem.seconds(self.mean)
        scores: dict[int, float] = {}
        for ctx in self.doubtful:
            for i in problem.columns[ctx]:
                if self._can(i) and problem.has_time(float(seconds[i])):
                    scores[i] = self._worth(ctx, i) / float(seconds[i])
        if not scores:
            return None
        index = max(scores, key=lambda i: (scores[i], -i))
        ctx = problem.places[index].num_ctx
        if self.answer(ctx) is None:
            why = f"num_ctx {ctx} has no cell yet, and this num_batch is likely its fastest"
            return index, why if index == self.favourite(ctx) else f"num_ctx {ctx} has no cell yet"
        return index, f"may be faster than the best so far of num_ctx {ctx}, by what its neighbours say"

    def _worth(self, ctx: int, index: int) -> float:
        """A column without a cell wants its favourite; one with a cell the place that may be faster."""
        answer, chance = self.answer(ctx), float(self.chance[index])
        others = len(self.doubtful)
        if answer is None:
            return (2.0 if index == self.favourite(ctx) else 0.2) * chance * float(self.deviation[index])
        gain = self.mean[index] - self.mean[answer] + self.deviation[index]
        return chance * max(float(gain), 1e-6) * self.miss(ctx) * (1 + 0.05 * others)

    def how_far(self) -> str:
        with_answer = [ctx for ctx in self.problem.contexts if self.answer(ctx) is not None]
        done = len(with_answer) - sum(ctx in self.doubtful for ctx in with_answer)
        words = f"{done} of {len(self.problem.contexts)} values of num_ctx have their fastest num_batch"
        never = [ctx for ctx in self.problem.contexts if ctx not in with_answer and ctx not in self.doubtful]
        return f"{words}, {len(never)} do not fit" if never else words
