"""A sweep over several lengths of the prompt, from its plan to its pictures."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by their names
from __future__ import annotations

import contextlib
import csv
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import pytest
from ollama_sweeps import ollama, short_waits
from scripted_ollama import ScriptedOllama
from store_helpers import stranger
from sweeping import Program, json_of, program

from ollama_sweep.core.outcome import CellResult
from ollama_sweep.engines import fake
from ollama_sweep.plan.load import load
from ollama_sweep.results import pictures, second_look
from ollama_sweep.results.best import best_cells, describe_best
from ollama_sweep.results.plots import PlotOptions, grid, heatmap
from ollama_sweep.results.plots.shared import field, heatmap_figure, heatmap_legend
from ollama_sweep.store.reader import Reader

LENGTHS = [100, 600, 2000]
KEYS: Mapping[str, Any] = {"num_ctx": [512, 4096], "num_batch": [64, 256], "prompt": {"tokens": LENGTHS}}
"""Of the six cells of each num_batch two do not fit num_ctx 512."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A sweep of two tasks over the lengths, for whoever only reads it."""
    made = Program(tmp_path_factory.mktemp("lengths"))
    made("run", made.grid(**KEYS, task=["prompt_eval", "chat"])).must()
    yield made
    made.close()


@pytest.fixture
def results(measured: Program) -> list[CellResult]:
    return read(measured)


def read(program: Program, name: str = "grid") -> list[CellResult]:
    with Reader.open(program.folder / "sweeps.db") as reader:
        return list(reader.results(reader.sweep(name).sweep_id))


# -- what is measured ------------------------------------------------------------------------------------------------


def test_the_time_left_knows_that_longer_prompts_take_longer(program: Program) -> None:
    keys: dict[str, Any] = {"num_ctx": [4096], "num_batch": [64, 256], "second_look": "off", "control": "off"}
    program("run", program.grid(**keys, prompt={"tokens": [200]})).must()
    with stranger(program.folder / "sweeps.db") as connection:  # 3 s for the load, 3 for the prompt of 200 tokens
        connection.execute("UPDATE runs SET client_duration_s = 3.0 / (SELECT count(*) FROM runs) * 2")
        connection.execute("UPDATE attempts SET started_at = '2026-01-01T00:00:00.000+00:00',"
                           " finished_at = '2026-01-01T00:00:06.000+00:00'")  # fmt: skip
    longer = program.grid(**keys, prompt={"tokens": [200, 2000]})
    assert json_of(program("plan", longer, "--json"))["seconds_left"] == pytest.approx(2 * (3 + 30), rel=0.05)
    env = {**program.environment(), "SWEEP_CRASH_AT": "before_begin:1"}
    program.start("run", longer, env=env).wait()
    assert json_of(program("status", "--json"))["seconds_left"] == pytest.approx(2 * (3 + 30), rel=0.05)


def test_every_length_is_innermost_and_has_cells_that_fit_or_not(program: Program) -> None:
    said = program("run", program.grid(**KEYS)).must().stdout
    rows = program.rows()
    assert [(row["num_ctx"], row["num_batch"], row["prompt_tokens"]) for row in rows] == [
        (num_ctx, num_batch, tokens) for num_ctx in (512, 4096) for num_batch in (64, 256) for tokens in LENGTHS
    ]
    for row in rows:
        is_fitting = row["num_ctx"] >= row["prompt_tokens"] + 3
        assert (row["status"], row["reason"]) == (("ok", "") if is_fitting else ("skipped", "does_not_fit"))
        assert row["prompt_eval_count"] == (row["prompt_tokens"] if is_fitting else None), "made and counted by length"
        assert ("unfilled" in row["flags"]) == (is_fitting and row["num_batch"] > row["prompt_tokens"] + 4)
    assert "a prompt of 100, 600, 2000 tokens on m" in said
    assert "4 cells are skipped" in said
    (kept,) = program.rows(sql="select count(*) as n, sum(tokens) as tokens from prompt_tokens")
    assert (kept["n"], kept["tokens"]) == (3, 2700)


