"""The files that a sweep leaves for people, pictures and tables, in `heatmaps/<sweep>/`.

`results_table.csv` has num_batch down and num_ctx across, as a picture, `results.csv` a row a cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ollama_sweep.core.errors import SweepError
from ollama_sweep.core.metrics import default_metric, find_metric
from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import CellResult, Status, failure_label
from ollama_sweep.core.stats import value_of
from ollama_sweep.machine.files import clear_leftovers, inside, safe_name, write_whole
from ollama_sweep.results.export import csv_text, long_csv
from ollama_sweep.results.grids import Grid, file_suffixes, make_grids
from ollama_sweep.results.likely.scouted import ScoutedMap
from ollama_sweep.results.plots.shared.figures import all_written
from ollama_sweep.store.rows import SweepRow

MANY, FROM_COLUMNS = 20_000, 2000
"""Cells of which a row each is no longer held in memory at the end of a sweep, and for drawing (`large`)."""


def is_many(counts: Mapping[Status, int], most: int | None = None) -> bool:
    """The sweep has more cells than that, or than MANY."""
    return sum(counts.values()) > (MANY if most is None else most)


def draw_sweep(
    row: SweepRow,
    results: Sequence[CellResult],
    folder: Path,
    *,
    metric: str | None = None,
    suffix: str = ".png",
    spreads: Mapping[str, Spreads] | None = None,
    scouted: ScoutedMap | None = None,
) -> list[Path]:
    """Write both tables and the pictures of a sweep, each whole or not at all; their paths, pictures first.

    `metric` None: every picture has the one that its task is about. Raises ConfigError (unknown metric), StorageError.
    What cannot be drawn is raised when all others are.
    """
    if metric is not None:
        find_metric(metric, results)
    target = folder_of(row, folder)
    tables = save_tables(results, target)
    drawn = draw_each(row, results, target, metric=metric, suffix=suffix, spreads=spreads, scouted=scouted)
    return [*all_written(drawn), *tables]


def folder_of(row: SweepRow, folder: Path) -> Path:
    """Where the files of a sweep go. Raises ConfigError."""
    return inside(folder, safe_name(row.name))


def draw_each(
    row: SweepRow,
    results: Sequence[CellResult],
    target: Path,
    *,
    metric: str | None = None,
    suffix: str = ".png",
    spreads: Mapping[str, Spreads] | None = None,
    scouted: ScoutedMap | None = None,
) -> Iterator[Path | SweepError]:
    """Draw the pictures of a sweep into its folder: the path of each, or why there is none. Raises ConfigError.

    `spreads` are those of its runs and loads, by metric; `scouted` what its scout says of cells it has not measured.
    """
    from ollama_sweep.results import plots

    clear_leftovers(target)
    tokens = row.spec.get("prompt_tokens")
    options = plots.PlotOptions(
        metric=metric,
        sweep=row.name,
        machine=row.machine,
        spreads=spreads or {},
        prompt_tokens=tokens if isinstance(tokens, int) and tokens else None,
        predicts=bool(row.spec.get("goal")),
        scouted=scouted,
    )
    plot = plots.load("heatmap")
    each = getattr(plot, "save_each", plot.save_all)
    yield from each(results, options, target, suffix=suffix)


def results_tables(results: Sequence[CellResult], metric: str | None = None) -> dict[str, str]:
    """File name -> CSV text, one table per picture. Raises ConfigError for a metric the results do not have.

    Without a metric every table has the one that its task is about, as the pictures do.
    """
    asked = find_metric(metric, results).name if metric is not None else ""
    grids = make_grids(results) or [Grid((), "", (), (), {})]
    tables = {}
    for grid, suffix in zip(grids, file_suffixes(grids), strict=True):
        own = default_metric(grid.cells.values())
        stem = "results_table" if asked in ("", own) else f"results_table_{asked}"
        tables[f"{stem}{suffix}.csv"] = _table(grid, asked or own)
    return tables


def save_tables(results: Sequence[CellResult], folder: Path, metric: str | None = None) -> list[Path]:
    """Write the tables and `results.csv` into a folder, each whole or not at all; their paths."""
    texts = {**results_tables(results, metric), "results.csv": long_csv(results)}
    for name, text in texts.items():
        write_whole(folder / name, text.encode())
    return [folder / name for name in texts]


def _table(grid: Grid, metric: str) -> str:
    """A failed cell holds its label; one that is not measured yet, or not part of the sweep, is empty."""
    head: list[Scalar] = ["num_batch", *grid.columns]
    body = [[y, *(_cell(grid.cells.get((x, y)), metric) for x in grid.columns)] for y in grid.rows]
    return csv_text([head, *body])


def _cell(result: CellResult | None, metric: str) -> Scalar:
    if result is None or not result.status.is_final:
        return None
    if result.status is not Status.OK:
        return failure_label(result.status, result.reason)
    value = value_of(result, metric)
    return None if value is None else short(value)


def short(value: float) -> float | int:
    """Six digits are more than any rate is worth; sizes stay whole."""
    return round(value) if abs(value) >= 1e6 or float(value).is_integer() else float(f"{value:.6g}")
