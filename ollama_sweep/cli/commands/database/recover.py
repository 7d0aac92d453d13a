"""`recover --to NEW`: copy what can be read of a damaged database to a new one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ollama_sweep.cli import paths, shared
from ollama_sweep.cli.terminal import say, say_json

if TYPE_CHECKING:
    from ollama_sweep.store.recovery.recover import Recovered


@click.command("recover", short_help="Copy what can be read of a damaged database to a new one.")
@click.option("--to", "to", required=True, type=paths.OUTPUT, help="The new database.")
@click.option("--allow-network-db", is_flag=True, help="Allow a database on a network drive.")
@shared.db_option
@shared.json_option
def command(to: Path, allow_network_db: bool, db: Path, as_json: bool) -> None:
    """Copy what can be read of a damaged database to a new one, and say what is lost. The damaged one stays as it is.

    Cells that a run saved to files beside it (sweeps.db.rescued-….json) are taken over, too.

    \b
    Example:
      ollama-sweep recover --db sweeps.db --to new.db
      ollama-sweep run configs/quickstart.yaml --db new.db
    """
    from dataclasses import asdict

    from ollama_sweep.store.recovery.recover import recover

    found = recover(db, to, allow_network=allow_network_db)
    if as_json:
        say_json({"from": str(db), "to": str(to), **asdict(found)})
        return
    for line in _lines(found):
        say(line)
    say(f"Go on with: ollama-sweep run CONFIG --db {to}")


def _lines(found: Recovered) -> list[str]:
    width = max(len(count.table) for count in found.tables)
    lines = [f"{'table':<{width}}  {'copied':>8}  {'lost':>8}  {'dropped':>8}"]
    lines += [
        f"{count.table:<{width}}  {count.copied:>8}  {'?' if count.lost is None else count.lost:>8}  {count.dropped:>8}"
        for count in found.tables
    ]
    if found.unreadable_bytes:
        lines.append(f"{found.unreadable_bytes} bytes of the file could not be read from the disk")
    if any(count.lost is None for count in found.tables):
        lines.append("lost ?: nothing that could be read says how many rows there were")
    if any(count.dropped for count in found.tables):
        lines.append("dropped: what they belong to (a sweep, a cell, an attempt) is lost")
    if found.pending_again:
        lines.append(f"{found.pending_again} cells lost their result and will be measured again")
    if found.differences:
        lines.append("not as it was measured (a cell or an attempt that differs is lost, runs are kept):")
        lines += [f"  {one.words()}" for one in found.differences]
    return [*lines, *found.rescued]