def test_no_text_is_counted_twice(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """To count it is to read it on some engines."""
    asked, count = list[str](), fake.Engine.count_tokens

    def noted(engine: fake.Engine, model: str, prompt: str, *, system: str = "") -> int | None:
        asked.append(prompt.partition(" ")[2])
        return count(engine, model, prompt, system=system)

    monkeypatch.setattr(fake.Engine, "count_tokens", noted)
    program("plan", program.grid(prompt={"tokens": 300})).must()
    assert len(asked) > 1
    assert len(set(asked)) == len(asked)


def test_only_a_task_that_sends_the_prompt_is_multiplied_by_its_length(results: list[CellResult]) -> None:
    assert [(one.task, one.coordinates.get("prompt_tokens")) for one in results[:4]] == [
        *(("prompt_eval", tokens) for tokens in LENGTHS),
        ("chat", None),
    ]
    assert sum(one.task == "chat" for one in results) == 4


def test_a_cell_is_the_same_whether_its_length_is_one_or_one_of_several(program: Program) -> None:
    program("run", program.grid("several", **KEYS)).must()
    generated = len(program.events("generate"))
    program("run", program.grid("one", **{**KEYS, "prompt": {"tokens": 600}})).must()
    program("run", program.grid("list_of_one", **{**KEYS, "prompt": {"tokens": [600]}})).must()
    assert len(program.events("generate")) == generated, "all was measured before"
    found = {
        sweep: {row["cell"] for row in program.rows() if row["sweep"] == sweep and row["prompt_tokens"] == 600}
        for sweep in ("several", "one", "list_of_one")
    }
    assert found["several"] == found["one"] == found["list_of_one"]
    assert {len(cells) for cells in found.values()} == {4}, "the column has the length also where it is none of several"
    both = json_of(program("plot", "heatmap", "several", "one", "--json"))["files"]
    assert sum("prompt_tokens-600" in file for file in both) == 2, "one of each sweep, of the same length"


def test_another_length_is_a_few_new_cells_and_says_so(program: Program) -> None:
    config = program.grid(**{**KEYS, "prompt": {"tokens": 600}})
    program("run", config).must()
    found = json_of(program("plan", program.grid(**{**KEYS, "prompt": {"tokens": [600, 2000]}}), "--json"))
    assert found["changes"] == ["prompt_tokens 2000 is new (4 cells)"]
    assert (found["done"], found["to_run"]) == (2, 2)
    program("run", config, "--set", "prompt.tokens=[600, 2000]").must()
    found = json_of(program("plan", config, "--set", "prompt.tokens=[2000]", "--json"))
    assert found["changes"] == ["prompt_tokens 600 is gone (its cells are kept)"]
    assert (found["done"], found["to_run"]) == (2, 0)


def test_one_load_serves_every_length(program: Program, ollama: ScriptedOllama) -> None:
    once: dict[str, Any] = {"warmup": 0, "repeats": 1, "control": "off", "second_look": "off"}
    config = program.config(num_ctx=[4096], num_batch=[64], prompt={"tokens": [100, 600]}, **once)
    program("run", config, *ollama.options()).must()
    assert [row["status"] for row in program.rows()] == ["ok"] * 2
    assert (len(ollama.did("load")), len(ollama.did("run"))) == (1, 2)


def test_each_model_has_texts_of_its_own(program: Program) -> None:
    program("run", program.grid(**{**KEYS, "model": ["a", "b"], "num_ctx": [4096]})).must()
    (made,) = program.rows(sql="select count(*) as n from made_prompts")
    assert made["n"] == 6
    assert len(program.rows()) == 12


# -- plan, doctor, explain -------------------------------------------------------------------------------------------


def test_plan_says_of_each_length_what_it_does_not_fit_and_does_not_fill(program: Program) -> None:
    config = program.grid(**KEYS)
    found = json_of(program("plan", config, "--json"))
    assert found["dimensions"]["prompt_tokens"] == LENGTHS
    assert (found["cells"], found["to_run"], found["repeats"]) == (12, 8, 0)
    assert found["prompt_lengths"] == [
        {"prompt_tokens": 100, "tokens": {"m": 100}, "does_not_fit": [], "unfilled": [256]},
        {"prompt_tokens": 600, "tokens": {"m": 600}, "does_not_fit": [512], "unfilled": []},
        {"prompt_tokens": 2000, "tokens": {"m": 2000}, "does_not_fit": [512], "unfilled": []},
    ]
    assert (found["prompt_tokens"], found["does_not_fit"], found["unfilled"]) == ({"m": 2000}, [512], [256])
    said = program("plan", config).must().stdout
    assert "Prompt: text, 100, 600, 2000 tokens on m" in said
    assert "Cannot be valid: the prompt of 600 tokens does not fit num_ctx 512; skipped" in said
    assert "num_batch 256 exceeds the prompt's 100 tokens" in said


def test_where_not_even_the_shortest_fits_it_is_a_mistake(program: Program) -> None:
    config = program.grid(num_ctx=[64], num_batch=[2], prompt={"tokens": [2000, 90]})
    ended = program("plan", config).must(2)
    assert "the shortest prompt has 90 tokens and needs num_ctx 93; the largest is 64" in ended.stderr
    assert not (program.folder / "sweeps.db").exists()


def test_the_doctor_looks_at_each_length(program: Program) -> None:
    found = json_of(
        program("doctor", program.grid(num_ctx=[512], num_batch=[64], prompt={"tokens": LENGTHS}), "--json")
    )
    said = [(one["state"], one["text"]) for one in found if one["check"] == "prompt"]
    assert [state for state, _ in said] == ["ok", "warning", "warning"]
    assert "no cell of this length can run" in said[2][1]


def test_a_cell_is_explained_and_repeated_by_its_length(program: Program) -> None:
    program("run", program.grid(**KEYS)).must()
    cell = ["num_ctx=4096", "num_batch=64", "prompt_tokens=600"]
    found = json_of(program("explain", *cell, "--json"))
    assert found["coordinates"] == {"num_ctx": 4096, "num_batch": 64, "prompt_tokens": 600}
    said = program("explain", *cell).must().stdout
    assert "--set 'prompt.tokens=[600]'" in said
    assert "say also prompt_tokens" in program("explain", *cell[:2]).must(2).stderr
    again = ["--db", "again.db", "--set", "num_ctx=[4096]", "--set", "num_batch=[64]", "--set", "prompt.tokens=[600]"]
    program("run", "grid.yaml", *again).must()
    assert [row["cell"] for row in program.rows("again.db")] == [found["cell"]]


def test_a_place_with_another_length_than_its_cell_is_found(program: Program) -> None:
    program("run", program.grid(**KEYS)).must()
    program("verify").must()
    with contextlib.closing(sqlite3.connect(program.folder / "sweeps.db")) as connection, connection:
        connection.execute("UPDATE plan SET coordinates = replace(coordinates, ':600}', ':100}') WHERE position = 7")
    ended = program("verify")
    assert ended.returncode == 4
    assert "another prompt_tokens than the cell (600)" in ended.stdout + ended.stderr


def test_a_length_that_no_task_sends_is_no_dimension(program: Program) -> None:
    found = json_of(program("plan", program.grid(**KEYS, task="chat"), "--json"))
    assert (list(found["dimensions"]), found["cells"]) == (["num_ctx", "num_batch"], 4)
    assert "no task of this sweep sends the prompt" in found["warnings"][-1]


# -- what can be left out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exclude", "prompt", "left"),
    [
        ("prompt_tokens > 600", LENGTHS, {100, 600, None}),
        ("not prompt_tokens > 600", LENGTHS, {2000, None}),
        ("prompt_tokens > 600 or num_ctx < 8", LENGTHS, {100, 600, None}),
        ("100 < prompt_tokens < num_ctx", LENGTHS, {100, 600, 2000, None}),
        ("prompt_tokens * 2 > 4000 - 1 and task == 'prompt_eval'", LENGTHS, {100, 600, None}),
        ("-prompt_tokens < -600", LENGTHS, {100, 600, None}),
        ("prompt_tokens > 600 or task == 'chat'", LENGTHS, {100, 600}),
        ("num_batch > prompt_tokens", 100, {None}),
    ],
)
def test_an_exclusion_may_name_the_length(exclude: str, prompt: Any, left: set[int | None], program: Program) -> None:
    """A cell without a length is left out by nothing that is said of the length."""
    from ollama_sweep.plan import grid as cells

    keys = {**KEYS, "prompt": {"tokens": prompt}, "exclude": exclude, "task": ["prompt_eval", "chat"]}
    found = cells.cells(load(program.grid(**keys)))
    assert {cell.prompt_tokens for cell in found} == left
    assert {cell.task for cell in found} >= ({"chat"} if None in left else set())
    if prompt == 100:
        assert {(cell.task, cell.num_batch) for cell in found} == {("prompt_eval", 64), ("chat", 64), ("chat", 256)}


