"""`run --scout` as a person meets it: both stages, what is shown as one map, going on, and what is refused."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from sweeping import Program, json_of, program

GRID: Mapping[str, Any] = {
    "num_ctx": [*range(1024, 8193, 1024)], "num_batch": [16, 32, 64, 128, 256], "warmup": 1, "repeats": 3,
}  # fmt: skip
CELLS = 40
SPILLS, FAILS = 6144 * 128, 7168 * 200
DONE = """select sweeps.name, cells.engine, num_ctx, num_batch, cells.status, runs, attempts from plan
    join sweeps on sweeps.id = plan.sweep_id join cells on cells.id = cell_id
    where cells.status <> 'pending' order by sweeps.name, position"""


def done(program: Program, name: str = "grid") -> list[dict[str, Any]]:
    return [row for row in program.rows(sql=DONE) if row["name"] == name]


def scouts(program: Program, **script: Any) -> None:
    """Without noise: which cells are chosen hangs on rates, and a nonce is drawn."""
    program.script(**{"noise": 0, "spill_above": SPILLS, "oom_above": FAILS, "swap": {"factor": 1.04}, **script})


def test_a_sweep_is_scouted_then_measured_where_it_must_be_and_shown_as_one_map(program: Program) -> None:
    scouts(program)
    said = program("run", program.grid(**GRID), "--scout").must().stdout
    inside = {(ctx, batch) for ctx in GRID["num_ctx"] for batch in GRID["num_batch"] if ctx * batch <= SPILLS}
    swapped = done(program, "grid.scout")
    assert {(row["num_ctx"], row["num_batch"]) for row in swapped} == inside, "nothing beyond the edge is loaded"
    assert {row["engine"] for row in swapped} == {"fake_swap"}
    own = done(program)
    assert {row["engine"] for row in own} == {"fake"}
    places = {(row["num_ctx"], row["num_batch"]): row for row in own}
    beyond = {(ctx, batch) for ctx in GRID["num_ctx"] for batch in GRID["num_batch"]} - inside
    assert beyond <= places.keys()
    told = program.rows(sql="select num_ctx, num_batch, status, flags from results where sweep = 'grid'")
    ended = {(row["num_ctx"], row["num_batch"]): f"{row['status']} {row['flags']}" for row in told}
    assert all("oom" in ended[place] or "spilled" in ended[place] for place in beyond)
    assert len(own) - len(beyond) < 0.75 * len(inside)
    scouted = CELLS - len(own)
    assert f"Goal reached, {scouted} of {CELLS} not measured" in said
    assert f"Scouted: {scouted} more cells by context swap (grid.scout), times 0.9" in said

    status = json_of(program("status", "--json"))
    assert status["scouted"]["sweep"] == "grid.scout"
    (factor,) = status["scouted"]["factors"]
    assert factor["factor"] == pytest.approx(1 / 1.04)
    assert factor["low"] <= factor["factor"] <= factor["high"]
    best = json_of(program("best", "--json"))
    assert (best["best"]["num_ctx"], best["best"]["num_batch"]) in places, "only what was measured itself is named"
    assert best["scouted"]["cells"] == scouted
    exported = program("export", "--format", "csv").must().stdout
    assert "fake_swap" not in exported
    page = program.folder / "page.html"
    program("report", "--html", page).must()
    assert f"The goal map is reached; {scouted} of {CELLS} cells are not measured." in page.read_text("utf-8")
    assert "lighter: not measured, but scouted by context swap, times 0.9" in page.read_text("utf-8")
    assert 'class="cell predicted"' in page.read_text("utf-8")
    map_of_watch = program("watch").must().stdout.splitlines()
    assert "(...) scouted by context swap, times 0.9" in map_of_watch[-1]
    assert sum(line.count("(") for line in map_of_watch[-7:-2]) == scouted


def test_a_plain_run_goes_on_with_it_and_measures_nothing_twice_until_it_is_told_otherwise(program: Program) -> None:
    scouts(program)
    config = program.grid(**GRID)
    program("run", config, "--scout").must()
    both = program.rows(sql=DONE)
    assert "Goal reached" in program("run", config).must().stdout
    assert program.rows(sql=DONE) == both
    program("run", config, "--no-scout", "--goal", "off").must()
    assert len(done(program)) == CELLS
    assert len(done(program, "grid.scout")) == len([row for row in both if row["name"] == "grid.scout"])
    assert "Scouted" not in program("status").must().stdout


@pytest.mark.parametrize(("at", "goal"), [("after_begin:7", "map"), ("scouted", "best"), ("before_finish:35", "map")])
def test_killed_in_any_stage_it_goes_on_with_the_same_cells(program: Program, at: str, goal: str) -> None:
    scouts(program)
    config = program.grid(**GRID)
    program("run", config, "--scout", "--goal", goal).must()
    whole = program.rows(sql=DONE)
    (program.folder / "sweeps.db").unlink()
    dies = {**program.environment(), "SWEEP_CRASH_AT": at}
    assert program.start("run", config, "--scout", "--goal", goal, env=dies).wait().returncode != 0
    found = program("status").must().stdout
    if at != "before_finish:35":
        assert "grid.scout" in found
        assert "scouts for grid" in found
    program("run", config).must()
    places = [(row["name"], row["num_ctx"], row["num_batch"], row["status"]) for row in program.rows(sql=DONE)]
    assert places == [(row["name"], row["num_ctx"], row["num_batch"], row["status"]) for row in whole]


@pytest.mark.parametrize("kind", ["best", "per-context", "largest"])
def test_other_goals_are_scouted_by_their_own_planner_and_confirmed_on_few_cells(program: Program, kind: str) -> None:
    scouts(program)
    said = program("run", program.grid(**GRID), "--scout", "--goal", kind).must().stdout
    assert "Goal reached" in said
    assert len(done(program, "grid.scout")) < CELLS
    (goal,) = program.rows(sql="select answers from goals join sweeps on sweeps.id = sweep_id where name = 'grid'")
    keys = {row["cell"] for row in program.rows(sql="select cell from results where sweep = 'grid' and status = 'ok'")}

    assert json.loads(goal["answers"])
    assert {*json.loads(goal["answers"])} <= keys


def test_a_factor_that_is_not_steady_is_the_headline_and_nothing_is_drawn_from_it(program: Program) -> None:
    scouts(program, swap={"noise": 0.9})
    said = program("run", program.grid(**GRID), "--scout").must().stdout
    assert "Goal not reached" in said
    best = program("best").must().stdout
    assert best.startswith("The factor measured / scouted is not steady, so the scout grid.scout is no map")
    for command in ("status", "watch"):
        shown = program(command).must().stdout
        assert shown.lower().count("the factor measured / scouted is not steady") == 1
        assert "Goal map not reached" in shown
    page = program.folder / "page.html"
    program("report", "--html", page).must()
    assert "cell predicted" not in page.read_text("utf-8")


def test_another_build_of_the_library_is_said(program: Program) -> None:
    scouts(program)
    config = program.grid(**GRID)
    program("run", config, "--scout").must()
    scouts(program, swap={"factor": 1.04, "version": "2.0"})
    assert "the engine was 1.0, now it is 2.0" in program("run", config).must().stdout
    assert "scouted with another build (1.0) than the one here now (2.0)" in program("status").must().stdout


def test_plan_says_what_each_way_takes(program: Program) -> None:
    config = program.grid(**GRID)
    said = program("plan", config, "--scout").must().stdout
    assert f"Way every cell: {CELLS} cells, seconds are not known before a cell is measured" in said
    assert f"and {CELLS} by context swap" in said
    assert "Way" not in program("plan", config).must().stdout
    scouts(program)
    program("run", config, "--scout").must()
    every, goal, scouted = json_of(program("plan", config, "--json"))["ways"]
    assert every["seconds_low"] > 0
    assert goal["cells_high"] == CELLS
    assert scouted["scouted"] == CELLS


@pytest.mark.parametrize(
    ("keys", "words", "said"),
    [
        ({"engine": "openai", "host": "http://127.0.0.1:1"}, ["--scout"], "no engine scouts for openai"),
        ({}, ["--scout", "--goal", "off"], "a scouted sweep needs a goal"),
        ({}, ["--scout", "--scan"], "not together with --scan"),
        ({"num_ctx": [1024], "num_batch": [16]}, ["--scout"], "a goal needs several cells"),
        ({"pair": {"num_thread": [1, 2]}}, ["--scout"], "is a pair; scout its sweeps one by one"),
        ({}, ["--set", "name=grid.scout"], "is the scout of grid"),
    ],
)
def test_what_cannot_be_scouted_is_refused_in_a_line_and_nothing_is_made(
    program: Program, keys: Mapping[str, Any], words: list[str], said: str
) -> None:
    if "--set" in words:
        scouts(program)
        program("run", program.grid(**GRID), "--scout").must()
    before = program.files()
    ended = program("run", program.grid("other", **{**GRID, **keys}), *words).must(2)
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert program.files() - {"other.yaml"} == before


def test_a_sweep_that_has_the_name_of_a_scout_is_left_alone(program: Program) -> None:
    program("run", program.grid("grid.scout")).must()
    kept = program.rows(sql=DONE)
    ended = program("run", program.grid(**GRID), "--scout").must(2)
    assert "there is a sweep grid.scout that is no scout" in ended.stderr
    assert program.rows(sql=DONE) == kept
