"""`status [CONFIG]`: how far a sweep is, what it does now, how long it will take, what went wrong last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import say, say_json, warn
from ollama_sweep.core.surface.factor import NOT_STEADY

if TYPE_CHECKING:
    from ollama_sweep.core.options import Scalar
    from ollama_sweep.results.status import PairStatus, SweepStatus
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import LeftOut, SweepRow


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
    from ollama_sweep.results.find import find_sweeps
    from ollama_sweep.store.reader import Reader

    with Reader.open(db) as reader, reader.snapshot():
        found = read(reader, find_sweeps(reader, config))
        warnings = reader.warnings()
    if as_json:
        say_json(found.as_dict())
        return
    for line in lines_of(found):
        say(line)
    for warning in warnings:
        warn(f"warning: {warning}")


# -- in words --------------------------------------------------------------------------------------------------------


def read(reader: Reader, rows: Sequence[SweepRow]) -> SweepStatus | PairStatus:
    """Where a sweep stands, or both of a pair."""
    from ollama_sweep.results.status import status_of, status_of_pair

    return status_of(reader, rows[0]) if len(rows) == 1 else status_of_pair(reader, rows)


def lines_of(found: SweepStatus | PairStatus, lanes: Sequence[str] | None = None) -> list[str]:
    """What a person reads; `lanes` stand where else there is a line for each lane."""
    from ollama_sweep.results.status import PairStatus

    if not isinstance(found, PairStatus):
        return _lines(found, _process_lines(found), lane_lines(found) if lanes is None else lanes)
    lines = [found.text, *_process_lines(found.at)]
    if found.seconds_left:
        lines.append(f"Both: about {_length(found.seconds_left)} left")
    return lines + [line for arm in found.arms for line in ("", *_lines(arm, [], []))]


def lane_lines(found: SweepStatus) -> list[str]:
    """What each lane does, since when, what it has measured, and how fast it is beside the others."""
    lines = []
    for lane in found.lanes:
        since = datetime.fromisoformat(lane.since)
        for_long = _length(max(0.0, (datetime.now(UTC) - since).total_seconds()))
        is_running = found.process is not None
        does = f"{label(lane.doing)}, for {for_long}" if lane.doing and is_running else lane.state
        says = f" ({lane.says})" if lane.says and not lane.doing else ""
        failed = f", {lane.failed} failed" if lane.failed else ""
        factor = f", factor {found.factors[lane.name].words}" if lane.name in found.factors else ""
        lines.append(f"Lane {lane.name}: {does}{says}; {lane.ok} measured{failed}{factor}")
    return lines


def _lines(found: SweepStatus, process: Sequence[str], lanes: Sequence[str]) -> list[str]:
    counts = ", ".join(f"{count} {status}" for status, count in found.counts.items())
    lines = [
        f"Sweep {found.sweep} on {found.engine}: {found.done} of {found.total} cells done",
        f"  {counts}",
        *([f"  {left_out_words(found.left_out)}"] if found.left_out.cells else []),
        *([f"  replayed from {found.replays}"] if found.replays else []),
        *([f"  scouts for {found.scouts_for}, whose own engine comes next"] if found.scouts_for else []),
        *goal_lines(found),
        *(found.scouted.words.splitlines() if found.scouted else []),
        *process,
    ]
    lines += lanes
    lines += [found.disturbance.sentence] if found.disturbance is not None else []
    for running in (*([found.running] if found.running else []), *found.also_running) if not found.lanes else ():
        again = f", attempt {running.attempt}" if running.attempt > 1 else ""
        lines.append(f"Now: {label(running.coordinates)}{again}, for {_length(running.seconds)}")
    if found.next:
        lines.append(f"Next: {label(found.next)}")
    lines += _pace(found)
    if found.drift is not None:
        lines.append(f"Drift: {100 * found.drift:+.1f} % at the last control")
    lines += [f"Spread of {name}: {one.words}" for name, one in found.spreads.items()]
    lines += _further(found)
    lines += found.memory
    if found.errors:
        lines.append("Last errors:")
    for error in found.errors:
        first = next(iter(error.error.strip().splitlines()), "")
        lines.append(f"  {error.status}: {label(error.coordinates)}: {first[:140]}")
    return lines


def goal_lines(found: SweepStatus) -> list[str]:
    """What the sweep is for, and how far that is."""
    goal = found.goal
    if goal is None:
        return []
    if not goal.has_ended:
        return [f"Goal {goal.goal.words}: {goal.says or 'no cell was chosen yet'}"]
    word = "reached" if goal.is_reached else "not reached"
    left = found.total - found.done
    every = f"ollama-sweep run {found.config} --goal map{_db_words(found)}"
    end = "" if goal.goal.wants_all or not left else f". Every cell with: {every}"
    begin = f"Goal {goal.goal.words} {word}, {left} of {found.total} not measured"
    if found.scouted is not None and found.scouted.is_unsteady and goal.says.startswith(NOT_STEADY):
        return [f"{begin}, as its factor is not steady{end}"]
    return [f"{begin}: {goal.says}{end}"]


def _further(found: SweepStatus) -> list[str]:
    """What is measured beside each cell's own load: what waits, and what it has cost."""
    words = {"pass": "further passes", "second_look": "a second look", "repeats": "more runs", "control": "controls",
             "pair": "turns of the pair"}  # fmt: skip
    lines = []
    if found.waiting_loads:
        parts = [f"{count} for {words[str(purpose)]}" for purpose, count in found.waiting_loads.items()]
        lines.append(f"Further loads of finished cells wait: {', '.join(parts)}")
    spent = {str(purpose): took for purpose, took in found.seconds.items() if purpose is not None}
    if spent:
        parts = [f"{_length(took)} for {words[name]}" for name, took in spent.items()]
        lines.append(f"Took so far: {_length(found.seconds.get(None, 0.0))} for the cells, {', '.join(parts)}")
    return lines


