"""Tables, the view `results`, and the migrations that make them: append-only, all pending ones in one transaction.

Where things stand: a cell (by key) has one status and points at its last attempt that counts and was final; medians,
flags and effective values live with the attempt. A sweep's plan is a list of (position, cell). Two facts are kept
twice, by one trigger, so that the next pending cell and the counts cost the same at a million cells: `plan.pending`
and `status_counts`.

The view shows exact numbers, never rounded: it is also what `export` and the pictures read.
"""

# ruff: noqa: S608 - what is put into SQL here are our own names of tables and columns; values are always bound
from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ollama_sweep.core.cell import PROMPT_TOKENS
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Status
from ollama_sweep.store import values
from ollama_sweep.store.goals.tables import GOALS
from ollama_sweep.store.lanes.tables import LANE, LANES, MEASURED_BY
from ollama_sweep.store.loads.tables import CORRECTIONS, LOADS
from ollama_sweep.store.memory.tables import LEFT_OUT, MEMORY, SHOWN

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID = 0x4F535750
"""`OSWP`, in the file's header: this database is ours."""
DIED, REBOOT, PARKED = "died", "reboot", "parked"
"""Reasons of interrupted attempts (the first two are unexplained deaths), and of a cell with three of those."""
DEATHS_UNTIL_PARKED = 3

_CELL_STATUSES = [status for status in Status if status not in (Status.INTERRUPTED, Status.DISCARDED)]
_ATTEMPT_STATUSES = [status for status in Status if status not in (Status.PENDING, Status.SKIPPED)]


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


