"""What the writer does with attempts that are measured by other processes."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ollama_sweep.core.errors import StorageError
from ollama_sweep.core.outcome import Outcome
from ollama_sweep.store import attempts as all_attempts
from ollama_sweep.store import plans, queries
from ollama_sweep.store.lanes import attempts, disturbances, keeping, versions
from ollama_sweep.store.lanes.attempts import Known
from ollama_sweep.store.lanes.keeping import Leased, State
from ollama_sweep.store.lanes.versions import Measured
from ollama_sweep.store.loads import further
from ollama_sweep.store.loads.further import FurtherLoad
from ollama_sweep.store.transactions import Guard
from ollama_sweep.store.values import Notes

if TYPE_CHECKING:
    from ollama_sweep.core.lanes.disturbance import Compared
    from ollama_sweep.core.lanes.lane import Lane


class LaneWriting:
    """The part of `Store` about lanes."""

    _guard: Guard
    _notes: Notes
    _now: Callable[[], str]
    _say: Callable[[str], None]
    _boot_id: str | None
    _spared: frozenset[int] = frozenset()

    def _end_what_died(self, connection: sqlite3.Connection) -> None:
        self._end_open(connection, self._spared.__contains__)

    def _end_open(self, connection: sqlite3.Connection, is_spared: Callable[[int], bool]) -> None:
        plans.end_what_died(connection, self._now(), self._boot_id, self._say, further.end_what_died, is_spared)

    @property
    def database_id(self) -> str:
        """Which database this is: orders carry it, so that no result gets into another one."""
        found = self._guard.read(queries.called_done)
        if found is None:
            raise StorageError("the database does not say which one it is")
        return found.database_id

    def spare(self, attempt_ids: Collection[int]) -> None:
        """These open attempts are still measured: registering a sweep does not end them as those of a dead process."""
        self._spared = frozenset(attempt_ids)

    def surroundings_now(self, sweep_id: int) -> Mapping[str, object] | None:
        """The fingerprint of what the sweep was last measured in; None before its first cell."""
        found = self._guard.read(queries.segment_of, sweep_id, self._notes)
        return found[1] if found is not None else None

    def measured_in(self, sweep_id: int) -> Mapping[str, object] | None:
        """The fingerprint of what the sweep's last attempt that counts was measured in; None before the first."""
        return self._guard.read(versions.measured_in, sweep_id, self._notes)

    def measured_by(self, sweep_id: int) -> Mapping[str, Measured]:
        """What each lane that has measured something has measured with last."""
        return self._guard.read(versions.measured_by, sweep_id, self._notes)

    def keep_lane(
        self, sweep_id: int, lane: Lane, state: State, says: str = "", fingerprint: Mapping[str, str] | None = None
    ) -> None:
        """How a lane of the sweep stands now."""
        now, known = self._now(), fingerprint or {}
        self._guard.write(lambda connection: keeping.keep_lane(connection, sweep_id, lane, known, state, says, now))

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Results that have come at one moment: what was committed goes from the log into the database once for all."""
        return self._guard.together()

    def _lease(self, connection: sqlite3.Connection, sweep_id: int, attempt_id: int, leased: Leased | None) -> None:
        """In the transaction that begins the attempt, so that none is begun whose lane nobody knows."""
        if leased is not None:
            until = datetime.fromisoformat(self._now()) + timedelta(seconds=leased.seconds)
            keeping.lease(connection, attempt_id, sweep_id, leased.lane, until.isoformat(timespec="milliseconds"))

    def keep_disturbance(self, sweep: str, found: Compared) -> None:
        """What `doctor --lanes` found of a sweep of this name, which need not be there yet."""
        now = self._now()
        self._guard.write(lambda connection: disturbances.keep(connection, sweep, found, now))

    def disturbance(self, sweep: str) -> Compared | None:
        """What counts of that; None where nothing was measured."""
        return self._guard.read(disturbances.newest, sweep, self._notes)

    def control_rates(self, sweep_id: int) -> Mapping[str, list[float]]:
        """What the loads of the control cell gave in the surroundings at hand, by lane."""
        return self._guard.read(keeping.control_rates, sweep_id, self._notes)

    def end_died(self, attempt_id: int) -> None:
        """The process that measured this died: as for what a dead session has left, with the same parking."""
        self._guard.write(lambda connection: self._end_open(connection, lambda other: other != attempt_id))

    def known_attempt(self, attempt_id: int) -> Known | None:
        """An attempt; None where there is none of this number."""
        return self._guard.read(attempts.known, attempt_id)

    def further_of(self, attempt_id: int) -> FurtherLoad | None:
        """The further load that an attempt was begun for."""
        return self._guard.read(attempts.further_of, attempt_id)

    def keep_late(self, attempt_id: int, outcome: Outcome) -> bool:
        """Keep a result that came after its attempt was given up; it never counts. False where it is kept already."""
        all_attempts.check_finite(outcome)
        now = self._now()
        return self._guard.write(lambda connection: attempts.keep_late(connection, attempt_id, outcome, now))
