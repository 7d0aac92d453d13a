"""Finds a sweep in a database, by its file, its name, or the one that ran last; its cells and the best, for Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.store.reader import Reader

if TYPE_CHECKING:
    from ollama_sweep.core.options import Scalar
    from ollama_sweep.core.outcome import CellResult
    from ollama_sweep.results.best import Best
    from ollama_sweep.store.rows import SweepRow


def replayed_words(row: SweepRow) -> str:
    """A line that says of a replayed sweep what it is; "" for one that was measured."""
    replays = row.spec.get("replays")
    return f"Replayed from {replays}: nothing of it was measured here." if replays else ""


def find_sweep(reader: Reader, config: str | None) -> SweepRow:
    """The sweep of a CONFIG or a name; left out, the one that ran last. Raises ConfigError."""
    if config is None:
        last = reader.last_sweep()
        if last is None:
            raise ConfigError("no sweep has run in this database yet. Start with: sweep.py run CONFIG")
        return last
    names = {row.name for row in reader.sweeps()}
    return reader.sweep(config if config in names else name_of(config))


def name_of(config: str) -> str:
    """The name of the sweep in a sweep file; of a file that is not there the one it would have. Raises ConfigError."""
    path = Path(config)
    if not path.is_file():
        return path.stem if path.suffix in (".yaml", ".yml") else config
    from ollama_sweep.core import strict_yaml
    from ollama_sweep.machine import files

    root = strict_yaml.parse(files.read_text(path, 1), str(path))
    entries = root.value if root is not None and isinstance(root.value, dict) else {}
    return str(entries["name"].value) if "name" in entries else path.stem


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
    from ollama_sweep.results.export import long_rows

    return long_rows(_results(db, sweep)[1])


def best(db: Path | str, sweep: str | None = None, metric: str | None = None) -> SweepBest:
    """The best cells of a sweep, by that of its main task or by a column of the view. Raises ConfigError."""
    from ollama_sweep.results.best import best_cells, describe_best

    with Reader.open(Path(db)) as reader, reader.snapshot():
        row = find_sweep(reader, sweep)
        results, spreads = list(reader.results(row.sweep_id)), reader.spreads(row.sweep_id)
    text = "\n".join(filter(None, [describe_best(results, metric, spreads), replayed_words(row)]))
    return SweepBest(row.name, best_cells(results, metric, spreads), text)


def _results(db: Path | str, sweep: str | None) -> tuple[str, list[CellResult]]:
    with Reader.open(Path(db)) as reader, reader.snapshot():
        row = find_sweep(reader, sweep)
        return row.name, list(reader.results(row.sweep_id))
