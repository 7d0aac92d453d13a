"""The commands that measure a cell again: by hand, where its engine knows how, and with this program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ollama_sweep.core.options import Scalar
    from ollama_sweep.results.page.gathering import Gathered
    from ollama_sweep.results.page.view import Repeat
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import PlannedCell, SweepRow

TOP_KEYS = ("model", "num_ctx", "num_batch", "task")
"""Dimensions that a sweep file names at its top; others stand under `dimensions`."""


def commands(row: SweepRow, planned: PlannedCell, coordinates: Mapping[str, Scalar]) -> list[str]:
    """What repeats the cell without the tool, where its engine knows, and with it."""
    import json
    import shlex

    from ollama_sweep import engines
    from ollama_sweep.core.cell import PROMPT_TOKENS

    cell = planned.cell
    lines = list(engines.facts(row.engine).by_hand(cell.for_engine, str(row.spec.get("template") or "")))
    sets = []
    for name, value in {"model": cell.model, **coordinates}.items():
        key = name if name in TOP_KEYS or name in dict(cell.server) else f"dimensions.{name}"
        key = "prompt.tokens" if name == PROMPT_TOKENS else key
        sets.append("--set " + shlex.quote(f"{key}={json.dumps([value], ensure_ascii=False)}"))
    return [*lines, f"{_run(row)} {' '.join(sets)}"]


def _run(row: SweepRow) -> str:
    """Measures the sweep into another database; one that had no file (Python) from a file of its name."""
    import shlex

    return f"ollama-sweep run {shlex.quote(row.config_path or f'{row.name}.yaml')} --db again.db"


def repeats(reader: Reader, row: SweepRow, gathered: Gathered) -> list[Repeat]:
    """How a page says that a sweep is measured again, and its best cell."""
    import shlex

    from ollama_sweep.cli.commands.best import tuned_modelfile
    from ollama_sweep.results.best import best_cells
    from ollama_sweep.results.page.view import Repeat

    found = [Repeat("The whole sweep, into a database of its own:", (_run(row),))]
    best = best_cells(gathered.cells).winner if gathered.cells else None
    if best is None:
        return found
    position = int(str(best.row["position"]))
    planned = reader.planned(row.sweep_id, position)
    found.append(Repeat("The best cell:", tuple(commands(row, planned, best.coordinates))))
    if tuned := tuned_modelfile(row, best):
        found.append(Repeat("A Modelfile with the values of the best cell:", tuple(tuned.splitlines())))
    where = " ".join(shlex.quote(f"{name}={value}") for name, value in best.coordinates.items() if value is not None)
    told = f"ollama-sweep explain {where or 0} --sweep {shlex.quote(row.name)}"
    return [*found, Repeat("Everything that is known of it:", (told,))]
