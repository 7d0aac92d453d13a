"""`status [CONFIG]`: how far a sweep is, what it does now, how long it will take, what went wrong last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import shared

if TYPE_CHECKING:
    from ollama_sweep.core.outcome import Status
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import Holder, SweepRow

RECENT_CELLS = 50
SHOWN_ERRORS = 3


@click.command("status", short_help="Counts, the running cell, rate, time left.")
@click.argument("config", required=False)
@shared.db_option
@shared.json_option
def command(config: str | None, db: Path, as_json: bool) -> None:
    """Say how far a sweep is; CONFIG left out means the one that ran last. Never disturbs a run.

    \b
    Example:
      ollama-sweep status configs/quickstart.yaml --json
    """
    import json

    from ollama_sweep.store.reader import Reader

    with Reader.open(db) as reader, reader.snapshot():
        picture = make_picture(reader, config)
        warnings = reader.warnings()
    if as_json:
        click.echo(json.dumps(picture, ensure_ascii=False))
        return
    for line in lines_of(picture):
        click.echo(line)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def make_picture(reader: Reader, config: str | None) -> dict[str, Any]:
    """Everything that `status` and `watch` say, as plain data."""
    from ollama_sweep.store.beside import log_path, paused_since

    row = shared.find_sweep(reader, config)
    counts = reader.counts(row.sweep_id)
    holder = reader.writer()
    other = _other_sweep(reader, row) if holder else None
    is_running = holder is not None and other is None
    total = sum(counts.values())
    done = sum(count for status, count in counts.items() if status.is_final)
    running = _running(reader, row.sweep_id) if is_running else None
    log = log_path(reader.path)
    return {
        "sweep": row.name,
        "engine": row.engine,
        "machine": row.machine,
        "config": row.config_path,
        "database": str(reader.path),
        "total": total,
        "done": done,
        "failed": sum(count for status, count in counts.items() if status.is_failure),
        "counts": {str(status): counts[status] for status in sorted(counts, key=_rank)},
        "running": running,
        "next": reader.next_cell(row.sweep_id),
        "process": _process(holder) if holder and is_running else None,
        "other_sweep": None if holder is None or other is None else {"sweep": other, "pid": holder.pid},
        "waiting": holder.note if holder and is_running else "",
        "paused": paused_since(reader.path) is not None,
        **time_left(reader.recent(row.sweep_id, RECENT_CELLS), total - done, running["seconds"] if running else 0.0),
        "drift": next((drift for _, drift in reader.drifts(row.sweep_id, 1)), None),
        "last_run_at": row.last_run_at,
        "log": str(log) if log.exists() else None,
        "errors": [
            {"coordinates": dict(error.coordinates), "status": str(error.status), "error": error.error}
            for error in reader.errors(row.sweep_id, SHOWN_ERRORS)
        ],
    }


def _rank(status: Status) -> tuple[bool, int]:
    """What is finished comes first."""
    return not status.is_final, list(type(status)).index(status)


def _other_sweep(reader: Reader, row: SweepRow) -> str | None:
    """The sweep that the process at work runs, where it is not this one."""
    last = reader.last_sweep()
    return last.name if last is not None and last.sweep_id != row.sweep_id else None


def _running(reader: Reader, sweep_id: int) -> dict[str, Any] | None:
    running = reader.running(sweep_id)
    if running is None:
        return None
    seconds = (datetime.now(UTC) - datetime.fromisoformat(running.started_at)).total_seconds()
    return {"coordinates": dict(running.coordinates), "attempt": running.number, "seconds": max(0.0, seconds)}


def _process(holder: Holder) -> dict[str, Any]:
    return {"pid": holder.pid, "since": holder.since, "host": holder.host}


def time_left(durations: Sequence[float], cells: int, begun_s: float) -> dict[str, float | None]:
    """The pace and the time left, if the cells to come are like the last ones; `low` to `high` hold it 9 times in 10.

    The spread of the durations counts twice: the mean itself is uncertain, and so is the sum of the cells to come.
    """
    import math

    none = {"seconds_per_cell": None, "seconds_left": None, "seconds_left_low": None, "seconds_left_high": None}
    if not durations:
        return dict(none)
    count, mean = len(durations), math.fsum(durations) / len(durations)
    left = max(0.0, cells * mean - min(begun_s, mean))
    found: dict[str, float | None] = {**none, "seconds_per_cell": mean, "seconds_left": left}
    if count > 1 and cells:
        variance = math.fsum((seconds - mean) ** 2 for seconds in durations) / (count - 1)
        spread = 1.64 * (1 + 1.5 / (count - 1)) * math.sqrt(variance * (cells + cells**2 / count))
        found["seconds_left_low"] = max(0.0, left - spread)
        found["seconds_left_high"] = left + spread
    return found


# -- in words --------------------------------------------------------------------------------------------------------


def lines_of(picture: Mapping[str, Any]) -> list[str]:
    """What a person reads."""
    counts = ", ".join(f"{count} {status}" for status, count in picture["counts"].items())
    lines = [
        f"Sweep {picture['sweep']} on {picture['engine']}: {picture['done']} of {picture['total']} cells done",
        f"  {counts}",
        *_process_lines(picture),
    ]
    running = picture["running"]
    if running:
        again = f", attempt {running['attempt']}" if running["attempt"] > 1 else ""
        lines.append(f"Now: {label(running['coordinates'])}{again}, for {_length(running['seconds'])}")
    if picture["next"]:
        lines.append(f"Next: {label(picture['next'])}")
    lines += _pace(picture)
    if picture["drift"] is not None:
        lines.append(f"Drift: {100 * picture['drift']:+.1f} % at the last control")
    if picture["errors"]:
        lines.append("Last errors:")
    for error in picture["errors"]:
        first = next(iter(error["error"].strip().splitlines()), "")
        lines.append(f"  {error['status']}: {label(error['coordinates'])}: {first[:140]}")
    return lines


def _process_lines(picture: Mapping[str, Any]) -> list[str]:
    from ollama_sweep.store.lock import local_time

    process, other, end = picture["process"], picture["other_sweep"], _db_words(picture)
    if process:
        lines = [f"Running: pid {process['pid']} since {local_time(process['since'])} on host {process['host']}"]
        if picture["waiting"]:
            lines.append(f"{picture['waiting'][:1].upper()}{picture['waiting'][1:]}")
        elif picture["paused"]:
            lines.append(f"A pause is asked for: it waits before its next cell. Go on with: ollama-sweep continue{end}")
        return lines
    if picture["done"] >= picture["total"]:
        return []
    if other:
        return [f"Not running: pid {other['pid']} runs sweep {other['sweep']} in this database"]
    lines = [f"Not running. Go on with: ollama-sweep run {picture['config']}{end}"]
    if picture["paused"]:
        lines.append(f"A pause is asked for, so a run would wait until: ollama-sweep continue{end}")
    return lines


def _pace(picture: Mapping[str, Any]) -> list[str]:
    if picture["seconds_per_cell"] is None:
        return []
    line = f"Pace: {_length(picture['seconds_per_cell'])} a cell"
    left, low, high = (picture[name] for name in ("seconds_left", "seconds_left_low", "seconds_left_high"))
    if left:
        line += f", about {_length(left)} left"
        if high:
            line += f" ({_length(low)} to {_length(high)})" if low else f" (up to {_length(high)})"
        if picture["process"] and not picture["waiting"]:
            line += f", done {_when(left)}"
    return [line]


def _when(seconds: float) -> str:
    moment = datetime.now() + timedelta(seconds=seconds)
    if seconds < 60:
        return "in a moment"
    if moment.date() == datetime.now().date():
        return f"about {moment:%H:%M}"
    return f"about {moment:%a %H:%M}" if seconds < 6 * 86400 else f"about {moment:%Y-%m-%d}"


def _length(seconds: float) -> str:
    from ollama_sweep.core.units import format_duration

    return format_duration(seconds)


def _db_words(picture: Mapping[str, Any]) -> str:
    return "" if picture["database"] == shared.DEFAULT_DB else f" --db {picture['database']}"


def label(coordinates: Mapping[str, Any]) -> str:
    """`num_ctx 4096, num_batch 64`."""
    from ollama_sweep.core.cell import model_label

    return ", ".join(f"{name} {model_label(str(value))}" for name, value in coordinates.items())
