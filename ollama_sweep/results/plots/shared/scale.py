"""How far the colours of a map go: over the values, and not as far as one odd cell. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ollama_sweep.core.metrics import Metric

FEWEST = 6
"""Of fewer values none is odd: there is no rule that it could break."""
ODD_SHARE = 0.05
"""At most this share of the values, and one, is odd at either end; what is more has a right to its colours."""
APART = 1.5
"""An odd value lies so many times further from the next one than all others are apart."""


@dataclass(frozen=True)
class Scale:
    """The values at the ends of the colours, how many lie beyond them, and the smallest and largest of all."""

    low: float
    high: float
    below: int = 0
    above: int = 0
    lowest: float = 0.0
    highest: float = 0.0

    def share(self, value: float) -> float:
        """Where a value stands in the colours, 0 to 1."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def words(self, of: Metric) -> list[str]:
        """What the legend says of values beyond the colours: nothing where there are none."""
        found = []
        for count, end, extreme, word in (
            (self.below, self.low, self.lowest, "below"),
            (self.above, self.high, self.highest, "above"),
        ):
            if count:
                cells, to = ("1 cell lies", "at") if count == 1 else (f"{count} cells lie", "to")
                found.append(f"the colours end at {of.with_unit(end)}: {cells} {word}, {to} {of.text(extreme)}")
        return found


def scale_of(ordered: Sequence[float], better: int = 0) -> Scale:
    """The scale of finite values, ascending; a lone value has the colour of the best.

    A value at an end is odd where it lies apart from the rest by more than the rest is wide: of a map in which one cell
    went wrong all others would have the same colour.
    """
    if not len(ordered):
        return Scale(0.0, 1.0)
    first, last = _within(ordered)
    low, high = float(ordered[first]), float(ordered[last])
    if low == high:
        low, high = (low, low + 1) if better < 0 else (low - 1, low)
    return Scale(low, high, first, len(ordered) - 1 - last, float(ordered[0]), float(ordered[-1]))


def _within(ordered: Sequence[float]) -> tuple[int, int]:
    """The places of the first and the last value that is not odd."""
    end = len(ordered) - 1
    most = max(1, int(ODD_SHARE * len(ordered)))
    if len(ordered) < FEWEST:
        return 0, end
    limit = APART * (ordered[end - most] - ordered[most])
    if limit <= 0:
        return 0, end
    first, last = 0, end
    if ordered[most] - ordered[0] > limit:  # else no two of them can be so far apart
        first = next((at for at in range(most, 0, -1) if ordered[at] - ordered[at - 1] > limit), 0)
    if ordered[end] - ordered[end - most] > limit:
        last = next((at for at in range(end - most, end) if ordered[at + 1] - ordered[at] > limit), end)
    return first, last
