"""`report`: a sweep over tasks is measured with the scripted engine, and its numbers, files and analysis are read."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_runner import ONE_LOAD, Ended
from sweeping import Program
from sweeping import program as program  # a fixture

from ollama_sweep.store.writer import Store

VERDICT = json.dumps({"ranking": ["m2:8b", "m1"], "recommendations": ["take m2:8b"], "winner": "m2:8b"})


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `tasks.db`, two models at three tasks, and `speed.db`, a sweep that keeps no answers."""
    with contextlib.closing(Program(tmp_path_factory.mktemp("report"))) as program:
        dimensions = {"model": ["m1", "m2:8b"], "task": ["prompt_eval", "chat", "json_quality"]}
        common = {"engine": "fake", "num_ctx": [2048], "num_batch": [64], "prompt": {"text": "hello"}, **ONE_LOAD}
        program("run", program.config("tasks", dimensions=dimensions, **common), "--db", "tasks.db").must()
        program("run", program.config("speed", model="m", **common), "--db", "speed.db").must()
        yield program.folder


@pytest.fixture
def measured(program: Program, databases: Path) -> Program:
    """A folder with the sweep over tasks; the judge answers the question of an analysis."""
    program.script(answers={"You compare language models": f"m2:8b wins.\n```json\n{VERDICT}\n```"})
    shutil.copy(databases / "tasks.db", program.folder / "sweeps.db")
    return program


@pytest.fixture
def speed_only(program: Program, databases: Path) -> Program:
    """A folder with the sweep without answers."""
    shutil.copy(databases / "speed.db", program.folder / "sweeps.db")
    return program


def said(ended: Ended) -> Any:
    return json.loads(ended.must().stdout)


def refused(ended: Ended, message: str, code: int = 2) -> None:
    """One line on stderr, nothing else."""
    ended.must(code)
    assert re.fullmatch(rf"error: [^\n]*{message}[^\n]*\n", ended.stderr), ended.stderr
    assert ended.stdout == ""


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# -- what is said ----------------------------------------------------------------------------------------------------


def test_every_task_of_every_model_is_said(measured: Program) -> None:
    text = measured("report").must().stdout
    for line in ("Task prompt_eval", "Task chat", "Task json_quality", "m2:8b, chat: 9 of 9 answered (100 %)"):
        assert line in text
    assert re.search(r"model +number +n +mean +median +P95 +P99 +max +min–max", text)
    assert "valid_json failed" in text
    assert "numpy's default" in text
    assert "Files:" not in text


def test_the_numbers_for_machines_agree_with_the_database(measured: Program) -> None:
    found = said(measured("report", "tasks", "--json"))
    chat = next(group for group in found["groups"] if (group["model"], group["task"]) == ("m1", "chat"))
    sql = """select client_duration_s as s from runs join attempts on attempts.id = runs.attempt_id
        join cells on cells.id = attempts.cell_id where cells.model = 'm1' and cells.task = 'chat' and warmup = 0"""
    latencies = sorted(row["s"] for row in measured.rows(sql=sql))
    assert chat["numbers"]["latency_s"]["n"] == len(latencies) == 9
    assert chat["numbers"]["latency_s"]["median"] == latencies[4]
    assert chat["numbers"]["latency_s"]["max"] == latencies[-1]
    assert chat["success_rate"] == 1.0
    assert {group["task"] for group in found["groups"]} == {"prompt_eval", "chat", "json_quality"}


def test_a_sweep_without_answers_is_reported_by_its_cells(speed_only: Program) -> None:
    text = speed_only("report").must().stdout
    assert "m, prompt_eval: 1 of 1 cells measured (100 %)" in text
    refused(speed_only("report", "--out", "results"), "--out: sweep speed has kept no answers")
    assert not (speed_only.folder / "results").exists()


def test_what_failed_is_part_of_the_report(program: Program) -> None:
    program.script(item_failures={"travel": ["error"]})
    dimensions = {"task": ["chat"]}
    config = program.config("c", model="m", engine="fake", dimensions=dimensions, num_ctx=[2048], num_batch=[64],
                          tasks={"chat": {"max_retries": 0}}, **ONE_LOAD)  # fmt: skip
    program("run", config).must()
    (group,) = said(program("report", "--json"))["groups"]
    assert 0 < group["succeeded"] < group["asked"]
    assert group["numbers"]["latency_s"]["n"] == group["succeeded"]


