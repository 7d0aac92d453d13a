"""`verify`: is everything in a database what was measured, can it be read, and do its numbers come out again?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import say, say_json, warn
from ollama_sweep.core.errors import NotBelieved, StorageError

if TYPE_CHECKING:
    from ollama_sweep.results.numbers.again import Read


@click.command("verify", short_help="Is a database what was measured?")
@shared.db_option
@click.option("--strict", is_flag=True, help="Exit 6 when some cells failed or are not believed.")
@shared.json_option
def command(db: Path, strict: bool, as_json: bool) -> None:
    """Look at every row: does each attempt with its runs, scores and answers come to its checksum, can every value be
    read? And make every number again: counts and durations of what the engine said, rates, medians and intervals of
    these. It changes nothing. Exit 4 where something differs; what that is is named.

    \b
    Example:
      ollama-sweep verify --db sweeps.db
      ollama-sweep verify --strict --json
    """
    from dataclasses import asdict

    from ollama_sweep.results.numbers.check import Numbers
    from ollama_sweep.store.reader import Reader

    with Reader.open(db) as reader, reader.snapshot():
        found, missing = reader.verify(), reader.missing_cells()
        warnings = reader.warnings()
        numbers = Numbers(reader, _reader())
        if as_json:
            differing = [one.as_dict() for one in numbers.differing()]
            doubtful = reader.doubtful_cells()
            made = {**numbers.as_dict(), "differing": differing}
            say_json({"database": str(db), **asdict(found), "missing_cells": missing, "numbers": made,
                      "not_believed": doubtful})  # fmt: skip
        else:
            for one in found.differences:
                say(one.words())
            for number in numbers.differing():
                say(number.words())
            doubtful = reader.doubtful_cells()
            old = f", {found.unchecked} older ones have none" if found.unchecked else ""
            say(f"{found.checked} attempts were compared with their checksums{old}")
            for line in numbers.words():
                say(line)
            for warning in warnings:
                warn(f"warning: {warning}")
    _judge(db, len(found.differences), numbers.differs)
    if strict and doubtful:
        raise NotBelieved(f"{doubtful} cells failed or carry a flag")


def _reader() -> Read:
    """How the engines read what they have said; each is looked for once."""
    from functools import cache

    from ollama_sweep import engines
    from ollama_sweep.engines.base import Kept

    readers = cache(engines.reader)

    def read(engine: str, raw: str, version: str, *, fresh: bool, embeds: bool) -> Mapping[str, float | None]:
        return readers(engine)(Kept(raw, version, fresh=fresh, embeds=embeds))

    return read


def _judge(db: Path, differences: int, differs: int) -> None:
    """Raises StorageError where something differs."""
    from ollama_sweep.store.values import recover_words

    said = []
    if differences:
        what = "1 thing is" if differences == 1 else f"{differences} things are"
        said.append(f"{what} not what was written to {db}. {recover_words(db)}")
    if differs:
        what = "1 number" if differs == 1 else f"{differs} numbers"
        said.append(f"{what} of {db} cannot come of what the engine said and of the formulas")
    if said:
        raise StorageError(". ".join(said))
