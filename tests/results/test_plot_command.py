"""The command `plot` from outside: its files, its words, its exit codes. The fake engine answers."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from sweeping import Program, program

from ollama_sweep.results import plots

GRID = """\
name: {name}
model: {model}
engine: fake
prompt: {{text: hello}}
num_ctx: [512, 1024]
num_batch: 64
repeats: 1
warmup: 0
task: {tasks}
"""
ITEMS = "tasks:\n  items: {data: items.json}\n"
DATA = [
    {"id": "a", "category": "Extraction", "prompt": "Which town? I live in Ulm.", "expect": {"facts": ["Ulm"]}},
    {"id": "b", "category": "Summarization", "prompt": "Say yes.", "expect": {"facts": ["yes"]}},
]
CSV = """\
model,prompt_id,output,score,latency_sec,metadata
m,1,A,1,2.0,"{""total_duration"": 1900000000, ""eval_duration"": 1500000000, ""prompt_eval_duration"": 40000000,
 ""prompt_eval_count"": 81, ""eval_count"": 12}"
n,1,B,0,3.0,
"""
SCATTERS = {
    "prompt_tokens_vs_prompt_duration", "output_tokens_vs_eval_duration", "prompt_tokens_vs_latency",
    "output_tokens_vs_latency", "total_tokens_vs_latency",
}  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A folder with two finished sweeps that have answers (`two`, `one`), and one without (`speed`, the last)."""
    folder = tmp_path_factory.mktemp("plots")
    (folder / "items.json").write_text(json.dumps(DATA), "utf-8")
    (folder / "results_local.csv").write_text(CSV, "utf-8")
    with contextlib.closing(Program(folder)) as program:
        for name, model, tasks in (
            ("two", "[m, n]", "[prompt_eval, items]"),
            ("one", "m", "[items]"),
            ("speed", "m", "[prompt_eval]"),
        ):
            text = GRID.format(name=name, model=model, tasks=tasks) + (ITEMS if "items" in tasks else "")
            (folder / f"{name}.yaml").write_text(text, "utf-8")
            program("run", f"{name}.yaml").must()
        program.draws = True
        yield program


def drawn(done: Program, *words: str | Path) -> list[str]:
    """The files that a call names, relative to `heatmaps/`; all are there."""
    said = done("plot", *words).must()
    files = said.stdout.split()
    assert all((done.folder / file).is_file() for file in files), said.stdout
    return [file.removeprefix("heatmaps/") for file in files]


def test_the_list_has_every_plot(done: Program) -> None:
    lines = done("plot", "--list").must().stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(plots.known())
    listed = json.loads(done("plot", "--list", "--json").must().stdout)
    assert {found["plot"] for found in listed if found["of"] == "answers"} > SCATTERS


def test_a_picture_of_a_sweeps_answers(done: Program) -> None:
    files = drawn(done, "output_tokens_vs_latency", "two.yaml")
    assert files == ["two/all_scatter_latency_plots/output_tokens_vs_latency.png"]
    with Image.open(done.folder / "heatmaps" / files[0]) as image:
        assert image.size[0] > 1500


def test_all_draws_everything_there_is(done: Program) -> None:
    files = drawn(done, "all", "two.yaml", "--cost-per-token", "0.000001", "--out", "every")
    names = {file.removeprefix("every/two/") for file in files}
    assert {f"all_scatter_latency_plots/{name}.png" for name in SCATTERS} < names
    assert {f"heatmaps/{name}_heatmap.png" for name in ("latency", "eval_duration", "cost")} < names
    assert {"avg_by_model_score.png", "avg_by_model_durations.png"} < names
    assert {"grid_quality_num_ctx_task_model-m.png", "heatmap_highlighted_model-n_task-items.png"} < names
    assert len(names) == len(files)


def test_sweeps_are_compared(done: Program) -> None:
    assert drawn(done, "avg_by_model_score", "two.yaml", "one.yaml") == ["two_vs_one/avg_by_model_score.png"]
    files = drawn(done, "grid", "two.yaml", "one.yaml", "--x", "sweep", "--y", "num_ctx", "--task", "items")
    assert files == [f"two_vs_one/grid_quality_sweep_num_ctx_model-{name}.png" for name in "mn"]


def test_the_form_and_the_json(done: Program) -> None:
    words = ("avg_by_model_durations", "one", "--format", "svg", "--out", "pictures", "--json")
    said = json.loads(done("plot", *words).must().stdout)
    assert said == {
        "plot": "avg_by_model_durations",
        "sweep": "one",
        "files": ["pictures/one/avg_by_model_durations.svg"],
        "notes": [],
    }
    assert (done.folder / said["files"][0]).read_bytes().startswith(b"<?xml")


