"""Pictures. A plot draws what it collected and looks nothing up.

A file in this folder is a plot and its name is the file's name, apart from `shared` (what several plots use).

A plot is a pure `collect(rows, options)` that says everything the picture will say, and a `draw(data, axes)`.
Its rows are the cells of sweeps, or what its file says with `TAKES`: kept answers, control loads, single cells. What
takes anything else is drawn by the command that has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.machine.plugins import Plugins
from ollama_sweep.results.likely.scouted import ScoutedMap
from ollama_sweep.results.prices import PriceTable

_PLUGINS = Plugins("plot", __name__, __path__)
CELLS, ANSWERS, CONTROLS, CELL = "cells", "answers", "controls", "cell"
"""What a plot is made of: cells of sweeps, kept answers, loads of control cells, single cells with all they have."""
OPTIONS = frozenset({"metric", "x", "y", "prices"})
"""What a person may choose of PlotOptions."""


@dataclass(frozen=True)
class PlotOptions:
    """What a picture says beside the results. `prompt_tokens` None: what the results say themselves.

    `metric` None: the one that the plot, or the task of a grid, is about. `x` and `y` are dimensions; "" is what the
    plot takes by itself. `prices` are needed for costs; `spreads` are those of the sweep's runs and loads, by metric.
    `predicts`: pending cells of a map are drawn as what they are likely to be, by `scouted` where another engine has
    scouted them.
    """

    metric: str | None = None
    sweep: str = ""
    machine: str = ""
    spreads: Mapping[str, Spreads] = field(default_factory=dict)
    prompt_tokens: int | None = None
    x: str = ""
    y: str = ""
    prices: PriceTable | None = None
    predicts: bool = False
    scouted: ScoutedMap | None = None


class Plot(Protocol):
    """The shape of a plot's file. It gets cells, or answers where it has `TAKES = ANSWERS`."""

    def collect(self, rows: Any, options: PlotOptions) -> Sequence[Any]:
        """What the pictures will show, one item a picture. Raises ConfigError."""

    def draw(self, data: Any, axes: Any) -> None:
        """One picture into matplotlib's axes."""

    def save_all(self, rows: Any, options: PlotOptions, folder: Path, *, suffix: str = ".png") -> list[Path]:
        """Write all pictures, each whole or not at all; their paths."""


def known() -> tuple[str, ...]:
    """Names of all plots: the files here, and those other packages add by entry points."""
    return tuple(sorted(_PLUGINS.names()))


def load(name: str) -> Plot:
    """Import the plot's file, only now. Raises ConfigError for an unknown name."""
    return cast("Plot", _PLUGINS.module(name))


def takes(plot: Plot) -> str:
    """What a plot is made of: CELLS, ANSWERS, CONTROLS, CELL, or what only its command has."""
    return str(getattr(plot, "TAKES", CELLS))


def uses(plot: Plot) -> frozenset[str]:
    """Which of OPTIONS a plot looks at, its `USES`; all where it does not say."""
    return frozenset(getattr(plot, "USES", OPTIONS))


def about(plot: Plot) -> str:
    """The first line of a plot's description."""
    return (plot.__doc__ or "").strip().partition("\n")[0]
