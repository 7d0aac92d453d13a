"""The goal `largest`: the largest num_ctx that keeps most of the best rate, is not spilled and answers in time.

Assuming a smooth surface. Cells beyond the largest num_ctx so far that likely hold what is asked for are tried, those
that promise most values of num_ctx for their seconds first: that is a bisection where nothing is known. What is asked
for hangs on the best rate, so a cell that may be much faster is measured as well, and where the best rate is known less
than that of the cell to try, the cell that says more of how far these two are apart for its seconds.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from ollama_sweep.core.surface.goal import Goal
from ollama_sweep.core.surface.places import Found, Known
from ollama_sweep.run.planners import base, best
from ollama_sweep.run.planners.base import AT_ONCE, DRAWN, Next, Problem, Reached, Surface

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

LEAST = 4
APART = 0.02
"""A rate that is so near to what is asked for holds it or not: more cells than it is worth would be needed to tell."""
FOR_CERTAIN = 0.9
"""A cell that so likely fits need not be tried to learn whether it does."""


def decide(problem: Problem, asked: Goal) -> Next | Reached:
    """The next cell, or what the largest num_ctx is, or that none holds what is asked for."""
    opening = base.opening(problem, 3)
    return opening if opening is not None else _Search(base.surface(problem), asked).decide()


class _Search:
    """What is likely of the cells beyond the largest num_ctx that holds what is asked for."""

    def __init__(self, found: Surface, asked: Goal) -> None:
        import numpy as np

        self._np, self.found, self.problem, self.asked = np, found, found.problem, asked
        self._held = [i for i in found.measured if self._holds(i)]
        self._ctx = np.array([place.num_ctx for place in self.problem.places])
        self._largest = max((self.problem.places[i].num_ctx for i in self._held), default=0)
        beyond = self.problem.is_open & (self._ctx > self._largest) & (found.chance > 0.02)
        self._beyond = [int(i) for i in np.flatnonzero(beyond)]

    def _seconds_of(self, rate: float) -> float:
        return self.problem.each_run_s / rate

    def _holds(self, index: int) -> bool:
        """Of a measured place, by what all of them say of the best one."""
        place = self.problem.places[index]
        seen: Found = self.problem.results[place.position]
        best_rate = self.found.mean[self.found.best]
        if seen.known is not Known.FITS or self.found.mean[index] < best_rate + math.log(self.asked.rate):
            return False
        return self.asked.ttft_s is None or self._first_token_s(seen) <= self.asked.ttft_s

    def _first_token_s(self, seen: Found) -> float:
        assert seen.rate is not None
        return seen.ttft_s if seen.ttft_s is not None else (seen.count or self.problem.each_run_s) / seen.rate

    def decide(self) -> Next | Reached:
        holds = self._chances()
        left = self._any
        how_far = self._how_far(left)
        if left > self.problem.doubt:
            return self._step(holds, how_far) or self._end(f"the time is over; {how_far}", is_over=True)
        if len(self.found.measured) < LEAST:
            step = self._step(holds, how_far)
            if step is not None:
                return step
        if not self._held or best.chance_of_better(self.found) <= 3 * self.problem.doubt:
            return self._end(how_far)
        step = best.step(self.found, how_far)
        if step is None:
            return self._end(f"the time is over, and the best rate is not sure yet; {how_far}", is_over=True)
        return replace(step, why=f"the best rate is not sure yet: {step.why}")

    def _chances(self) -> Numbers:
        """How likely each place beyond holds what is asked for; `_any` that one of them does."""
        np, found = self._np, self.found
        holds: Numbers = np.zeros(len(self.problem.places))
        self._any = 0.0
        if not self._beyond:
            return holds
        doubt = np.hypot(found.deviation[self._beyond], found.deviation[found.best])
        hopes = found.mean[self._beyond] + 2.5 * doubt
        floor = found.mean[found.best] + math.log(self.asked.rate)
        if self.asked.ttft_s is not None:
            floor = max(floor, math.log(self.problem.each_run_s / self.asked.ttft_s))
        some = [i for i, hope in zip(self._beyond, hopes, strict=True) if hope >= floor]
        some = sorted(some, key=lambda i: -(found.mean[i] + found.deviation[i]) * found.chance[i])[:AT_ONCE]
        if not some:
            return holds
        drawn = found.smooth.draws([found.best, *some], DRAWN)
        enough = drawn[:, 1:] >= drawn[:, :1] + math.log(self.asked.rate * (1 + APART))
        if self.asked.ttft_s is not None:
            enough &= drawn[:, 1:] >= math.log(self.problem.each_run_s / self.asked.ttft_s)
        both = enough & base.that_fit(found.chance[some], DRAWN)
        self._any = float(both.any(axis=1).mean())
        holds[some] = both.mean(axis=0)
        return holds

    def _step(self, holds: Numbers, how_far: str) -> Next | None:
        problem, seconds = self.problem, self.problem.seconds(self.found.mean)
        contexts = problem.contexts
        rank = {ctx: number for number, ctx in enumerate(contexts)}
        at = rank.get(self._largest, -1)
        scores = {
            i: holds[i] * (rank[problem.places[i].num_ctx] - at) / math.sqrt(float(seconds[i]))
            for i in self._beyond if problem.has_time(float(seconds[i])) and holds[i] > 0
        }  # fmt: skip
        if not scores:
            return None
        index = max(scores, key=lambda i: (scores[i], -i))
        telling = self._most_telling(index, seconds)
        if telling != index:
            why = (
                f"says most of how far num_ctx {problem.places[index].num_ctx} is from the best rate, which is known "
                f"within {100 * 2 * self.found.deviation[self.found.best]:.0f} %"
            )
            return Next(problem.places[telling].position, why, how_far, base.once(problem))
        what = f"num_ctx {self._largest}" if self._largest else "none yet"
        why = (
            f"holds what is asked for with {base.percent(float(holds[index]))}, and its num_ctx lies beyond the "
            f"largest that does ({what})"
        )
        return Next(problem.places[index].position, why, how_far, base.once(problem))

    def _most_telling(self, index: int, seconds: Numbers) -> int:
        """The place that says most, for its seconds, of how far `index` is from the best; often `index` itself."""
        np, found, problem = self._np, self.found, self.problem
        best_one = found.best
        if found.chance[index] < FOR_CERTAIN or found.deviation[index] >= found.deviation[best_one]:
            return index
        can = [int(i) for i in np.flatnonzero(problem.is_open & (found.chance >= FOR_CERTAIN))
               if i != index and problem.has_time(float(seconds[i]))]  # fmt: skip
        near = sorted(can, key=lambda i: (abs(self._ctx[i] - self._ctx[best_one]), -found.mean[i]))
        places = [index, *near[: AT_ONCE // 4]]
        drawn = found.smooth.draws([best_one, *places], DRAWN)
        drawn = drawn - drawn.mean(axis=0)
        apart = drawn[:, 1] - drawn[:, 0]
        shared = (drawn[:, 1:] * apart[:, None]).mean(axis=0) ** 2
        noise = problem.noise.variance(Found(Known.FITS, 1.0, 1, 1))
        worth = shared / ((drawn[:, 1:] ** 2).mean(axis=0) + noise) / seconds[places]
        return places[int(worth.argmax())]

    def _how_far(self, left: float) -> str:
        if not self._held:
            return f"no num_ctx holds what is asked for yet; one may with {base.percent(left)}"
        return f"num_ctx {self._largest} holds what is asked for; a larger one may with {base.percent(left)}"

    def _end(self, says: str, *, is_over: bool = False) -> Reached:
        if not self._held:
            return Reached(says if is_over else f"no num_ctx holds what is asked for ({self._words()})", failed=True)
        so_far = " so far" if is_over else ""
        there = [i for i in self._held if self.problem.places[i].num_ctx == self._largest]
        index = max(there, key=lambda i: (self.found.mean[i], -i))
        place = self.problem.places[index]
        what = f"{base.words(place)} is the largest{so_far} with {self._words()} ({says}, assuming a smooth surface)"
        return Reached(what, (place.position,), failed=is_over)

    def _words(self) -> str:
        parts = [f"{100 * self.asked.rate:g} % of the best rate", "nothing spilled"]
        parts += [f"the first token within {self.asked.ttft_s:g} s"] if self.asked.ttft_s is not None else []
        return ", ".join(parts)