@pytest.mark.parametrize("order", ["column-first", "columns-bisected", "row-first", "shuffled"])
def test_every_order_has_each_cell_once(order: str, program: Program) -> None:
    from ollama_sweep.plan import grid as cells

    spec = load(program.grid(**KEYS, task=["chat", "prompt_eval"], order=order))
    found = [cell.coordinates for cell in cells.cells(spec)]
    assert len(found) == len(set(found)) == cells.combinations(spec) == 16


@pytest.mark.parametrize("where", ["prompt_tokens", "dimensions.prompt_tokens"])
def test_the_dimension_is_written_as_the_prompt(where: str, program: Program) -> None:
    ended = program("plan", program.grid(), "--set", f"{where}=[9, 8]").must(2)
    assert "it is written as prompt: {tokens: [1024, 8192]}" in ended.stderr


def test_a_grid_is_as_large_as_its_lengths_make_it(program: Program) -> None:
    """Counted before any of it is built, and only for the task that sends the prompt."""
    config = program.grid(task=["prompt_eval", "chat"], prompt={"tokens": {"start": 1, "end": 10_000_000, "step": 1}})
    assert "the grid has 40,000,004 cells (limit 2,000,000; --max-cells)" in program("plan", config).must(2).stderr


def test_a_part_of_a_range_of_lengths_can_be_set(program: Program) -> None:
    config = program.grid(**{**KEYS, "prompt": {"tokens": {"start": 100, "end": 800, "factor": 2}}})
    assert load(config).lengths == (100, 200, 400, 800)
    found = json_of(program("plan", config, "--set", "prompt.tokens.step=300", "--json"))
    assert found["dimensions"]["prompt_tokens"] == [100, 400, 700]


