"""What every picture shares: its file, the settings while it is drawn, titles, colours and markers of models."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

from ollama_sweep.core.errors import ConfigError, SweepError
from ollama_sweep.machine.files import write_whole
from ollama_sweep.results.plots.shared.text import LINE, clean, cut, width, wrap

Data = TypeVar("Data")

SUFFIXES = (".png", ".svg", ".pdf")
DPI = 150.0
QUICK = 3
"""How hard a large png is pressed together: half as large again as with the usual 6, and in two thirds of the time."""
TITLE_SIZE, FACTS_SIZE = 15.0, 10.5
TEXT_GREY, INK, GRID_GREY = "#6a6a6a", "#1c1c1c", "#e3e3e3"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5c5c5c")
"""Okabe and Ito's colours, which people with any kind of colour blindness tell apart, without black and yellow."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">")
HATCHES = ("", "///", "...", "xx", "\\\\\\", "oo", "++")


def style() -> AbstractContextManager[None]:
    """The settings that hold while a picture is made, whatever a person's matplotlibrc says."""
    from ollama_sweep.results.plots.shared import own_style

    return own_style.style()


def new_figure(wide: float, high: float) -> Any:
    """An empty white figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(wide, high), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def write(
    path: Path, make_figure: Callable[[], Any], dpi: float | None = None, *, told_dpi: tuple[float, float] | None = None
) -> None:
    """Write one picture, whole or not at all; png, svg or pdf by the suffix. Raises ConfigError, StorageError.

    `told_dpi` is what the file itself says of its resolution where that is not `dpi`.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        allowed = ", ".join(SUFFIXES)
        raise ConfigError(f"pictures are written as {allowed}, not {suffix or 'without a suffix'}", str(path))
    write_whole(path, picture(make_figure, suffix.removeprefix("."), dpi, told_dpi=told_dpi))


def write_each(files: Iterable[tuple[Path, Data]], make_figure: Callable[[Data], Any]) -> list[Path]:
    """Write a picture of what belongs to each path; the paths. Raises ConfigError, StorageError."""
    written = []
    for path, data in files:
        write(path, partial(make_figure, data))
        written.append(path)
    return written


def picture(
    make_figure: Callable[[], Any],
    file_format: str = "png",
    dpi: float | None = None,
    *,
    told_dpi: tuple[float, float] | None = None,
    is_plain: bool = False,
) -> bytes:
    """The bytes of one picture. `is_plain`: an svg of texts in a font of the reader, many times smaller."""
    stream = io.BytesIO()
    with style():
        if is_plain:
            from ollama_sweep.results.plots.shared import own_style

            own_style.load().rcParams["svg.fonttype"] = "none"
        stamp = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(file_format, {})
        more = {"pil_kwargs": {"dpi": told_dpi, "compress_level": QUICK}} if told_dpi and file_format == "png" else {}
        make_figure().savefig(stream, format=file_format, dpi=dpi or DPI, metadata=stamp, **more)
    return stream.getvalue()


def tried(path: Path, draw: Callable[[], None]) -> Path | SweepError:
    """The path of a picture once it is drawn, or why it could not be: a picture that fails costs itself only."""
    try:
        draw()
    except SweepError as error:
        return error
    except Exception as error:
        return SweepError(f"{path}: cannot be drawn ({type(error).__name__}: {error})")
    return path


def all_written(pictures: Iterable[Path | SweepError]) -> list[Path]:
    """The paths of all pictures. Raises the first error there was, once all others are drawn."""
    tried = list(pictures)
    for one in tried:
        if isinstance(one, SweepError):
            raise one
    return [one for one in tried if isinstance(one, Path)]


def size_points(axes: Any) -> tuple[float, float]:
    """Width and height of axes in points."""
    inches = axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted())
    return inches.width * 72, inches.height * 72


def titles_height(facts: Sequence[str], room: float) -> float:
    """How many points a title and its facts need above axes that are `room` points wide."""
    return 26 + TITLE_SIZE * LINE + len(_fact_lines(facts, room)) * FACTS_SIZE * LINE * 1.1


def draw_titles(
    axes: Any, title: str, facts: Sequence[str], room: float, *, left: float = 0.0, up: float = 0.0
) -> None:
    """The title and the facts, `up` points above the axes; they begin `left` points before its left edge."""
    lines = _fact_lines(facts, room)
    step = FACTS_SIZE * LINE * 1.1
    rows = [(cut(clean(title), TITLE_SIZE, room, bold=True), TITLE_SIZE), *((line, FACTS_SIZE) for line in lines)]
    for number, (text, points) in enumerate(rows):
        axes.annotate(
            text,
            (0, 1),
            (-left, 9 + up + (len(rows) - 1 - number) * step),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=points,
            fontweight="bold" if number == 0 else "normal",
            color=INK if number == 0 else TEXT_GREY,
            va="bottom",
            annotation_clip=False,
            parse_math=False,
        )


def draw_notice(axes: Any, notice: str, size: float = 20.0) -> None:
    """What is written across a picture that has nothing else to say."""
    room = size_points(axes)[0] * 0.86
    lines = wrap(clean(notice).split(" "), " ", size, room)
    axes.text(
        0.5,
        0.5,
        "\n".join(lines),
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=size,
        color=INK,
        zorder=8,
        parse_math=False,
        bbox={"facecolor": "white", "edgecolor": TEXT_GREY, "boxstyle": "round,pad=0.6"},
    )


def plain_axes(axes: Any, grid: str) -> None:
    """Light lines for reading (`x`, `y` or `both`), no frame at the top and on the right."""
    axes.grid(True, axis=grid, color=GRID_GREY, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(TEXT_GREY)
    axes.tick_params(colors=INK, labelsize=9.5, color=TEXT_GREY)


def draw_legend(axes: Any, *entries: Any, **layout: Any) -> None:
    """matplotlib's own legend, without a frame, with names as they are."""
    legend = axes.legend(*entries, frameon=False, borderaxespad=0, labelcolor=INK, **layout)
    for text in legend.get_texts():
        text.set_parse_math(False)


def ticks_within(low: float, high: float) -> list[float]:
    """Round values between two ends."""
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(value) for value in found if low <= value <= high * (1 + 1e-9)]


def looks(names: Sequence[str]) -> Mapping[str, tuple[str, str]]:
    """(colour, marker) of each name, the same in every picture of the same names."""
    return {name: (PALETTE[n % len(PALETTE)], MARKERS[n % len(MARKERS)]) for n, name in enumerate(names)}


def shorten(text: str, size: float, room: float) -> str:
    """The text, with `…` in its middle where it is wider than `room` points: long names differ at their ends."""
    text = clean(text)
    if width(text, size) <= room:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: kept - kept // 2]}…{text[-(kept // 2) :]}"
        if width(short, size) <= room:
            return short
    return "…"


def shorten_all(texts: Sequence[str], size: float, room: float) -> list[str]:
    """Each text shortened; those that would look alike begin shortly before the place where they differ."""
    short = [shorten(text, size, room) for text in texts]
    for twin in {text for text in short if short.count(text) > 1}:
        members = [number for number, text in enumerate(short) if text == twin]
        alike = zip(min(texts[n] for n in members), max(texts[n] for n in members), strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], alike))
        for number in members:
            short[number] = cut(f"…{clean(texts[number])[max(0, common - 4) :]}", size, room)
    return short


def _fact_lines(facts: Sequence[str], room: float) -> list[str]:
    return wrap([clean(fact) for fact in facts], "  ·  ", FACTS_SIZE, room)
