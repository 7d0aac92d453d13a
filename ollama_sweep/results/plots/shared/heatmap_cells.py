"""How the cells of a heatmap look: values, failures, hatches, outlines, and texts that stay inside their cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ollama_sweep.results.plots.shared import own_style  # noqa: F401 - loads matplotlib, before all that is of it

# isort: split
from matplotlib.colors import Colormap, Normalize
from matplotlib.patches import Polygon, Rectangle
from matplotlib.patheffects import withStroke

from ollama_sweep.core.outcome import Flag
from ollama_sweep.results.plots.shared.heatmap_data import CellMark, HeatmapData, Kind
from ollama_sweep.results.plots.shared.heatmap_legend import Look, shown
from ollama_sweep.results.plots.shared.text import LINE, fit, width

RED, DARK_RED, PALE_RED = "#d00000", "#8d0801", "#fff3f2"
GREY, LIGHT_GREY, TEXT_GREY, INK = "#cfcfcf", "#f1f1f1", "#6a6a6a", "#1c1c1c"
BLUE = "#0b61a4"
PALE_GREEN = "#d3e8df"
HATCHES = {Look.SPILLED: "////", Look.CLAMPED: "...."}
STAR, CROSS, NO_BREAK = "★", "✗", "\u00a0"
SHORT = {
    "CUDA resource allocation error": "CUDA resource",
    "Timeout or no output": "Timeout",
    "Create failed": "Create",
    "not measured yet": "",
}
SMALLEST_DETAIL, SMALLEST_LABEL, NARROW = 7.5, 5.8, 90.0


@dataclass(frozen=True)
class Box:
    """A cell's place and size: data coordinates of its corner, points of its size."""

    column: int
    row: int
    width: float
    height: float

    def rectangle(self, inset: float, **look: Any) -> Rectangle:
        """A rectangle `inset` points inside the cell."""
        dx, dy = inset / self.width, inset / self.height
        return Rectangle((self.column + dx, self.row + dy), 1 - 2 * dx, 1 - 2 * dy, **look)


@dataclass(frozen=True)
class Part:
    """One of the texts of a cell, with its size in points."""

    text: str
    size: float
    ink: str
    bold: bool = False

    @property
    def height(self) -> float:
        return self.size * LINE * (self.text.count("\n") + 1)


def draw_cells(data: HeatmapData, axes: Any, norm: Normalize, colours: Colormap, size: tuple[float, float]) -> None:
    wide, high = size[0] / len(data.columns), size[1] / len(data.rows)
    value_size = _value_size(data, wide, high)
    for row, y in enumerate(data.rows):
        for column, x in enumerate(data.columns):
            mark = data.cells.get((x, y))
            if mark is None:
                continue
            box = Box(column, row, wide, high)
            if mark.predicted is not None:
                _draw_predicted(axes, box, mark, lighter(colours(norm(mark.predicted))), value_size)
            elif mark.value is None:
                _draw_without_value(axes, box, mark)
            else:
                _draw_measured(axes, box, mark, colours(norm(mark.value)), value_size)


def _value_size(data: HeatmapData, wide: float, high: float) -> float:
    """One size for all values, so that their length never looks like a meaning."""
    texts = {shown(mark) for mark in data.cells.values() if mark.value is not None}
    return min((_in_one_line(text, wide, high) for text in texts), default=1.0)


def _in_one_line(text: str, wide: float, high: float, *, bold: bool = False) -> float:
    """The size with which a value fits into its cell."""
    return min(26.0, wide * 0.86 / width(text, 1.0, bold=bold), high * 0.62 / LINE)


def _draw_measured(axes: Any, box: Box, mark: CellMark, colour: tuple[float, ...], size: float) -> None:
    ink = readable(colour)
    for flag, look in ((Flag.SPILLED, Look.SPILLED), (Flag.CLAMPED, Look.CLAMPED)):
        if flag in mark.flags:
            axes.add_patch(_hatched(box, look, ink))
    if Flag.UNFILLED in mark.flags:
        axes.add_patch(_corner(box, ink))
    if mark.best or mark.tied:
        draw_outline(axes, box, strong=mark.best)
    parts = _best_parts(box, shown(mark), size, ink) if mark.best else [Part(shown(mark), size, ink)]
    if mark.detail:
        detail = Part(mark.detail, min(11.0, box.width * 0.9 / width(mark.detail, 1.0)), ink)
        if detail.size >= SMALLEST_DETAIL and _height([*parts, detail]) <= box.height * 0.92:
            parts.append(detail)
    _write(axes, box, parts, halo=colour)


def _draw_predicted(axes: Any, box: Box, mark: CellMark, colour: tuple[float, ...], size: float) -> None:
    """Lighter than a measured one, with its interval."""
    axes.add_patch(box.rectangle(0.3, facecolor=colour, edgecolor="none", zorder=1.5))
    parts = [Part(mark.label, min(size, _in_one_line(mark.label, box.width, box.height)) * 0.8, INK)]
    detail = Part(mark.detail, min(10.0, box.width * 0.9 / width(mark.detail, 1.0)), INK)
    if detail.size >= SMALLEST_DETAIL and _height([*parts, detail]) <= box.height * 0.92:
        parts.append(detail)
    _write(axes, box, parts)


