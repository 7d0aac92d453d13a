"""The goal `best`: a cell that no other one beats by more than 5 %, assuming a smooth surface.

The next cell is the one from which most is to be expected for its seconds: the expected improvement, times the chance
that it fits, divided by the seconds it will take. It ends where in at most one of twenty surfaces that agree with what
was measured an unmeasured cell is more than 5 % faster than the best measured one. Where a cell that is measured in
full is off by more than 5 % by chance, that takes the place of the 5 %: a whole map could not tell more either.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ollama_sweep.run.planners import base
from ollama_sweep.run.planners.base import AT_ONCE, Next, Problem, Reached, Surface

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

LEAST = 5
"""Of fewer measured cells nothing is said."""


def decide(problem: Problem) -> Next | Reached:
    """The next cell, or that the best one is found."""
    opening = base.opening(problem)
    if opening is not None:
        return opening
    found = base.surface(problem)
    if not problem.is_open.any():
        return _end(found, "every cell was measured")
    left = chance_of_better(found)
    how_far = f"chance of {problem.faster}: {base.percent(left)}"
    if left <= problem.doubt and len(found.measured) >= LEAST:
        return _end(found, how_far)
    return step(found, how_far) or _end(found, f"the time is over; {how_far}", is_over=True)


def step(found: Surface, how_far: str) -> Next | None:
    """The cell from which most is to be expected; None where no time is left for one."""
    problem = found.problem
    values = improvement(found) * found.chance / problem.seconds(found.mean)
    values[~problem.is_open] = -1.0
    if problem.left_s is not None:
        values[problem.seconds(found.mean) > problem.left_s] = -1.0
    index = int(values.argmax())
    if values[index] < 0:
        return None
    rate = math.exp(found.mean[index])
    gain = math.exp(found.mean[index] - found.mean[found.best]) - 1
    why = (
        f"expected {rate:.3g} tokens/s ± {100 * 2 * found.deviation[index]:.0f} % ({100 * gain:+.0f} % on the best so "
        f"far), {base.percent(float(found.chance[index]))} that it fits: most to gain for its time"
    )
    return Next(problem.places[index].position, why, how_far, base.once(problem))


def improvement(found: Surface) -> Numbers:
    """How much faster than the best measured one each place is expected to be, as a share; nothing for slower."""
    import numpy as np
    from scipy.special import ndtr

    scaled = (found.mean - found.mean[found.best]) / found.deviation
    density = np.exp(-0.5 * scaled**2) / math.sqrt(2 * math.pi)
    gained: Numbers = found.deviation * (scaled * ndtr(scaled) + density)
    return np.maximum(gained, 1e-12)


def chance_of_better(found: Surface) -> float:
    """How likely an open place is more than 5 % faster than the best measured one."""
    import numpy as np

    problem, best = found.problem, found.best
    hopes = found.mean + 2.5 * found.deviation
    hopes[~problem.is_open | (found.chance < 0.02)] = -math.inf
    most = [int(index) for index in np.argsort(-hopes)[:AT_ONCE] if hopes[index] > found.mean[best] - 0.1]
    if not most:
        return 0.0
    return base.chance_of_faster(found.smooth, found.chance, best, most, problem.close)


def _end(found: Surface, says: str, *, is_over: bool = False) -> Reached:
    place, so_far = found.problem.places[found.best], " so far" if is_over else ""
    what = f"{base.words(place)} is the best{so_far} ({says}, assuming a smooth surface)"
    return Reached(what, (place.position,), failed=is_over)
