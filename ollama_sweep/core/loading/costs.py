"""What it costs to bring a cell to its first run, by what it needs and by its model, as it was seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from ollama_sweep.core.loading.change import Change

RECENT_LOADS = 50
"""So many of the last loads of a kind speak for the next one: a larger num_ctx takes longer."""
_NEAREST = {
    Change.RELOAD: (Change.MODEL, Change.RESTART),
    Change.MODEL: (Change.RELOAD, Change.RESTART),
    Change.RESTART: (Change.MODEL, Change.RELOAD),
}
"""Which kind stands for one that was never seen. None for a load that is kept: then nothing is loaded."""


@dataclass(frozen=True)
class Loaded:
    """A cell that was measured: its model, what it needed, and its seconds beside the requests. None: not known."""

    model: str
    needs: Change | None
    seconds: float


def expected_s(seen: Sequence[Loaded], model: str, needs: Change) -> tuple[float, int]:
    """The seconds of the next cell of this model that needs this, and how many cells like it say so, the newest first.

    0 where they are told by others: by the model's own reload, and by how much more or less other models took for what
    this one needs than for that; else by other models, or by the kind that is nearest.
    """
    own, others = [one for one in seen if one.model == model], [one for one in seen if one.model != model]
    if found := _of(own, needs):
        return fmean(found), len(found)
    for kind in _NEAREST.get(needs, ()):
        if mine := _of(own, kind):
            of_others = _of(others, needs), _of(others, kind)
            more_s = fmean(of_others[0]) - fmean(of_others[1]) if all(of_others) else 0.0
            return max(0.0, fmean(mine) + more_s), 0
    for kind in (needs, *_NEAREST.get(needs, ())):
        if found := _of(others, kind):
            return fmean(found), 0
    return 0.0, 0


def _of(seen: Iterable[Loaded], needs: Change) -> list[float]:
    """The seconds of the last cells that needed this."""
    return [one.seconds for one in seen if one.needs is needs][:RECENT_LOADS]