def lighter(colour: Sequence[float]) -> tuple[float, ...]:
    """Two thirds of the way to white: dark type is readable on every such colour."""
    return tuple(c + (1 - c) * 0.72 for c in colour[:3])


def _best_parts(box: Box, text: str, size: float, ink: str) -> list[Part]:
    """The best value with its star: before it, or above it where the cell is narrow and high."""
    beside = _in_one_line(f"{STAR}{NO_BREAK}{text}", box.width, box.height, bold=True)
    alone = min(size, _in_one_line(text, box.width, box.height, bold=True))
    above = [Part(STAR, alone * 1.2, ink), Part(text, alone, ink, bold=True)]
    if beside < alone and _height(above) <= box.height * 0.7:
        return above
    return [Part(f"{STAR}{NO_BREAK}{text}", min(size, beside), ink, bold=True)]


def _draw_without_value(axes: Any, box: Box, mark: CellMark) -> None:
    face, edge, ink = {
        Kind.FAILED: (PALE_RED, RED, DARK_RED),
        Kind.SKIPPED: (LIGHT_GREY, LIGHT_GREY, TEXT_GREY),
        Kind.PENDING: (GREY, GREY, TEXT_GREY),
        Kind.RUNNING: (GREY, BLUE, BLUE),
        Kind.MEASURED: ("white", GREY, TEXT_GREY),
    }[mark.kind]
    axes.add_patch(box.rectangle(0.3, facecolor=face, edgecolor="none", zorder=1.5))
    if edge != face:
        line = (0, (4, 2)) if mark.kind is Kind.FAILED else "solid"
        axes.add_patch(box.rectangle(1.4, fill=False, edgecolor=edge, linewidth=1.3, linestyle=line, zorder=4))
    if mark.label:
        _write(axes, box, _label_parts(box, mark, ink))


def _label_parts(box: Box, mark: CellMark, ink: str) -> list[Part]:
    """The words of a cell without a value; a failure's cross stands above them where there is room."""
    sign = f"{CROSS}{NO_BREAK}" if mark.kind is Kind.FAILED else ""
    wordings = [sign + label for label in dict.fromkeys([mark.label, SHORT.get(mark.label, mark.label)])]
    largest = 7.5 if box.width < NARROW else 15.0
    fitted = fit(wordings, (box.width - 6, box.height - 4), largest=largest, smallest=SMALLEST_LABEL)
    apart = [Part(CROSS, fitted.size * 1.7, RED, bold=True), Part(fitted.text.removeprefix(sign), fitted.size, ink)]
    roomy = sign and box.width >= NARROW and _height(apart) <= box.height * 0.85
    return apart if roomy else [Part(fitted.text, fitted.size, ink)]


def _height(parts: Sequence[Part]) -> float:
    return sum(part.height for part in parts)


def _write(axes: Any, box: Box, parts: Sequence[Part], halo: Any = None) -> None:
    """Texts one below the other, together in the middle of the cell."""
    at = -_height(parts) / 2
    for part in parts:
        written = axes.text(
            box.column + 0.5,
            box.row + 0.5 + (at + part.height / 2) / box.height,
            part.text,
            fontsize=part.size,
            color=part.ink,
            ha="center",
            va="center",
            fontweight="bold" if part.bold else "normal",
            linespacing=1.08,
            parse_math=False,
            zorder=5,
        )
        if halo is not None:
            written.set_path_effects([withStroke(linewidth=2.2, foreground=halo)])
        at += part.height


def readable(colour: Sequence[float]) -> str:
    """Dark or white type, whichever has more contrast with the cell (WCAG luminance; at least 4.1 to 1)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return INK if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.204 else "#ffffff"


def _hatched(box: Box, look: Look, ink: str) -> Rectangle:
    return box.rectangle(0.3, fill=False, edgecolor=ink, linewidth=0, hatch=HATCHES[look], alpha=0.55, zorder=2)


def _corner(box: Box, ink: str) -> Polygon:
    side = min(6.5, box.height * 0.3)
    right, top, dx, dy = box.column + 1 - 1 / box.width, box.row + 1 / box.height, side / box.width, side / box.height
    return Polygon([(right, top), (right - dx, top), (right, top + dy)], facecolor=ink, alpha=0.6, lw=0, zorder=3)


def draw_outline(axes: Any, box: Box, *, strong: bool) -> None:
    """The frame of the best cell, or of one that is tied with it."""
    line = 3.2 if strong else 1.5
    outline = box.rectangle(line / 2, fill=False, edgecolor="black", linewidth=line, zorder=6 if strong else 4.5)
    outline.set_path_effects([withStroke(linewidth=line + 1.6, foreground="white")])
    axes.add_patch(outline)
