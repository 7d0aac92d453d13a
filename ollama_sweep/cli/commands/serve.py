"""`serve`: the live page of a database, while a sweep runs and after."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import say_exactly
from ollama_sweep.core.text import harmless

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
@click.option("--control", is_flag=True, help="Buttons to pause and stop a sweep, for who has the printed address.")
@click.option(
    "--host",
    default=None,
    metavar="ADDRESS",
    help="Answer other computers at this address of ours, too: plain HTTP, with a token, in a network that you trust.",
)
@click.option("--with-parent", is_flag=True, hidden=True, help="End when the input does.")
@shared.db_option
def command(port: int | None, control: bool, host: str | None, with_parent: bool, db: Path) -> None:
    """Show the sweeps of a database in a browser of this computer, live. It only reads; Ctrl-C ends it.

    \b
    Example:
      ollama-sweep serve
      ollama-sweep serve --db sweeps.db --port 8080
      ollama-sweep serve --control
    """  # fmt: skip
    import secrets

    from ollama_sweep.machine import crew
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.web import app, server
    from ollama_sweep.web.guard import LOOPBACK, Access

    crew.compute_with_one_thread()
    with Reader.open(db):  # what is wrong with it is said here, before anything answers
        pass
    is_far = host is not None and host not in LOOPBACK
    listening = server.listen(host or LOOPBACK[0], port)
    token = secrets.token_urlsafe(24) if control or is_far else ""
    made = app.make(library_of(db), Access(token, is_far, listening.getsockname()[1], control))
    with _shown(db, server.address(listening), token) as where:
        said = f"{where} shows {db}." + ("" if with_parent else " Ctrl-C ends it.")

        def ready() -> None:
            _say(said)
            if not with_parent:  # a sweep is about to begin, and nobody may look
                made.begin_ahead()

        server.serve(made.app, listening, ready, made.end, with_parent=with_parent)
        made.wait()


@contextlib.contextmanager
def _shown(db: Path, address: str, token: str) -> Iterator[str]:
    """What is printed of the address: with its token on a terminal only, else that stands beside the database."""
    from ollama_sweep.web.guard import TOKEN
    from ollama_sweep.web.kept import kept

    whole = f"{address}?{TOKEN}={token}"
    if not token or sys.stdout.isatty():
        yield whole if token else address
        return
    with kept(db, whole) as file:
        yield f"{address} (with the token that stands in {file})"


def _say(line: str) -> None:
    """At once, also into a pipe. The token on a terminal is for the person, so nothing is masked."""
    say_exactly(f"{harmless(line)}\n")
    sys.stdout.flush()


def library_of(db: Path) -> Library:
    """The database with all that the other commands say of it."""
    from ollama_sweep.cli import repeating
    from ollama_sweep.cli.commands import explain, status
    from ollama_sweep.web.library import Library, Told

    told = Told(status.lines_of, repeating.repeats, repeating.commands, explain.lines_of)
    return Library(db, told)
