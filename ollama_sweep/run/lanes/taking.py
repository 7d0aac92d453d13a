"""What attempt processes have handed in, and nobody has taken: into the database, once each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ollama_sweep.core import judge
from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.events import Waiting
from ollama_sweep.core.lanes.order import Handed
from ollama_sweep.core.outcome import RETRIED, SURE_AGAIN, Flag, Outcome, Purpose, Status
from ollama_sweep.run.lanes.connection import Outlived, outlived
from ollama_sweep.run.lanes.outbox import Outbox
from ollama_sweep.run.lanes.room import rooms
from ollama_sweep.run.stopping import Stopping
from ollama_sweep.run.turns import ControlTurn, FurtherTurn, OwnTurn, Turn
from ollama_sweep.run.waiting import Emit, pause
from ollama_sweep.store.lanes.attempts import Known
from ollama_sweep.store.writer import Store

LOOK_S = 0.2
Say = Callable[[str], None]


def turn_of(store: Store, known: Known, timeout_s: float) -> Turn | None:
    """Whose turn an open attempt is, by what is stored; None where its plan or its cell is not there any more."""
    if known.purpose is None:
        pending = store.cell_by_key(known.sweep_id, known.key)
        return OwnTurn(store, known.sweep_id, pending, timeout_s) if pending is not None else None
    if known.purpose is Purpose.CONTROL:
        control = store.control_cell(known.sweep_id)
        return ControlTurn(store, known.sweep_id, control, timeout_s) if control is not None else None
    load = store.further_of(known.attempt_id)
    return FurtherTurn(store, known.sweep_id, load, timeout_s) if load is not None else None


def keep(store: Store, handed: Handed, retries: int) -> bool:
    """Store a handed-in attempt of a coordinator that is gone; false where that was done before.

    One that was given up meanwhile is kept as `late`, and counts for nothing.
    """
    known = store.known_attempt(handed.order.attempt_id)
    if known is None or known.key != handed.order.key:
        return False
    if not known.is_open:
        return _is_late(known, handed.outcome) and store.keep_late(known.attempt_id, handed.outcome)
    turn, outcome = turn_of(store, known, handed.order.lease_s), handed.outcome
    if turn is None or outcome.status is Status.INTERRUPTED:
        _give_up(store, known, turn, outcome)
        return False
    if judge.is_unstable(outcome.status, store.former_statuses(known.cell_id)):
        outcome = replace(outcome, flags=outcome.flags | {Flag.UNSTABLE})
    may_differ = outcome.status in RETRIED and outcome.reason not in SURE_AGAIN
    turn.finish(known.attempt_id, outcome, retry=may_differ and handed.order.tried < retries)
    return True


def _give_up(store: Store, known: Known, turn: Turn | None, outcome: Outcome) -> None:
    if turn is None:
        store.end_died(known.attempt_id)
    else:
        turn.give_up(known.attempt_id, outcome.reason, outcome.error)


def _is_late(known: Known, outcome: Outcome) -> bool:
    """It was given up, and here is its result; else the same result is in the database already."""
    return known.status is Status.INTERRUPTED and outcome.status is not Status.INTERRUPTED


def take_all(store: Store, db: Path, retries: int, say: Say) -> int:
    """Take everything that lies in the outboxes of this database; how many results were new. Raises StorageError."""
    return sum(_taken(store, room.outbox, retries, say) for room in rooms(db))


def _taken(store: Store, outbox: Outbox, retries: int, say: Say) -> int:
    taken = strange = 0
    for name in outbox.names():
        try:
            handed = outbox.read(name)
        except ConfigError as error:
            outbox.set_aside(name)
            say(f"Warning: {error}; it is left as {name}.unreadable")
            continue
        if handed.order.database != store.database_id:
            strange += 1
            continue
        taken += keep(store, handed, retries)
        reached("result_taken")
        outbox.remove(name)
    if strange:
        what = f"{strange} finished attempt{'s belong' if strange > 1 else ' belongs'} to another database"
        say(f"Warning: in {outbox.folder} {what} than {store.path}, and stay{'' if strange > 1 else 's'} there")
    return taken


def before_a_session(store: Store, db: Path, retries: int, say: Say) -> list[Outlived]:
    """What a dead coordinator has left: results are taken; processes that still measure are spared, and named."""
    living = [found for room in rooms(db) if (found := outlived(room))]
    store.spare([one.order.attempt_id for one in living if one.order.database == store.database_id])
    if taken := take_all(store, db, retries, say):
        say(f"Taken over, as measured while no run was there: {taken} attempt{'s' if taken > 1 else ''}")
    return living


def wait_for_the_living(
    store: Store, db: Path, retries: int, living: list[Outlived], stopping: Stopping, emit: Emit, say: Say
) -> None:
    """For a session that measures alone: the hardware is its own once they have ended. Raises Stopped, StorageError."""
    for one in living:
        if one.is_running:
            label = one.order.cell.label()
            emit(Waiting(f"lane {one.order.lane} still measures {label} (pid {one.room.pid()})", LOOK_S))
        while one.is_running:
            if stopping.now:
                one.cut()
            pause(LOOK_S, stopping)
    store.spare(())
    if living:
        take_all(store, db, retries, say)
