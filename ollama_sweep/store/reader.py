"""Read-only access for every other command and for a second terminal: never creates, never disturbs the writer."""

# ruff: noqa: S608 - what is put into SQL here are our own names of tables and columns; values are always bound
from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.forecast import Took
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import AnswerRow, CellResult, Effective, Flag, Status
from ollama_sweep.store import again, kept, lock, one_cell, queries, schema
from ollama_sweep.store import file as files
from ollama_sweep.store.again import Wanted
from ollama_sweep.store.attempts import decompress
from ollama_sweep.store.beside import check_database
from ollama_sweep.store.rows import AttemptRow, FailedAttempt, Holder, PlannedCell, RunningAttempt, SweepRow

_SWEEP_COLUMNS = """id, name, engine, config_path, spec, plan_fingerprint, machine, dimensions, created_at, last_run_at,
    pid"""
_RESULTS = """
SELECT plan.coordinates AS " coordinates", results.*
FROM sweeps CROSS JOIN plan ON plan.sweep_id = sweeps.id
    CROSS JOIN results ON results.sweep = sweeps.name AND results.position = plan.position
WHERE sweeps.id = ?"""
_RESULT = f"{_RESULTS} AND plan.position = ?"
_NOT_METRICS = frozenset({"num_ctx", "num_batch", "position"})
_KEYS_AT_ONCE = 500


