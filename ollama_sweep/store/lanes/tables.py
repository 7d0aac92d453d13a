"""The tables that lanes need, as migrations make them."""

LANES = """
CREATE TABLE lanes (
    id INTEGER PRIMARY KEY,
    sweep_id INTEGER NOT NULL REFERENCES sweeps (id),
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    gpu INTEGER,
    fingerprint TEXT NOT NULL,
    state TEXT NOT NULL,
    says TEXT NOT NULL,
    changed_at TEXT NOT NULL,
    checksum INTEGER,
    UNIQUE (sweep_id, name)
) STRICT;

CREATE TABLE leases (
    attempt_id INTEGER NOT NULL PRIMARY KEY REFERENCES attempts (id),
    lane_id INTEGER NOT NULL REFERENCES lanes (id),
    until_at TEXT NOT NULL,
    checksum INTEGER
) STRICT;
CREATE INDEX leases_lane ON leases (lane_id);
"""
"""The lanes of a sweep: where each is, the surroundings in which it measures, how it stood last and why. Of an attempt
that a lane measured: which one, and until when it was waited for."""
LANE = "lane"
"""The column of the view; only a database with lanes has it."""
MEASURED_BY = "(SELECT l.name FROM leases AS e JOIN lanes AS l ON l.id = e.lane_id WHERE e.attempt_id = a.id)"