def test_another_tools_file_is_drawn_and_its_nanoseconds_are_said(done: Program) -> None:
    said = done("plot", "token_heatmap", "--csv", "results_local.csv", "--metric", "eval_duration").must()
    assert said.stdout.split() == ["heatmaps/results_local/heatmaps/eval_duration_heatmap.png"]
    assert said.stderr == "Note: results_local.csv: durations of 1 row were nanoseconds; converted to seconds\n"


def test_all_of_a_file_leaves_out_what_needs_a_sweep(done: Program) -> None:
    said = done("plot", "all", "--csv", "results_local.csv", "--out", "foreign").must()
    assert len(said.stdout.split()) == 9
    assert "Note: heatmap is left out: --csv: heatmap draws the cells of a sweep" in said.stderr


def test_a_file_needs_no_database(program: Program) -> None:
    (program.folder / "r.csv").write_text(CSV, "utf-8")
    program("plot", "avg_by_model_score", "--csv", "r.csv").must()
    assert {path.name for path in program.folder.iterdir()} == {"r.csv", "fake.json", "heatmaps"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["output_tokens_vs_latency"], "speed has kept no answers; tasks with questions (chat, items, mmlu …) have"),
        (["avg_by_model_score", "two.yaml", "--task", "prompt_eval"], "two has kept no answers"),
        (["avg_by_model_score", "two.yaml", "--task", "itens"], "--task: two has no task itens; it has items, "),
        (["avg_by_modl_score"], "unknown plot avg_by_modl_score. Known: "),
        (["avg_by_modl_score"], " Did you mean avg_by_model_score?"),
        ([], "plot: which one? Known: avg_by_model_durations, "),
        (["grid", "nowhere.yaml"], "has no sweep nowhere"),
        (["grid", "two.yaml", "--x", "num_ctz"], "--x: unknown dimension num_ctz. Known: "),
        (["grid", "two.yaml", "--metric", "qualty"], "unknown metric qualty. Known: "),
        (["grid", "two.yaml", "--prices", "p.yaml"], "p.yaml: file not found"),
        (["grid", "two.yaml", "--cost-per-token", "1"], "--prices: grid does not take it; it is for token_heatmap"),
        (["avg_by_model_score", "two.yaml", "--x", "task"], "--x: avg_by_model_score does not take it"),
        (["token_heatmap", "two.yaml", "--metric", "cost"], "cost needs prices: give --cost-per-token PRICE or"),
        (["token_heatmap", "two.yaml", "--metric", "speed"], "unknown metric speed. Known: latency, eval_duration, "),
        (["token_heatmap", "two.yaml", "--cost-per-token", "-1"], "-1 is not a price"),
        (["all", "two.yaml", "--metric", "cost"], "all draws every plot with its own metric"),
        (["grid", "two.yaml", "--format", "jpg"], "--format: jpg is not a kind of picture. Allowed: png, svg, pdf"),
        (["heatmap", "--csv", "results_local.csv"], "--csv: heatmap draws the cells of a sweep; a file has answers"),
        (["avg_by_model_score", "two.yaml", "--csv", "results_local.csv"], "--csv: draws the file alone; leave out"),
        (["avg_by_model_score", "--csv", "bad.csv"], "bad.csv:2: latency_sec: 'x' is not a number of 0 or more"),
        (["all", "--csv", "items.json"], "items.json:1: has no column model"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_created(words: list[str], message: str, done: Program) -> None:
    (done.folder / "bad.csv").write_text("model,latency_sec\nm,x\n", "utf-8")
    said = done("plot", *words, "--out", "nothing").must(2)
    assert message in said.stderr
    assert said.stderr.startswith("error: ")
    assert said.stderr.count("\n") == 1
    assert said.stdout == ""
    assert not (done.folder / "nothing").exists()


def test_the_heatmap_of_each_task_has_its_own_metric(done: Program) -> None:
    files = done("heatmap", "two.yaml").must().stdout.split()
    assert "heatmaps/two/heatmap_highlighted_model-m_task-items.png" in files
    table = (done.folder / "heatmaps/two/results_table_model-m_task-items.csv").read_text("utf-8")
    assert table.splitlines()[0] == "num_batch,512,1024"
    assert all(0 <= float(value) <= 1 for value in table.splitlines()[1].split(",")[1:])
