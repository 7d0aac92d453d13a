"""The map of very many cells: neighbours together as tiles, so few that a page draws each with its words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import FLAG_MEANINGS
from ollama_sweep.results.grids import in_word
from ollama_sweep.results.page import colours, maps
from ollama_sweep.results.page.maps import Map, MapCell, Room
from ollama_sweep.results.plots.shared import field as fields
from ollama_sweep.results.plots.shared.field import CODES, FLAGS, Field
from ollama_sweep.results.plots.shared.heatmap_data import CellMark, Kind

_WORDS = {Kind.MEASURED: "measured", Kind.FAILED: "failed", Kind.SKIPPED: "skipped", Kind.RUNNING: "running",
          Kind.PENDING: "not measured yet"}  # fmt: skip


def of_field(number: str, made: Field, most: int) -> Map:
    """The map in at most so many tiles; where fewer cells are there each has a tile of its own."""
    rows, columns = made.kinds.shape
    wide, high = tile_size(columns, rows, most)
    starts = np.arange(0, columns, wide), np.arange(0, rows, high)
    about = made.about
    across = [_ends(about.columns[at : at + wide]) for at in starts[0]]
    down = [_ends(about.rows[at : at + high]) for at in starts[1]]
    room = Room(len(across), len(down), maps.left_of(about.y, [word.partition(" ")[0] for word in down]))
    counts = {kind: _summed(made.kinds == CODES[kind], starts) for kind in _WORDS}
    values = _reduced(np.fmax if about.metric.better >= 0 else np.fmin, made.values, starts)
    flags, tied = _reduced(np.bitwise_or, made.flags, starts), _reduced(np.logical_or, made.tied, starts)
    best = None if made.best is None else (made.best[1] // wide, made.best[0] // high)
    cells = [
        _tile(made, room, (column, row), (across[column], down[row]), values[row, column],
              {kind: int(count[row, column]) for kind, count in counts.items()}, int(flags[row, column]),
              is_tied=bool(tied[row, column]), is_best=best == (column, row))
        for row in range(len(down)) for column in range(len(across))
        if any(count[row, column] for count in counts.values())
    ]  # fmt: skip
    note = "" if wide == high == 1 else (
        f"{columns * rows:,} cells: each tile holds up to {wide} × {high} of them and has the colour and the number of "
        "its best cell."
    )  # fmt: skip
    return maps.made(
        number, about, room, cells, fields.entries(made), made.scale, made.notice, note=note, best=best,
        columns=[word.partition(" ")[0] for word in across], rows=[word.partition(" ")[0] for word in down],
    )  # fmt: skip


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


def _summed(array: Any, starts: tuple[Any, Any]) -> Any:
    return _reduced(np.add, array.astype(np.int64), starts)


def _ends(values: Sequence[Scalar]) -> str:
    """`2048`, or `2048 to 4096`."""
    first, last = in_word(values[0]), in_word(values[-1])
    return first if first == last else f"{first} to {last}"


def _tile(
    made: Field, room: Room, at: tuple[int, int], place: tuple[str, str], value: float, counts: dict[Kind, int],
    flags: int, *, is_tied: bool, is_best: bool,
) -> MapCell:  # fmt: skip
    about, known = made.about, bool(np.isfinite(value))
    kind = next((kind for kind in _WORDS if counts[kind]), Kind.PENDING)
    fill = colours.colour(made.scale.share(float(value)), about.metric.better) if known else ""
    names = [flag for bit, flag in enumerate(FLAGS) if flags & (1 << bit)]
    label = about.metric.text(float(value)) if known else "" if kind in (Kind.PENDING, Kind.SKIPPED) else str(kind)
    mark = CellMark(kind, label, float(value) if known else None, best=is_best, tied=is_tied)
    corner = room.left + at[0] * room.wide, at[1] * room.high
    said = ", ".join(f"{count} {_WORDS[kind]}" for kind, count in counts.items() if count)
    is_one = sum(counts.values()) == 1
    what = (about.metric.with_unit(float(value)) if is_one else f"best {about.metric.with_unit(float(value))} of {said}"
            ) if known else said  # fmt: skip
    parts = [f"{about.x} {place[0]}, {about.y} {place[1]}: {what}"]
    parts += [made.best_text] if is_best else ["tied with the best" if is_one else "holds cells that are tied with the "
              "best"] if is_tied else []  # fmt: skip
    parts += [f"{flag}: {FLAG_MEANINGS[flag]}" for flag in sorted(names)]
    looks = [name for name, has in (("best", is_best), ("tied", is_tied and not is_best)) if has]
    return MapCell(
        at[0], at[1], round(corner[0], 1), round(corner[1], 1), str(kind), tuple(looks), fill,
        colours.ink(fill) if fill else "", tuple(maps.texts(mark, room, corner)), ". ".join(parts) + ".",
    )  # fmt: skip
