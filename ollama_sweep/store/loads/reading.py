"""What a reader says of loads: how far they differ, which are wanted, what each gave and took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ollama_sweep.core.forecast import ControlsSeen, Took, WorkLeft
from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.core.outcome import Purpose
from ollama_sweep.core.recording.model import Recording
from ollama_sweep.store import queries
from ollama_sweep.store.file import Reading
from ollama_sweep.store.loads import compared, further, measured, recorded, spreads
from ollama_sweep.store.rows import SweepRow

MOST_TIMED = 20_000
"""Attempts whose times are all read."""


class LoadsReading(Reading):
    """The part of `Reader` about loads."""

    def spreads(self, sweep_id: int) -> dict[str, Spreads]:
        """How far runs and loads differ in the surroundings the sweep was last measured in, by metric."""
        with self._storage_errors():
            return spreads.of_sweep(self._connection, sweep_id, self._notes)

    def waiting_loads(self, sweep_id: int) -> dict[Purpose, int]:
        """How many further loads of finished cells wait, by what they are made for."""
        with self._storage_errors():
            return further.waiting(self._connection, sweep_id)

    def seconds(self, sweep_id: int) -> dict[Purpose | None, float]:
        """What the attempts of all sessions took, by what they were made for; None for the cells' own.

        Of very many attempts it is estimated, so that it costs the same however many there are.
        """
        with self._storage_errors():
            return further.seconds(self._connection, sweep_id, self._notes, most=MOST_TIMED)

    def history(self, sweep_id: int) -> list[Took]:
        """What the last finished attempts of the sweep took, the newest first."""
        with self._storage_errors():
            return queries.history(self._connection, sweep_id, self._notes)

    def work_left(self, sweep_id: int) -> WorkLeft:
        """What the pending cells of the sweep ask, in what shares."""
        with self._storage_errors():
            return queries.work_left(self._connection, sweep_id, self._notes)

    def controls_seen(self, sweep_id: int) -> ControlsSeen:
        """What is known of the loads of the sweep's control cell."""
        with self._storage_errors():
            return queries.controls_seen(self._connection, sweep_id, self._notes)

    def rests(self, sweep_id: int) -> list[float]:
        """The seconds between the last cells of the sweep, the newest first."""
        with self._storage_errors():
            return queries.rests(self._connection, sweep_id, self._notes)

    def further_loads(self, key: str) -> list[further.Made]:
        """The further loads that a cell had or waits for, the oldest first."""
        with self._storage_errors():
            return further.of_cell(self._connection, key, self._notes)

    def segments_of(self, sweep_id: int) -> list[int]:
        """The segments in which the sweep attempted anything, the oldest first."""
        with self._storage_errors():
            return compared.segments_of(self._connection, sweep_id)

    def plan_cells(
        self, sweep_id: int, segment: int | None, positions: Sequence[int] | None = None
    ) -> Iterator[compared.PlanCell]:
        """Every cell of the plan once, or those at these positions, as it stands now or in a segment."""
        with self._storage_errors():
            yield from compared.cells(self._connection, self._notes, sweep_id, segment, positions)

    def loads(
        self, sweep_id: int, segment: int | None, metric: str, positions: Sequence[int] | None = None
    ) -> Iterator[tuple[int, list[compared.LoadRow]]]:
        """What each load of each measured cell, or of those at these positions, gave, by the cell's position."""
        with self._storage_errors():
            yield from compared.loads(self._connection, self._notes, sweep_id, segment, metric, positions)

    def measured_loads(self, sweep_id: int, segment: int | None = None) -> Iterator[measured.MeasuredLoad]:
        """The loads that the values of the main task's cells go by, now or in a segment, in the order of the plan."""
        with self._storage_errors():
            yield from measured.loads(self._connection, self._notes, sweep_id, segment)

    def value_segments(self, sweep_id: int) -> list[int]:
        """The segments in which the values of the sweep's cells were measured, by whichever sweep."""
        with self._storage_errors():
            return measured.segments(self._connection, sweep_id)

    def recording(self, sweep: SweepRow, remark: str = "") -> Recording:
        """A sweep load by load. Raises ConfigError where there is nothing to record."""
        with self._storage_errors():
            return recorded.recording(self._connection, self._notes, sweep, remark)
