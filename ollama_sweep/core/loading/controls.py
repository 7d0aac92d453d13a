"""How often the control cell is measured again, and how many of its loads are still to come. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

FEWEST_CELLS = 5
"""A smaller sweep would be made of controls; it has none by itself."""
FEWEST_CONTROLS, ENOUGH_CONTROLS = 5, 16
"""With enough of them two sweeps can be compared: docs/compare.md has the simulation."""
FEWEST_LOADS_PER_CONTROL, MOST_LOADS_PER_CONTROL = 10, 25


def controls_wanted(loads: int) -> int:
    """So often the control cell is measured in a sweep of so many loads, where nobody says how often.

    A tenth of them at most until there are enough, then as many as it takes to follow the machine.
    """
    if loads < FEWEST_CELLS:
        return 0
    to_compare = min(loads // FEWEST_LOADS_PER_CONTROL, ENOUGH_CONTROLS)
    return max(FEWEST_CONTROLS, to_compare, loads // MOST_LOADS_PER_CONTROL)


def due(loads: int, total: int) -> int:
    """So many there are by themselves after so many of all loads: at the start, at the end and evenly between."""
    wanted = controls_wanted(total)
    return min(wanted, 1 + (wanted - 1) * loads // total) if wanted else 0


@dataclass(frozen=True)
class Rule:
    """When the control cell is measured: after so many cells or seconds, or `by_itself`; none of them: never."""

    cells: int | None = None
    seconds: float | None = None
    by_itself: bool = False

    @classmethod
    def stored(cls, kept: object) -> Rule:
        """As `as_dict` wrote it; never, where an earlier version wrote nothing."""
        told: Mapping[str, object] = kept if isinstance(kept, dict) else {}
        cells, seconds = told.get("cells"), told.get("seconds")
        return cls(
            cells if isinstance(cells, int) and cells > 0 else None,
            seconds if isinstance(seconds, int | float) and seconds > 0 else None,
            by_itself=told.get("by_itself") is True,
        )

    def as_dict(self) -> dict[str, object]:
        """Without what does not rule."""
        return {name: value for name, value in asdict(self).items() if value}

    def ends(self, total: int) -> bool:
        """One of them comes behind the last of all loads."""
        return self.by_itself or bool(self.cells and total % self.cells == 0)

    def to_come(self, left: int, total: int, *, is_new: bool) -> int:
        """How many are still to come in the last `left` loads of `total`; of those after a time 0. `is_new`: there was
        none yet.
        """
        if left <= 0:
            return 0
        if self.cells:
            return total // self.cells - (total - left) // self.cells
        wanted = controls_wanted(total) if self.by_itself else 0
        return math.ceil(max(0, wanted - 1) * min(left, total) / total) + is_new if wanted else 0
