"""`best [CONFIG]`: the best cells in words, and a Modelfile with their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ollama_sweep.cli import paths, shared
from ollama_sweep.cli.terminal import say_json, say_lines
from ollama_sweep.core.errors import ConfigError

if TYPE_CHECKING:
    from ollama_sweep.core.outcome import CellResult
    from ollama_sweep.results.best import Best
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow


@click.command("best", short_help="The best cells and the tuned Modelfile.")
@click.argument("config", required=False)
@click.option("-o", "--output", type=paths.OUTPUT, default=None, help="Save the Modelfile here.")
@click.option("--force", is_flag=True, help="Write over an existing file.")
@click.option("--metric", default=None, help="Any numeric column of `results`; else that of the sweep's main task.")
@shared.db_option
@shared.json_option
def command(config: str | None, output: Path | None, force: bool, metric: str | None, db: Path, as_json: bool) -> None:
    """Say which cells are best, what is tied with them, and the Modelfile that uses them.

    \b
    Example:
      ollama-sweep best configs/quickstart.yaml -o modelfiles/tuned
    """
    from ollama_sweep.machine.files import write_whole
    from ollama_sweep.results.find import find_sweep, find_sweeps, pair_of, pair_words
    from ollama_sweep.store.reader import Reader

    if output is not None and output.exists() and not force:
        raise ConfigError("exists; use --force", str(output))
    with Reader.open(db) as reader:
        rows = find_sweeps(reader, config) if output is None else [find_sweep(reader, config)]
        found = [_of_sweep(reader, row, metric) for row in rows]
    if output is not None and found[0].modelfile:
        write_whole(output, found[0].modelfile.encode())
    if as_json:
        each = [{"sweep": one.sweep, **one.best.as_dict(), "modelfile": one.modelfile, **one.origin} for one in found]
        say_json({"pair": pair_of(rows), "sweeps": each} if len(each) > 1 else each[0])
        return
    if len(found) > 1:
        say_lines(f"{pair_words(rows)}\n")
    for one in found:
        say_lines("\n".join(one.lines(output, is_named=len(found) > 1)))


@dataclass(frozen=True)
class _Found:
    """The best cells of a sweep, the same in words, and the Modelfile that uses them."""

    sweep: str
    best: Best
    text: str
    modelfile: str
    origin: Mapping[str, object]

    def lines(self, output: Path | None, *, is_named: bool) -> list[str]:
        """What a person reads."""
        from ollama_sweep.results.grids import length_of, work_in_words

        lines = [f"Sweep {self.sweep}", self.text] if is_named else [self.text]
        if self.modelfile:
            length = length_of(self.best.winner) if self.best.winner else None
            of = "" if length is None else f" for {work_in_words('', length)}"
            saved = f", saved as {output}" if output else ""
            lines.append(f"\nTuned Modelfile{of}{saved}:\n\n{self.modelfile}\n")
        return lines


def _of_sweep(reader: Reader, row: SweepRow, metric: str | None) -> _Found:
    from ollama_sweep.results.best import best_cells, describe_best
    from ollama_sweep.results.find import replayed_words
    from ollama_sweep.results.likely.scouted import scouted_map, told

    results, spreads = list(reader.results(row.sweep_id)), reader.spreads(row.sweep_id)
    found = best_cells(results, metric, spreads)
    words = replayed_words(row)
    tuned = tuned_modelfile(row, found.winner) if found.winner else ""
    scouted = scouted_map(reader, row)
    text = told(describe_best(results, metric, spreads), row, scouted)
    more = {"replays": row.spec["replays"]} if words else {}
    return _Found(row.name, found, text, tuned, {**more, **({"scouted": scouted.as_dict()} if scouted else {})})


def tuned_modelfile(row: SweepRow, best: CellResult) -> str:
    """The sweep's template with the best cell's load options; num_predict is left to the person.

    Empty for a replayed sweep, and where the model's name is none that a Modelfile can have.
    """
    from ollama_sweep.core.options import LOAD_OPTIONS
    from ollama_sweep.engines.shared import modelfile
    from ollama_sweep.results.find import replayed_words

    base = str(Path(best.model).expanduser())
    if replayed_words(row) or not modelfile.is_base(base):
        return ""
    text = str(row.spec.get("template") or "")
    template = modelfile.parse(text, "modelfile", allow_local=True) if text else None
    options = row.spec.get("options")
    fixed = dict(options) if isinstance(options, dict) else {}
    values = {**fixed, **best.coordinates}
    chosen = {name: value for name, value in values.items() if name in LOAD_OPTIONS}
    return modelfile.render(template, base, chosen)
