"""A sweep load by load, for `export --format recording`: row by row, with nothing that names a person or a place."""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from ollama_sweep.core.cell import MAIN_TASK, content_hash, made_length, model_label
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Effective, Purpose, Status
from ollama_sweep.core.recording.model import (
    FailedIn,
    RecordedCell,
    RecordedLoad,
    RecordedModel,
    RecordedRun,
    Recording,
)
from ollama_sweep.core.stats import median
from ollama_sweep.store import values
from ollama_sweep.store.rows import SweepRow
from ollama_sweep.store.values import Notes

_PATH = re.compile(r"(?:[./~\\]|[A-Za-z]:[/\\]).*", re.DOTALL)
_COUNTING = ", ".join(f"'{status}'" for status in Status if status.counts)
_LOADS = f"""SELECT plan.position, a.id, a.status, a.reason, a.purpose, a.flags, a.started_at, a.finished_at,
        a.effective_num_ctx, a.effective_num_batch, a.size_bytes, a.size_vram_bytes, a.load_duration_s
    FROM plan LEFT JOIN reused ON reused.cell_id = plan.cell_id
        CROSS JOIN attempts AS a ON a.cell_id = COALESCE(reused.original_id, plan.cell_id)
    WHERE plan.sweep_id = ? AND a.status IN ({_COUNTING}) ORDER BY plan.position, a.number"""  # noqa: S608 - our own
_RUNS = """SELECT warmup, doubt, prompt_eval_count, cached_count, prompt_eval_duration_s, eval_count, eval_duration_s,
        total_duration_s, load_duration_s, client_duration_s, ttft_s, thinking_count, thinking_duration_s,
        CASE doubt WHEN 'printed_rate' THEN printed_rate END
    FROM runs WHERE attempt_id = ? ORDER BY warmup DESC, number, part"""
_CELLS = """SELECT plan.position, plan.coordinates, COALESCE(plan.model, cells.model), cells.model_digest,
        cells.quantization, cells.parameter_size, cells.options, cells.server, cells.task, cells.prompt_hash,
        cells.status = 'skipped' AND cells.reason = 'does_not_fit',
        (SELECT tokens FROM prompt_tokens AS t WHERE t.engine = cells.engine AND t.model_digest = cells.model_digest
            AND t.modelfile_hash = ? AND t.prompt_hash = cells.prompt_hash)
    FROM plan JOIN cells ON cells.id = plan.cell_id WHERE plan.sweep_id = ? ORDER BY plan.position"""
_SURROUNDINGS = """SELECT fingerprint FROM segments WHERE id = (SELECT max(a.segment_id) FROM plan
    JOIN attempts AS a ON a.cell_id = plan.cell_id WHERE plan.sweep_id = ?)"""


def recording(connection: sqlite3.Connection, notes: Notes, sweep: SweepRow, remark: str) -> Recording:
    """The sweep as it was measured. Raises ConfigError where it has no raw runs, or questions with answers."""
    loads: dict[int, tuple[RecordedLoad, ...]] = {}
    began: list[str] = []
    rows = values.rows_of(connection, _LOADS, (sweep.sweep_id,))
    for position, attempts in groupby(rows, key=itemgetter(0)):
        made = [(row[6], _load(connection, notes, row)) for row in attempts]
        loads[position] = tuple(load for _, load in made if load is not None)
        began += [values.text(at) for at, load in made if load is not None]
    cells = list(_cells(connection, notes, sweep, loads))
    if not any(load.runs for cell, _ in cells for load in cell.loads):
        raise ConfigError(f"the sweep {sweep.name} has no raw runs, so there is nothing to record; run it first")
    surroundings = _surroundings(connection, notes, sweep.sweep_id)
    wanted = {prompt for _, (_, prompt) in cells}
    timeout_s = sweep.spec.get("timeout_s")
    facts = sweep.spec.get("models")
    models = {model.name: _with_facts(model, facts) for _, (model, _) in cells}
    return Recording(
        name=sweep.name,
        engine=sweep.engine,
        engine_version=str(surroundings.get("engine_version") or ""),
        machine="unknown machine" if "://" in sweep.machine else sweep.machine,
        has_gpu=bool(surroundings.get("gpus")) or any((cell_load.effective.size_vram_bytes or 0) > 0
                                                      for cell, _ in cells for cell_load in cell.loads),
        recorded_at=min(began),
        remark=remark,
        dimensions=_dimensions(sweep, [cell for cell, _ in cells]),
        prompt_tokens=made_length(next(iter(wanted))) if len(wanted) == 1 else None,
        timeout_s=float(timeout_s) if isinstance(timeout_s, int | float) else None,
        models=tuple(models.values()),
        cells=tuple(cell for cell, _ in cells),
    )  # fmt: skip


