"""Whether a sweep is scouted: the command line says so, or it was before."""

from __future__ import annotations

from pathlib import Path

from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.run.session import Session, SessionOptions
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import SCOUT, SCOUT_OF, scout_of


def session_of(spec: SweepSpec, db: Path, options: SessionOptions) -> type[Session]:
    """The kind of session for a single sweep."""
    if options.scan or not _is_wanted(spec, db, options):
        return Session
    from ollama_sweep.run.scout.session import ScoutSession  # it is made of two of these

    return ScoutSession


def _is_wanted(spec: SweepSpec, db: Path, options: SessionOptions) -> bool:
    if options.scout is not None:
        return options.scout
    if spec.goal is not None and spec.goal.is_off:
        return False
    if (reader := Reader.if_there(db)) is None:
        return False
    with reader:
        row, scout = reader.sweep_if_there(spec.name), reader.sweep_if_there(scout_of(spec.name))
    if row is None:  # it was stopped while it was scouted
        return scout is not None and scout.spec.get(SCOUT_OF) == spec.name
    return bool(row.spec.get(SCOUT))
