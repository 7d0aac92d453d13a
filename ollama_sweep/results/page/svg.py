"""A cell of a map as SVG: made here and not by a template, because a page may have thousands of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup, escape

from ollama_sweep.core.text import harmless
from ollama_sweep.results.page import colours
from ollama_sweep.results.page.maps import MapCell, Room, Text

HATCHED = ("spilled", "clamped")


def map_cells(cells: Sequence[MapCell], wide: float, high: float) -> Markup:
    """The cells of a map; the first of them is where its cursor begins."""
    return Markup("\n".join(_lines(cells, wide, high)))  # noqa: S704 - whatever is of others is escaped below


def map_cell(cell: MapCell, room: Room) -> str:
    """One of them, which has changed."""
    return _cell(cell, round(room.wide, 2), round(room.high, 2), -1)


def _lines(cells: Sequence[MapCell], wide: float, high: float) -> Iterator[str]:
    for number, cell in enumerate(cells):
        yield _cell(cell, wide, high, -1 if number else 0)


def _cell(cell: MapCell, wide: float, high: float, at: int) -> str:
    link = f' data-link="{_told(cell.link)}"' if cell.link else ""
    link += f' data-zoom="{_told(cell.zoom)}"' if cell.zoom else ""
    fill = f' fill="{cell.fill}"' if cell.fill else ""
    box = f'x="{cell.x}" y="{cell.y}" width="{wide}" height="{high}"'
    return (
        f'<g class="cell {cell.kind}" role="img" tabindex="{at}" data-at="{cell.column},{cell.row}"{link}>'
        f"<title>{_told(cell.words)}</title><rect {box}{fill}/>{''.join(_looks(cell, wide, high, box))}"
        f"{_texts(cell)}</g>"
    )


def _looks(cell: MapCell, wide: float, high: float, box: str) -> Iterator[str]:
    tone = "dark" if cell.ink == colours.DARK else "bright"
    for look in cell.looks:
        if look in HATCHED:
            yield f'<rect class="hatch" {box} fill="url(#{look}-{tone})"/>'
        elif look == "unfilled":
            corner = f"M{round(cell.x + wide - 1, 1)} {round(cell.y + 1, 1)}"
            yield f'<path fill="{cell.ink}" d="{corner}h-7l7 7z"/>'
        else:
            inside = f'x="{round(cell.x + 2, 1)}" y="{round(cell.y + 2, 1)}"'
            yield f'<rect class="{look}" {inside} width="{round(wide - 4, 2)}" height="{round(high - 4, 2)}"/>'


def _texts(cell: MapCell) -> str:
    if not cell.texts:
        return ""
    ink = f' fill="{cell.ink}"' if cell.ink else ""
    halo = f' class="halo" stroke="{cell.fill}"' if cell.ink and set(HATCHED) & set(cell.looks) else ""
    return f"<g{ink}{halo}>{''.join(map(_text, cell.texts))}</g>"


def _text(text: Text) -> str:
    bold = ' font-weight="700"' if text.is_bold else ""
    squeezed = f' textLength="{text.squeezed}" lengthAdjust="spacingAndGlyphs"' if text.squeezed else ""
    place = f'x="{text.x}" y="{text.y}" font-size="{text.size}"'
    return f'<text {place} text-anchor="middle"{bold}{squeezed}>{_told(text.text)}</text>'


def _told(text: str) -> str:
    """Text of others on one line, escaped, without marks that are not seen."""
    return str(escape(harmless(text)))
