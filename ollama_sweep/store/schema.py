"""Tables, the view `results`, and the migrations that make them: append-only, all pending ones in one transaction.

Where things stand: a cell (by key) has one status and points at its last attempt that counts and was final; medians,
flags and effective values live with the attempt. A sweep's plan is a list of (position, cell). Two facts are kept
twice, by one trigger, so that the next pending cell and the counts cost the same at a million cells: `plan.pending`
and `status_counts`.
"""

# ruff: noqa: S608 - what is put into SQL here are our own names of tables and columns; values are always bound
from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ollama_sweep.core.outcome import Status
from ollama_sweep.store.goals.tables import GOALS
from ollama_sweep.store.lanes.tables import DISTURBANCES, LANES
from ollama_sweep.store.loads.tables import CORRECTIONS, LOADS
from ollama_sweep.store.memory.tables import MEMORY
from ollama_sweep.store.view import results as view

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID = 0x4F535750
"""`OSWP`, in the file's header: this database is ours."""
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
              ("14_goal_checksums", _GOAL_CHECKSUMS), ("15_lanes", LANES),
              ("16_disturbances", DISTURBANCES))  # fmt: skip
"""What made each version. A new one is one more line: from it `read_as_latest` knows what older files lack."""
USER_VERSION = len(MIGRATIONS)
"""The version of this program; that of a file is in its header."""


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
    connection.execute(f"CREATE TEMP VIEW results AS {view.results_sql(_added(connection))}")


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
    wanted = [(name, kind) for name in names if kind == "score" or name not in view.FIXED_COLUMNS]
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
    connection.execute(f"CREATE VIEW results AS {view.results_sql(_added(connection))}")


def _added(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT name, kind FROM main.view_columns ORDER BY rowid").fetchall()


def view_types(connection: sqlite3.Connection) -> dict[str, str]:
    """What each column of the view `results` holds: `INTEGER`, `REAL`, `TEXT`; `dimension` of what a sweep may vary.

    In the view's own order. Scores are REAL.
    """
    of_attempts = {name: kind for name, (kind, _) in column_types()["attempts"].items() if name in view.MEASURED}
    whole = view.NUMBERS - frozenset(view.MEASURED)
    more = view.as_columns(_added(connection))
    added = {column: "dimension" if kind == "dimension" else "REAL" for _, kind, column in more}
    known = {**dict.fromkeys(view.FIXED_COLUMNS, "TEXT"), **dict.fromkeys(whole, "INTEGER"),
             **dict.fromkeys(view.MEASURED, "REAL"), **of_attempts, **added}  # fmt: skip
    columns = connection.execute("SELECT * FROM results LIMIT 0").description
    return {column[0]: known[column[0]] for column in columns}
