"""`verify`: is everything in a database what was measured, and can it be read?"""

from __future__ import annotations

from pathlib import Path

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import say, say_json, warn
from ollama_sweep.core.errors import StorageError


@click.command("verify", short_help="Is a database what was measured?")
@shared.db_option
@shared.json_option
def command(db: Path, as_json: bool) -> None:
    """Look at every row: does each attempt with its runs, scores and answers come to its checksum, can every value be
    read? It changes nothing. Exit 4 where something differs; what that is is named.

    \b
    Example:
      ollama-sweep verify --db sweeps.db
    """
    from dataclasses import asdict

    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.values import recover_words

    with Reader.open(db) as reader, reader.snapshot():
        found, missing = reader.verify(), reader.missing_cells()
        warnings = reader.warnings()
    if as_json:
        say_json({"database": str(db), **asdict(found), "missing_cells": missing})
    else:
        for one in found.differences:
            say(one.words())
        old = f", {found.unchecked} older ones have none" if found.unchecked else ""
        say(f"{found.checked} attempts were compared with their checksums{old}")
        for warning in warnings:
            warn(f"warning: {warning}")
    if found.differences:
        count = len(found.differences)
        what = "1 thing is" if count == 1 else f"{count} things are"
        raise StorageError(f"{what} not what was written to {db}. {recover_words(db)}")
