"""The record of what ran out of memory in this database, and in which surroundings: it says what may come last."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from ollama_sweep.core.cell import content_hash
from ollama_sweep.machine.secrets import masked
from ollama_sweep.store import checksum, values
from ollama_sweep.store.values import Notes

_KEEP = """INSERT INTO out_of_memory (attempt_id, is_fresh, engine, engine_version, machine, model_digest,
        modelfile_hash, num_ctx, num_batch, load_options, server, gpu_free_bytes, memory_free_bytes)
    SELECT attempts.id, ?, cells.engine, ?, ?, cells.model_digest, ?, cells.num_ctx, cells.num_batch, ?, cells.server,
        ?, ?
    FROM attempts JOIN cells ON cells.id = attempts.cell_id WHERE attempts.id = ? ON CONFLICT DO NOTHING"""
_KNOWN = """SELECT attempt_id, model_digest, out_of_memory.num_ctx, out_of_memory.num_batch, load_options, server,
        gpu_free_bytes, memory_free_bytes
    FROM out_of_memory WHERE engine = ? AND engine_version = ? AND machine = ? AND modelfile_hash = ?
        AND NOT EXISTS (SELECT 1 FROM attempts AS failed JOIN attempts AS other ON other.cell_id = failed.cell_id
            WHERE failed.id = out_of_memory.attempt_id AND other.status = 'ok')
    ORDER BY attempt_id"""


@dataclass(frozen=True)
class Surroundings:
    """What decides, beside a load's own options, how much memory there is for it. `machine` is JSON: processor, memory,
    GPUs with driver, settings of the environment."""

    engine: str
    engine_version: str
    machine: str
    modelfile: str


@dataclass(frozen=True)
class FreeMemory:
    """What was free when a cell ran out of memory, in bytes, all GPUs together; None where nobody says."""

    gpu_bytes: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Failed:
    """How a cell ran out of memory. `load_options` is JSON, without num_ctx and num_batch; `is_fresh`: the model was
    loaded for this attempt."""

    surroundings: Surroundings
    load_options: str
    is_fresh: bool
    free: FreeMemory


@dataclass(frozen=True)
class KnownFailure:
    """A cell that ran out of memory before. `load_options` and `server` are JSON; 0 where the engine chose a size."""

    model_digest: str
    num_ctx: int
    num_batch: int
    load_options: str
    server: str
    free: FreeMemory


def keep(connection: sqlite3.Connection, attempt_id: int, failed: Failed) -> None:
    """Store how an attempt ran out of memory, once."""
    where, free = failed.surroundings, failed.free
    connection.execute(
        _KEEP,
        (failed.is_fresh, masked(where.engine_version), where.machine, content_hash(where.modelfile),
         failed.load_options, free.gpu_bytes, free.memory_bytes, attempt_id),
    )  # fmt: skip
    checksum.seal_rows(connection, "out_of_memory", "attempt_id = ? AND checksum IS NULL", (attempt_id,))


def known(connection: sqlite3.Connection, where: Surroundings, notes: Notes) -> list[KnownFailure]:
    """What ran out of memory in the same surroundings, and was never measured all the same; the oldest first."""
    bound = (where.engine, masked(where.engine_version), where.machine, content_hash(where.modelfile))
    return list(notes.rows("the record of memory", _known, values.rows_of(connection, _KNOWN, bound)))


def _known(_: int, digest: object, num_ctx: object, num_batch: object, *rest: object) -> KnownFailure:
    load_options, server, gpu, memory = rest
    free = FreeMemory(values.optional_whole(gpu), values.optional_whole(memory))
    return KnownFailure(values.text(digest), values.whole(num_ctx), values.whole(num_batch), values.text(load_options),
                        values.text(server), free)  # fmt: skip