_TABLES_1 = f"""
CREATE TABLE segments (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    started_at TEXT NOT NULL
) STRICT;

CREATE TABLE sweeps (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    engine TEXT NOT NULL,
    config_path TEXT NOT NULL,
    spec TEXT NOT NULL,
    plan_fingerprint TEXT NOT NULL,
    machine TEXT NOT NULL,
    dimensions TEXT NOT NULL,
    repeats INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    last_run_at TEXT NOT NULL,
    run_order INTEGER NOT NULL,
    pid INTEGER,
    segment_id INTEGER REFERENCES segments (id)
) STRICT;

CREATE TABLE cells (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    engine TEXT NOT NULL,
    model TEXT NOT NULL,
    model_digest TEXT NOT NULL,
    num_ctx INTEGER NOT NULL,
    num_batch INTEGER NOT NULL,
    options TEXT NOT NULL,
    server TEXT NOT NULL,
    task TEXT NOT NULL,
    task_options TEXT NOT NULL,
    prompt_hash TEXT NOT NULL,
    quantization TEXT,
    parameter_size TEXT,
    status TEXT NOT NULL CHECK (status IN ({_quoted(_CELL_STATUSES)})),
    reason TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    runs INTEGER NOT NULL DEFAULT 0,
    repeats INTEGER NOT NULL DEFAULT 0,
    timeout_s REAL,
    deaths INTEGER NOT NULL DEFAULT 0,
    attempt_id INTEGER REFERENCES attempts (id)
) STRICT;
CREATE INDEX cells_status ON cells (status, repeats);

CREATE TABLE plan (
    sweep_id INTEGER NOT NULL REFERENCES sweeps (id),
    position INTEGER NOT NULL,
    cell_id INTEGER NOT NULL REFERENCES cells (id),
    coordinates TEXT NOT NULL,
    model TEXT,
    skip TEXT,
    pending INTEGER NOT NULL,
    PRIMARY KEY (sweep_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX plan_pending ON plan (sweep_id, position) WHERE pending = 1;
CREATE INDEX plan_skip ON plan (sweep_id) WHERE skip IS NOT NULL;
CREATE INDEX plan_cell ON plan (cell_id, sweep_id);

CREATE TABLE status_counts (
    sweep_id INTEGER NOT NULL REFERENCES sweeps (id),
    status TEXT NOT NULL,
    cells INTEGER NOT NULL,
    PRIMARY KEY (sweep_id, status)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER cells_status_changed AFTER UPDATE OF status ON cells WHEN OLD.status <> NEW.status
BEGIN
    UPDATE plan SET pending = NEW.status = 'pending'
        WHERE cell_id = NEW.id AND pending <> (NEW.status = 'pending');
    UPDATE status_counts
        SET cells = cells - (SELECT count(*) FROM plan WHERE cell_id = NEW.id AND sweep_id = status_counts.sweep_id)
        WHERE status = OLD.status AND sweep_id IN (SELECT sweep_id FROM plan WHERE cell_id = NEW.id);
    INSERT INTO status_counts (sweep_id, status, cells)
        SELECT sweep_id, NEW.status, count(*) FROM plan WHERE cell_id = NEW.id GROUP BY sweep_id
        ON CONFLICT (sweep_id, status) DO UPDATE SET cells = cells + excluded.cells;
END;

CREATE TABLE attempts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cell_id INTEGER NOT NULL REFERENCES cells (id),
    sweep_id INTEGER NOT NULL REFERENCES sweeps (id),
    segment_id INTEGER REFERENCES segments (id),
    number INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ({_quoted(_ATTEMPT_STATUSES)})),
    reason TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT '',
    flags TEXT NOT NULL DEFAULT '',
    timeout_s REAL,
    repeats INTEGER NOT NULL DEFAULT 0,
    started_at TEXT NOT NULL,
    finished_at TEXT,
    pid INTEGER,
    boot_id TEXT,
    runs INTEGER NOT NULL DEFAULT 0,
    prompt_eval_count INTEGER,
    prompt_eval_rate REAL,
    prompt_eval_rate_min REAL,
    prompt_eval_rate_max REAL,
    prompt_eval_duration_s REAL,
    eval_count INTEGER,
    eval_rate REAL,
    total_duration_s REAL,
    scores TEXT NOT NULL DEFAULT '{{}}',
    effective_num_ctx INTEGER,
    effective_num_batch INTEGER,
    size_bytes INTEGER,
    size_vram_bytes INTEGER,
    load_duration_s REAL,
    others_loaded TEXT NOT NULL DEFAULT '',
    UNIQUE (cell_id, number)
) STRICT;
CREATE INDEX attempts_sweep ON attempts (sweep_id);
CREATE INDEX attempts_open ON attempts (sweep_id) WHERE finished_at IS NULL;
CREATE INDEX attempts_error ON attempts (sweep_id) WHERE error <> '';

CREATE TABLE runs (
    attempt_id INTEGER NOT NULL REFERENCES attempts (id),
    part TEXT NOT NULL,
    number INTEGER NOT NULL,
    warmup INTEGER NOT NULL,
    nonce TEXT NOT NULL,
    prompt_eval_count INTEGER,
    cached_count INTEGER,
    prompt_eval_duration_s REAL,
    prompt_eval_rate REAL,
    eval_count INTEGER,
    eval_duration_s REAL,
    eval_rate REAL,
    total_duration_s REAL,
    load_duration_s REAL,
    printed_rate REAL,
    client_duration_s REAL NOT NULL,
    believed INTEGER NOT NULL,
    doubt TEXT NOT NULL,
    PRIMARY KEY (attempt_id, part)
) STRICT;

CREATE TABLE scores (
    attempt_id INTEGER NOT NULL REFERENCES attempts (id),
    part TEXT NOT NULL,
    name TEXT NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (attempt_id, part, name)
) STRICT;

CREATE TABLE raw_outputs (
    attempt_id INTEGER NOT NULL REFERENCES attempts (id),
    part TEXT NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (attempt_id, part)
) STRICT;

CREATE TABLE prompts (hash TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT;

CREATE TABLE prompt_tokens (
    engine TEXT NOT NULL,
    model_digest TEXT NOT NULL,
    modelfile_hash TEXT NOT NULL,
    prompt_hash TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    PRIMARY KEY (engine, model_digest, modelfile_hash, prompt_hash)
) STRICT;

CREATE TABLE made_prompts (
    engine TEXT NOT NULL,
    model_digest TEXT NOT NULL,
    modelfile_hash TEXT NOT NULL,
    spec TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (engine, model_digest, modelfile_hash, spec)
) STRICT;

CREATE TABLE ledger (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    details TEXT NOT NULL,
    recorded_at TEXT NOT NULL,
    pid INTEGER NOT NULL
) STRICT;

CREATE TABLE controls (
    id INTEGER PRIMARY KEY,
    sweep_id INTEGER NOT NULL REFERENCES sweeps (id),
    cell_id INTEGER NOT NULL REFERENCES cells (id),
    segment_id INTEGER REFERENCES segments (id),
    prompt_eval_rate REAL NOT NULL,
    drift REAL NOT NULL,
    measured_at TEXT NOT NULL
) STRICT;

CREATE INDEX controls_sweep ON controls (sweep_id);

CREATE TABLE view_columns (
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('dimension', 'score')),
    PRIMARY KEY (name, kind)
) STRICT;
"""

