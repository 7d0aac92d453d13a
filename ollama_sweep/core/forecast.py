"""How long a sweep will take, of what its last attempts took: the one clock of `run`, `plan`, `status` and `watch`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

RECENT_ATTEMPTS = 50
"""So many of a sweep's last attempts speak for the cells to come: in its order neighbours are alike."""


@dataclass(frozen=True)
class Took:
    """A finished attempt at a cell, failed ones and those before a retry among them."""

    cell: int
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """The pace and the time left; `low` to `high` hold it 9 times in 10. None is unknown."""

    seconds_per_cell: float | None = None
    seconds_left: float | None = None
    seconds_left_low: float | None = None
    seconds_left_high: float | None = None


def rests_s(cooldown_s: object, seen: Sequence[float], cells: int) -> float:
    """How long so many cells will rest before they begin: the time that is asked for, else as long as the last ones."""
    each = cooldown_s if isinstance(cooldown_s, int | float) else median(seen) if seen else 0.0
    return max(0, cells) * each


def forecast(history: Iterable[Took], cells: int, begun_s: float = 0.0, rests_s: float = 0.0) -> Forecast:
    """What `cells` will take if they are like the last ones; `begun_s` of it are over at the cell at hand, `rests_s` is
    what they rest between them.

    What a cell took is the sum of its attempts: one that fails and is tried again takes all of them. The spread counts
    twice: the mean itself is uncertain, and so is the sum of the cells to come.
    """
    took: dict[int, float] = {}
    for attempt in history:
        took[attempt.cell] = took.get(attempt.cell, 0.0) + attempt.seconds
    if not took:
        return Forecast()
    count, mean = len(took), math.fsum(took.values()) / len(took)
    left = max(0.0, cells * mean - min(begun_s, mean)) + rests_s
    if count < 2 or not cells:
        return Forecast(mean, left)
    variance = math.fsum((seconds - mean) ** 2 for seconds in took.values()) / (count - 1)
    spread = 1.64 * (1 + 1.5 / (count - 1)) * math.sqrt(variance * (cells + cells**2 / count))
    return Forecast(mean, left, max(rests_s, left - spread), left + spread)
