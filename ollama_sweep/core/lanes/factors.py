"""How many times as fast each lane is as all of them together, by their loads of one cell. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LaneFactor:
    """A lane's rate over the mean of all lanes, of so many loads of the control cell; `error` is the relative standard
    error, None where no lane has two loads."""

    factor: float
    loads: int
    error: float | None

    @property
    def words(self) -> str:
        """`0.98 (± 1 %, 3 loads)`."""
        error = "" if self.error is None else f"± {100 * self.error:.1g} %, "
        return f"{self.factor:.3f} ({error}{self.loads} load{'s' if self.loads != 1 else ''})"


def factors(rates: Mapping[str, Sequence[float]]) -> dict[str, LaneFactor]:
    """By lane; `rates` are those of its loads of the control cell, in tokens/s. Empty for fewer than two lanes.

    The mean is that of the lanes' means of logarithms, so a lane with many loads weighs no more. What loads of one lane
    differ by is pooled over all lanes.
    """
    logs = {lane: [math.log(rate) for rate in found if rate > 0] for lane, found in rates.items()}
    means = {lane: sum(found) / len(found) for lane, found in logs.items() if found}
    if len(means) < 2:
        return {}
    middle = sum(means.values()) / len(means)
    freedom = sum(len(found) - 1 for found in logs.values() if found)
    squares = sum((one - means[lane]) ** 2 for lane, found in logs.items() for one in found)
    sigma = math.sqrt(squares / freedom) if freedom > 0 else None
    share = 1 / len(means) ** 2
    of_all = sum(share / len(logs[lane]) for lane in means)
    found = {}
    for lane, mean in means.items():
        loads = len(logs[lane])
        variance = max(0.0, 1 / loads + of_all - 2 / len(means) / loads)
        error = None if sigma is None else sigma * math.sqrt(variance)
        found[lane] = LaneFactor(math.exp(mean - middle), loads, error)
    return found