class Reader:
    """The database, open for reading; made by `Reader.open`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> Reader:
        """Raises ConfigError (missing, empty), DatabaseInUse (another program's) or StorageError (damaged)."""
        check_database(path)
        if not path.exists():
            raise ConfigError(f"no database at {path}. Start with: sweep.py run CONFIG")
        if path.stat().st_size == 0:
            raise ConfigError(f"{path} is empty. Start with: sweep.py run CONFIG")
        try:
            return cls(path, files.connect_ro(path))
        except ConfigError:  # it is ours, and newer
            _tidy(path)
            raise

    @classmethod
    def if_there(cls, path: Path) -> Reader | None:
        """The same, None where there is no database yet."""
        return cls.open(path) if path.exists() and path.stat().st_size else None

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()
        _tidy(self.path)

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
        return [_sweep_row(row) for row in self._rows(f"SELECT {_SWEEP_COLUMNS} FROM sweeps ORDER BY run_order DESC")]

    def sweep_if_there(self, name: str) -> SweepRow | None:
        """A sweep by its name; None where there is none yet."""
        found = self._rows(f"SELECT {_SWEEP_COLUMNS} FROM sweeps WHERE name = ?", name)
        return next(map(_sweep_row, found), None)

    def sweep(self, name: str) -> SweepRow:
        """The same. Raises ConfigError with the nearest known name."""
        if found := self.sweep_if_there(name):
            return found
        known = [str(row[0]) for row in self._rows("SELECT name FROM sweeps")]
        raise ConfigError(f"{self.path} has no sweep {name}.{nearest(name, known)}")

    def last_sweep(self) -> SweepRow | None:
        """The sweep that ran last; None where there is none."""
        return next(iter(self.sweeps()), None)

    def counts(self, sweep_id: int) -> dict[Status, int]:
        """How many cells of the sweep have each status; those without any are left out."""
        with self._storage_errors():
            return queries.counts(self._connection, sweep_id)

    def planned(self, sweep_id: int, position: int) -> PlannedCell:
        """A cell of the plan as it was registered. Raises KeyError."""
        with self._storage_errors():
            return queries.planned(self._connection, sweep_id, position)

    def segment(self, sweep_id: int) -> Mapping[str, object] | None:
        """The surroundings the sweep was last measured in."""
        with self._storage_errors():
            found = queries.segment_of(self._connection, sweep_id)
        return found[1] if found else None

    # --- cells

    def results(self, sweep_id: int) -> Iterator[CellResult]:
        """The rows of the view `results` in the order of the plan."""
        with self._storage_errors():
            cursor = self._connection.execute(f"{_RESULTS} ORDER BY plan.position", (sweep_id,))
            columns = [column[0] for column in cursor.description[1:]]
            for row in cursor:
                yield _cell_result(json.loads(row[0]), dict(zip(columns, row[1:], strict=True)))

    def answers(self, sweep_id: int) -> Iterator[AnswerRow]:
        """The kept answers of the sweep's tasks, in the order of the plan."""
        with self._storage_errors():
            yield from kept.answers(self._connection, sweep_id)

    def rates(self, sweep_id: int) -> dict[str, list[float]]:
        """The believed prompt rates of the sweep's measured cells, in tokens/s, by the cell's key, the oldest first."""
        sql = """SELECT cells.key, runs.prompt_eval_rate
            FROM (SELECT DISTINCT cell_id FROM plan WHERE sweep_id = ?) AS place
            CROSS JOIN cells ON cells.id = place.cell_id AND cells.task = 'prompt_eval' AND cells.status = 'ok'
            CROSS JOIN attempts ON attempts.cell_id = cells.id AND attempts.status = 'ok'
            CROSS JOIN runs ON runs.attempt_id = attempts.id AND warmup = 0 AND believed = 1
            WHERE runs.prompt_eval_rate > 0 ORDER BY cells.id, attempts.number, runs.number"""
        found: dict[str, list[float]] = {}
        for key, rate in self._rows(sql, sweep_id):
            found.setdefault(key, []).append(rate)
        return found

    def measured_again(self, keys: Iterable[str], wanted: Wanted) -> Mapping[str, str]:
        """Why `run` would measure each of these cells, "" where it is done; those nobody knows are left out."""
        found: dict[str, str] = {}
        rest = iter(keys)
        while chunk := list(islice(rest, _KEYS_AT_ONCE)):
            with self._storage_errors():
                found.update(again.reasons(self._connection, chunk, wanted))
        return found

    def running(self, sweep_id: int) -> RunningAttempt | None:
        """The attempt that has begun and not ended."""
        sql = """SELECT cells.key, number, started_at, coordinates, pid FROM main.attempts INDEXED BY attempts_open
            JOIN cells ON cells.id = attempts.cell_id
            LEFT JOIN plan ON plan.cell_id = cells.id AND plan.sweep_id = attempts.sweep_id
            WHERE attempts.sweep_id = ? AND finished_at IS NULL ORDER BY attempts.id DESC LIMIT 1"""
        for key, number, started_at, coordinates, pid in self._rows(sql, sweep_id):
            return RunningAttempt(key, number, started_at, json.loads(coordinates or "{}"), pid)
        return None

    def next_cell(self, sweep_id: int) -> dict[str, Scalar] | None:
        """The coordinates of the cell whose turn is next; None where no cell is pending."""
        sql = """SELECT coordinates FROM main.plan INDEXED BY plan_pending
            WHERE sweep_id = ? AND pending = 1 ORDER BY position LIMIT 1"""
        for (coordinates,) in self._rows(sql, sweep_id):
            return dict(json.loads(coordinates))
        return None

    def history(self, sweep_id: int) -> list[Took]:
        """What the last finished attempts of the sweep took, the newest first."""
        with self._storage_errors():
            return queries.history(self._connection, sweep_id)

    def errors(self, sweep_id: int, n: int) -> list[FailedAttempt]:
        """The last errors of the sweep, the newest first."""
        sql = """SELECT coordinates, status, reason, error, finished_at FROM main.attempts INDEXED BY attempts_error
            LEFT JOIN plan ON plan.cell_id = attempts.cell_id AND plan.sweep_id = attempts.sweep_id
            WHERE attempts.sweep_id = ? AND error <> '' ORDER BY attempts.id DESC LIMIT ?"""
        return [
            FailedAttempt(json.loads(coordinates or "{}"), Status(status), reason, error, finished_at or "")
            for coordinates, status, reason, error, finished_at in self._rows(sql, sweep_id, n)
        ]

    def attempts(self, key: str) -> list[AttemptRow]:
        """The history of a cell, the oldest attempt first."""
        sql = """SELECT a.id, s.name, a.number, a.status, a.reason, a.error, a.flags, a.runs, a.prompt_eval_rate,
                a.timeout_s, a.started_at, a.finished_at, a.segment_id, a.repeats, a.effective_num_ctx,
                a.effective_num_batch, a.size_bytes, a.size_vram_bytes, a.load_duration_s, a.others_loaded
            FROM cells JOIN attempts AS a ON a.cell_id = cells.id JOIN sweeps AS s ON s.id = a.sweep_id
            WHERE cells.key = ? ORDER BY a.number"""
        return [_attempt_row(row) for row in self._rows(sql, key)]

    def places(self, sweep_id: int) -> Iterator[one_cell.Place]:
        """Every cell of the sweep's plan: position, key, coordinates."""
        with self._storage_errors():
            yield from one_cell.places(self._connection, sweep_id)

    def place_at(self, sweep_id: int, position: int) -> one_cell.Place | None:
        """The cell at a position of the plan."""
        with self._storage_errors():
            return one_cell.place_at(self._connection, sweep_id, position)

    def places_of(self, sweep_id: int, prefix: str, limit: int) -> list[one_cell.Place]:
        """The first cells of the plan whose keys begin so."""
        with self._storage_errors():
            return one_cell.places_of(self._connection, sweep_id, prefix, limit)

    def result(self, sweep_id: int, position: int) -> CellResult:
        """The row of the view `results` of one cell. Raises KeyError."""
        with self._storage_errors():
            cursor = self._connection.execute(_RESULT, (sweep_id, position))
            columns = [column[0] for column in cursor.description[1:]]
            row = cursor.fetchone()
        if row is None:
            raise KeyError(position)
        return _cell_result(json.loads(row[0]), dict(zip(columns, row[1:], strict=True)))

    def runs(self, attempt_id: int) -> list[one_cell.RunRow]:
        """The runs of an attempt, warm-ups first."""
        with self._storage_errors():
            return one_cell.runs(self._connection, attempt_id)

    def controls(self, sweep_id: int, key: str) -> list[one_cell.Control]:
        """What the cell gave as the control cell of the sweep, the oldest first."""
        with self._storage_errors():
            return one_cell.controls(self._connection, sweep_id, key)

    def segments(self) -> Mapping[int, Mapping[str, object]]:
        """All surroundings by their number."""
        with self._storage_errors():
            return one_cell.segments(self._connection)

    def prompt(self, prompt_hash: str) -> str | None:
        """The text of a prompt that was measured with; None where it was not kept."""
        return next((str(row[0]) for row in self._rows("SELECT text FROM prompts WHERE hash = ?", prompt_hash)), None)

    def raw_outputs(self, attempt_id: int) -> dict[str, str]:
        """Everything an engine printed in an attempt, by part: `attempt`, `warmup 1`, `run 1`, …"""
        sql = "SELECT part, content FROM main.raw_outputs WHERE attempt_id = ? ORDER BY rowid"
        return {part: decompress(content) for part, content in self._rows(sql, attempt_id)}

    def drifts(self, sweep_id: int, n: int) -> list[tuple[str, float]]:
        """The last control measurements of the sweep, the newest first: when, and the drift as a share."""
        with self._storage_errors():
            return queries.drifts(self._connection, sweep_id, n)

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
        size = files.wal_size(self.path)
        long_log = f"{files.wal_path(self.path).name} has {size} bytes; a program keeps reading the database"
        found = [files.privacy_warning(self.path), long_log if size > files.JOURNAL_LIMIT_BYTES else None]
        return [warning for warning in found if warning]

    def damage(self) -> str | None:
        """What SQLite's own check finds wrong; None for a sound database. Reads all of it."""
        found = [str(row[0]) for row in self._rows("PRAGMA quick_check(3)")]
        return None if found == ["ok"] else "; ".join(found)

    def _rows(self, sql: str, *values: Scalar) -> list[tuple[Any, ...]]:
        with self._storage_errors():
            return self._connection.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if files.is_storage(error):
                raise files.storage_error(error, self.path) from error
            raise


def _tidy(path: Path) -> None:
    """Nothing that reading made stays beside the database."""
    with lock.kept_free(path) as is_free:
        if is_free:
            files.remove_empty_log(path)


def _sweep_row(row: tuple[Any, ...]) -> SweepRow:
    number, name, engine, path, spec, fingerprint, machine, dimensions, created_at, last_run_at, pid = row
    return SweepRow(
        number, name, engine, path, json.loads(spec), fingerprint, machine, tuple(json.loads(dimensions)),
        created_at, last_run_at, pid,
    )  # fmt: skip


def _cell_result(coordinates: dict[str, Scalar], row: dict[str, Scalar]) -> CellResult:
    metrics = {
        name: value
        for name, value in row.items()
        if isinstance(value, int | float) and name not in coordinates and name not in _NOT_METRICS
    }
    return CellResult(
        key=str(row["cell"]), coordinates=coordinates, model=str(row["model"]), task=str(row["task"]),
        status=Status(str(row["status"])), reason=str(row["reason"]), error=str(row["error"]),
        flags=_flags(str(row["flags"])), attempts=int(row["attempts"] or 0), metrics=metrics, row=row,
    )  # fmt: skip


def _attempt_row(row: tuple[Any, ...]) -> AttemptRow:
    (number, sweep, place, status, reason, error, flags, runs, rate, timeout_s, started_at, finished_at, segment,
     repeats, num_ctx, num_batch, size_bytes, size_vram_bytes, load_duration_s, others) = row  # fmt: skip
    loaded = tuple(name for name in others.split(",") if name)
    used = Effective(num_ctx, num_batch, size_bytes, size_vram_bytes, load_duration_s, loaded)
    return AttemptRow(number, sweep, place, Status(status), reason, error, _flags(flags), runs, rate, timeout_s,
                      started_at, finished_at, segment, repeats, used)  # fmt: skip


def _flags(text: str) -> frozenset[Flag]:
    return frozenset(Flag(word) for word in text.split(",") if word)