_TABLES_2 = """
ALTER TABLE runs ADD COLUMN ttft_s REAL;

CREATE TABLE answers (
    attempt_id INTEGER NOT NULL REFERENCES attempts (id),
    part TEXT NOT NULL,
    item TEXT NOT NULL,
    category TEXT NOT NULL,
    prompt_hash TEXT NOT NULL,
    output BLOB NOT NULL,
    failure TEXT NOT NULL,
    tries INTEGER NOT NULL,
    chunk_count INTEGER,
    is_estimated INTEGER NOT NULL,
    peak_rss_bytes INTEGER,
    PRIMARY KEY (attempt_id, part)
) STRICT;
"""
"""Answers to the questions of tasks; the questions themselves are in `prompts`."""

_TABLES_3 = """
CREATE TABLE checksums (
    attempt_id INTEGER NOT NULL PRIMARY KEY REFERENCES attempts (id),
    checksum TEXT NOT NULL
) STRICT;

CREATE TABLE origin (
    id TEXT NOT NULL,
    called_done INTEGER NOT NULL
) STRICT;
INSERT INTO origin (id, called_done) VALUES (lower(hex(randomblob(16))), 0);
"""
"""What the rows of an attempt must come to; which database this is, and how many cells it was told are done."""

_THOUGHTS = """
ALTER TABLE runs ADD COLUMN thinking_count INTEGER;
ALTER TABLE runs ADD COLUMN thinking_duration_s REAL;
ALTER TABLE answers ADD COLUMN thoughts BLOB;
"""
"""What was thought before an answer; NULL where nothing was, or nobody looked."""

_TELEMETRY = """
CREATE TABLE telemetry (
    attempt_id INTEGER NOT NULL PRIMARY KEY REFERENCES attempts (id),
    series BLOB NOT NULL
) STRICT;
"""
"""What sensors said while an attempt lasted, as `machine.sensing.series` packs it; no row where nothing was seen."""

_STARTS = """
ALTER TABLE runs ADD COLUMN started_s REAL;
"""
"""When a question was sent, so that those that were in flight at once are known; NULL where nobody looked."""

_SCANS = """
CREATE TABLE scans (
    id INTEGER PRIMARY KEY,
    sweep_id INTEGER NOT NULL REFERENCES sweeps (id), segment_id INTEGER REFERENCES segments (id),
    combination TEXT NOT NULL, num_ctx INTEGER NOT NULL, num_batch INTEGER NOT NULL,
    result TEXT NOT NULL, reason TEXT NOT NULL, error TEXT NOT NULL,
    effective_num_ctx INTEGER, effective_num_batch INTEGER, size_bytes INTEGER, size_vram_bytes INTEGER,
    load_duration_s REAL, scanned_at TEXT NOT NULL
) STRICT;
CREATE INDEX scans_sweep ON scans (sweep_id);
"""
"""Loads without a prompt, one row each; `combination` is all that decides a load beside num_ctx and num_batch."""

