"""The map of a sweep in a terminal: coloured cells with their values where there is room, else one sign a cell.

Signs: a digit 0 to 9 is the speed between the slowest and the fastest cell, so that nothing depends on colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ollama_sweep.core.text import harmless
from ollama_sweep.results.plots.heatmap import CellMark, HeatmapData, Kind

SHADES = (53, 54, 60, 60, 30, 36, 72, 77, 148, 220)
"""The colour map viridis in the 256 colours of a terminal; on the last five the type is black."""
NARROWEST, LOWEST, WIDEST_CELL = 12, 4, 12
CORNER = "batch\\ctx"
_SIGNS = {Kind.FAILED: "✗", Kind.SKIPPED: "–", Kind.PENDING: "·", Kind.RUNNING: "▶", Kind.MEASURED: "?"}
_ASCII_SIGNS = {Kind.FAILED: "x", Kind.SKIPPED: "-", Kind.PENDING: ".", Kind.RUNNING: ">", Kind.MEASURED: "?"}
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


def draw(data: HeatmapData, look: Look) -> list[str]:
    """Lines no wider than the terminal; none where it is too small for any map."""
    if look.width < NARROWEST or look.height < LOWEST or not data.cells:
        return []
    margin = max(len(_name(row)) for row in data.rows)
    margin = max(margin, len(CORNER)) if look.width >= 60 else margin
    room = look.width - margin - 1
    columns, rows = _grouped(data.columns, max(1, room)), _grouped(data.rows, max(1, look.height - 2))
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
    return [*lines, _legend(data, ends, look)]


def _grouped(values: Sequence[T], room: int) -> list[Sequence[T]]:
    """The values in at most `room` groups of neighbours."""
    size = math.ceil(len(values) / room)
    return [values[start : start + size] for start in range(0, len(values), size)]


def _together(data: HeatmapData, columns: Sequence[object], rows: Sequence[object]) -> CellMark | None:
    """One mark for a group of cells: what runs, else what was measured (its mean), else what failed, …"""
    found = [data.cells[place] for x in columns for y in rows if (place := (x, y)) in data.cells]  # type: ignore[index]
    if len(found) <= 1:
        return found[0] if found else None
    for kind in (Kind.RUNNING, Kind.MEASURED, Kind.FAILED, Kind.PENDING, Kind.SKIPPED):
        of_kind = [mark for mark in found if mark.kind is kind]
        if of_kind:
            values = [mark.value for mark in of_kind if mark.value is not None]
            mean = math.fsum(values) / len(values) if values else None
            return CellMark(kind, "", mean, best=any(mark.best for mark in of_kind))
    return None


def _text_width(data: HeatmapData) -> int:
    """The room that the values need, with a space and a star."""
    texts = [len(mark.label) + (2 if mark.best else 0) for mark in data.cells.values() if mark.value is not None]
    return 1 + max(texts, default=3)


def _cell(mark: CellMark | None, ends: tuple[float, float], wide: int, with_text: bool, look: Look) -> str:
    if mark is None:
        return " " * wide
    text = look.signs[mark.kind]
    if mark.value is None:
        painted = {Kind.FAILED: "\x1b[31m", Kind.RUNNING: "\x1b[1;36m"}.get(mark.kind, "\x1b[2m")
        centred = text.center(wide)
        return f"{painted}{centred}{_RESET}" if look.colour else centred
    level = min(9, int(10 * (mark.value - ends[0]) / (ends[1] - ends[0]))) if ends[1] > ends[0] else 9
    text = mark.label if with_text else str(level)
    if mark.best:
        text = f"{look.star} {text}" if with_text else look.star
    if not look.colour:
        return text.center(wide)
    if not with_text and not mark.best and wide > 1:
        text = ""
    ink = 30 if level >= 5 else 97
    return f"\x1b[48;5;{SHADES[level]};{ink}m{text.center(wide)}{_RESET}"


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
