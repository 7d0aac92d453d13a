"""The map of very many cells: neighbours together as tiles, so few that a page draws each with its words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import FLAG_MEANINGS
from ollama_sweep.results.grids import X, Y, in_word
from ollama_sweep.results.large import columns
from ollama_sweep.results.large.columns import Columns, Part
from ollama_sweep.results.page import colours, maps
from ollama_sweep.results.page.maps import Map, MapCell, Room
from ollama_sweep.results.plots.shared import field as fields
from ollama_sweep.results.plots.shared.field import CODES, FLAGS, Field
from ollama_sweep.results.plots.shared.heatmap_data import CellMark, Kind
from ollama_sweep.results.plots.shared.heatmap_legend import Entry, Look

MOST_TILES, SHADES = 1600, 255
"""So many tiles can be told apart, and so many colours."""
ZOOM = " A tile leads to its part of the map: press Enter on it, click it twice, or take the link below."
_WORDS = {Kind.MEASURED: "measured", Kind.FAILED: "failed", Kind.SKIPPED: "skipped", Kind.RUNNING: "running",
          Kind.PENDING: "not measured yet"}  # fmt: skip


@dataclass
class Tiled:
    """A map in tiles: what it is made of, and how many cells a tile is wide and high.

    `link` says where a part of the map is shown: by the values of both dimensions from first to last, and the values of
    all others; `cell_link` where a cell is, by its row.
    """

    id: str
    part: Part
    wide: int
    high: int
    link: Callable[[Area], str] | None = None
    cell_link: Callable[[int], str] | None = None

    @property
    def field(self) -> Field:
        """The cells."""
        return self.part.field

    @cached_property
    def room(self) -> Room:
        """How large tiles are."""
        down = [_first(word) for word in self._down]
        return Room(len(self._across), len(self._down), maps.left_of(self.field.about.y, down))

    @cached_property
    def _across(self) -> list[str]:
        return [_ends(some) for some in _cut(self.field.about.columns, self.wide)]

    @cached_property
    def _down(self) -> list[str]:
        return [_ends(some) for some in _cut(self.field.about.rows, self.high)]

    @cached_property
    def _rows(self) -> Any:
        """The row of each place; -1 where there is none."""
        found = np.full(self.field.kinds.size, -1, np.int32)
        found[self.part.places] = self.part.where
        return found.reshape(self.field.kinds.shape)

    def map(self) -> Map:
        """All of it."""
        rows, columns = self.field.kinds.shape
        tiles = list(self._tiles(slice(0, rows), slice(0, columns)))
        note = "" if self.wide == self.high == 1 else (
            f"{columns * rows:,} cells: each tile holds up to {self.wide} × {self.high} of them and has the colour and "
            f"the number of its best cell.{ZOOM if self.link else ''}"
        )  # fmt: skip
        made = self.field
        return maps.made(
            self.id, made.about, self.room, tiles, list(_legend(made)), made.scale, made.notice, note=note,
            best=self._best, columns=list(map(_first, self._across)), rows=list(map(_first, self._down)),
        )  # fmt: skip

    @property
    def _best(self) -> tuple[int, int] | None:
        best = self.field.best
        return None if best is None else (best[1] // self.wide, best[0] // self.high)

    def tile(self, column: int, row: int) -> MapCell | None:
        """One tile; None where there is no cell."""
        down = slice(row * self.high, (row + 1) * self.high)
        return next(self._tiles(down, slice(column * self.wide, (column + 1) * self.wide)), None)

    def _tiles(self, down: slice, across: slice) -> Iterator[MapCell]:
        """The tiles of a part of the field that begins and ends with one; those without a cell are left out."""
        made = self.field
        kinds, values = made.kinds[down, across], made.values[down, across]
        starts = np.arange(0, kinds.shape[1], self.wide), np.arange(0, kinds.shape[0], self.high)
        counts = {kind: _reduced(np.add, (kinds == CODES[kind]).astype(np.int32), starts).tolist() for kind in _WORDS}
        best = _reduced(np.fmax if made.about.metric.better >= 0 else np.fmin, values, starts).tolist()
        flags = _reduced(np.bitwise_or, made.flags[down, across], starts).tolist()
        tied = _reduced(np.logical_or, made.tied[down, across], starts).tolist()
        first = across.start // self.wide, down.start // self.high
        for row in range(len(starts[1])):
            for column in range(len(starts[0])):
                found = {kind: numbers[row][column] for kind, numbers in counts.items() if numbers[row][column]}
                if found:
                    at = first[0] + column, first[1] + row
                    links = self._links(at, sum(found.values()))
                    value = best[row][column]
                    yield _tile(made, self.room, at, (self._across[at[0]], self._down[at[1]]),
                                value if value == value else None, found, flags[row][column], links,
                                is_tied=tied[row][column], is_best=self._best == at)  # fmt: skip

    def _links(self, at: tuple[int, int], count: int) -> tuple[str, str]:
        """The page of its one cell, or else its part of the map."""
        down = slice(at[1] * self.high, (at[1] + 1) * self.high)
        across = slice(at[0] * self.wide, (at[0] + 1) * self.wide)
        if count == 1 and self.cell_link is not None:
            return self.cell_link(int(self._rows[down, across].max())), ""
        if self.link is None:
            return "", ""
        about = self.field.about
        columns, rows = about.columns[across], about.rows[down]
        return "", self.link(Area((columns[0], columns[-1]), (rows[0], rows[-1]), about.combination))

    def put(self, found: Columns, rows: Any) -> list[tuple[int, int]]:
        """These rows have changed: the places of the tiles that hold them, each once."""
        at = np.searchsorted(self.part.where, rows)
        at = at[at < len(self.part.where)]
        at = at[np.isin(self.part.where[at], rows)]
        if not len(at):
            return []
        where, places = self.part.where[at], self.part.places[at]
        columns.put_into(self.part, found, where, places)
        down, across = np.divmod(places, self.field.kinds.shape[1])
        return sorted(set(zip((across // self.wide).tolist(), (down // self.high).tolist(), strict=True)))


@dataclass(frozen=True)
class Area:
    """A part of a map: the first and the last value across and down, and the values of all other dimensions."""

    across: tuple[Scalar, Scalar]
    down: tuple[Scalar, Scalar]
    others: Options = ()


def of_columns(
    name: str, found: Columns, machine: str, *, most_maps: int, chosen: Any | None = None,
    axes: tuple[str, str] = (X, Y), link: Callable[[Area], str] | None = None,
    cell_link: Callable[[int], str] | None = None,
) -> tuple[list[Tiled], int]:  # fmt: skip
    """The maps of these cells, at most so many, and how many there are; together they have at most MOST_TILES."""
    every = list(columns.combinations(found, chosen, axes))
    made = []
    for number, (where, combination) in enumerate(every[:most_maps]):
        part = columns.part_of(found, where, combination, machine, axes)
        rows, across = part.field.kinds.shape
        wide, high = tile_size(across, rows, MOST_TILES // min(len(every), most_maps))
        made.append(Tiled(f"{name}-map{number}", part, wide, high, link, cell_link))
    return made, len(every)


def tile_size(columns: int, rows: int, most: int) -> tuple[int, int]:
    """How many cells a tile is wide and high, so that there are at most so many tiles."""
    wide = high = 1
    while -(-columns // wide) * -(-rows // high) > most:
        if columns / wide >= rows / high:
            wide += 1
        else:
            high += 1
    return wide, high


def _reduced(how: Any, array: Any, starts: tuple[Any, Any]) -> Any:
    return how.reduceat(how.reduceat(array, starts[0], axis=1), starts[1], axis=0)


def _cut(values: Sequence[Scalar], size: int) -> Iterator[Sequence[Scalar]]:
    for at in range(0, len(values), size):
        yield values[at : at + size]


def _first(words: str) -> str:
    return words.partition(" to ")[0]


def _ends(values: Sequence[Scalar]) -> str:
    """`2048`, or `2048 to 4096`."""
    first, last = in_word(values[0]), in_word(values[-1])
    return first if first == last else f"{first} to {last}"


def _legend(made: Field) -> Iterator[Entry]:
    """Flags are counted and have no pattern: a tile says in words which its cells have."""
    for entry in fields.entries(made):
        if entry.symbol == fields.FRONTIER:
            continue
        is_pattern = entry.look in (Look.SPILLED, Look.CLAMPED, Look.UNFILLED)
        yield Entry(Look.SYMBOL, entry.text) if is_pattern else entry


@cache
def _shade(share: int, better: int) -> str:
    return colours.colour(share / SHADES, better)


def _tile(
    made: Field, room: Room, at: tuple[int, int], place: tuple[str, str], value: float | None, counts: dict[Kind, int],
    flags: int, links: tuple[str, str], *, is_tied: bool, is_best: bool,
) -> MapCell:  # fmt: skip
    about = made.about
    kind = next(kind for kind in _WORDS if kind in counts)
    fill = "" if value is None else _shade(round(made.scale.share(value) * SHADES), about.metric.better)
    names = [flag for bit, flag in enumerate(FLAGS) if flags & (1 << bit)] if flags else []
    label = "" if kind in (Kind.PENDING, Kind.SKIPPED) else str(kind)
    label = label if value is None else about.metric.text(value)
    mark = CellMark(kind, label, value, best=is_best, tied=is_tied)
    corner = room.left + at[0] * room.wide, at[1] * room.high
    said = ", ".join(f"{count} {_WORDS[kind]}" for kind, count in counts.items())
    is_one = sum(counts.values()) == 1
    with_unit = "" if value is None else about.metric.with_unit(value)
    what = said if value is None else with_unit if is_one else f"best {with_unit} of {said}"
    parts = [f"{about.x} {place[0]}, {about.y} {place[1]}: {what}"]
    parts += [made.best_text] if is_best else ["tied with the best" if is_one else "holds cells that are tied with the "
              "best"] if is_tied else []  # fmt: skip
    parts += [f"{flag}: {FLAG_MEANINGS[flag]}" for flag in sorted(names)]
    looks = [name for name, has in (("best", is_best), ("tied", is_tied and not is_best)) if has]
    return MapCell(
        at[0], at[1], round(corner[0], 1), round(corner[1], 1), str(kind), tuple(looks), fill,
        colours.ink(fill) if fill else "", tuple(maps.texts(mark, room, corner)), ". ".join(parts) + ".",
        *links,
    )  # fmt: skip
