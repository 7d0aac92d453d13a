"""What a heatmap says: its cells, marks, titles and notice, over any two dimensions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from ollama_sweep.core.cell import MAIN_TASK, PROMPT_TOKENS, model_label
from ollama_sweep.core.metrics import Metric, default_metric, find_metric, metric
from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import CellResult, Flag, Status, failure_label
from ollama_sweep.core.stats import best_set, median, range_and_runs, value_of
from ollama_sweep.results.grids import Grid, Place, Progress, X, Y, by_work, flags_of, in_words, make_grids, progress
from ollama_sweep.results.likely.predicted import of_scout, predicted
from ollama_sweep.results.plots import PlotOptions
from ollama_sweep.results.plots.shared import heatmap_size
from ollama_sweep.results.plots.shared.scale import Scale, scale_of

SMOOTH = "predicted, assuming a smooth surface"


class Kind(StrEnum):
    """What a cell of the picture is."""

    MEASURED = "measured"
    FAILED = "failed"
    SKIPPED = "skipped"
    PENDING = "pending"
    RUNNING = "running"
    PREDICTED = "predicted"


@dataclass(frozen=True)
class CellMark:
    """One cell of the picture. `label` is what stands in it, `detail` what stands below where there is room.

    `sure` is the detail with how sure it is, for the legend.

    `predicted` is what a cell that was not measured is likely to be; its value is None.

    A measured cell without a value was measured but has no believed number for this metric.
    """

    kind: Kind
    label: str = ""
    value: float | None = None
    detail: str = ""
    sure: str = ""
    flags: frozenset[Flag] = frozenset()
    best: bool = False
    tied: bool = False
    predicted: float | None = None


@dataclass(frozen=True)
class HeatmapData:
    """Everything a picture says. `cells` maps (x, y); places without one are not part of the sweep.

    `columns` are the values of the dimension `x`, `rows` those of `y`, both ascending, rows drawn downwards.
    `model` and `task` are those of all cells, "" where they differ.
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
    x: str = X
    y: str = Y
    task: str = MAIN_TASK
    spread: str = ""
    lighter: str = SMOOTH
    """Where the values of lighter cells are from."""

    @property
    def size_inches(self) -> tuple[float, float]:
        """The figure's size: a fixed rule that people rely on."""
        return heatmap_size.inches(len(self.columns), len(self.rows))

    @cached_property
    def scale(self) -> Scale:
        """How far the colours go."""
        return scale_of(
            sorted(mark.value for mark in self.cells.values() if mark.value is not None), self.metric.better
        )

    @property
    def title(self) -> str:
        unit = f" in {self.metric.unit}" if self.metric.unit and not self.metric.is_bytes else ""
        direction = f" ({self.metric.direction})" if self.metric.direction else ""
        what = f"{self.metric.words[:1].upper()}{self.metric.words[1:]}{unit}{direction}"
        return f"{model_label(self.model)}: {what}" if self.model else what

    @property
    def facts(self) -> tuple[str, ...]:
        """The parts of the second title line, the most important first."""
        asked = "prompt of" if self.task == MAIN_TASK else "prompts of about"
        prompt = f"{asked} {self.prompt_tokens} tokens" if self.prompt_tokens else ""
        is_told = self.task in ("", MAIN_TASK) or "task" in dict(self.combination)
        task = "" if is_told else f"task {self.task}"
        sweep = f"sweep {self.sweep}" if self.sweep and "sweep" not in dict(self.combination) else ""
        others = in_words(pair for pair in self.combination if pair != ("model", self.model))
        prompt = "" if PROMPT_TOKENS in (self.x, self.y, *dict(self.combination)) else prompt
        parts = (self.progress.text(), sweep, task, others, prompt, self.spread, self.machine)
        return tuple(part for part in parts if part)

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


def collect(results: Sequence[CellResult], options: PlotOptions, x: str = X, y: str = Y) -> list[HeatmapData]:
    """What the pictures show, one per combination of the dimensions other than `x` and `y`.

    Without a metric in the options every picture has the one its task is about. Raises ConfigError for a metric that
    the results do not have.
    """
    asked = find_metric(options.metric, results) if options.metric is not None else None
    grids = make_grids(results, x, y) or [Grid((), "", (), (), {})]
    return [collect_one(grid, asked or own_metric(grid), options, x, y) for grid in grids]


