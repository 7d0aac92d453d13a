"""The one writer. Every change is a transaction of its own; what `finish_attempt` returned from is safe for good."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from ollama_sweep.core.cell import content_hash
from ollama_sweep.core.errors import StorageError
from ollama_sweep.core.forecast import ControlsSeen, Took, WorkLeft
from ollama_sweep.core.ledger import Leftover
from ollama_sweep.core.noise.drift import Point
from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.core.options import Options
from ollama_sweep.core.outcome import Outcome, Purpose, Run, Status
from ollama_sweep.core.text import one_line
from ollama_sweep.store import again, attempts, beside, imported, plans, queries, scans, schema, values
from ollama_sweep.store import file as files
from ollama_sweep.store.goals import keeping
from ollama_sweep.store.goals.keeping import Chosen
from ollama_sweep.store.goals.writing import GoalWriting
from ollama_sweep.store.lanes.keeping import Leased
from ollama_sweep.store.lanes.writing import LaneWriting
from ollama_sweep.store.loads import corrections, further, spreads
from ollama_sweep.store.loads.further import FurtherLoad, Look, Wish
from ollama_sweep.store.lock import WriterLock
from ollama_sweep.store.memory import failures, pruning
from ollama_sweep.store.memory.failures import Failed, KnownFailure, Surroundings
from ollama_sweep.store.memory.pruning import Pruned
from ollama_sweep.store.rows import ControlCell, LeftOut, PendingCell, PlannedCell, SweepHeader
from ollama_sweep.store.transactions import Guard, Guarding
from ollama_sweep.store.values import Notes


def utc_now() -> str:
    """The time as it is stored: ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def system_boot_id() -> str | None:
    """A word that changes with every boot, where the system has one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None


class Store(GoalWriting, LaneWriting):
    """The database, open for writing; made by `Store.open`. Also an `engine.Ledger`."""

    def __init__(self, path: Path, guard: Guard, lock: WriterLock, say: Callable[[str], None]) -> None:
        self.path = path
        self._guard = guard
        self._lock = lock
        self._say = say
        self._now: Callable[[], str] = utc_now
        self._boot_id = system_boot_id()
        self._recorded: set[int] = set()
        self._done_path = beside.done_path(path)
        self._took: dict[int, dict[int, Took]] = {}
        """What attempts took, by sweep and number, as long as no plan is registered."""
        self._notes = Notes(path, say)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        allow_network: bool = False,
        say: Callable[[str], None] = lambda line: None,
        now: Callable[[], str] = utc_now,
        boot_id: Callable[[], str | None] = system_boot_id,
        fs_type: Callable[[Path], str] = files.file_system,
        guarding: Guarding | None = None,
    ) -> Store:
        """Take the lock, make the database where there is none, and bring its schema up to date.

        Raises ConfigError (missing folder, network drive), DatabaseInUse (held by another sweep, or another program's)
        and StorageError (read-only, full, damaged). `say` gets a line for the person; `guarding` is for tests.
        """
        if warning := files.check_place(path, allow_network, fs_type):
            say(f"Warning: {warning}")
        files.check_writable(path)
        if path.exists() and path.stat().st_size > 0:
            files.check_ours(path)
        lock = WriterLock(path)
        try:
            files.create_private(path)
            guard = Guard(path, guarding or Guarding(say=say))
            try:
                guard.read(files.look_for_damage, path)
                cls._migrate(guard)
                if missing := guard.read(queries.missing_cells, beside.called_done(path)):
                    say(beside.missing_words(missing))
            except BaseException:
                guard.close()
                raise
        except BaseException:
            lock.release()
            raise
        store = cls(path, guard, lock, say)
        store._now, store._boot_id = now, boot_id()
        return store

    @staticmethod
    def _migrate(guard: Guard) -> None:
        if guard.read(_version) < schema.USER_VERSION:
            guard.write(lambda connection: schema.apply_migrations(connection, _version(connection)))

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def note(self, text: str) -> None:
        """Tell readers what this process waits for, "" while it measures; `Reader.writer` shows it."""
        self._lock.note(text)

    def tell_time_by(self, now: Callable[[], str]) -> None:
        """Store the times of another clock from now on, ISO 8601 in UTC."""
        self._now = now

    def last_moment(self, engine: str) -> str | None:
        """The latest time that is stored of this engine's sweeps; None where there is none."""
        return self._guard.read(queries.last_moment, engine)

    def loads_ended(self, sweep_id: int, coordinates: Options) -> int:
        """How many loads of the cell of this place came to an end that says something of it."""
        return self._guard.read(queries.loads_ended, sweep_id, coordinates)

    def weights(self, sweep_id: int) -> Mapping[int, tuple[str, str]]:
        """By position the model and the settings of the server of each cell."""
        return self._guard.read(queries.weights, sweep_id)

    def hurry_when(self, is_in_a_hurry: Callable[[], bool]) -> None:
        """Give up waiting for another program's write as soon as this is true."""
        self._guard.is_in_a_hurry = is_in_a_hurry

    def close(self) -> None:
        """Close the file, then let the lock go. May be called twice."""
        self._guard.close()
        self._lock.release()

    def discard(self) -> None:
        """Close; where no sweep was registered remove the files as well, so that nothing was created. Never raises."""
        is_empty = False
        with contextlib.suppress(StorageError):
            is_empty = self._guard.has_same_file and not self._guard.read(_has_sweeps)
        self._guard.close()
        with contextlib.suppress(OSError):
            mine = (self.path, *files.side_files(self.path), beside.done_path(self.path))
            for file in mine if is_empty else ():
                file.unlink(missing_ok=True)
        self._lock.release(remove=is_empty)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """An explicit transaction for what no method does; SQL stays in this folder."""
        with self._guard.transaction() as connection:
            yield connection

    # --- sweeps and their plan

    def register_sweep(
        self,
        header: SweepHeader,
        cells: Iterable[PlannedCell],
        *,
        timeout_s: float,
        repeats_minimum: int,
        retry: frozenset[Status] = frozenset(),
        prune: bool = False,
        keeps_statuses: bool = False,
    ) -> int:
        """Save the sweep and its plan in the order of `cells`, all or nothing; returns the sweep's number.

        Known cells keep what they have, except those that the rules in `store.again` name. Attempts that a dead process
        left open become `interrupted` and their cells pending. `cells` is read once. With `prune` what is at least as
        large as a cell that ran out of memory in two fresh loads is left out; without it such places are pending again.
        `keeps_statuses`: nothing is measured now, so those rules wait for the next time.
        """
        wanted = replace(_wanted(header, timeout_s, repeats_minimum, retry), prune=prune)
        self._took.clear()
        with self._guard.transaction() as connection:
            sweep_id = plans.save_sweep(connection, header, repeats_minimum, self._now())
            plans.replace_plan(connection, sweep_id, header, cells)
            self._end_what_died(connection)
            if not keeps_statuses:
                again.apply(connection, sweep_id, wanted)
        self._guard.empty_log()
        return sweep_id

    def refresh_sweep(
        self,
        header: SweepHeader,
        *,
        timeout_s: float,
        repeats_minimum: int,
        retry: frozenset[Status] = frozenset(),
        prune: bool = False,
        keeps_statuses: bool = False,
    ) -> int | None:
        """`register_sweep` for a plan that is stored already: no walk over its cells. None where it is another plan."""
        wanted = replace(_wanted(header, timeout_s, repeats_minimum, retry), prune=prune)
        if self._guard.read(plans.known_sweep, header) is None:
            return None

        def refresh(connection: sqlite3.Connection) -> int:
            sweep_id = plans.save_sweep(connection, header, repeats_minimum, self._now())
            self._end_what_died(connection)
            if not keeps_statuses:
                again.apply(connection, sweep_id, wanted)
            return sweep_id

        return self._guard.write(refresh)

    def next_pending(self, sweep_id: int, but: Collection[int] = ()) -> PendingCell | None:
        """The pending cell with the lowest position, none of these."""
        return self._guard.read(queries.next_pending, sweep_id, but)

    def cell_by_key(self, sweep_id: int, key: str) -> PendingCell | None:
        """A cell of the plan, whatever its status."""
        return self._guard.read(queries.cell_by_key, sweep_id, key)

    def planned(self, sweep_id: int, position: int) -> PlannedCell:
        """A cell of the plan as it was registered. Raises KeyError."""
        return self._guard.read(queries.planned, sweep_id, position)

    def counts(self, sweep_id: int) -> dict[Status, int]:
        """How many cells of the sweep have each status."""
        return self._guard.read(queries.counts, sweep_id, self._notes)

    def copies(self, cell_id: int) -> int:
        """How many cells take the result of this one."""
        return self._guard.read(plans.copies_of, cell_id)

    def waiting_copies(self, sweep_id: int) -> int:
        """How many pending cells are not measured themselves: they wait for the result of another one."""
        return self._guard.read(plans.waiting_copies, sweep_id)

    def history(self, sweep_id: int) -> list[Took]:
        """What the last finished attempts of the sweep took, the newest first."""
        return self._guard.read(queries.history, sweep_id, self._notes, self._took.setdefault(sweep_id, {}))

    def work_left(self, sweep_id: int) -> WorkLeft:
        """What the pending cells of the sweep ask, in what shares."""
        return self._guard.read(queries.work_left, sweep_id, self._notes)

    def controls_seen(self, sweep_id: int) -> ControlsSeen:
        """What is known of the loads of the sweep's control cell."""
        return self._guard.read(queries.controls_seen, sweep_id, self._notes)

    def rests(self, sweep_id: int) -> list[float]:
        """The seconds between the last cells of the sweep, the newest first."""
        return self._guard.read(queries.rests, sweep_id, self._notes)

    def segment(self, sweep_id: int, fingerprint: Mapping[str, object]) -> tuple[int, tuple[str, ...]]:
        """The segment of these surroundings, a new one where they changed, and what changed (`ollama 0.33 -> 0.34`).

        Attempts that begin from now on belong to it. A sweep's first segment is no change.
        """
        text = plans.canonical_json(dict(sorted(fingerprint.items())))
        last = self._guard.read(queries.segment_of, sweep_id, self._notes)
        if last and plans.canonical_json(last[1]) == text:
            return last[0], ()

        def begin(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                "INSERT INTO segments (fingerprint, started_at) VALUES (?, ?) RETURNING id", (text, self._now())
            ).fetchone()
            connection.execute("UPDATE sweeps SET segment_id = ? WHERE id = ?", (row[0], sweep_id))
            return int(row[0])

        return self._guard.write(begin), _changes(last[1], fingerprint) if last else ()

    # --- attempts

    def begin_attempt(
        self,
        sweep_id: int,
        cell_id: int,
        *,
        timeout_s: float,
        purpose: Purpose | None = None,
        chosen: Chosen | None = None,
        leased: Leased | None = None,
    ) -> int:
        """Store, before anything is done, that a cell is being tried, why a planner chose it, and which lane measures
        it; the attempt's id.
        """
        now, boot_id = self._now(), self._boot_id

        def begin(connection: sqlite3.Connection) -> int:
            number = attempts.begin(connection, sweep_id, cell_id, timeout_s, now, boot_id, purpose)
            if chosen is not None:
                keeping.begin(connection, sweep_id, number, chosen)
            self._lease(connection, sweep_id, number, leased)
            return number

        return self._guard.write(begin)

    def begin_further(self, sweep_id: int, load: FurtherLoad, *, timeout_s: float, leased: Leased | None = None) -> int:
        """The same for a further load of a cell that has a value, and keeps it."""
        now, boot_id = self._now(), self._boot_id

        def begin(connection: sqlite3.Connection) -> int:
            number = attempts.begin(connection, sweep_id, load.cell_id, timeout_s, now, boot_id, load.purpose)
            further.begin(connection, load, number)
            self._lease(connection, sweep_id, number, leased)
            return number

        return self._guard.write(begin)

    def finish_attempt(self, attempt_id: int, outcome: Outcome, *, cell_status: Status) -> None:
        """The checkpoint: outcome, runs, scores, raw output and the cell's status in one transaction.

        `outcome.summary` speaks for all believed runs of the cell, earlier attempts' among them. `cell_status` is
        PENDING where a retry follows or the attempt does not count. Calling it again with the same outcome does
        nothing, so it may be tried again after a StorageError. NaN and infinity are refused (ValueError).
        """
        attempts.check_finite(outcome)

        def finish(connection: sqlite3.Connection) -> beside.CalledDone | None:
            attempts.finish(connection, attempt_id, outcome, cell_status, self._now())
            return queries.called_done(connection)

        self._saved(self._guard.write(finish))

    def finish_further(self, load: FurtherLoad, attempt_id: int, outcome: Outcome, *, is_over: bool) -> None:
        """The checkpoint of a further load; `is_over` is False where it is tried again. May be called again."""
        attempts.check_finite(outcome)
        now = self._now()
        self._guard.write(
            lambda connection: further.finish(connection, load, attempt_id, outcome, now, is_over=is_over)
        )
        self._saved(None)

    def finish_control(self, attempt_id: int, outcome: Outcome, drift: float | None) -> None:
        """The checkpoint of a control measurement; `drift` as a share, None where it gave no rate."""
        attempts.check_finite(outcome)
        now = self._now()

        def finish(connection: sqlite3.Connection) -> None:
            if attempts.end(connection, attempt_id, outcome, now) is not None and drift is not None:
                attempts.save_control(connection, attempt_id, outcome, drift, now)

        self._guard.write(finish)
        self._saved(None)

    def _saved(self, done: beside.CalledDone | None) -> None:
        """After a commit of results: how many there are is written down beside the database, and the log kept short."""
        if done is not None:
            beside.note_called_done(self._done_path, done)
        self._guard.shorten_log()
        self._guard.warn_of_long_log()

    def believed_runs(self, cell_id: int, *, choice: int = 0, now_of: int | None = None) -> tuple[tuple[Run, ...], ...]:
        """Believed runs of the cell's earlier loads, by load, without their raw output.

        `now_of`: only those of the surroundings in which this sweep is measured now.
        """
        return self._guard.read(attempts.believed_runs, cell_id, choice, now_of, self._notes)

    def spreads(self, sweep_id: int) -> Mapping[str, Spreads]:
        """How far runs and loads differ in the surroundings at hand, by metric."""
        return self._guard.read(spreads.of_sweep, sweep_id, self._notes)

    # --- further loads

    def next_further(self, sweep_id: int, purposes: Collection[Purpose] = ()) -> FurtherLoad | None:
        """The further load whose turn is next, of all or of those that were made for this."""
        return self._guard.read(further.following, sweep_id, purposes)

    def want_in_turn(self, sweep_id: int) -> None:
        """Cells of an arm that only other sweeps have measured are loaded again, in turn with the other arm.

        They keep their value until then.
        """
        self._guard.write(lambda connection: further.want_in_turn(connection, sweep_id))

    def waiting_loads(self, sweep_id: int) -> Mapping[Purpose, int]:
        """How many further loads wait, by what they are made for."""
        return self._guard.read(further.waiting, sweep_id)

    def want_pass(self, sweep_id: int, number: int, order: Iterable[int]) -> int:
        """Begin a pass: measured cells that had none of this number, in the order of these positions; how many."""
        found = list(order)
        return self._guard.write(lambda connection: further.want_pass(connection, sweep_id, number, found))

    def second_look(self, sweep_id: int) -> Look | None:
        """The sweep's last second look."""
        return self._guard.read(further.look, sweep_id)

    def begin_look(self, sweep_id: int, share: float) -> None:
        """A second look belongs to the sweep from now on."""
        now = self._now()
        self._guard.write(lambda connection: further.begin_look(connection, sweep_id, share, now))

    def begin_stage(self, look_id: int, stage: int, wishes: Iterable[Wish], *, loads: int = 1) -> None:
        """The cells that a stage of it measures again, so often."""
        asked = list(wishes)
        self._guard.write(lambda connection: further.begin_stage(connection, look_id, stage, asked, loads=loads))

    def loads_made(self, sweep_id: int) -> Mapping[Purpose | None, int]:
        """How many loads of the sweep came to an end, by what they were made for; None for the cells' own."""
        return self._guard.read(further.made, sweep_id)

    def has_looked(self, look_id: int, stage: int) -> bool:
        """Whether a load of this stage of a second look has been made."""
        return self._guard.read(further.has_looked, look_id, stage)

    def of_all_loads(self, sweep_id: int, reason: str) -> Mapping[int, Mapping[str, float]]:
        """What cells that the last second look chose for this reason come to by all their loads, by position."""
        return self._guard.read(further.of_all_loads, sweep_id, reason)

    def drop_second_look(self, sweep_id: int) -> None:
        """What still waits in the stage at hand is not measured."""
        self._guard.write(lambda connection: further.drop_waiting(connection, sweep_id, Purpose.SECOND_LOOK))

    def wants_first_state(self, sweep_id: int) -> bool:
        """Whether a pending cell has never had a final state."""
        return self._guard.read(further.wants_first_state, sweep_id)

    def end_look(self, sweep_id: int) -> None:
        """Nothing more is looked at."""
        now = self._now()
        self._guard.write(lambda connection: further.end_look(connection, sweep_id, now))

    def seconds(self, sweep_id: int) -> Mapping[Purpose | None, float]:
        """What the attempts of all sessions took, by what they were made for; None for the cells' own."""
        return self._guard.read(further.seconds, sweep_id, self._notes)

    def former_statuses(self, cell_id: int) -> frozenset[Status]:
        """How the cell's ended attempts ended."""
        return self._guard.read(queries.former_statuses, cell_id, self._notes)

    # --- memory

    def record_failure(self, attempt_id: int, failed: Failed) -> None:
        """What is known of an attempt that ran out of memory, beside its outcome; once."""
        self._guard.write(lambda connection: failures.keep(connection, attempt_id, failed))

    def prune(self, sweep_id: int, cell_id: int) -> Pruned | None:
        """Leave out, or no longer, what the last attempt at a cell says something of; None where it changes nothing."""
        if not self._guard.read(pruning.says_something, sweep_id, cell_id):
            return None
        return self._guard.write(lambda connection: pruning.look(connection, sweep_id, cell_id))

    def in_doubt(self, sweep_id: int, position: int) -> PendingCell | None:
        """A cell that ran out of memory once and would leave out this place if it did so in a second fresh load."""
        return self._guard.read(queries.in_doubt, sweep_id, position)

    def left_out(self, sweep_id: int) -> LeftOut:
        """What the sweep's plan leaves out for want of memory."""
        return self._guard.read(queries.left_out, sweep_id)

    def late(self, sweep_id: int) -> int:
        """How many pending places of the plan come last."""
        return self._guard.read(queries.late, sweep_id)

    def known_failures(self, where: Surroundings) -> list[KnownFailure]:
        """What ran out of memory before in the same surroundings."""
        return self._guard.read(failures.known, where, self._notes)

    # --- drift

    def control_cell(self, sweep_id: int) -> ControlCell | None:
        """The first measured cell of the sweep in the surroundings at hand."""
        return self._guard.read(queries.control_cell, sweep_id)

    def control_points(self, sweep_id: int) -> list[Point]:
        """What the control cell gave in the surroundings at hand, its own load first."""
        return self._guard.read(queries.control_points, sweep_id, self._notes)

    def correct(self, sweep_id: int) -> None:
        """Keep by how much each load in the surroundings at hand was faster or slower for the time it was made at.

        Nothing is kept where the line through the controls would make it no better.
        """
        self._guard.write(lambda connection: corrections.make(connection, sweep_id, self._notes))

    # --- loads without a prompt

    def scanned_loads(self, sweep_id: int) -> list[scans.ScannedLoad]:
        """The sweep's loads in the surroundings at hand, the oldest first."""
        return self._guard.read(lambda connection: scans.loads(connection, self._notes, sweep_id, now_only=True))

    def save_scanned_load(self, sweep_id: int, load: scans.ScannedLoad) -> None:
        """Keep a load; no cell and no attempt is touched."""
        self._guard.write(lambda connection: scans.save(connection, sweep_id, load, self._now()))

    # --- prompts

    def prompt_tokens(self, engine: str, model_digest: str, modelfile: str, prompt_hash: str) -> int | None:
        """The prompt's true number of tokens on this model, where it was counted before."""
        return self._guard.read(queries.prompt_tokens, engine, model_digest, modelfile, prompt_hash)

    def save_prompt_tokens(self, engine: str, model_digest: str, modelfile: str, prompt_hash: str, tokens: int) -> None:
        self._upsert("prompt_tokens", (engine, model_digest, content_hash(modelfile), prompt_hash, tokens))

    def made_prompt(self, engine: str, model_digest: str, modelfile: str, spec_text: str) -> str | None:
        """The text that was made for `{tokens: N}` on this model before."""
        return self._guard.read(queries.made_prompt, engine, model_digest, modelfile, spec_text)

    def save_made_prompt(self, engine: str, model_digest: str, modelfile: str, spec_text: str, text: str) -> None:
        self._upsert("made_prompts", (engine, model_digest, content_hash(modelfile), spec_text, text))

    def save_prompt(self, prompt_hash: str, text: str) -> None:
        """Keep a prompt's text beside its hash."""
        self._upsert("prompts", (prompt_hash, text))

    def _upsert(self, table: str, row: tuple[str | int, ...]) -> None:
        sql = f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' for _ in row)})"  # noqa: S608 - the names are ours
        self._guard.write(lambda connection: connection.execute(sql, row))

    # --- the ledger

    def record(self, kind: str, name: str, details: Mapping[str, str]) -> int:
        """Write down what an engine is about to make; durable when it returns."""
        row = (kind, name, plans.canonical_json(dict(details)), self._now(), os.getpid())
        sql = "INSERT INTO ledger (kind, name, details, recorded_at, pid) VALUES (?, ?, ?, ?, ?) RETURNING id"
        number = int(self._guard.write(lambda connection: connection.execute(sql, row).fetchone()[0]))
        self._recorded.add(number)
        return number

    def settle(self, number: int) -> None:
        """It is gone again."""
        self._guard.write(lambda connection: connection.execute("DELETE FROM ledger WHERE id = ?", (number,)))
        self._recorded.discard(number)

    def leftovers(self) -> list[Leftover]:
        """What earlier sessions recorded and did not settle, the newest first."""
        sql = "SELECT id, kind, name, details FROM ledger ORDER BY id DESC"
        rows = self._guard.read(lambda connection: list(values.rows_of(connection, sql)))
        found = self._notes.rows("a line of the ledger", _leftover, rows)
        return [leftover for leftover in found if leftover.number not in self._recorded]

    # --- old results

    def import_results(self, name: str, rows: Iterable[Mapping[str, object]], source: str) -> int:
        """Old results (num_ctx, num_batch, prompt_eval_rate or None, timestamp, error) as a sweep of their own.

        A row may have the `status` and `reason` that its error stands for.

        Returns how many were new; importing the same again changes nothing. Raises ValueError for a bad row and
        ConfigError where the name is that of a measured sweep.
        """
        found = list(rows)

        def take(connection: sqlite3.Connection) -> tuple[int, beside.CalledDone | None]:
            added = imported.import_results(connection, name, found, source, self._now())
            return added, queries.called_done(connection)

        added, done = self._guard.write(take)
        self._saved(done)
        return added


def _wanted(header: SweepHeader, timeout_s: float, repeats_minimum: int, retry: frozenset[Status]) -> again.Wanted:
    rounds = header.spec.get("rounds")
    reuses = header.spec.get("reuse_duplicates") is True
    rounds = rounds if isinstance(rounds, dict) else {}
    return again.Wanted(timeout_s, repeats_minimum, retry, rounds, reuses=reuses)


def _leftover(number: int, kind: object, name: object, details: object) -> Leftover:
    return Leftover(number, values.text(kind), values.text(name), values.json_object(details))


def _has_sweeps(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM sweeps)").fetchone()[0])


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _seen(fingerprint: Mapping[str, object], name: str) -> str:
    return one_line(str(fingerprint.get(name, "unknown")), 200)


def _changes(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, ...]:
    names = sorted({*old, *new})
    return tuple(f"{name} {_seen(old, name)} -> {_seen(new, name)}" for name in names
                 if old.get(name) != new.get(name))  # fmt: skip
