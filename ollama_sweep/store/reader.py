"""Read-only access for every other command and for a second terminal: never creates, never disturbs the writer."""

# ruff: noqa: S608 - what is put into SQL here are our own names of tables and columns; values are always bound
from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ollama_sweep.core import metrics
from ollama_sweep.core.errors import ConfigError, NothingStored, StorageError, nearest
from ollama_sweep.core.noise.drift import Point
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import AnswerRow, CellResult, Effective, Purpose, Run, Series, Status
from ollama_sweep.store import again, beside, kept, lock, log, one_cell, plans, queries, scans, schema, values
from ollama_sweep.store import file as files
from ollama_sweep.store.again import Wanted
from ollama_sweep.store.beside import check_database
from ollama_sweep.store.goals.reading import GoalReading
from ollama_sweep.store.lanes.reading import LaneReading
from ollama_sweep.store.loads import stored
from ollama_sweep.store.loads.reading import LoadsReading
from ollama_sweep.store.many.reading import ManyReading
from ollama_sweep.store.memory.reading import MemoryReading
from ollama_sweep.store.rows import (
    AttemptRow,
    FailedAttempt,
    Holder,
    PlannedCell,
    RunningAttempt,
    StoredAttempt,
    SweepRow,
)
from ollama_sweep.store.view import results as view

if TYPE_CHECKING:
    from ollama_sweep.store.loads.spreads import StoredSpread
    from ollama_sweep.store.verify import Difference, Verified

_SWEEP_COLUMNS = """id, name, engine, config_path, spec, plan_fingerprint, machine, dimensions, created_at, last_run_at,
    pid"""
_RESULTS = """
SELECT plan.coordinates AS " coordinates", (SELECT o.key FROM reused JOIN cells AS o ON o.id = original_id
        WHERE reused.cell_id = plan.cell_id) AS " reused_from", (SELECT json_valid(options) AND json_valid(server)
        AND json_valid(COALESCE(scores, '{}')) FROM cells LEFT JOIN attempts ON attempts.id = cells.attempt_id
        WHERE cells.id = plan.cell_id) AS " is_json", results.*
FROM sweeps CROSS JOIN plan ON plan.sweep_id = sweeps.id
    CROSS JOIN results ON results.sweep = sweeps.name AND results.position = plan.position
WHERE sweeps.id = ?"""
_RESULT = f"{_RESULTS} AND plan.position = ?"
_SPOILED = ("drifted", "throttled", "busy", "shared_gpu", "noisy")
_FLAGGED = f"""({" OR ".join(f"results.flags LIKE '%{flag}%'" for flag in _SPOILED)}) ORDER BY plan.position"""
_MOST_NAMED = 5
_NOT_METRICS = frozenset({"num_ctx", "num_batch", "position"})
_DEFAULT_DIMENSIONS = ("num_ctx", "num_batch")
_ATTEMPT = ("s.name", "a.reason", "a.error", "a.flags", "a.runs", "a.prompt_eval_rate", "a.timeout_s", "a.finished_at",
            "a.repeats", "a.effective_num_ctx", "a.effective_num_batch", "a.size_bytes", "a.size_vram_bytes",
            "a.load_duration_s", "a.others_loaded", "a.loads")  # fmt: skip
_KEYS_AT_ONCE, _ROWS_AT_ONCE = 500, 5000


