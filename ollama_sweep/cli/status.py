"""`status [CONFIG]`: counts by status, the running cell, rate and time left."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import _shared

if TYPE_CHECKING:
    from ollama_sweep.store.reader import Reader

RECENT_CELLS = 50
SHOWN_ERRORS = 3


@click.command("status", short_help="Counts, the running cell, rate, time left.")
@click.argument("config", required=False)
@_shared.db_option
@_shared.json_option
def command(config: str | None, db: Path, as_json: bool) -> None:
    """Say how far a sweep is; CONFIG left out means the one that ran last. Never disturbs a run.

    \b
    Example:
      ollama-sweep status configs/quickstart.yaml --json
    """
    import json

    from ollama_sweep.store.reader import Reader

    with Reader.open(db) as reader, reader.snapshot():
        picture = _picture(reader, config)
        warnings = reader.warnings()
    if as_json:
        click.echo(json.dumps(picture, ensure_ascii=False))
        return
    for line in _lines(picture):
        click.echo(line)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def _picture(reader: Reader, config: str | None) -> dict[str, Any]:
    row = _shared.find_sweep(reader, config)
    counts = reader.counts(row.sweep_id)
    holder = reader.writer()
    running = reader.running(row.sweep_id) if holder else None
    durations = reader.recent(row.sweep_id, RECENT_CELLS)
    total = sum(counts.values())
    done = sum(count for status, count in counts.items() if status.is_final)
    seconds = sum(durations) / len(durations) if durations else None
    return {
        "sweep": row.name,
        "engine": row.engine,
        "machine": row.machine,
        "total": total,
        "done": done,
        "failed": sum(count for status, count in counts.items() if status.is_failure),
        "counts": {str(status): count for status, count in counts.items()},
        "running": None
        if running is None
        else {
            "coordinates": dict(running.coordinates),
            "attempt": running.number,
            "seconds": (datetime.now(UTC) - datetime.fromisoformat(running.started_at)).total_seconds(),
        },
        "process": None if holder is None else {"pid": holder.pid, "since": holder.since, "host": holder.host},
        "seconds_per_cell": seconds,
        "seconds_left": None if seconds is None else seconds * (total - done),
        "last_run_at": row.last_run_at,
        "errors": [
            {"coordinates": dict(error.coordinates), "status": str(error.status), "error": error.error}
            for error in reader.errors(row.sweep_id, SHOWN_ERRORS)
        ],
    }


def _lines(picture: dict[str, Any]) -> list[str]:
    from ollama_sweep.units import format_duration

    counts = ", ".join(f"{count} {status}" for status, count in sorted(picture["counts"].items()))
    lines = [
        f"Sweep {picture['sweep']} on {picture['engine']}: {picture['done']} of {picture['total']} cells done",
        f"  {counts}",
    ]
    process = picture["process"]
    if process:
        lines.append(f"Running: pid {process['pid']} since {process['since']}")
    elif picture["done"] < picture["total"]:
        lines.append("Not running. Go on with: ollama-sweep run")
    running = picture["running"]
    if running:
        lines.append(
            f"Now: {_label(running['coordinates'])}, attempt {running['attempt']}, "
            f"since {format_duration(running['seconds'])}"
        )
    if picture["seconds_per_cell"] is not None:
        left = f", about {format_duration(picture['seconds_left'])} left" if picture["seconds_left"] else ""
        lines.append(f"Rate: {format_duration(picture['seconds_per_cell'])} a cell{left}")
    for error in picture["errors"]:
        first = next(iter(error["error"].strip().splitlines()), "")
        lines.append(f"  {error['status']}: {_label(error['coordinates'])}: {first[:140]}")
    return lines


def _label(coordinates: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in coordinates.items())
