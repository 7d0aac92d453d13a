"""What runs again after a change of settings, and what a death costs."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by their names
from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import store_helpers as help_
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_helpers import failed, grid, header, measure, ok, path, register, rows, said, store

import ollama_sweep
from ollama_sweep.core.ledger import Ledger
from ollama_sweep.core.outcome import FAILURES, Outcome, Purpose, Status, Summary
from ollama_sweep.store import queries
from ollama_sweep.store.again import Wanted
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import PlannedCell
from ollama_sweep.store.writer import Store


def test_grown_shrunk_and_reordered_grid_keeps_every_finished_cell(store: Store) -> None:
    sweep = register(store, grid((1024, 2048)))
    for _ in range(4):
        measure(store, sweep)
    assert register(store, list(reversed(grid((1024, 2048, 4096))))) == sweep
    assert store.counts(sweep) == {Status.OK: 4, Status.PENDING: 2}
    register(store, grid((2048,), (64,)))
    assert store.counts(sweep) == {Status.OK: 1}
    register(store, grid((1024, 2048)))
    assert store.counts(sweep) == {Status.OK: 4}


def test_higher_timeout_runs_only_what_timed_out_under_the_smaller_one(store: Store) -> None:
    cells = grid((1024,), (1, 2, 3))
    sweep = register(store, cells, timeout_s=60)
    measure(store, sweep, failed(Status.TIMEOUT, "", "no end"), timeout_s=60)
    measure(store, sweep, failed())
    measure(store, sweep)
    register(store, cells, timeout_s=60)
    assert store.next_pending(sweep) is None
    register(store, cells, timeout_s=61)
    assert store.counts(sweep) == {Status.PENDING: 1, Status.OOM: 1, Status.OK: 1}


def test_runs_that_were_not_believed_are_not_measured_for_ever(store: Store) -> None:
    cells = grid((1024,), (64,))
    sweep = register(store, cells, repeats=3)
    measure(store, sweep, ok(runs=2))
    register(store, cells, repeats=3)
    assert store.next_pending(sweep) is None
    assert store.next_further(sweep) is None
    register(store, cells, repeats=4)
    assert store.next_further(sweep) is not None


def test_retry_runs_only_the_failures_it_names(store: Store) -> None:
    cells = grid((1024,), (1, 2, 3))
    sweep = register(store, cells)
    for status in (Status.OOM, Status.CRASHED, Status.OK):
        measure(store, sweep, ok() if status is Status.OK else failed(status))
    register(store, cells, retry=frozenset({Status.OOM}))
    assert store.counts(sweep) == {Status.PENDING: 1, Status.CRASHED: 1, Status.OK: 1}
    with pytest.raises(ValueError, match="cannot be retried: ok"):
        register(store, cells, retry=frozenset({Status.OK}))


def test_skipped_cells_follow_the_plan_and_finished_ones_stay(store: Store, path: Path) -> None:
    def cells(*skipped: int) -> list[PlannedCell]:
        return [replace(cell, status=Status.SKIPPED, reason="does_not_fit") if index in skipped else cell
                for index, cell in enumerate(grid((1024, 2048), (64,)))]  # fmt: skip

    sweep = register(store, cells(0))
    assert rows(path, "SELECT status, reason FROM results") == [("skipped", "does_not_fit"), ("pending", "")]
    register(store, cells(1))
    assert rows(path, "SELECT status, reason FROM results") == [("pending", ""), ("skipped", "does_not_fit")]
    measure(store, sweep)
    register(store, cells(0, 1))
    assert rows(path, "SELECT status FROM results") == [("ok",), ("skipped",)]


def test_same_plan_goes_on_without_a_walk_over_its_cells(store: Store) -> None:
    asked = {"timeout_s": 60.0, "repeats_minimum": 3}
    assert store.refresh_sweep(header(), **asked) is None  # type: ignore[arg-type]
    sweep = register(store, grid((1024,), (1, 2, 3)), timeout_s=60)
    measure(store, sweep, failed(Status.TIMEOUT), timeout_s=60)
    measure(store, sweep, ok())
    assert store.refresh_sweep(header(fingerprint="2"), timeout_s=90, repeats_minimum=3) is None
    assert store.refresh_sweep(header(), timeout_s=90, repeats_minimum=4) == sweep
    assert store.counts(sweep) == {Status.OK: 1, Status.PENDING: 2}
    assert store.waiting_loads(sweep) == {Purpose.REPEATS: 1}
    assert store.refresh_sweep(header(), timeout_s=90, repeats_minimum=3) == sweep
    assert store.waiting_loads(sweep) == {}


def is_waiting(path: Path, key: str) -> bool:
    """A cell that has a value waits for a further load."""
    sql = """SELECT count(*) FROM further_loads JOIN cells ON cells.id = cell_id
        WHERE key = ? AND state = 'waiting' AND status = 'ok'"""
    return rows(path, sql, key)[0][0] == 1


STATES = st.tuples(
    st.sampled_from([Status.OK, Status.TIMEOUT, Status.OOM, Status.ERROR, Status.PENDING]),
    st.integers(0, 4),
    st.sampled_from([10.0, 60.0, 600.0]),
    st.integers(1, 4),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    measured=st.lists(STATES, min_size=1, max_size=6),
    timeout_s=st.sampled_from([10.0, 60.0, 600.0]),
    repeats=st.integers(1, 4),
    retry=st.frozensets(st.sampled_from(sorted(FAILURES))),
    refresh=st.booleans(),
)
def test_plan_says_exactly_what_run_will_do(
    tmp_path_factory: pytest.TempPathFactory, measured: list[tuple[Status, int, float, int]], timeout_s: float,
    repeats: int, retry: frozenset[Status], refresh: bool,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("rules") / "s.db"
    cells = grid(range(1, len(measured) + 1), (64,))
    with Store.open(path) as store, Reader.open(path) as reader:
        for position, (status, runs, limit, asked) in enumerate(measured):
            sweep = register(store, cells, repeats=asked, timeout_s=0)
            cell = store.cell_by_key(sweep, cells[position].key)
            assert cell
            if status is not Status.PENDING:
                attempt = store.begin_attempt(sweep, cell.cell_id, timeout_s=limit)
                outcome = Outcome(status, summary=Summary(runs))
                store.finish_attempt(attempt, outcome, cell_status=status)
        said = reader.measured_again((cell.key for cell in cells), Wanted(timeout_s, repeats, retry))
        if refresh:
            store.refresh_sweep(header(), timeout_s=timeout_s, repeats_minimum=repeats, retry=retry)
        else:
            register(store, cells, timeout_s=timeout_s, repeats=repeats, retry=retry)
        after = {result.key: result.status for result in reader.results(sweep)}
        pending = {key for key, status in after.items() if status is Status.PENDING}
        again = {cell.key for cell in cells if is_waiting(path, cell.key)}
        assert {key for key, why in said.items() if why} == pending | again
        assert not pending & again
        assert reader.counts(sweep) == {status: list(after.values()).count(status) for status in set(after.values())}


def test_of_two_thousand_cells_the_next_one_is_found_by_the_index(store: Store, path: Path) -> None:
    cells = grid(range(1, 101), range(1, 21))
    sweep = register(store, cells)
    with store.transaction() as connection:
        connection.execute("UPDATE cells SET status = 'ok' WHERE id < 1990")
        plan = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {queries.NEXT_PENDING}", (sweep,))]
    assert plan == [
        "SEARCH plan USING INDEX plan_pending (sweep_id=?)",
        "CORRELATED SCALAR SUBQUERY 1",
        "SEARCH reused USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH cells USING INTEGER PRIMARY KEY (rowid=?)",
    ]
    assert store.counts(sweep) == {Status.OK: 1989, Status.PENDING: 11}
    found = store.next_pending(sweep)
    assert found
    assert (found.position, found.key) == (1989, cells[1989].key)


def test_kill_9_in_mid_cell_loses_only_that_cell(path: Path) -> None:
    root = str(Path(ollama_sweep.__file__).parents[1])
    died = subprocess.run([sys.executable, help_.__file__, str(path), "2"], env={**os.environ, "PYTHONPATH": root})
    assert died.returncode == -signal.SIGKILL
    with Reader.open(path) as reader:
        assert reader.writer() is None
        sweep = reader.sweep("s").sweep_id
        assert reader.counts(sweep) == {Status.OK: 2, Status.STARTED: 1, Status.PENDING: 1}
    with Store.open(path) as store:
        assert store.refresh_sweep(header(), timeout_s=600, repeats_minimum=3) == sweep
        assert store.counts(sweep) == {Status.OK: 2, Status.PENDING: 2}
        keys = [measure(store, sweep) for _ in range(2)]
        assert store.next_pending(sweep) is None
    assert keys == [cell.key for cell in grid((1024, 2048))[2:]]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert rows(path, "SELECT status, reason, count(*) FROM attempts GROUP BY 1, 2 ORDER BY 3") == [
        ("interrupted", "died", 1), ("ok", "", 4),
    ]  # fmt: skip


def begun_in_the_first_cell(store: Store, sweep: int) -> int:
    """The attempt; where nothing follows, the sweep died in it."""
    cell = store.next_pending(sweep)
    assert cell
    return store.begin_attempt(sweep, cell.cell_id, timeout_s=600)


def test_three_unexplained_deaths_park_a_cell_and_retry_takes_it_back(
    store: Store, path: Path, said: list[str]
) -> None:
    cells = grid((1024,))
    sweep = register(store, cells)
    for _ in range(3):
        assert said == []
        begun_in_the_first_cell(store, sweep)
        register(store, cells)
    (line,) = said
    assert line.startswith("num_ctx 1024, num_batch 64: the sweep died 3 times in a row in this cell")
    assert rows(path, "SELECT status, reason, error FROM results")[0] == (
        "error", "parked", "the process died 3 times in a row in this cell",
    )  # fmt: skip
    register(store, cells, retry=frozenset({Status.ERROR}))
    begun_in_the_first_cell(store, sweep)
    register(store, cells)
    assert store.counts(sweep) == {Status.PENDING: 2}


def test_stops_by_the_person_never_park_a_cell(store: Store) -> None:
    sweep = register(store, grid((1024,)))
    for _ in range(5):
        stopped = Outcome(Status.INTERRUPTED, "stopped")
        store.finish_attempt(begun_in_the_first_cell(store, sweep), stopped, cell_status=Status.PENDING)
        register(store, grid((1024,)))
    assert store.counts(sweep) == {Status.PENDING: 2}


def test_a_cell_that_was_measured_in_between_starts_counting_again(store: Store) -> None:
    cells = grid((1024,), (64,))
    sweep = register(store, cells)
    for status in (Status.TIMEOUT, Status.OOM):
        for _ in range(2):
            begun_in_the_first_cell(store, sweep)
            register(store, cells)
        measure(store, sweep, failed(status))
        register(store, cells, retry=frozenset({status}))
    assert store.counts(sweep) == {Status.PENDING: 1}


def test_reboot_is_told_from_a_death(path: Path) -> None:
    with Store.open(path, boot_id=lambda: "boot 1") as store:
        sweep = register(store, grid((1024,)))
        begun_in_the_first_cell(store, sweep)
    with Store.open(path, boot_id=lambda: "boot 2") as store:
        register(store, grid((1024,)))
    assert rows(path, "SELECT status, reason FROM attempts") == [("interrupted", "reboot")]


def test_leftovers_of_a_dead_session_are_found_by_the_next_one(store: Store) -> None:
    ledger: Ledger = store
    gone = ledger.record("scratch_model", "sweep-1", {"host": "h"})
    kept = store.record("process", "ollama run", {"pid": "4711"})
    store.settle(gone)
    assert store.leftovers() == []
    store.close()
    with Store.open(store.path) as again:
        assert [(found.number, found.kind, found.name, dict(found.details)) for found in again.leftovers()] == [
            (kept, "process", "ollama run", {"pid": "4711"})
        ]
        again.settle(kept)
        assert again.leftovers() == []
