"""`export [CONFIG]`: the results as a file for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from ollama_sweep.cli import paths, shared
from ollama_sweep.cli.terminal import say, say_lines
from ollama_sweep.core.errors import ConfigError


@click.command("export", short_help="The results as csv, json, jsonl or md, or a recording.")
@click.argument("config", required=False)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "json", "jsonl", "md", "recording"]),
    default="csv",
    show_default=True,
    help="recording: every load with its raw runs, for the engine replay.",
)
@click.option("--layout", type=click.Choice(["full", "simple"]), default="full", help="simple: the older JSON form.")
@click.option("--remark", default="", help="What a recording says of itself, such as: a busy machine.")
@click.option(
    "-o",
    "--output",
    type=paths.OUTPUT_OR_STDOUT,
    default=None,
    help="A file instead of the terminal; a recording whose name ends in .gz is packed.",
)
@click.option("--force", is_flag=True, help="Write over an existing file.")
@shared.db_option
def command(
    config: str | None, kind: str, layout: str, remark: str, output: Path | None, force: bool, db: Path
) -> None:
    """Print or save all cells of a sweep; CONFIG left out means the sweep that ran last.

    \b
    Example:
      ollama-sweep export configs/quickstart.yaml --format md
      ollama-sweep export --format json --layout simple -o old_form.json
      ollama-sweep export --format recording -o quickstart.jsonl.gz
    """
    from ollama_sweep.core.recording.writing import packed, written
    from ollama_sweep.machine.files import write_whole
    from ollama_sweep.machine.places import STDOUT
    from ollama_sweep.results.export import export
    from ollama_sweep.results.find import find_sweep, find_sweeps
    from ollama_sweep.store.reader import Reader

    if output is not None and str(output) in STDOUT:
        output = None
    if output is not None and output.exists() and not force:
        raise ConfigError("exists; use --force", str(output))
    if remark and kind != "recording":
        raise ConfigError("only a recording has a remark; use --format recording", "--remark")
    if kind == "recording" and layout != "full":
        raise ConfigError(f"{layout} exists for json only, not for a recording", "--layout")
    with Reader.open(db) as reader, reader.snapshot():
        is_one = kind == "recording" or layout == "simple"
        rows = [find_sweep(reader, config)] if is_one else find_sweeps(reader, config)
        if kind == "recording":
            text = written(reader.recording(rows[0], remark))
        else:
            text = export([result for row in rows for result in reader.results(row.sweep_id)], kind, layout)
    if output is None:
        say_lines(text)
    else:
        write_whole(output, packed(text) if output.suffix == ".gz" and kind == "recording" else text.encode())
        say(output)
