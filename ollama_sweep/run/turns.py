"""Whose turn it is: a pending cell's own load, or a further load of a cell that has a value; what each stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ollama_sweep.core.outcome import Outcome, Purpose, Run, Status
from ollama_sweep.core.surface.goal import FULL, Runs
from ollama_sweep.store.goals.keeping import Chosen
from ollama_sweep.store.lanes.keeping import Leased
from ollama_sweep.store.loads.further import FurtherLoad
from ollama_sweep.store.rows import ControlCell, PendingCell
from ollama_sweep.store.writer import Store


@dataclass(frozen=True)
class Beside:
    """Earlier loads that a cell's numbers speak for as well, by load. Where it `adds` to them, so many runs fewer are
    needed."""

    loads: tuple[tuple[Run, ...], ...] = ()
    adds: bool = True

    @property
    def runs(self) -> tuple[Run, ...]:
        """Those that count to what was asked for."""
        return tuple(run for load in self.loads for run in load) if self.adds else ()


class Turn(Protocol):
    """One load of one cell, from its first commit to its last."""

    @property
    def cell_id(self) -> int: ...
    @property
    def key(self) -> str: ...
    @property
    def position(self) -> int: ...
    @property
    def attempts(self) -> int:
        """How many came before it."""
        ...

    @property
    def further(self) -> FurtherLoad | None:
        """None for a cell's own load."""
        ...

    @property
    def chosen(self) -> Chosen | None:
        """Why a planner chose it; None where none did."""
        ...

    @property
    def runs(self) -> Runs:
        """How often it is run."""
        ...

    def beside(self) -> Beside: ...
    def begin(self, leased: Leased | None = None) -> int:
        """The first commit; the attempt's id."""
        ...

    def finish(self, attempt_id: int, outcome: Outcome, *, retry: bool) -> None: ...
    def give_up(self, attempt_id: int, reason: str, error: str = "") -> None: ...


@dataclass(frozen=True)
class OwnTurn:
    """A pending cell. Its numbers speak for what it was measured before, in any surroundings."""

    store: Store
    sweep_id: int
    pending: PendingCell
    timeout_s: float
    further: None = None
    chosen: Chosen | None = None
    runs: Runs = FULL

    @property
    def cell_id(self) -> int:
        return self.pending.cell_id

    @property
    def key(self) -> str:
        return self.pending.key

    @property
    def position(self) -> int:
        return self.pending.position

    @property
    def attempts(self) -> int:
        return self.pending.attempts

    def beside(self) -> Beside:
        return Beside(self.store.believed_runs(self.cell_id))

    def begin(self, leased: Leased | None = None) -> int:
        return self.store.begin_attempt(
            self.sweep_id, self.cell_id, timeout_s=self.timeout_s, chosen=self.chosen, leased=leased
        )

    def finish(self, attempt_id: int, outcome: Outcome, *, retry: bool) -> None:
        """The checkpoint: a cell that is tried again, or whose attempt says nothing of it, is pending."""
        status = Status.PENDING if retry or not outcome.status.counts else outcome.status
        self.store.finish_attempt(attempt_id, outcome, cell_status=status)

    def give_up(self, attempt_id: int, reason: str, error: str = "") -> None:
        outcome = Outcome(Status.INTERRUPTED, reason, error)
        self.store.finish_attempt(attempt_id, outcome, cell_status=Status.PENDING)


@dataclass(frozen=True)
class FurtherTurn:
    """A further load. Until it gave a number the cell keeps everything that it has."""

    store: Store
    sweep_id: int
    further: FurtherLoad
    timeout_s: float
    attempts: int = 0
    chosen: None = None
    runs: Runs = FULL

    @property
    def cell_id(self) -> int:
        return self.further.cell_id

    @property
    def key(self) -> str:
        return self.further.key

    @property
    def position(self) -> int:
        return self.further.position

    def beside(self) -> Beside:
        load = self.further
        adds = load.purpose is Purpose.REPEATS
        now_of = None if adds else self.sweep_id
        return Beside(self.store.believed_runs(self.cell_id, choice=load.choice, now_of=now_of), adds)

    def begin(self, leased: Leased | None = None) -> int:
        return self.store.begin_further(self.sweep_id, self.further, timeout_s=self.timeout_s, leased=leased)

    def finish(self, attempt_id: int, outcome: Outcome, *, retry: bool) -> None:
        """The checkpoint: done, failed, or waiting for another try."""
        is_over = not retry and outcome.status.counts
        self.store.finish_further(self.further, attempt_id, outcome, is_over=is_over)

    def give_up(self, attempt_id: int, reason: str, error: str = "") -> None:
        outcome = Outcome(Status.INTERRUPTED, reason, error)
        self.store.finish_further(self.further, attempt_id, outcome, is_over=False)


@dataclass(frozen=True)
class ControlTurn:
    """A fresh load of the control cell; the cell's own numbers stay what they are."""

    store: Store
    sweep_id: int
    control: ControlCell
    timeout_s: float
    attempts: int = 0
    further: None = None
    chosen: None = None
    runs: Runs = FULL
    key: str = ""

    @property
    def cell_id(self) -> int:
        return self.control.cell_id

    @property
    def position(self) -> int:
        return self.control.position

    def beside(self) -> Beside:
        return Beside()

    def begin(self, leased: Leased | None = None) -> int:
        return self.store.begin_attempt(
            self.sweep_id, self.cell_id, timeout_s=self.timeout_s, purpose=Purpose.CONTROL, leased=leased
        )

    def finish(self, attempt_id: int, outcome: Outcome, *, retry: bool) -> None:
        """The checkpoint, with how much faster or slower than at the first time it was."""
        rate = self.rate_of(outcome)
        drift = None if rate is None else rate / self.control.prompt_eval_rate - 1
        self.store.finish_control(attempt_id, outcome, drift)

    def give_up(self, attempt_id: int, reason: str, error: str = "") -> None:
        self.store.finish_control(attempt_id, Outcome(Status.INTERRUPTED, reason, error), None)

    @staticmethod
    def rate_of(outcome: Outcome) -> float | None:
        """What it gave, in tokens/s; None where it gave nothing."""
        return outcome.summary.prompt_eval_rate if outcome.status is Status.OK else None