_REUSED = """
ALTER TABLE plan ADD COLUMN same_as INTEGER;

CREATE TABLE reused (
    cell_id INTEGER NOT NULL PRIMARY KEY REFERENCES cells (id), original_id INTEGER NOT NULL REFERENCES cells (id)
) STRICT;
CREATE INDEX reused_original ON reused (original_id);

CREATE TRIGGER cells_reused AFTER UPDATE OF status, reason, attempt_id, runs, repeats, timeout_s, flags ON cells
    WHEN EXISTS (SELECT 1 FROM reused WHERE original_id = NEW.id)
BEGIN
    UPDATE cells SET status = CASE NEW.status WHEN 'started' THEN 'pending' ELSE NEW.status END, reason = NEW.reason,
        attempt_id = NEW.attempt_id, runs = NEW.runs, repeats = NEW.repeats, timeout_s = NEW.timeout_s,
        flags = NEW.flags WHERE id IN (SELECT cell_id FROM reused WHERE original_id = NEW.id);
END;
"""
"""Cells that have the result of another cell, and follow it; `same_as` is the first cell of the same configuration."""

_ROW_CHECKSUMS = """
ALTER TABLE plan ADD COLUMN checksum INTEGER;
ALTER TABLE controls ADD COLUMN checksum INTEGER;
ALTER TABLE load_values ADD COLUMN checksum INTEGER;
ALTER TABLE corrections ADD COLUMN checksum INTEGER;
ALTER TABLE further_loads ADD COLUMN checksum INTEGER;
ALTER TABLE second_looks ADD COLUMN checksum INTEGER;
ALTER TABLE out_of_memory ADD COLUMN checksum INTEGER;
ALTER TABLE scans ADD COLUMN checksum INTEGER;
"""
"""What a row that belongs to no attempt's checksum must come to; NULL in rows of earlier versions."""

_GOAL_CHECKSUMS = """
ALTER TABLE goals ADD COLUMN checksum INTEGER;
ALTER TABLE choices ADD COLUMN checksum INTEGER;
"""
"""The same for what a sweep is for, and for why a cell was chosen."""

MIGRATIONS = (("1_tables", _TABLES_1), ("2_answers", _TABLES_2), ("3_checksums", _TABLES_3),
              ("4_thoughts", _THOUGHTS), ("5_loads", LOADS), ("6_corrections", CORRECTIONS),
              ("7_telemetry", _TELEMETRY), ("8_starts", _STARTS), ("9_memory", MEMORY), ("10_scans", _SCANS),
              ("11_reused", _REUSED), ("12_row_checksums", _ROW_CHECKSUMS), ("13_goals", GOALS),
              ("14_goal_checksums", _GOAL_CHECKSUMS), ("15_lanes", LANES))  # fmt: skip
"""What made each version. A new one is one more line: from it `read_as_latest` knows what older files lack."""
USER_VERSION = len(MIGRATIONS)
"""The version of this program; that of a file is in its header."""

_BEFORE = ("sweep", "engine", "model", "num_ctx", "num_batch")
_MEASURED = (
    "prompt_eval_count", "prompt_eval_rate", "prompt_eval_rate_min", "prompt_eval_rate_max", "prompt_eval_rate_low",
    "prompt_eval_rate_high", "prompt_eval_rate_corrected", "prompt_eval_duration_s", "eval_count", "eval_rate",
    "total_duration_s", "load_duration_s", "effective_num_ctx", "effective_num_batch",
    "size_bytes", "size_vram_bytes",
)  # fmt: skip
_INTERVAL = ("prompt_eval_rate_low", "prompt_eval_rate_high")
_CORRECTED = "prompt_eval_rate_corrected"
_AFTER = ("task", "status", "flags", "attempts", "runs", "loads", "looks", *_MEASURED, "quantization", "parameter_size",
          "reason", "error", "started_at", "finished_at", "position", "cell")  # fmt: skip
