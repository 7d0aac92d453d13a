"""Pictures of lines and points: the best num_batch, speed against its price, drift, one cell over its loads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import compared
import pytest
import store_helpers
from compared import Made
from results_maker import large, result
from sweeping import Program
from sweeping import program as program  # a fixture

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.metrics import metric
from ollama_sweep.core.noise.drift import Point
from ollama_sweep.core.outcome import CellResult, Flag, Status
from ollama_sweep.results.explain import Explained, explain, find_place
from ollama_sweep.results.plots import PlotOptions, best_batch, cell, drift, pareto
from ollama_sweep.results.plots.shared import chart, figures
from ollama_sweep.store.reader import Reader

OPTIONS = PlotOptions(sweep="s", machine="a machine")


# -- the best num_batch of each num_ctx ------------------------------------------------------------------------------


def test_each_context_has_its_best_batch_and_the_edges_of_memory() -> None:
    cells = [
        result(1024, 64, 100.0), result(1024, 128, 200.0), result(1024, 256, 150.0),
        result(2048, 64, 100.0), result(2048, 128, 90.0, flags=frozenset({Flag.SPILLED})),
        result(2048, 256, None, status=Status.OOM),
        result(4096, 64, None, status=Status.OOM), result(4096, 128, None, status=Status.SKIPPED, reason="memory"),
        result(4096, 256, None, status=Status.SKIPPED, reason="memory"),
    ]  # fmt: skip
    (data,) = best_batch.collect(cells, OPTIONS)
    assert [column.best for column in data.columns] == [1, 0, None]
    assert [column.spilled_from for column in data.columns] == [None, 1, None]
    assert [column.out_from for column in data.columns] == [None, 2, 0]


def test_the_stripes_of_the_edges_are_seen_in_an_svg_too(tmp_path: Path) -> None:
    (path,) = best_batch.save_all(large(), OPTIONS, tmp_path, suffix=".svg")
    patterns = re.findall(r"<pattern.*?</pattern>", path.read_text("utf-8"), re.DOTALL)
    assert patterns
    for pattern in patterns:
        (ground,) = re.findall(r'<rect[^>]*fill="(#[0-9a-f]{6})"', pattern)
        (stripes,) = re.findall(r"stroke: (#[0-9a-f]{6})", pattern)
        assert ground != stripes


def test_the_edges_of_a_large_sweep_are_a_staircase() -> None:
    (data,) = best_batch.collect(large(), OPTIONS)
    edges = [column.out_from for column in data.columns if column.out_from is not None]
    assert edges == sorted(edges, reverse=True)
    assert all(column.best is None or column.low <= (column.value or 0) <= column.high for column in data.columns)


# -- speed against its price -----------------------------------------------------------------------------------------


def priced(num_ctx: int, rate: float, **metrics: float) -> CellResult:
    return result(num_ctx, 64, rate, metrics={"prompt_eval_rate": rate, "runs": 3.0, **metrics})


def test_what_none_beats_is_the_front() -> None:
    cells = [priced(1024, 300, size_bytes=5e9), priced(2048, 200, size_bytes=4e9), priced(4096, 100, size_bytes=6e9),
             priced(8192, 50, size_bytes=3e9)]  # fmt: skip
    context, memory = pareto.collect(cells, OPTIONS)
    assert (context.what, memory.what) == ("context", "memory")
    assert [point.across for point in context.front] == [1024, 2048, 4096, 8192]
    assert [point.speed for point in memory.front] == [50, 200, 300]
    assert [point.name for point in memory.rest] == ["num_ctx 4096"]
    assert memory.named[0] == "1  num_ctx 8192: 50 tokens/s, memory in use 2.8 GiB"


def test_the_quality_of_a_task_stands_against_the_speed_of_its_configuration() -> None:
    cells = [priced(1024, 300), priced(2048, 200)]
    cells += [
        result(ctx, 64, 1.0, key=f"q{ctx}", task="items", metrics={"quality": quality, "decode_tps": 9.0})
        for ctx, quality in ((1024, 0.5), (2048, 0.9))
    ]
    found = {data.what: data for data in pareto.collect(cells, OPTIONS)}
    assert [(point.across, point.speed) for point in found["quality"].front] == [(0.5, 300), (0.9, 200)]
    assert found["quality"].across.words == "quality, the mean score of items"


def test_only_some_of_a_long_front_are_named_the_ends_among_them() -> None:
    (data,) = pareto.collect([priced(1024 * n, 1000 - n) for n in range(1, 40)], OPTIONS)
    assert len(data.front) == 39
    assert [number for number, _ in data.numbered] == list(range(1, 11))
    assert data.numbered[0][1] == data.front[0]
    assert data.numbered[-1][1] == data.front[-1]


def test_without_any_number_there_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no cell has prompt processing speed yet"):
        pareto.save_all([result(1024, 64, None)], OPTIONS, tmp_path)
    assert not list(tmp_path.iterdir())


# -- drift -----------------------------------------------------------------------------------------------------------


def controls(rates: Sequence[float]) -> list[drift.Controls]:
    return [drift.Controls("s", [Point(600.0 * n, rate) for n, rate in enumerate(rates)], "a machine")]


def test_drift_is_told_against_the_first_load_with_its_limits() -> None:
    (data,) = drift.collect(controls([100, 101, 99, 100, 90, 90, 91, 90]), OPTIONS)
    assert data.unit == "min"
    assert data.shares[0] == 0
    assert data.shares[4] == pytest.approx(-0.1)
    assert data.line[-1] == pytest.approx(-0.095, abs=0.01)
    assert data.limit >= 0.03
    assert data.pause > data.limit


@pytest.mark.parametrize("rates", [[], [100.0], [0.0, 0.0]])
def test_too_few_control_loads_say_so(rates: list[float]) -> None:
    (data,) = drift.collect(controls(rates), OPTIONS)
    assert data.notice == "no control loads yet: `control` measures them"


# -- one cell --------------------------------------------------------------------------------------------------------


@pytest.fixture
def explained(tmp_path: Path) -> Explained:
    path = compared.save(tmp_path / "sweeps.db", Made("s", loads=3, controls=2, special={15: store_helpers.failed()}))
    with Reader.open(path) as reader:
        row = reader.sweep("s")
        return explain(reader, row, find_place(reader, row, ["0"]))


def test_a_cell_has_all_its_loads_with_their_runs(explained: Explained) -> None:
    (data,) = cell.collect([explained], OPTIONS)
    assert [load.why for load in data.loads] == ["", "", "", "control", "control"]
    assert all(len(load.runs) == 3 for load in data.loads)
    assert data.low <= (data.value or 0) <= data.high
    (other,) = cell.collect([explained], PlotOptions(metric="eval_rate"))
    assert {value for load in other.loads for value, _ in load.runs} == {20.0}
    with pytest.raises(ConfigError, match=r"runs have no eval_rat\. Known: .*Did you mean eval_rate\?"):
        cell.collect([explained], PlotOptions(metric="eval_rat"))


def test_a_title_names_model_and_task_once(explained: Explained) -> None:
    place = replace(explained.place, coordinates={"model": "m", **explained.place.coordinates, "task": "prompt_eval"})
    (data,) = cell.collect([replace(explained, place=place)], OPTIONS)
    (plain,) = cell.collect([explained], OPTIONS)
    assert data.title == plain.title


@pytest.mark.parametrize(("name", "low", "high"), [("prompt_eval_rate", 366.5, 386.5), ("quality", 0.1, 0.5)])
def test_values_at_an_axis_are_said_as_they_are(name: str, low: float, high: float) -> None:
    axes = figures.new_figure(8, 5).subplots()
    axes.set_ylim(low, high)
    chart.value_ticks(axes.yaxis, metric(name))
    places = [place for place in axes.get_yticks() if low <= place <= high]
    assert len(places) > 2
    for place, text in zip(places, axes.yaxis.get_major_formatter().format_ticks(places), strict=True):
        assert float(text) == pytest.approx(place)


def test_a_cell_that_only_failed_is_drawn_without_a_legend(tmp_path: Path) -> None:
    path = compared.save(tmp_path / "sweeps.db", Made("s", special={15: store_helpers.failed()}))
    with Reader.open(path) as reader:
        row = reader.sweep("s")
        failed = explain(reader, row, find_place(reader, row, ["15"]))
    (data,) = cell.collect([failed], OPTIONS)
    assert [load.failure for load in data.loads] == ["CUDA OOM"]
    (file,) = cell.save_all([failed], OPTIONS, tmp_path)
    assert file.stat().st_size > 0


def test_all_four_are_drawn(explained: Explained, tmp_path: Path) -> None:
    files = [
        *best_batch.save_all(large(), OPTIONS, tmp_path, suffix=".svg"),
        *pareto.save_all(large(), OPTIONS, tmp_path, suffix=".svg"),
        *drift.save_all(controls([100, 90, 91]), OPTIONS, tmp_path, suffix=".svg"),
        *cell.save_all([explained], OPTIONS, tmp_path, suffix=".svg"),
    ]
    assert [file.name for file in files] == [
        "best_batch.svg", "pareto_context.svg", "pareto_memory.svg", "drift.svg", "cell_num_ctx-1024_num_batch-64.svg",
    ]  # fmt: skip
    assert all(file.read_bytes().startswith(b"<?xml") for file in files)


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_draws_drift_and_the_cells_that_are_named(program: Program) -> None:
    program("run", program.grid(control=2, repeats=1, warmup=0)).must()
    program.draws = True
    out = Path("heatmaps/grid")
    assert program("plot", "drift").must().stdout == f"{out / 'drift.png'}\n"
    assert program("plot", "cell", "--cell", "num_ctx=512,num_batch=4", "--cell", "0").must().stdout.splitlines() == [
        str(out / f"cell_num_ctx-512_num_batch-{batch}.png") for batch in (4, 2)
    ]
    for words, message in (
        (["cell", "--cell", "num_ctx=7"], "has no num_ctx 7"),
        (["cell", "--cell", " "], "--cell: names no cell"),
        (["drift", "--cell", "0"], "--cell: drift does not take it; it is for cell"),
        (["cell", "--csv", "r.csv"], "r.csv"),
    ):
        assert message in program("plot", *words).must(2).stderr
