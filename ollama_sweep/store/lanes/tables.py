"""The tables that lanes need, as migrations make them, and what the view asks of them."""

# ruff: noqa: S608 - what is put into SQL here is our own text

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
DISTURBANCES = """
CREATE TABLE disturbances (
    id INTEGER PRIMARY KEY,
    sweep TEXT NOT NULL,
    lanes TEXT NOT NULL,
    coordinates TEXT NOT NULL,
    alone TEXT NOT NULL,
    beside TEXT NOT NULL,
    is_there INTEGER NOT NULL,
    measured_at TEXT NOT NULL,
    checksum INTEGER
) STRICT;
CREATE INDEX disturbances_sweep ON disturbances (sweep);
"""
"""What `doctor --lanes` found of a sweep by its name, which need not be there yet: the lanes that were at work (JSON:
name, host, gpu), of which the first measured the cell of these coordinates alone and beside the others; the rates of
its loads (JSON, tokens/s); whether they differ by more than chance. The newest of a sweep counts."""
LANE = "lane"
"""The column of the view; only a database with lanes has it."""
MEASURED_BY = "(SELECT l.name FROM leases AS e JOIN lanes AS l ON l.id = e.lane_id WHERE e.attempt_id = a.id)"
_DISTURBED_LANES = """SELECT l.id FROM lanes AS l JOIN sweeps AS o ON o.id = l.sweep_id
    JOIN disturbances AS d ON d.id = (SELECT max(n.id) FROM disturbances AS n WHERE n.sweep = o.name) AND d.is_there
    JOIN json_each(CASE WHEN json_valid(d.lanes) THEN d.lanes ELSE '[]' END) AS j
        ON l.name = json_extract(d.lanes, j.fullkey || '.name') AND l.host = json_extract(d.lanes, j.fullkey || '.host')
        AND l.gpu IS json_extract(d.lanes, j.fullkey || '.gpu')"""
ANY_DISTURBED = "EXISTS (SELECT 1 FROM disturbances WHERE is_there)"
_LANE_OF_A = "(SELECT e.lane_id FROM leases AS e WHERE e.attempt_id = a.id)"
_IN_FLIGHT = """COALESCE((SELECT o.finished_at IS NULL OR o.finished_at > a.started_at FROM attempts AS o WHERE o.id =
        (SELECT max(e.attempt_id) FROM leases AS e WHERE e.lane_id = t.id AND e.attempt_id < a.id)), 0)
    OR COALESCE((SELECT o.started_at < a.finished_at FROM attempts AS o WHERE o.id =
        (SELECT min(e.attempt_id) FROM leases AS e WHERE e.lane_id = t.id AND e.attempt_id > a.id)), 0)"""
"""The lane `t` measured something while `a` was measured: what it had begun last before that, or began next."""
IS_DISTURBED = f"""({ANY_DISTURBED} AND a.status = 'ok' AND {_LANE_OF_A} IN ({_DISTURBED_LANES}) AND EXISTS (
    SELECT 1 FROM lanes AS t WHERE t.sweep_id = a.sweep_id AND t.id <> {_LANE_OF_A} AND t.id IN ({_DISTURBED_LANES})
        AND ({_IN_FLIGHT})))"""
"""The attempt `a` was measured by a lane that others disturb, while one of them was at work. What does not hang on `a`
is asked once for a query."""
