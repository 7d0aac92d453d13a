"""`continue`: end a pause."""

from __future__ import annotations

from pathlib import Path

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import say
from ollama_sweep.core.errors import ConfigError


@click.command("continue", short_help="End a pause.")
@shared.db_option
def command(db: Path) -> None:
    """Take `pause` back: the sweep that waits goes on. It starts no sweep; that is `run`.

    \b
    Example:
      ollama-sweep continue
    """
    from ollama_sweep.run import control
    from ollama_sweep.store import lock

    if not db.exists():
        raise ConfigError(f"no database at {db}. Start with: ollama-sweep run CONFIG")
    was_paused, found = control.ask_to_continue(db), lock.holder(db)
    if found is None and not was_paused:
        raise ConfigError(f"{db} is not paused, and no sweep runs on it. Go on with: ollama-sweep run CONFIG")
    if found is None:
        say("The pause is over, but no sweep runs. Go on with: ollama-sweep run CONFIG")
    elif was_paused:
        say(f"The pause is over: the sweep (pid {found.pid}) goes on")
    else:
        say(f"Was not paused: the sweep (pid {found.pid}) runs{f' ({found.note})' if found.note else ''}")
