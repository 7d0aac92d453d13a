"""The map of a sweep in a terminal: coloured cells with their values where there is room, else one sign a cell.

Signs: a digit 0 to 9 is the speed between the slowest and the fastest cell, so that nothing depends on colours. What
was not measured but scouted or predicted is lighter and in brackets, or has a sign of its own; a line says where it is
from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ollama_sweep.core.text import harmless
from ollama_sweep.results.plots.heatmap import CellMark, HeatmapData, Kind

SHADES = (53, 54, 60, 60, 30, 36, 72, 77, 148, 220)
"""The colour map viridis in the 256 colours of a terminal; on the last five the type is black."""
LIGHTER = (139, 140, 146, 146, 116, 115, 151, 157, 192, 228)
"""The same half way to white, with black type."""
NARROWEST, LOWEST, WIDEST_CELL = 12, 4, 12
CORNER = "batch\\ctx"
_SIGNS = {Kind.FAILED: "✗", Kind.SKIPPED: "–", Kind.PENDING: "·", Kind.RUNNING: "▶", Kind.MEASURED: "?",
          Kind.PREDICTED: "○"}  # fmt: skip
_ASCII_SIGNS = {Kind.FAILED: "x", Kind.SKIPPED: "-", Kind.PENDING: ".", Kind.RUNNING: ">", Kind.MEASURED: "?",
                Kind.PREDICTED: "o"}  # fmt: skip
_RESET = "\x1b[0m"
T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """What the terminal can show, and how much of it there is for the map (columns, lines)."""

    width: int
    height: int
    colour: bool = False
    ascii_only: bool = False

    @property
    def signs(self) -> dict[Kind, str]:
        return _ASCII_SIGNS if self.ascii_only else _SIGNS

    @property
    def star(self) -> str:
        return "*" if self.ascii_only else "★"


def height_of(data: HeatmapData) -> int:
    """The lines of a map that is drawn whole."""
    return len(data.rows) + 2 + bool(data.marked(Kind.PREDICTED))


def draw(data: HeatmapData, look: Look) -> list[str]:
    """Lines no wider than the terminal; none where it is too small for any map."""
    if look.width < NARROWEST or look.height < LOWEST or not data.cells:
        return []
    margin = max(len(_name(row)) for row in data.rows)
    margin = max(margin, len(CORNER)) if look.width >= 60 else margin
    room = look.width - margin - 1
    has_room = look.height >= min(LOWEST + 1, height_of(data)) and bool(data.marked(Kind.PREDICTED))
    columns = _grouped(data.columns, max(1, room))
    rows = _grouped(data.rows, max(1, look.height - 2 - has_room))
    wide = min(WIDEST_CELL, max(1, room // len(columns)))
    marks = [[_together(data, group_x, group_y) for group_x in columns] for group_y in rows]
    values = [mark.value for mark in data.cells.values() if mark.value is not None]
    ends = (min(values, default=0.0), max(values, default=0.0))
    with_text = len(columns) == len(data.columns) and len(rows) == len(data.rows) and wide >= _text_width(data)
    lines = [_header(columns, margin, wide, look.width)]
    for group, row in zip(rows, marks, strict=True):
        cells = "".join(_cell(mark, ends, wide, with_text, look) for mark in row)
        line = f"{_name(group[0])[:margin]:>{margin}} {cells}"
        lines.append(line if look.colour else line.rstrip())
    lines.append(_legend(data, ends, look))
    is_seen = any(mark is not None and mark.kind is Kind.PREDICTED for row in marks for mark in row)
    return [*lines, _where_from(data, look, is_bracketed=with_text)] if has_room and is_seen else lines


def _grouped(values: Sequence[T], room: int) -> list[Sequence[T]]:
    """The values in at most `room` groups of neighbours."""
    size = math.ceil(len(values) / room)
    return [values[start : start + size] for start in range(0, len(values), size)]


def _together(data: HeatmapData, columns: Sequence[object], rows: Sequence[object]) -> CellMark | None:
    """One mark for a group of cells: what runs, else what was measured (its mean), else what failed, …"""
    found = [data.cells[place] for x in columns for y in rows if (place := (x, y)) in data.cells]  # type: ignore[index]
    if len(found) <= 1:
        return found[0] if found else None
    for kind in (Kind.RUNNING, Kind.MEASURED, Kind.FAILED, Kind.PREDICTED, Kind.PENDING, Kind.SKIPPED):
        of_kind = [mark for mark in found if mark.kind is kind]
        if of_kind:
            value, likely = _mean(mark.value for mark in of_kind), _mean(mark.predicted for mark in of_kind)
            return CellMark(kind, "", value, best=any(mark.best for mark in of_kind), predicted=likely)
    return None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _text_width(data: HeatmapData) -> int:
    """The room that the values need, with a space and a star, or brackets."""
    texts = [len(mark.label) + (2 if mark.best or mark.value is None else 0)
             for mark in data.cells.values() if mark.value is not None or mark.predicted is not None]  # fmt: skip
    return 1 + max(texts, default=3)


def _cell(mark: CellMark | None, ends: tuple[float, float], wide: int, with_text: bool, look: Look) -> str:
    if mark is None:
        return " " * wide
    text = look.signs[mark.kind]
    if mark.predicted is not None:
        text = (f"({mark.label})" if with_text else text).center(wide)
        return f"\x1b[48;5;{LIGHTER[_level(mark.predicted, ends)]};30m{text}{_RESET}" if look.colour else text
    if mark.value is None:
        painted = {Kind.FAILED: "\x1b[31m", Kind.RUNNING: "\x1b[1;36m"}.get(mark.kind, "\x1b[2m")
        centred = text.center(wide)
        return f"{painted}{centred}{_RESET}" if look.colour else centred
    level = _level(mark.value, ends)
    text = mark.label if with_text else str(level)
    if mark.best:
        text = f"{look.star} {text}" if with_text else look.star
    if not look.colour:
        return text.center(wide)
    if not with_text and not mark.best and wide > 1:
        text = ""
    ink = 30 if level >= 5 else 97
    return f"\x1b[48;5;{SHADES[level]};{ink}m{text.center(wide)}{_RESET}"


def _level(value: float, ends: tuple[float, float]) -> int:
    """0 to 9, also of what is likely to lie beyond all that was measured."""
    low, high = ends
    return min(9, max(0, int(10 * (value - low) / (high - low)))) if high > low else 9


def _header(columns: Sequence[Sequence[object]], margin: int, wide: int, width: int) -> str:
    """The num_ctx of each column where they fit, else those of the first and the last."""
    names = [_name(group[0]) for group in columns]
    head = f"{CORNER if margin >= len(CORNER) else '':>{margin}} "
    if all(len(name) < wide for name in names):
        return head + "".join(name.center(wide) for name in names).rstrip()
    last = _name(columns[-1][-1])
    gap = wide * len(names) - len(names[0]) - len(last)
    return (head + (f"{names[0]}{' ' * gap}{last}" if gap > 0 and len(names) > 1 else names[0]))[:width].rstrip()


def _name(value: object) -> str:
    return harmless(str(value))


def _legend(data: HeatmapData, ends: tuple[float, float], look: Look) -> str:
    """As many of the explanations as one line holds."""
    there = {mark.kind for mark in data.cells.values()}
    words = {Kind.RUNNING: "now", Kind.FAILED: "failed", Kind.PENDING: "to do", Kind.SKIPPED: "skipped"}
    parts = [f"{look.signs[kind]} {word}" for kind, word in words.items() if kind in there]
    if Kind.MEASURED in there:
        low, high = data.metric.text(ends[0]), data.metric.with_unit(ends[1])
        parts = [f"{low} to {high}", f"{look.star} best", *parts]
    line = ""
    for part in parts:
        longer = f"{line}, {part}" if line else part
        line = longer if len(longer) <= look.width else line
    return line


def _where_from(data: HeatmapData, look: Look, *, is_bracketed: bool) -> str:
    """Where the values of lighter cells are from, in the words of the pictures; shorter where that is too long."""
    sign = "(…)" if is_bracketed and not look.ascii_only else "(...)" if is_bracketed else look.signs[Kind.PREDICTED]
    where_from = data.lighter.replace("±", "+-") if look.ascii_only else data.lighter
    whole = f"{sign} not measured, but {where_from}"
    return whole if len(whole) <= look.width else f"{sign} {where_from}"[: look.width]
