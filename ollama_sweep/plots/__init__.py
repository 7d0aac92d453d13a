"""The registry of plots: a file in this folder is a plot, its name is the file's name.

A plot is a pure `collect(results, options)` that says everything the picture will say, and a `draw(data, axes)`.
Files that begin with `_` are helpers.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, cast

from ollama_sweep.cells import CellResult
from ollama_sweep.errors import ConfigError, nearest
from ollama_sweep.metrics import DEFAULT_METRIC

ENTRY_POINTS = "ollama_sweep.plots"


@dataclass(frozen=True)
class PlotOptions:
    """What a picture says beside the results. `prompt_tokens` None: what the results say themselves."""

    metric: str = DEFAULT_METRIC
    sweep: str = ""
    machine: str = ""
    prompt_tokens: int | None = None


class Plot(Protocol):
    """The shape of a plot's file."""

    def collect(self, results: Sequence[CellResult], options: PlotOptions) -> Sequence[Any]:
        """What the pictures will show, one item a picture. Raises ConfigError."""

    def draw(self, data: Any, axes: Any) -> None:
        """One picture into matplotlib's axes."""

    def save_all(
        self, results: Sequence[CellResult], options: PlotOptions, folder: Path, *, suffix: str = ".png"
    ) -> list[Path]:
        """Write all pictures, each whole or not at all; their paths."""


def known() -> tuple[str, ...]:
    """Names of all plots: the files here, and those other packages add by entry points."""
    own = {module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}
    return tuple(sorted(own | {point.name for point in entry_points(group=ENTRY_POINTS)}))


def load(name: str) -> Plot:
    """Import the plot's file, only now. Raises ConfigError for an unknown name."""
    if name not in known():
        raise ConfigError(f"unknown plot {name}. Known: {', '.join(known())}.{nearest(name, known())}", "plot")
    added = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    return cast("Plot", added[name].load() if name in added else importlib.import_module(f"{__name__}.{name}"))
