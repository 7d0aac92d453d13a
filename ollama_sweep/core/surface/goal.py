"""What a sweep is for, where not every cell is wanted in full, and how often a cell is run for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAP, BEST, PER_CONTEXT, LARGEST, OFF = "map", "best", "per-context", "largest", "off"
KINDS = (MAP, BEST, PER_CONTEXT, LARGEST)
MOST_CELLS = 10_000
"""A planner looks at every cell before each next one; beyond this that takes longer than it saves."""
USUAL_SHARE = 0.9


@dataclass(frozen=True)
class Goal:
    """What is wanted. `rate` and `ttft_s` are for `largest`: the share of the best rate that must be left, and the
    longest time until the first token, None for any. `is_given`: by the command line, and not by the sweep's file."""

    kind: str
    rate: float = USUAL_SHARE
    ttft_s: float | None = None
    is_given: bool = field(default=False, compare=False)

    @property
    def is_off(self) -> bool:
        """Every cell is wanted in full, in the order of the plan."""
        return self.kind == OFF

    @property
    def wants_all(self) -> bool:
        """Every cell is measured in the end."""
        return self.kind in (MAP, OFF)

    @property
    def words(self) -> str:
        """`largest (90 % of the best rate, first token within 10 s)`."""
        if self.kind == BEST:
            return "best (within 5 %)"
        if self.kind != LARGEST:
            return self.kind
        limit = f", first token within {self.ttft_s:g} s" if self.ttft_s is not None else ""
        return f"largest ({100 * self.rate:g} % of the best rate{limit})"

    def as_dict(self) -> dict[str, object]:
        """As it is stored."""
        more: dict[str, object] = {"rate": self.rate, "ttft_s": self.ttft_s} if self.kind == LARGEST else {}
        return {"kind": self.kind, **more}


def goal_of(stored: Mapping[str, object]) -> Goal | None:
    """A stored goal; None for what this version does not know."""
    kind, rate, ttft_s = stored.get("kind"), stored.get("rate", USUAL_SHARE), stored.get("ttft_s")
    if kind not in (*KINDS, OFF) or not isinstance(rate, int | float):
        return None
    return Goal(str(kind), float(rate), float(ttft_s) if isinstance(ttft_s, int | float) else None)


@dataclass(frozen=True)
class Runs:
    """How often a cell is run: in full, or `most` times where its first run lies within `tolerance` of `expected`
    (tokens/s; None for any), and else in full. `warmup` False: no run before, because it has made no difference."""

    most: int | None = None
    expected: float | None = None
    tolerance: float = 0.0
    warmup: bool = True
    is_once_where_spilled: bool = False

    def agrees(self, rate: float) -> bool:
        """The run is what was expected."""
        if self.expected is None:
            return True
        return self.expected / (1 + self.tolerance) <= rate <= self.expected * (1 + self.tolerance)


FULL = Runs()
"""As the sweep says."""
