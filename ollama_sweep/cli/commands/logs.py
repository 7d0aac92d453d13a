"""`logs`: what a run in the background has said."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import BinaryIO

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import say
from ollama_sweep.core.errors import ConfigError

CHUNK_BYTES = 64 * 1024
REMEMBERED_BYTES = 400
LAST_WORDS_S = 120.0
"""How long a run that has let its database go may still draw and speak."""


@click.command("logs", short_help="What a run in the background has said.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends; Ctrl-C leaves it alone.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=20, show_default=True, help="How many of the last lines."
)
@shared.db_option
def command(follow: bool, lines: int, db: Path) -> None:
    """Print the end of the log of `run --detach` or of a service; it lies beside the database.

    \b
    Example:
      ollama-sweep logs -n 100
      ollama-sweep logs -f
    """
    from ollama_sweep.store.beside import check_beside, log_path

    check_beside(db, ".log")
    log = log_path(db)
    if not log.exists():
        if not db.exists():
            raise ConfigError(f"no database at {db}. Start with: ollama-sweep run CONFIG --detach")
        raise ConfigError(f"{db} has no log: no run on it was started with --detach. See: ollama-sweep status")
    with log.open("rb") as file:
        _go_back(file, lines)
        end = file.read()
        _print(end)
        if follow:
            with contextlib.suppress(KeyboardInterrupt):
                _follow(file, db, end[-REMEMBERED_BYTES:])


def _go_back(file: BinaryIO, lines: int) -> None:
    """Stand where the last so many lines begin."""
    at = file.seek(0, os.SEEK_END)
    tail = b""
    while at > 0 and tail.count(b"\n") <= lines:
        step = min(CHUNK_BYTES, at)
        at = file.seek(at - step)
        tail = file.read(step) + tail
    kept = tail.splitlines(keepends=True)[-lines:] if lines else []
    file.seek(-sum(len(line) for line in kept), os.SEEK_END)


def _follow(file: BinaryIO, db: Path, last: bytes) -> None:
    """Print what comes until the run has ended, its pictures and last words included."""
    from ollama_sweep.run import control
    from ollama_sweep.store import lock

    pid, until = 0, float("inf")
    while True:
        found = lock.holder(db)
        if found is not None:
            pid, until = found.pid, time.monotonic() + LAST_WORDS_S
        is_running = found is not None or (time.monotonic() < until and bool(pid) and control.is_alive(pid))
        _find_again(file, last)
        new = file.read()
        last = (last + new)[-REMEMBERED_BYTES:]
        _print(new)
        if not is_running and not new:
            return
        time.sleep(control.POLL_S)


def _find_again(file: BinaryIO, last: bytes) -> None:
    """Where the log has become shorter, stand behind what was printed last."""
    at, size = file.tell(), os.fstat(file.fileno()).st_size
    if size >= at:
        return
    file.seek(0)
    found = file.read().rfind(last) if last else -1
    file.seek(found + len(last) if found >= 0 else 0)


def _print(data: bytes) -> None:
    from ollama_sweep.run.detached import shown

    for line in data.splitlines(keepends=True):
        text = shown(line.rstrip(b"\n"))
        say(text, nl=line.endswith(b"\n"))
