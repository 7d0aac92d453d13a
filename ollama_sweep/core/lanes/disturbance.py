"""Does a lane measure something else when its neighbours are at work? Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ollama_sweep.core.cell import label_of
from ollama_sweep.core.lanes.lane import Lane
from ollama_sweep.core.noise.spread import quantile
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Flag

MATTERS = 0.05
"""As large as what `compare` asks for."""


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

    @property
    def is_told(self) -> bool:
        """It is there, or one that matters would have been seen."""
        return self.is_there or self.limit <= MATTERS


def disturbance(alone: Sequence[float], beside: Sequence[float]) -> Disturbance:
    """Of at least two loads each. By Student's t of the logarithms, with one spread for both."""
    logs = [[math.log(rate) for rate in rates] for rates in (alone, beside)]
    middles = [statistics.fmean(found) for found in logs]
    squares = sum((one - middle) ** 2 for found, middle in zip(logs, middles, strict=True) for one in found)
    freedom = sum(map(len, logs)) - 2
    error = math.sqrt(squares / freedom * sum(1 / len(found) for found in logs))
    return Disturbance(math.exp(middles[0]), math.exp(middles[1]), quantile(freedom) * error)


@dataclass(frozen=True)
class Compared:
    """What was measured of lanes: a cell on the first of them, by itself and while the others measured it as well.

    `alone` and `beside` are the rates of its loads, in tokens/s, at least two each. `measured_at`: ISO 8601 in UTC, ""
    where it is not stored.
    """

    lanes: tuple[Lane, ...]
    coordinates: Mapping[str, Scalar]
    alone: tuple[float, ...]
    beside: tuple[float, ...]
    measured_at: str = ""

    @property
    def disturbance(self) -> Disturbance:
        return disturbance(self.alone, self.beside)

    @property
    def words(self) -> str:
        """`num_ctx 512, num_batch 2 on a: 210 tokens/s alone, 189 with b at work (-10.0 %; by chance ± 1.2 %)`."""
        found, (first, *others) = self.disturbance, self.lanes
        where = f"{label_of(self.coordinates.items())} on {first.name}"
        by_chance = f"({100 * found.share:+.1f} %; by chance ± {100 * found.limit:.1f} %)"
        beside = f"{found.beside:.4g} with {', '.join(one.name for one in others)} at work {by_chance}"
        return f"{where}: {found.alone:.4g} tokens/s alone, {beside}"

    @property
    def sentence(self) -> str:
        """What is said of a sweep whose lanes disturb each other."""
        names = ", ".join(lane.name for lane in self.lanes)
        what = f"The lanes {names} disturb each other: {self.words}"
        return f"{what}. Their cells are flagged {Flag.DISTURBED}: compare them with each other only"

    def tells_of(self, lane: Lane) -> bool:
        """This lane was at work: the same name, at the same place."""
        return any((one.name, one.host, one.gpu) == (lane.name, lane.host, lane.gpu) for one in self.lanes)