_FIXED_COLUMNS = frozenset({*_BEFORE, *_AFTER})
_NUMBERS = frozenset({"num_ctx", "num_batch", "attempts", "runs", "loads", "looks", "position", *_MEASURED})


def reader_of(name: str) -> Callable[[object], Scalar]:
    """How a column of the view is read; an added one holds a number or a text."""
    if name in _NUMBERS:
        return values.optional_number
    return values.optional_text if name in _FIXED_COLUMNS else values.optional_scalar


def apply_migrations(connection: sqlite3.Connection, version: int) -> None:
    """Bring the schema from `version` up to date. The caller has begun a transaction and commits it."""
    if version >= USER_VERSION:
        return
    from sqlite_utils import Database, Migrations  # heavy (it imports pandas where installed), and rarely needed

    migrations = Migrations("ollama_sweep")
    for name, script in MIGRATIONS:

        @migrations(name=name)
        def migrate(db: Database, script: str = script) -> None:
            for statement in _statements(script):  # `db.executescript` takes most of the time of a new database
                db.conn.execute(statement)

    migrations.apply(Database(connection, execute_plugins=False, recursive_triggers=False))
    create_view(connection)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {USER_VERSION}")


def _statements(script: str) -> Iterator[str]:
    """The statements of a migration; each begins on a line of its own."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def read_as_latest(connection: sqlite3.Connection) -> None:
    """Let a connection that can only read see an older file as one of this version; the file stays as it is.

    A column that the file lacks has its default, which is NULL for most; a table that it lacks is empty; the view is
    this version's. All are temporary views in memory: a name without a schema means them first. Such a view has no
    index and no rowid to name, so a query that names one says `main.`, and asks for old columns only.
    """
    with contextlib.closing(sqlite3.connect(":memory:")) as latest:
        latest.executescript("".join(script for _, script in MIGRATIONS))
        wanted, found = _columns(latest), _columns(connection)
    connection.execute("PRAGMA temp_store = MEMORY")
    for table, columns in wanted.items():
        missing = [f"{default} AS {name}" for name, default in columns.items() if name not in found.get(table, {})]
        if table not in found:
            connection.execute(f"CREATE TEMP VIEW {table} AS SELECT {', '.join(missing)} WHERE false")
        elif missing:
            connection.execute(f"CREATE TEMP VIEW {table} AS SELECT *, {', '.join(missing)} FROM main.{table}")
    connection.execute(f"CREATE TEMP VIEW results AS {_results_sql(_added(connection))}")


def column_types() -> dict[str, dict[str, tuple[str, bool]]]:
    """Of each table of this version: the type of each column, and whether it must have a value."""
    with contextlib.closing(sqlite3.connect(":memory:")) as latest:
        latest.executescript("".join(script for _, script in MIGRATIONS))
        return types_in(latest)


def types_in(connection: sqlite3.Connection) -> dict[str, dict[str, tuple[str, bool]]]:
    """The same of the file as it is."""
    sql = """SELECT tables.name, columns.name, columns.type, columns."notnull" OR columns.pk
        FROM sqlite_master AS tables JOIN pragma_table_info(tables.name) AS columns WHERE tables.type = 'table'"""
    found: dict[str, dict[str, tuple[str, bool]]] = {}
    for table, column, kind, must in connection.execute(sql):
        found.setdefault(table, {})[column] = (kind, bool(must))
    return found


def _columns(connection: sqlite3.Connection) -> dict[str, dict[str, str]]:
    """The columns of each table with their defaults."""
    found: dict[str, dict[str, str]] = {}
    for table, column, default in connection.execute(
        """SELECT tables.name, columns.name, COALESCE(columns.dflt_value, 'NULL')
            FROM sqlite_master AS tables JOIN pragma_table_info(tables.name) AS columns
            WHERE tables.type = 'table' ORDER BY columns.cid"""
    ):
        found.setdefault(table, {})[column] = default
    return found


def add_view_columns(connection: sqlite3.Connection, names: Iterable[str], kind: str) -> None:
    """Give each new dimension (or score) a column of the view; makes the view again only where one is new."""
    wanted = [(name, kind) for name in names if kind == "score" or name not in _FIXED_COLUMNS]
    for name, _ in wanted:
        if not name or '"' in name:
            raise ValueError(f"cannot be the name of a column: {name!r}")
    before = connection.total_changes
    connection.executemany("INSERT INTO view_columns (name, kind) VALUES (?, ?) ON CONFLICT DO NOTHING", wanted)
    if connection.total_changes > before:
        create_view(connection)


def create_view(connection: sqlite3.Connection) -> None:
    """(Re)create the view `results` with the columns that `view_columns` asks for."""
    connection.execute("DROP VIEW IF EXISTS results")
    connection.execute(f"CREATE VIEW results AS {_results_sql(_added(connection))}")


def _added(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT name, kind FROM main.view_columns ORDER BY rowid").fetchall()


OWN_FLAGS = """COALESCE(a.flags, '') || CASE WHEN c.flags = '' THEN '' WHEN COALESCE(a.flags, '') = '' THEN c.flags
    ELSE ',' || c.flags END"""
FLAGS = f"""CASE WHEN r.cell_id IS NULL OR a.id IS NULL THEN {OWN_FLAGS} ELSE (
    SELECT group_concat(flag, ',') FROM (
        SELECT value AS flag FROM json_each('["' || replace({OWN_FLAGS}, ',', '","') || '"]')
            WHERE value NOT IN ('', 'clamped') UNION SELECT 'reused'
        UNION SELECT 'clamped' WHERE (NULLIF(c.num_ctx, 0) + 255) / 256 <> (a.effective_num_ctx + 255) / 256
            OR NULLIF(c.num_batch, 0) <> a.effective_num_batch ORDER BY flag)) END"""
"""A cell with the result of another one is flagged, and clamped by its own sizes (num_ctx is padded to 256)."""


def _as_columns(added: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Name, kind and column of what a database adds to the view; a name that is taken gets its kind in front."""
    taken = {column.lower() for column in _FIXED_COLUMNS}
    for name, kind in added:
        if name in _INTERVAL:  # earlier versions stored an interval of the runs alone
            continue
        column = name if name.lower() not in taken else f"{kind}_{name}"
        taken.add(column.lower())
        yield name, kind, column


