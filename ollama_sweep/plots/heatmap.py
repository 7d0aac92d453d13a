"""The map of a sweep: num_ctx across, num_batch down, the metric in every cell, failures as results.

`collect` is pure and says everything the picture will say; `draw` only draws it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ollama_sweep.cells import CellResult, Flag, Options, Scalar, Status, failure_label, model_label
from ollama_sweep.errors import ConfigError
from ollama_sweep.files import write_whole
from ollama_sweep.grids import Grid, Place, Progress, file_suffixes, flags_of, in_words, make_grids, progress
from ollama_sweep.metrics import DEFAULT_METRIC, Metric, find_metric, range_and_runs
from ollama_sweep.plots import PlotOptions
from ollama_sweep.stats import best_set, median, value_of

SUFFIXES = (".png", ".svg", ".pdf")


class Kind(StrEnum):
    """What a cell of the picture is."""

    MEASURED = "measured"
    FAILED = "failed"
    SKIPPED = "skipped"
    PENDING = "pending"
    RUNNING = "running"


@dataclass(frozen=True)
class CellMark:
    """One cell of the picture. `label` is what stands in it, `detail` what stands below where there is room.

    A measured cell without a value was measured but has no believed number for this metric.
    """

    kind: Kind
    label: str = ""
    value: float | None = None
    detail: str = ""
    flags: frozenset[Flag] = frozenset()
    best: bool = False
    tied: bool = False


@dataclass(frozen=True)
class HeatmapData:
    """Everything a picture says. `cells` maps (num_ctx, num_batch); places without one are not part of the sweep.

    `columns` are the num_ctx values, `rows` the num_batch values, both ascending, rows drawn downwards.
    """

    columns: tuple[Scalar, ...]
    rows: tuple[Scalar, ...]
    cells: Mapping[Place, CellMark]
    metric: Metric
    model: str
    sweep: str
    machine: str
    combination: Options
    progress: Progress
    prompt_tokens: int | None

    @property
    def size_inches(self) -> tuple[float, float]:
        """The figure's size: a fixed rule that people rely on."""
        return max(20.0, len(self.columns) * 0.8), max(6.0, len(self.rows) * 0.4)

    @property
    def title(self) -> str:
        unit = f" in {self.metric.unit}" if self.metric.unit and not self.metric.is_bytes else ""
        direction = f" ({self.metric.direction})" if self.metric.direction else ""
        what = f"{self.metric.words[:1].upper()}{self.metric.words[1:]}{unit}{direction}"
        return f"{model_label(self.model)}: {what}" if self.model else what

    @property
    def facts(self) -> tuple[str, ...]:
        """The parts of the second title line, the most important first."""
        prompt = f"prompt of {self.prompt_tokens} tokens" if self.prompt_tokens else ""
        sweep = f"sweep {self.sweep}" if self.sweep else ""
        others = in_words(pair for pair in self.combination if pair != ("model", self.model))
        return tuple(part for part in (self.progress.text(), sweep, others, prompt, self.machine) if part)

    @property
    def notice(self) -> str:
        """What is written across the picture while the cells themselves say nothing."""
        if any(mark.value is not None or mark.kind is Kind.FAILED for mark in self.cells.values()):
            return ""
        if self.progress.measured:
            return f"no measured cell has a {self.metric.name}"
        return "" if self.cells and self.progress.skipped == self.progress.total else "no measured cells yet"

    def marked(self, kind: Kind) -> list[CellMark]:
        """The cells of one kind."""
        return [mark for mark in self.cells.values() if mark.kind is kind]


def collect(results: Sequence[CellResult], options: PlotOptions) -> list[HeatmapData]:
    """What the pictures show, one per combination of the dimensions other than num_ctx and num_batch.

    Raises ConfigError for a metric that the results do not have.
    """
    metric = find_metric(options.metric, results)
    grids = make_grids(results) or [Grid((), "", (), (), {})]
    return [_collect_one(grid, metric, options) for grid in grids]


