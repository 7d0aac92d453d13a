"""How likely a place fits into memory, by the places that did and those that did not.

Memory grows with num_ctx and with num_batch. Where engines say what a load takes, its size is
s0 + s1 num_ctx + s2 num_batch + s3 num_ctx num_batch, and the limit lies between the largest that fitted and the
smallest that did not. What failed otherwise says nothing of memory; but a num_ctx or num_batch that failed so in two
cells and worked in none (num_batch 1 ends some servers) is not hoped for any more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ollama_sweep.core.surface.places import Found, Known, Place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

SURELY, HARDLY = 0.995, 0.005
SIZES_FROM = 4
"""Four numbers want at least so many places."""
NEVER_FROM = 2
"""A value that worked nowhere is given up after so many failed cells: one may be an accident."""
OPTIMISM = 0.75
"""How likely an untried place fits as long as none has failed."""


@dataclass(frozen=True)
class Fitting:
    """`chance` that a place fits whole and is not spilled, and `loads` that it can be loaded at all, by place."""

    chance: Numbers
    loads: Numbers


def fitting(grid: Sequence[Place], results: Sequence[tuple[Place, Found]]) -> Fitting:
    """Of every place of the grid, in its order."""
    whole = [place for place, found in results if found.known is Known.FITS]
    spilled = [place for place, found in results if found.known is Known.SPILLED]
    failed = [place for place, found in results if found.known is Known.FAILED]
    sizes = _sizes(grid, results)
    works = _works(grid, [*whole, *spilled], [place for place, found in results if found.known is Known.TRIED])
    loads = _chance(grid, [*whole, *spilled], failed, sizes)
    chance = _chance(grid, whole, [*spilled, *failed], sizes)
    return Fitting((chance * works).clip(HARDLY), (loads * works).clip(HARDLY))


def _works(grid: Sequence[Place], good: Sequence[Place], bad: Sequence[Place]) -> Numbers:
    """0 where a place has a num_ctx or a num_batch that is given up, else 1."""
    import numpy as np

    never = np.zeros(len(grid), dtype=bool)
    for name in ("num_ctx", "num_batch"):
        failures = Counter(getattr(place, name) for place in bad)
        given_up = {value for value, times in failures.items() if times >= NEVER_FROM}
        given_up -= {getattr(place, name) for place in good}
        never |= np.array([getattr(place, name) in given_up for place in grid], dtype=bool)
    found: Numbers = np.where(never, 0.0, 1.0)
    return found


def _sizes(grid: Sequence[Place], results: Sequence[tuple[Place, Found]]) -> Numbers | None:
    """What every place of the grid takes, in bytes; None where that is not known."""
    import numpy as np

    told = [(place, found.size_bytes) for place, found in results if found.size_bytes]
    if len(told) < SIZES_FROM or len({place.num_ctx for place, _ in told}) < 2:
        return None
    scale = max(place.num_ctx for place in grid), max(place.num_batch for place in grid)
    terms = _terms([place for place, _ in told], scale)
    values = np.array([float(size) for _, size in told])
    found, _, rank, _ = np.linalg.lstsq(terms, values, rcond=None)
    if rank < SIZES_FROM or found[1] <= 0:
        return None
    sizes: Numbers = _terms(grid, scale) @ found
    return sizes


def _terms(places: Sequence[Place], scale: tuple[int, int]) -> Numbers:
    import numpy as np

    ctx = np.array([place.num_ctx / scale[0] for place in places])
    batch = np.array([place.num_batch / scale[1] for place in places])
    return np.stack([np.ones(len(places)), ctx, batch, ctx * batch], axis=1)


def _chance(grid: Sequence[Place], good: Sequence[Place], bad: Sequence[Place], sizes: Numbers | None) -> Numbers:
    """How likely each place is among the good ones."""
    import numpy as np

    ctx, batch = (np.array([getattr(place, name) for place in grid]) for name in ("num_ctx", "num_batch"))
    below, above = np.zeros(len(grid), dtype=bool), np.zeros(len(grid), dtype=bool)
    for place in good:
        below |= (ctx <= place.num_ctx) & (batch <= place.num_batch)
    for place in bad:
        above |= (ctx >= place.num_ctx) & (batch >= place.num_batch)
    measure = sizes if sizes is not None else np.log(ctx.astype(float)) + 0.3 * np.log(batch.astype(float))
    chance = _between(grid, good, bad, measure)
    chance = np.where(below & ~above, np.maximum(chance, SURELY), chance)
    chance = np.where(above & ~below, np.minimum(chance, HARDLY), chance)
    found: Numbers = np.clip(chance, HARDLY, SURELY)
    return found


def _between(grid: Sequence[Place], good: Sequence[Place], bad: Sequence[Place], measure: Numbers) -> Numbers:
    """By how large a place is: likely up to the largest good one, unlikely from the smallest bad one."""
    import numpy as np

    at = {(place.num_ctx, place.num_batch): index for index, place in enumerate(grid)}
    largest = max((measure[at[place.num_ctx, place.num_batch]] for place in good), default=-math.inf)
    smallest = min((measure[at[place.num_ctx, place.num_batch]] for place in bad), default=math.inf)
    if not bad:
        return np.where(measure <= largest, SURELY, OPTIMISM)
    if not good:
        return np.where(measure >= smallest, HARDLY, 0.5)
    low, high = min(largest, smallest), max(largest, smallest)
    width = max(high - low, 1e-9)
    share = np.clip((measure - low) / width, -0.05, 1.05)
    found: Numbers = np.clip(1 - share, HARDLY, SURELY)
    return found
