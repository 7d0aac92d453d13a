"""Large grids: their pictures have a limit in pixels and say the same as those of small ones."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import gc
import gzip
import io
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from matplotlib.colors import Normalize
from ollama_fixture import ROOT
from PIL import Image
from results_maker import Machine, Recipe, make
from sweeping import Program, program

from ollama_sweep.core.outcome import CellResult, Flag, Status
from ollama_sweep.results import pictures
from ollama_sweep.results.large import columns
from ollama_sweep.results.large import files as large
from ollama_sweep.results.plots import PlotOptions, heatmap
from ollama_sweep.results.plots.heatmap import HeatmapData, Kind
from ollama_sweep.results.plots.shared import field, field_drawing, figures, heatmap_cells, heatmap_figure, heatmap_size
from ollama_sweep.results.plots.shared.heatmap_legend import Look
from ollama_sweep.store.reader import Reader


def grid(across: int, down: int) -> list[CellResult]:
    """A grid with a frontier, and one cell of each further kind."""
    special = {
        (2048, 8): (Status.STARTED, ""),
        (2048, 16): (Status.SKIPPED, "does_not_fit"),
        (2048, 24): (Status.PENDING, ""),
    }
    machine = Machine(weights=20e9, kv_per_token=3e9 / (2048 + 64 * across), buffer_per_token=2e9 / (8 * down))
    return make(Recipe(range(2048, 2048 + 64 * across, 64), range(8, 8 + 8 * down, 8), machine, special=special))


@cache
def very_many() -> HeatmapData:
    """More cells than can have a number each."""
    return data_of(grid(150, 150))


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """What fills memory would be copied for every child that later tests fork."""
    yield
    very_many.cache_clear()
    gc.collect()


def data_of(cells: list[CellResult]) -> HeatmapData:
    (data,) = heatmap.collect(cells, PlotOptions(sweep="large"))
    return data


@pytest.mark.parametrize(
    ("across", "down"),
    [(4, 4), (39, 16), (40, 40), (41, 60), (100, 100), (1000, 1000), (1_000_000, 1), (1, 1_000_000), (5000, 200)],
)
def test_pixels_have_a_limit_and_inches_follow_the_rule(across: int, down: int) -> None:
    inches = heatmap_size.inches(across, down)
    assert inches == (max(20, across * 0.8), max(6, down * 0.4))
    found = heatmap_size.bounded(inches)
    assert (found.wide / found.dpi[0], found.high / found.dpi[1]) == pytest.approx(inches)
    assert found.wide * found.high <= heatmap_size.MOST_PIXELS * 1.01
    assert found.wide >= heatmap_size.FEWEST_WIDE
    assert found.high >= heatmap_size.FEWEST_HIGH
    if not heatmap_size.is_large(inches):
        assert found.dpi == pytest.approx((150, 150), rel=0.001)


def test_a_large_picture_has_its_pixels_and_says_its_inches() -> None:
    data = data_of(grid(60, 60))
    image = Image.open(io.BytesIO(heatmap.picture(data)))
    found = heatmap_size.bounded(data.size_inches)
    assert image.size == (found.wide, found.high)
    assert np.array(image.size) / image.info["dpi"] == pytest.approx(data.size_inches, rel=0.001)


def test_a_field_says_what_the_marks_say() -> None:
    cells = grid(12, 10)
    cells[50] = replace(cells[50], flags=frozenset({Flag.NOISY, Flag.CLAMPED}))
    data = data_of(cells)
    made = field.of_marks(data)
    for (x, y), mark in data.cells.items():
        place = data.rows.index(y), data.columns.index(x)
        assert field.KINDS[made.kinds[place]] is mark.kind
        assert bool(made.tied[place]) is mark.tied
        assert {flag for flag in Flag if made.has(flag)[place]} == mark.flags
        assert made.values[place] == mark.value or (mark.value is None and np.isnan(made.values[place]))
    looks = [entry.look for entry in field.entries(made)]
    assert {Look.BEST, Look.FAILED, Look.SKIPPED, Look.RUNNING, Look.PENDING, Look.SPILLED, Look.CLAMPED} <= set(looks)
    assert any(entry.symbol == field.FRONTIER for entry in field.entries(made))


@pytest.mark.parametrize("pixels", [(700, 900), (10, 12), (5, 12)])
def test_kinds_of_cells_look_different_and_the_frontier_is_drawn(pixels: tuple[int, int]) -> None:
    """Also where several cells share a pixel."""
    from matplotlib import colormaps

    data = data_of(grid(12, 10))
    made = field.of_marks(data)
    image = field_drawing.raster(made, Normalize(0, 3000), colormaps["viridis"], pixels)
    assert image.shape == (*pixels, 4)
    colours = {tuple(colour) for colour in image.reshape(-1, 4)[:, :3].tolist()}
    frontier = field_drawing._rgb(heatmap_cells.DARK_RED)
    assert frontier in colours
    if pixels[0] > 100:
        for colour in (heatmap_cells.PALE_RED, heatmap_cells.RED, heatmap_cells.GREY, heatmap_cells.BLUE):
            assert field_drawing._rgb(colour) in colours


def test_a_number_stands_in_each_cell_only_where_it_can_be_read() -> None:
    for data, is_labelled in ((data_of(grid(50, 50)), True), (very_many(), False)):
        make_figure, _, _ = heatmap_figure.plan(data, "png", None)
        with figures.style():
            artists = make_figure().axes[0].get_children()
        found = [one for one in artists if isinstance(one, field_drawing._Labels)]
        assert len(found) == is_labelled
        for labels in found:
            assert {one.text for one in labels._texts} >= {
                mark.label for mark in data.marked(Kind.MEASURED)[:50] if not mark.best
            }


def test_ticks_have_a_limit_and_name_the_best() -> None:
    data = very_many()
    make_figure, _, _ = heatmap_figure.plan(data, "png", None)
    with figures.style():
        axes = make_figure().axes[0]
    (best,) = [place for place, mark in data.cells.items() if mark.best]
    for axis, value, most in ((axes.xaxis, best[0], 150), (axes.yaxis, best[1], 150)):
        labels = axis.get_ticklabels()
        assert len(labels) < most
        assert [label.get_text() for label in labels if label.get_fontweight() == "bold"] == [str(value)]


# -- rows that are never all in memory -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every task, many dimensions, failures and flags."""
    path = tmp_path_factory.mktemp("many") / "sweeps.db"
    path.write_bytes(gzip.decompress((ROOT / "tests/data/schema_2/sweeps.db.gz").read_bytes()))
    return path


