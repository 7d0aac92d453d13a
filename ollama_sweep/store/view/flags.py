"""The flags of a cell `c` as SQL, of the attempt `a` that its value comes from; `r` says whose result it takes."""

# ruff: noqa: S608 - what is put into SQL here is our own text
from __future__ import annotations

from ollama_sweep.core.outcome import Flag
from ollama_sweep.store.lanes.tables import IS_DISTURBED

STORED_FLAGS = """ltrim(COALESCE(a.flags, '') || CASE WHEN c.flags = '' THEN '' ELSE ',' || c.flags END, ',')"""
"""Those that an attempt ended with, and those that further loads of the cell gave it."""
OWN_FLAGS = f"""ltrim({STORED_FLAGS} || CASE WHEN {IS_DISTURBED} THEN ',{Flag.DISTURBED}' ELSE '' END, ',')"""
"""With what was found of its lane since, which is never stored beside it."""


def flags(own: str) -> str:
    """Those of a cell whose own ones are these: one with the result of another cell is flagged, and clamped by its own
    sizes (num_ctx is padded to 256).
    """
    return f"""CASE WHEN r.cell_id IS NULL OR a.id IS NULL THEN {own} ELSE (
    SELECT group_concat(flag, ',') FROM (
        SELECT value AS flag FROM json_each('["' || replace({own}, ',', '","') || '"]')
            WHERE value NOT IN ('', 'clamped') UNION SELECT 'reused'
        UNION SELECT 'clamped' WHERE (NULLIF(c.num_ctx, 0) + 255) / 256 <> (a.effective_num_ctx + 255) / 256
            OR NULLIF(c.num_batch, 0) <> a.effective_num_batch ORDER BY flag)) END"""
