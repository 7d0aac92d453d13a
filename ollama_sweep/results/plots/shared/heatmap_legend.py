"""What the legend of a heatmap says: one entry for every look that occurs in the picture, and no other. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ollama_sweep.core.cell import PROMPT_TOKENS, model_label
from ollama_sweep.core.metrics import Metric
from ollama_sweep.core.outcome import FLAG_MEANINGS, Flag
from ollama_sweep.results.plots.shared.heatmap_data import CellMark, HeatmapData, Kind
from ollama_sweep.results.plots.shared.scale import Scale


class Look(StrEnum):
    """The looks a cell can have."""

    BEST = "best"
    TIED = "tied"
    FAILED = "failed"
    SKIPPED = "skipped"
    SPILLED = "spilled"
    CLAMPED = "clamped"
    UNFILLED = "unfilled"
    SYMBOL = "symbol"
    NO_VALUE = "no value"
    RUNNING = "running"
    PENDING = "pending"
    PREDICTED = "predicted"
    ABSENT = "absent"


SYMBOLS = {
    Flag.NOISY: "~",
    Flag.UNSTABLE: "!",
    Flag.DRIFTED: "≈",
    Flag.THROTTLED: "°",
    Flag.WARM: "^",
    Flag.BUSY: "¤",
    Flag.SHARED_GPU: "§",
    Flag.CACHED: "‡",
    Flag.IMPORTED: "†",
    Flag.REUSED: "=",
    Flag.DISTURBED: "#",
}
"""Signs that stand behind a value for flags without a look of their own."""


BEYOND = "↕"


@dataclass(frozen=True)
class Entry:
    """One line of the legend; `symbol` stands in place of the little picture where there is one."""

    look: Look
    text: str
    symbol: str = ""


def entries(data: HeatmapData) -> list[Entry]:
    """The legend, the most important first."""
    return [*_best(data), *beyond(data.scale, data.metric), *_without_number(data), *_flags(data), *_not_there(data)]


def beyond(scale: Scale, of: Metric) -> list[Entry]:
    """That the colours do not go as far as an odd cell does."""
    return [Entry(Look.SYMBOL, words, BEYOND) for words in scale.words(of)]


def shown(mark: CellMark) -> str:
    """The value of a measured cell with the signs of its flags."""
    if mark.value is None:
        return mark.label
    return mark.label + "".join(sign for flag, sign in SYMBOLS.items() if flag in mark.flags)


def _best(data: HeatmapData) -> Iterator[Entry]:
    several = sum(mark.best for mark in data.cells.values())
    if several > 1:
        yield Entry(Look.BEST, f"best of each {PROMPT_TOKENS} ({several})")
    for (x, y), mark in data.cells.items():
        if mark.best and mark.value is not None and several == 1:
            places = ((data.x, x), (data.y, y))
            where = ", ".join(f"{name} {model_label(str(value))}" for name, value in places if value is not None)
            detail = f" ({mark.sure})" if mark.sure else ""
            yield Entry(Look.BEST, f"best: {where}: {data.metric.with_unit(mark.value)}{detail}")
    tied = sum(mark.tied for mark in data.cells.values())
    if tied:
        yield Entry(Look.TIED, f"tied with the best: cannot be told from it ({tied})")


def _without_number(data: HeatmapData) -> Iterator[Entry]:
    for kind, look in ((Kind.FAILED, Look.FAILED), (Kind.SKIPPED, Look.SKIPPED)):
        labels = Counter(mark.label for mark in data.marked(kind))
        if labels:
            counted = ", ".join(f"{label} ({count})" for label, count in labels.most_common())
            yield Entry(look, f"{look}: {counted}")


def _flags(data: HeatmapData) -> Iterator[Entry]:
    counts = Counter(flag for mark in data.marked(Kind.MEASURED) for flag in mark.flags)
    for flag, look in ((Flag.SPILLED, Look.SPILLED), (Flag.CLAMPED, Look.CLAMPED), (Flag.UNFILLED, Look.UNFILLED)):
        if counts[flag]:
            yield Entry(look, f"{flag}: {FLAG_MEANINGS[flag]} ({counts[flag]})")
    for flag, sign in SYMBOLS.items():
        if any(flag in mark.flags and mark.value is not None for mark in data.cells.values()):
            yield Entry(Look.SYMBOL, f"{flag}: {FLAG_MEANINGS[flag]}", sign)


def _not_there(data: HeatmapData) -> Iterator[Entry]:
    without = sum(mark.value is None for mark in data.marked(Kind.MEASURED))
    if without:
        yield Entry(Look.NO_VALUE, f"measured, but no believed {data.metric.name} ({without})")
    if data.marked(Kind.RUNNING):
        yield Entry(Look.RUNNING, "running now")
    likely = len(data.marked(Kind.PREDICTED))
    if likely:
        yield Entry(Look.PREDICTED, f"lighter: not measured, but {data.lighter} ({likely})")
    pending = len(data.marked(Kind.PENDING))
    if pending:
        yield Entry(Look.PENDING, f"not measured yet ({pending})")
    absent = len(data.columns) * len(data.rows) - len(data.cells)
    if absent:
        yield Entry(Look.ABSENT, f"not part of the sweep ({absent})")
