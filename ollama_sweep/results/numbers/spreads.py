"""The spreads of a segment made again, of what its loads said, and what they make of intervals. Pure."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING

from ollama_sweep.core.noise.spread import Sums, half_width
from ollama_sweep.results.numbers.tally import Tally

if TYPE_CHECKING:
    from ollama_sweep.store.loads.spreads import StoredSpread

SHARE = 1e-6
"""Sums are kept up load by load, and what was added is taken off again: they are not equal to the last digit."""


def check(stored: StoredSpread) -> Tally:
    """The sums against those of the loads, the spreads and the factors against the sums."""
    tally = Tally()
    part = f"{stored.metric} of segment {stored.segment}"
    for one in fields(Sums):
        found, made = getattr(stored.sums, one.name, None), getattr(stored.made, one.name)
        is_near = found is not None and math.isclose(found, made, rel_tol=SHARE, abs_tol=1e-12)
        tally.compare(part, one.name, found, found if is_near else made)
    if stored.sums is None:
        return tally
    spreads = stored.sums.spreads
    for name, of, found in zip(("runs", "loads"), (spreads.runs, spreads.loads), stored.spreads, strict=True):
        tally.compare(part, f"{name}_spread", found, of.sigma if of.df else None)
    for (loads, runs), factor in stored.shapes.items():
        half = half_width(spreads, runs=runs, loads=loads)
        name = f"factor of the interval of {loads} loads with {runs} runs"
        tally.compare(part, name, factor, None if half is None else math.exp(half))
    return tally
