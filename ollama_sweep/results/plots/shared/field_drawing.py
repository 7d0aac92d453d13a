"""How a heatmap of very many cells is drawn: the cells as one image, a text in each only where it can be read.

The time and the memory it takes have a limit whatever the number of cells is: pixels are bounded, and so are texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from ollama_sweep.results.plots.shared import own_style  # noqa: F401 - loads matplotlib, before all that is of it

# isort: split
import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import LoadFlags
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Affine2D

from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Flag
from ollama_sweep.results.plots.shared.field import CODES, FRONTIER, Field, bits, entries
from ollama_sweep.results.plots.shared.figures import draw_notice, draw_titles, new_figure, size_points, titles_height
from ollama_sweep.results.plots.shared.heatmap_cells import (
    BLUE,
    DARK_RED,
    GREY,
    INK,
    LIGHT_GREY,
    PALE_RED,
    RED,
    SHORT,
    SMALLEST_LABEL,
    STAR,
    TEXT_GREY,
    Box,
    draw_outline,
    readable,
)
from ollama_sweep.results.plots.shared.heatmap_data import CellMark, HeatmapData, Kind
from ollama_sweep.results.plots.shared.heatmap_drawing import (
    AXIS_WORDS,
    COLOURS,
    LEFT,
    LEGEND_LINE,
    NARROWEST_ROW_LABEL,
    NOTICE_SIZE,
    RIGHT,
    colour_bar_ticks,
    draw_handle,
    draw_legend,
    extended,
    fitted_labels,
    legend_lines,
    row_label_room,
    tick_text,
)
from ollama_sweep.results.plots.shared.heatmap_legend import Entry, Look, shown
from ollama_sweep.results.plots.shared.text import FONT, LINE, clean, fit, width

TEXT_DPI = 150.0
"""What is written around the cells has the size in pixels that it has in a small picture."""
SMALLEST_VALUE = 8 * 72 / TEXT_DPI
"""The smallest type in points that is read: eight pixels."""
MOST_LABELS = 20_000
VECTOR_PIXELS = 4_000_000
TICK_GAP, MOST_TICKS = 1.6, 400
STRIPE, LINE_PIXELS, SMALLEST_CELL_WITH_A_LINE = 7, 3, 10


def make_figure(made: Field, inches: tuple[float, float], *, labels: bool | None = None) -> Any:
    """The whole picture. `labels`: a text in each cell; None: where it can be read."""
    wide, high = inches
    data = made.about
    figure = new_figure(wide, high)
    left = LEFT + (row_label_room(data) - NARROWEST_ROW_LABEL) / 72
    room = (wide - left - RIGHT) * 72
    legend = entries(made)
    top = titles_height(data.facts, room) / 72
    bottom = (46 + len(legend_lines(legend, room)) * LEGEND_LINE + 8) / 72
    axes = figure.add_axes((left / wide, bottom / high, room / 72 / wide, (high - top - bottom) / high))
    size = size_points(axes)
    draw_titles(axes, data.title, data.facts, size[0])
    is_labelled = _can_be_read(data, size) if labels is None else labels and bool(data.cells)
    norm, colours = (
        Normalize(made.scale.low, made.scale.high),
        mpl.colormaps[COLOURS + ("_r" if data.metric.better < 0 else "")],
    )
    _draw_field(made, axes, norm, colours, is_plain=is_labelled)
    _draw_bar(made, axes, norm, colours, size)
    _draw_ticks(made, axes, size)
    if is_labelled:
        axes.add_artist(_labels(data, norm, colours, size))
    _draw_best(made, axes, size, is_labelled=is_labelled)
    draw_legend(legend, axes, size, _handle)
    if made.notice:
        draw_notice(axes, made.notice, NOTICE_SIZE)
    return figure


# -- the cells as an image -------------------------------------------------------------------------------------------


def _draw_field(made: Field, axes: Any, norm: Normalize, colours: Colormap, *, is_plain: bool) -> None:
    rows, columns = made.kinds.shape
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.add_artist(_Image(lambda pixels: raster(made, norm, colours, pixels, is_plain=is_plain)))


class _Image(Artist):
    """An image that fills the axes, made in just the size in which it is drawn: matplotlib's own resampling of so many
    pixels takes a gigabyte.
    """

    def __init__(self, make: Callable[[tuple[int, int]], Any]) -> None:
        super().__init__()
        self._make = make
        self.set_zorder(1)

    def draw(self, renderer: Any) -> None:
        box = self.axes.bbox  # type: ignore[union-attr]
        gc = renderer.new_gc()
        left, low = round(box.x0), round(box.y0)
        if renderer.option_scale_image():
            shrink = max(1.0, (box.width * box.height / VECTOR_PIXELS) ** 0.5, TEXT_DPI / 72 / 4)
            image = self._make((max(1, round(box.height / shrink)), max(1, round(box.width / shrink))))
            scale = Affine2D().scale(box.width / image.shape[1], box.height / image.shape[0]).translate(box.x0, box.y0)
            renderer.draw_image(gc, box.x0, box.y0, image[::-1], scale)
        else:
            image = self._make((max(1, round(box.y1) - low), max(1, round(box.x1) - left)))
            renderer.draw_image(gc, left, low, image[::-1])
        gc.restore()


def raster(made: Field, norm: Normalize, colours: Colormap, pixels: tuple[int, int], *, is_plain: bool = False) -> Any:
    """The cells as an image of (high, wide) pixels, with patterns for what is no number; `is_plain`: without.

    While it is made a pixel is one number of 32 bits, which is the quickest.
    """
    kinds, values, flags, tied = _reduced(made, pixels)
    high, wide = pixels
    down = np.arange(high) * kinds.shape[0] // high
    across = np.arange(wide) * kinds.shape[1] // wide

    def spread(cells: Any) -> Any:
        return cells[:, across][down]

    image = spread(_colours_of(kinds, values, norm, colours))
    failed, measured = kinds == CODES[Kind.FAILED], kinds == CODES[Kind.MEASURED]
    y, x = np.arange(high, dtype=np.int16)[:, None], np.arange(wide, dtype=np.int16)[None, :]
    if failed.any() and not is_plain:
        np.copyto(image, _packed(RED), where=spread(failed) & ((y - x) % (2 * STRIPE) < STRIPE // 2))
    patterns: dict[Flag, Callable[[], Any]] = {
        Flag.SPILLED: lambda: (y + x) % (2 * STRIPE) < 2,
        Flag.CLAMPED: lambda: (y % STRIPE < 2) & (x % STRIPE < 2),
        Flag.UNFILLED: lambda: np.broadcast_to(y % STRIPE < 1, (high, wide)),
    }
    for flag, pattern in patterns.items():
        marked = (flags & np.uint16(bits(frozenset({flag})))) != 0
        if marked.any():
            np.copyto(image, _darker(image), where=spread(marked) & pattern())
    if min(high / kinds.shape[0], wide / kinds.shape[1]) >= SMALLEST_CELL_WITH_A_LINE:
        image[1:][down[1:] != down[:-1]] = _packed("#ffffff")
        image[:, 1:][:, across[1:] != across[:-1]] = _packed("#ffffff")
    _draw_edges(image, failed, measured, down, across, _packed(DARK_RED), LINE_PIXELS)
    _draw_edges(image, tied, ~tied, down, across, _packed("#000000"), LINE_PIXELS - 1)
    return image.view(np.uint8).reshape(high, wide, 4)


def _colours_of(kinds: Any, values: Any, norm: Normalize, colours: Colormap) -> Any:
    faces = np.full(kinds.shape, _packed("#ffffff"), np.uint32)
    looks = ((Kind.FAILED, PALE_RED), (Kind.SKIPPED, LIGHT_GREY), (Kind.PENDING, GREY), (Kind.RUNNING, BLUE))
    for kind, colour in looks:
        faces[kinds == CODES[kind]] = _packed(colour)
    known = (kinds == CODES[Kind.MEASURED]) & np.isfinite(values)
    faces[known] = np.ascontiguousarray(colours(norm(values[known]), bytes=True)).view(np.uint32)[:, 0]
    return faces


def _packed(colour: str) -> Any:
    """A colour as the number that its four bytes are."""
    return np.array([[*_rgb(colour), 255]], np.uint8).view(np.uint32)[0, 0]


def _darker(image: Any) -> Any:
    """Every pixel half as bright."""
    return (image >> np.uint32(1)) & _packed("#7f7f7f") | _packed("#000000")


def _draw_edges(image: Any, inside: Any, outside: Any, down: Any, across: Any, colour: Any, thick: int) -> None:
    """A line along the border of two regions of cells, inside the first; `down`, `across`: the cells of the pixels."""
    for turned, mine, theirs, lines, columns in (
        (image, inside, outside, down, across),
        (image.T, inside.T, outside.T, across, down),
    ):
        begin = np.searchsorted(columns, np.arange(mine.shape[1] + 1))
        for step in (1, -1):
            edges = np.zeros(mine.shape, bool)
            if step == 1:
                edges[:, 1:] = mine[:, 1:] & theirs[:, :-1]
            else:
                edges[:, :-1] = mine[:, :-1] & theirs[:, 1:]
            for column in np.nonzero(edges.any(0))[0]:
                low, high = begin[column], begin[column + 1]
                wide = min(thick, max(1, (high - low) // 2))
                low, high = (low, low + wide) if step == 1 else (high - wide, high)
                turned[edges[lines, column], low:high] = colour


def _reduced(made: Field, pixels: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """The cells, several taken together where there are more than pixels: what was measured and is best is shown."""
    arrays = [made.kinds, made.values, made.flags, made.tied]
    largest = np.fmax if made.about.metric.better >= 0 else np.fmin
    ways = [np.maximum, largest, np.bitwise_or, np.logical_or]
    for axis, most in enumerate(pixels):
        count = made.kinds.shape[axis]
        if count > most:
            starts = np.arange(most) * count // most
            arrays = [way.reduceat(array, starts, axis) for way, array in zip(ways, arrays, strict=True)]
    return arrays[0], arrays[1], arrays[2], arrays[3]


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue


# -- what stands around and in it ------------------------------------------------------------------------------------


def _draw_bar(made: Field, axes: Any, norm: Normalize, colours: Colormap, size: tuple[float, float]) -> None:
    known = made.values[np.isfinite(made.values)]
    if known.size and known.min() < known.max():
        bar = axes.inset_axes((1 + 12 / size[0], 0, 12 / size[0], 1))
        made_bar = axes.figure.colorbar(ScalarMappable(norm, colours), cax=bar, extend=extended(made.scale))
        made_bar.outline.set_visible(False)
        made_bar.solids.set(rasterized=False, edgecolor="face")  # pixels for it are made for the whole picture
        colour_bar_ticks(bar, made.about.metric, made.scale.low, made.scale.high)


def _draw_ticks(made: Field, axes: Any, size: tuple[float, float]) -> None:
    data, best = made.about, made.best
    names = [
        tick_text(data.x, value)
        for value in (data.columns[0], data.columns[-1], *data.columns[:: max(1, len(data.columns) // 50)])
    ]
    across = max(width(name, 11.0, bold=True) for name in names) * TICK_GAP
    for axis, values, room, best_at in (
        (
            axes.xaxis,
            data.columns,
            (min(size[0], max(across, size[0] / len(data.columns))), 12.0 * LINE),
            best and best[1],
        ),
        (
            axes.yaxis,
            data.rows,
            (row_label_room(data), max(11.0 * LINE * TICK_GAP, size[1] / len(data.rows))),
            best and best[0],
        ),
    ):
        step = room[0] if axis is axes.xaxis else room[1]
        length = size[0] if axis is axes.xaxis else size[1]
        chosen = _some(len(values), min(MOST_TICKS, max(1, int(length / step))), best_at)
        picked: Sequence[Scalar] = [values[number] for number in chosen]
        texts = fitted_labels(
            [tick_text(data.x if axis is axes.xaxis else data.y, value) for value in picked],
            picked,
            (room[0] * 0.92, room[1]),
        )
        axis.set_ticks([number + 0.5 for number in chosen], [text.text for text in texts])
        for number, label, text in zip(chosen, axis.get_ticklabels(), texts, strict=True):
            label.set(fontsize=text.size, color=INK, parse_math=False)
            label.set(fontweight="bold" if number == best_at else "normal")
    axes.tick_params(length=3, pad=2, color=TEXT_GREY)
    axes.set_xlabel(clean(AXIS_WORDS.get(data.x, data.x)), fontsize=11, color=INK, labelpad=5, parse_math=False)
    axes.set_ylabel(clean(AXIS_WORDS.get(data.y, data.y)), fontsize=11, color=INK, labelpad=6, parse_math=False)


def _some(count: int, most: int, wanted: int | None) -> list[int]:
    """At most so many of `count` numbers, evenly, and the wanted one in place of its neighbours."""
    step = -(-count // most)
    chosen = list(range(0, count, step))
    if wanted is not None and wanted not in chosen:
        chosen = sorted([number for number in chosen if abs(number - wanted) >= step] + [wanted])
    return chosen


def _draw_best(made: Field, axes: Any, size: tuple[float, float], *, is_labelled: bool) -> None:
    if made.best is None:
        return
    row, column = made.best
    rows, columns = made.kinds.shape
    wide, high = size[0] / columns, size[1] / rows
    if min(wide, high) >= 6:
        draw_outline(axes, Box(column, row, wide, high), strong=True)
    if not is_labelled:
        star = axes.text(column + 0.5, row + 0.5, STAR, fontsize=max(20.0, min(wide, high)), color="black", ha="center",
                         va="center", zorder=9, parse_math=False)  # fmt: skip
        star.set_path_effects([withStroke(linewidth=4, foreground="white")])


def _handle(own: Any, entry: Entry, at: float, middle: float) -> None:
    """The little picture of a look, as the image has it."""
    hatches = {Look.FAILED: "\\\\\\\\", Look.UNFILLED: "---"}
    if entry.symbol == FRONTIER:
        own.plot([at, at + 20], [middle, middle], color=DARK_RED, linewidth=2)
    elif entry.look in hatches:
        face, edge = (PALE_RED, RED) if entry.look is Look.FAILED else ("white", TEXT_GREY)
        own.add_patch(
            Rectangle(
                (at, middle - 5.5), 20, 11, facecolor=face, edgecolor=edge, hatch=hatches[entry.look], linewidth=0.6
            )
        )
    elif entry.look is Look.RUNNING:
        own.add_patch(Rectangle((at, middle - 5.5), 20, 11, facecolor=BLUE, linewidth=0))
    elif entry.look is not Look.SYMBOL:
        draw_handle(own, entry, at, middle)


# -- a text in each cell ---------------------------------------------------------------------------------------------


def _can_be_read(data: HeatmapData, size: tuple[float, float]) -> bool:
    return 0 < len(data.cells) <= MOST_LABELS and _value_size(data, size) >= SMALLEST_VALUE


def _value_size(data: HeatmapData, size: tuple[float, float]) -> float:
    """One size for all values, so that their length never looks like a meaning."""
    wide, high = size[0] / len(data.columns), size[1] / len(data.rows)
    texts = {shown(mark) for mark in data.cells.values() if mark.value is not None} or {"0"}
    return min(26.0, wide * 0.86 / max(width(text, 1.0) for text in texts), high * 0.62 / LINE)


@dataclass(frozen=True)
class _Text:
    """A short text in the middle of a cell: its place in cells, its size in points."""

    x: float
    y: float
    text: str
    size: float
    ink: str
    bold: bool = False


class _Labels(Artist):
    """Very many short texts, each in the middle of its cell.

    Laying out and drawing each of them takes matplotlib half a millisecond. So each letter is drawn once, and put
    where it belongs all at a time; where the picture is made of lines, the texts stay texts.
    """

    def __init__(self, texts: Sequence[_Text]) -> None:
        super().__init__()
        self._texts = texts
        self.set_zorder(5)

    def draw(self, renderer: Any) -> None:
        places = self.axes.transData.transform([(one.x, one.y) for one in self._texts])  # type: ignore[union-attr]
        if renderer.option_scale_image():
            self._draw_as_texts(renderer, places)
        else:
            self._draw_as_pixels(renderer, places)

    def _draw_as_texts(self, renderer: Any, places: Any) -> None:
        gc = renderer.new_gc()
        height = self.get_figure(root=True).bbox.height  # type: ignore[union-attr]
        extents: dict[tuple[str, float, bool], Any] = {}
        for (x, y), one in zip(places, self._texts, strict=True):
            font, key = _font(one.size, one.bold), (one.text, one.size, one.bold)
            if key not in extents:
                extents[key] = renderer.get_text_width_height_descent(one.text, font, ismath=False)
            wide, high, descent = extents[key]
            gc.set_foreground(one.ink)
            low = y - high / 2 + descent
            renderer.draw_text(
                gc, x - wide / 2, height - low if renderer.flipy() else low, one.text, font, 0, ismath=False
            )
        gc.restore()

    def _draw_as_pixels(self, renderer: Any, places: Any) -> None:
        canvas = np.asarray(renderer.buffer_rgba())
        glyphs: dict[tuple[str, float, bool], tuple[Any, float]] = {}
        wanted: defaultdict[tuple[str, float, bool, str, int], list[tuple[float, float]]] = defaultdict(list)
        for (x, y), one in zip(places, self._texts, strict=True):
            keys = [(letter, one.size, one.bold) for letter in one.text]
            for key in keys:
                if key not in glyphs:
                    glyphs[key] = _glyph(renderer, *key)
            at = x - sum(glyphs[key][1] for key in keys) / 2
            for number, key in enumerate(keys):
                wanted[(*key, one.ink, number % 2)].append((at, canvas.shape[0] - y))
                at += glyphs[key][1]
        for (letter, size, bold, ink, _), where in wanted.items():
            _put(canvas, glyphs[letter, size, bold][0], np.array(where), ink)


@cache
def _font(size: float, bold: bool) -> Any:
    return FontProperties(family=FONT, size=size, weight="bold" if bold else "normal")


def _glyph(renderer: Any, letter: str, size: float, bold: bool) -> tuple[Any, float]:
    """How dense the letter is in each pixel, 0 to 255, its line in the middle; how far the next one is from it."""
    font = renderer._prepare_font(_font(size, bold))
    advance = font.load_char(ord(letter), flags=LoadFlags.NO_HINTING).linearHoriAdvance / 65536
    small: Any = _renderer(int(advance) + 6, 2 * int(size * renderer.dpi / 72) + 2, renderer.dpi)
    _, figure_high, _ = small.get_text_width_height_descent("0", _font(size, bold), ismath=False)
    small.draw_text(small.new_gc(), 2, (small.height + figure_high) / 2, letter, _font(size, bold), 0, ismath=False)
    return np.asarray(small.buffer_rgba())[:, :, 3].astype(np.uint16), advance


def _renderer(wide: int, high: int, dpi: float) -> Any:
    return cast("Any", RendererAgg)(wide, high, dpi)


def _put(canvas: Any, glyph: Any, where: Any, ink: str) -> None:
    """The same letter at many places, which do not overlap."""
    high, wide = glyph.shape
    left = np.rint(where[:, 0] - 2).astype(int)
    top = np.rint(where[:, 1] - high / 2).astype(int)
    kept = (left >= 0) & (top >= 0) & (left + wide <= canvas.shape[1]) & (top + high <= canvas.shape[0])
    y = top[kept, None, None] + np.arange(high)[None, :, None]
    x = left[kept, None, None] + np.arange(wide)[None, None, :]
    dense = glyph[None, :, :, None]
    below = canvas[y, x, :3].astype(np.uint16)
    canvas[y, x, :3] = ((below * (255 - dense) + np.array(_rgb(ink), np.uint16) * dense) // 255).astype(np.uint8)


def _labels(data: HeatmapData, norm: Normalize, colours: Colormap, size: tuple[float, float]) -> _Labels:
    wide, high = size[0] / len(data.columns), size[1] / len(data.rows)
    value_size = _value_size(data, size)
    across = {value: number + 0.5 for number, value in enumerate(data.columns)}
    down = {value: number + 0.5 for number, value in enumerate(data.rows)}
    words = _words_fitter((wide - 4, high - 2), value_size)
    faces = colours(norm(np.array([mark.value or 0.0 for mark in data.cells.values()])))
    texts = []
    for ((x, y), mark), face in zip(data.cells.items(), faces, strict=True):
        if mark.value is not None:
            text = f"{STAR}{shown(mark)}" if mark.best else shown(mark)
            points = min(value_size, wide * 0.9 / width(text, 1.0, bold=True)) if mark.best else value_size
            texts.append(_Text(across[x], down[y], text, points, readable(face), mark.best))
        elif (found := words(mark)) is not None:
            texts.append(_Text(across[x], down[y], *found))
    return _Labels(texts)


def _words_fitter(room: tuple[float, float], largest: float) -> Callable[[CellMark], tuple[str, float, str] | None]:
    """The words of a cell without a number, fitted once for each wording: (text, size, colour)."""
    found: dict[tuple[Kind, str], tuple[str, float, str] | None] = {}

    def words(mark: CellMark) -> tuple[str, float, str] | None:
        key = mark.kind, mark.label
        if key not in found:
            fitted = None
            if mark.label:
                wordings = list(dict.fromkeys([mark.label, SHORT.get(mark.label, mark.label)]))
                smallest = min(SMALLEST_LABEL, largest)
                one = fit(wordings, room, largest=max(largest, smallest), smallest=smallest)
                ink = {Kind.FAILED: DARK_RED, Kind.RUNNING: "#ffffff"}.get(mark.kind, TEXT_GREY)
                fitted = one.text.replace("\n", " "), one.size, ink
            found[key] = fitted
        return found[key]

    return words
