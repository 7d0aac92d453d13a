"""With which version of its engine a sweep was measured, and each of its lanes."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

from ollama_sweep.store import values
from ollama_sweep.store.values import Notes

_SWEEP = """SELECT fingerprint FROM segments WHERE id = (SELECT a.segment_id FROM attempts AS a
    WHERE a.sweep_id = ? AND a.finished_at IS NOT NULL AND a.status NOT IN ('interrupted', 'discarded')
    ORDER BY a.id DESC LIMIT 1)"""
_LANES = """SELECT l.name, l.fingerprint, g.fingerprint FROM lanes AS l JOIN segments AS g ON g.id =
    (SELECT a.segment_id FROM leases JOIN attempts AS a ON a.id = attempt_id WHERE lane_id = l.id
        AND a.finished_at IS NOT NULL AND a.status NOT IN ('interrupted', 'discarded') ORDER BY a.id DESC LIMIT 1)
    WHERE l.sweep_id = ?"""
VERSION, BETWEEN = "engine_version", " | "
"""The part of a fingerprint, and what stands between the values of lanes that are not alike."""


@dataclass(frozen=True)
class Measured:
    """What a lane has measured with last: its version, or several where only those of all lanes are known; and its own
    fingerprint, empty where it is not known any more.
    """

    versions: frozenset[str]
    fingerprint: Mapping[str, str] = field(default_factory=dict)


def versions_in(fingerprint: Mapping[str, object]) -> frozenset[str]:
    """Those that are known; empty for none."""
    return frozenset(filter(None, str(fingerprint.get(VERSION) or "").split(BETWEEN)))


def measured_in(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> Mapping[str, object] | None:
    """The fingerprint of the last attempt that counts; None before the first."""
    return next(
        notes.rows("the surroundings", values.json_object, values.rows_of(connection, _SWEEP, (sweep_id,))), None
    )


def measured_by(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> dict[str, Measured]:
    """What each lane that has measured something has measured with last."""
    rows = values.rows_of(connection, _LANES, (sweep_id,))
    return dict(notes.rows("a lane", _measured, rows))


def _measured(name: object, own: object, surroundings: object) -> tuple[str, Measured]:
    fingerprint = {key: str(value) for key, value in values.json_object(own).items()}
    versions = versions_in(values.json_object(surroundings))
    last = versions_in(fingerprint)
    if not last or not last <= versions:  # it came back with another one, and was left out
        return values.text(name), Measured(versions)
    return values.text(name), Measured(last, fingerprint)
