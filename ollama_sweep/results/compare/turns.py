"""The two sweeps of a pair: which loads were made in turns, and what their differences say.

What the machine did meanwhile met both loads of a turn, so it is not in their difference. How far such differences
scatter is known of cells with several turns and of the control cells, which are measured in turns as well.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ollama_sweep.core.noise.spread import LOADS_KNOWN_FROM, Load, Spread
from ollama_sweep.core.stats import median
from ollama_sweep.results.compare.matching import Key
from ollama_sweep.results.compare.rule import Change, beside_own
from ollama_sweep.results.compare.sides import Side
from ollama_sweep.store.loads.compared import LoadRow

NEAR_S, NEAR_LOADS = 60.0, 10
"""Two loads are of one turn where so little time, or so many usual loads, lie between their beginnings."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A load with the time it was made at, in seconds."""

    at_s: float
    load: Load
    choice: int
    is_value: bool


@dataclass(frozen=True)
class Turns:
    """What is known of a pair: how far the differences of its turns scatter, and the cells that rest on such alone.

    `changes` are empty where too few turns of one cell are known. `alone` counts loads of values without a partner.
    """

    pair: str = ""
    spread: Spread = field(default_factory=Spread)
    changes: Mapping[Key, Change] = field(default_factory=dict)
    turns: int = 0
    alone: int = 0

    @property
    def are_known(self) -> bool:
        """Enough cells were measured in several turns."""
        return self.spread.df >= LOADS_KNOWN_FROM

    def over_all(self, cells: Sequence[Change], of_load: Sequence[object] = ()) -> Change | None:
        """How all these cells changed together, those that do not rest on turns by the loads of each arm.

        `of_load` as in `rule.change_over_all`: what cells of one turn may have in common counts as all of their error.
        None where no turns are known, or nothing is of one of the others.
        """
        errors = [one.standard_error for one in cells if one.standard_error is not None]
        if not self.changes or not errors or len(errors) < len(cells):
            return None
        count = len(cells)
        ratio = math.fsum(one.log_ratio for one in cells) / count
        shares = [error / math.sqrt(one.loads) for error, one in zip(errors, cells, strict=True)]
        error = math.sqrt(math.fsum(error**2 for error in errors) + beside_own(shares, of_load)) / count
        return Change(ratio, error, min(one.df for one in cells), math.fsum(one.loads for one in cells) / count)


def pair_of(a: Side, b: Side) -> str:
    """The name of the pair whose arms these are, "" for any two other sweeps."""
    of_a, of_b = a.sweep.in_pair, b.sweep.in_pair
    if of_a is None or of_b is None or a.reader is not b.reader or of_a.letter == of_b.letter:
        return ""
    return of_a.pair if of_a.pair == of_b.pair else ""


def timed(row: LoadRow, load: Load) -> Timed:
    """A load of the database."""
    return Timed(datetime.fromisoformat(row.started_at).timestamp(), load, row.choice, row.is_value)


def turns_of(pair: str, a: Mapping[Key, Sequence[Timed]], b: Mapping[Key, Sequence[Timed]]) -> Turns:
    """What the loads of both arms say as turns."""
    near_s = _near_s([*a.values(), *b.values()])
    groups: dict[tuple[Key, int, int], list[float]] = {}
    complete: dict[Key, list[float]] = {}
    turns, alone = 0, 0
    for key in (key for key in a if key in b):
        for is_value in (True, False):
            sides = [[load for load in side[key] if load.is_value is is_value] for side in (a, b)]
            found = in_turns(sides[0], sides[1], near_s)
            apart = [other.load.log_median - one.load.log_median for one, other in found]
            for (one, other), difference in zip(found, apart, strict=True):
                groups.setdefault((key, one.choice, other.choice), []).append(difference)
            if is_value:
                turns += len(found)
                alone += sum(map(len, sides)) - 2 * len(found)
                if found and len(found) == len(sides[0]) == len(sides[1]):
                    complete[key] = apart
    spread = _spread(groups.values())
    if spread.df < LOADS_KNOWN_FROM:
        return Turns(pair, spread, turns=turns, alone=alone)
    return Turns(pair, spread, {key: _change(found, spread) for key, found in complete.items()}, turns, alone)


def in_turns(a: Sequence[Timed], b: Sequence[Timed], near_s: float) -> list[tuple[Timed, Timed]]:
    """The loads of a cell that were made side by side: each is the other's nearest in time, and not far."""
    return [
        (one, other)
        for one in a
        if (other := _nearest(one, b)) is not None
        and _nearest(other, a) is one
        and abs(other.at_s - one.at_s) <= near_s
    ]


def _nearest(one: Timed, others: Sequence[Timed]) -> Timed | None:
    return min(others, key=lambda other: abs(other.at_s - one.at_s), default=None)


def _near_s(cells: Iterable[Sequence[Timed]]) -> float:
    times = sorted(load.at_s for loads in cells for load in loads)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    return max(NEAR_S, NEAR_LOADS * median(gaps)) if gaps else NEAR_S


def _spread(groups: Iterable[Sequence[float]]) -> Spread:
    """Of the differences of the turns of one cell about their mean, pooled over all cells."""
    squares, df = 0.0, 0
    for found in groups:
        mean = math.fsum(found) / len(found)
        squares += math.fsum((one - mean) ** 2 for one in found)
        df += len(found) - 1
    return Spread(math.sqrt(squares / df), df) if df else Spread()


def _change(found: Sequence[float], spread: Spread) -> Change:
    count = len(found)
    return Change(math.fsum(found) / count, spread.sigma / math.sqrt(count), float(spread.df), count)
