"""`run --goal` as a person meets it: what is measured, what is said, going on, changing, and what is refused."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from sweeping import Program, json_of, program

GRID: Mapping[str, Any] = {
    "num_ctx": [*range(1024, 9217, 1024)], "num_batch": [16, 32, 64, 128, 256, 512], "warmup": 1, "repeats": 3,
}  # fmt: skip
CELLS = 54
DONE = "select p.position, c.status, c.attempts, c.runs from plan p join cells c on c.id = cell_id order by position"


def measured(program: Program) -> list[dict[str, Any]]:
    return [row for row in program.rows(sql=DONE) if row["status"] != "pending"]


@pytest.mark.parametrize("kind", ["best", "per-context", "largest"])
def test_a_goal_ends_with_most_cells_unmeasured_and_exit_0(program: Program, kind: str) -> None:
    program.script(noise=0.01)
    said = program("run", program.grid(**GRID), "--goal", kind).must().stdout
    done = measured(program)
    assert len(done) < CELLS / 2
    assert f"Goal reached, {CELLS - len(done)} of {CELLS} not measured. {kind}" in said
    assert all(row["attempts"] == 1 for row in done)
    status = program("status").must().stdout
    assert f"Goal {kind}" in status
    assert "reached" in status
    assert "Go on with" not in status
    assert "not measured, but predicted, assuming a smooth surface" in program("watch").must().stdout
    again = program("run", program.folder / "grid.yaml").must().stdout
    assert "Goal reached" in again
    assert measured(program) == done, "a plain run goes on with the goal that is kept, and measures nothing twice"


def test_the_command_for_every_cell_names_the_database(program: Program) -> None:
    program.script(noise=0.01)
    config = program.grid(**GRID)
    program("run", config, "--goal", "best", "--db", "other.db").must()
    assert f"ollama-sweep run {config} --goal map --db other.db" in program("status", "--db", "other.db").must().stdout


def test_another_goal_goes_on_from_what_was_measured_and_off_measures_the_rest_in_full(program: Program) -> None:
    config = program.grid(**{**GRID, "num_ctx": [1024, 2048, 3072, 4096, 5120]})
    program.script(noise=0.01)
    program("run", config, "--goal", "best").must()
    best = {row["position"] for row in measured(program)}
    loads = len(program.events("prepare"))
    program("run", config, "--goal", "map").must()
    found = measured(program)
    assert len(found) == 30
    assert all(row["attempts"] == 1 for row in found), "nothing is measured twice"
    assert len(program.events("prepare")) - loads == 30 - len(best)
    assert any(row["runs"] == 1 for row in found)
    program("run", config, "--goal", "off").must()
    assert all(row["runs"] >= 3 for row in measured(program)), "without a goal every cell is wanted in full"


def test_the_goal_of_the_file_until_the_command_line_says_another_and_until_it_is_edited(
    program: Program,
) -> None:
    config = program.grid(**GRID, goal="best")
    assert "Goal: best" in program("run", config).must().stdout
    assert "Goal: per-context" in program("run", config, "--goal", "per-context").must().stdout
    assert "Goal: per-context" in program("run", config).must().stdout
    config = program.grid(**GRID, goal={"largest": {"ttft_s": 1000, "rate": "50%"}})
    said = program("run", config).must().stdout
    assert "Goal: largest (50 % of the best rate, first token within 1000 s)" in said


def test_a_goal_that_was_killed_goes_on_with_the_same_cells(program: Program) -> None:
    config = program.grid(**GRID)
    program.script(noise=0.01)
    program("run", config, "--goal", "best").must()
    whole = program.rows(sql="select position from plan join attempts using (cell_id) order by attempts.id")
    (program.folder / "sweeps.db").unlink()
    dies = {**program.environment(), "SWEEP_CRASH_AT": "before_finish"}
    assert program.start("run", config, "--goal", "best", env=dies).wait().returncode != 0
    program("run", config).must()
    found = program.rows(
        sql="select position, attempts.status from plan join attempts using (cell_id) order by attempts.id"
    )
    assert found[0]["status"] == "interrupted"
    assert [row["position"] for row in found[1:5]] == [row["position"] for row in whole[:4]]


def test_the_log_and_explain_say_why_a_cell_was_next(program: Program) -> None:
    said = program("run", program.grid(**GRID), "--goal", "best").must().stdout
    assert "one of the first cells, far from each other" in said
    (last,) = program.rows(sql="select position, c.reason from choices c join attempts a on a.id = c.attempt_id "
                               "join plan p on p.cell_id = a.cell_id order by a.id desc limit 1")  # fmt: skip
    assert last["reason"].endswith("most to gain for its time")
    assert "most to gain for its time" in said
    told = program("explain", str(last["position"])).must().stdout
    assert "for the goal best" in told
    assert "most to gain for its time" in told


def test_spilled_cells_and_cells_out_of_memory_are_information(program: Program) -> None:
    program.script(noise=0.01, spill_above=6144 * 128, oom_above=9216 * 256)
    program("run", program.grid(**GRID), "--goal", "largest").must()
    (goal,) = program.rows(sql="select answers from goals")
    (key,) = json.loads(goal["answers"])
    (named,) = program.rows(sql=f"select num_ctx, num_batch, flags from results where cell = '{key}'")
    assert "spilled" not in named["flags"]
    assert named["num_ctx"] * named["num_batch"] <= 6144 * 128


def test_each_combination_of_other_dimensions_has_the_goal_for_itself(program: Program) -> None:
    config = program.grid(**GRID, dimensions={"num_thread": [1, 2]})
    program("run", config, "--goal", "best").must()
    done = program.rows(sql="select num_thread, count(*) as n from results where status = 'ok' group by num_thread")
    assert [row["num_thread"] for row in done] == [1, 2]
    assert all(5 <= row["n"] < CELLS / 2 for row in done)
    (goal,) = program.rows(sql="select answers from goals")
    assert len(json.loads(goal["answers"])) == 2


def test_within_a_time_the_map_is_begun_and_said_to_be_over(program: Program) -> None:
    program.script(seconds=0.05)
    said = program("run", program.grid(**GRID), "--within", "1s", "--set", "warmup=0").must().stdout
    assert "Goal: map, within 1.00 s" in said
    done = len(measured(program))
    assert 0 < done < CELLS
    assert f"{CELLS - done} of {CELLS} not measured" in said
    assert "the time is over" in said


def test_where_the_time_is_over_first_what_leads_is_named_and_a_plain_run_goes_on(program: Program) -> None:
    config = program.grid(**GRID)
    program.script(seconds=0.05)
    said = program("run", config, "--goal", "best", "--within", "100ms").must().stdout
    assert f"Goal not reached within 0.10 s, {CELLS - 1} of {CELLS} not measured" in said
    assert "is the best so far (the time is over" in said
    status = program("status").must().stdout
    assert "Goal best (within 5 %) not reached" in status
    assert "Go on with" in status
    program.script(noise=0.01)
    assert "Goal reached" in program("run", config).must().stdout


def test_the_second_look_is_of_the_cells_of_the_goal_and_comes_once(program: Program) -> None:
    config = program.grid(**GRID, second_look="10%")
    said = program("run", config, "--goal", "best").must().stdout
    assert "Second look" in said
    assert said.index("Goal reached") < said.index("Second look")
    assert "Second look" not in program("run", config).must().stdout


def test_plan_says_what_to_expect_of_a_goal(program: Program) -> None:
    config = program.grid(**GRID)
    assert "usually 6 to 32 of 54 cells" in program("plan", config, "--goal", "best").must().stdout
    assert json_of(program("plan", config, "--goal", "map", "--json"))["goal"]["cells_high"] == CELLS
    assert json_of(program("plan", config, "--json"))["goal"] is None


LARGE: Mapping[str, Any] = {
    "num_ctx": {"start": 1, "end": 200, "step": 1},
    "num_batch": {"start": 1, "end": 51, "step": 1},
}


@pytest.mark.parametrize(
    ("keys", "words", "said"),
    [
        (
            {},
            ["--goal", "bets"],
            "known are map, best, per-context, largest and off. Did you mean best?",
        ),
        ({"num_ctx": [512], "num_batch": [2]}, ["--goal", "map"], "a goal needs several cells"),
        (
            {"num_ctx": [512], "num_batch": [2], "dimensions": {"num_thread": [1, 2]}},
            ["--goal", "best"],
            "several cells",
        ),
        ({"num_batch": [2]}, ["--goal", "per-context"], "per-context needs several values of num_batch"),
        ({"num_ctx": [512]}, ["--goal", "largest"], "largest needs several values of num_ctx"),
        (LARGE, ["--goal", "best"], "the grid has 10,200 cells, and a goal may have 10,000"),
        ({"task": ["prompt_eval", "chat"]}, ["--goal", "best"], "this sweep has the task chat"),
        ({"goal": {"largest": {"rate": 90}}}, [], "goal.largest.rate: write a percentage"),
        ({"goal": {"largest": {"ttft": 9}}}, [], "unknown key ttft; known are ttft_s, rate. Did you mean ttft_s?"),
        ({"goal": {"best": {"rate": "90%"}}}, [], "best has no parts"),
        ({"goal": {"best": None, "map": None}}, [], "write one goal"),
        ({"goal": ["best"]}, [], "goal"),
        ({}, ["--within", "0"], "must be more than 0"),
        ({}, ["--within", "soon"], "--within: soon: write seconds"),
        ({}, ["--within", "2h", "--scan"], "not together with --scan"),
    ],
)
def test_what_is_no_goal_is_refused_in_one_line_before_anything_is_made(
    program: Program, keys: dict[str, Any], words: list[str], said: str
) -> None:
    ended = program("run", program.grid(**keys), *words).must(2)
    assert said in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert not (program.folder / "sweeps.db").exists()


def test_a_grid_that_grew_too_large_for_the_goal_that_is_kept_is_refused(program: Program) -> None:
    program("run", program.grid(**GRID), "--goal", "best").must()
    before = measured(program)
    assert "a goal may have 10,000" in program("run", program.grid(**LARGE)).must(2).stderr
    assert measured(program) == before
