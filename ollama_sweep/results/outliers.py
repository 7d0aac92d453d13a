"""Runs that lie off: named, never left out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import CellResult
from ollama_sweep.core.stats import median, outliers
from ollama_sweep.core.units import format_rate
from ollama_sweep.results.best import in_coordinates

MOST_NAMED = 5


@dataclass(frozen=True)
class Outlying:
    """One run that is far from its cell's median, by the noise of all cells. Rates in tokens/s; runs count from 1."""

    cell: CellResult
    run: int
    prompt_eval_rate: float
    median: float

    def as_dict(self) -> dict[str, Scalar]:
        """For machines."""
        return {
            **self.cell.coordinates,
            "model": self.cell.model,
            "run": self.run,
            "prompt_eval_rate": self.prompt_eval_rate,
            "median": self.median,
        }

    def text(self) -> str:
        """`smol, num_ctx 2048 with num_batch 64, run 3: 12.1 tokens/s beside a median of 45.2`."""
        place = f"{model_label(self.cell.model)}, {in_coordinates(self.cell)}, run {self.run}"
        return f"{place}: {format_rate(self.prompt_eval_rate)} tokens/s beside a median of {format_rate(self.median)}"


def outlying_runs(results: Sequence[CellResult], rates: Mapping[str, Sequence[float]]) -> list[Outlying]:
    """The runs that lie off, in the order of the results; `rates` has the believed runs by the cell's key."""
    off = outliers(rates)
    return [
        Outlying(cell, number, rates[cell.key][number - 1], median(rates[cell.key]))
        for cell in {result.key: result for result in results}.values()
        for number, is_off in enumerate(off.get(cell.key, ()), 1)
        if is_off
    ]


def outlying_note(found: Sequence[Outlying]) -> list[str]:
    """One note, or none; the first few are named."""
    if not found:
        return []
    named = "; ".join(one.text() for one in found[:MOST_NAMED])
    more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    runs = "1 run lies" if len(found) == 1 else f"{len(found)} runs lie"
    return [f"{runs} off and stayed in: {named}{more}"]
