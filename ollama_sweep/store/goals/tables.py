"""The tables that goals need, as migrations make them."""

GOALS = """
CREATE TABLE goals (
    sweep_id INTEGER NOT NULL PRIMARY KEY REFERENCES sweeps (id),
    goal TEXT NOT NULL,
    of_file TEXT NOT NULL,
    begun_at TEXT NOT NULL,
    ended_at TEXT,
    is_reached INTEGER NOT NULL DEFAULT 0,
    says TEXT NOT NULL DEFAULT '',
    answers TEXT NOT NULL DEFAULT '[]'
) STRICT;

CREATE TABLE choices (
    attempt_id INTEGER NOT NULL PRIMARY KEY REFERENCES attempts (id),
    goal TEXT NOT NULL,
    reason TEXT NOT NULL,
    how_far TEXT NOT NULL
) STRICT;
"""
"""The goal of a sweep, what its file said when it was given, what it came to and which cells it names (their keys).
Of an attempt that a planner chose: for which goal, why, and how far it was then."""
