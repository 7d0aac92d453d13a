"""The colours of a map: one odd cell does not rule them, and what is usual keeps them all."""

from __future__ import annotations

import pytest
from results_maker import result

from ollama_sweep.results.plots import PlotOptions
from ollama_sweep.results.plots.shared import field, heatmap_data, heatmap_legend
from ollama_sweep.results.plots.shared.scale import scale_of

USUAL = [300.0 + step for step in range(0, 32, 2)]


@pytest.mark.parametrize(
    ("values", "ends", "beyond"),
    [
        ([*USUAL, 3000.0], (300, 330), (0, 1)),
        ([*USUAL, 2.0], (300, 330), (1, 0)),
        ([*USUAL, 2.0, 3000.0], (300, 330), (1, 1)),
        ([-4000.0, *USUAL], (300, 330), (1, 0)),
        ([*USUAL * 3, 3000.0, 9000.0], (300, 330), (0, 2)),
        (USUAL, (300, 330), (0, 0)),
        ([10.0, 300.0, 310.0, 320.0], (10, 320), (0, 0)),  # a small grid in which every cell is a row of its own
        ([float(2**n) for n in range(12)], (1, 2048), (0, 0)),  # memory that doubles with the context
        ([100.0, 110.0, 120.0, 900.0, 910.0, 920.0], (100, 920), (0, 0)),  # two halves, each with a right to colours
        ([7.0] * 9 + [8.0], (7, 8), (0, 0)),
        ([5.0], (4, 5), (0, 0)),
        ([], (0, 1), (0, 0)),
    ],
)
def test_the_colours_go_as_far_as_what_is_usual(
    values: list[float], ends: tuple[float, float], beyond: tuple[int, int]
) -> None:
    found = scale_of(sorted(values), 1)
    assert (found.low, found.high) == ends
    assert (found.below, found.above) == beyond


def test_a_lone_value_has_the_colour_of_the_best() -> None:
    assert scale_of([5.0], 1).share(5.0) == 1
    assert scale_of([5.0], -1).share(5.0) == 0


@pytest.mark.parametrize("odd", [3000.0, 3.0])
def test_the_legend_says_where_the_colours_end(odd: float) -> None:
    """In a small map and in one of very many cells."""
    cells = [result(1024 * (n // 4 + 1), 64 * (n % 4 + 1), value) for n, value in enumerate([*USUAL[:15], odd])]
    (data,) = heatmap_data.collect(cells, PlotOptions())
    end, word = ("328", "above") if odd > 1000 else ("300", "below")
    words = f"the colours end at {end} tokens/s: 1 cell lies {word}, at {data.metric.text(odd)}"
    assert words in [entry.text for entry in heatmap_legend.entries(data)]
    assert words in [entry.text for entry in field.entries(field.of_marks(data))]
    assert not heatmap_legend.beyond(heatmap_data.collect(cells[:15], PlotOptions())[0].scale, data.metric)
