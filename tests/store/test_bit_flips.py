"""Bits that flipped in a database: what comes through is what was measured, or it is named."""

# ruff: noqa: F401 - the fixture is imported, and asked for by its name
from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_helpers import failed, grid, measure, ok, register, rows

from ollama_sweep.core.cell import content_hash
from ollama_sweep.core.errors import StorageError
from ollama_sweep.core.outcome import Answer
from ollama_sweep.store.recovery.recover import recover
from ollama_sweep.store.writer import Store

CELLS = 150
FLIPS = 30
RESULTS = "select cell, * from results where status not in ('pending', 'started')"
Results = Mapping[Any, tuple[Any, ...]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep, its answers kept; one cell in ten has failed."""
    path = tmp_path_factory.mktemp("measured") / "sweeps.db"
    chance = random.Random(1)
    with Store.open(path) as store:
        sweep = register(store, grid(range(512, 512 + CELLS // 2)))
        for number in range(CELLS):
            done = ok(chance.uniform(50, 500))
            answer = Answer("q1", "c", "What is it?", f"It is {chance.random()}")
            runs = tuple(replace(run, answer=answer, scores={"score": chance.random()}) for run in done.runs)
            measure(store, sweep, replace(done, runs=runs) if number % 10 else failed())
    return path


def results(path: Path) -> Results:
    """By cell, without the intervals, which are those of the loads that are left, and the number of its place, which is
    the first free one where the plan has lost it: nothing of both was measured."""
    names = [str(name) for (name,) in rows(path, "SELECT name FROM pragma_table_info('results')")]
    kept = ", ".join(name for name in names if not name.endswith(("_low", "_high")) and name != "position")
    return {row[0]: row[1:] for row in rows(path, RESULTS.replace("*", kept))}


@pytest.mark.parametrize("seed", [0, 1, 15, *(pytest.param(more, marks=pytest.mark.slow) for more in range(2, 15))])
def test_a_recovered_result_is_what_was_measured_or_it_is_named(seed: int, measured: Path, tmp_path: Path) -> None:
    chance, path = random.Random(seed), tmp_path / "sweeps.db"
    data = bytearray(measured.read_bytes())
    for _ in range(FLIPS):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    found = recover(path, tmp_path / "new.db")
    named = {one.cell.removeprefix("cell ") for one in found.differences}
    before, after = results(measured), results(tmp_path / "new.db")
    if {row[0] for row in after.values()} == {"recovered 1"}:  # the sweep itself is lost, which is said
        before = {cell: ("recovered 1", *row[1:]) for cell, row in before.items()}
    assert {cell for cell, row in after.items() if before.get(cell) != row} - named == set()
    assert len(after) > CELLS / 2
