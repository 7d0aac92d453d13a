"""Colours of a map as a page writes them: matplotlib's viridis, without matplotlib. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

VIRIDIS = ("#440154", "#481a6c", "#472f7d", "#414487", "#39568c", "#31688e", "#2a788e", "#23888e", "#1f988b",
           "#22a884", "#35b779", "#54c568", "#7ad151", "#a5db36", "#d2e21b", "#fde725")  # fmt: skip
"""From dark to bright; people with any kind of colour blindness see the order, and so does a printer."""
DARK, BRIGHT = "#1c1c1c", "#ffffff"


def colour(share: float, better: int) -> str:
    """The colour of a value that stands so far (0 to 1) in the scale: bright is good where less is better, too."""
    return between(VIRIDIS, 1 - share if better < 0 else share)


def between(colours: Sequence[str], share: float) -> str:
    """The colour so far along these, mixed of its two neighbours."""
    place = share * (len(colours) - 1)
    first = min(int(place), len(colours) - 2)
    low, high = _parts(colours[first]), _parts(colours[first + 1])
    mixed = (round(a + (b - a) * (place - first)) for a, b in zip(low, high, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def lighter(colour: str) -> str:
    """Two thirds of the way to white: what was not measured itself."""
    return "#" + "".join(f"{round(part + (255 - part) * 0.72):02x}" for part in _parts(colour))


@lru_cache(maxsize=1024)
def ink(colour: str) -> str:
    """Dark or bright type, whichever has more contrast with it (WCAG luminance)."""
    parts = [part / 255 for part in _parts(colour)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return DARK if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 else BRIGHT


def _parts(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