# -- what the numbers say --------------------------------------------------------------------------------------------


def slower_where_longer(results: list[CellResult]) -> list[CellResult]:
    """A long prompt is read more slowly, and wants a larger num_batch than a short one."""
    from dataclasses import replace

    rates = {(100, 64): 900.0, (100, 256): 800.0, (600, 64): 500.0, (600, 256): 600.0, (2000, 64): 200.0,
             (2000, 256): 300.0}  # fmt: skip
    made = []
    for one in results:
        tokens, num_batch = one.coordinates.get("prompt_tokens"), one.coordinates["num_batch"]
        rate = rates.get((tokens, num_batch)) if one.metrics else None  # type: ignore[arg-type]
        names = ("prompt_eval_rate", "prompt_eval_rate_min", "prompt_eval_rate_max")
        made.append(one if rate is None else replace(one, metrics={**one.metrics, **dict.fromkeys(names, rate)}))
    return made


def test_each_length_has_a_best_of_its_own(results: list[CellResult]) -> None:
    some = slower_where_longer(results)
    best: Any = best_cells(some).as_dict()
    assert [(one["prompt_tokens"], one["num_batch"]) for one in best["best_of_each_prompt_tokens"]] == [
        (100, 64), (600, 256), (2000, 256),
    ]  # fmt: skip
    assert (best["best"]["prompt_tokens"], best["best"]["num_batch"]) == (2000, 256), (
        "not the shortest, which is read fastest"
    )
    assert {one["num_ctx"] for one in best["best_of_each_num_ctx"]} == {4096}
    text = describe_best(some, contexts=False).splitlines()
    assert [line for line in text if line.endswith(":")] == [f"prompt_eval, prompt_tokens {n}:" for n in LENGTHS]
    assert text[-1].startswith("chat: best decode speed")
    by_metric = describe_best([one for one in some if one.task == "prompt_eval"], "prompt_eval_rate", contexts=False)
    assert by_metric.splitlines()[0] == "prompt_tokens 100:"


def test_the_best_of_each_length_is_looked_at_again(results: list[CellResult]) -> None:
    found = second_look.best_ones(slower_where_longer(results))
    assert [(one.reason, one.cell.coordinates["num_batch"]) for one in found[:3]] == [
        ("the best of prompt_eval, prompt_tokens 100", 64),
        ("the best of prompt_eval, prompt_tokens 600", 256),
        ("the best of prompt_eval, prompt_tokens 2000", 256),
    ]
    assert [one.reason for one in found[3:]] == ["the best of chat"]


