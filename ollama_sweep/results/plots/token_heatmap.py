"""Latency, generation time or cost by prompt tokens and output tokens, in bins; a panel for each model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ollama_sweep.core import metrics
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.outcome import AnswerRow
from ollama_sweep.core.summary import answered
from ollama_sweep.core.units import format_rate
from ollama_sweep.results.answers import Region, bin_edges, by_model, cost, regions
from ollama_sweep.results.plots import ANSWERS, PlotOptions
from ollama_sweep.results.plots.shared import figures
from ollama_sweep.results.prices import PriceTable

TAKES = ANSWERS
USES = frozenset({"metric", "prices"})
FOLDER = "heatmaps"
METRICS = {"latency": "latency", "eval_duration": "generation time", "cost": "cost"}


@dataclass(frozen=True)
class Panel:
    """One model's map: the bins in which it has answers, and how many answers these are."""

    name: str
    regions: tuple[Region, ...]
    count: int


@dataclass(frozen=True)
class TokenHeatmap:
    """Everything a picture says. All panels have the same bins and the same colours; `unit` is that of the values."""

    metric: str
    unit: str
    x_edges: tuple[int, ...]
    y_edges: tuple[int, ...]
    panels: tuple[Panel, ...]
    facts: tuple[str, ...]
    notice: str = ""

    @property
    def measure(self) -> str:
        """What is drawn, in words."""
        return METRICS[self.metric]

    @property
    def title(self) -> str:
        unit = f" in {self.unit}" if self.unit else ""
        return f"Median {self.measure}{unit} by prompt and output tokens (lower is better)"

    @property
    def extent(self) -> tuple[float, float]:
        """The smallest and the largest median of all panels."""
        medians = [region.median for panel in self.panels for region in panel.regions]
        return (min(medians), max(medians)) if medians else (0.0, 0.0)

    def text(self, value: float) -> str:
        """A value as it stands in a bin."""
        return f"{value:.3g}" if self.metric == "cost" else format_rate(value)


def collect(rows: Sequence[AnswerRow], options: PlotOptions) -> list[TokenHeatmap]:
    """What the picture shows. Failed answers are counted and in no bin.

    Raises ConfigError for an unknown metric, and for costs without prices.
    """
    metric = _checked(rows, options)
    value = _value_of(metric, options.prices)
    good = answered(rows)
    placed = [
        row
        for row in good
        if row.prompt_eval_count is not None and row.eval_count is not None and value(row) is not None
    ]
    x_edges = bin_edges([row.prompt_eval_count or 0 for row in placed]) if placed else (0, 1)
    y_edges = bin_edges([row.eval_count or 0 for row in placed]) if placed else (0, 1)
    known = {id(row) for row in placed}
    panels = []
    for name, members in by_model(rows).items():
        own = [row for row in members if id(row) in known]
        panels.append(Panel(name, tuple(regions(own, value, x_edges, y_edges)), len(own)))
    return [
        TokenHeatmap(
            metric=metric,
            unit=(options.prices.currency if options.prices else "")
            if metric == "cost"
            else metrics.metric(f"{metric}_s").unit,
            x_edges=x_edges,
            y_edges=y_edges,
            panels=tuple(panels),
            facts=_facts(rows, len(good), len(placed), metric, options),
            notice="" if placed else _notice(len(rows), len(good), metric),
        )
    ]


def draw(data: TokenHeatmap, axes: Any) -> None:
    """Draw all panels into matplotlib's axes."""
    from ollama_sweep.results.plots.shared import token_heatmap_drawing

    with figures.style():
        token_heatmap_drawing.draw(data, axes)


def save_all(rows: Sequence[AnswerRow], options: PlotOptions, folder: Path, *, suffix: str = ".png") -> list[Path]:
    """Write `heatmaps/METRIC_heatmap` of a folder; its path. Raises ConfigError, StorageError."""
    from ollama_sweep.results.plots.shared import token_heatmap_drawing

    (data,) = collect(rows, options)
    path = folder / FOLDER / f"{data.metric}_heatmap{suffix}"
    figures.write(path, lambda: token_heatmap_drawing.make_figure(data))
    return [path]


def _checked(rows: Sequence[AnswerRow], options: PlotOptions) -> str:
    metric = (options.metric or "latency").removesuffix("_s")
    if metric not in METRICS:
        raise ConfigError(
            f"unknown metric {metric}. Known: {', '.join(METRICS)}.{nearest(metric, METRICS)}", "--metric"
        )
    if metric != "cost":
        return metric
    if options.prices is None:
        raise ConfigError("cost needs prices: give --cost-per-token PRICE or --prices FILE", "--metric")
    models = sorted({row.model for row in rows})
    if models and not any(options.prices.price_of(model) for model in models):
        table = ", ".join(options.prices.models)
        raise ConfigError(f"no price for {', '.join(models)}; the table has {table}, or give a default", "--prices")
    return metric


def _value_of(metric: str, prices: PriceTable | None) -> Callable[[AnswerRow], float | None]:
    if metric == "cost":
        return lambda row: cost(row, prices or PriceTable())
    return (lambda row: row.latency_s) if metric == "latency" else (lambda row: row.eval_duration_s)


def _facts(rows: Sequence[AnswerRow], good: int, placed: int, metric: str, options: PlotOptions) -> tuple[str, ...]:
    without = {"cost": "counts or a price", "eval_duration": "counts or a generation time"}.get(metric, "counts")
    tasks = [task for task in dict.fromkeys(row.task for row in rows) if task]
    parts = (
        f"{placed} answer{'' if placed == 1 else 's'}",
        f"{len(rows) - good} failed, not drawn" if len(rows) > good else "",
        f"{good - placed} without {without}, not drawn" if good > placed else "",
        f"sweep {options.sweep}" if options.sweep else "",
        f"task{'s' if len(tasks) > 1 else ''} {', '.join(tasks)}" if tasks else "",
        options.machine,
    )
    return tuple(part for part in parts if part)


def _notice(rows: int, good: int, metric: str) -> str:
    if not rows:
        return "no answers yet"
    return f"no answer has token counts and a {METRICS[metric]}" if good else f"no answers: {rows} failed"
