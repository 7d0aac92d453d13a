"""What the schema has for memory, and how a plan leaves a place out without a change of its cell."""

# ruff: noqa: S608 - what is put into SQL here is our own text
from __future__ import annotations

LEFT_OUT = "memory"
"""`plan.skip` of a place that a witness leaves out. Its cell stays pending, because only this sweep leaves it out."""
SHOWN = f"CASE WHEN plan.skip = '{LEFT_OUT}' AND cells.status = 'pending' THEN 'skipped' ELSE cells.status END"
"""The status of a place of a plan: that of its cell, if the sweep does not leave it out."""

MEMORY = f"""
ALTER TABLE plan ADD COLUMN witness_id INTEGER REFERENCES cells (id);
ALTER TABLE plan ADD COLUMN late INTEGER NOT NULL DEFAULT 0;
CREATE INDEX plan_witness ON plan (sweep_id, witness_id) WHERE witness_id IS NOT NULL;
DROP INDEX plan_pending;
CREATE INDEX plan_pending ON plan (sweep_id, late, position) WHERE pending = 1;

DROP TRIGGER cells_status_changed;
CREATE TRIGGER cells_status_changed AFTER UPDATE OF status ON cells WHEN OLD.status <> NEW.status
BEGIN
    UPDATE plan SET pending = (NEW.status = 'pending' AND skip IS NOT '{LEFT_OUT}')
        WHERE cell_id = NEW.id AND pending <> (NEW.status = 'pending' AND skip IS NOT '{LEFT_OUT}');
    UPDATE status_counts
        SET cells = cells - (SELECT count(*) FROM plan
            WHERE cell_id = NEW.id AND +sweep_id = status_counts.sweep_id AND status_counts.status =
                CASE WHEN skip = '{LEFT_OUT}' AND OLD.status = 'pending' THEN 'skipped' ELSE OLD.status END)
        WHERE status IN (OLD.status, 'skipped') AND sweep_id IN (SELECT sweep_id FROM plan WHERE cell_id = NEW.id);
    INSERT INTO status_counts (sweep_id, status, cells)
        SELECT sweep_id, CASE WHEN skip = '{LEFT_OUT}' AND NEW.status = 'pending' THEN 'skipped' ELSE NEW.status END,
            count(*) FROM plan WHERE cell_id = NEW.id GROUP BY 1, 2
        ON CONFLICT (sweep_id, status) DO UPDATE SET cells = cells + excluded.cells;
END;

CREATE TABLE out_of_memory (
    attempt_id INTEGER NOT NULL PRIMARY KEY REFERENCES attempts (id),
    is_fresh INTEGER NOT NULL,
    engine TEXT NOT NULL,
    engine_version TEXT NOT NULL,
    machine TEXT NOT NULL,
    model_digest TEXT NOT NULL,
    modelfile_hash TEXT NOT NULL,
    num_ctx INTEGER NOT NULL,
    num_batch INTEGER NOT NULL,
    load_options TEXT NOT NULL,
    server TEXT NOT NULL,
    gpu_free_bytes INTEGER,
    memory_free_bytes INTEGER
) STRICT;
"""
"""What ran out of memory, in which surroundings; the cell because of which a place is left out; what comes last.

`plan.late` is 0, 2 for a place that comes last, and 1 for the first of those of each frontier.
"""