def own_metric(grid: Grid) -> Metric:
    """The metric that the task of a grid's cells is about."""
    return metric(default_metric(grid.cells.values()))


def collect_one(grid: Grid, metric: Metric, options: PlotOptions, x: str = X, y: str = Y) -> HeatmapData:
    """What the picture of one grid shows."""
    results = list(grid.cells.values())
    models, tasks = {result.model for result in results}, {result.task for result in results} or {MAIN_TASK}
    is_comparable = metric.better and len(tasks) == 1
    found = [best_set(part, metric.name, metric.better > 0) for part in by_work(results).values() if is_comparable]
    best_keys = {id(best) for best, _ in found}
    tied_keys = {id(result) for _, tied in found for result in tied}
    prompt_tokens = _prompt_tokens(results, options) if len(tasks) == 1 else None
    marks = {
        place: _mark(result, metric, prompt_tokens, best=id(result) in best_keys, tied=id(result) in tied_keys)
        for place, result in grid.cells.items()
    }
    if options.predicts and (x, y) == (X, Y):
        marks |= _predictions(grid, metric, options)
    return HeatmapData(
        columns=grid.columns,
        rows=grid.rows,
        cells=marks,
        metric=metric,
        model=grid.model if len(models) == 1 else "",
        sweep=options.sweep,
        machine=options.machine,
        spread=options.spreads[metric.name].words if metric.name in options.spreads else "",
        combination=grid.combination,
        progress=progress(results),
        prompt_tokens=prompt_tokens,
        x=x,
        y=y,
        task=next(iter(tasks)) if len(tasks) == 1 else "",
        lighter=SMOOTH if options.scouted is None else f"scouted by context swap, times {options.scouted.factor_words}",
    )


def _predictions(grid: Grid, metric: Metric, options: PlotOptions) -> dict[Place, CellMark]:
    """What pending cells are likely to be: by the scout of the sweep, else by a smooth surface through the others."""
    if options.scouted is not None:
        found = of_scout(grid, metric.name, options.scouted)
    else:
        found = predicted(grid, metric.name, options.spreads.get(metric.name))
    return {
        place: CellMark(Kind.PREDICTED, metric.text(one.rate), predicted=one.rate,
                        detail=f"{metric.text(one.low)}–{metric.text(one.high)}")
        for place, one in found.items()
    }  # fmt: skip


def _mark(result: CellResult, metric: Metric, prompt_tokens: int | None, *, best: bool, tied: bool) -> CellMark:
    kind = kind_of(result.status)
    if kind in (Kind.FAILED, Kind.SKIPPED):
        return CellMark(kind, failure_label(result.status, result.reason))
    if kind is not Kind.MEASURED:
        return CellMark(kind, "running" if kind is Kind.RUNNING else "")
    flags = flags_of(result, prompt_tokens)
    value = value_of(result, metric.name)
    if value is None:
        return CellMark(kind, "cached" if Flag.CACHED in flags else "no value", flags=flags)
    detail, sure = (range_and_runs(result, metric, sure=said) for said in (False, True))
    return CellMark(kind, metric.text(value), value, detail, sure, flags, best, tied)


def mark_of(result: CellResult, data: HeatmapData) -> CellMark:
    """The mark of a cell that has changed, in a picture that is there: whether it is the best is not looked at."""
    return _mark(result, data.metric, data.prompt_tokens, best=False, tied=False)


def kind_of(status: Status) -> Kind:
    """What a cell with this status is in the picture."""
    if status is Status.OK:
        return Kind.MEASURED
    if status.is_failure:
        return Kind.FAILED
    return {Status.SKIPPED: Kind.SKIPPED, Status.STARTED: Kind.RUNNING}.get(status, Kind.PENDING)


def _prompt_tokens(results: Sequence[CellResult], options: PlotOptions) -> int | None:
    """The length of the sweep's own prompt; of the questions of another task their median."""
    if options.prompt_tokens and all(result.task == MAIN_TASK for result in results):
        return options.prompt_tokens
    counts = [value for result in results if (value := value_of(result, "prompt_eval_count"))]
    return round(median(counts)) if counts else None
