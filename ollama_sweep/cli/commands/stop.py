"""`stop`: end a sweep after the cell at hand, or now; everything measured is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import say
from ollama_sweep.core.errors import ConfigError, EngineUnavailable

if TYPE_CHECKING:
    from ollama_sweep.results.status import PairStatus, SweepStatus

NOW_S = 60.0
"""A sweep that is told to stop now may need some time to bring its engine to rest."""


@click.command("stop", short_help="End a sweep after its cell, or now.")
@click.option("--now", is_flag=True, help="Do not finish the cell; it is measured again next time.")
@click.option("--no-wait", is_flag=True, help="Ask, and do not wait for the end.")
@shared.db_option
def command(now: bool, no_wait: bool, db: Path) -> None:
    """End the sweep that runs on the database, from any terminal. `run` goes on where it was.

    \b
    Example:
      ollama-sweep stop
      ollama-sweep stop --now
    """
    from ollama_sweep.run import control
    from ollama_sweep.run.listeners import DRAWING
    from ollama_sweep.store.beside import db_words

    if not db.exists():
        raise ConfigError(f"no database at {db}, so no sweep runs on it")
    found = control.require_running(db)
    cell = _cell(db)
    has_ended = control.ask_to_stop(db, found, now=now)
    is_drawing = found.note == DRAWING
    what = f"; it is {DRAWING}" if is_drawing else f" {'now' if now else 'after this cell'}{cell}"
    say(f"Asked pid {found.pid} to stop{what}")
    if no_wait:
        say(f"It ends by itself. Look: ollama-sweep status{db_words(db)}")
        return
    try:
        ended = control.wait_for_end(has_ended, NOW_S if now else float("inf"))
    except KeyboardInterrupt:
        say("Not waiting any longer; the sweep stops by itself as it was asked to")
        return
    if not ended:
        raise EngineUnavailable(
            f"pid {found.pid} has not ended within {NOW_S:.0f} s. To end it the hard way: kill -9 {found.pid} "
            "(everything measured is safe; the cell at hand is measured again)"
        )
    for line in _ended(db):
        say(line)


def _status(db: Path) -> SweepStatus | PairStatus | None:
    """That of the sweep or the pair that ran last; None where none has."""
    from ollama_sweep.cli.commands.status import read
    from ollama_sweep.results.find import find_sweeps
    from ollama_sweep.store.reader import Reader

    with Reader.open(db) as reader, reader.snapshot():
        return read(reader, find_sweeps(reader, None)) if reader.last_sweep() else None


def _at(found: SweepStatus | PairStatus) -> SweepStatus:
    """The sweep that is measured, of a pair the one whose turn it is."""
    from ollama_sweep.results.status import PairStatus

    return found.at if isinstance(found, PairStatus) else found


def _cell(db: Path) -> str:
    from ollama_sweep.cli.commands.status import label
    from ollama_sweep.core.units import format_duration

    both = _status(db)
    found = _at(both) if both is not None else None
    if found is None or found.running is None:
        return ""
    running, usual_s = found.running, found.time.seconds_per_cell
    usual = f"; a cell took about {format_duration(usual_s)} lately" if usual_s else ""
    return f" ({label(running.coordinates)}, for {format_duration(running.seconds)}{usual})"


def _ended(db: Path) -> list[str]:
    from ollama_sweep.store.beside import db_words

    found = _status(db)
    if found is None:
        return ["Stopped"]
    counts = f"{found.done} of {found.total} cells are done"
    if found.done == found.total:
        return [f"Ended: {counts}"]
    return [f"Stopped: {counts}. Go on with: ollama-sweep run {_at(found).config}{db_words(db)}"]