def view_types(connection: sqlite3.Connection) -> dict[str, str]:
    """What each column of the view `results` holds: `INTEGER`, `REAL`, `TEXT`; `dimension` of what a sweep may vary.

    In the view's own order. Scores are REAL.
    """
    of_attempts = {name: kind for name, (kind, _) in column_types()["attempts"].items() if name in _MEASURED}
    whole = _NUMBERS - frozenset(_MEASURED)
    added = {
        column: "dimension" if kind == "dimension" else "REAL" for _, kind, column in _as_columns(_added(connection))
    }
    known = {**dict.fromkeys(_FIXED_COLUMNS, "TEXT"), **dict.fromkeys(whole, "INTEGER"),
             **dict.fromkeys(_MEASURED, "REAL"), **of_attempts, **added}  # fmt: skip
    columns = connection.execute("SELECT * FROM results LIMIT 0").description
    return {column[0]: known[column[0]] for column in columns}


def _results_sql(added: Iterable[tuple[str, str]]) -> str:
    dimensions, scores = "", ""
    for name, kind, column in _as_columns(added):
        path = f"""'$."{name.replace("'", "''")}"'"""
        if name == LANE:
            dimensions += f"{MEASURED_BY} AS {LANE}, "
        elif kind == "dimension":
            places = [_json_value(place, path) for place in ("p.coordinates", "c.options", "c.server")]
            places += [_MADE_LENGTH] if name == PROMPT_TOKENS else []
            dimensions += f'COALESCE({", ".join(places)}) AS "{column}", '
        else:
            scores += f'{_score(name, path)} AS "{column}", '
    measured = ", ".join(map(_measured, _MEASURED))
    shown = SHOWN.replace("plan.", "p.").replace("cells.", "c.")
    return f"""
SELECT s.name AS sweep, s.engine, COALESCE(p.model, c.model) AS model, NULLIF(c.num_ctx, 0) AS num_ctx,
    NULLIF(c.num_batch, 0) AS num_batch, {dimensions}c.task,
    {shown} AS status, {FLAGS} AS flags,
    c.attempts, COALESCE(a.runs, 0) AS runs, COALESCE(a.loads, a.runs > 0, 0) AS loads, COALESCE(a.choice, 0) AS looks,
    {measured}, {scores}
    c.quantization, c.parameter_size,
    CASE WHEN p.skip = '{LEFT_OUT}' AND c.status = 'pending' THEN p.skip ELSE c.reason END AS reason,
    CASE WHEN c.reason = '{PARKED}' THEN 'the process died {DEATHS_UNTIL_PARKED} times in a row in this cell'
         WHEN c.status = a.status THEN a.error ELSE '' END AS error,
    CASE WHEN c.status = 'started'
         THEN (SELECT o.started_at FROM attempts AS o WHERE o.cell_id = c.id ORDER BY o.number DESC LIMIT 1)
         ELSE NULLIF(a.started_at, '') END AS started_at,
    CASE WHEN c.status = 'started' THEN NULL ELSE NULLIF(a.finished_at, '') END AS finished_at,
    p.position, c.key AS cell
FROM sweeps AS s CROSS JOIN plan AS p ON p.sweep_id = s.id CROSS JOIN cells AS c ON c.id = p.cell_id
    LEFT JOIN attempts AS a ON a.id = c.attempt_id LEFT JOIN reused AS r ON r.cell_id = c.id
""".strip()


