"""`explain`: a cell on one screen, by each of its names, over every kind of cell that a database holds."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest
from older_database import lay_out
from sweeping import GRID, Program, json_of, label
from sweeping import program as program  # a fixture

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.outcome import FLAG_MEANINGS, Flag, Line, Series
from ollama_sweep.engines import facts
from ollama_sweep.results.explain import telemetry_words


@pytest.fixture
def measured(program: Program) -> Program:
    """Four cells; one crashes twice, one is measured at its second attempt."""
    program.script(cells={label(512, 4): ["crashed", "crashed"], label(1024, 2): ["crashed", "ok"]})
    program("run", program.config("grid", **GRID)).must()
    return program


def test_a_cell_is_found_by_its_coordinates_its_key_and_its_position(measured: Program) -> None:
    told = measured("explain", "num_ctx=1024", "num_batch=4").must().stdout
    key = json_of(measured("explain", "num_batch=4", "num_ctx=1024", "--json"))["cell"]
    assert told.startswith("num_ctx 1024, num_batch 4: position 3 of 0 to 3, sweep grid\n")
    assert key in told
    for words in (["3"], [key], [key[:12]], [key.removeprefix("c1:")[:10]], ["3", "--sweep", "grid"]):
        assert measured("explain", *words).must().stdout == told, words


def test_it_says_what_was_asked_used_and_measured_and_why(measured: Program) -> None:
    told = measured("explain", "num_ctx=1024", "num_batch=2").must().stdout
    assert "asked  num_batch 2, num_ctx 1024, num_predict 2" in told
    assert "used   num_ctx 1024, num_batch 2" in told
    first, second = (line for line in told.splitlines() if line.startswith(("  1. ", "  2. ")))
    assert "crashed (assert)" in first
    assert first.endswith("its turn in the plan")
    assert second.endswith("the attempt before ended as crashed, which is tried again")
    found = json_of(measured("explain", "num_ctx=1024", "num_batch=2", "--json"))
    runs = found["attempts"][1]["runs"]
    value = found["result"]["prompt_eval_rate"]
    assert sorted(run["prompt_eval_rate"] for run in runs if not run["warmup"])[1] == pytest.approx(value)
    assert all(run["raw"] for run in runs)


def test_the_prompt_of_a_run_comes_as_it_was_asked(measured: Program) -> None:
    nonce = json_of(measured("explain", "3", "--json"))["attempts"][0]["runs"][-1]["nonce"]
    assert measured("explain", "3", "--prompt").must().stdout == f"{nonce} {GRID['prompt']['text']}"


def test_it_says_what_further_loads_were_made_for(program: Program) -> None:
    program("run", program.grid(second_look="100%", passes=2)).must()
    best = max(program.rows(), key=lambda row: row["looks"])
    attempts = json_of(program("explain", best["cell"], "--json"))["attempts"]
    assert [one["purpose"] for one in attempts[:2]] == [None, "pass"]
    assert attempts[1]["why"] == "pass 2"
    assert attempts[-1]["purpose"] == "second_look"
    told = program("explain", best["cell"]).must().stdout
    assert "second look: the best; the value is that of the loads from here on" in told


def test_its_last_line_measures_the_very_cell_again(measured: Program) -> None:
    told = json_of(measured("explain", "3", "--json"))
    measured(*shlex.split(told["by_hand"][-1])[1:]).must()
    again = measured.rows(sql="SELECT key, status FROM cells", db="again.db")
    assert [(row["key"], row["status"]) for row in again] == [(told["cell"], "ok")]


def test_every_cell_of_an_older_database_is_explained_and_every_flag_has_its_rule(program: Program) -> None:
    lay_out(program.folder)
    seen: set[str] = set()
    places = program.rows(sql="SELECT sweep, position, flags FROM results")
    for row in places:
        told = program("explain", str(row["position"]), "--sweep", row["sweep"]).must().stdout
        for flag in filter(None, row["flags"].split(",")):
            seen.add(flag)
            assert f"flag   {flag}: {FLAG_MEANINGS[Flag(flag)]}" in told
    assert len(seen) >= 9
    assert len(places) == 75


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["num_ctx=1024"], "num_ctx=1024 are 2 cells of sweep grid; say also num_batch"),
        (["num_ctx=1025", "num_batch=2"], "has no num_ctx 1025; it has 512, 1024. Did you mean 1024?"),
        (["num_ctxx=1"], "num_ctxx is no dimension of sweep grid. It has num_ctx, num_batch. Did you mean num_ctx?"),
        (["num_ctx=512", "num_ctx=1024"], "num_ctx is given twice: 512 and 1024"),
        (["grid", "num_ctx=512"], "grid is a sweep: name it with --sweep grid"),
        (["99"], "sweep grid has no cell at position 99; there are 0 to 3"),
        (["4"], "sweep grid has no cell at position 4; there are 0 to 3"),
        (["ffffffffffff"], "no cell of sweep grid has a key that begins with ffffffffffff"),
        (["the", "best"], "'the best' names no cell"),
        (["x"], "'x' names no cell"),
        (["3", "--sweep", "gird"], "has no sweep gird. Did you mean grid?"),
    ],
)
def test_what_names_no_cell_is_one_line(measured: Program, words: list[str], line: str) -> None:
    ended = measured("explain", *words).must(2)
    assert line in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not ended.stdout


def test_ollama_by_hand_is_a_model_with_the_options_of_the_cell() -> None:
    cell = Cell((), "llama3.2:3b", (("num_batch", 64), ("num_ctx", 4096), ("num_predict", 2)))
    lines = facts("ollama").by_hand(cell, "FROM x\nSYSTEM be brief\n")
    assert {"FROM llama3.2:3b", "SYSTEM be brief", "PARAMETER num_ctx 4096", "PARAMETER num_batch 64"} <= set(lines)
    asked = json.loads(shlex.split(facts("ollama_http").by_hand(cell, "FROM x\nSYSTEM be brief\n")[0])[3])
    assert asked["options"] == {"num_batch": 64, "num_ctx": 4096, "num_predict": 2}
    assert asked["system"] == "be brief"
    assert "ollama run by_hand --verbose --nowordwrap --think=false < prompt.txt" in lines
    assert asked["think"] is False
    told = replace(cell, options=(*cell.options, ("think", "high")))
    lines = facts("ollama").by_hand(told, "")
    assert not any("PARAMETER think" in line for line in lines)
    assert any(line.startswith("ollama run by_hand --verbose --nowordwrap --think=high") for line in lines)
    asked = json.loads(shlex.split(facts("ollama_http").by_hand(told, "")[0])[3])
    assert (asked["think"], "think" in asked["options"]) == ("high", False)


def test_it_says_what_sensors_said_meanwhile(measured: Program) -> None:
    """Memory is known everywhere; what this machine has no sensor for is not in the line, and not zero."""
    found = json_of(measured("explain", "0", "--json"))["attempts"][0]["telemetry"]
    rss = found["lines"]["rss_bytes"]
    assert 0 < rss["low"] <= rss["high"]
    assert all(rss["low"] <= point <= rss["high"] for point in rss["points"] if point is not None)
    assert 0 <= found["counts_from_s"] <= found["runs_from_s"]
    assert "energy" not in json.dumps(found)
    (line,) = (line for line in measured("explain", "0").must().stdout.splitlines() if "meanwhile" in line)
    assert "memory " in line
    assert measured.rows(sql="SELECT max(length(series)) AS bytes FROM telemetry")[0]["bytes"] <= 2000


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ({}, ""),
        ({"rss_bytes": Line(2**30, 3.5 * 2**30)}, "memory 1.0 GiB to 3.5 GiB"),
        ({"gpu_power_w": Line(44.6, 71.2), "used_bytes": Line(2**30, 2**30)}, "power 45 to 71 W, memory 1.0 GiB"),
        ({"gpu_celsius": Line(40, 61), "cpu_share": Line(0.1, 0.98)}, "GPU 40 to 61 °C, processor 10 to 98 %"),
        ({"pressure_memory_share": Line(0.0, 0.0), "battery_percent": Line(79.0, 81.0)}, "battery 79 to 81 %"),
    ],
)
def test_the_line_has_what_is_known(lines: dict[str, Line], words: str) -> None:
    assert telemetry_words(Series(1.0, None, None, lines)) == words