def left_out_words(left_out: LeftOut) -> str:
    """What is left out for want of memory, and why."""
    what = f"{left_out.cells} at least as large as one of {left_out.witnesses}"
    return f"left out (prune): {what} that ran out of memory in two fresh loads"


def _process_lines(found: SweepStatus) -> list[str]:
    from ollama_sweep.store.lock import local_time

    process, other, end = found.process, found.other_sweep, _db_words(found)
    if process:
        lines = [f"Running: pid {process.pid} since {local_time(process.since)} on host {process.host}"]
        if found.waiting:
            lines.append(f"{found.waiting[:1].upper()}{found.waiting[1:]}")
        elif found.is_paused:
            lines.append(f"A pause is asked for: it waits before its next cell. Go on with: ollama-sweep continue{end}")
        return lines
    if found.done >= found.total or (found.goal is not None and found.goal.is_reached and not found.waiting_loads):
        return []
    if other:
        return [f"Not running: pid {other.pid} runs sweep {other.sweep} in this database"]
    lines = [f"Not running. Go on with: ollama-sweep run {found.config}{end}"]
    if found.is_paused:
        lines.append(f"A pause is asked for, so a run would wait until: ollama-sweep continue{end}")
    return lines


def _pace(found: SweepStatus) -> list[str]:
    time = found.time
    if time.seconds_per_cell is None:
        return []
    line = f"Pace: {_length(time.seconds_per_cell)} a cell"
    left, low, high = time.seconds_left, time.seconds_left_low, time.seconds_left_high
    if left:
        line += f", about {_length(left)} left"
        if high:
            line += f" ({_length(low)} to {_length(high)})" if low else f" (up to {_length(high)})"
        if found.replays:
            line += ", by the clock of the replay"
        elif found.process and not found.waiting:
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


def _db_words(found: SweepStatus) -> str:
    return "" if str(found.database) == shared.DEFAULT_DB else f" --db {found.database}"


def label(coordinates: Mapping[str, Scalar]) -> str:
    """`num_ctx 4096, num_batch 64`."""
    from ollama_sweep.core.cell import model_label

    return ", ".join(f"{name} {model_label(str(value))}" for name, value in coordinates.items())