def test_a_run_that_lies_off_is_named_and_stays_in(program: Program) -> None:
    program.script(slows={"after": 11, "factor": 0.5})
    grid = {"num_ctx": [2048, 3072, 4096], "num_batch": [64], "prompt": {"text": "hello"}, "warmup": 1, "repeats": 3}
    program("run", program.config("c", model="m", engine="fake", **grid, **ONE_LOAD)).must()
    found = said(program("report", "--json"))
    (off,) = found["outlying_runs"]
    assert (off["num_ctx"], off["num_batch"], off["run"]) == (4096, 64, 3)
    assert off["prompt_eval_rate"] < 0.6 * off["median"]
    place = "m, num_ctx 4096 with num_batch 64, run 3"
    assert f"Note: 1 run lies off and stayed in: {place}: " in program("report").must().stdout
    (cell,) = program.rows(sql="select * from results where num_ctx = 4096")
    assert cell["runs"] == 3


def test_several_sweeps_in_one_report(measured: Program) -> None:
    measured("run", measured.config("more", model="m1", engine="fake", dimensions={"task": ["chat"]}, num_ctx=[4096],
                                    num_batch=[64], **ONE_LOAD)).must()  # fmt: skip
    found = said(measured("report", "tasks", "more", "more", "--json"))
    assert [entry["sweep"] for entry in found["sweeps"]] == ["tasks", "more"]
    assert {"m1, tasks", "m1, more", "m2:8b"} == {group["label"] for group in found["groups"]}


# -- cost ------------------------------------------------------------------------------------------------------------


