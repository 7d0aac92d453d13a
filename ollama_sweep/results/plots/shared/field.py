"""What a heatmap of very many cells says: the same as a small one, with an array in place of a mark for each cell.

`of_marks` makes it of a small one's data; `large.columns` makes it of rows that are never all in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.outcome import FLAG_MEANINGS, Flag
from ollama_sweep.results.plots.shared.heatmap_data import HeatmapData, Kind
from ollama_sweep.results.plots.shared.heatmap_legend import Entry, Look, beyond
from ollama_sweep.results.plots.shared.scale import Scale, scale_of

ABSENT = 0
KINDS = (None, Kind.SKIPPED, Kind.PENDING, Kind.RUNNING, Kind.FAILED, Kind.MEASURED)
"""What the numbers in `kinds` stand for; where several cells share a pixel, the last of theirs is shown."""
CODES: Mapping[Kind, int] = {kind: number for number, kind in enumerate(KINDS) if kind is not None}
FLAGS = tuple(Flag)
FRONTIER = "frontier"


@dataclass
class Field:
    """The cells as arrays of rows × columns. `about` says everything that is not of a single cell, and has no cells.

    `values` are NaN where a cell has no number, `flags` has a bit for each of FLAGS. `labels` counts the words for
    cells without a number. `best` is (row, column), `best_text` how it stands in the legend.
    """

    about: HeatmapData
    kinds: Any
    values: Any
    flags: Any
    tied: Any
    best: tuple[int, int] | None = None
    best_text: str = ""
    labels: Mapping[Kind, Counter[str]] = field(default_factory=dict)

    @cached_property
    def scale(self) -> Scale:
        """How far the colours go."""
        ordered: Any = np.sort(self.values[np.isfinite(self.values)])
        return scale_of(ordered, self.about.metric.better)

    @property
    def notice(self) -> str:
        """As that of the small picture."""
        if (self.kinds == CODES[Kind.FAILED]).any() or np.isfinite(self.values).any():
            return ""
        progress = self.about.progress
        if progress.measured:
            return f"no measured cell has a {self.about.metric.name}"
        return "" if progress.skipped == progress.total else "no measured cells yet"

    def has(self, flag: Flag) -> Any:
        """Where a measured cell carries this flag."""
        return (self.flags & np.uint16(1 << FLAGS.index(flag))) != 0

    @property
    def failed(self) -> Any:
        """Where a cell failed."""
        return self.kinds == CODES[Kind.FAILED]


def of_marks(data: HeatmapData) -> Field:
    """The field of a picture whose cells are all there."""
    shape = len(data.rows), len(data.columns)
    made = Field(
        about=data,
        kinds=np.zeros(shape, np.uint8),
        values=np.full(shape, np.nan),
        flags=np.zeros(shape, np.uint16),
        tied=np.zeros(shape, bool),
        labels={Kind.FAILED: Counter(), Kind.SKIPPED: Counter()},
    )
    across = {value: number for number, value in enumerate(data.columns)}
    down = {value: number for number, value in enumerate(data.rows)}
    has_one = sum(mark.best for mark in data.cells.values()) == 1
    for (x, y), mark in data.cells.items():
        place = down[y], across[x]
        made.kinds[place] = CODES[mark.kind]
        made.tied[place] = mark.tied
        made.flags[place] = bits(mark.flags)
        if mark.value is not None:
            made.values[place] = mark.value
        if mark.kind in made.labels:
            made.labels[mark.kind][mark.label] += 1
        if has_one and mark.best and mark.value is not None:
            made.best, made.best_text = place, best_text(data, place, mark.value, mark.sure)
    return made


def bits(flags: frozenset[Flag]) -> int:
    """Flags as a number with a bit for each."""
    return sum(1 << number for number, flag in enumerate(FLAGS) if flag in flags)


def best_text(data: HeatmapData, place: tuple[int, int], value: float, sure: str) -> str:
    """The best cell as the legend names it."""
    places = ((data.x, data.columns[place[1]]), (data.y, data.rows[place[0]]))
    where = ", ".join(f"{name} {model_label(str(value))}" for name, value in places if value is not None)
    return f"best: {where}: {data.metric.with_unit(value)}{f' ({sure})' if sure else ''}"


def entries(made: Field) -> list[Entry]:
    """The legend, the most important first; flags that no pattern shows are counted."""
    of = beyond(made.scale, made.about.metric)
    return [*_best(made), *of, *_without_number(made), *_flags(made), *_not_there(made)]


def _best(made: Field) -> Iterator[Entry]:
    if made.best is not None:
        yield Entry(Look.BEST, made.best_text)
    tied = int(made.tied.sum())
    if tied:
        yield Entry(Look.TIED, f"tied with the best: cannot be told from it ({tied})")


def _without_number(made: Field) -> Iterator[Entry]:
    for kind, look in ((Kind.FAILED, Look.FAILED), (Kind.SKIPPED, Look.SKIPPED)):
        labels = made.labels.get(kind)
        if labels:
            yield Entry(look, f"{look}: {', '.join(f'{label} ({count})' for label, count in labels.most_common())}")
    if made.failed.any() and (made.kinds == CODES[Kind.MEASURED]).any():
        yield Entry(Look.SYMBOL, "frontier between what was measured and what failed", FRONTIER)


def _flags(made: Field) -> Iterator[Entry]:
    looks = {Flag.SPILLED: Look.SPILLED, Flag.CLAMPED: Look.CLAMPED, Flag.UNFILLED: Look.UNFILLED}
    for flag in (*looks, *(flag for flag in FLAGS if flag not in looks)):
        count = int(np.count_nonzero(made.has(flag)))
        if count:
            yield Entry(looks.get(flag, Look.SYMBOL), f"{flag}: {FLAG_MEANINGS[flag]} ({count})")


def _not_there(made: Field) -> Iterator[Entry]:
    without = int(np.count_nonzero((made.kinds == CODES[Kind.MEASURED]) & ~np.isfinite(made.values)))
    if without:
        yield Entry(Look.NO_VALUE, f"measured, but no believed {made.about.metric.name} ({without})")
    words = {Kind.RUNNING: "running now", Kind.PENDING: "not measured yet ({})"}
    for kind, look in ((Kind.RUNNING, Look.RUNNING), (Kind.PENDING, Look.PENDING)):
        count = int(np.count_nonzero(made.kinds == CODES[kind]))
        if count:
            yield Entry(look, words[kind].format(count))
    absent = int(np.count_nonzero(made.kinds == ABSENT))
    if absent:
        yield Entry(Look.ABSENT, f"not part of the sweep ({absent})")
