"""Does a lane measure something else when its neighbours are at work? Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ollama_sweep.core.noise.spread import quantile


@dataclass(frozen=True)
class Disturbance:
    """Rates of one cell, in tokens/s, on one lane: the means alone and beside its neighbours, and the relative
    difference between both that chance explains."""

    alone: float
    beside: float
    limit: float

    @property
    def share(self) -> float:
        """How much faster it is beside the others; negative where it is slower."""
        return self.beside / self.alone - 1

    @property
    def is_there(self) -> bool:
        """The difference is larger than loads differ by chance."""
        return abs(math.log(self.beside / self.alone)) > self.limit


def disturbance(alone: Sequence[float], beside: Sequence[float]) -> Disturbance:
    """Of at least two loads each. By Student's t of the logarithms, with one spread for both."""
    logs = [[math.log(rate) for rate in rates] for rates in (alone, beside)]
    middles = [statistics.fmean(found) for found in logs]
    squares = sum((one - middle) ** 2 for found, middle in zip(logs, middles, strict=True) for one in found)
    freedom = sum(map(len, logs)) - 2
    error = math.sqrt(squares / freedom * sum(1 / len(found) for found in logs))
    return Disturbance(math.exp(middles[0]), math.exp(middles[1]), quantile(freedom) * error)
