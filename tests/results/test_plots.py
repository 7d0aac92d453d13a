"""The pictures of answers and the grid: what they say (collected data), and that they are drawn for every sweep."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from answer_rows import LONG_NAMES, MODELS, answers, failed, row
from matplotlib import pyplot, rcParams
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from results_maker import Recipe, make, result

from ollama_sweep.core.errors import ConfigError, StorageError
from ollama_sweep.core.metrics import default_metric, metric
from ollama_sweep.core.outcome import Answer, AnswerRow, CellResult, Status
from ollama_sweep.core.stats import range_and_runs
from ollama_sweep.results import plots
from ollama_sweep.results.pictures import results_tables
from ollama_sweep.results.plots import (
    PlotOptions,
    avg_by_model_durations,
    avg_by_model_score,
    grid,
    heatmap,
    output_tokens_vs_latency,
    prompt_tokens_vs_prompt_duration,
    token_heatmap,
    total_tokens_vs_latency,
)
from ollama_sweep.results.plots.shared import figures, scatter_chart
from ollama_sweep.results.plots.shared.heatmap_data import HeatmapData, Kind
from ollama_sweep.results.plots.shared.scatter_chart import spread_apart
from ollama_sweep.results.prices import Price, PriceTable, one_price

OPTIONS = PlotOptions(sweep="bench", machine="AMD Ryzen 9 7950X, 64 GiB")
OF_ANSWERS = [name for name in plots.known() if plots.takes(plots.load(name)) == plots.ANSWERS]
SCATTERS = [name for name in OF_ANSWERS if "_vs_" in name]
ANSWERS: dict[str, Callable[[], list[AnswerRow]]] = {
    "one model": lambda: answers(["gemma:2b"]),
    "three models": lambda: answers(failures=3),
    "one point": lambda: [row()],
    "none": list,
    "500 points": lambda: answers(count=170),
    "long names": lambda: answers(LONG_NAMES, 12, failures=2),
    "all failed": lambda: [failed() for _ in range(12)],
    "no counts": lambda: [row(prompt_eval_count=None, eval_count=None, scores={})],
    "eighteen models": lambda: answers([f"model{number}" for number in range(18)], 8),
    "all the same": lambda: [row() for _ in range(5)],
    "all wrong": lambda: answers(["$a$"], 12, scores={"score": 0.0}),
    "zeros": lambda: [row(prompt_eval_count=0, eval_count=0, latency_s=0.0, eval_duration_s=0.0)],
}


# --- every plot of answers


@pytest.mark.parametrize("name", OF_ANSWERS)
@pytest.mark.parametrize("sweep", ANSWERS)
def test_every_plot_of_answers_draws_every_sweep(name: str, sweep: str) -> None:
    plot = plots.load(name)
    (data,) = plot.collect(ANSWERS[sweep](), OPTIONS)
    axes = Figure(figsize=(12, 7)).add_subplot()
    plot.draw(data, axes)
    assert axes.texts


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SCATTERS[1:])) for name in OF_ANSWERS]
)
@pytest.mark.parametrize("sweep", ["three models", "one point", "long names", "all failed", "eighteen models"])
def test_no_text_overlaps_another_or_leaves_the_picture(name: str, sweep: str, tmp_path: Path) -> None:
    figure = drawn(name, ANSWERS[sweep]())
    boxes = [(text.get_text(), text.get_window_extent().extents) for text in visible_texts(figure)]
    room = figure.bbox.extents
    outside = [text for text, box in boxes if not is_inside(box, room)]
    overlapping = [(first, second) for (first, a), (second, b) in combinations(boxes, 2) if overlap(a, b)]
    assert boxes
    assert outside == []
    assert overlapping == []


def is_inside(box: Sequence[float], room: Sequence[float]) -> bool:
    """Each is left, bottom, right, top; a pixel more is forgiven."""
    return box[0] > room[0] - 1 and box[1] > room[1] - 1 and box[2] < room[2] + 1 and box[3] < room[3] + 1


def drawn(name: str, rows: list[AnswerRow], options: PlotOptions = OPTIONS) -> Figure:
    """The figure as its file would have it."""
    from ollama_sweep.results.plots.shared import bar_chart, token_heatmap_drawing

    (data,) = plots.load(name).collect(rows, options)
    makers: dict[str, Callable[[Any], Any]] = {"token_heatmap": token_heatmap_drawing.make_figure}
    makers |= dict.fromkeys(("avg_by_model_score", "avg_by_model_durations"), bar_chart.make_figure)
    with figures.style():
        figure: Figure = makers.get(name, scatter_chart.make_figure)(data)  # type: ignore[no-untyped-call]
        figure.set_dpi(100)
        figure.draw_without_rendering()
    return figure


def visible_texts(figure: Figure) -> list[Text]:
    found = [artist for artist in figure.findobj(Text) if isinstance(artist, Text)]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def overlap(a: Any, b: Any) -> bool:
    return bool(a[0] < b[2] - 1 and b[0] < a[2] - 1 and a[1] < b[3] - 1 and b[1] < a[3] - 1)


def test_failed_answers_are_counted_and_never_drawn() -> None:
    rows = [row(), failed(prompt_eval_count=5000, eval_count=900, latency_s=120.0, scores={"score": 0.0})]
    for name in OF_ANSWERS:
        (data,) = plots.load(name).collect(rows, OPTIONS)
        assert any(fact.startswith("1 failed") for fact in data.facts), name
    (scatter,) = output_tokens_vs_latency.collect(rows, OPTIONS)
    assert scatter.series[0].points == ((20.0, 1.5),)


@pytest.mark.parametrize("name", OF_ANSWERS)
def test_a_picture_without_numbers_says_why(name: str) -> None:
    plot = plots.load(name)
    assert plot.collect([failed(), failed()], OPTIONS)[0].notice == "no answers: 2 failed"
    assert plot.collect([], OPTIONS)[0].notice == "no answers yet"
    assert plot.collect([row()], OPTIONS)[0].notice == ""


@pytest.mark.parametrize("name", OF_ANSWERS)
def test_the_file_is_named_after_the_plot(name: str, tmp_path: Path) -> None:
    (path,) = plots.load(name).save_all([row()], OPTIONS, tmp_path)
    folder = "all_scatter_latency_plots/" if name in SCATTERS else "heatmaps/" if name == "token_heatmap" else ""
    stem = "latency_heatmap" if name == "token_heatmap" else name
    assert path == tmp_path / f"{folder}{stem}.png"
    with Image.open(path) as image:
        assert image.size[0] >= 1500


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_suffix_chooses_the_format(suffix: str, start: bytes, tmp_path: Path) -> None:
    (path,) = total_tokens_vs_latency.save_all([row()], OPTIONS, tmp_path, suffix=suffix)
    assert path.read_bytes().startswith(start)


def test_the_old_picture_survives_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = avg_by_model_score.save_all([row()], OPTIONS, tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr("ollama_sweep.machine.files.os.fsync", _no_space)
    with pytest.raises(StorageError, match="no space left"):
        avg_by_model_score.save_all(answers(), OPTIONS, tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def _no_space(number: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_picture_leaves_no_trace_in_the_process(tmp_path: Path) -> None:
    before = dict(rcParams)
    token_heatmap.save_all(answers(count=3), OPTIONS, tmp_path)
    assert dict(rcParams) == before
    assert pyplot.get_fignums() == []


# --- scatters


def test_the_five_scatters_and_what_they_show() -> None:
    assert {name: (data.x, data.y) for name in SCATTERS for data in plots.load(name).collect([], OPTIONS)} == {
        "prompt_tokens_vs_prompt_duration": ("prompt_tokens", "prompt_eval_duration_s"),
        "output_tokens_vs_eval_duration": ("output_tokens", "eval_duration_s"),
        "prompt_tokens_vs_latency": ("prompt_tokens", "latency_s"),
        "output_tokens_vs_latency": ("output_tokens", "latency_s"),
        "total_tokens_vs_latency": ("total_tokens", "latency_s"),
    }


def test_the_medians_of_each_model() -> None:
    rows = [row("b", eval_count=count, latency_s=count / 10) for count in (10, 20, 60)] + [row("a"), failed("a")]
    (data,) = output_tokens_vs_latency.collect(rows, OPTIONS)
    assert [(series.name, series.medians, series.failed) for series in data.series] == [
        ("a", (20.0, 1.5), 1),
        ("b", (20.0, 2.0), 0),
    ]
    assert data.facts[:2] == ("4 answers", "1 failed, not drawn")


def test_the_medians_are_written_beside_their_points() -> None:
    texts = [text.get_text() for text in visible_texts(drawn("output_tokens_vs_latency", [row("a"), row("b")]))]
    assert texts.count("1.50 s") == 2
    assert {"a\nn = 1, median 20 tokens, 1.50 s", "b\nn = 1, median 20 tokens, 1.50 s"} <= set(texts)


def test_an_answer_without_one_of_both_numbers_is_counted() -> None:
    rows = [row(), row(eval_count=None), row(eval_count=None)]
    (data,) = total_tokens_vs_latency.collect(rows, OPTIONS)
    assert data.count == 1
    assert "2 without both numbers, not drawn" in data.facts


def test_prompts_from_a_cache_are_said_where_their_time_is_drawn() -> None:
    rows = [row(cached_count=90), row(cached_count=10)]
    (data,) = prompt_tokens_vs_prompt_duration.collect(rows, OPTIONS)
    assert "1 with most of their prompt from a cache" in data.facts


def test_models_on_several_engines_are_told_apart() -> None:
    (data,) = output_tokens_vs_latency.collect([row("m"), row("m", engine="openai")], OPTIONS)
    assert [series.name for series in data.series] == ["m @ ollama", "m @ openai"]


def test_axes_are_logarithmic_where_values_lie_far_apart() -> None:
    far = [row(eval_count=count) for count in (10, 10, 10, 900)]
    assert output_tokens_vs_latency.collect(far, OPTIONS)[0].is_log == (True, False)
    assert output_tokens_vs_latency.collect([*far, row(eval_count=0)], OPTIONS)[0].is_log == (False, False)


def test_up_to_seventy_models_differ_in_colour_or_marker() -> None:
    looks = figures.looks([str(number) for number in range(70)])
    assert len(set(looks.values())) == 70
    assert len({colour for colour, _ in list(looks.values())[:7]}) == 7
    assert len({marker for _, marker in list(looks.values())[:10]}) == 10


def test_labels_are_moved_apart_and_stay_inside() -> None:
    heights = spread_apart([50, 51, 99, 2], 10, 100)
    assert [pair[1] - pair[0] >= 10 for pair in zip(sorted(heights), sorted(heights)[1:], strict=False)] == [True] * 3
    assert min(heights) >= 5
    assert max(heights) <= 95
    assert spread_apart([], 10, 100) == []


def test_long_names_are_shortened_so_that_they_still_differ() -> None:
    short = figures.shorten_all(LONG_NAMES, 10.0, 160.0)
    assert len(set(short)) == 3
    assert "Q4_K_M" in short[0]
    assert "Q8_0" in short[1]
    assert figures.shorten_all(["short"], 10.0, 160.0) == ["short"]


# --- bars


def test_mean_scores_by_model_and_task() -> None:
    rows = [
        *(
            row("a", answer=Answer(f"q{number}", "Extraction", "What?", "That."), scores={"score": score})
            for number, score in enumerate((1.0, 0.0, 1.0, 1.0))
        ),
        row("a", task="mmlu", scores={"score": 0.0}),
        row("b", scores={"score": 0.5}),
        failed("b"),
        row("b", task="chat", scores={}),
    ]
    (data,) = avg_by_model_score.collect(rows, OPTIONS)
    assert data.kinds == ("items", "mmlu")
    assert {(name, task): bar.value for name, bars in data.groups.items() for task, bar in bars.items()} == {
        ("a", "items"): 0.75,
        ("a", "mmlu"): 0.0,
        ("b", "items"): 0.5,
    }
    assert data.groups["a"]["items"].text == "0.750  (n = 4)"
    assert data.groups["a"]["items"].interval == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert data.groups["b"]["items"].interval is None
    assert data.facts[:3] == ("6 scored answers", "1 failed, in no mean", "1 without a score")
    assert data.limit == 1.0


def test_scores_above_one_have_an_axis_of_their_own() -> None:
    assert avg_by_model_score.collect([row(scores={"score": 7.5})], OPTIONS)[0].limit is None


def test_mean_durations_by_model() -> None:
    rows = [row(latency_s=1.0), row(latency_s=2.0, eval_duration_s=None), failed(latency_s=60.0)]
    (data,) = avg_by_model_durations.collect(rows, OPTIONS)
    bars = data.groups["gemma:2b"]
    assert {kind: bar.text for kind, bar in bars.items()} == {
        "latency": "1.50 s  (n = 2)",
        "total time of the engine": "1.40 s  (n = 2)",
        "prompt processing time": "0.250 s  (n = 2)",
        "generation time": "1.00 s  (n = 1)",
    }


def test_a_model_without_answers_has_a_line_and_no_bar() -> None:
    (data,) = avg_by_model_durations.collect([row("a"), failed("b")], OPTIONS)
    assert list(data.groups) == ["a", "b"]
    assert data.groups["b"] == {}


# --- the binned heatmap


def test_bins_hold_the_median_of_their_answers() -> None:
    rows = [row(latency_s=seconds) for seconds in (1.0, 2.0, 6.0)] + [row(eval_count=21, latency_s=9.0)]
    (data,) = token_heatmap.collect(rows, OPTIONS)
    assert (data.x_edges, data.y_edges) == ((100, 101), (20, 21, 22))
    (panel,) = data.panels
    assert [(region.output_tokens, region.median, len(region.values)) for region in panel.regions] == [
        ((21, 22), 9.0, 1),
        ((20, 21), 2.0, 3),
    ]


def test_all_models_share_their_bins_and_colours() -> None:
    (data,) = token_heatmap.collect(answers(), OPTIONS)
    assert [panel.name for panel in data.panels] == list(MODELS)
    assert sum(panel.count for panel in data.panels) == 120
    medians = [region.median for panel in data.panels for region in panel.regions]
    assert data.extent == (min(medians), max(medians))


def test_the_metric_of_the_bins() -> None:
    rows = [row(prompt_eval_count=100, eval_count=20)]
    prices = PriceTable({"gemma:2b": Price(0.001, 0.01)}, currency="USD")
    (data,) = token_heatmap.collect(rows, replace(OPTIONS, metric="cost", prices=prices))
    assert data.panels[0].regions[0].values == pytest.approx((0.3,))
    assert data.title == "Median cost in USD by prompt and output tokens (lower is better)"
    (data,) = token_heatmap.collect(rows, replace(OPTIONS, metric="eval_duration"))
    assert data.panels[0].regions[0].values == (1.0,)


def test_models_without_a_price_are_counted() -> None:
    prices = PriceTable({"a": Price(0.001, 0.001)})
    (data,) = token_heatmap.collect([row("a"), row("b")], replace(OPTIONS, metric="cost", prices=prices))
    assert "1 without counts or a price, not drawn" in data.facts


def test_cost_needs_prices_and_a_metric_must_be_known() -> None:
    with pytest.raises(ConfigError, match="cost needs prices: give --cost-per-token PRICE or --prices FILE"):
        token_heatmap.collect([row()], replace(OPTIONS, metric="cost"))
    prices = PriceTable({"other": Price(1, 1)})
    with pytest.raises(ConfigError, match=r"no price for gemma:2b; the table has other, or give a default"):
        token_heatmap.collect([row()], replace(OPTIONS, metric="cost", prices=prices))
    with pytest.raises(ConfigError, match=r"unknown metric latensy\. Known: latency, .* Did you mean latency\?"):
        token_heatmap.collect([row()], replace(OPTIONS, metric="latensy"))


@pytest.mark.parametrize("name", ["latency", "eval_duration", "cost"])
def test_the_files_of_the_binned_heatmap(name: str, tmp_path: Path) -> None:
    options = replace(OPTIONS, metric=name, prices=one_price(1e-6))
    (path,) = token_heatmap.save_all(answers(count=5), options, tmp_path)
    assert path == tmp_path / "heatmaps" / f"{name}_heatmap.png"


# --- the grid of any two dimensions


def cell(num_ctx: int, task: str, quality: float | None, model: str = "m", **changes: Any) -> CellResult:
    metrics = {"answers": 8.0, "runs": 8.0, "success_rate": 1.0}
    coordinates = {"num_ctx": num_ctx, "num_batch": 128, "task": task}
    made = result(num_ctx, 128, coordinates=coordinates, task=task, model=model, status=Status.OK,
                  metrics=metrics if quality is None else {**metrics, "quality": quality})  # fmt: skip
    return replace(made, **changes)


CLIFF = [
    cell(512, "items", 0.2), cell(1024, "items", 0.9), cell(512, "mmlu", 0.1), cell(1024, "mmlu", 0.5),
    cell(512, "chat", None), cell(1024, "chat", None),
    cell(512, "json_quality", None, status=Status.OOM, reason="cuda_oom", metrics={}),
    cell(1024, "json_quality", 0.7),
]  # fmt: skip


def test_the_quality_cliff_is_num_ctx_by_task() -> None:
    (data,) = grid.collect(CLIFF, OPTIONS)
    assert (data.x, data.y, data.metric.name) == ("num_ctx", "task", "quality")
    assert (data.columns, data.rows) == ((512, 1024), ("items", "json_quality", "mmlu"))
    assert data.cells[512, "items"].value == 0.2
    assert (data.cells[512, "json_quality"].kind, data.cells[512, "json_quality"].label) == (Kind.FAILED, "CUDA OOM")


def test_tasks_cannot_be_best_of_each_other() -> None:
    (data,) = grid.collect(CLIFF, OPTIONS)
    assert not any(mark.best or mark.tied for mark in data.cells.values())
    (items,) = grid.collect([one for one in CLIFF if one.task == "items"], replace(OPTIONS, y="model"))
    assert items.cells[1024, "m"].best


def test_any_two_dimensions_and_a_picture_for_each_combination_of_the_others(tmp_path: Path) -> None:
    options = replace(OPTIONS, x="task", y="num_batch", metric="success_rate")
    pictures = grid.collect(CLIFF, options)
    assert [data.combination for data in pictures] == [(("num_ctx", 512),), (("num_ctx", 1024),)]
    names = [path.name for path in grid.save_all(CLIFF, options, tmp_path)]
    assert names == [
        "grid_success_rate_task_num_batch_num_ctx-512.png",
        "grid_success_rate_task_num_batch_num_ctx-1024.png",
    ]
    (path,) = grid.save_all(CLIFF, OPTIONS, tmp_path)
    assert path.name == "grid_quality_num_ctx_task.png"


def test_sweeps_are_compared_along_an_axis_or_in_pictures_of_their_own() -> None:
    one = [cell(512, "items", 0.5, row={"sweep": "first", "engine": "ollama"})]
    two = [cell(512, "items", 0.7, row={"sweep": "second", "engine": "llamacpp"})]
    both = grid.collect([*one, *two], OPTIONS)
    assert [dict(data.combination)["engine"] for data in both] == ["ollama", "llamacpp"]
    (across,) = grid.collect([*one, *two], replace(OPTIONS, x="engine"))
    assert across.columns == ("llamacpp", "ollama")
    (by_sweep,) = grid.collect([*one, *two], replace(OPTIONS, x="sweep"))
    assert {mark.value for mark in by_sweep.cells.values()} == {0.5, 0.7}


def test_an_axis_must_be_a_dimension() -> None:
    with pytest.raises(ConfigError, match=r"--x: unknown dimension num_ctz\. Known: .* Did you mean num_ctx\?"):
        grid.collect(CLIFF, replace(OPTIONS, x="num_ctz"))
    with pytest.raises(ConfigError, match="x and y are both task; give two dimensions"):
        grid.collect(CLIFF, replace(OPTIONS, x="task"))


@pytest.mark.parametrize("names", [LONG_NAMES, MODELS], ids=["long", "short"])
def test_names_of_models_stay_inside_a_grid(names: tuple[str, ...]) -> None:
    from ollama_sweep.results.plots.shared import heatmap_drawing

    cells = [cell(512, "items", 0.5, model, coordinates={"num_ctx": 512, "model": model}) for model in names]
    for options in (replace(OPTIONS, y="model"), replace(OPTIONS, x="model", y="num_ctx")):
        (data,) = grid.collect(cells, options)
        with figures.style():
            figure = heatmap_drawing.make_figure(data)
            figure.draw_without_rendering()
        boxes = [text.get_window_extent().extents for text in visible_texts(figure)]
        assert not any(overlap(a, b) for a, b in combinations(boxes, 2))
        assert min(box[0] for box in boxes) >= 0


# --- what a task is about


@pytest.mark.parametrize(
    ("task", "metrics", "name"),
    [
        ("prompt_eval", {"prompt_eval_rate": 1.0}, "prompt_eval_rate"),
        ("mmlu", {"score": 1.0, "accuracy": 1.0, "quality": 1.0, "decode_tps": 1.0}, "quality"),
        ("own_task", {"score": 1.0, "decode_tps": 9.0}, "score"),
        ("chat", {"decode_tps": 9.0, "tokens_per_s": 8.0}, "decode_tps"),
        ("chat", {"tokens_per_s": 8.0}, "tokens_per_s"),
        ("embeddings", {"rows_per_s": 8.0, "embedding_dimension": 384.0}, "rows_per_s"),
        ("strange", {"eval_rate": 8.0}, "prompt_eval_rate"),
        ("mmlu", {}, "quality"),
        ("chat", {}, "decode_tps"),
        ("embeddings", {}, "rows_per_s"),
    ],
)
def test_the_metric_that_a_task_is_about(task: str, metrics: dict[str, float], name: str) -> None:
    assert default_metric([result(1, 1, status=Status.OK, task=task, metrics=metrics)]) == name


def test_a_sweep_of_several_tasks_has_a_picture_with_its_own_metric_for_each(tmp_path: Path) -> None:
    cells = [*make(Recipe((512,), (64,), other={"task": "prompt_eval"})), *CLIFF[:1], *CLIFF[4:5]]
    pictures = heatmap.collect(cells, OPTIONS)
    assert [data.metric.name for data in pictures] == ["prompt_eval_rate", "quality", "prompt_eval_rate"]
    names = [path.name for path in heatmap.save_all(cells, OPTIONS, tmp_path, dpi=20)]
    assert names[1].startswith("heatmap_highlighted_")
    assert "items" in names[1]
    asked = heatmap.save_all(cells, replace(OPTIONS, metric="success_rate"), tmp_path, dpi=20)
    assert all(path.name.startswith("heatmap_success_rate_") for path in asked)
    tables = results_tables(cells)
    assert [text.splitlines()[1] for name, text in tables.items() if "items" in name] == ["128,0.2"]


def test_a_picture_of_another_task_says_so_and_not_the_length_of_the_sweeps_prompt() -> None:
    (data,) = heatmap.collect([CLIFF[0]], replace(OPTIONS, prompt_tokens=1800))
    assert not any("1800" in fact for fact in data.facts)
    counted = replace(CLIFF[0], metrics={**CLIFF[0].metrics, "prompt_eval_count": 75.0})
    named = replace(counted, coordinates={"num_ctx": 512, "num_batch": 128})
    (other,) = heatmap.collect([named], OPTIONS)
    assert {"task items", "prompts of about 75 tokens"} <= set(other.facts)


@pytest.mark.parametrize(
    ("name", "unit", "better"),
    [
        ("latency_p95_s", "s", -1), ("latency_mean_s", "s", -1), ("tokens_per_s", "tokens/s", 1),
        ("min_tokens_per_s", "tokens/s", 1), ("decode_tps", "tokens/s", 1), ("avg_tps_extraction", "tokens/s", 1),
        ("chars_per_s", "chars/s", 1), ("requests_per_min", "requests/min", 1), ("rows_per_s", "rows/s", 1),
        ("success_rate", "", 1), ("success_rate_extraction", "", 1), ("quality", "", 1), ("accuracy_low", "", 1),
        ("letter_failure_rate", "", -1), ("valid_json_failures", "", -1), ("failed_answers", "", -1),
        ("hallucinated_values", "", -1), ("answers", "", 0), ("embedding_dimension", "", 0),
        ("peak_rss_bytes", "bytes", -1), ("energy_j", "J", -1), ("gpu_energy_j", "J", -1), ("task_score", "", 1),
        ("cost", "", -1), ("prompt_eval_rate_min", "tokens/s", 1),
    ],
)  # fmt: skip
def test_units_and_directions_of_the_metrics(name: str, unit: str, better: int) -> None:
    assert (metric(name).unit, metric(name).better) == (unit, better)


def test_small_costs_are_readable() -> None:
    assert metric("cost").text(0.0000123456) == "1.23e-05"


def test_a_value_names_the_answers_it_rests_on() -> None:
    good = result(1, 1, metrics={"quality": 0.4, "runs": 7.0, "answers": 7.0, "failed_answers": 0.0})
    assert range_and_runs(good, metric("quality")) == "7 answers"
    partly = replace(good, metrics={**good.metrics, "failed_answers": 9.0})
    assert range_and_runs(partly, metric("quality")) == "7 of 16 answered"


def test_accuracies_whose_intervals_overlap_are_tied() -> None:
    def accuracy(num_ctx: int, low: float, middle: float, high: float) -> CellResult:
        metrics = {"accuracy": middle, "accuracy_low": low, "accuracy_high": high}
        return result(num_ctx, 1, task="mmlu", status=Status.OK, metrics=metrics)

    cells = [accuracy(1, 0.1, 0.2, 0.3), accuracy(2, 0.25, 0.4, 0.5), accuracy(3, 0.3, 0.45, 0.6)]
    (data,) = heatmap.collect(cells, replace(OPTIONS, metric="accuracy"))
    marks: list[Any] = [data.cells[column, 1] for column in (1, 2, 3)]
    assert [(mark.best, mark.tied) for mark in marks] == [(False, True), (False, True), (True, False)]


def test_hundreds_of_columns_are_not_all_listed() -> None:
    crowded = result(1, 1, metrics={f"score_{number}": 1.0 for number in range(100)} | {"quality": 1.0})
    with pytest.raises(ConfigError, match=r"Known: quality and 100 more\. Did you mean quality\?"):
        heatmap.collect([crowded], replace(OPTIONS, metric="qualty"))


def test_svg_pictures_are_the_same_every_time() -> None:
    data = output_tokens_vs_latency.collect(answers(count=4), OPTIONS)[0]
    first, second = (figures.picture(lambda: scatter_chart.make_figure(data), "svg") for _ in range(2))
    assert first == second
    assert Image.open(io.BytesIO(figures.picture(lambda: scatter_chart.make_figure(data), "png", 40))).size == (
        500,
        280,
    )


def test_a_grid_is_drawn_like_the_heatmap() -> None:
    (data,) = grid.collect(CLIFF, OPTIONS)
    assert isinstance(data, HeatmapData)
    assert data.size_inches == (20.0, 6.0)
