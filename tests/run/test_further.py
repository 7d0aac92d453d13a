"""Further loads of cells that have a value: passes, the second look, controls; what a death or a failure costs."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from store_helpers import stranger
from sweeping import Program, json_of, label, program

from ollama_sweep.results import pictures

CELLS: Mapping[str, Any] = {"num_ctx": [512, 1024, 2048], "num_batch": [2, 4]}
PURPOSES = "SELECT COALESCE(purpose, 'own') AS purpose, count(*) AS n FROM attempts WHERE status = 'ok' GROUP BY 1"


def purposes(program: Program) -> dict[str, int]:
    return {row["purpose"]: row["n"] for row in program.rows(sql=PURPOSES)}


def waiting(program: Program) -> int:
    return len(program.rows(sql="SELECT 1 FROM further_loads WHERE state = 'waiting'"))


def test_each_pass_loads_every_cell_once_more_in_another_order_and_the_value_is_of_all(program: Program) -> None:
    program.script(noise=0.02)
    config = program.grid(**CELLS, passes=3)
    program("run", config).must()
    assert purposes(program) == {"own": 6, "pass": 12}
    found = program.cells()
    assert {(row["runs"], row["loads"], row["status"], row["attempts"]) for row in found.values()} == {(9, 3, "ok", 3)}
    order = [row["cell_id"] for row in program.rows(sql="SELECT cell_id FROM attempts ORDER BY id")]
    assert sorted(order[:6]) == sorted(order[6:12]) == sorted(order[12:])
    assert len({tuple(order[:6]), tuple(order[6:12]), tuple(order[12:])}) == 3
    assert all(row["prompt_eval_rate_low"] < row["prompt_eval_rate"] < row["prompt_eval_rate_high"]
               for row in found.values())  # fmt: skip
    generated = len(program.events("generate"))
    program("run", config).must()
    assert len(program.events("generate")) == generated, "nothing is done twice"


def test_a_further_load_is_a_fresh_one(program: Program) -> None:
    """One cell: what is loaded is that cell, and is unloaded all the same."""
    program("run", program.grid(num_ctx=512, num_batch=2, passes=2)).must()
    assert program.events("release").count("done") >= 1
    assert program.measured() == {label(512, 2): 8}


def test_a_second_look_belongs_to_the_run_that_finishes_the_sweep_and_is_made_once(program: Program) -> None:
    program.script(noise=0.02)
    config = program.grid(**CELLS, second_look="50%", passes=2)
    said = program("run", config).must().stdout
    assert "Second look (at most" in said
    counted = purposes(program)
    assert counted["second_look"] >= 1
    best = json_of(program("best", "--json"))["best"]
    (row,) = program.rows(
        sql=f"SELECT * FROM results WHERE num_ctx = {best['num_ctx']} AND num_batch = {best['num_batch']}"
    )
    assert row["looks"] >= 2, "the best was measured again before it was called so"
    program("run", config).must()
    assert purposes(program) == counted
    program("run", config, "--second-look").must()
    assert purposes(program)["second_look"] > counted["second_look"]


def test_a_finished_sweep_is_found_finished_and_the_look_may_be_off(program: Program) -> None:
    config = program.grid(second_look="off")
    program("run", config).must()
    program("run", config, "--set", "second_look=10%").must()
    assert purposes(program) == {"own": 4}


def test_what_was_chosen_for_its_value_is_worth_the_loads_made_after_the_choice(program: Program) -> None:
    program.script(noise=0.05)
    program("run", program.grid(**CELLS, second_look="50%")).must()
    (again,) = program.rows(sql="SELECT * FROM results WHERE looks >= 2")
    loads = program.rows(sql=f"""SELECT a.prompt_eval_rate, a.purpose, v.log_median FROM attempts AS a
        JOIN cells ON cells.id = a.cell_id JOIN load_values AS v ON v.attempt_id = a.id
        WHERE key = '{again["cell"]}' ORDER BY a.number""")  # fmt: skip
    assert loads[0]["purpose"] is None
    assert again["loads"] == sum(row["purpose"] == "second_look" for row in loads[-again["loads"] :])
    assert again["prompt_eval_rate"] == loads[-1]["prompt_eval_rate"]


@pytest.mark.parametrize("point", ["after_begin", "before_finish", "in_finish", "after_finish"])
def test_a_death_in_a_further_load_costs_that_load_and_nothing_that_was_known(program: Program, point: str) -> None:
    config = program.grid(num_ctx=512)
    program("run", config).must()
    before = program.rows()
    died = program.start("run", config, "--set", "passes=2", env={"SWEEP_CRASH_AT": point})
    died.wait(60).must(-signal.SIGKILL)
    after = program.rows()
    counts = json_of(program("status", "--json"))["counts"]
    assert counts == {"ok": 2}, "done never falls"
    if point != "after_finish":
        assert [row["prompt_eval_rate"] for row in after] == [row["prompt_eval_rate"] for row in before]
    program("run", config, "--set", "passes=2").must()
    assert waiting(program) == 0
    assert {row["loads"] for row in program.rows()} == {2}
    assert purposes(program) == {"own": 2, "pass": 2}


def test_a_further_load_that_fails_is_kept_and_flagged_and_the_value_stays(program: Program) -> None:
    config = program.grid(num_ctx=512)
    program("run", config).must()
    before = program.cells()
    program.script(cells={label(512, 2): ["oom"], label(512, 4): ["crashed"]})
    said = program("run", config, "--set", "passes=2").must().stdout
    assert "2 of 2 cells already done" in said
    after = program.cells()
    for place, flags in (((512, 2), "load_failed,unstable"), ((512, 4), "load_failed")):
        assert after[place]["status"] == "ok"
        assert after[place]["prompt_eval_rate"] == before[place]["prompt_eval_rate"]
        assert after[place]["flags"] == flags
    failed = program.rows(sql="SELECT status FROM attempts WHERE purpose = 'pass' ORDER BY id")
    assert Counter(row["status"] for row in failed) == {"oom": 1, "crashed": 2}, "a crash is tried once more"
    program("run", config, "--set", "passes=2").must()
    assert len(program.rows(sql="SELECT status FROM attempts WHERE purpose = 'pass'")) == 3


def test_more_runs_that_could_not_be_made_are_not_tried_at_every_start(program: Program) -> None:
    program("run", program.grid(num_ctx=512, num_batch=2)).must()
    program.script(cells={label(512, 2): ["oom"]})
    for repeats, tried in ((4, 1), (4, 1), (5, 2)):
        program("run", program.grid(num_ctx=512, num_batch=2, repeats=repeats)).must()
        assert len(program.rows(sql="SELECT 1 FROM attempts WHERE purpose = 'repeats'")) == tried
    assert program.cells()[512, 2]["runs"] == 3


def test_the_best_of_the_leading_group_is_told_by_the_loads_before_and_after_the_choice(program: Program) -> None:
    program.script(noise=0.15)
    keys: Mapping[str, Any] = {"num_ctx": [512, 1024, 1536, 2048], "num_batch": [4], "control": 1, "warmup": 0,
                               "repeats": 1}  # fmt: skip
    program("run", program.grid(**keys, second_look="100%"), "--no-pause").must()
    (chosen,) = program.rows(sql="SELECT DISTINCT cell_id FROM further_loads WHERE number = 2")
    means = program.rows(
        sql="""SELECT a.cell_id, avg(log_median) AS mean FROM attempts AS a JOIN load_values ON attempt_id = a.id
            WHERE a.purpose IS NOT 'control' AND COALESCE(choice, 0) < 2 AND a.cell_id IN (
                SELECT cell_id FROM further_loads WHERE reason = 'among the best' AND state = 'done') GROUP BY 1"""
    )
    assert len(means) > 1
    assert max(means, key=lambda row: row["mean"])["cell_id"] == chosen["cell_id"]


@pytest.mark.parametrize("many", [20_000, 1])
def test_a_cell_off_its_neighbours_is_looked_at_again_also_in_a_very_large_sweep(
    many: int, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MANY", many)
    config = program.grid(num_ctx=[512, 1024, 1536, 2048], num_batch=[2, 4, 6, 8], control=4, repeats=1, warmup=0)
    program("run", config).must()
    with stranger(program.folder / "sweeps.db") as connection:
        sql = "SELECT attempt_id FROM cells JOIN plan ON cell_id = cells.id WHERE position = 6"
        connection.execute(f"UPDATE attempts SET prompt_eval_rate = prompt_eval_rate * 0.7 WHERE id = ({sql})")
    program("run", config, "--second-look", "--set", "second_look=100%").must()
    (row,) = program.rows(
        sql="SELECT position, reason FROM further_loads AS f JOIN plan USING (cell_id) WHERE reason LIKE '%neighbours'"
    )
    assert (row["position"], row["reason"]) == (6, "-27% off its neighbours")


def test_controls_are_loads_with_their_runs_at_the_start_the_end_and_between(program: Program) -> None:
    program.script(noise=0.02)
    said = program("run", program.grid(num_ctx=[512, 1024, 1536, 2048, 2560], control=None)).must().stdout
    assert said.count("control cell") == 5
    rows = program.rows(sql="SELECT id, purpose, runs FROM attempts ORDER BY id")
    places = [number for number, row in enumerate(rows) if row["purpose"] == "control"]
    assert (places[0], places[-1], len(rows)) == (1, 14, 15)
    assert {row["runs"] for row in rows} == {3}
    (spread,) = program.rows(sql="SELECT * FROM spreads")
    assert (spread["metric"], spread["loads_df"], spread["runs_df"]) == ("prompt_eval_rate", 5, 30)
    assert program.cells()[512, 2]["attempts"] == 1, "a control is no attempt at the cell"
    assert all(row["prompt_eval_rate_low"] for row in program.rows())


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("passes", "0", "passes must be 1 to 100"),
        ("passes", "two", "passes"),
        ("second_look", "300%", "write a percentage of 100% at most, like 10%, or off"),
        ("second_look", "0%", "write a percentage"),
        ("second_look", "on", "write a percentage"),
        ("warmup", "atuo", "write a number of runs or auto"),
        ("repeats", "many", "write a number of runs"),
    ],
)
def test_bad_values_are_one_line_and_nothing_is_made(program: Program, key: str, value: str, words: str) -> None:
    config = program.grid()
    before = program.files()
    ended = program("run", config, "--set", f"{key}={value}")
    ended.must(2)
    assert len(ended.stderr.splitlines()) == 1
    assert words in ended.stderr
    assert program.files() == before
