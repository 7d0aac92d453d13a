"""The files that a sweep leaves for people: pictures and tables in `heatmaps/<sweep>/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.outcome import CellResult
from ollama_sweep.machine.files import clear_leftovers, inside, safe_name
from ollama_sweep.store.rows import SweepRow


def draw_sweep(
    row: SweepRow, results: Sequence[CellResult], folder: Path, *, metric: str | None = None, suffix: str = ".png"
) -> list[Path]:
    """Write the pictures and both tables of a sweep, each whole or not at all; their paths, pictures first.

    `metric` None: every picture has the one that its task is about. Raises ConfigError (unknown metric), StorageError.
    """
    from ollama_sweep.results import plots
    from ollama_sweep.results.tables import save_tables

    target = inside(folder, safe_name(row.name))
    clear_leftovers(target)
    tokens = row.spec.get("prompt_tokens")
    options = plots.PlotOptions(
        metric=metric,
        sweep=row.name,
        machine=row.machine,
        prompt_tokens=tokens if isinstance(tokens, int) and tokens else None,
    )
    reached("in_picture")
    pictures = plots.load("heatmap").save_all(results, options, target, suffix=suffix)
    return [*pictures, *save_tables(results, target)]
