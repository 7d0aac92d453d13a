"""`heatmap [CONFIG]`: draw what there is now, also during a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ollama_sweep.cli import paths, shared
from ollama_sweep.cli.terminal import say, say_json
from ollama_sweep.core.errors import ConfigError

if TYPE_CHECKING:
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow

SUFFIXES = (".png", ".svg", ".pdf")


@click.command("heatmap", short_help="Draw what there is now.")
@click.argument("config", required=False)
@click.option("--metric", default=None, help="Any numeric column of `results`.  [default: what the task is about]")
@click.option("--out", default="heatmaps", show_default=True, type=paths.FOLDER, help="A folder.")
@click.option("--format", "kind", default="png", show_default=True, metavar="KIND", help="png, svg or pdf.")
@shared.db_option
@shared.json_option
def command(config: str | None, metric: str | None, out: Path, kind: str, db: Path, as_json: bool) -> None:
    """Draw the heatmaps of a sweep into OUT/<sweep>/; CONFIG left out means the sweep that ran last.

    \b
    Example:
      ollama-sweep heatmap --metric load_duration_s
    """
    from ollama_sweep.machine.files import try_folder
    from ollama_sweep.results.find import find_sweeps, pair_of
    from ollama_sweep.store.reader import Reader

    if f".{kind}" not in SUFFIXES:
        raise ConfigError(f"{kind} is not a kind of picture. Allowed: png, svg, pdf", "--format")
    with Reader.open(db) as reader:
        rows = find_sweeps(reader, config)
        try_folder(out, "--out")
        files = [file for row in rows for file in _draw(reader, row, out, metric, f".{kind}")]
    if as_json:
        name = {"sweep": rows[0].name} if len(rows) == 1 else {"pair": pair_of(rows)}
        say_json({**name, "files": [str(file) for file in files]})
    else:
        for file in files:
            say(file)


def _draw(reader: Reader, row: SweepRow, out: Path, metric: str | None, suffix: str) -> list[Path]:
    from ollama_sweep.results.likely.scouted import scouted_map
    from ollama_sweep.results.pictures import FROM_COLUMNS, draw_sweep, is_many

    if is_many(reader.counts(row.sweep_id), FROM_COLUMNS):
        from ollama_sweep.results.large import files as large

        return large.draw_sweep(reader, row, out, metric=metric, suffix=suffix)
    results, spreads = list(reader.results(row.sweep_id)), reader.spreads(row.sweep_id)
    scouted = scouted_map(reader, row)
    return draw_sweep(row, results, out, metric=metric, suffix=suffix, spreads=spreads, scouted=scouted)