class Reader(LoadsReading, MemoryReading, GoalReading, LaneReading, ManyReading):
    """The database, open for reading; made by `Reader.open`."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, called_done: beside.CalledDone | None = None
    ) -> None:
        self.path = path
        self._connection = connection
        self._called_done = called_done
        self._notes = values.Notes(path)

    @classmethod
    def open(cls, path: Path) -> Reader:
        """Raises ConfigError (missing, empty), DatabaseInUse (another program's) or StorageError (damaged).

        Values that cannot be read are left out; closing then warns of them (`UnreadableValue`), once.
        """
        check_database(path)
        if not path.exists():
            raise ConfigError(f"no database at {path}. Start with: ollama-sweep run CONFIG")
        if path.stat().st_size == 0:
            raise ConfigError(f"{path} is empty. Start with: ollama-sweep run CONFIG")
        called_done = beside.called_done(path)  # before the database: what is called done later may be there already
        try:
            return cls(path, files.connect_ro(path), called_done)
        except ConfigError:  # it is ours, and newer
            _tidy(path)
            raise

    @classmethod
    def following(cls, followed: log.Following) -> Reader:
        """On the connection that is kept open to follow a database, and is closed by who does. Raises as `open`."""
        called_done = beside.called_done(followed.path)
        connection = followed.connection()
        if connection is None:
            cls.open(followed.path).close()
            raise StorageError(f"{followed.path} cannot be read now")
        return cls(followed.path, connection, called_done)

    @classmethod
    def if_there(cls, path: Path) -> Reader | None:
        """The same, None where there is no database yet, or one in which nothing was ever committed."""
        try:
            return cls.open(path) if path.exists() and path.stat().st_size else None
        except NothingStored:
            return None

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()
        _tidy(self.path)
        self._notes.warn()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads inside see the database as it is at the first of them."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    # --- sweeps

    def sweeps(self) -> list[SweepRow]:
        """All sweeps, the one that ran last first."""
        found = self._rows(f"SELECT {_SWEEP_COLUMNS} FROM sweeps ORDER BY run_order DESC")
        return [self._sweep_row(*row) for row in found]

    def sweep_if_there(self, name: str) -> SweepRow | None:
        """A sweep by its name; None where there is none yet."""
        found = self._rows(f"SELECT {_SWEEP_COLUMNS} FROM sweeps WHERE name = ?", name)
        return next((self._sweep_row(*row) for row in found), None)

    def sweep(self, name: str) -> SweepRow:
        """The same. Raises ConfigError with the nearest known name."""
        if found := self.sweep_if_there(name):
            return found
        known = [str(row[0]) for row in self._rows("SELECT name FROM sweeps")]
        more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
        there = f"; it has {', '.join(known[:_MOST_NAMED])}{more}" if known else ""
        hint = nearest(name, known)
        raise ConfigError(f"{self.path} has no sweep {name}{'' if hint else there}.{hint}")

    def last_sweep(self) -> SweepRow | None:
        """The sweep that ran last; None where there is none."""
        found = self._rows(f"SELECT {_SWEEP_COLUMNS} FROM sweeps ORDER BY run_order DESC LIMIT 1")
        return next((self._sweep_row(*row) for row in found), None)

    def _sweep_row(
        self, number: int, name: object, engine: object, path: object, spec: object, *others: Any
    ) -> SweepRow:
        fingerprint, machine, dimensions, created_at, last_run_at, pid = others
        found, place = self._notes, f"sweep {name}"
        return SweepRow(
            number, str(name), str(engine), str(path or ""),
            found.field(f"the settings of {place}", values.json_object, spec, {}), str(fingerprint), str(machine or ""),
            found.field(f"the dimensions of {place}", values.names, dimensions, _DEFAULT_DIMENSIONS),
            str(created_at), str(last_run_at), found.field(f"the pid of {place}", values.optional_whole, pid, None),
        )  # fmt: skip

    def counts(self, sweep_id: int) -> dict[Status, int]:
        """How many cells of the sweep have each status; those without any are left out."""
        with self._storage_errors():
            return queries.counts(self._connection, sweep_id, self._notes)

    def planned(self, sweep_id: int, position: int) -> PlannedCell:
        """A cell of the plan as it was registered. Raises KeyError."""
        with self._storage_errors():
            return queries.planned(self._connection, sweep_id, position)

    def segment(self, sweep_id: int) -> Mapping[str, object] | None:
        """The surroundings the sweep was last measured in."""
        with self._storage_errors():
            found = queries.segment_of(self._connection, sweep_id, self._notes)
        return found[1] if found else None

    # --- cells

    def results(self, sweep_id: int) -> Iterator[CellResult]:
        """The rows of the view `results` in the order of the plan."""
        with self._storage_errors():
            yield from self._cell_results(f"{_RESULTS} ORDER BY plan.position", sweep_id)

    def results_from(self, sweep_id: int, position: int, n: int) -> list[CellResult]:
        """At most so many of them, from a place of the plan on."""
        with self._storage_errors():
            sql = f"{_RESULTS} AND plan.position >= ? ORDER BY plan.position LIMIT ?"
            return list(self._cell_results(sql, sweep_id, position, n))

    def results_at(self, sweep_id: int, positions: Sequence[int]) -> list[CellResult]:
        """Those at these places of the plan, in its order."""
        with self._storage_errors():
            sql = f"{_RESULTS} AND plan.position IN (SELECT value FROM json_each(?)) ORDER BY plan.position"
            return list(self._cell_results(sql, sweep_id, json.dumps(list(map(int, positions)))))

    def result(self, sweep_id: int, position: int) -> CellResult:
        """The row of the view `results` of one cell. Raises KeyError."""
        with self._storage_errors():
            found = next(self._cell_results(_RESULT, sweep_id, position), None)
        if found is None:
            raise KeyError(position)
        return found

    def _cell_results(self, sql: str, *bound: Scalar) -> Iterator[CellResult]:
        described = self._connection.execute(f"SELECT * FROM ({sql}) LIMIT 0", bound).description
        readers = {column[0]: view.reader_of(column[0]) for column in described[3:]}
        for coordinates, original, is_json, *rest in values.rows_of(self._connection, sql, bound):
            row = dict(zip(readers, rest, strict=True))
            found = self._notes.row(f"cell {row['cell']}", self._cell_result, coordinates, original, row, readers)
            if not is_json:
                self._notes.note(f"options or scores of cell {row['cell']}")
            if found is not None:
                yield found

    def _cell_result(
        self, text: object, original: object, row: dict[str, Any], readers: Mapping[str, Callable[[object], Scalar]]
    ) -> CellResult:
        coordinates = values.scalars(text)
        label = ", ".join(f"{name} {value}" for name, value in coordinates.items())
        status = values.status(row["status"])
        self._notes.fields(label, readers, row)
        metrics = {
            name: value
            for name, value in row.items()
            if isinstance(value, int | float) and name not in coordinates and name not in _NOT_METRICS
        }
        flags = self._notes.field(f"flags of {label}", values.flags, row["flags"], None)
        flags = values.known_flags(row["flags"]) if flags is None else flags
        return CellResult(
            key=row["cell"] or "", coordinates=coordinates, model=row["model"] or "", task=row["task"] or "",
            status=status, reason=row["reason"] or "", error=row["error"] or "", flags=flags,
            attempts=int(row["attempts"] or 0), metrics=metrics, row=row, reused_from=_shown(original),
        )  # fmt: skip

    def result_columns(self) -> list[str]:
        """The columns of the view `results`."""
        with self._storage_errors():
            return [column[0] for column in self._connection.execute("SELECT * FROM results LIMIT 0").description]

    def result_types(self) -> dict[str, str]:
        """What they hold, as `schema.view_types` says it."""
        with self._storage_errors():
            return schema.view_types(self._connection)

    def table_columns(self) -> dict[str, dict[str, str]]:
        """The tables of the file as it is: the columns of each, with their types."""
        with self._storage_errors():
            found = schema.types_in(self._connection)
        return {table: {name: kind for name, (kind, _) in columns.items()} for table, columns in found.items()}

    def in_parts(self, sweep_id: int, columns: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
        """These columns of all results in the order of the plan, some rows at a time: never all of them in memory.

        The values are as they stand in the database; `checked` looks at one.
        """
        named = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
        sql = f"SELECT {named} FROM results WHERE sweep = (SELECT name FROM sweeps WHERE id = ?) ORDER BY position"
        with self._storage_errors():
            rows = values.rows_of(self._connection, sql, (sweep_id,))
            while some := list(islice(rows, _ROWS_AT_ONCE)):
                yield some

    def checked(self, column: str, value: object) -> Any:
        """A value of a column of the view `results`; None for one that cannot be read, which is noted."""
        return self._notes.field(f"{column} of a cell", view.reader_of(column), value, None)

    def cannot_read(self, place: str) -> None:
        """What a caller had to leave out, for the one warning."""
        self._notes.note(place)

    def checked_row(self, names: Sequence[str], row: tuple[Any, ...]) -> list[Any]:
        """The same for a whole row."""
        return [self.checked(name, value) for name, value in zip(names, row, strict=True)]

    def tasks(self, sweep_id: int) -> list[str]:
        """The tasks of the sweep, in the order of the plan."""
        sql = """SELECT task FROM plan JOIN cells ON cells.id = cell_id WHERE sweep_id = ?
            GROUP BY task ORDER BY min(position)"""
        return [str(row[0]) for row in self._rows(sql, sweep_id)]

    def some_results(self, sweep_id: int, task: str, n: int) -> list[CellResult]:
        """At most so many results of a task, measured ones where there are any."""
        for condition in ("results.status = 'ok'", "true"):
            sql = f"{_RESULTS} AND results.task = ? AND {condition} ORDER BY plan.position"
            with self._storage_errors():
                found = list(islice(self._cell_results(sql, sweep_id, task), n))
            if found:
                return found
        return []

    def remarkable(self, sweep_id: int, n: int) -> list[CellResult]:
        """Of very many cells those to look at first: so many of each task that lead, and that are flagged."""
        found: dict[str, CellResult] = {}
        for task in self.tasks(sweep_id):
            about = metrics.metric(metrics.default_metric(self.some_results(sweep_id, task, 1)))
            named = about.name.replace('"', '""')
            way = "DESC" if about.better >= 0 else "ASC"
            for condition in (f'results."{named}" IS NOT NULL ORDER BY results."{named}" {way}', _FLAGGED):
                sql = f"{_RESULTS} AND results.task = ? AND results.status = 'ok' AND {condition} LIMIT ?"
                with self._storage_errors():
                    found |= {result.key: result for result in self._cell_results(sql, sweep_id, task, n)}
        return list(found.values())

    def answers(self, sweep_id: int) -> Iterator[AnswerRow]:
        """The kept answers of the sweep's tasks, in the order of the plan."""
        with self._storage_errors():
            yield from kept.answers(self._connection, sweep_id, self._notes)

    def rates(self, sweep_id: int) -> dict[str, list[float]]:
        """The believed prompt rates of the sweep's measured cells, in tokens/s, by the cell's key, the oldest first."""
        sql = """SELECT cells.key, runs.prompt_eval_rate
            FROM (SELECT DISTINCT cell_id FROM plan WHERE sweep_id = ?) AS place
            CROSS JOIN cells ON cells.id = place.cell_id AND cells.task = 'prompt_eval' AND cells.status = 'ok'
            CROSS JOIN attempts ON attempts.cell_id = cells.id AND attempts.status = 'ok'
                AND attempts.purpose IS NOT 'control'
            CROSS JOIN runs ON runs.attempt_id = attempts.id AND warmup = 0 AND believed = 1
            WHERE runs.prompt_eval_rate > 0 ORDER BY cells.id, attempts.number, runs.number"""
        found: dict[str, list[float]] = {}
        for key, value in self._rows(sql, sweep_id):
            if rate := self._notes.field(f"a rate of cell {key}", values.number, value, 0.0):
                found.setdefault(str(key), []).append(rate)
        return found

    def measured_again(self, keys: Iterable[str], wanted: Wanted) -> Mapping[str, str]:
        """Why `run` would measure each of these cells, "" where it is done; those nobody knows are left out."""
        found: dict[str, str] = {}
        rest = iter(keys)
        while chunk := list(islice(rest, _KEYS_AT_ONCE)):
            with self._storage_errors():
                found.update(again.reasons(self._connection, chunk, wanted, self._notes))
        return found

    def changed_since(self, sweep_id: int, attempt_id: int, n: int) -> tuple[int, list[int]]:
        """The last attempt of all, and the places of the plan that have had one since that one, at most so many.

        The one before that attempt is told as well: it may have been under way then.
        """
        last = int(self._rows("SELECT COALESCE(max(id), 0) FROM main.attempts")[0][0])
        sql = """SELECT DISTINCT position FROM main.attempts JOIN plan ON plan.cell_id = attempts.cell_id
            AND +plan.sweep_id = ? WHERE attempts.id >= ? ORDER BY attempts.id DESC LIMIT ?"""
        return last, [int(row[0]) for row in self._rows(sql, sweep_id, attempt_id - 1, n)]

    def running(self, sweep_id: int) -> RunningAttempt | None:
        """The attempt that has begun and not ended, of several the last."""
        return next(iter(self.under_way(sweep_id)), None)

    def under_way(self, sweep_id: int) -> list[RunningAttempt]:
        """Those that have begun and not ended, the last one first: one for each lane."""
        sql = """SELECT cells.key, number, started_at, coordinates, pid FROM main.attempts INDEXED BY attempts_open
            JOIN cells ON cells.id = attempts.cell_id
            LEFT JOIN plan ON plan.cell_id = cells.id AND +plan.sweep_id = attempts.sweep_id
            WHERE attempts.sweep_id = ? AND finished_at IS NULL ORDER BY attempts.id DESC"""

        def running(key: str, number: int, started_at: object, coordinates: object, pid: int | None) -> RunningAttempt:
            place = self._place(coordinates)
            return RunningAttempt(key, number, values.moment(started_at).isoformat(), place, pid)

        return list(self._notes.rows("the attempt under way", running, self._rows(sql, sweep_id)))

    def _place(self, coordinates: object) -> dict[str, Scalar]:
        """Empty for an attempt at a cell that is no longer in the plan."""
        nowhere: dict[str, Scalar] = {}
        return self._notes.field("a place in the plan", values.scalars, coordinates or "{}", nowhere)

    def next_cell(self, sweep_id: int) -> dict[str, Scalar] | None:
        """The coordinates of the cell whose turn is next; None where no cell is pending."""
        sql = """SELECT coordinates FROM plan WHERE sweep_id = ? AND pending = 1
                AND NOT EXISTS (SELECT 1 FROM reused WHERE cell_id = plan.cell_id) ORDER BY late, position LIMIT 1"""
        for (coordinates,) in self._rows(sql, sweep_id):
            return self._notes.field("a place in the plan", values.scalars, coordinates, None)
        return None

    def errors(self, sweep_id: int, n: int) -> list[FailedAttempt]:
        """The last errors of the sweep, the newest first."""
        sql = """SELECT coordinates, status, reason, error, finished_at FROM main.attempts INDEXED BY attempts_error
            LEFT JOIN plan ON plan.cell_id = attempts.cell_id AND +plan.sweep_id = attempts.sweep_id
            WHERE attempts.sweep_id = ? AND error <> '' ORDER BY attempts.id DESC LIMIT ?"""

        def failed(coordinates: object, status: object, *texts: object) -> FailedAttempt:
            place = self._place(coordinates)
            return FailedAttempt(place, values.status(status), *(_shown(text) for text in texts))

        return list(self._notes.rows("one of the last errors", failed, self._rows(sql, sweep_id, n)))

    def attempts(self, key: str) -> list[AttemptRow]:
        """The history of a cell, the oldest attempt first."""
        tables = """cells JOIN attempts AS a ON a.cell_id = cells.id JOIN sweeps AS s ON s.id = a.sweep_id
            WHERE cells.key = :key"""
        with self._storage_errors():
            rows = list(stored.read(self._connection, tables, _ATTEMPT, bound={"key": key}))
        return list(self._notes.rows(f"an attempt of cell {key}", self._attempt_row, rows))

    def _attempt_row(self, load: stored.StoredLoad, row: tuple[Any, ...]) -> AttemptRow:
        (sweep, reason, error, flags, runs, rate, timeout_s, finished_at, repeats, num_ctx, num_batch, size_bytes,
         size_vram_bytes, load_duration_s, others, loads) = row  # fmt: skip
        loaded = tuple(name for name in _shown(others).split(",") if name)
        used = Effective(
            values.optional_whole(num_ctx), values.optional_whole(num_batch), values.optional_whole(size_bytes),
            values.optional_whole(size_vram_bytes), values.optional_number(load_duration_s), loaded,
        )  # fmt: skip
        known = self._notes.field(f"flags of attempt {load.attempt_id}", values.flags, flags, values.known_flags(flags))
        return AttemptRow(
            load.attempt_id, _shown(sweep), load.number, values.status(load.status), _shown(reason), _shown(error),
            known, values.whole(runs), values.optional_number(rate), values.optional_number(timeout_s),
            _shown(load.started_at), values.optional_text(finished_at), load.segment_id, values.whole(repeats), used,
            Purpose(load.purpose) if load.purpose else None, values.optional_whole(loads) or 1,
        )  # fmt: skip

    def places(self, sweep_id: int) -> Iterator[one_cell.Place]:
        """Every cell of the sweep's plan: position, key, coordinates."""
        with self._storage_errors():
            yield from one_cell.places(self._connection, self._notes, sweep_id)

    def place_at(self, sweep_id: int, position: int) -> one_cell.Place | None:
        """The cell at a position of the plan."""
        with self._storage_errors():
            return one_cell.place_at(self._connection, self._notes, sweep_id, position)

    def places_of(self, sweep_id: int, prefix: str, limit: int) -> list[one_cell.Place]:
        """The first cells of the plan whose keys begin so."""
        with self._storage_errors():
            return one_cell.places_of(self._connection, self._notes, sweep_id, prefix, limit)

    def original_of(self, sweep_id: int, key: str) -> one_cell.Place | None:
        """The cell whose result this one has; None for a cell with a result of its own."""
        with self._storage_errors():
            return one_cell.original_of(self._connection, self._notes, sweep_id, key)

    def runs(self, attempt_id: int) -> list[Run]:
        """The runs of an attempt, warm-ups first."""
        with self._storage_errors():
            return one_cell.runs(self._connection, self._notes, attempt_id)

    def telemetry(self, attempt_id: int) -> Series | None:
        """What sensors said while an attempt lasted; None where nothing was kept."""
        with self._storage_errors():
            return one_cell.telemetry(self._connection, self._notes, attempt_id)

    def telemetry_of_cells(self, sweep_id: int) -> Iterator[tuple[int, Series]]:
        """That of the attempts which the sweep's cells show, by position and in the order of the plan."""
        with self._storage_errors():
            yield from one_cell.telemetry_of_cells(self._connection, self._notes, sweep_id)

    def controls(self, sweep_id: int, key: str) -> list[one_cell.Control]:
        """What the cell gave as the control cell of the sweep, the oldest first."""
        with self._storage_errors():
            return one_cell.controls(self._connection, self._notes, sweep_id, key)

    def segments(self) -> Mapping[int, Mapping[str, object]]:
        """All surroundings by their number."""
        with self._storage_errors():
            return one_cell.segments(self._connection, self._notes)

    def prompt(self, prompt_hash: str) -> str | None:
        """The text of a prompt that was measured with; None where it was not kept."""
        return next((str(row[0]) for row in self._rows("SELECT text FROM prompts WHERE hash = ?", prompt_hash)), None)

    def raw_outputs(self, attempt_id: int) -> dict[str, str]:
        """Everything an engine printed in an attempt, by part: `attempt`, `warmup 1`, `run 1`, …"""
        sql = "SELECT part, content FROM main.raw_outputs WHERE attempt_id = ? ORDER BY rowid"
        found = {}
        for part, content in self._rows(sql, attempt_id):
            text = self._notes.row(f"the output {part} of attempt {attempt_id}", values.unpacked, content)
            if text is not None:
                found[str(part)] = text
        return found

    def drifts(self, sweep_id: int, n: int) -> list[tuple[str, float]]:
        """The last control measurements of the sweep, the newest first: when, and the drift as a share."""
        with self._storage_errors():
            return queries.drifts(self._connection, sweep_id, n, self._notes)

    def control_points(self, sweep_id: int) -> list[Point]:
        """The loads of the sweep's control cell in its last surroundings, its own first; seconds from that one."""
        with self._storage_errors():
            return queries.control_points(self._connection, sweep_id, self._notes)

    def waiting_copies(self, sweep_id: int) -> int:
        """How many pending cells of the sweep wait for the result of another one."""
        with self._storage_errors():
            return plans.waiting_copies(self._connection, sweep_id)

    def scanned_loads(self, sweep_id: int) -> list[scans.ScannedLoad]:
        """The loads that `run --scan` made for the sweep in the surroundings of the last of them, the oldest first."""
        with self._storage_errors():
            return scans.loads(self._connection, self._notes, sweep_id)

    # --- prompts

    def prompt_tokens(self, engine: str, model_digest: str, modelfile: str, prompt_hash: str) -> int | None:
        """The prompt's true number of tokens on this model, where it was counted before."""
        with self._storage_errors():
            return queries.prompt_tokens(self._connection, engine, model_digest, modelfile, prompt_hash)

    def made_prompt(self, engine: str, model_digest: str, modelfile: str, spec_text: str) -> str | None:
        """The text that was made for `{tokens: N}` on this model before."""
        with self._storage_errors():
            return queries.made_prompt(self._connection, engine, model_digest, modelfile, spec_text)

    # --- the file

    def writer(self) -> Holder | None:
        """The process that holds the database for writing now."""
        return lock.holder(self.path)

    @property
    def is_older(self) -> bool:
        """An older version of this program made it, and no `run` has brought it up to date yet."""
        return bool(self._rows("PRAGMA user_version")[0][0] < schema.USER_VERSION)

    def warnings(self) -> list[str]:
        """What a person should know of the file: who can read it, a log that grows."""
        found = [files.privacy_warning(self.path), log.growing(self.path, self.writer())]
        found += [beside.missing_words(missing)] if (missing := self.missing_cells()) else []
        return [warning for warning in found if warning]

    def missing_cells(self) -> int:
        """How many cells that were called done are not in this file, as far as the file beside it says."""
        with self._storage_errors():
            return queries.missing_cells(self._connection, self._called_done)

    def damage(self) -> str | None:
        """What SQLite's own check finds wrong; None for a sound database. Reads all of it."""
        found = [str(row[0]) for row in self._rows("PRAGMA quick_check(3)")]
        return None if found == ["ok"] else "; ".join(found)

    def verify(self) -> Verified:
        """Whether everything is what was written: checksums, and values that cannot be read."""
        from ollama_sweep.store.verify import verify

        with self._storage_errors():
            return verify(self._connection)

    def stored_attempts(self) -> Iterator[StoredAttempt]:
        """Every attempt that has ended, with everything stored of it. What cannot be read is `verify`'s to say."""
        yield from one_cell.stored_attempts(self._connection, values.Notes(self.path))

    def former_loads(self, attempt: StoredAttempt) -> list[one_cell.FormerLoad]:
        """The earlier loads of the cell that the attempt's numbers may speak for, the oldest first."""
        with self._storage_errors():
            return one_cell.former_loads(self._connection, values.Notes(self.path), attempt)

    def stored_spreads(self) -> Iterator[StoredSpread]:
        """The sums and spreads of each metric in each segment of each sweep, and what they are made of."""
        from ollama_sweep.store.loads.spreads import stored

        yield from stored(self._connection, values.Notes(self.path))

    def stored_controls(self) -> Iterator[one_cell.StoredControl]:
        """Every control measurement."""
        yield from one_cell.stored_controls(self._connection, values.Notes(self.path))

    def corrected_loads(self) -> int:
        """How many loads have a rate without the machine's drift."""
        with self._storage_errors():
            return one_cell.corrected_loads(self._connection)

    def doubtful_cells(self) -> int:
        """How many cells of all sweeps failed or carry a flag."""
        with self._storage_errors():
            return one_cell.doubtful_cells(self._connection)

    def place_of(self, attempt_id: int, what: tuple[str, ...]) -> Difference:
        """What differs in an attempt, with the names of its sweep, its cell and its place."""
        from ollama_sweep.store.verify import of_attempt

        with self._storage_errors():
            return of_attempt(self._connection, attempt_id, what)


def _tidy(path: Path) -> None:
    """Nothing that reading made stays beside the database."""
    with lock.kept_free(path) as is_free:
        if is_free:
            files.remove_empty_log(path)


def _shown(value: object) -> str:
    """A text for people, also one that is not UTF-8; "" for what is none."""
    return str(value) if isinstance(value, str) else ""
