"""`pause`: a sweep waits before its next cell until `continue`."""

from __future__ import annotations

from pathlib import Path

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import say
from ollama_sweep.core.errors import ConfigError


@click.command("pause", short_help="Let a sweep wait before its next cell.")
@shared.db_option
def command(db: Path) -> None:
    """Let the sweep finish its cell, unload its model and wait, until `continue`; a restart does not end the pause.

    \b
    Example:
      ollama-sweep pause
      ollama-sweep continue
    """
    from ollama_sweep.run import control
    from ollama_sweep.store import lock
    from ollama_sweep.store.beside import db_words, paused_since

    if not db.exists():
        raise ConfigError(f"no database at {db}, so there is nothing to pause")
    since, found, end = paused_since(db), lock.holder(db), db_words(db)
    control.ask_to_pause(db)
    if since is not None:
        say(f"Was paused already, since {since:%Y-%m-%d %H:%M}")
    elif found is not None:
        say(f"The sweep (pid {found.pid}) waits before its next cell")
    else:
        say("No sweep runs now; the next run waits before its first cell")
    say(f"Go on with: ollama-sweep continue{end}")
