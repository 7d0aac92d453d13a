"""Tables: rows in columns on paper; on a terminal as wide as it is, and where that is too narrow a paragraph a row."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import Literal

from ollama_sweep.cli.terminal import can_draw, console, printable
from ollama_sweep.core.text import whole_line

Rows = Sequence[Sequence[str]]
GAP = 2


def table(rows: Rows, left: int = 1, indent: str = "") -> list[str]:
    """The lines for stdout. The first row is the head; the first `left` columns begin at the left, the others end at
    the right."""
    if can_draw(sys.stdout):
        drawn = _drawn([[printable(cell, sys.stdout) for cell in row] for row in rows], left, indent)
    else:
        drawn = aligned([[whole_line(cell) for cell in row] for row in rows], left)
    return [f"{indent}{line}".rstrip() for line in drawn]


def aligned(rows: Rows, left: int = 1) -> list[str]:
    """Columns two spaces apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            text.ljust(width) if column < left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _drawn(rows: Rows, left: int, indent: str) -> list[str]:
    """The column that gains most by it is broken between words; no word and no number is."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    screen = console(sys.stdout)
    room = screen.width - len(indent)
    columns = list(zip(*rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    slack = [
        width - max((cell_len(word) for cell in column for word in cell.split()), default=0)
        for width, column in zip(widths, columns, strict=True)
    ]
    if sum(widths) + GAP * (len(widths) - 1) - max(slack) > room:
        return [line for row in rows[1:] for line in _paragraph(rows[0], row, left if left < len(row) else 1, room)]
    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for number, name in enumerate(rows[0]):
        justify: Literal["left", "right"] = "left" if number < left else "right"
        made.add_column(name, justify=justify, no_wrap=number != slack.index(max(slack)))
    for row in rows[1:]:
        made.add_row(*map(Text, row))
    with screen.capture() as captured:
        screen.print(made, width=room)
    return captured.get().splitlines()


def _paragraph(head: Sequence[str], row: Sequence[str], names: int, room: int) -> list[str]:
    """What the row is about, its first cells; below it the others with the names of their columns."""
    text = "; ".join(f"{name} {cell}" for name, cell in zip(head[names:], row[names:], strict=True))
    wrapper = textwrap.TextWrapper(
        max(10, room),
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [", ".join(row[:names]), *wrapper.wrap(text)]
