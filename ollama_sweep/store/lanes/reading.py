"""What a reader says of lanes: how each stands, and which one measured an attempt."""

from __future__ import annotations

from ollama_sweep.store.file import Reading
from ollama_sweep.store.lanes import keeping
from ollama_sweep.store.lanes.keeping import LaneRow


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

    def lane_of(self, attempt_id: int) -> str:
        """Which lane measured an attempt; "" for one that was measured without lanes."""
        with self._storage_errors():
            return keeping.lane_of(self._connection, attempt_id)
