"""Cells that nobody measured, in the picture of a sweep with a goal: what is said of them, and where nothing is."""

from __future__ import annotations

from dataclasses import replace

from results_maker import result

from ollama_sweep.core.outcome import CellResult, Flag, Status
from ollama_sweep.results.pictures import results_tables
from ollama_sweep.results.plots import PlotOptions
from ollama_sweep.results.plots.heatmap import HeatmapData, Kind, collect
from ollama_sweep.results.plots.shared.heatmap_cells import lighter, readable
from ollama_sweep.results.plots.shared.heatmap_legend import Look, entries

CONTEXTS, BATCHES = (2048, 4096, 8192, 16384), (32, 64, 128, 256, 512)
MEASURED = {(2048, 32), (2048, 512), (4096, 128), (8192, 64), (16384, 256), (16384, 32), (8192, 512)}


def rate(num_ctx: int, num_batch: int) -> float:
    return 800 / (1 + 60 / num_batch) * (1 - 0.1 * num_ctx / 16384)


def cells(measured: set[tuple[int, int]] = MEASURED) -> list[CellResult]:
    return [result(ctx, batch, rate(ctx, batch) if (ctx, batch) in measured else None)
            for ctx in CONTEXTS for batch in BATCHES]  # fmt: skip


def picture(results: list[CellResult], *, predicts: bool = True, metric: str | None = None) -> HeatmapData:
    (data,) = collect(results, PlotOptions(predicts=predicts, metric=metric))
    return data


def test_a_sweep_with_a_goal_shows_what_is_likely_lighter_with_its_interval_and_never_as_a_row() -> None:
    data = picture(cells())
    likely = data.marked(Kind.PREDICTED)
    assert len(likely) == len(CONTEXTS) * len(BATCHES) - len(MEASURED)
    held = 0
    for place, mark in data.cells.items():
        if mark.kind is Kind.PREDICTED:
            assert mark.value is None
            assert mark.predicted is not None
            low, high = (float(end) for end in mark.detail.split("–"))
            assert low < mark.predicted < high
            held += low <= rate(int(str(place[0])), int(str(place[1]))) <= high
    assert held >= 0.9 * len(likely)
    (entry,) = [entry for entry in entries(data) if entry.look is Look.PREDICTED]
    assert "assuming a smooth surface (13)" in entry.text
    assert "13" not in data.progress.text()
    (table,) = results_tables(cells()).values()
    assert table.splitlines()[1].split(",")[2] == ""


def test_nothing_is_predicted_without_a_goal_of_too_few_cells_or_of_other_metrics() -> None:
    few = {(2048, 32), (2048, 512), (4096, 128)}
    for data in (picture(cells(), predicts=False), picture(cells(few)), picture(cells(), metric="runs")):
        assert not data.marked(Kind.PREDICTED)
        assert data.marked(Kind.PENDING)


def test_what_most_likely_does_not_fit_whole_is_not_predicted() -> None:
    spilled = [replace(cell, flags=frozenset({Flag.SPILLED})) if cell.coordinates["num_ctx"] == 8192 else cell
               for cell in cells()]  # fmt: skip
    small = cells({(2048, 32), (2048, 512), (4096, 128), (2048, 128)})
    oom = [replace(cell, status=Status.OOM) if cell.coordinates == {"num_ctx": 8192, "num_batch": 64} else cell
           for cell in small]  # fmt: skip
    for results in (spilled, oom):
        likely = {place for place, mark in picture(results).cells.items() if mark.kind is Kind.PREDICTED}
        assert likely
        assert (16384, 512) not in likely
        assert (2048, 256) in likely


def test_the_colour_of_a_predicted_cell_is_lighter_and_dark_type_is_readable_on_it() -> None:
    for colour in ((0.27, 0.0, 0.33), (0.13, 0.57, 0.55), (0.99, 0.91, 0.14)):
        light = lighter(colour)
        assert all(one >= other for one, other in zip(light, colour, strict=True))
        assert readable(light) != "#ffffff"
