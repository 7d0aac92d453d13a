"""The further pictures of a page: each as an address that holds its SVG, so that a page asks for nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ollama_sweep.core.outcome import Status
from ollama_sweep.results.page.gathering import Gathered
from ollama_sweep.results.page.view import Picture, options_of
from ollama_sweep.results.plots.shared.text import FONT

MOST_PICTURES = 12
FONTS = f"'{FONT}',Verdana,sans-serif"
_COMMENTS = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
_LONG_NUMBERS = re.compile(r"(\d+\.\d\d)\d+")


def pictures(gathered: Gathered) -> tuple[list[Picture], list[str]]:
    """The pictures that say something of this sweep, and what is said of those that are left out."""
    found: list[Picture] = []
    left_out = 0
    for name, title, make in _makers(gathered):
        if len(found) == MOST_PICTURES:
            left_out += 1
            continue
        found.append(Picture(name, title, _address(make)))
    words = [f"{left_out} further pictures are left out: ollama-sweep plot all draws them."] if left_out else []
    return found, words


def _makers(gathered: Gathered) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    from ollama_sweep.results.plots import best_batch, concurrency, drift, pareto

    options, cells = options_of(gathered), gathered.cells
    if not gathered.is_large and any(cell.status is Status.OK for cell in cells):
        for best in best_batch.collect(cells, options):
            if not best.notice and len(best.contexts) > 1:
                yield "best_batch", best.title, partial(best_batch.make_figure, best)
        for front in pareto.collect(cells, options):
            if not front.notice and len(front.front) + len(front.rest) > 1:
                yield f"pareto_{front.what}", front.title, partial(pareto.make_figure, front)
        if concurrency.is_about(cells):
            for lines in concurrency.collect(cells, options):
                yield "concurrency", lines.title, partial(concurrency.make_figure, lines)
    if len(gathered.points) > 1:
        row = gathered.row
        control = drift.Controls(row.name, gathered.points, row.machine, gathered.spreads.get("prompt_eval_rate"))
        for drifted in drift.collect([control], options):
            yield "drift", drifted.title, partial(drift.make_figure, drifted)


def _address(make: Callable[[], Any]) -> str:
    from ollama_sweep.results.plots.shared import figures

    text = figures.picture(make, "svg", is_plain=True).decode().replace(f"'{FONT}'", FONTS)
    short = _LONG_NUMBERS.sub(r"\1", _COMMENTS.sub("", text))
    return "data:image/svg+xml;base64," + base64.b64encode(re.sub(r"\s*\n\s*", "\n", short).encode()).decode()