def _with_facts(model: RecordedModel, facts: object) -> RecordedModel:
    """With what the engine said of it when the sweep began, where that was kept."""
    told = {model_label(name): one for name, one in facts.items()} if isinstance(facts, dict) else {}
    mine = told.get(model.name)
    mine = mine if isinstance(mine, dict) else {}
    family = mine.get("family")
    context_length, size_bytes, kv_bytes = (
        value if isinstance(value := mine.get(name), int) else None
        for name in ("context_length", "size_bytes", "kv_bytes_per_token")
    )
    return replace(
        model,
        family=family if isinstance(family, str) else None,
        context_length=context_length,
        size_bytes=size_bytes,
        kv_bytes_per_token=kv_bytes,
    )


def _surroundings(connection: sqlite3.Connection, notes: Notes, sweep_id: int) -> Mapping[str, object]:
    rows = values.rows_of(connection, _SURROUNDINGS, (sweep_id,))
    return next(notes.rows("surroundings", values.json_object, rows), {})


def _dimensions(sweep: SweepRow, cells: Iterable[RecordedCell]) -> dict[str, tuple[Scalar, ...]]:
    """Each with its values in the order of the grid, also those of which no cell is left."""
    told = sweep.spec.get("dimensions")
    told = told if isinstance(told, dict) else {}
    found: dict[str, dict[Scalar, None]] = {
        name: dict.fromkeys(_pathless(name, value) for value in told.get(name) or ()) for name in sweep.dimensions
    }
    for cell in cells:
        for name, value in cell.coordinates:
            found[name].setdefault(value)
    return {name: tuple(known) for name, known in found.items()}


def _cells(
    connection: sqlite3.Connection, notes: Notes, sweep: SweepRow, loads: Mapping[int, tuple[RecordedLoad, ...]]
) -> Iterator[tuple[RecordedCell, tuple[RecordedModel, str]]]:
    """Each cell, with its model and the identity of its prompt."""
    modelfile = content_hash(str(sweep.spec.get("modelfile") or ""))
    rows = values.rows_of(connection, _CELLS, (modelfile, sweep.sweep_id))
    for place in notes.rows("a cell of the plan", _Place.of, rows):
        if place.task != MAIN_TASK:
            raise ConfigError(
                f"the sweep {sweep.name} has the task {place.task}, and a recording holds no answers: only sweeps of "
                f"{MAIN_TASK} alone can be recorded"
            )
        mine = loads.get(place.position, ())
        counted = [run.prompt_eval_count for load in mine for run in load.runs if run.prompt_eval_count]
        cell = RecordedCell(
            coordinates=tuple((name, _pathless(name, place.coordinates.get(name))) for name in sweep.dimensions),
            model=place.model.name,
            options=tuple(sorted(place.options.items())),
            server=tuple(sorted((name, _pathless(name, value)) for name, value in place.server.items())),
            tokens=place.tokens or (round(median(counted)) if counted else None),
            is_skipped=place.is_skipped and not mine,
            loads=mine,
        )
        yield cell, (place.model, place.prompt_hash)


