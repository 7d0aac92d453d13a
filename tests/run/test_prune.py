"""`prune`, and the record of what ran out of memory: what is left out, what undoes it, and what comes last."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from sweeping import Program, json_of, label, program

CTX, BATCH = (512, 1024, 2048, 4096), (2, 4, 8, 16)
ABOVE = 8192
"""What the fake engine has memory for: num_ctx * num_batch."""
MARKS = "select num_ctx, num_batch, status, reason, attempts, flags from results order by position"


def grid(program: Program, name: str = "grid", **keys: Any) -> Path:
    return program.grid(name, **{"num_ctx": list(CTX), "num_batch": list(BATCH), "repeats": 1, "warmup": 0,
                                 "control": "off", "prune": True, **keys})  # fmt: skip


def marks(program: Program, sweep: str = "") -> dict[tuple[int, int], str]:
    """The status of each cell by num_ctx and num_batch; `memory` for what is left out."""
    sql = MARKS.replace("order by", f"where sweep = '{sweep}' order by") if sweep else MARKS
    return {(row["num_ctx"], row["num_batch"]): row["reason"] if row["status"] == "skipped" else row["status"]
            for row in program.rows(sql=sql)}  # fmt: skip


def fits(num_ctx: int, num_batch: int) -> bool:
    return num_ctx * num_batch <= ABOVE


def sound(found: dict[tuple[int, int], str], failures: dict[tuple[int, int], int]) -> None:
    """What fits was measured; what does not failed, or is left out because something no larger failed twice."""
    for (num_ctx, num_batch), mark in found.items():
        if fits(num_ctx, num_batch):
            assert mark == "ok", (num_ctx, num_batch)
        elif mark == "memory":
            assert any(times >= 2 and ctx <= num_ctx and batch <= num_batch
                       for (ctx, batch), times in failures.items()), (num_ctx, num_batch)  # fmt: skip
        else:
            assert mark == "oom", (num_ctx, num_batch)


def failures(program: Program) -> dict[tuple[int, int], int]:
    sql = """select num_ctx, num_batch, count(*) as n from attempts join cells on cells.id = cell_id
        where attempts.status = 'oom' group by cell_id"""
    return {(row["num_ctx"], row["num_batch"]): row["n"] for row in program.rows(sql=sql)}


@pytest.mark.parametrize("order", ["column-first", "columns-bisected"])
def test_what_is_at_least_as_large_as_two_failures_is_left_out_in_any_order(program: Program, order: str) -> None:
    program.script(oom_above=ABOVE)
    config = grid(program, order=order)
    said = program("run", config).must().stdout
    found = marks(program)
    sound(found, failures(program))
    left_out = [cell for cell, mark in found.items() if mark == "memory"]
    assert left_out
    assert "ran out of memory in two fresh loads" in said
    counts = json_of(program("status", "--json"))
    assert (counts["done"], counts["total"], counts["counts"]["skipped"]) == (16, 16, len(left_out))
    assert counts["left_out"]["cells"] == len(left_out)
    plan = json_of(program("plan", config, "--json"))
    assert (plan["pruned"], plan["to_run"], plan["done"]) == (len(left_out), 0, 16 - len(left_out))
    assert f"Left out (prune): {len(left_out)} " in program("plan", config).must().stdout
    where = [f"{name}={value}" for name, value in zip(("num_ctx", "num_batch"), left_out[-1], strict=True)]
    explained = json_of(program("explain", *where, "--json"))["left_out_by"]
    assert (explained["num_ctx"], explained["num_batch"]) in failures(program)
    assert "Without `prune: true` it is measured" in program("explain", *where).must().stdout

    tries = len(program.events("prepare"))
    assert f"{16 - len(left_out)} of 16 cells already done, 0 to run" in program("run", config).must().stdout
    assert len(program.events("prepare")) == tries, "a second run does nothing"
    program("run", config, "--set", "prune=false").must()
    assert "memory" not in marks(program).values(), "without the key they are measured"
    assert len(program.events("prepare")) == tries + len(left_out)


def test_a_failure_that_is_none_the_second_time_leaves_nothing_out(program: Program) -> None:
    program.script(cells={label(1024, 4): ["oom", "ok"]})
    program("run", grid(program)).must()
    rows = {(row["num_ctx"], row["num_batch"]): row for row in program.rows()}
    assert set(marks(program).values()) == {"ok"}
    assert ("unstable" in rows[1024, 4]["flags"], rows[1024, 4]["attempts"]) == (True, 2)
    assert sum(row["attempts"] for row in rows.values()) == 17


def test_other_failures_leave_nothing_out(program: Program) -> None:
    steps = dict(zip(BATCH, ("timeout", "resource", "crashed", "error"), strict=True))
    program.script(cells={label(512, num_batch): [step] for num_batch, step in steps.items()})
    program("run", grid(program), "--set", "retries=2").must()
    found = marks(program)
    assert {num_batch: found.pop((512, num_batch)) for num_batch in BATCH} == steps
    assert set(found.values()) == {"ok"}


def test_a_probe_that_has_memory_enough_undoes_it_and_others_stay(program: Program) -> None:
    program.script(cells={label(1024, 4): ["oom"]}, oom_above=32768)
    said = program("run", grid(program)).must().stdout
    assert "had memory enough. Measured after all, though num_ctx 1024, num_batch 4 had left them out: " in said
    found = marks(program)
    assert found.pop((1024, 4)) == "oom"
    assert found.pop((4096, 16)) == "oom"
    assert set(found.values()) == {"ok"}
    assert "unstable" not in str(program.rows())


def test_two_failures_in_two_sessions_and_a_grid_that_grows(program: Program) -> None:
    program.script(oom_above=ABOVE)
    program("run", grid(program, num_ctx=[512, 1024], prune=False)).must()
    assert failures(program) == {(1024, 16): 1}
    grown = grid(program, num_ctx=[1024], num_batch=[*BATCH, 32])
    assert json_of(program("plan", grown, "--json"))["in_doubt"] == 1
    said = program("run", grown).must().stdout
    assert "num_ctx 1024, num_batch 16 ran out of memory once" in said
    assert (failures(program)[1024, 16], marks(program)[1024, 32]) == (2, "memory")
    program("run", grid(program)).must()
    sound(marks(program), failures(program))
    assert failures(program)[1024, 16] == 2
    larger = grid(program, num_ctx=[*CTX, 8192], num_batch=[*BATCH, 32])
    planned = json_of(program("plan", larger, "--json"))
    program("run", larger).must()
    found = marks(program)
    assert len(found) == 25
    sound(found, failures(program))
    assert planned["pruned"] + planned["done"] + planned["to_run"] == 25
    assert planned["pruned"] >= list(found.values()).count("memory") - planned["to_run"]


def test_retry_takes_it_back_and_a_larger_machine_has_all_of_it(program: Program) -> None:
    program.script(oom_above=ABOVE)
    config = grid(program)
    program("run", config).must()
    assert "memory" in marks(program).values()
    program.script()
    program("run", config, "--retry", "oom").must()
    assert set(marks(program).values()) == {"ok"}


def test_what_one_sweep_leaves_out_another_one_measures(program: Program) -> None:
    program.script(oom_above=ABOVE)
    a, b = grid(program, "a"), grid(program, "b", prune=False)
    program("run", b, "--set", "num_ctx=[512]", "--set", "num_batch=[2]").must()
    program("run", a).must()
    left_out = {cell for cell, mark in marks(program, "a").items() if mark == "memory"}
    assert left_out
    assert json_of(program("plan", b, "--json"))["to_run"] == len(left_out)
    program.script()
    program("run", b).must()
    assert {marks(program, "b")[cell] for cell in left_out} == {"ok"}
    assert marks(program, "a") == marks(program, "b")
    for name in ("a", "b"):
        status = json_of(program("status", name, "--json"))
        assert (sum(status["counts"].values()), status["counts"].get("pending", 0)) == (16, 0)
        assert status["counts"] == {mark: list(marks(program, name).values()).count(mark)
                                    for mark in status["counts"] if status["counts"][mark]}  # fmt: skip


def test_equal_in_everything_else(program: Program) -> None:
    """Another model, another option, another task: each has a frontier of its own."""
    failing = {f"model m1, num_gpu 0, {label(512, 2)}": ["oom"]}
    program.script(models=["m1", "m2"], cells=failing)
    config = grid(program, model=["m1", "m2"], dimensions={"num_gpu": [0, 1]}, num_ctx=[512, 1024], num_batch=[2, 4])
    program("run", config).must()
    rows = program.rows(sql="select model, num_gpu, status from results")
    assert {(row["model"], row["num_gpu"]) for row in rows if row["status"] != "ok"} == {("m1", 0)}


@pytest.mark.parametrize("point", ["before_finish", "after_finish"])
def test_a_death_at_any_commit_of_a_failure(program: Program, point: str) -> None:
    program.script(oom_above=ABOVE)
    config = grid(program)
    env = {**program.environment(), "SWEEP_CRASH_AT": f"{point}:9"}
    assert program.start("run", config, env=env).wait().returncode == -signal.SIGKILL
    program("run", config).must()
    sound(marks(program), failures(program))
    assert "memory" in marks(program).values()
    assert max(failures(program).values()) == 2


def test_what_ran_out_of_memory_before_comes_last_in_a_later_sweep(program: Program) -> None:
    program.script(oom_above=ABOVE)
    before = grid(program, "before", prune=False)
    program("run", before).must()
    assert program.events("prepare") == [label(*cell) for cell in marks(program, "before")], "nothing was known yet"
    assert program("run", before, "--retry", "oom").must()
    after = grid(program, "after", prune=False, prompt={"text": "another one"})
    plan = json_of(program("plan", after, "--json"))
    last = [cell for cell in marks(program, "before") if not fits(*cell)]
    assert (plan["last"]["cells"], plan["last"]["failures"], plan["to_run"]) == (len(last), len(last), 16)
    assert plan["last"]["free_low_bytes"] > 0
    said = (
        f"Come last: {len(last)} at least as large as one of {len(last)} that ran out of memory on this machine before"
    )
    assert f"{said} (free then " in program("plan", after).must().stdout
    seen = len(program.events("prepare"))
    assert f"Come last: {len(last)} " in program("run", after).must().stdout
    smallest = min(last, key=lambda cell: (cell[0] * cell[1], cell[0]))
    order = [cell for cell in marks(program, "before") if fits(*cell)]
    rest = [cell for cell in last if cell != smallest]
    assert program.events("prepare")[seen:] == [label(*cell) for cell in (*order, smallest, *rest)]
    positions = [(row["num_ctx"], row["num_batch"]) for row in program.rows(
        sql="select num_ctx, num_batch from results where sweep = 'after' order by position")]  # fmt: skip
    assert positions == list(marks(program, "before")), "their places in the plan stay"

    pruned = grid(program, "pruned", prompt={"text": "a third one"}, order="shuffled")
    seen = len(program.events("prepare"))
    program("run", pruned).must()
    tried = program.events("prepare")[seen:]
    assert tried[10] == label(*smallest), "the smallest of them first"
    assert "memory" in marks(program, "pruned").values()

    others: dict[str, dict[str, Any]] = {"other model": {"model": "m2"}, "other load": {"options": {"num_gpu": 1}}}
    for name, keys in others.items():
        program.script(oom_above=ABOVE, models=["m", "m2"])
        assert json_of(program("plan", grid(program, name, **keys), "--json"))["last"]["cells"] == 0
    program.script(oom_above=ABOVE, version="2.0")
    assert json_of(program("plan", grid(program, "other build"), "--json"))["last"]["cells"] == 0


def test_a_plan_that_goes_on_keeps_its_order(program: Program) -> None:
    """The record is looked at when a plan is made: a run that goes on is the run that it was."""
    program.script(oom_above=ABOVE)
    config = grid(program, prune=False)
    env = {**program.environment(), "SWEEP_CRASH_AT": "after_finish:9"}
    assert program.start("run", config, env=env).wait().returncode == -signal.SIGKILL
    assert json_of(program("plan", config, "--json"))["last"]["cells"] == 0
    program("run", config).must()
    assert program.events("prepare") == [label(*cell) for cell in marks(program)]


def test_a_wrong_value_is_one_line(program: Program) -> None:
    for value in ("maybe", "2", "[true]", "{cells: 3}"):
        ended = program("run", grid(program), "--set", f"prune={value}").must(2)
        assert "prune" in ended.stderr
        assert ended.stderr.count("error: ") == 1
    assert not (program.folder / "sweeps.db").exists()
