"""Whether a sweep is scouted: the command line says so, or it was before."""

from __future__ import annotations

from pathlib import Path

from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.run.session import Session, SessionOptions
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import SCOUT, SweepRow


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
    row = _before(db, spec.name)
    return row is not None and bool(row.spec.get(SCOUT))


def _before(db: Path, name: str) -> SweepRow | None:
    if (reader := Reader.if_there(db)) is None:
        return None
    with reader:
        return reader.sweep_if_there(name)