def test_a_sweep_of_one_length_is_described_as_ever(program: Program) -> None:
    program("run", program.grid(**{**KEYS, "prompt": {"tokens": [100]}})).must()
    assert describe_best(read(program)).startswith("Best: num_ctx ")


def test_the_command_says_for_which_length_the_modelfile_is(program: Program) -> None:
    program("run", program.grid(**KEYS)).must()
    assert "Tuned Modelfile for prompt_tokens 2000:" in program("best").must().stdout


def test_a_picture_and_a_table_for_each_length(measured: Program, results: list[CellResult]) -> None:
    tables = sorted(path.name for path in (measured.folder / "heatmaps/grid").glob("results_table*"))
    assert tables == sorted(
        ["results_table_task-chat.csv"]
        + [f"results_table_task-prompt_eval_prompt_tokens-{tokens}.csv" for tokens in LENGTHS]
    )
    for data, tokens in zip(heatmap.collect(results, PlotOptions()), [*LENGTHS, None], strict=True):
        assert dict(data.combination).get("prompt_tokens") == tokens
        assert ("task prompt_eval, prompt_tokens" in " ".join(data.facts)) == (tokens is not None)
        assert not any(fact.startswith("prompt of") for fact in data.facts), "said once"
        assert sum(mark.best for mark in data.cells.values()) == 1


@pytest.mark.parametrize("axes", [("prompt_tokens", "num_batch"), ("num_batch", "prompt_tokens")])
def test_the_length_may_be_an_axis_and_has_a_star_each(axes: tuple[str, str], results: list[CellResult]) -> None:
    data = grid.collect(slower_where_longer(results), PlotOptions(x=axes[0], y=axes[1]))[-1]
    assert dict(data.combination) == {"num_ctx": 4096, "task": "prompt_eval"}, "no picture of a task without a length"
    stars = {dict(zip(axes, place, strict=True))["prompt_tokens"]: dict(zip(axes, place, strict=True))["num_batch"]
             for place, mark in data.cells.items() if mark.best}  # fmt: skip
    assert stars == {100: 64, 600: 256, 2000: 256}
    assert heatmap_legend.entries(data)[0].text == "best of each prompt_tokens (3)"
    assert field.of_marks(data).best is None


def test_reports_and_tables_do_not_pool_lengths(measured: Program, results: list[CellResult]) -> None:
    groups = json_of(measured("report", "--json"))["groups"]
    assert [(one["task"], one["prompt_tokens"]) for one in groups] == [
        *(("prompt_eval", tokens) for tokens in LENGTHS), ("chat", None),
    ]  # fmt: skip
    assert groups[1]["label"] == "m, prompt_tokens 600"
    assert all("prompt_tokens" not in one["pooled_over"] for one in groups)
    lines = measured("export", "--format", "md").must().stdout.splitlines()
    assert lines[5].startswith("| 512 | 64 | chat |  |"), "no length, and not the default one"
    with (measured.folder / "heatmaps/grid/results.csv").open(newline="", encoding="utf-8") as file:
        assert {row["prompt_tokens"] for row in csv.DictReader(file)} == {"100", "600", "2000", ""}


def test_very_many_cells_end_like_few(measured: Program, results: list[CellResult]) -> None:
    few = {path.name: path.read_bytes() for path in (measured.folder / "heatmaps/grid").glob("*.csv")}
    with mock.patch.multiple(pictures, MANY=0, FROM_COLUMNS=0), mock.patch.object(heatmap_figure, "write") as write:
        said = measured("run", "grid.yaml").must().stdout
        measured("heatmap", "grid.yaml").must()
    assert write.call_count == 4
    assert {path.name: path.read_bytes() for path in (measured.folder / "heatmaps/grid").glob("*.csv")} == few
    few_best, many_best = (
        [line for line in text.splitlines() if line.startswith(("Best: ", "prompt_eval, "))]
        for text in (describe_best(results, contexts=False), said)
    )
    assert many_best[: len(few_best)] == few_best
    assert len(few_best) == 6
    with Reader.open(measured.folder / "sweeps.db") as reader:
        from ollama_sweep.results.large import columns

        row = reader.sweep("grid")
        spreads = reader.spreads(row.sweep_id)
        made = [part.drawn() for part in columns.parts_of(columns.read(reader, row), row.machine)]
        assert made == heatmap.collect(results, PlotOptions(sweep="grid", machine=row.machine, spreads=spreads))
