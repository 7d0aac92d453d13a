"""Which recorded load answers the n-th load of a cell, and which recorded run its n-th request. Pure.

Without a seed the loads of a cell come in the order in which they were recorded. When more are asked for, and from the
first with a seed, each is drawn anew among that cell's recorded loads, all as likely: the same seed draws the same. A
request beyond the recorded ones of its load is drawn among that load's measured runs (of a load that has none, among
its warm-ups). Nothing else is made: no number that was not measured, and no mixture of two loads.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ollama_sweep.core.recording.model import FailedIn, RecordedCell, RecordedLoad, RecordedRun


@dataclass(frozen=True)
class DrawnLoad:
    """A load to answer from: the recorded one, and what draws its further requests."""

    load: RecordedLoad
    word: str

    def request(self, number: int) -> RecordedRun | None:
        """What its request of this number gave, from 0 on, warm-ups among them; None where it failed there.

        Raises ValueError for a load that failed before its first request.
        """
        runs = self.load.runs
        if self.load.failed_in is FailedIn.LOAD:
            raise ValueError("a load that failed answers no request")
        if number < len(runs):
            return runs[number]
        if self.load.failed_in is FailedIn.REQUEST:
            return None
        return random.Random(f"{self.word} {number}").choice(self.load.measured or runs)  # noqa: S311 - repeatable


def load_of(cell: RecordedCell, number: int, seed: int | None = None) -> DrawnLoad:
    """What answers the load of this number, from 0 on, of a cell with loads."""
    word = f"{seed or 0} {cell.model} {cell.coordinates!r} {number}"
    if seed is None and number < len(cell.loads):
        return DrawnLoad(cell.loads[number], word)
    return DrawnLoad(random.Random(word).choice(cell.loads), word)  # noqa: S311 - it must be repeatable
