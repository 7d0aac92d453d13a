"""Loads without a prompt, which `run --scan` makes: what was loaded, and whether it fitted."""

# ruff: noqa: S608 - what is put into SQL here are our own names of columns; values are always bound
from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

from ollama_sweep.core.cell import Cell, content_hash
from ollama_sweep.core.options import LOAD_OPTIONS, Scalar
from ollama_sweep.core.outcome import Effective, Status
from ollama_sweep.machine import secrets
from ollama_sweep.store import checksum, values
from ollama_sweep.store.values import Notes

FITS, SPILLED, OOM = "fits", "spilled", str(Status.OOM)
"""Results of a load that say something of memory; any other one is the status of a failure, and says nothing of it."""
_SIZES = ("num_ctx", "num_batch")


@dataclass(frozen=True)
class ScannedLoad:
    """One load. `combination` is all that decides it beside num_ctx and num_batch; `result` is FITS, SPILLED, OOM or
    another failure. Times are ISO 8601 in UTC."""

    combination: str
    num_ctx: int
    num_batch: int
    result: str
    reason: str = ""
    error: str = ""
    effective: Effective = field(default_factory=Effective)
    scanned_at: str = ""

    @property
    def is_loaded(self) -> bool:
        """It fitted, on the GPU or not."""
        return self.result in (FITS, SPILLED)

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        used = self.effective
        return {
            "num_ctx": self.num_ctx, "num_batch": self.num_batch, "result": self.result, "reason": self.reason,
            "error": self.error, "effective_num_ctx": used.num_ctx, "effective_num_batch": used.num_batch,
            "size_bytes": used.size_bytes, "size_vram_bytes": used.size_vram_bytes,
            "load_duration_s": used.load_duration_s, "scanned_at": self.scanned_at,
        }  # fmt: skip


def combination_of(cell: Cell, model_digest: str, modelfile: str) -> str:
    """All that decides a cell's load beside num_ctx and num_batch: cells that differ in tasks or requests share it."""
    options = {name: value for name, value in cell.options if name in LOAD_OPTIONS and name not in _SIZES}
    found: dict[str, object] = {
        "model": cell.model, "model_digest": model_digest, "server": dict(cell.server), "options": options,
        **({"modelfile": content_hash(modelfile)} if modelfile else {}),
    }  # fmt: skip
    return json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def settings_of(combination: str) -> Mapping[str, Scalar]:
    """The model, the server's settings and the options of a combination, by name."""
    found = json.loads(combination)
    return {"model": found["model"], **found["server"], **found["options"]}


_COLUMNS = ("combination", "num_ctx", "num_batch", "result", "reason", "error", "effective_num_ctx",
            "effective_num_batch", "size_bytes", "size_vram_bytes", "load_duration_s", "scanned_at")  # fmt: skip


def save(connection: sqlite3.Connection, sweep_id: int, load: ScannedLoad, now: str) -> None:
    """One more load of the sweep, in the surroundings at hand."""
    used = load.effective
    error = secrets.masked(load.error).encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    row = (load.combination, load.num_ctx, load.num_batch, load.result, load.reason, error, used.num_ctx,
           used.num_batch, used.size_bytes, used.size_vram_bytes, used.load_duration_s, now)  # fmt: skip
    connection.execute(
        f"""INSERT INTO scans (sweep_id, segment_id, {", ".join(_COLUMNS)})
            SELECT id, segment_id, {", ".join("?" for _ in _COLUMNS)} FROM sweeps WHERE id = ?""",
        (*row, sweep_id),
    )
    checksum.seal_rows(connection, "scans", "id = last_insert_rowid()")


def loads(connection: sqlite3.Connection, notes: Notes, sweep_id: int, *, now_only: bool = False) -> list[ScannedLoad]:
    """The sweep's loads, the oldest first: of the surroundings of the last one, or (`now_only`) of those at hand."""
    last = "(SELECT segment_id FROM sweeps WHERE id = :sweep)" if now_only else (
        "(SELECT segment_id FROM scans WHERE sweep_id = :sweep ORDER BY id DESC LIMIT 1)")  # fmt: skip
    rows = values.rows_of(
        connection,
        f"""SELECT {", ".join(_COLUMNS)} FROM scans WHERE sweep_id = :sweep AND (segment_id IS {last}
                OR (SELECT fingerprint FROM segments WHERE id = segment_id)
                    = (SELECT fingerprint FROM segments WHERE id = {last}))
            ORDER BY scans.id""",
        {"sweep": sweep_id},
    )
    return list(notes.rows("a load of a scan", _load, rows))


def _load(*row: object) -> ScannedLoad:
    combination, num_ctx, num_batch, result, reason, error, ctx, batch, size, vram, load_s, scanned_at = row
    settings_of(values.text(combination))
    used = Effective(
        values.optional_whole(ctx), values.optional_whole(batch), values.optional_whole(size),
        values.optional_whole(vram), values.optional_number(load_s),
    )  # fmt: skip
    return ScannedLoad(values.text(combination), values.whole(num_ctx), values.whole(num_batch), values.text(result),
                       values.text(reason), values.text(error), used, values.text(scanned_at))  # fmt: skip