def test_columns_say_what_rows_say(database: Path, tmp_path: Path) -> None:
    with Reader.open(database) as reader:
        for row in reader.sweeps():
            results = list(reader.results(row.sweep_id))
            tokens = row.spec.get("prompt_tokens") or None
            options = PlotOptions(sweep=row.name, machine=row.machine, prompt_tokens=tokens)  # type: ignore[arg-type]
            parts = list(columns.parts_of(columns.read(reader, row), row.machine))
            for data, part in zip(heatmap.collect(results, options), parts, strict=True):
                made, found = field.of_marks(data), part.field
                assert part.drawn() == data
                assert (found.about.title, found.about.facts) == (data.title, data.facts)
                assert (found.about.columns, found.about.rows) == (data.columns, data.rows)
                assert field.entries(found) == field.entries(made)
                assert (found.best, found.notice) == (made.best, made.notice)
                for name in ("kinds", "values", "flags", "tied"):
                    assert np.array_equal(getattr(found, name), getattr(made, name), equal_nan=name == "values")
            saved = large.save_tables(reader, row, parts, tmp_path / "many")
            expected = pictures.save_tables(results, tmp_path / "few")
            assert [(path.name, path.read_bytes()) for path in saved] == [(p.name, p.read_bytes()) for p in expected]


def test_a_sweep_of_very_many_cells_ends_like_a_small_one(program: Program) -> None:
    config = program.grid()
    small = program("run", config).must().stdout
    tables = {path.name: path.read_bytes() for path in (program.folder / "heatmaps/grid").glob("*.csv")}
    with mock.patch.multiple(pictures, MANY=0, FROM_COLUMNS=0), mock.patch.object(heatmap_figure, "write") as write:
        large = program("run", config).must().stdout
        files = program("heatmap", config).must().stdout.split()
    assert write.call_count == 1
    best = next(line for line in small.splitlines() if line.startswith("Best: "))
    assert best in large
    assert "Picture: heatmaps/grid/heatmap_highlighted.png" in large
    assert files == [
        f"heatmaps/grid/{name}" for name in ("heatmap_highlighted.png", "results_table.csv", "results.csv")
    ]
    assert {path.name: path.read_bytes() for path in (program.folder / "heatmaps/grid").glob("*.csv")} == tables
