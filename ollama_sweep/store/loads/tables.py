"""The tables that loads need, as migrations make them."""

LOADS = """
ALTER TABLE attempts ADD COLUMN purpose TEXT;
ALTER TABLE attempts ADD COLUMN loads INTEGER;
ALTER TABLE attempts ADD COLUMN choice INTEGER;
ALTER TABLE cells ADD COLUMN flags TEXT NOT NULL DEFAULT '';
ALTER TABLE controls ADD COLUMN attempt_id INTEGER REFERENCES attempts (id);

CREATE TABLE load_values (
    attempt_id INTEGER NOT NULL REFERENCES attempts (id),
    metric TEXT NOT NULL,
    log_median REAL NOT NULL,
    runs INTEGER NOT NULL,
    squares REAL NOT NULL,
    PRIMARY KEY (attempt_id, metric)
) STRICT;

CREATE TABLE spreads (
    sweep_id INTEGER NOT NULL REFERENCES sweeps (id),
    segment_id INTEGER NOT NULL REFERENCES segments (id),
    metric TEXT NOT NULL,
    runs_spread REAL,
    runs_df INTEGER NOT NULL,
    loads_spread REAL,
    loads_df INTEGER NOT NULL,
    runs_squares REAL NOT NULL,
    loads_squares REAL NOT NULL,
    of_medians REAL NOT NULL,
    PRIMARY KEY (sweep_id, segment_id, metric)
) STRICT;

CREATE TABLE intervals (
    sweep_id INTEGER NOT NULL,
    segment_id INTEGER NOT NULL,
    metric TEXT NOT NULL,
    loads INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    factor REAL,
    PRIMARY KEY (sweep_id, segment_id, metric, loads, runs)
) STRICT;

CREATE TABLE further_loads (
    id INTEGER PRIMARY KEY,
    sweep_id INTEGER NOT NULL REFERENCES sweeps (id),
    cell_id INTEGER NOT NULL REFERENCES cells (id),
    purpose TEXT NOT NULL,
    number INTEGER NOT NULL,
    place INTEGER NOT NULL,
    reason TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'failed', 'dropped')),
    choice INTEGER,
    deaths INTEGER NOT NULL DEFAULT 0,
    attempt_id INTEGER REFERENCES attempts (id)
) STRICT;
CREATE INDEX further_loads_waiting ON further_loads (sweep_id, place) WHERE state = 'waiting';
CREATE INDEX further_loads_cell ON further_loads (cell_id);

CREATE TABLE second_looks (
    id INTEGER PRIMARY KEY,
    sweep_id INTEGER NOT NULL REFERENCES sweeps (id),
    share REAL NOT NULL,
    stage INTEGER NOT NULL,
    begun_at TEXT NOT NULL,
    ended_at TEXT
) STRICT;
CREATE INDEX second_looks_sweep ON second_looks (sweep_id);
"""
"""An attempt is one load: what it was made for, how many loads its numbers speak for, and how often its cell had been
chosen for its value. What loads differ by in each segment, and what that makes of an interval: `factor` is what a value
is divided and multiplied by, so that the view needs no mathematics. Which cells want a further load."""

CORRECTIONS = """
CREATE TABLE corrections (
    attempt_id INTEGER NOT NULL PRIMARY KEY REFERENCES attempts (id),
    drift REAL NOT NULL
) STRICT;
"""
"""By what share a load was faster for the time it was made at; the rate itself is never touched."""
