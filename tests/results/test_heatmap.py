"""The heatmap: what it says (collected data) and that it is drawn so that people can read it."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps, pyplot, rcParams
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image
from results_maker import GPU, Machine, Recipe, large, make, ranged, result

from ollama_sweep.core.errors import ConfigError, StorageError
from ollama_sweep.core.outcome import CellResult, Flag, Status
from ollama_sweep.results import plots
from ollama_sweep.results.plots import PlotOptions, heatmap
from ollama_sweep.results.plots.heatmap import HeatmapData, Kind, collect, render, save_all
from ollama_sweep.results.plots.shared import heatmap_drawing
from ollama_sweep.results.plots.shared.heatmap_cells import readable
from ollama_sweep.results.plots.shared.heatmap_legend import SYMBOLS, Look, entries

OPTIONS = PlotOptions(sweep="default", machine=GPU)
SMALL = Machine(peak_rate=420, half_batch=30, prompt_tokens=512, weights=2e8, kv_per_token=23e3, buffer_per_token=3e5)
ALL_OOM = Recipe(special={(x, y): (Status.OOM, "cuda_oom") for x in (2048, 4096, 8192) for y in (64, 128, 256)})
HALF_DONE = (32768, 110592, 71680, 51200, 90112, 43008)


def one(results: list[CellResult], options: PlotOptions = OPTIONS) -> HeatmapData:
    (data,) = collect(results, options)
    return data


def every_look() -> list[CellResult]:
    """A grid with every kind of cell, every flag, and places that are not part of the sweep."""
    special = {
        (2048, 16): (Status.STARTED, ""),
        (4096, 1): (Status.CRASHED, ""),
        (1024, 64): (Status.RESOURCE, ""),
        (2048, 4): (Status.ERROR, "create"),
        (8192, 1): (Status.TIMEOUT, ""),
    }
    recipe = Recipe(
        (512, 1024, 2048, 4096, 8192), (1, 4, 16, 64, 256, 1024), SMALL, model="vendor/$odd$ 模型:1.5b",
        special=special,
        measured=lambda x, y: x < 8192 or y < 64,
    )  # fmt: skip
    cells = [cell for cell in make(recipe) if cell.coordinates != {"num_ctx": 8192, "num_batch": 1024}]
    measured = [number for number, cell in enumerate(cells) if cell.status is Status.OK]
    for number, flag in zip(measured, Flag, strict=False):
        cells[number] = replace(cells[number], flags=frozenset({flag}))
    cells[measured[-1]] = replace(cells[measured[-1]], flags=frozenset({Flag.CACHED}), metrics={})
    return cells


SWEEPS: dict[str, Callable[[], list[CellResult]]] = {
    "3x3": lambda: make(Recipe((512, 2048, 4096), (128, 256, 4096), SMALL)),
    "39x16": large,
    "half done": lambda: large(lambda x, y: x in HALF_DONE),
    "one row": lambda: make(Recipe(range(32768, 110593, 2048), (512,), Machine(weights=17.2e9))),
    "one column": lambda: make(Recipe((4096,), range(128, 2049, 128), Machine(weights=17.2e9))),
    "1x1": lambda: make(Recipe((4096,), (256,), SMALL)),
    "all failed": lambda: make(ALL_OOM),
    "none measured": lambda: make(Recipe(measured=lambda x, y: False)),
    "no cells": list,
    "every look": every_look,
    "60 rows": lambda: make(Recipe((4096, 8192), range(64, 64 * 61, 64), Machine(weights=17.2e9))),
}


# --- what it says


def test_columns_are_num_ctx_and_rows_num_batch_both_ascending() -> None:
    data = one([result(x, y) for x in (8192, 1024, 16384) for y in (256, 4, 64)])
    assert data.columns == (1024, 8192, 16384)
    assert data.rows == (4, 64, 256)


def test_the_best_and_what_is_tied_with_it() -> None:
    cells = [ranged(1, 1, 331, 322, 335), ranged(1, 2, 325, 318, 322), ranged(1, 3, 300, 299, 301)]
    marks = one(cells).cells
    assert [(mark.best, mark.tied) for mark in marks.values()] == [(True, False), (False, True), (False, False)]
    assert marks[1, 1].label == "331"
    assert marks[1, 1].detail == "322–335, 3 runs"


def test_the_interval_stands_in_the_cell_and_how_sure_it_is_in_the_legend() -> None:
    rate = {"prompt_eval_rate": 331.0, "prompt_eval_rate_min": 1.0, "prompt_eval_rate_max": 999.0, "runs": 9.0,
            "prompt_eval_rate_low": 325.0, "prompt_eval_rate_high": 334.0}  # fmt: skip
    data = one([result(1, 1, metrics=rate), result(1, 2, 100.0)])
    assert [(mark.detail, mark.tied) for mark in data.cells.values()] == [("325–334, 9 runs", False), ("3 runs", False)]
    assert entries(data)[0].text == "best: num_ctx 1, num_batch 1: 331 tokens/s (325–334 at 95 %, 9 runs)"


def test_runs_are_named_only_for_what_every_run_has() -> None:
    cells = make(Recipe((1024,), (64,), SMALL))
    (rate,) = one(cells, replace(OPTIONS, metric="eval_rate")).cells.values()
    (load,) = one(cells, replace(OPTIONS, metric="load_duration_s")).cells.values()
    assert (rate.detail, load.detail) == ("3 runs", "")


@pytest.mark.parametrize(
    ("status", "reason", "kind", "label"),
    [
        (Status.OOM, "cuda_oom", Kind.FAILED, "CUDA OOM"),
        (Status.OOM, "", Kind.FAILED, "OOM"),
        (Status.RESOURCE, "", Kind.FAILED, "CUDA resource allocation error"),
        (Status.TIMEOUT, "", Kind.FAILED, "Timeout or no output"),
        (Status.TRUNCATED, "", Kind.FAILED, "Truncated"),
        (Status.CRASHED, "", Kind.FAILED, "Crashed"),
        (Status.PARSE_ERROR, "", Kind.FAILED, "Parse error"),
        (Status.ERROR, "create", Kind.FAILED, "Create failed"),
        (Status.SKIPPED, "does_not_fit", Kind.SKIPPED, "Does not fit"),
        (Status.STARTED, "", Kind.RUNNING, "running"),
        (Status.PENDING, "", Kind.PENDING, ""),
        (Status.INTERRUPTED, "", Kind.PENDING, ""),
        (Status.DISCARDED, "", Kind.PENDING, ""),
    ],
)
def test_a_cell_without_a_number_says_why(status: Status, reason: str, kind: Kind, label: str) -> None:
    mark = one([result(1, 1, 999.0, status=status, reason=reason), result(1, 2)]).cells[1, 1]
    assert (mark.kind, mark.label, mark.value, mark.best) == (kind, label, None, False)


def test_a_measured_cell_without_a_believed_number_is_not_grey() -> None:
    cached = result(1, 1, status=Status.OK, metrics={}, flags=frozenset({Flag.CACHED}))
    marks = one([cached, result(1, 2), result(1, 3, status=Status.OK, metrics={"runs": 1.0})]).cells
    assert (marks[1, 1].kind, marks[1, 1].label) == (Kind.MEASURED, "cached")
    assert (marks[1, 3].kind, marks[1, 3].label) == (Kind.MEASURED, "no value")


def test_a_batch_that_the_prompt_does_not_fill_is_marked() -> None:
    marks = one(make(Recipe((4096,), (256, 512, 1024), SMALL))).cells
    assert [Flag.UNFILLED in marks[4096, y].flags for y in (256, 512, 1024)] == [False, False, True]
    taken = [result(1, batch, flags=frozenset({Flag.IMPORTED})) for batch in (68, 69)]
    told = one(taken, replace(OPTIONS, prompt_tokens=64))
    assert [Flag.UNFILLED in mark.flags for mark in told.cells.values()] == [False, True]


def test_title_and_facts_name_model_sweep_machine_and_progress() -> None:
    data = one(large())
    assert data.title == "nemotron_f: Prompt processing speed in tokens/s (higher is better)"
    assert data.facts[0] == "535 of 624 measured, 89 failed"
    assert {"sweep default", "prompt of 1800 tokens", GPU} <= set(data.facts)


def test_an_interim_picture_counts_what_is_there() -> None:
    data = one(large(lambda x, y: x in HALF_DONE))
    assert data.progress.text() == "81 of 624 measured, 15 failed"
    assert len(data.marked(Kind.PENDING)) == 624 - 96


def test_one_picture_for_each_combination_of_the_other_dimensions() -> None:
    cells = [cell for gpu in (0, 99) for cell in make(Recipe(other={"num_gpu": gpu, "kv_cache_type": "q8_0"}))]
    pictures = collect(cells, OPTIONS)
    assert [data.combination for data in pictures] == [
        (("num_gpu", 0), ("kv_cache_type", "q8_0")),
        (("num_gpu", 99), ("kv_cache_type", "q8_0")),
    ]
    assert all(len(data.cells) == 9 for data in pictures)
    assert "num_gpu 99, kv_cache_type q8_0" in pictures[1].facts


def test_models_are_kept_apart_even_where_they_are_no_dimension() -> None:
    pictures = collect([result(1, 1), result(1, 1, 50.0, model="other")], OPTIONS)
    assert [data.model for data in pictures] == ["smollm2", "other"]


def test_a_measured_cell_stands_before_an_imported_one_of_the_same_place() -> None:
    imported = result(1, 1, 999.0, flags=frozenset({Flag.IMPORTED}))
    for cells in ([imported, result(1, 1, 300.0)], [result(1, 1, 300.0), imported]):
        assert one(cells).cells[1, 1].value == 300.0


def test_a_missing_dimension_is_one_column() -> None:
    cells = [result(0, y, coordinates={"num_batch": y}) for y in (64, 128)]
    data = one(cells)
    assert (data.columns, data.rows) == ((None,), (64, 128))


@pytest.mark.parametrize(("metric", "best"), [("load_duration_s", 1024), ("size_vram_bytes", 1024), ("runs", None)])
def test_lower_is_better_for_times_and_sizes_and_neither_for_counts(metric: str, best: int | None) -> None:
    cells = make(Recipe((1024, 2048, 4096), (64,), SMALL))
    marks = one(cells, replace(OPTIONS, metric=metric)).cells
    assert next((place[0] for place, mark in marks.items() if mark.best), None) == best


def test_an_unknown_metric_names_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown metric eval_rat\. Known: .*prompt_eval_rate.* Did you mean eval_rate\?"
    ):
        collect(make(), replace(OPTIONS, metric="eval_rat"))


@pytest.mark.parametrize("name", ['x"; DROP TABLE', "", "a" * 41, "a-b", "ä"])
def test_what_cannot_be_a_metric_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"only letters, digits and _ \(max 40\)"):
        collect(make(), replace(OPTIONS, metric=name))


def test_before_the_first_number_the_known_metrics_are_accepted() -> None:
    nothing = SWEEPS["none measured"]()
    assert one(nothing, replace(OPTIONS, metric="eval_rate")).notice == "no measured cells yet"
    with pytest.raises(ConfigError, match="unknown metric"):
        collect(nothing, replace(OPTIONS, metric="speed"))


@pytest.mark.parametrize(
    ("name", "notice"),
    [
        ("none measured", "no measured cells yet"),
        ("no cells", "no measured cells yet"),
        ("all failed", ""),
        ("3x3", ""),
    ],
)
def test_a_picture_without_numbers_says_so(name: str, notice: str) -> None:
    assert one(SWEEPS[name]()).notice == notice


def test_a_metric_that_no_cell_has_says_so() -> None:
    assert one([result(1, 1, metrics={"runs": 1.0})]).notice == "no measured cell has a prompt_eval_rate"


# --- the legend


def test_the_legend_has_only_what_occurs() -> None:
    looks = [entry.look for entry in entries(one(make(Recipe((1024, 2048), (64,), SMALL))))]
    assert set(looks) <= {Look.BEST, Look.TIED}
    assert [entry.text for entry in entries(one(make(ALL_OOM)))] == ["failed: CUDA OOM (9)"]
    assert [entry.text for entry in entries(one(SWEEPS["none measured"]()))] == ["not measured yet (9)"]


def test_the_legend_explains_every_look() -> None:
    found = entries(one(every_look()))
    assert {entry.look for entry in found} == set(Look) - {Look.PREDICTED}, "that one needs a sweep with a goal"
    assert found[0].text.startswith("best: num_ctx ")
    assert {entry.symbol for entry in found} == {"", *SYMBOLS.values()}


# --- how it is drawn


def drawn(data: HeatmapData) -> tuple[Figure, Any]:
    with heatmap_drawing.style():
        figure = heatmap_drawing.make_figure(data)
        figure.set_dpi(heatmap_drawing.sensible_dpi(data))
        figure.draw_without_rendering()
    return figure, figure.axes[0]


@cache
def drawn_sweep(name: str) -> tuple[Figure, Any]:
    """One of the sweeps above, drawn once for all tests that only look at it."""
    return drawn(one(SWEEPS[name]()))


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """Half a gigabyte of pictures would be copied for every child that later tests fork."""
    yield
    drawn_sweep.cache_clear()
    gc.collect()


def visible_texts(figure: Figure) -> list[Text]:
    found = [artist for artist in figure.findobj(Text) if isinstance(artist, Text)]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize("name", SWEEPS)
def test_the_size_follows_the_rule_exactly(name: str) -> None:
    data = one(SWEEPS[name]())
    figure, _ = drawn_sweep(name)
    assert tuple(figure.get_size_inches()) == (max(20, len(data.columns) * 0.8), max(6, len(data.rows) * 0.4))


@pytest.mark.parametrize(("name", "pixels"), [("3x3", (800, 240)), ("39x16", (1248, 256))])
def test_the_file_has_the_size_of_the_figure(name: str, pixels: tuple[int, int]) -> None:
    assert Image.open(io.BytesIO(heatmap.picture(one(SWEEPS[name]()), dpi=40))).size == pixels


def test_the_largest_usual_picture_stays_below_5000_pixels() -> None:
    data = one(large())
    assert data.size_inches == (39 * 0.8, 16 * 0.4)
    assert data.size_inches[0] * heatmap_drawing.sensible_dpi(data) < 5000


@pytest.mark.parametrize("name", SWEEPS)
def test_no_text_overlaps_another_or_leaves_the_picture(name: str) -> None:
    figure, _ = drawn_sweep(name)
    boxes = [(text.get_text(), tuple(text.get_window_extent().extents)) for text in visible_texts(figure)]
    outside = [text for text, box in boxes if not _inside(np.array(box), figure.bbox.extents)]
    overlapping = [(first, second) for (first, a), (second, b) in combinations(boxes, 2) if _overlap(a, b)]
    assert boxes
    assert outside == []
    assert overlapping == []


@pytest.mark.parametrize("name", [name for name in SWEEPS if name != "no cells"])
def test_every_label_stays_inside_its_cell(name: str) -> None:
    data = one(SWEEPS[name]())
    _, axes = drawn_sweep(name)
    for text in axes.texts:
        if text.get_transform() != axes.transData or text.get_text() == data.notice:
            continue
        x, y = text.get_position()
        cell = axes.transData.transform([(int(x), int(y) + 1), (int(x) + 1, int(y))]).ravel()
        assert _inside(text.get_window_extent().extents, cell), text.get_text()


def test_every_value_and_every_failure_is_written() -> None:
    data = one(large())
    _, axes = drawn_sweep("39x16")
    written = [text.get_text().replace("\u00a0", " ").replace("\n", " ") for text in axes.texts]
    values = [mark for mark in data.cells.values() if mark.value is not None]
    assert sum(text.removeprefix("★ ").isdigit() for text in written) == len(values)
    assert written.count("✗ CUDA OOM") == 85
    assert written.count("✗ Crashed") == 1
    assert sum(text.startswith("★ ") for text in written) == 1
    assert min(text.get_fontsize() for text in axes.texts) >= 5.8


def test_failures_have_a_red_dashed_border() -> None:
    _, axes = drawn_sweep("all failed")
    dashed = [
        patch for patch in rectangles(axes) if patch.get_edgecolor()[:3] == pytest.approx((0.8157, 0, 0), abs=1e-3)
    ]
    assert len(dashed) == 9
    assert all(patch.get_linestyle() not in ("-", "solid") for patch in dashed)


def test_spilled_and_clamped_cells_have_different_hatches() -> None:
    flags = {1: frozenset({Flag.SPILLED}), 2: frozenset({Flag.CLAMPED}), 3: frozenset(Flag), 4: frozenset[Flag]()}
    _, axes = drawn(one([result(1, y, 100.0 + y, flags=flags[y]) for y in flags]))
    hatched = [(int(patch.get_y()) + 1, patch.get_hatch()) for patch in rectangles(axes) if patch.get_hatch()]
    assert hatched == [(1, "////"), (2, "...."), (3, "////"), (3, "....")]


def test_the_best_has_the_thickest_outline_and_its_ticks_are_bold() -> None:
    cells = [ranged(1024, 64, 331, 322, 335), ranged(1024, 128, 325, 318, 322), ranged(2048, 64, 200, 199, 201)]
    _, axes = drawn(one(cells))
    black = [patch for patch in rectangles(axes) if patch.get_edgecolor()[:3] == (0, 0, 0) and not patch.get_hatch()]
    assert sorted(patch.get_linewidth() for patch in black) == [1.5, 3.2]
    bold = [
        tick.get_text() for tick in axes.get_xticklabels() + axes.get_yticklabels() if tick.get_fontweight() == "bold"
    ]
    assert bold == ["1024", "64"]


def test_texts_are_readable_on_their_colour() -> None:
    _, axes = drawn_sweep("39x16")
    inks = {text.get_color() for text in axes.texts if text.get_text().isdigit()}
    assert len(inks) == 2
    for level in range(256):
        colour = colormaps[heatmap_drawing.COLOURS](level)
        assert contrast(colour[:3], readable(colour)) >= 4.0


def rectangles(axes: Any) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def contrast(colour: tuple[float, ...], ink: str) -> float:
    """The contrast of WCAG 2."""
    from matplotlib.colors import to_rgb

    def luminance(rgb: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(colour), luminance(to_rgb(ink))), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _inside(box: Any, room: Any) -> bool:
    """Boxes are (x0, y0, x1, y1) in pixels; half a pixel is nothing."""
    return bool(all(box[:2] >= room[:2] - 0.5) and all(box[2:] <= room[2:] + 0.5))


def _overlap(a: Any, b: Any) -> bool:
    ax0, ay0, ax1, ay1 = a
    bx0, by0, bx1, by1 = b
    return bool(ax0 < bx1 - 1 and bx0 < ax1 - 1 and ay0 < by1 - 1 and by0 < ay1 - 1)


# --- files


def test_the_files_are_named_after_metric_and_combination(tmp_path: Path) -> None:
    cells = [
        cell for name in ("qwen2:1.5b", "a/b") for cell in make(Recipe((1024,), (64,), SMALL, other={"model": name}))
    ]
    paths = save_all(cells, OPTIONS, tmp_path, dpi=20)
    assert [path.name for path in paths] == [
        "heatmap_highlighted_model-qwen2-1.5b.png",
        "heatmap_highlighted_model-a-b.png",
    ]
    (path,) = save_all(make(), replace(OPTIONS, metric="eval_rate"), tmp_path / "x", dpi=20)
    assert path == tmp_path / "x" / "heatmap_eval_rate.png"
    assert sorted(found.name for found in tmp_path.iterdir()) == sorted([*(path.name for path in paths), "x"])


def test_combinations_that_look_alike_get_files_of_their_own(tmp_path: Path) -> None:
    cells = [cell for name in ("a/b", "a:b") for cell in make(Recipe((1024,), (64,), SMALL, other={"model": name}))]
    assert len({path.name for path in save_all(cells, OPTIONS, tmp_path, dpi=20) if path.exists()}) == 2


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_suffix_chooses_the_format(tmp_path: Path, suffix: str, start: bytes) -> None:
    render(one(make()), tmp_path / f"map{suffix}", dpi=20)
    assert (tmp_path / f"map{suffix}").read_bytes().startswith(start)


def test_an_unknown_suffix_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.png, \.svg, \.pdf"):
        render(one(make()), tmp_path / "map.jpg")
    assert list(tmp_path.iterdir()) == []


def test_the_old_picture_survives_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "heatmap_highlighted.png"
    target.write_bytes(b"old")
    monkeypatch.setattr("ollama_sweep.machine.files.os.fsync", _no_space)
    with pytest.raises(StorageError, match="no space left"):
        render(one(make()), target, dpi=20)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def _no_space(number: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_picture_leaves_no_trace_in_the_process(tmp_path: Path) -> None:
    before = dict(rcParams)
    render(one(make()), tmp_path / "map.png", dpi=20)
    assert dict(rcParams) == before
    assert pyplot.get_fignums() == []


# --- the contract of every plot


OF_CELLS = [
    name
    for name in plots.known()
    if plots.takes(plots.load(name)) == plots.CELLS and name != "concurrency"  # which needs the dimension
]


@pytest.mark.parametrize("name", OF_CELLS)
@pytest.mark.parametrize("sweep", ["3x3", "1x1", "all failed", "none measured", "no cells"])
def test_every_plot_of_cells_draws_every_sweep(name: str, sweep: str) -> None:
    plot = plots.load(name)
    pictures = plot.collect(SWEEPS[sweep](), OPTIONS)
    assert pictures
    for data in pictures:
        axes = Figure(figsize=(20, 6)).add_subplot()
        plot.draw(data, axes)
        assert axes.texts


@pytest.mark.parametrize("sweep", ["3x3", "1x1", "all failed", "none measured", "no cells"])
def test_a_plot_over_a_dimension_refuses_a_sweep_without_it(sweep: str) -> None:
    with pytest.raises(ConfigError, match="no cell has concurrency as a dimension"):
        plots.load("concurrency").collect(SWEEPS[sweep](), OPTIONS)


def test_an_unknown_plot_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"unknown plot heatmop\. Known: .*heatmap.* Did you mean heatmap\?"):
        plots.load("heatmop")