def _measured(column: str) -> str:
    if column in _INTERVAL:
        return _end("prompt_eval_rate", "a.prompt_eval_rate", column)
    if column == _CORRECTED:
        return f"a.prompt_eval_rate / (1 + (SELECT drift FROM corrections AS k WHERE k.attempt_id = a.id)) AS {column}"
    return f"a.{column}"


def _score(name: str, path: str) -> str:
    """A number of an attempt. The interval of one that has a range is that of the runs and the loads together; a mean
    over questions has its own, which is stored."""
    stem, _, end = name.rpartition("_")
    stored = _json_value("a.scores", path)
    if end not in ("low", "high") or not stem:
        return stored
    of, lowest = (_json_value("a.scores", f"""'$."{part.replace("'", "''")}"'""") for part in (stem, f"{stem}_min"))
    return f"CASE WHEN {lowest} IS NULL THEN {stored} ELSE {_bound(stem, of, end)} END"


def _end(metric: str, value: str, column: str) -> str:
    return f"{_bound(metric, value, column.rpartition('_')[2])} AS {column}"


def _bound(metric: str, value: str, end: str) -> str:
    """The value divided by the factor of its interval, or multiplied by it; NULL where that is not known."""
    name = metric.replace("'", "''")
    return f"""{value} {"/" if end == "low" else "*"} (SELECT i.factor FROM intervals AS i
        WHERE i.sweep_id = a.sweep_id AND i.segment_id = a.segment_id AND i.metric = '{name}'
            AND i.loads = COALESCE(a.loads, 1) AND i.runs IN (0, a.runs))"""


_MADE_LENGTH = "CASE WHEN c.prompt_hash GLOB 'tokens:[0-9]*:*' THEN CAST(substr(c.prompt_hash, 8) AS INTEGER) END"
"""The length that `cell.made_length` reads, for sweeps in which it is no dimension."""


def _json_value(column: str, path: str) -> str:
    """A value of a JSON text; NULL where that is none, for else it would be an error of the whole query."""
    return f"CASE WHEN json_valid({column}) THEN json_extract({column}, {path}) END"
