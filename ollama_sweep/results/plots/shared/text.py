"""Texts that fit: measured in points with the font that draws them, wrapped and shortened until they do."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import combinations, pairwise
from typing import Any, cast

from ollama_sweep.core.text import harmless

FONT = "DejaVu Sans"
LINE = 1.22
"""Distance of two lines, in units of the font's size."""
_MEASURED_AT = 40.0
_SLACK = 1.04
"""Small sizes are drawn a little wider than they measure: glyphs are set on whole pixels."""


@dataclass(frozen=True)
class Fitted:
    """A text with the line breaks and the size (in points) with which it fits."""

    text: str
    size: float


def width(text: str, size: float, *, bold: bool = False) -> float:
    """Width in points of the widest line."""
    return max(_line_width(line, bold) for line in text.split("\n")) * size / _MEASURED_AT * _SLACK


def fit(
    texts: Sequence[str], room: tuple[float, float], *, largest: float, smallest: float, bold: bool = False
) -> Fitted:
    """The first of some wordings, best first, that fits into (width, height) points at `smallest` or more.

    Lines are broken where that makes the type clearly larger. If no wording fits, the last is cut.
    """
    for text in texts:
        choices = [_sized(broken, room, largest, bold) for broken in _broken(text)]
        best = max(choice.size for choice in choices)
        if best >= smallest:
            return next(choice for choice in choices if choice.size >= max(smallest, 0.85 * best))
    return Fitted(cut(texts[-1], smallest, room[0], bold=bold), smallest)


def cut(text: str, size: float, room: float, *, bold: bool = False) -> str:
    """The text, shortened with `…` where it is wider than `room` points."""
    if width(text, size, bold=bold) <= room:
        return text
    fits = bisect_right(range(len(text)), room, key=lambda count: width(text[:count] + "…", size, bold=bold))
    return text[: max(0, fits - 1)] + "…"


def wrap(parts: Sequence[str], separator: str, size: float, room: float) -> list[str]:
    """Parts joined to lines no wider than `room` points; a part that is wider by itself is cut."""
    lines: list[str] = []
    for part in parts:
        if lines and width(lines[-1] + separator + part, size) <= room:
            lines[-1] += separator + part
        else:
            lines.append(cut(part, size, room))
    return lines


def clean(text: str) -> str:
    """One harmless line of characters that the font has; others become `□`."""
    known = _glyphs()
    return "".join(c if ord(c) in known else "□" for c in harmless(" ".join(text.split())))


def _sized(text: str, room: tuple[float, float], largest: float, bold: bool) -> Fitted:
    lines = text.count("\n") + 1
    by_width = room[0] / width(text, 1.0, bold=bold) if text else largest
    return Fitted(text, min(largest, by_width, room[1] / (lines * LINE)))


def _broken(text: str) -> Iterator[str]:
    """The text in one line, then with every choice of one or two of its spaces as line breaks."""
    words = text.split(" ")
    for count in range(min(3, len(words))):
        for breaks in combinations(range(1, len(words)), count):
            edges = [0, *breaks, len(words)]
            yield "\n".join(" ".join(words[a:b]) for a, b in pairwise(edges))


@lru_cache(maxsize=4096)
def _line_width(line: str, bold: bool) -> float:
    extent = _renderer().get_text_width_height_descent(line or " ", _font(bold), False)
    return float(extent[0])


@cache
def _renderer() -> Any:
    _load()
    from matplotlib.backends.backend_agg import RendererAgg

    return cast("Any", RendererAgg)(8, 8, 72)


@cache
def _font(bold: bool) -> Any:
    _load()
    from matplotlib.font_manager import FontProperties

    return FontProperties(family=FONT, size=_MEASURED_AT, weight="bold" if bold else "normal")


@cache
def _glyphs() -> frozenset[int]:
    _load()
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(_font(False))).get_charmap())


def _load() -> None:
    from ollama_sweep.results.plots.shared import own_style

    own_style.load()
