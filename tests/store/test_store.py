"""What the database keeps, as people see it: the view `results`, attempts, sweeps, prompts, old results."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by their names
from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import store_helpers as help_
from store_helpers import (
    failed,
    grid,
    header,
    measure,
    ok,
    path,
    planned,
    register,
    rows,
    said,
    store,
)

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.outcome import Flag, Outcome, Purpose, Status, Summary
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.writer import Store

COLUMNS = (
    "sweep engine model num_ctx num_batch task status flags attempts runs loads looks prompt_eval_count "
    "prompt_eval_rate prompt_eval_rate_min prompt_eval_rate_max prompt_eval_rate_low prompt_eval_rate_high "
    "prompt_eval_rate_corrected "
    "prompt_eval_duration_s eval_count eval_rate total_duration_s "
    "load_duration_s effective_num_ctx effective_num_batch size_bytes size_vram_bytes quantization parameter_size "
    "reason error started_at finished_at position cell"
)


def test_view_results_is_readable_without_this_program(store: Store, path: Path) -> None:
    sweep = register(store, grid((1024,)))
    measure(store, sweep, ok(rate=123.456789))
    measure(store, sweep, failed())
    with Reader.open(path) as reader:
        assert list(next(reader.results(sweep)).row) == COLUMNS.split()
    found = rows(path, "SELECT sweep, num_batch, status, flags, prompt_eval_rate, runs, reason, error FROM results")
    assert found == [
        ("s", 64, "ok", "clamped,spilled", 123.456789, 3, "", ""),
        ("s", 128, "oom", "", None, 0, "cuda_oom", "CUDA error: out of memory"),
    ]


def test_reader_gives_the_results_in_the_order_of_the_plan(store: Store, path: Path) -> None:
    sweep = register(store, list(reversed(grid((1024, 2048)))))
    measure(store, sweep, ok(rate=50.0))
    with Reader.open(path) as reader:
        results = list(reader.results(sweep))
    assert [tuple(result.coordinates.values()) for result in results] == [
        (2048, 128), (2048, 64), (1024, 128), (1024, 64),
    ]  # fmt: skip
    first = results[0]
    assert first.status is Status.OK
    assert first.flags == {Flag.SPILLED, Flag.CLAMPED}
    assert first.metrics["prompt_eval_rate"] == 50.0
    assert first.metrics["load_duration_s"] == 1.5
    assert {"num_ctx", "position"}.isdisjoint(first.metrics)
    assert results[1].metrics == {"attempts": 0, "runs": 0, "loads": 0, "looks": 0}


def test_every_dimension_and_score_is_a_column_of_its_own(store: Store, path: Path) -> None:
    register(store, grid((1024,)), "plain")
    cells = [planned((("use_mmap", on), ("num_gpu", 7), ("num_ctx", 1024), ("num_batch", 64))) for on in (True, False)]
    sweep = register(store, cells, "wide")
    measure(store, sweep, replace(ok(), summary=Summary(1, prompt_eval_rate=9.0, scores={"accuracy": 0.75})))
    assert rows(path, "SELECT use_mmap, num_gpu, accuracy FROM results WHERE sweep = 'wide'") == [
        (1, 7, 0.75), (0, 7, None),
    ]  # fmt: skip
    assert rows(path, "SELECT DISTINCT num_gpu FROM results WHERE sweep = 'plain'") == [(None,)]
    with Reader.open(path) as reader:
        first = next(reader.results(sweep))
    assert first.coordinates["use_mmap"] is True
    assert first.metrics["accuracy"] == 0.75


def test_cell_of_two_sweeps_is_one_measurement_and_a_row_in_each(store: Store, path: Path) -> None:
    small = register(store, grid((1024,), (64,)), "small")
    measure(store, small)
    large = register(store, [planned(cell.cell.coordinates, model="alias") for cell in grid((1024,))], "large")
    assert store.counts(large) == {Status.OK: 1, Status.PENDING: 1}
    assert rows(path, "SELECT sweep, model, num_batch, status FROM results ORDER BY sweep, num_batch") == [
        ("large", "alias", 64, "ok"), ("large", "alias", 128, "pending"), ("small", "m", 64, "ok"),
    ]  # fmt: skip
    assert rows(path, "SELECT count(*) FROM attempts") == [(1,)]


def test_raw_output_comes_back_as_it_was(store: Store, path: Path) -> None:
    sweep = register(store, grid((1024,)))
    text = "\x1b[31mno\0 ω \udcff"
    key = measure(store, sweep, replace(ok(), raw=text, error="a\0b\udcff"))
    with Reader.open(path) as reader:
        (attempt,) = reader.attempts(key)
        raw = reader.raw_outputs(attempt.attempt_id)
    assert raw == {"attempt": text, "warmup 1": "raw 1", "run 1": "raw 1", "run 2": "raw 2", "run 3": "raw 3"}
    assert attempt.error == "a\\0b\\udcff"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused_instead_of_stored_as_nothing(store: Store, bad: float) -> None:
    sweep = register(store, grid((1024,)))
    cell = store.next_pending(sweep)
    assert cell
    attempt = store.begin_attempt(sweep, cell.cell_id, timeout_s=600)
    for outcome in (replace(ok(), summary=Summary(prompt_eval_rate=bad)),
                    replace(ok(), runs=(replace(help_.run(1), client_duration_s=bad),)),
                    replace(ok(), runs=(replace(help_.run(1), scores={"accuracy": bad}),))):  # fmt: skip
        with pytest.raises(ValueError, match="only finite numbers are stored"):
            store.finish_attempt(attempt, outcome, cell_status=Status.OK)
    store.finish_attempt(attempt, ok(), cell_status=Status.OK)
    with pytest.raises(ValueError, match="JSON"):
        store.register_sweep(replace(header("n"), spec={"x": bad}), [], timeout_s=1, repeats_minimum=1)


def test_planned_cells_come_back_as_they_were_registered(store: Store) -> None:
    cells = [*grid((1024,)), planned((("use_mmap", False), ("num_ctx", 9), ("num_batch", 8)), Status.SKIPPED, "no")]
    sweep = register(store, cells)
    assert [store.planned(sweep, position) for position in range(3)] == cells
    with pytest.raises(KeyError):
        store.planned(sweep, 3)


@pytest.mark.parametrize("dimension", ["num_batch", "top_k"])
def test_what_attempts_took_is_the_same_for_who_has_asked_before(dimension: str, store: Store, path: Path) -> None:
    """Also where an earlier attempt ends later, as on several lanes."""
    cells = [planned((("num_ctx", context), (dimension, 2))) for context in (512, 1024, 2048, 4096)]
    sweep = register(store, cells)
    open_ones = []
    for cell in cells:
        pending = store.cell_by_key(sweep, cell.key)
        assert pending is not None
        open_ones.append(store.begin_attempt(sweep, pending.cell_id, timeout_s=600))
    for attempt in (open_ones[1], open_ones[3], open_ones[0], open_ones[2]):
        store.finish_attempt(attempt, ok(), cell_status=Status.OK)
        with Reader.open(path) as reader:
            assert store.history(sweep) == reader.history(sweep)


def test_retry_that_follows_leaves_the_cell_pending_and_keeps_the_history(store: Store, path: Path) -> None:
    sweep = register(store, grid((1024,), (64,)))
    cell = store.next_pending(sweep)
    assert cell
    attempt = store.begin_attempt(sweep, cell.cell_id, timeout_s=600)
    assert rows(path, "SELECT status FROM results") == [("started",)]
    store.finish_attempt(attempt, failed(Status.CRASHED, "", "exit 134"), cell_status=Status.PENDING)
    assert rows(path, "SELECT status, attempts, error FROM results") == [("pending", 1, "")]
    again = store.next_pending(sweep)
    assert again
    assert (again.cell_id, again.attempts) == (cell.cell_id, 1)
    key = measure(store, sweep)
    with Reader.open(path) as reader:
        assert [(row.number, row.status) for row in reader.attempts(key)] == [(1, Status.CRASHED), (2, Status.OK)]
        assert [error.error for error in reader.errors(sweep, 5)] == ["exit 134"]
        assert [took.cell for took in reader.history(sweep)] == [cell.cell_id] * 2


def test_a_further_load_that_waits_runs_or_fails_hides_nothing_that_was_measured(store: Store, path: Path) -> None:
    cells = grid((1024,), (64,))
    sweep = register(store, cells, repeats=2)
    measure(store, sweep, ok(rate=70.0, runs=2))
    shown = "SELECT status, reason, runs, prompt_eval_rate, attempts, flags FROM results"
    register(store, cells, repeats=3)
    for is_over, attempts, flags in ((False, 2, "clamped,spilled"), (True, 3, "clamped,spilled,load_failed")):
        load = store.next_further(sweep)
        assert load
        attempt = store.begin_further(sweep, load, timeout_s=600)
        assert rows(path, shown) == [("ok", "", 2, 70.0, attempts - 1, "clamped,spilled")]
        store.finish_further(load, attempt, failed(Status.CRASHED, "killed"), is_over=is_over)
        store.finish_further(load, attempt, failed(Status.CRASHED, "killed"), is_over=is_over)
        assert rows(path, shown) == [("ok", "", 2, 70.0, attempts, flags)]
    assert store.next_further(sweep) is None
    assert store.counts(sweep) == {Status.OK: 1}


def test_discarded_attempt_does_not_count(store: Store) -> None:
    sweep = register(store, grid((1024,), (64,)))
    cell = store.next_pending(sweep)
    assert cell
    attempt = store.begin_attempt(sweep, cell.cell_id, timeout_s=600)
    store.finish_attempt(attempt, Outcome(Status.DISCARDED, "suspend"), cell_status=Status.PENDING)
    again = store.next_pending(sweep)
    assert again
    assert again.attempts == 0


def test_running_attempt_is_seen_from_outside(store: Store, path: Path) -> None:
    sweep = register(store, grid((1024,)))
    with Reader.open(path) as reader:
        assert reader.running(sweep) is None
        cell = store.next_pending(sweep)
        assert cell
        store.begin_attempt(sweep, cell.cell_id, timeout_s=600)
        running = reader.running(sweep)
        assert running
        assert (running.cell, running.coordinates, running.pid) == (
            cell.key, {"num_ctx": 1024, "num_batch": 64}, os.getpid(),
        )  # fmt: skip
        holder = reader.writer()
        assert holder
        assert holder.pid == os.getpid()


def test_believed_runs_of_earlier_attempts_are_at_hand_when_repeats_are_raised(store: Store) -> None:
    sweep = register(store, grid((1024,), (64,)), repeats=2)
    first = replace(ok(runs=2), runs=(help_.run(1, warmup=True), help_.run(1, rate=90.0), help_.run(2, rate=110.0),
                                      help_.run(3, believed=False)))  # fmt: skip
    measure(store, sweep, first)
    assert store.next_pending(sweep) is None
    register(store, grid((1024,), (64,)), repeats=3)
    assert store.next_pending(sweep) is None, "it keeps its value"
    cell = store.next_further(sweep)
    assert cell
    assert cell.purpose is Purpose.REPEATS
    (believed,) = store.believed_runs(cell.cell_id)
    assert [(found.number, found.prompt_eval_rate) for found in believed] == [(1, 90.0), (2, 110.0)]
    assert [replace(found, raw=f"raw {found.number}") for found in believed] == list(first.runs[1:3])


def test_changed_surroundings_open_a_new_segment(store: Store, path: Path) -> None:
    sweep = register(store, grid((1024,), (64, 128)))
    one, changes = store.segment(sweep, {"ollama": "0.33.0", "gpu": "a"})
    assert changes == ()
    first = measure(store, sweep)
    assert store.segment(sweep, {"gpu": "a", "ollama": "0.33.0"}) == (one, ())
    two, changes = store.segment(sweep, {"ollama": "0.34.0", "gpu": "a"})
    assert two != one
    assert changes == ("ollama 0.33.0 -> 0.34.0",)
    second = measure(store, sweep)
    with Reader.open(path) as reader:
        assert [reader.attempts(key)[0].segment for key in (first, second)] == [one, two]
    cell = store.cell_by_key(sweep, first)
    assert cell
    assert list(map(len, store.believed_runs(cell.cell_id))) == [3]
    assert store.believed_runs(cell.cell_id, now_of=sweep) == ()
    store.segment(sweep, {"ollama": "0.33.0", "gpu": "a"})
    assert list(map(len, store.believed_runs(cell.cell_id, now_of=sweep))) == [3], "the same surroundings again"


def test_sweeps_are_found_by_name_and_by_which_ran_last(store: Store, path: Path) -> None:
    register(store, grid((1024,)), "first")
    register(store, grid((1024,)), "second")
    store.refresh_sweep(header("first"), timeout_s=600, repeats_minimum=3)
    with Reader.open(path) as reader:
        assert [row.name for row in reader.sweeps()] == ["first", "second"]
        last = reader.last_sweep()
        assert last
        assert (last.name, last.engine, last.pid) == ("first", "fake", os.getpid())
        assert last.dimensions == ("num_ctx", "num_batch")
        with pytest.raises(ConfigError, match=r"has no sweep secnd\. Did you mean second\?"):
            reader.sweep("secnd")


def test_counted_and_made_prompts_are_remembered(store: Store, path: Path) -> None:
    of = ("fake", help_.DIGEST, "TEMPLATE t")
    store.save_prompt(help_.PROMPT, "a prompt")
    store.save_prompt_tokens(*of, help_.PROMPT, 500)
    store.save_prompt_tokens(*of, help_.PROMPT, 501)
    store.save_made_prompt(*of, "tokens: 4096", "word word")
    with Reader.open(path) as reader:
        for memory in (store, reader):
            assert memory.prompt_tokens(*of, help_.PROMPT) == 501
            assert memory.made_prompt(*of, "tokens: 4096") == "word word"
            assert memory.prompt_tokens("fake", help_.DIGEST, "TEMPLATE other", help_.PROMPT) is None
            assert memory.made_prompt("other", help_.DIGEST, "TEMPLATE t", "tokens: 4096") is None
    assert rows(path, "SELECT text FROM prompts WHERE hash = ?", help_.PROMPT) == [("a prompt",)]


OLD: list[dict[str, object]] = [
    {"num_ctx": 2048, "num_batch": 64, "prompt_eval_rate": 99.5, "timestamp": "2025-01-02T03:04:05", "error": None},
    {"num_ctx": 4096, "num_batch": 64, "prompt_eval_rate": None, "timestamp": "2025-01-02T03:05:05",
     "error": "CUDA OOM"},
    {"num_ctx": 8192, "num_batch": 64, "prompt_eval_rate": None, "timestamp": "", "error": "strange"},
]  # fmt: skip


def test_old_results_become_a_sweep_of_their_own_once(store: Store, path: Path) -> None:
    assert store.import_results("old", OLD, "old.json") == 3
    assert store.import_results("old", OLD, "old.json") == 0
    assert store.import_results("old", [{**OLD[0], "num_batch": 128}], "more.json") == 1
    columns = "engine, num_ctx, num_batch, status, reason, flags, prompt_eval_rate, runs, attempts"
    assert rows(path, f"SELECT {columns} FROM results") == [
        ("imported", 2048, 64, "ok", "", "imported", 99.5, 1, 1),
        ("imported", 2048, 128, "ok", "", "imported", 99.5, 1, 1),
        ("imported", 4096, 64, "oom", "cuda_oom", "imported", None, 0, 1),
        ("imported", 8192, 64, "error", "", "imported", None, 0, 1),
    ]
    assert rows(path, "SELECT finished_at, error FROM results WHERE num_ctx = 4096") == [
        ("2025-01-02T03:05:05", "CUDA OOM"),
    ]
    with Reader.open(path) as reader:
        assert reader.counts(reader.sweep("old").sweep_id) == {Status.OK: 2, Status.OOM: 1, Status.ERROR: 1}


def test_old_results_never_mix_with_measured_ones(store: Store) -> None:
    register(store, grid((1024,)), "mine")
    with pytest.raises(ConfigError, match="mine is the name of a measured sweep"):
        store.import_results("mine", OLD, "old.json")
    with pytest.raises(ValueError, match=r"num_batch: '64' is not a whole number"):
        store.import_results("old", [{**OLD[0], "num_batch": "64"}], "old.json")
    with pytest.raises(ValueError, match="finite"):
        store.import_results("old", [{**OLD[0], "prompt_eval_rate": float("nan")}], "old.json")


def test_the_control_cell_stays_the_one_that_was_loaded_as_such_first(store: Store) -> None:
    """Where several lanes measure, a cell that was begun earlier may end later than the control cell."""
    sweep = register(store, grid((1024,)))
    store.segment(sweep, {"engine": "fake"})
    first, second = (store.planned(sweep, position).key for position in (0, 1))
    cells = [store.cell_by_key(sweep, key) for key in (first, second)]
    numbers = [cell.cell_id for cell in cells if cell is not None]
    slow, quick = (store.begin_attempt(sweep, number, timeout_s=60.0) for number in numbers)
    store.finish_attempt(quick, ok(rate=200.0), cell_status=Status.OK)
    found = store.control_cell(sweep)
    assert found is not None
    assert found.cell_id == numbers[1]
    control = store.begin_attempt(sweep, found.cell_id, timeout_s=60.0, purpose=Purpose.CONTROL)
    store.finish_attempt(slow, ok(rate=100.0), cell_status=Status.OK)
    assert store.control_cell(sweep) == found, "while it is loaded again"
    store.finish_control(control, ok(rate=202.0), 0.01)
    assert store.control_cell(sweep) == found
