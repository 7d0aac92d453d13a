"""All lanes of a session together: who is free, which cells are in hand, who has something to say.

What is asked for each result costs the same for ten lanes and for ten thousand.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence

from ollama_sweep.core.lanes.lane import Standing, mixed
from ollama_sweep.machine.process import News
from ollama_sweep.run.lanes.side import Doing, Side

MOST_HEARD = 32
"""At once; then those that they have made free get their next order."""


class Fleet:
    """The sides of a session, in the order of the file."""

    def __init__(self, sides: Sequence[Side]) -> None:
        self._sides = sides
        self._numbers = {id(side): number for number, side in enumerate(sides)}
        self._idle: set[int] = set()
        self._in_hand: set[int] = set()
        self._outlived = {number for number, side in enumerate(sides) if side.outlived is not None}
        self._news: News[int] = News()
        self._hoped_for: int | None = None
        self._heard_last = -1
        self._mixture: Mapping[str, str] | None = None

    @property
    def in_hand(self) -> Collection[int]:
        """The cells that are measured now."""
        return self._in_hand

    @property
    def is_outlived(self) -> bool:
        """A process of a dead run is still there."""
        return bool(self._outlived)

    @property
    def hoped_for(self) -> int:
        """How many lanes measure, or may do so yet."""
        if self._hoped_for is None:
            self._hoped_for = sum(side.is_hoped_for for side in self._sides)
        return self._hoped_for

    def free(self) -> list[Side]:
        """Those that take an order now, in their order."""
        found = [number for number in self._idle if self._sides[number].is_free]
        return [self._sides[number] for number in sorted(found)]

    def mixture(self) -> Mapping[str, str]:
        """The surroundings of lanes that are not alike: those of all of them."""
        if self._mixture is None:
            self._mixture = mixed(side.standing.kind for side in self._sides if side.standing is not None)
        return self._mixture

    def stands(self, side: Side, now: Standing) -> None:
        """What its process says of itself."""
        if side.standing != now:
            side.standing, self._mixture = now, None

    def spare(self) -> Side | None:
        """The first one that has had nothing to do."""
        return next((side for side in self._sides if side.is_spare), None)

    def leave_out(self, side: Side) -> None:
        """It is no lane of this session any more."""
        side.is_left_out, side.is_ready = True, False
        self._hoped_for = None

    def set_spare(self, side: Side, *, is_spare: bool) -> None:
        """There is nothing for it to do, or something after all."""
        side.is_spare = is_spare
        self._hoped_for = None

    def ready(self, side: Side) -> None:
        """It has said that it takes an order."""
        side.is_ready, side.is_idle, side.is_away = True, True, False
        self._idle.add(self._numbers[id(side)])

    def give(self, side: Side, doing: Doing) -> None:
        """It measures this now."""
        side.doing, side.is_idle, side.is_released = doing, False, False
        self._idle.discard(self._numbers[id(side)])
        self._in_hand.add(doing.begun.turn.cell_id)

    def done(self, side: Side) -> Doing | None:
        """It has nothing in hand any more; what that was."""
        doing, side.doing = side.doing, None
        if doing is not None:
            self._in_hand.discard(doing.begun.turn.cell_id)
        return doing

    def ended(self, side: Side) -> None:
        """The process of a dead run is gone."""
        side.outlived = None
        self._outlived.discard(self._numbers[id(side)])

    def listen(self, side: Side) -> None:
        """To be told when its process says something: after it was started, and after it may have ended."""
        self._news.expect(self._numbers[id(side)], side.connection.fileno())

    def heard(self, timeout_s: float) -> list[Side]:
        """Those that say something, as soon as one does, a few in turn; none after so many seconds."""
        ready = sorted(self._news.wait(timeout_s))
        first = bisect_right(ready, self._heard_last)
        found = [*ready[first:], *ready[:first]][:MOST_HEARD]
        self._heard_last = found[-1] if found else self._heard_last
        return [self._sides[number] for number in found]
