"""A map as a page shows it: where each cell stands, what is written in it, and its words. Pure.

It says what the heatmap says, from the same data; a template writes it as SVG.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.metrics import Metric
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import FLAG_MEANINGS, CellResult, Flag
from ollama_sweep.results.grids import Grid, Place, in_word, in_words, value_at
from ollama_sweep.results.page import colours
from ollama_sweep.results.plots.shared import heatmap_data
from ollama_sweep.results.plots.shared.heatmap_data import CellMark, HeatmapData, Kind
from ollama_sweep.results.plots.shared.heatmap_legend import SYMBOLS, Entry, Look, entries, shown
from ollama_sweep.results.plots.shared.scale import Scale

WIDE, CELL_WIDE, CELL_HIGH = 1040.0, (44.0, 132.0), (26.0, 52.0)
SIGN_SIZE, LARGEST, SMALLEST, DETAIL = 0.62, 15.0, 8.0, 9.0
"""A sign is so many times its type wide; sizes of type in a cell."""
SHORT = {"CUDA resource allocation error": "resource", "Timeout or no output": "timeout", "Create failed": "create",
         "Resource limit of the system": "resource", "not measured yet": ""}  # fmt: skip
LONGEST_ERROR, TICKS = 300, 5


@dataclass(frozen=True)
class Text:
    """A text at a place, its size, and how wide it must be made where it is too wide (0: as it is)."""

    text: str
    x: float
    y: float
    size: float
    squeezed: float = 0.0
    is_bold: bool = False


@dataclass(frozen=True)
class MapCell:
    """A cell: its box, its looks, and `words`, which say all that is known of it."""

    column: int
    row: int
    x: float
    y: float
    kind: str
    looks: tuple[str, ...]
    fill: str
    ink: str
    texts: tuple[Text, ...]
    words: str
    link: str = ""
    """Where a page that has more of it says all that is known of the cell."""
    zoom: str = ""
    """Where a page shows the cells of a tile by themselves."""


Link = Callable[[CellResult], str]


@dataclass(frozen=True)
class Map:
    """A map. Sizes are in units of its picture; `best` is the place (column, row) of the best cell, if there is one."""

    id: str
    title: str
    facts: str
    width: float
    height: float
    left: float
    bottom: float
    cell_width: float
    cell_height: float
    x: str
    y: str
    columns: tuple[Text, ...]
    rows: tuple[Text, ...]
    cells: tuple[MapCell, ...]
    legend: tuple[Entry, ...]
    ticks: tuple[str, ...]
    bar: tuple[str, ...]
    unit: str
    notice: str = ""
    note: str = ""
    best: tuple[int, int] | None = None


@dataclass(frozen=True)
class Room:
    """How large the cells of a map are, and where they begin."""

    columns: int
    rows: int
    left: float

    @cached_property
    def wide(self) -> float:
        low, high = CELL_WIDE
        return min(high, max(low, (WIDE - self.left) / max(1, self.columns)))

    @cached_property
    def high(self) -> float:
        low, high = CELL_HIGH
        return min(high, max(low, 420.0 / max(1, self.rows)))


def of_cells(number: str, data: HeatmapData, grid: Grid, link: Link | None = None) -> Map:
    """The map of a grid whose cells are all there; `number` tells it apart on its page."""
    room = Room(len(data.columns), len(data.rows), left_of(data.y, data.rows))
    across = {value: at for at, value in enumerate(data.columns)}
    down = {value: at for at, value in enumerate(data.rows)}
    cells = [
        _cell(data, place, mark, grid.cells[place], room, (across[place[0]], down[place[1]]), link)
        for place, mark in data.cells.items()
    ]
    cells.sort(key=lambda cell: (cell.row, cell.column))
    best = [(cell.column, cell.row) for cell in cells if "best" in cell.looks]
    return made(number, data, room, cells, entries(data), data.scale, data.notice, best=best[0] if best else None)


def changed(data: HeatmapData, grid: Grid, result: CellResult, link: Link | None = None) -> MapCell | None:
    """A cell of the map as it is now, by the colours that the map has; None for one that is not in it."""
    place = value_at(result, data.x), value_at(result, data.y)
    if place not in grid.cells or grid.cells[place].key != result.key:
        return None
    room = Room(len(data.columns), len(data.rows), left_of(data.y, data.rows))
    at = data.columns.index(place[0]), data.rows.index(place[1])
    return _cell(data, place, heatmap_data.mark_of(result, data), result, room, at, link)


def made(
    number: str, data: HeatmapData, room: Room, cells: Sequence[MapCell], legend: Sequence[Entry], scale: Scale,
    notice: str, *, note: str = "", best: tuple[int, int] | None = None, columns: Sequence[str] = (),
    rows: Sequence[str] = (),
) -> Map:  # fmt: skip
    """What stands around the cells. `columns` and `rows` are the words at the axes where a cell is more than one."""
    of = data.metric
    return around(
        number, data.title, "  ·  ".join(data.facts), room, (data.x, data.y),
        (columns or data.columns, rows or data.rows), cells, legend, ticks=list(_ticks(of, scale)) if cells else [],
        bar=[colours.colour(at / 15, of.better) for at in range(16)],
        unit=f"{of.name} ({of.unit})" if of.unit and not of.is_bytes else of.name, notice=notice, note=note, best=best,
    )  # fmt: skip


def around(
    number: str, title: str, facts: str, room: Room, axes: tuple[str, str],
    values: tuple[Sequence[Scalar], Sequence[Scalar]], cells: Sequence[MapCell], legend: Sequence[Entry], *,
    ticks: Sequence[str], bar: Sequence[str], unit: str, notice: str = "", note: str = "",
    best: tuple[int, int] | None = None,
) -> Map:  # fmt: skip
    """The same of cells of any kind: `axes` are the two dimensions, `values` what stands at them."""
    width, height = room.left + room.columns * room.wide, room.rows * room.high
    bolds = best or (-1, -1)
    return Map(
        id=number, title=title, facts=facts, width=round(width + 2, 1), height=round(height + 24, 1), left=room.left,
        bottom=round(height, 1), cell_width=round(room.wide, 2), cell_height=round(room.high, 2), x=axes[0], y=axes[1],
        columns=tuple(_across(labels(axes[0], values[0]), room, bolds[0])),
        rows=tuple(_down(labels(axes[1], values[1]), room, bolds[1])), cells=tuple(cells), legend=tuple(legend),
        ticks=tuple(ticks), bar=tuple(bar), unit=unit, notice=notice, note=note, best=best,
    )  # fmt: skip


def _ticks(of: Metric, scale: Scale) -> Iterator[str]:
    """None where there is one value, or none: it says itself."""
    if scale.lowest == scale.highest:
        return
    for at in range(TICKS):
        yield of.text(scale.low + (scale.high - scale.low) * at / (TICKS - 1))


# -- cells -----------------------------------------------------------------------------------------------------------


def _cell(
    data: HeatmapData, place: Place, mark: CellMark, result: CellResult, room: Room, at: tuple[int, int],
    link: Link | None = None,
) -> MapCell:  # fmt: skip
    value = mark.predicted if mark.value is None else mark.value
    fill = colours.colour(data.scale.share(value), data.metric.better) if value is not None else ""
    fill = colours.lighter(fill) if fill and mark.value is None else fill
    looks = [str(look) for look, has in (("best", mark.best), ("tied", mark.tied)) if has]
    looks += [str(flag) for flag in (Flag.SPILLED, Flag.CLAMPED, Flag.UNFILLED) if flag in mark.flags and fill]
    return MapCell(
        at[0], at[1], round(room.left + at[0] * room.wide, 1), round(at[1] * room.high, 1), str(mark.kind),
        tuple(looks), fill, colours.ink(fill) if fill else "",
        tuple(texts(mark, room, (room.left + at[0] * room.wide, at[1] * room.high))),
        words_of(data, place, mark, result), "" if link is None else link(result),
    )  # fmt: skip


def texts(mark: CellMark, room: Room, corner: tuple[float, float]) -> Iterator[Text]:
    """What is written in a cell, below each other where there is room for more than the value."""
    middle = corner[0] + room.wide / 2
    if mark.value is None and mark.predicted is None:
        label = SHORT.get(mark.label, mark.label)
        sign = "✗ " if mark.kind is Kind.FAILED and label else ""
        if label:
            yield _fitted(f"{sign}{label}", middle, corner[1] + room.high / 2, room.wide, 11.0)
        return
    value = mark.label if mark.value is None else f"{'★ ' if mark.best else ''}{shown(mark)}"
    has_detail = bool(mark.detail) and room.high >= 40 and len(mark.detail) * DETAIL * 0.52 <= room.wide - 6
    size = min(LARGEST, max(11.0, room.high * 0.4))
    up = DETAIL * 0.62 if has_detail else 0.0
    yield _fitted(value, middle, corner[1] + room.high / 2 - up, room.wide, size, is_bold=mark.best)
    if has_detail:
        yield Text(mark.detail, round(middle, 1), round(corner[1] + room.high / 2 + size * 0.62, 1), DETAIL)


def _fitted(text: str, x: float, y: float, room: float, size: float, *, is_bold: bool = False) -> Text:
    """In one line: smaller where it is too wide, then cut, and never wider than its room."""
    needed = len(text) * SIGN_SIZE
    size = max(SMALLEST, min(size, (room - 4) / needed))
    most = max(2, int((room - 4) / (SMALLEST * 0.5)))
    if len(text) > most:
        text = text[: most - 1] + "…"
    squeezed = room - 4 if len(text) * SIGN_SIZE * size > room - 3 else 0.0
    return Text(text, round(x, 1), round(y, 1), round(size, 1), round(squeezed, 1), is_bold)


def words_of(data: HeatmapData, place: Place, mark: CellMark, result: CellResult) -> str:
    """All that is said of a cell: where, its value with how sure that is, flags, error, attempts."""
    where = in_words([(data.x, _named(data.x, place[0])), (data.y, _named(data.y, place[1]))])
    if mark.value is not None:
        said = data.metric.with_unit(mark.value) + (f" ({mark.sure})" if mark.sure else "")
    elif mark.predicted is not None:
        likely = f"{data.metric.with_unit(mark.predicted)} ({mark.detail})"
        said = f"not measured, but {data.lighter}: {likely}"
    else:
        said = mark.label or ("not measured yet" if mark.kind is Kind.PENDING else str(mark.kind))
    parts = [f"{where}: {said}"]
    parts += ["best"] if mark.best else ["tied with the best"] if mark.tied else []
    parts += [f"{flag}: {FLAG_MEANINGS[flag]}" for flag in sorted(mark.flags)]
    if result.error and mark.kind is not Kind.MEASURED:
        error = " ".join(result.error.split())
        parts.append(error if len(error) <= LONGEST_ERROR else error[:LONGEST_ERROR] + "…")
    parts += [f"{result.attempts} attempts"] if result.attempts > 1 else []
    return ". ".join(parts) + "."


def _named(name: str, value: Scalar) -> Scalar:
    return model_label(str(value)) if name == "model" else value


# -- axes ------------------------------------------------------------------------------------------------------------


def labels(name: str, values: Sequence[Scalar]) -> list[str]:
    """How the values of a dimension stand at its axis."""
    return [in_word(_named(name, value)) for value in values]


def left_of(name: str, values: Sequence[Scalar]) -> float:
    """How much room the words of the rows take."""
    widest = max((len(label) for label in labels(name, values)), default=1)
    return round(min(180.0, max(48.0, widest * 11 * SIGN_SIZE + 12)), 1)


def _across(words: Sequence[str], room: Room, bold: int) -> Iterator[Text]:
    """Not each of them where they are too many to be read."""
    widest = max((len(word) for word in words), default=1)
    step = max(1, -(-int(min(widest, 12) * 9 * SIGN_SIZE) // max(1, int(room.wide - 4))))
    for at, word in enumerate(words):
        if at % step == 0:
            middle = room.left + (at + 0.5) * room.wide
            yield _fitted(word, middle, room.rows * room.high + 13, room.wide * step, 11.0, is_bold=at == bold)


def _down(words: Sequence[str], room: Room, bold: int) -> Iterator[Text]:
    for at, word in enumerate(words):
        most = int((room.left - 10) / (10 * SIGN_SIZE))
        short = word if len(word) <= most else word[: most // 2] + "…" + word[-(most // 2) + 1 :]
        yield Text(short, room.left - 6, round((at + 0.5) * room.high, 1), 11.0, is_bold=at == bold)


def swatches() -> Mapping[Look, str]:
    """How a look is shown in the legend, as a class of the page's style."""
    return {look: str(look).replace(" ", "-") for look in Look}


def signs() -> Mapping[str, str]:
    """The signs that stand behind values, by flag."""
    return {str(flag): sign for flag, sign in SYMBOLS.items()}
