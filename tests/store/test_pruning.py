"""What is left out, decided by the plan and the attempts alone: after any death, in any order, never by accident."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by their names
from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import count, pairwise
from pathlib import Path

import pytest
from store_helpers import failed, grid, header, ok, path, rows, said, store

from ollama_sweep.core.outcome import Outcome, Status
from ollama_sweep.store.memory.pruning import is_probed
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import PlannedCell
from ollama_sweep.store.writer import Store

SIZES = [64 * n for n in range(1, 13)]
ABOVE = 64 * 64 * 30
Load = Callable[[int, int], bool]
"""Whether a load of num_ctx and num_batch has memory enough, this time."""


def fits(num_ctx: int, num_batch: int) -> bool:
    return num_ctx * num_batch <= ABOVE


def register(store: Store, cells: Sequence[PlannedCell], *, prune: bool = True) -> int:
    return store.register_sweep(header(), cells, timeout_s=600, repeats_minimum=3, prune=prune)


def refresh(store: Store, *, prune: bool) -> int:
    found = store.refresh_sweep(header(), timeout_s=600, repeats_minimum=3, prune=prune)
    assert found
    return found


def run(store: Store, cells: Sequence[PlannedCell], load: Load, dies: Callable[[], bool] = lambda: False) -> int:
    """Measure as the loop does; where it `dies`, at any of its commits, the next session goes on. The loads it took."""
    loads, sweep = 0, register(store, cells)
    while (pending := store.next_pending(sweep)) is not None:
        cell = store.in_doubt(sweep, pending.position) or pending
        planned = cells[cell.position].cell
        attempt = store.begin_attempt(sweep, cell.cell_id, timeout_s=600)
        if dies():
            sweep = register(store, cells)
            continue
        outcome: Outcome = ok() if load(planned.num_ctx, planned.num_batch) else failed()
        loads += 1
        store.finish_attempt(attempt, outcome, cell_status=outcome.status)
        if dies():
            sweep = register(store, cells)
            continue
        store.prune(sweep, cell.cell_id)
    return loads


def marks(path: Path) -> dict[tuple[int, int], str]:
    sql = "SELECT num_ctx, num_batch, CASE reason WHEN 'memory' THEN reason ELSE status END FROM results"
    return {(int(str(ctx)), int(str(batch))): str(mark) for ctx, batch, mark in rows(path, sql)}


def check_kept_twice(path: Path) -> None:
    """The counts and the pending places are what they are made of."""
    counted = rows(path, "SELECT status, count(*) FROM results GROUP BY 1 ORDER BY 1")
    assert counted == rows(path, "SELECT status, cells FROM status_counts WHERE cells > 0 ORDER BY 1")
    pending = "SELECT count(*) FROM plan JOIN cells ON cells.id = cell_id WHERE pending <> ({})"
    assert rows(path, pending.format("cells.status = 'pending' AND plan.skip IS NOT 'memory'")) == [(0,)]


def test_one_in_twenty_is_probed_and_they_lie_everywhere() -> None:
    probed = [place for place in range(10_000) if is_probed(place)]
    assert 480 <= len(probed) <= 520
    assert max(after - before for before, after in pairwise(probed)) <= 40
    for width in range(2, 41):
        assert len({place % width for place in probed}) == width, "no row and no column is without one"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_frontier_takes_few_loads_wherever_the_sweep_dies(store: Store, path: Path, seed: int) -> None:
    cells, commits = grid(SIZES, SIZES), count(seed)
    if seed == 2:
        random.Random(seed).shuffle(cells)
    loads = run(store, cells, fits, lambda: next(commits) % 7 == 0)
    found = marks(path)
    check_kept_twice(path)
    assert {cell for cell, mark in found.items() if mark == "ok"} == {cell for cell in found if fits(*cell)}
    assert set(found.values()) == {"ok", "oom", "memory"}
    assert loads < len(cells), "fewer than without it"
    sweep = refresh(store, prune=True)
    assert (marks(path), store.next_pending(sweep)) == (found, None), "and the same again"
    refresh(store, prune=False)
    assert store.counts(sweep)[Status.PENDING] == list(found.values()).count("memory")
    check_kept_twice(path)


def test_accidents_leave_nothing_out_that_fits(store: Store, path: Path) -> None:
    """Every fiftieth load fails by accident, ten times as many as were seen."""
    dice, accidents = random.Random(3), []

    def load(num_ctx: int, num_batch: int) -> bool:
        if fits(num_ctx, num_batch) and dice.random() < 0.02:
            accidents.append((num_ctx, num_batch))
            return False
        return fits(num_ctx, num_batch)

    run(store, grid(SIZES, SIZES), load)
    assert accidents
    wrong = {cell: mark for cell, mark in marks(path).items() if fits(*cell) and mark != "ok"}
    assert "memory" not in wrong.values()
    check_kept_twice(path)


def test_two_accidents_in_a_row_are_found_by_a_probe(store: Store, path: Path) -> None:
    tries: list[tuple[int, int]] = []

    def load(num_ctx: int, num_batch: int) -> bool:
        tries.append((num_ctx, num_batch))
        return (num_ctx, num_batch) != (128, 128) and fits(num_ctx, num_batch)

    run(store, grid(SIZES, SIZES), load)
    found = marks(path)
    assert (found.pop((128, 128)), tries.count((128, 128))) == ("oom", 2)
    assert {cell for cell, mark in found.items() if mark == "ok"} == {cell for cell in found if fits(*cell)}
    check_kept_twice(path)


def test_a_load_that_served_another_task_before_is_not_a_fresh_one(store: Store, path: Path) -> None:
    """Only what the attempt itself loaded counts; an attempt of an older version did."""
    cells = grid([64], SIZES)
    sweep = register(store, cells)
    for fresh in (0, 1, 1):
        cell = store.cell_by_key(sweep, cells[0].key)
        assert cell
        attempt = store.begin_attempt(sweep, cell.cell_id, timeout_s=600)
        store.finish_attempt(attempt, failed(), cell_status=Status.OOM)
        with store.transaction() as connection:
            connection.execute(
                """INSERT INTO out_of_memory (attempt_id, is_fresh, engine, engine_version, machine, model_digest,
                    modelfile_hash, num_ctx, num_batch, load_options, server) VALUES (?, ?, '', '', '{}', '', '', 0, 0,
                    '{}', '{}')""",
                (attempt, fresh),
            )
        before = store.left_out(sweep).cells
        store.prune(sweep, cell.cell_id)
    assert (before, store.left_out(sweep).cells > 0) == (0, True)


def test_a_reader_of_an_older_file_asks_the_same(store: Store, path: Path) -> None:
    sweep = register(store, grid([64], [64, 128]))
    with Reader.open(path) as reader:
        assert (reader.late(sweep), reader.left_out(sweep).cells, reader.witness(sweep, 0)) == (0, 0, None)
        assert reader.next_cell(sweep) == {"num_ctx": 64, "num_batch": 64}
        assert not reader.has_failures()