def draw(data: HeatmapData, axes: Any) -> None:
    """Draw one map into matplotlib's axes; titles and legend stand around them."""
    from ollama_sweep.plots import _heatmap_drawing

    with _heatmap_drawing.style():
        _heatmap_drawing.draw(data, axes)


def render(data: HeatmapData, path: Path, dpi: float | None = None) -> None:
    """Write one picture, whole or not at all; png, svg or pdf by the suffix. Raises ConfigError, StorageError."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(
            f"pictures are written as {', '.join(SUFFIXES)}, not {suffix or 'without a suffix'}", str(path)
        )
    write_whole(path, picture(data, suffix.removeprefix("."), dpi))


def picture(data: HeatmapData, file_format: str = "png", dpi: float | None = None) -> bytes:
    """The bytes of one picture."""
    from ollama_sweep.plots import _heatmap_drawing

    stream = io.BytesIO()
    with _heatmap_drawing.style():
        figure = _heatmap_drawing.make_figure(data)
        stamp = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(file_format, {})
        figure.savefig(stream, format=file_format, dpi=dpi or _heatmap_drawing.sensible_dpi(data), metadata=stamp)
    return stream.getvalue()


def save_all(
    results: Sequence[CellResult],
    options: PlotOptions,
    folder: Path,
    *,
    suffix: str = ".png",
    dpi: float | None = None,
) -> list[Path]:
    """Write all pictures of a sweep into a folder; their paths. Raises ConfigError, StorageError."""
    pictures = collect(results, options)
    stem = "heatmap_highlighted" if options.metric == DEFAULT_METRIC else f"heatmap_{options.metric}"
    names = file_suffixes(make_grids(results)) or [""]
    paths = [folder / f"{stem}{name}{suffix}" for name in names]
    for data, path in zip(pictures, paths, strict=True):
        render(data, path, dpi)
    return paths


def _collect_one(grid: Grid, metric: Metric, options: PlotOptions) -> HeatmapData:
    results = list(grid.cells.values())
    best, tied = best_set(results, metric.name, metric.better >= 0) if metric.better else (None, ())
    tied_keys = {id(result) for result in tied}
    prompt_tokens = options.prompt_tokens or _prompt_tokens(results)
    marks = {
        place: _mark(result, metric, prompt_tokens, best=result is best, tied=id(result) in tied_keys)
        for place, result in grid.cells.items()
    }
    return HeatmapData(
        columns=grid.columns,
        rows=grid.rows,
        cells=marks,
        metric=metric,
        model=grid.model,
        sweep=options.sweep,
        machine=options.machine,
        combination=grid.combination,
        progress=progress(results),
        prompt_tokens=prompt_tokens,
    )


def _mark(result: CellResult, metric: Metric, prompt_tokens: int | None, *, best: bool, tied: bool) -> CellMark:
    kind = _kind(result.status)
    if kind in (Kind.FAILED, Kind.SKIPPED):
        return CellMark(kind, failure_label(result.status, result.reason))
    if kind is not Kind.MEASURED:
        return CellMark(kind, "running" if kind is Kind.RUNNING else "")
    flags = flags_of(result, prompt_tokens)
    value = value_of(result, metric.name)
    if value is None:
        return CellMark(kind, "cached" if Flag.CACHED in flags else "no value", flags=flags)
    return CellMark(kind, metric.text(value), value, range_and_runs(result, metric), flags, best, tied)


def _kind(status: Status) -> Kind:
    if status is Status.OK:
        return Kind.MEASURED
    if status.is_failure:
        return Kind.FAILED
    return {Status.SKIPPED: Kind.SKIPPED, Status.STARTED: Kind.RUNNING}.get(status, Kind.PENDING)


def _prompt_tokens(results: Sequence[CellResult]) -> int | None:
    counts = [value for result in results if (value := value_of(result, "prompt_eval_count"))]
    return round(median(counts)) if counts else None
