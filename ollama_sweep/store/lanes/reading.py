"""What a reader says of lanes: how each stands, and which one measured an attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ollama_sweep.store.file import Reading
from ollama_sweep.store.lanes import disturbances, keeping
from ollama_sweep.store.lanes.keeping import LaneRow

if TYPE_CHECKING:
    from ollama_sweep.core.lanes.disturbance import Compared


class LaneReading(Reading):
    """The part of `Reader` about lanes."""

    def lanes(self, sweep_id: int) -> list[LaneRow]:
        """The lanes of a sweep; none where it was measured in one process."""
        with self._storage_errors():
            return keeping.lanes(self._connection, sweep_id, self._notes)

    def control_rates(self, sweep_id: int) -> dict[str, list[float]]:
        """What the loads of the control cell gave in the surroundings at hand, by lane."""
        with self._storage_errors():
            return keeping.control_rates(self._connection, sweep_id, self._notes)

    def disturbance(self, sweep_id: int) -> Compared | None:
        """Why cells that lanes of this sweep have measured are flagged; None where its lanes do not disturb each other,
        or that is not known."""
        with self._storage_errors():
            return disturbances.flagging(self._connection, sweep_id, self._notes)

    def last_disturbance(self) -> int:
        """The number of what it found last, of whichever sweep: flags of many cells may be others with the next."""
        with self._storage_errors():
            return disturbances.last(self._connection)

    def lane_of(self, attempt_id: int) -> str:
        """Which lane measured an attempt; "" for one that was measured without lanes."""
        with self._storage_errors():
            return keeping.lane_of(self._connection, attempt_id)