@dataclass(frozen=True)
class _Place:
    """A cell of the plan, as it is stored."""

    position: int
    coordinates: Mapping[str, Scalar]
    model: RecordedModel
    options: Mapping[str, Scalar]
    server: Mapping[str, Scalar]
    task: str
    prompt_hash: str
    is_skipped: bool
    tokens: int | None

    @classmethod
    def of(cls, position: int, coordinates: object, *rest: Any) -> _Place:
        model, digest, quantization, size, options, server, task, prompt_hash, is_skipped, tokens = rest
        named = RecordedModel(
            model_label(values.text(model)), values.text(digest), values.optional_text(quantization),
            values.optional_text(size),
        )  # fmt: skip
        return cls(
            position, values.scalars(coordinates), named, values.scalars(options), values.scalars(server),
            values.text(task), values.text(prompt_hash), bool(is_skipped), values.optional_whole(tokens),
        )  # fmt: skip


def _pathless(name: str, value: Scalar) -> Scalar:
    """The value; of a path only what it ends with."""
    if not isinstance(value, str):
        return value
    if name == "model":
        return model_label(value)
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] if _PATH.fullmatch(value) else value


def _load(connection: sqlite3.Connection, notes: Notes, row: tuple[Any, ...]) -> RecordedLoad | None:
    """An attempt as a load; None for one without runs that is ok (taken from an older file), or that cannot be read."""
    return notes.row(f"attempt {row[1]}", lambda: _load_of(connection, notes, row))


def _load_of(connection: sqlite3.Connection, notes: Notes, row: tuple[Any, ...]) -> RecordedLoad | None:
    _, attempt_id, status, reason, purpose, flags, started_at, finished_at, *numbers = row
    num_ctx, num_batch, size_bytes, size_vram_bytes, load_duration_s = numbers
    found = values.rows_of(connection, _RUNS, (attempt_id,))
    runs = tuple(notes.rows(f"a run of attempt {attempt_id}", _run, found))
    ended = values.status(status)
    if ended is Status.OK and all(run.warmup for run in runs):
        return None
    effective = Effective(
        values.optional_whole(num_ctx), values.optional_whole(num_batch), values.optional_whole(size_bytes),
        values.optional_whole(size_vram_bytes), values.optional_number(load_duration_s),
    )  # fmt: skip
    took_s = (values.moment(finished_at) - values.moment(started_at)).total_seconds()
    left_s = max(0.0, took_s - math.fsum(run.client_duration_s for run in runs))
    failed_in = _failed_in(ended, runs, effective)
    load_s = min(left_s, effective.load_duration_s or 0.0) if failed_in is FailedIn.REQUEST else left_s
    return RecordedLoad(
        status=ended,
        reason=values.text(reason),
        purpose=None if purpose is None else Purpose(values.text(purpose)),
        flags=values.known_flags(flags),
        load_s=load_s,
        failure_s=left_s - load_s,
        failed_in=failed_in,
        effective=effective,
        runs=runs,
    )


def _failed_in(status: Status, runs: Iterable[RecordedRun], effective: Effective) -> FailedIn | None:
    """Of a request that failed the runs before it carry that doubt; without runs what was read back tells of a load."""
    if status is Status.OK:
        return None
    doubts = [run.doubt for run in runs]
    if doubts:
        return FailedIn.REQUEST if "attempt_failed" in doubts else FailedIn.JUDGING
    return FailedIn.LOAD if effective == Effective() else FailedIn.REQUEST


def _run(warmup: object, doubt: object, *numbers: object) -> RecordedRun:
    count, cached, prompt_s, answered, answer_s, total_s, load_s, client_s, ttft_s, thought, thinking_s, printed = (
        numbers
    )
    return RecordedRun(
        bool(warmup), values.text(doubt), values.optional_whole(count), values.optional_whole(cached),
        values.optional_number(prompt_s), values.optional_whole(answered), values.optional_number(answer_s),
        values.optional_number(total_s), values.optional_number(load_s), values.number(client_s),
        values.optional_number(ttft_s), values.optional_whole(thought), values.optional_number(thinking_s),
        values.optional_number(printed),
    )  # fmt: skip
