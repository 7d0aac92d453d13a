"""A recording as text: a line of JSON for the sweep, then one for each cell. `reading` takes it back. Pure."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict
from typing import Any

from ollama_sweep.core.options import Options, Scalar, asked_for
from ollama_sweep.core.outcome import Effective
from ollama_sweep.core.recording.model import (
    NOT_OPTIONS,
    VERSION,
    RecordedCell,
    RecordedLoad,
    RecordedModel,
    RecordedRun,
    Recording,
)

RUN_COLUMNS = (
    "warmup", "doubt", "client_duration_s", "prompt_eval_count", "prompt_eval_duration_s", "cached_count", "eval_count",
    "eval_duration_s", "total_duration_s", "load_duration_s", "ttft_s", "thinking_count", "thinking_duration_s",
    "printed_rate",
)  # fmt: skip
EFFECTIVE_COLUMNS = ("num_ctx", "num_batch", "size_bytes", "size_vram_bytes", "load_duration_s", "num_parallel")
DIGITS = 6
"""Of a duration: far below any noise, and half the size."""


def written(recording: Recording) -> str:
    """The recording as JSON lines, each duration with 6 digits."""
    options, server = _common(recording, "options"), _common(recording, "server")
    head: dict[str, Any] = {
        "recording": VERSION,
        "name": recording.name,
        "engine": recording.engine,
        "engine_version": recording.engine_version,
        "machine": recording.machine,
        "has_gpu": recording.has_gpu,
        "recorded_at": recording.recorded_at,
        "remark": recording.remark,
        "models": [_model(model) for model in recording.models],
        "dimensions": {name: list(values) for name, values in recording.dimensions.items()},
        "options": options,
        "server": server,
        "prompt_tokens": recording.prompt_tokens,
        "timeout_s": recording.timeout_s,
        "run_columns": list(RUN_COLUMNS),
        "effective_columns": list(EFFECTIVE_COLUMNS),
        "cells": len(recording.cells),
    }
    lines = [head, *(_cell(cell, {**options, **server}) for cell in recording.cells)]
    return "".join(f"{_line(line)}\n" for line in lines)


def packed(text: str) -> bytes:
    """The text of a recording as gzip, the same bytes each time."""
    return gzip.compress(text.encode(), mtime=0)


def _line(content: object) -> str:
    return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _common(recording: Recording, field: str) -> dict[str, Scalar]:
    """Options that every cell has with the same value, and that are no dimension."""
    each: list[Options] = [getattr(cell, field) for cell in recording.cells]
    first = each[0] if each else ()
    return {
        name: value
        for name, value in first
        if name not in recording.dimensions and all((name, value) in pairs for pairs in each)
    }


def _model(model: RecordedModel) -> dict[str, Scalar]:
    return asdict(model)


def _cell(cell: RecordedCell, common: dict[str, Scalar]) -> dict[str, Any]:
    own = {name: value for name, value in cell.coordinates if name not in NOT_OPTIONS}
    known = {**common, **asked_for(own)}
    more = {
        field: {name: value for name, value in getattr(cell, field) if known.get(name) != value}
        for field in ("options", "server")
    }
    return {
        "at": [value for _, value in cell.coordinates],
        **({} if "model" in cell.place else {"model": cell.model}),
        **{name: found for name, found in more.items() if found},
        "tokens": cell.tokens,
        **({"skipped": True} if cell.is_skipped else {}),
        "loads": [_load(load) for load in cell.loads],
    }


def _load(load: RecordedLoad) -> dict[str, Any]:
    found: dict[str, Any] = {"status": str(load.status)}
    if load.reason:
        found["reason"] = load.reason
    if load.purpose is not None:
        found["purpose"] = str(load.purpose)
    if load.flags:
        found["flags"] = sorted(map(str, load.flags))
    found["load_s"] = _short(load.load_s)
    if load.failed_in is not None:
        found["failed_in"] = str(load.failed_in)
    if load.failure_s:
        found["failure_s"] = _short(load.failure_s)
    if effective := _effective(load.effective):
        found["effective"] = effective
    if load.runs:
        found["runs"] = [_run(run) for run in load.runs]
    return found


def _effective(effective: Effective) -> list[Scalar]:
    return _trimmed([_short(getattr(effective, name)) for name in EFFECTIVE_COLUMNS])


def _run(run: RecordedRun) -> list[Scalar]:
    numbers = [_short(getattr(run, name)) for name in RUN_COLUMNS[2:]]
    return [int(run.warmup), run.doubt, *_trimmed(numbers)]


def _trimmed(values: list[Scalar]) -> list[Scalar]:
    """Without what is unknown at the end."""
    while values and values[-1] is None:
        values.pop()
    return values


def _short(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
