"""Where something still holds in a grid, found by asking few of its places. Pure.

What holds at a place holds at every place with a smaller column and a smaller row, as memory does in num_ctx and
num_batch. So the places where it holds are a staircase, and each answer decides all places on one side of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

Place = tuple[int, int]
"""Column and row, both from 0."""
_COLUMNS_LOOKED_AT = 32


class _Way(NamedTuple):
    """A way to decide all that is open in a group: how many questions it needs at most, and its first one."""

    most: int
    place: Place


class Staircase:
    """What is known of a grid of so many columns and rows.

    In column c it holds below row `holds[c]`, and from row `fails[c]` on it does not; what lies between is open.
    """

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.holds = [0] * columns
        self.fails = [rows] * columns
        self.is_contradicted = False
        self._asked = 0

    def learn(self, place: Place, *, holds: bool) -> None:
        """Take an answer; the first one stays where two contradict each other."""
        column, row = place
        self._asked += 1
        if holds:
            for one in range(column + 1):
                self.is_contradicted |= row >= self.fails[one]
                self.holds[one] = max(self.holds[one], min(row + 1, self.fails[one]))
        else:
            for one in range(column, self.columns):
                self.is_contradicted |= row < self.holds[one]
                self.fails[one] = min(self.fails[one], max(row, self.holds[one]))

    def is_open(self, column: int) -> bool:
        """It is not known how far it holds in this column."""
        return self.holds[column] < self.fails[column]

    def next_place(self, left: int, may_ask: Callable[[Place], bool] = lambda place: True) -> Place | None:
        """The place whose answer decides most, None where nothing is open that may be asked.

        So many questions are `left`. Where one of its answers could leave more open than the others can decide for
        sure, it is the next place of a way that needs the fewest at most. Columns + rows are always enough.
        """
        if not self._asked:  # where all of it holds, which is common, nothing else is asked
            places = ((column, row) for column in range(self.columns) for row in range(self.rows))
            return max(filter(may_ask, places), key=lambda place: (place[0] + 1) * (place[1] + 1), default=None)
        best = max(self._candidates(may_ask), key=self._decided, default=None)
        if best is None or self._most_after(best) < left:
            return best
        sure = next((way.place for way in _ways(self.holds, self.fails)), best)
        return sure if may_ask(sure) else best

    def _candidates(self, may_ask: Callable[[Place], bool]) -> Iterator[Place]:
        """In each of some open columns the places around the row where both answers decide the same."""
        found = ([row for row in range(self.holds[column], self.fails[column]) if may_ask((column, row))]
                 for column in range(self.columns))  # fmt: skip
        opened = [(column, rows) for column, rows in enumerate(found) if rows]
        for column, rows in opened[:: max(1, len(opened) // _COLUMNS_LOOKED_AT)]:
            low, high = 0, len(rows) - 1
            while low < high:
                middle = (low + high + 1) // 2
                yes, no = self._decides((column, rows[middle]))
                low, high = (middle, high) if yes <= no else (low, middle - 1)
            yield from ((column, row) for row in rows[low : low + 2])

    def _decides(self, place: Place) -> tuple[int, int]:
        """How many open places are decided where it holds, and where it does not."""
        column, row = place
        yes = sum(max(0, min(row + 1, self.fails[one]) - self.holds[one]) for one in range(column + 1))
        no = sum(max(0, self.fails[one] - max(row, self.holds[one])) for one in range(column, self.columns))
        return yes, no

    def _decided(self, place: Place) -> int:
        return min(self._decides(place))

    def _most_after(self, place: Place) -> int:
        """How many questions are needed at most once this place has answered."""
        column, row = place
        holds = [max(held, row + 1) if one <= column else held for one, held in enumerate(self.holds)]
        fails = [min(failed, row) if one >= column else failed for one, failed in enumerate(self.fails)]
        return max(_most(holds, self.fails), _most(self.holds, fails))


def _most(holds: Sequence[int], fails: Sequence[int]) -> int:
    return sum(way.most for way in _ways(holds, fails))


def _ways(holds: Sequence[int], fails: Sequence[int]) -> Iterator[_Way]:
    """The best way for each group of neighbours whose open rows touch; no group says anything of another one."""
    first = None
    for column, (held, failed) in enumerate(zip(holds, fails, strict=True)):
        if held >= failed:
            continue
        first = column if first is None else first
        is_last = column + 1 == len(holds) or holds[column + 1] >= fails[column + 1] or fails[column + 1] <= held
        if is_last:
            yield min(_ways_of(first, column, holds, fails))
            first = None


def _ways_of(first: int, last: int, holds: Sequence[int], fails: Sequence[int]) -> Iterator[_Way]:
    """A walk along the stairs, to the right where it holds and down where not; or halving each column, or each row."""
    high, low = fails[first], holds[last]
    yield _Way(last - first + high - low, (first, high - 1))
    columns = [range(holds[column], fails[column]) for column in range(first, last + 1)]
    halved = (first, columns[0][len(columns[0]) // 2])
    yield _Way(sum(len(rows).bit_length() for rows in columns), halved)
    opened = [[column for column in range(first, last + 1) if holds[column] <= row < fails[column]]
              for row in range(low, high)]  # fmt: skip
    halved = (opened[0][len(opened[0]) // 2], low)
    yield _Way(sum(len(places).bit_length() for places in opened), halved)
