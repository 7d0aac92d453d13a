"""`export [CONFIG]`: the results as files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ollama_sweep.cli import paths, shared
from ollama_sweep.cli.terminal import say, say_exactly, say_lines, warn
from ollama_sweep.core.errors import ConfigError

if TYPE_CHECKING:
    from ollama_sweep.machine.files import Writer
    from ollama_sweep.results.find import Part
    from ollama_sweep.store.reader import Reader

FORMATS = ("csv", "json", "jsonl", "md", "recording", "parquet", "llama-bench", "benchstat", "datasette")


@click.command("export", short_help="The results as csv, json, md, parquet, or for other tools.")
@click.argument("config", required=False)
@click.option(
    "--format",
    "kind",
    type=shared.Words(FORMATS),
    default="csv",
    show_default=True,
    help="recording: every load with its raw runs, for the engine replay. llama-bench: SQL, a file for each num_ctx. "
    "datasette: metadata of the whole database.",
)
@click.option("--layout", type=click.Choice(["full", "simple"]), default="full", help="simple: the older JSON form.")
@click.option("--remark", default="", help="What a recording says of itself, such as: a busy machine.")
@click.option("--build-commit", default=None, metavar="NAME", help="llama-bench's, in place of the engine's version.")
@click.option(
    "-o",
    "--output",
    type=paths.LATER,
    default=None,
    metavar="PATH",
    help="A file instead of the terminal, a folder for llama-bench; a recording whose name ends in .gz is packed.",
)
@click.option("--force", is_flag=True, help="Write over an existing file.")
@shared.db_option
def command(
    config: str | None,
    kind: str,
    layout: str,
    remark: str,
    build_commit: str | None,
    output: Path | None,
    force: bool,
    db: Path,
) -> None:
    """Print or save all cells of a sweep; CONFIG left out means the sweep that ran last.

    For llama-bench and benchstat CONFIG@N is its N-th segment: what was measured in the same surroundings.

    \b
    Example:
      ollama-sweep export configs/quickstart.yaml --format md
      ollama-sweep export --format json --layout simple -o old_form.json
      ollama-sweep export --format parquet -o quickstart.parquet
      ollama-sweep export --format llama-bench -o llama-bench
      ollama-sweep export --format recording -o quickstart.jsonl.gz
    """
    from ollama_sweep.machine.places import STDOUT
    from ollama_sweep.results.find import find_part, find_sweeps
    from ollama_sweep.results.formats import parquet
    from ollama_sweep.store.reader import Reader

    output = None if output is not None and str(output) in STDOUT else output
    _check(kind, layout, remark, build_commit, config)
    _check_place(kind, output, force=force)
    with Reader.open(db) as reader, reader.snapshot():
        if kind == "llama-bench":
            _save_sql(reader, find_part(reader, config), build_commit, output, force=force)
        elif kind == "parquet" and output is not None:
            _save(output, parquet.writing(reader, find_sweeps(reader, config)))
        else:
            text = _text(reader, config, kind, layout, remark)
            if output is not None:
                _save(output, _bytes(text, kind, output))
            elif kind in ("benchstat", "datasette"):
                say_exactly(text)
            else:
                say_lines(text)


def _check(kind: str, layout: str, remark: str, build_commit: str | None, config: str | None) -> None:
    from ollama_sweep.results.formats import llama_bench, parquet

    what = "a recording" if kind == "recording" else kind
    if remark and kind != "recording":
        raise ConfigError("only a recording has a remark; use --format recording", "--remark")
    if layout != "full" and kind != "json":
        raise ConfigError(f"{layout} exists for json only, not for {what}", "--layout")
    if build_commit is not None and kind != "llama-bench":
        raise ConfigError("only llama-bench has a build; use --format llama-bench", llama_bench.OPTION)
    if config is not None and kind == "datasette":
        raise ConfigError(f"datasette is told of the whole database; leave {config} out", "--format")
    llama_bench.check_build(build_commit)
    if kind == "parquet":
        parquet.check()


def _check_place(kind: str, output: Path | None, *, force: bool) -> None:
    """Where the files will lie, looked at before the database is. Raises ConfigError, StorageError."""
    from ollama_sweep.machine import places

    if output is None:
        if kind == "parquet":
            raise ConfigError("parquet is no text; name a file with -o FILE", "--format")
        return
    if kind == "llama-bench":
        places.check_folder(output, "-o")
        return
    places.check_output(output)
    if output.exists() and not force:
        raise ConfigError("exists; use --force", str(output))


def _text(reader: Reader, config: str | None, kind: str, layout: str, remark: str) -> str:
    from ollama_sweep.core.recording.writing import written
    from ollama_sweep.results.export import export
    from ollama_sweep.results.find import find_part, find_sweep, find_sweeps
    from ollama_sweep.results.formats import benchstat, datasette

    if kind == "recording":
        return written(reader.recording(find_sweep(reader, config), remark))
    if kind == "benchstat":
        return "".join(benchstat.lines(reader, find_part(reader, config)))
    if kind == "datasette":
        if reader.is_older:
            warn(f"{reader.path} was made by an earlier version, and lacks columns until the next run")
        return datasette.metadata(reader)
    rows = [find_sweep(reader, config)] if layout == "simple" else find_sweeps(reader, config)
    return export([result for row in rows for result in reader.results(row.sweep_id)], kind, layout)


def _bytes(text: str, kind: str, output: Path) -> bytes:
    from ollama_sweep.core.recording.writing import packed

    return packed(text) if output.suffix == ".gz" and kind == "recording" else text.encode()


def _save(path: Path, content: bytes | Writer) -> None:
    from ollama_sweep.machine.files import write_whole

    write_whole(path, content)
    say(path)


def _save_sql(reader: Reader, part: Part, build_commit: str | None, folder: Path | None, *, force: bool) -> None:
    """A file for each num_ctx; the only one may go to the terminal. None is written where one of them is in the way."""
    from ollama_sweep.machine.files import inside
    from ollama_sweep.results.formats import llama_bench

    files = llama_bench.files(reader, part, build_commit)
    if folder is None:
        if len(files) > 1:
            raise ConfigError(f"makes {len(files)} files, one for each num_ctx; name a folder with -o DIR", "--format")
        say_lines(files[0].text)
        return
    targets = [(inside(folder, f"{file.stem}.sql"), file) for file in files]
    for path, _ in targets:
        if path.exists() and not force:
            raise ConfigError("exists; use --force", str(path))
    for path, file in targets:
        _save(path, file.text.encode())
