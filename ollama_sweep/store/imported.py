"""Old results become a sweep of their own: engine `imported`, its cells flagged, never mixed with measured ones."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ollama_sweep.core.cell import Cell, content_hash
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.outcome import FAILURES, LABELS, Flag, Outcome, Status, Summary
from ollama_sweep.store import attempts, plans
from ollama_sweep.store.rows import PlannedCell, SweepHeader

ENGINE = "imported"
_KNOWN_ERRORS = {
    **{LABELS[status].lower(): (status, "") for status in FAILURES},
    "cuda oom": (Status.OOM, "cuda_oom"),
    "gpu oom": (Status.OOM, "gpu_oom"),
}
_OLD_WORDS = (
    (re.compile(r"time(?:d[ -]|-)?out", re.IGNORECASE), Status.TIMEOUT, ""),
    (re.compile(r"create failed|failed to create", re.IGNORECASE), Status.ERROR, "create"),
)
"""How older tools begin their errors, with or without details behind."""


@dataclass(frozen=True)
class _OldResult:
    num_ctx: int
    num_batch: int
    rate: float | None
    timestamp: str
    error: str
    failure: tuple[Status, str] = (Status.ERROR, "")

    def planned(self, name: str) -> PlannedCell:
        point = (("num_ctx", self.num_ctx), ("num_batch", self.num_batch))
        key = "import:" + content_hash(plans.canonical_json([name, *point])).removeprefix("sha256:")[:32]
        return PlannedCell(key, Cell(point, "", tuple(sorted(point))), model_digest="", prompt_hash="")

    def outcome(self) -> Outcome:
        flags = frozenset({Flag.IMPORTED})
        if self.rate is not None:
            rate = self.rate
            summary = Summary(runs=1, prompt_eval_rate=rate, prompt_eval_rate_min=rate, prompt_eval_rate_max=rate)
            return Outcome(Status.OK, flags=flags, summary=summary)
        said = self.error.strip()
        old = next(((status, reason) for words, status, reason in _OLD_WORDS if words.match(said)), self.failure)
        status, reason = _KNOWN_ERRORS.get(said.lower(), old)
        return Outcome(status, reason, self.error, flags)


def import_results(
    connection: sqlite3.Connection, name: str, rows: Iterable[Mapping[str, object]], source: str, now: str
) -> int:
    """Store old results under a sweep's name, the last one of each point; how many were new or had changed."""
    found = {(row.num_ctx, row.num_batch): row for row in map(_old_result, rows)}
    known = connection.execute("SELECT id, engine FROM sweeps WHERE name = ?", (name,)).fetchone()
    if known and known[1] != ENGINE:
        raise ConfigError(f"{name} is the name of a measured sweep; imported results need another one")
    points = sorted(set(found) | (_known_points(connection, known[0]) if known else set()))
    header = SweepHeader(name, ENGINE, source, {"imported from": source}, "", "", ("num_ctx", "num_batch"))
    header = replace(header, plan_fingerprint=content_hash(plans.canonical_json(points)))
    sweep_id = plans.save_sweep(connection, header, 1, now)
    plan = [_OldResult(ctx, batch, None, "", "").planned(name) for ctx, batch in points]
    plans.replace_plan(connection, sweep_id, header, plan)
    return sum(_store(connection, sweep_id, old, old.planned(name).key) for old in found.values())


def _known_points(connection: sqlite3.Connection, sweep_id: int) -> set[tuple[int, int]]:
    sql = "SELECT num_ctx, num_batch FROM plan JOIN cells ON cells.id = cell_id WHERE sweep_id = ?"
    return set(connection.execute(sql, (sweep_id,)).fetchall())


def _store(connection: sqlite3.Connection, sweep_id: int, old: _OldResult, key: str) -> bool:
    """One attempt for an old result; False where the cell's last one says exactly this already.

    A result without a time has an empty one, which the view shows as NULL.
    """
    (cell_id,) = connection.execute("SELECT id FROM cells WHERE key = ?", (key,)).fetchone()
    last = connection.execute(
        """SELECT prompt_eval_rate, error, finished_at FROM attempts WHERE id =
            (SELECT attempt_id FROM cells WHERE id = ?)""",
        (cell_id,),
    ).fetchone()
    if last and last[:2] == (old.rate, old.error) and (not old.timestamp or last[2] == old.timestamp):
        return False
    outcome = old.outcome()
    attempt_id = attempts.begin(connection, sweep_id, cell_id, 0.0, old.timestamp, None)
    connection.execute("UPDATE attempts SET timeout_s = NULL, pid = NULL WHERE id = ?", (attempt_id,))
    attempts.finish(connection, attempt_id, outcome, outcome.status, old.timestamp)
    return True


def _old_result(row: Mapping[str, object]) -> _OldResult:
    rate = row.get("prompt_eval_rate")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float)):
        raise ValueError(f"prompt_eval_rate: {rate!r} is not a number")
    attempts.require_finite("prompt_eval_rate", rate)
    return _OldResult(
        num_ctx=_whole(row, "num_ctx"), num_batch=_whole(row, "num_batch"),
        rate=None if rate is None else float(rate), timestamp=str(row.get("timestamp") or ""),
        error=str(row.get("error") or ""), failure=_failure(row),
    )  # fmt: skip


def _failure(row: Mapping[str, object]) -> tuple[Status, str]:
    """What the words of an engine mean, where whoever read the row has found out."""
    status = Status(str(row.get("status") or Status.ERROR))
    return status, str(row.get("reason") or "")


def _whole(row: Mapping[str, object], name: str) -> int:
    value = row.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name}: {value!r} is not a whole number")
    return value
