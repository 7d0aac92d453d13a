"""`serve`: the live page of a database, while a sweep runs and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import say

if TYPE_CHECKING:
    from ollama_sweep.web.library import Library


@click.command("serve", short_help="A live page of the database, for a browser.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=None,
    metavar="PORT",
    help="Where it answers; 0 is any free one. [default: 8437, or the next free one]",
)
@shared.db_option
def command(port: int | None, db: Path) -> None:
    """Show the sweeps of a database in a browser of this computer, live. It only reads; Ctrl-C ends it.

    \b
    Example:
      ollama-sweep serve
      ollama-sweep serve --db sweeps.db --port 8080
    """  # fmt: skip
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.web import app, server
    from ollama_sweep.web.guard import Access

    with Reader.open(db):  # what is wrong with it is said here, before anything answers
        pass
    listening = server.listen("127.0.0.1", port)
    address = server.address(listening)
    access = Access(port=listening.getsockname()[1])
    made = app.make(library_of(db), access)
    server.serve(made, listening, lambda: say(f"{address} shows {db}. Ctrl-C ends it."), lambda: None)


def library_of(db: Path) -> Library:
    """The database with all that the other commands say of it."""
    from ollama_sweep.cli import repeating
    from ollama_sweep.cli.commands import explain, status
    from ollama_sweep.web.library import Library, Told

    told = Told(status.lines_of, repeating.repeats, repeating.commands, explain.lines_of)
    return Library(db, told)