def test_cost_from_a_table_and_from_one_price(measured: Program) -> None:
    (measured.folder / "prices.yaml").write_text("currency: EUR\nm1: {input_per_1m: 1, output_per_1m: 2}\n", "utf-8")
    found = said(measured("report", "--prices", "prices.yaml", "--json"))
    cost = {(group["model"], group["task"]): group["cost"] for group in found["groups"]}
    chat = next(group for group in found["groups"] if (group["model"], group["task"]) == ("m1", "chat"))
    read, written = (chat["numbers"][name]["mean"] * 9 for name in ("prompt_tokens", "output_tokens"))
    assert cost["m1", "chat"]["total"] == pytest.approx((read + 2 * written) / 1e6)
    assert cost["m1", "chat"]["currency"] == "EUR"
    assert len(cost["m1", "chat"]["by_cell"]) == 1
    assert cost["m2:8b", "chat"] is None
    assert any("no cost for m2:8b" in note for note in found["notes"])
    text = measured("report", "--cost-per-token", "0.001").must().stdout
    assert re.search(r"m2:8b, cost: [\d.]+ in all, 0.001 a token, [\d.]+ an answer, [\d.]+ a cell", text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prices", "none.yaml"], "none.yaml: file not found"),
        (["--prices", "broken.yaml"], "broken.yaml:1: m1: unknown key per_tokens"),
        (["--prices", "broken.yaml", "--cost-per-token", "1"], "--prices or --cost-per-token, not both"),
        (["--cost-per-token", "-1"], "-1 is not a price"),
        (["--cost-per-token", "nan"], "nan is not a price"),
        (["nosuch"], "has no sweep nosuch"),
        (["speeed"], "Did you mean speed"),
        (["--analysis-model", ""], "--analysis-model: write the name of a model, or auto"),
        (["--analysis-model", "gpt-oss:120b-cloud"], "gpt-oss:120b-cloud is a cloud model; use --allow-cloud"),
        (["--analysis-model", "auto"], "no tested model has answered with text"),
        (["--out", "broken.yaml"], "--out: broken.yaml is not a folder"),
        (["--out", "broken.yaml/below"], "--out: broken.yaml is not a folder"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_made(speed_only: Program, words: list[str], message: str) -> None:
    (speed_only.folder / "broken.yaml").write_text("m1: {per_tokens: 1}\n", "utf-8")
    before = names(speed_only.folder)
    refused(speed_only("report", *words), message)
    made = {name for name in names(speed_only.folder) - before if not name.startswith(("output-", "sweeps.db"))}
    assert made == set()


def test_without_a_database_or_a_measured_cell(program: Program) -> None:
    refused(program("report"), "no database at sweeps.db")
    assert not (program.folder / "sweeps.db").exists()
    Store.open(program.folder / "sweeps.db").close()
    refused(program("report"), "no sweep has run in this database yet")


def test_a_sweep_that_measured_nothing_yet(program: Program) -> None:
    program.script(cells={"num_ctx 512, num_batch 8": ["unavailable"]})
    config = program.config("s", model="m", engine="fake", prompt={"text": "hi"}, num_ctx=[512], num_batch=[8])
    program("run", config, "--wait-engine", "0.01s").must(5)
    refused(program("report", "--out", "results"), "sweep s has no measured cell yet")
    assert not (program.folder / "results").exists()


# -- files -----------------------------------------------------------------------------------------------------------


def test_the_files_people_know(measured: Program) -> None:
    text = measured("report", "--out", "results").must().stdout
    out = measured.folder / "results"
    found = names(out)
    for task in ("chat", "json_quality"):
        known = {"summary.json", "results_local.csv", "model_summary.csv", "benchmark_log.csv", "m2-8b_prompt_01.json"}
        assert {f"{task}/{name}" for name in known} <= found
        assert sum(name.startswith(f"{task}/run_") for name in found) == 2
    assert sum(name.startswith("comparison_") for name in found) == 1
    assert sum(name.startswith("report_") for name in found) == 1
    listed = text[text.index("Files:") :]
    assert "results/chat/benchmark_log.csv" in listed
    assert "results/chat/m1_prompt_*.json (9 files)" in listed
    for name in found:
        if name.endswith(".json"):
            json.loads((out / name).read_text("utf-8"))


def test_writing_again_changes_nothing_but_the_time_of_the_hardware_report(measured: Program) -> None:
    measured("report", "--out", "results").must()
    out = measured.folder / "results"
    before = {name: (out / name).read_bytes() for name in names(out)}
    measured("report", "--out", "results").must()
    after = {name: (out / name).read_bytes() for name in names(out)}
    changed = {name for name in after if after[name] != before.get(name)}
    assert set(after) == set(before)
    assert all(name.startswith("report_") for name in changed)
    assert len(list(csv.reader(io.StringIO(after["chat/benchmark_log.csv"].decode())))) == 3


def test_one_task_needs_no_folder_of_its_own(program: Program) -> None:
    config = program.config(
        "c", model="m", engine="fake", dimensions={"task": ["chat"]}, num_ctx=[2048], num_batch=[64], **ONE_LOAD
    )
    program("run", config).must()
    found = said(program("report", "--out", "results", "--json"))["files"]
    assert "results/summary.json" in found
    assert not any("comparison" in name for name in found), "one model is compared with none"


# -- the analysis ----------------------------------------------------------------------------------------------------


def test_a_model_compares(measured: Program) -> None:
    found = said(measured("report", "--analysis-model", "judge", "--out", "results", "--json"))
    assert found["analysis"]["readable"] == "m2:8b wins."
    assert found["analysis"]["structured"]["ranking"] == ["m2:8b", "m1"]
    assert found["analysis"]["note"] is None
    (name,) = (name for name in found["files"] if "comparison" in name)
    comparison = json.loads((measured.folder / name).read_text("utf-8"))
    assert comparison["meta"]["analysis_model"] == "judge"
    assert comparison["analysis"]["structured"]["winner"] == "m2:8b"


def test_auto_asks_a_tested_model_and_a_cloud_model_is_asked_when_it_is_allowed(measured: Program) -> None:
    assert "Analysis by m" in measured("report", "--analysis-model", "auto").must().stdout
    words = ("--analysis-model", "big:cloud", "--allow-cloud")
    assert "Analysis by big:cloud:" in measured("report", *words).must().stdout


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ({"missing_models": ["judge"], "cells": {"num_ctx 4096": ["unavailable"]}}, "could not be asked"),
        ({"cells": {"num_ctx 4096": ["cuda_oom"]}}, "could not be asked (cudaMalloc failed: out of memory)"),
        ({"cells": {"num_ctx 4096": ["timeout"]}}, "could not be asked (no answer in time)"),
        ({"answers": {"You compare": "I like trains."}}, "gave no usable structure"),
        ({"answers": {"You compare": ""}}, "gave no answer"),
    ],
)
def test_where_the_model_fails_the_plain_summaries_are_there(
    measured: Program, script: dict[str, Any], why: str
) -> None:
    measured.script(**script)
    found = said(measured("report", "--analysis-model", "judge", "--json"))["analysis"]
    assert found["structured"] is None
    assert "m1, chat: 9 of 9 answered" in found["readable"]
    assert why in found["note"]


def test_nothing_of_the_analysis_stays_behind(measured: Program) -> None:
    before = measured.rows(sql="select * from ledger")
    measured("report", "--analysis-model", "judge").must()
    assert measured.rows(sql="select * from ledger") == before
    assert measured.left_running() == []


def test_a_running_sweep_is_not_disturbed(measured: Program) -> None:
    with_lock = Store.open(measured.folder / "sweeps.db")
    try:
        refused(measured("report", "--analysis-model", "judge"), "a sweep is running .* would spoil its numbers")
        measured("report").must()
    finally:
        with_lock.close()
