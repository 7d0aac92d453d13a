"""What `compare` found as a map: B over A in every cell, red where B is worse, blue where it is better.

It draws a comparison, not a sweep: `ollama-sweep compare A B --picture FILE`. `collect` is pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import CellResult, Status
from ollama_sweep.results.compare import telling
from ollama_sweep.results.compare.comparing import ComparedCell, Part
from ollama_sweep.results.compare.rule import Verdict
from ollama_sweep.results.grids import Grid, Place, X, Y, file_suffixes, in_words, make_grids
from ollama_sweep.results.plots import PlotOptions
from ollama_sweep.results.plots.shared import figures, heatmap_size
from ollama_sweep.results.plots.shared.scale import Scale, scale_of

TAKES = "comparison"
USES: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RatioMark:
    """A cell. `better` is the logarithm of how much better B is, None without a ratio; `word` is its verdict."""

    word: str
    label: str
    better: float | None
    verdict: Verdict | None


@dataclass(frozen=True)
class RatioData:
    """One map: cells by (num_ctx, num_batch).

    `words` names worse and better as they are said of this metric; `better` is 1 where a larger ratio is, else -1.
    """

    title: str
    facts: tuple[str, ...]
    columns: tuple[Scalar, ...]
    rows: tuple[Scalar, ...]
    cells: dict[Place, RatioMark]
    words: tuple[str, str]
    better: int = 1
    x: str = X
    y: str = Y

    @property
    def size_inches(self) -> tuple[float, float]:
        """The figure's size, as that of a heatmap."""
        return heatmap_size.inches(len(self.columns), len(self.rows))

    @property
    def reach(self) -> float:
        """How far the colours go to either side, as a logarithm: at least 10 %, and not as far as one odd cell."""
        return max(math.log(1.1), self._scale.high if self._sizes else 0.0)

    @property
    def beyond(self) -> int:
        """How many cells changed by more than the colours say."""
        return sum(size > self.reach for size in self._sizes)

    @property
    def _sizes(self) -> list[float]:
        return sorted(abs(mark.better) for mark in self.cells.values() if mark.better is not None)

    @property
    def _scale(self) -> Scale:
        return scale_of(self._sizes)

    def counts(self) -> dict[str, int]:
        """How many cells each word is said of, in the order of their meaning."""
        found: dict[str, int] = {}
        for mark in sorted(self.cells.values(), key=lambda mark: _rank(mark.verdict)):
            found[mark.word] = found.get(mark.word, 0) + 1
        return found


def collect(rows: Sequence[Part], options: PlotOptions) -> list[RatioData]:
    """What the maps show, one for each task and combination of the dimensions other than num_ctx and num_batch."""
    return [_collect(part, grid, options) for part in rows for grid in _grids(part)]


def draw(data: RatioData, axes: Any) -> None:
    """Draw one map into matplotlib's axes; titles and legend stand around them."""
    from ollama_sweep.results.plots.shared import ratio_drawing

    with figures.style():
        ratio_drawing.draw(data, axes)


def save_all(rows: Sequence[Part], options: PlotOptions, folder: Path, *, suffix: str = ".png") -> list[Path]:
    """Write all maps into a folder as ratio…; their paths. Raises ConfigError, StorageError."""
    return save_as(rows, options, folder / f"ratio{suffix}")


def save_as(rows: Sequence[Part], options: PlotOptions, path: Path) -> list[Path]:
    """The same to a file; where there are several maps what tells them apart stands behind its name."""
    from ollama_sweep.results.plots.shared import ratio_drawing

    grids = [grid for part in rows for grid in _grids(part)]
    names = file_suffixes(grids) if len(grids) > 1 else [""]
    paths = [path.with_name(f"{path.stem}{name}{path.suffix}") for name in names]
    for data, file in zip(collect(rows, options), paths, strict=True):
        figures.write(file, lambda data=data: ratio_drawing.make_figure(data), heatmap_size.BEST_DPI)  # type: ignore[misc]
    return paths


def _grids(part: Part) -> list[Grid]:
    """The cells as a heatmap lays them out; the key of each is its number in the part."""
    results = [
        CellResult(str(number), cell.coordinates, cell.models[0], cell.task, Status.OK, row={"task": cell.task})
        for number, cell in enumerate(part.cells)
    ]
    found = make_grids(results)
    return [
        Grid((*grid.combination, ("task", part.task)), grid.model, grid.columns, grid.rows, grid.cells)
        for grid in found
    ]


def _collect(part: Part, grid: Grid, options: PlotOptions) -> RatioData:
    cells = {place: _mark(part, part.cells[int(result.key)]) for place, result in grid.cells.items()}
    worse, better = part.word(Verdict.SLOWER), part.word(Verdict.FASTER)
    words = f"{part.metric.words[:1].upper()}{part.metric.words[1:]}"
    return RatioData(
        title=f"{words}, B over A: {options.sweep}" if options.sweep else f"{words}, B over A",
        facts=tuple(_facts(part, grid.combination, grid.model, options)),
        columns=grid.columns, rows=grid.rows, cells=cells, words=(worse, better),
        better=part.metric.better,
    )  # fmt: skip


def _facts(part: Part, combination: Options, model: str, options: PlotOptions) -> Iterator[str]:
    if part.over_all and part.over_all.ratio is not None:
        yield f"over all {telling.change(part.over_all.ratio)}: {telling.verdict_words(part, part.over_all)}"
    if not part.needs_loads or part.noise.is_known:
        yield "framed: changed beyond noise"
    else:
        yield "loads not known, so no change can be told from noise"
    yield model_label(model)
    if others := in_words(pair for pair in combination if pair[0] != "model"):
        yield others
    if options.machine:
        yield options.machine


def _mark(part: Part, cell: ComparedCell) -> RatioMark:
    if cell.left_out or cell.judged is None:
        return RatioMark(f"left out: {cell.left_out}", cell.left_out, None, None)
    judged, ratio = cell.judged, cell.judged.ratio
    better = math.log(ratio) * part.metric.better if ratio else None
    word = part.word(judged.verdict)
    return RatioMark(word, telling.change(ratio) if ratio else word, better, judged.verdict)


def _rank(verdict: Verdict | None) -> int:
    return len(Verdict) if verdict is None else list(Verdict).index(verdict)
