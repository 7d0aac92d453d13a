"""What a person is told of lanes on one computer before the first cell: whether they disturb each other. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ollama_sweep.core.lanes.disturbance import Compared
from ollama_sweep.core.lanes.lane import Lane


def of_disturbance(computers: Mapping[Lane, str], found: Compared | None, command: str) -> str:
    """A line; "" where no two lanes share a computer, or they are known not to disturb each other.

    `computers`: which one each lane is on. `command` measures it.
    """
    where = list(computers.values())
    together = [lane for lane, computer in computers.items() if where.count(computer) > 1]
    if not together:
        return ""
    told = [lane for lane in together if found is not None and found.tells_of(lane)]
    if found is not None and len(told) > 1 and found.disturbance.is_there:
        return f"Warning: {found.sentence}"
    if told == together:
        return ""
    names = ", ".join(lane.name for lane in together)
    return f"Whether the lanes {names} of one computer disturb each other is not known; measure it: {command}"
