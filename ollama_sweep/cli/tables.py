"""Tables: rows in columns on paper; on a terminal as wide as it is, and where that is too narrow a paragraph a row."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

from ollama_sweep.cli.terminal import can_draw, console, printable

Rows = Sequence[Sequence[str]]


def table(rows: Rows, left: int = 1, indent: str = "") -> list[str]:
    """The lines for stdout. The first row is the head; the first `left` columns begin at the left, the others end at
    the right."""
    drawn = _drawn(rows, left, indent) if can_draw(sys.stdout) else aligned(rows, left)
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
    """Long texts of a column are broken at words, never within one, and no number is."""
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    screen = console(sys.stdout)
    room = screen.width - len(indent)
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column, name in enumerate(rows[0]):
        made.add_column(name, justify="left" if column < left else "right", no_wrap=column >= left)
    for row in rows[1:]:
        made.add_row(*(Text(printable(text, sys.stdout)) for text in row))
    if Measurement.get(screen, screen.options.update(width=sys.maxsize), made).minimum > room:
        return [line for row in rows[1:] for line in _paragraph(rows[0], row, room)]
    with screen.capture() as captured:
        screen.print(made, width=room)
    return captured.get().splitlines()


def _paragraph(head: Sequence[str], row: Sequence[str], room: int) -> list[str]:
    """The first cell, and below it the others with their names."""
    text = "; ".join(f"{name} {cell}" for name, cell in zip(head[1:], row[1:], strict=True))
    wrapper = textwrap.TextWrapper(
        max(10, room),
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [printable(line, sys.stdout) for line in (row[0], *wrapper.wrap(text))]
