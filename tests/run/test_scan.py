"""`run --scan`: how far memory reaches, by loads without a prompt."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from ollama_fixture import until
from sweeping import Program, json_of, label, program

CONTEXTS, BATCHES = (512, 1024, 2048, 4096, 8192), (32, 64, 128, 256)
GRID: Mapping[str, Any] = {"num_ctx": [*CONTEXTS], "num_batch": [*BATCHES]}
KEPT = "select key, status, reason, attempts, attempt_id from cells order by id"
LOADS = "select num_ctx, num_batch, result from scans order by id"


def largest(num_ctx: int, limit: int) -> int | None:
    """The largest num_batch that the fake engine can load with this num_ctx."""
    return max((batch for batch in BATCHES if num_ctx * batch <= limit), default=None)


def loads(program: Program) -> list[str]:
    return program.events("prepare")


@pytest.mark.parametrize("limit", [1, 512 * 32, 2048 * 128, 8192 * 64, 8192 * 256])
def test_the_frontier_of_memory_by_few_loads_and_failures_twice(program: Program, limit: int) -> None:
    program.script(oom_above=limit)
    (found,) = json_of(program("run", program.grid(**GRID), "--scan", "--json"))["scan"]
    assert {one["num_ctx"]: one["fits"] for one in found["columns"]} == {
        num_ctx: largest(num_ctx, limit) for num_ctx in CONTEXTS
    }
    assert found["loads"] == len(set(loads(program))) <= len(CONTEXTS) + len(BATCHES)
    tried = Counter((row["num_ctx"], row["num_batch"]) for row in program.rows(sql=LOADS))
    assert tried == {(num_ctx, num_batch): 1 + (num_ctx * num_batch > limit) for num_ctx, num_batch in tried}
    assert len(program.events("release")) == len(loads(program)) == sum(tried.values())
    assert program.events("generate") == []


def test_the_frontier_of_spilling_is_found_as_well_and_what_the_limit_leaves_open_by_the_next_scan(
    program: Program,
) -> None:
    config, most = program.grid(**GRID), len(CONTEXTS) + len(BATCHES)
    program.script(oom_above=4096 * 128, spill_above=1024 * 128)
    said = program("run", config, "--scan").must().stdout
    assert "at most" in said
    made = len(set(loads(program)))
    assert made <= most
    said = program("run", config, "--scan").must().stdout
    assert len(set(loads(program))) - made <= most
    assert said.splitlines()[-8:-1] == [
        "  num_ctx  num_batch that fits  on the GPU",
        "  512                      256         256",
        "  1024                     256         128",
        "  2048                     256          64",
        "  4096                     128          32",
        "  8192                      64        none",
        "Memory: fits up to num_ctx 8192 with num_batch 64, on the GPU up to num_ctx 4096 with num_batch 32 (scanned)",
    ]
    before = loads(program)
    assert "0 loads" in program("run", config, "--scan").must().stdout
    assert loads(program) == before


def test_where_all_of_it_spills_or_fits_the_frontier_needs_no_more_loads(program: Program) -> None:
    config = program.grid(**GRID)
    program.script(spill_above=512 * 64)
    (found,) = json_of(program("run", config, "--scan", "--json"))["scan"]
    assert {one["num_ctx"]: one["on_gpu"] for one in found["columns"]} == {
        num_ctx: largest(num_ctx, 512 * 64) for num_ctx in CONTEXTS
    }
    assert len(loads(program)) <= len(CONTEXTS) + len(BATCHES)
    program.journal.unlink()
    program.script()
    program("run", config, "--scan", "--db", "free.db").must()
    assert loads(program) == [label(8192, 256)]


def test_no_status_is_touched(program: Program) -> None:
    config = program.grid(num_ctx=[512, 1024], num_batch=[2, 4], timeout="5m")
    program.script(cells={label(512, 4): ["timeout"]})
    program("run", config).must()
    before, attempts = program.rows(sql=KEPT), program.rows(sql="select * from attempts")
    program("run", config, "--scan", "--timeout", "10m").must()  # a run would measure the timeout again
    assert program.rows(sql=KEPT) == before
    assert program.rows(sql="select * from attempts") == attempts
    assert "1 of 4 cells already done" not in program("run", config, "--timeout", "10m").must().stdout
    assert len(program.rows(sql="select * from attempts")) == len(attempts) + 1


def test_a_load_that_ran_out_of_memory_once_is_not_believed_and_other_failures_say_nothing(program: Program) -> None:
    config = program.grid(**GRID)
    program.script(cells={label(8192, 256): ["load_oom", "ok"]})
    (found,) = json_of(program("run", config, "--scan", "--json"))["scan"]
    assert [one["fits"] for one in found["columns"]] == [256] * 5
    assert loads(program) == [label(8192, 256)] * 2
    program.journal.unlink()
    program.script(cells={label(8192, 256): ["load_crashed"], label(8192, 128): ["load_crashed"]})
    (found,) = json_of(program("run", config, "--scan", "--json", "--db", "other.db"))["scan"]
    assert [(one["fits"], one["fits_open"]) for one in found["columns"]] == [(256, [])] * 4 + [(64, [128, 256])]
    assert [one["result"] for one in found["failed"]] == ["crashed", "crashed"]
    said = program("run", config, "--scan", "--db", "other.db").must().stdout
    assert "num_ctx 8192, num_batch 256 says nothing: crashed: GGML_ASSERT" in said
    assert "64 (at most 256)" in said


def test_cells_that_share_a_load_share_a_scan(program: Program) -> None:
    config = program.grid(
        **{**GRID, "model": ["m", "n"]},
        task=["prompt_eval", "chat"],
        dimensions={"temperature": [0, 1], "num_thread": [1, 2]},
        exclude=["num_batch > 128"],
    )
    program.script(models=["m", "n"])
    found = json_of(program("run", config, "--scan", "--json"))["scan"]
    assert [one["settings"] for one in found] == [
        {"model": model, "num_thread": threads} for model in ("m", "n") for threads in (1, 2)
    ]
    assert [{column["fits"] for column in one["columns"]} for one in found] == [{128}] * 4
    assert len(loads(program)) == 4
    assert json_of(program("status", "--json"))["memory"] == [
        f"Memory of {model}, num_thread {threads}: fits up to num_ctx 8192 with num_batch 128 (scanned)"
        for model in ("m", "n")
        for threads in (1, 2)
    ]


def test_after_a_kill_no_load_is_made_twice(program: Program) -> None:
    config = program.grid(**GRID)
    program.script(oom_above=2048 * 64)
    killed = program.start(
        "run", config, "--scan", env={**program.environment(), "SWEEP_CRASH_AT": "after_finish:4"}
    ).wait()
    assert killed.returncode == -signal.SIGKILL
    said = program("run", config, "--scan").must().stdout
    assert "known before" in said
    twice = {label(row["num_ctx"], row["num_batch"]) for row in program.rows(sql=LOADS) if row["result"] == "oom"}
    assert Counter(loads(program)) == {place: 1 + (place in twice) for place in loads(program)}
    assert len(set(loads(program))) <= len(CONTEXTS) + len(BATCHES)
    assert program.rows(sql="select * from ledger") == []


def test_other_surroundings_are_scanned_anew(program: Program) -> None:
    config = program.grid(**GRID)
    program("run", config, "--scan").must()
    program.script(version="2.0", oom_above=512 * 256)
    (found,) = json_of(program("run", config, "--scan", "--json"))["scan"]
    assert [one["fits"] for one in found["columns"]] == [256, 128, 64, 32, None]
    assert found["known"] == 0
    assert "num_ctx 4096 with num_batch 32" in program("status").must().stdout


def test_one_ctrl_c_stops_at_once(program: Program) -> None:
    config = program.grid(**GRID)
    program.script(cells={label(8192, 256): ["hang"]})
    started = program.start("run", config, "--scan", env=program.environment())
    until("it loads", lambda: bool(loads(program)))
    started.kill(signal.SIGINT)
    ended = started.wait().must(130)
    assert f"Go on with: ollama-sweep run {config} --scan" in ended.stderr
    assert program.rows(sql=LOADS) == []
    program.script()
    program("run", config, "--scan").must()
    assert program.rows(sql="select * from ledger") == []


def test_what_cannot_be_scanned_is_refused_in_one_line_and_makes_nothing(program: Program) -> None:
    config = program.grid(**GRID)
    for words, said in (
        (("--engine", "openai"), "error: --scan: the engine openai cannot load"),
        (("--retry", "oom"), "error: --retry: not together with --scan"),
    ):
        ended = program("run", config, "--scan", *words).must(2)
        assert ended.stderr.startswith(said)
        assert ended.stderr.count("\n") == 1
    assert program.files() == {"grid.yaml"}


def test_explain_and_plan_say_what_the_scan_said(program: Program) -> None:
    config = program.grid(**GRID)
    program.script(oom_above=2048 * 64)
    program("run", config, "--scan").must()
    for place, words in (
        ("num_ctx=1024 num_batch=32", "fits, as num_ctx "),
        ("num_ctx=8192 num_batch=128", "oom, as "),
    ):
        assert f"scan   loaded without a prompt: {words}" in program("explain", *place.split()).must().stdout
    found = json_of(program("explain", "num_ctx=8192", "num_batch=256", "--json"))["scan"]
    assert (found["result"], found["own"]) == ("oom", True)
    assert "Memory: fits up to num_ctx 4096 with num_batch 32 (scanned)" in program("plan", config).must().stdout


def test_a_scan_goes_on_in_the_background_too(program: Program) -> None:
    program.script(oom_above=2048 * 64)
    started = program.start("run", program.grid(**GRID), "--scan", "--detach", env=program.environment())
    assert "Running in the background" in started.wait().must().stdout
    until("it has ended", lambda: "(scanned)" in program("status").must().stdout and not program.left_running())
