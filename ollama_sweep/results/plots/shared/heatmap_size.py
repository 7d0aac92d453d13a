"""How large a heatmap is: inches by a fixed rule that people rely on, and pixels that have a limit. Pure."""

from __future__ import annotations

from dataclasses import dataclass

BEST_DPI = 150.0
MOST_PIXELS, MOST_PIXELS_WIDE = 12_000_000, 30_000
FEWEST_HIGH, FEWEST_WIDE = 900, 3000
"""What the titles, the axes and the legend need, in pixels."""


def inches(columns: int, rows: int) -> tuple[float, float]:
    """The figure's size: 0.8 inches a column and 0.4 a row, at least 20 × 6."""
    return max(20.0, columns * 0.8), max(6.0, rows * 0.4)


@dataclass(frozen=True)
class Pixels:
    """The size of a picture in pixels, and how many there are to the inch across and down."""

    wide: int
    high: int
    dpi: tuple[float, float]


def is_large(size: tuple[float, float]) -> bool:
    """At the best resolution the picture would have too many pixels to be drawn, or opened, in little memory."""
    wide, high = (side * BEST_DPI for side in size)
    return wide * high > MOST_PIXELS or max(wide, high) > MOST_PIXELS_WIDE


def bounded(size: tuple[float, float]) -> Pixels:
    """The pixels of a picture of so many inches: fewer to the inch where it is large.

    They are as many across as down unless one side would be too thin to be read.
    """
    wide, high = size
    dpi = min(BEST_DPI, MOST_PIXELS_WIDE / max(wide, high), (MOST_PIXELS / (wide * high)) ** 0.5)
    across, down = max(FEWEST_WIDE, wide * dpi), max(FEWEST_HIGH, high * dpi)
    if across * down > MOST_PIXELS:
        across, down = min(across, MOST_PIXELS / FEWEST_HIGH), min(down, MOST_PIXELS / FEWEST_WIDE)
    return Pixels(round(across), round(down), (round(across) / wide, round(down) / high))
