"""What came of numbers that were made again: how many agree, and what is to be said of the others. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

WHOLE = "attempt"
SHARE = 1e-9
"""Two numbers are one where they differ by no more: the same formula may add up in another order."""
MOST_SHOWN = 5

Value = float | str | None


@dataclass(frozen=True)
class Number:
    """A number that is not what it should be. `part` is `run 1`, … or `attempt`; None: there is none.

    `why` says what stands in the way where neither value is one.
    """

    part: str
    name: str
    stored: Value
    made: Value
    why: str = ""

    def words(self) -> str:
        """`run 2: prompt_eval_rate is 91.5, made again 85.6`."""
        place = "" if self.part == WHOLE else f"{self.part}: "
        if self.why:
            return f"{place}{self.name}: {self.why}"
        return f"{place}{self.name} is {_shown(self.stored)}, made again {_shown(self.made)}"


def _shown(value: Value) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else f"{value:.10g}"


@dataclass
class Tally:
    """Counts of numbers; the differing ones by name. What nobody ever had, and has not now, is no number."""

    agrees: int = 0
    older: Counter[str] = field(default_factory=Counter)
    cannot: Counter[str] = field(default_factory=Counter)
    differing: list[Number] = field(default_factory=list)

    def compare(
        self, part: str, name: str, stored: Value, made: Value, older: Iterable[tuple[str, Value]] = ()
    ) -> bool:
        """Hold a number against the one made again, then against those of older rules, each with its rule's name.

        Whether it agrees with any.
        """
        if stored is None and made is None:
            return True
        if is_same(stored, made):
            self.agrees += 1
            return True
        rule = next((rule for rule, value in older if is_same(stored, value)), None)
        if rule is not None:
            self.older[rule] += 1
            return True
        self.differing.append(Number(part, name, stored, made))
        return False

    def add(self, other: Tally) -> None:
        """The counts of another one, without its differing numbers."""
        self.agrees += other.agrees
        self.older += other.older
        self.cannot += other.cannot

    def words(self) -> str:
        """The differing numbers in a line."""
        more = len(self.differing) - MOST_SHOWN
        shown = "; ".join(number.words() for number in self.differing[:MOST_SHOWN])
        return f"{shown}; and {more} more" if more > 0 else shown


def is_same(stored: Value, made: Value) -> bool:
    """Equal, numbers but for what the order of adding up may change."""
    if isinstance(stored, int | float) and isinstance(made, int | float):
        return math.isclose(stored, made, rel_tol=SHARE, abs_tol=1e-12)
    return stored == made
