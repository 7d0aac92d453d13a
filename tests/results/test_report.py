"""Tables, exports, the old simple form, and the best cells in words."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from results_maker import Machine, Recipe, large, make, ranged, result

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.noise.spread import Spread, Spreads
from ollama_sweep.core.outcome import CellResult, Flag, Status
from ollama_sweep.results.best import best_cells, describe_best
from ollama_sweep.results.export import export, read_old_results
from ollama_sweep.results.pictures import results_tables, save_tables

MIXED = [
    ranged(1024, 64, 280.5, 278, 283),
    result(1024, 128, status=Status.OOM, reason="cuda_oom", metrics={}, error="cudaMalloc failed"),
    result(2048, 64, None),
    result(2048, 128, status=Status.SKIPPED, reason="does_not_fit", metrics={}),
]
OLD = {"num_ctx": 4096, "num_batch": 64, "prompt_eval_rate": 331.0, "timestamp": "2025-01-01T00:00:00", "error": None}


# --- tables


def test_the_table_is_the_picture() -> None:
    assert results_tables(MIXED) == {"results_table.csv": "num_batch,1024,2048\n64,280.5,\n128,CUDA OOM,Does not fit\n"}


def test_the_table_of_the_large_grid_has_its_shape() -> None:
    rows = list(csv.reader(results_tables(large())["results_table.csv"].splitlines()))
    assert len(rows) == 17
    assert {len(row) for row in rows} == {40}
    assert rows[0] == ["num_batch", *map(str, range(32768, 110593, 2048))]
    assert sum(cell == "CUDA OOM" for row in rows for cell in row) == 85


def test_one_table_for_each_combination_and_another_name_for_another_metric() -> None:
    cells = [cell for gpu in (0, 99) for cell in make(Recipe(other={"num_gpu": gpu}))]
    assert list(results_tables(cells)) == ["results_table_num_gpu-0.csv", "results_table_num_gpu-99.csv"]
    tables = results_tables(make(), "size_bytes")
    assert list(tables) == ["results_table_size_bytes.csv"]
    assert re.search(r"^64,\d{11},\d{11},\d{11}$", tables["results_table_size_bytes.csv"], re.MULTILINE)


def test_an_unknown_metric_is_bad_input() -> None:
    with pytest.raises(ConfigError, match="unknown metric size_byte"):
        results_tables(make(), "size_byte")


def test_a_sweep_without_cells_gives_an_empty_table() -> None:
    assert results_tables([]) == {"results_table.csv": "num_batch\n"}


def test_tables_are_written_beside_each_other(tmp_path: Path) -> None:
    paths = save_tables(MIXED, tmp_path / "heatmaps" / "quickstart")
    assert [path.name for path in paths] == ["results_table.csv", "results.csv"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["results.csv", "results_table.csv"]
    assert paths[1].read_text() == export(MIXED, "csv")


# --- exports


def test_csv_has_every_column_once_and_exact_numbers() -> None:
    cells = make()
    rows = list(csv.DictReader(export(cells, "csv").splitlines()))
    assert len(rows) == 9
    assert set(rows[0]) == {name for cell in cells for name in cell.row}
    assert [float(row["prompt_eval_rate"]) for row in rows] == [cell.row["prompt_eval_rate"] for cell in cells]


def test_columns_that_only_some_cells_have_stay_empty_for_the_others() -> None:
    rows = list(csv.DictReader(export(MIXED, "csv").splitlines()))
    assert [row["prompt_eval_rate"] for row in rows] == ["280.5", "", "", ""]
    assert [row["status"] for row in rows] == ["ok", "oom", "pending", "skipped"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_a_text_that_a_spreadsheet_would_run_is_defused(text: str) -> None:
    rows = list(csv.DictReader(export([result(1, 1, error=text)], "csv").splitlines()))
    assert rows[0]["error"] == f"'{text}"


def test_a_negative_number_stays_a_number() -> None:
    rows = list(csv.DictReader(export([result(1, 1, metrics={"score": -1.5})], "csv").splitlines()))
    assert rows[0]["score"] == "-1.5"


def test_quotes_commas_and_line_ends_survive_csv() -> None:
    text = 'said "no",\nthen died'
    rows = list(csv.DictReader(export([result(1, 1, error=text)], "csv").splitlines(keepends=True)))
    assert rows[0]["error"] == text


def test_json_and_jsonl_hold_the_same_rows_without_nan() -> None:
    cells = [*make(), result(9, 9, row={"num_ctx": 9, "prompt_eval_rate": float("nan")})]
    rows = json.loads(export(cells, "json"))["results"]
    assert rows == [json.loads(line) for line in export(cells, "jsonl").splitlines()]
    assert rows[-1] == {"num_ctx": 9, "prompt_eval_rate": None}
    assert rows[:-1] == [dict(cell.row) for cell in cells[:-1]]


def test_markdown_is_a_table_that_nothing_breaks_out_of() -> None:
    bad = result(1, 2, coordinates={"num_ctx": 1, "num_batch": 2, "model": "a|b\n<script>"})
    lines = export([ranged(1, 1, 331, 322, 335, flags=frozenset({Flag.SPILLED})), bad], "md").splitlines()
    assert len(lines) == 4
    assert lines[2] == "| 1 | 1 | default | 331 | 322–335 | 3 | ok | spilled |"
    assert "a\\|b &lt;script>" in lines[3]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {9}


def test_what_there_is_not_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--format: jsonl2 is unknown; .* Did you mean jsonl\?"):
        export(MIXED, "jsonl2")
    with pytest.raises(ConfigError, match="--layout: simpel is unknown"):
        export(MIXED, "json", "simpel")
    with pytest.raises(ConfigError, match="json only, not for csv"):
        export(MIXED, "csv", "simple")


# --- the old simple form


def test_the_simple_form_has_the_old_fields_for_cells_that_were_tried() -> None:
    cells = [replace(cell, row={"finished_at": "2026-01-01T00:00:00"}) for cell in MIXED]
    assert json.loads(export(cells, "json", "simple")) == {
        "results": [
            {"num_ctx": 1024, "num_batch": 64, "prompt_eval_rate": 280.5, "timestamp": "2026-01-01T00:00:00",
             "error": None},
            {"num_ctx": 1024, "num_batch": 128, "prompt_eval_rate": None, "timestamp": "2026-01-01T00:00:00",
             "error": "CUDA OOM"},
        ]
    }  # fmt: skip


def test_the_simple_form_cannot_hold_other_dimensions() -> None:
    with pytest.raises(ConfigError, match="this sweep also has num_gpu"):
        export(make(Recipe(other={"num_gpu": 0})), "json", "simple")


def test_what_is_exported_can_be_read_again() -> None:
    text = export(large(), "json", "simple")
    rows = read_old_results(text, "old.json")
    assert rows == json.loads(text)["results"]
    assert len(rows) == 624


def test_old_files_may_leave_out_what_they_do_not_know() -> None:
    text = b"\xef\xbb\xbf" + json.dumps({"results": [{"num_ctx": 1, "num_batch": 1, "prompt_eval_rate": 5}]}).encode()
    assert read_old_results(text, "old.json") == [
        {"num_ctx": 1, "num_batch": 1, "prompt_eval_rate": 5.0, "timestamp": None, "error": None}
    ]


def old(**changes: object) -> str:
    return json.dumps({"results": [OLD, {**OLD, "num_batch": 128, **changes}]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "old.json:1: is not JSON: Expecting value (column 1)"),
        ('{"results": [\n{"num_ctx": }]}', "old.json:2: is not JSON"),
        (b"\xff\xfe", "old.json: is not UTF-8"),
        ("[" * 100_000, "old.json: is not JSON"),
        ("[]", "old.json: has no results"),
        ('{"result": []}', "old.json: has no results"),
        ('{"results": {}}', "old.json: has no results"),
        ('{"results": []}', "old.json: the list of results is empty"),
        ('{"results": [7]}', "item 1: 7 is a number; write an object"),
        ('{"results": [{"num_ctx": 1, "num_batch": 1, "num_batch": 2}]}', "num_batch is given twice"),
        ('{"results": [{"num_batch": 1, "prompt_eval_rate": 1}]}', "item 1: num_ctx is missing"),
        ('{"results": [{"num_ctx": 1, "num_batc": 1}]}', "num_batch is missing. Did you mean num_batc?"),
        (old(prompt_eval_rate=float("nan")), "old.json: NaN is not a number"),
        (old(prompt_eval_rate=float("inf")), "old.json: Infinity is not a number"),
        (old().replace("331.0", "1e999"), "item 1: prompt_eval_rate: inf is not a rate"),
        (old(num_ctx="4096"), "old.json: item 2: num_ctx: '4096' is text; write whole numbers like 4096"),
        (old(num_ctx=4096.0), "item 2: num_ctx: 4096.0 is not whole"),
        (old(num_ctx=True), "item 2: num_ctx: true is not allowed"),
        (old(num_batch=0), "item 2: num_batch: 0 is outside 1 to 10000000"),
        (old(prompt_eval_rate="fast"), "item 2: prompt_eval_rate: 'fast' is text; write a number above 0, or null"),
        (old(prompt_eval_rate=-3), "item 2: prompt_eval_rate: -3 is not a rate"),
        (old(prompt_eval_rate=None), "item 2: has neither a prompt_eval_rate nor an error"),
        (old(error="CUDA OOM"), "item 2: has a prompt_eval_rate and an error"),
        (old(error=["x"]), "item 2: error: a list; write text or null"),
        (old(timestamp=1735689600), "item 2: timestamp: 1735689600 is a number; write text or null"),
        (old(num_batch=64), "item 2: num_ctx 4096 with num_batch 64 is there twice (first in item 1)"),
        ('{"results": [{"num_ctx": 1' + "0" * 5000 + "}]}", "old.json: is not JSON: a number is too long"),
    ],
)
def test_a_bad_old_file_is_told_in_one_line(text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_old_results(text, "old.json")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_beyond_the_limit_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ollama_sweep.results.export.MOST_BYTES", 2 * 2**20)
    with pytest.raises(ConfigError, match="is 3 MB; the limit is 2 MB"):
        read_old_results(b"x" * (3 * 2**20), "old.json")


# --- the best


ONE_LOAD = (
    "how far loads differ is not known, and what is in brackets is the range of the runs of one load: what differs no "
    "more than loads do cannot be told apart."
)
ONE_RUN = "how far loads differ is not known, and it ran once: what differs no more than loads do cannot be told apart."


def test_the_best_in_words() -> None:
    cells = [ranged(4096, 256, 331, 322, 335), ranged(4096, 512, 329, 324, 333), ranged(2048, 256, 300, 299, 301)]
    assert describe_best(cells).splitlines() == [
        "Best: num_ctx 4096 with num_batch 256: 331 tokens/s (322–335, 3 runs).",
        "Tied with it: num_ctx 4096 with num_batch 512 (329).",
        "Best num_batch of each num_ctx:",
        "  num_ctx  num_batch  tokens/s",
        "     2048        256       300 (299–301, 3 runs)",
        "     4096        256       331 (322–335, 3 runs) ★",
        f"Note: {ONE_LOAD}",
    ]
    assert len(describe_best(cells, contexts=False).splitlines()) == 3


def test_both_spreads_are_said_and_runs_of_several_loads() -> None:
    cells = [nine_runs(1, 64, 331, 325, 334, loads=3), nine_runs(1, 128, 320, 310, 326, loads=3)]
    spreads = {"prompt_eval_rate": Spreads(Spread(0.012, 12), Spread(0.03, 4))}
    assert describe_best(cells, spreads=spreads, contexts=False).splitlines() == [
        "Best: num_ctx 1 with num_batch 64: 331 tokens/s (325–334 at 95 %, 9 runs in 3 loads).",
        "Tied with it: num_ctx 1 with num_batch 128 (320).",
        "Spread: runs ± 1.2 %, loads ± 3 %.",
    ]


def test_the_one_that_was_measured_again_as_the_best_stands_first() -> None:
    """The highest of many is so partly by luck, unless it lies beyond both intervals."""
    looked_at = nine_runs(1, 64, 320, 315, 326, looks=2)
    assert best_cells([looked_at, nine_runs(1, 128, 331, 325, 334)]).winner is looked_at
    beyond = nine_runs(1, 128, 340, 335, 345)
    assert best_cells([looked_at, beyond]).winner is beyond


def nine_runs(num_ctx: int, num_batch: int, rate: float, low: float, high: float, **more: float) -> CellResult:
    """A cell whose range is far wider than its interval."""
    metrics = {"prompt_eval_rate": rate, "prompt_eval_rate_min": 1.0, "prompt_eval_rate_max": 999.0, "runs": 9.0,
               "prompt_eval_rate_low": low, "prompt_eval_rate_high": high, **more}  # fmt: skip
    return result(num_ctx, num_batch, metrics=metrics, status=Status.OK)


def test_the_best_has_its_interval_and_how_sure_it_is() -> None:
    cells = [nine_runs(1, 64, 331, 325, 334), nine_runs(1, 128, 320, 310, 326), nine_runs(1, 256, 300, 290, 305)]
    first, second, *_ = describe_best(cells).splitlines()
    assert first == "Best: num_ctx 1 with num_batch 64: 331 tokens/s (325–334 at 95 %, 9 runs)."
    assert second == "Tied with it: num_ctx 1 with num_batch 128 (320)."
    best: Any = best_cells(cells).as_dict()["best"]
    assert (best["low"], best["high"], best["coverage"]) == (325, 334, 0.95)


def test_an_interval_without_a_visible_width_is_not_written() -> None:
    assert "tokens/s (9 runs)." in describe_best([nine_runs(1, 64, 92.5, 92.49999, 92.50001)])


def answering(num_ctx: int, task: str, **metrics: float) -> CellResult:
    coordinates = {"num_ctx": num_ctx, "num_batch": 64, "task": task}
    found = {"runs": 16.0, "answers": 16.0, "failed_answers": 0.0, **metrics}
    return result(num_ctx, 64, metrics=found, status=Status.OK, task=task, coordinates=coordinates)


def test_every_task_says_what_is_tied_with_its_best() -> None:
    cells = [
        answering(1, "chat", decode_tps=90.0, decode_tps_low=80.0, decode_tps_high=99.0),
        answering(2, "chat", decode_tps=85.0, decode_tps_low=79.0, decode_tps_high=89.0),
        answering(1, "mmlu", quality=0.5, quality_low=0.28, quality_high=0.72),
        answering(2, "mmlu", quality=0.75, quality_low=0.51, quality_high=0.9),
        answering(4, "mmlu", quality=0.1, quality_low=0.02, quality_high=0.3),
    ]
    text = describe_best(cells, contexts=False)
    assert "90 tokens/s (80–99 at 95 %, 16 answers)." in text
    assert "Tied with it: num_ctx 2 with num_batch 64, task chat (85)." in text
    assert (
        "mmlu: best quality, the mean score, num_ctx 2 with num_batch 64, task mmlu: 0.750 (0.510–0.900 at 95 %, "
        in text
    )
    assert text.endswith("Tied with it: num_ctx 1 with num_batch 64, task mmlu (0.500).")


def test_many_tied_cells_are_counted() -> None:
    text = describe_best(large(), contexts=False)
    assert re.search(r"^Tied with it: (num_ctx \d+ with num_batch \d+ \(\d+\); ){5}and 104 more\.$", text, re.MULTILINE)
    assert "Note: num_batch 1664 is tied with it at num_ctx 57344 and needs less memory." in text


def notes(cells: list[CellResult]) -> list[str]:
    return list(best_cells(cells).warnings)


@pytest.mark.parametrize("flag", [Flag.SPILLED, Flag.CLAMPED, Flag.UNFILLED, Flag.NOISY, Flag.IMPORTED])
def test_what_speaks_against_the_best_is_said(flag: Flag) -> None:
    assert notes([result(1, 2, 331.0, flags=frozenset({flag})), result(1, 1, 100.0), result(1, 3, 99.0)])[0].startswith(
        f"the best cell is {flag}: "
    )


def test_what_really_ran_is_said_where_the_engine_used_something_else() -> None:
    metrics = {"prompt_eval_rate": 5.0, "runs": 3.0, "effective_num_ctx": 2048.0, "effective_num_batch": 512.0}
    found = notes([result(4096, 512, metrics=metrics, flags=frozenset({Flag.CLAMPED}))])
    assert "what really ran there is num_ctx 2048." in found


def test_a_best_at_the_edge_may_not_be_the_best() -> None:
    rising = [result(1, y, 100.0 + y) for y in (64, 128, 256)]
    assert notes(rising)[0] == "num_batch 256 is the largest of this sweep; a larger one may be better still."
    falling = [result(1, y, 900.0 - y) for y in (64, 128, 256)]
    assert notes(falling)[0] == "num_batch 64 is the smallest of this sweep; a smaller one may be better still."


def test_a_plateau_or_a_larger_batch_that_failed_is_no_edge() -> None:
    plateau = [ranged(1, 64, 100, 99, 101), ranged(1, 128, 330, 325, 335), ranged(1, 256, 331, 326, 336)]
    assert notes(plateau) == ["num_batch 128 is tied with it at num_ctx 1 and needs less memory.", ONE_LOAD]
    ended = [result(1, 64, 100.0), result(1, 128, 200.0), result(1, 256, status=Status.OOM, metrics={})]
    assert notes(ended) == [ONE_RUN]


def test_an_interim_best_and_a_single_run_are_said() -> None:
    cells = [
        result(1, y, rate, metrics={"prompt_eval_rate": rate, "runs": 1.0})
        for y, rate in ((1, 5.0), (2, 9.0), (3, 4.0))
    ]
    found = notes([*cells, result(1, 4, None), result(1, 5, None)])
    assert found == [
        ONE_RUN,
        "2 of 5 cells are not measured yet, the best may change.",
    ]


def test_each_model_has_its_best_and_other_dimensions_are_named() -> None:
    cells = [
        cell
        for seed, name in enumerate(("qwen2:1.5b", "gemma:2b"))
        for cell in make(Recipe(model=name, other={"model": name}, machine=Machine(peak_rate=1000 + 500 * seed)))
    ]
    best = best_cells(cells)
    assert best.winner is not None
    assert [cell.model for cell in best.by_model] == ["qwen2:1.5b", "gemma:2b"]
    assert best.winner.model == "gemma:2b"
    assert {cell.model for cell in best.by_context} == {"gemma:2b"}
    text = describe_best(cells)
    assert re.search(r"^Best: num_ctx \d+ with num_batch 256, model gemma:2b: ", text)
    assert "\n  qwen2:1.5b: num_ctx " in text


def test_the_best_for_machines() -> None:
    made = best_cells([ranged(4096, 256, 331, 322, 335), ranged(4096, 512, 329, 324, 333)]).as_dict()
    assert json.loads(json.dumps(made))["best"] == {
        "num_ctx": 4096, "num_batch": 256, "model": "smollm2", "prompt_eval_rate": 331, "low": 322, "high": 335,
        "coverage": None, "runs": 3, "flags": [],
    }  # fmt: skip
    assert best_cells([]).as_dict()["best"] is None


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        ([], "No measured cells yet."),
        ([result(1, 1, None)], "No measured cells yet."),
        ([result(1, 1, metrics={"runs": 1.0})], "No cell has a believed prompt_eval_rate."),
        (
            [
                result(1, y, status=status, metrics={})
                for y, status in enumerate([Status.OOM, Status.OOM, Status.CRASHED])
            ],
            "No cell has a number: OOM (2), Crashed (1).",
        ),
    ],
)
def test_without_a_number_there_is_no_best(cells: list[CellResult], text: str) -> None:
    assert describe_best(cells) == text
