"""What a database holds, for Python: a row for each cell, and the best ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import CellResult
from ollama_sweep.results.best import Best, best_cells, describe_best
from ollama_sweep.results.export import long_rows
from ollama_sweep.results.find import find_sweep
from ollama_sweep.store.reader import Reader


@dataclass(frozen=True)
class SweepBest:
    """The best cells of a sweep; `text` says the same in words."""

    sweep: str
    cells: Best
    text: str


def rows(db: Path | str, sweep: str | None = None) -> list[dict[str, Scalar]]:
    """A row for each cell with every column of the view `results`: `pandas.DataFrame(rows("sweeps.db"))`.

    The sweep is named by its name or file; left out, it is the one that ran last. Raises ConfigError.
    """
    return long_rows(_results(db, sweep)[1])


def best(db: Path | str, sweep: str | None = None, metric: str | None = None) -> SweepBest:
    """The best cells of a sweep, by that of its main task or by a column of the view. Raises ConfigError."""
    name, results = _results(db, sweep)
    return SweepBest(name, best_cells(results, metric), describe_best(results, metric))


def _results(db: Path | str, sweep: str | None) -> tuple[str, list[CellResult]]:
    with Reader.open(Path(db)) as reader, reader.snapshot():
        row = find_sweep(reader, sweep)
        return row.name, list(reader.results(row.sweep_id))
