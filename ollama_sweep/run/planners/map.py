"""The goal `map`: every cell, the cheap way. Whole columns, those first that say most of what lies between.

A cell is run once where that run agrees with what its measured neighbours say, within max(3 %, 2 × what a single run
and its neighbours are unsure by), and as often as the sweep says where it surprises or where the neighbours do not say
enough. What is spilled is run once. The run before the counted ones is left out as soon as it has made no difference in
several cells.
With a limit of time the cells come first that nothing says much of yet, for their seconds; what is left is predicted,
assuming a smooth surface.
"""

from __future__ import annotations

import math

from ollama_sweep.core.surface.goal import Runs
from ollama_sweep.core.surface.places import Found, Known, Place
from ollama_sweep.core.surface.smooth import Smooth
from ollama_sweep.run.planners import base
from ollama_sweep.run.planners.base import Next, Problem, Reached

AGREES = 0.03
NEIGHBOURS = 24
"""So many of the nearest measured cells say what is expected."""
NEIGHBOURS_LEAST = 6


def decide(problem: Problem) -> Next | Reached:
    """The next cell of the map, or that it is whole."""
    total = len(problem.places)
    left = int(problem.is_open.sum())
    how_far = f"{total - left} of {total} cells"
    if not left:
        return Reached("every cell of the map was measured")
    if problem.left_s is not None:
        chosen = _most_unknown(problem)
        if chosen is None:
            others = "the others are predicted, assuming a smooth surface"
            return Reached(f"the time is over with {how_far} measured; {others}", failed=True)
    else:
        chosen = _in_order(problem)
    index, why = chosen
    runs = runs_for(problem, index)
    return Next(problem.places[index].position, f"{why}; {_words(runs)}", how_far, runs)


def _in_order(problem: Problem) -> tuple[int, str]:
    """Columns first, last, middle, quarters …; a column in the order of the plan."""
    for ctx in base.spread_out(problem.contexts):
        for index in problem.columns[ctx]:
            if problem.is_open[index]:
                return index, f"the map goes on in the column num_ctx {ctx}: first, last, middle, quarters …"
    raise AssertionError("no cell is open")


def _most_unknown(problem: Problem) -> tuple[int, str] | None:
    """For a limit of time: the cell that nothing says much of yet, for its seconds."""
    first = base.start(problem)
    if first is not None:
        return (first, base.FIRST) if problem.has_time() else None
    if not problem.rated:
        index = base.smallest(problem)
        return (index, "no cell has given a rate yet") if index is not None and problem.has_time() else None
    found = base.surface(problem)
    seconds = problem.seconds(found.mean)
    values = found.deviation * problem.fitting.loads / seconds
    values[~problem.is_open] = -1.0
    if problem.left_s is not None:
        values[seconds > problem.left_s] = -1.0
    index = int(values.argmax())
    if values[index] < 0:
        return None
    return index, f"its rate is the least known for its seconds (± {100 * 2 * found.deviation[index]:.0f} %)"


# -- how often it is run ---------------------------------------------------------------------------------------------


def runs_for(problem: Problem, index: int) -> Runs:
    """Once, where its neighbours say what is expected of it."""
    warmup = not base.is_warm(problem)
    expected = _expected(problem, index)
    by_chance = 2 * problem.noise.of_one_run
    if expected is None or expected[1] > max(AGREES, by_chance):
        return Runs(warmup=warmup, is_once_where_spilled=True)
    tolerance = max(AGREES, math.hypot(by_chance, 2 * expected[1]))
    return Runs(1, math.exp(expected[0]), tolerance, warmup=warmup, is_once_where_spilled=True)


def _expected(problem: Problem, index: int) -> tuple[float, float] | None:
    """The logarithm of the rate by what the nearest measured cells say, and how sure that is; None for too few."""
    here = problem.places[index]
    near = sorted(problem.of(Known.FITS), key=lambda pair: _way(pair, here))[:NEIGHBOURS]
    if len(near) < NEIGHBOURS_LEAST:
        return None
    grid = [*(place for place, _ in near), here]
    mean, deviation = Smooth(grid, near, problem.noise).said()
    return float(mean[-1]), float(deviation[-1])


def _way(pair: tuple[Place, Found], here: Place) -> float:
    place, _ = pair
    ctx = abs(math.log2(place.num_ctx / here.num_ctx))
    return math.hypot(math.log2(place.num_batch / here.num_batch), 2 * ctx)


def _words(runs: Runs) -> str:
    before = "" if runs.warmup else ", without a run before it, which has made no difference here"
    if runs.most is None:
        return f"its neighbours do not say enough of it, so it is run in full{before}"
    return (
        f"one run, if that is {runs.expected:.3g} tokens/s ± {100 * runs.tolerance:.0f} % as its neighbours say{before}"
    )
