"""Very many cells as arrays that are kept: they say what rows say, and follow each commit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import many_cells
import numpy as np
import older_database
import pytest
import store_helpers

from ollama_sweep.core.errors import StorageError
from ollama_sweep.core.outcome import Purpose, Status
from ollama_sweep.results.best import best_cells, describe_best
from ollama_sweep.results.large import columns, counted, sheet, verdict
from ollama_sweep.results.large.kept import Sheets
from ollama_sweep.results.large.sheet import Sheet
from ollama_sweep.results.page import tables
from ollama_sweep.results.page.gathering import gather
from ollama_sweep.results.plots.shared import field
from ollama_sweep.store.loads import further
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.writer import Store

OLDER = [older_database.SCHEMA_2, older_database.SCHEMA_4]


@pytest.fixture(params=OLDER, ids=str)
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Every task, many dimensions, failures, flags, second looks."""
    older_database.lay_out(tmp_path, request.param)
    return tmp_path / "sweeps.db"


def same(first: Sheet, second: Sheet) -> None:
    """Both say the same of every cell."""
    assert first.counts() == second.counts()
    assert np.array_equal(first.positions, second.positions)
    for name, known in first.columns.coded.items():
        other = second.columns.coded[name]
        assert [known.words[code] for code in known.codes] == [other.words[code] for code in other.codes], name
    assert set(first.columns.numbers) == set(second.columns.numbers)
    for name, values in first.columns.numbers.items():
        assert np.allclose(values, second.columns.numbers[name], rtol=1e-9, equal_nan=True), name


def test_a_sheet_says_what_rows_say(older: Path) -> None:
    with Reader.open(older) as reader:
        for row in reader.sweeps():
            made = sheet.read(reader, row)
            found, rows = made.of_metric(reader, None), columns.read(reader, row)
            assert made.counts() == reader.counts(row.sweep_id)
            for first, second in zip(
                columns.parts_of(found, row.machine), columns.parts_of(rows, row.machine), strict=True
            ):
                one, other = first.field, second.field
                assert (one.about, one.best, one.best_text) == (other.about, other.best, other.best_text)
                assert field.entries(one) == field.entries(other)
                for name in ("kinds", "flags", "tied"):
                    assert np.array_equal(getattr(one, name), getattr(other, name)), name
                assert np.allclose(one.values, other.values, rtol=1e-9, equal_nan=True)
            keys = [cell.key for cell in counted.remarkable(reader, made, 5)]
            assert keys == [cell.key for cell in reader.remarkable(row.sweep_id, 5)]


def test_the_verdict_of_very_many_cells_is_that_of_best(older: Path) -> None:
    with Reader.open(older) as reader:
        for row in reader.sweeps():
            made, results = sheet.read(reader, row), list(reader.results(row.sweep_id))
            spreads = reader.spreads(row.sweep_id)
            said = describe_best(results, None, spreads, contexts=False)
            assert verdict.describe(made.of_metric(reader, None)).text == said
            for metric in (None, "runs"):
                best, tied = verdict.best_cells(made.of_metric(reader, metric), is_of_all=metric is not None)
                expected = best_cells(results, metric, spreads)
                assert best.as_dict() == expected.as_dict()
                assert tied == len(expected.tied)


def test_failures_and_flags_are_counted_as_of_few(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Reader.open(older) as reader:
        row = reader.sweep("speed")
        few = gather(reader, row)
        monkeypatch.setattr("ollama_sweep.results.page.gathering.MOST_CELLS", 3)
        many = gather(reader, row)
    assert many.is_large
    assert not few.is_large
    for table in (tables.failure_table, tables.flag_table):
        first, second = table("s", few), table("s", many)
        assert (first and sorted(row[:2] for row in first.rows)) == (second and sorted(row[:2] for row in second.rows))


def changed(store: Store, sweep_id: int, step: int) -> None:
    """Something happens to a cell."""
    outcomes = [
        None,
        store_helpers.failed(),
        store_helpers.ok(rate=250.5, runs=2),
        store_helpers.failed(Status.TIMEOUT),
    ]
    store_helpers.measure(store, sweep_id, outcomes[step % len(outcomes)])


def test_after_each_commit_the_sheet_is_as_if_it_was_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "sweeps.db"
    with Store.open(path) as store:
        sweep_id = store_helpers.register(store, store_helpers.grid([64, 128, 256, 512]))
        changed(store, sweep_id, 0)
        with Reader.open(path) as reader:
            row = reader.sweep("s")
            kept = sheet.read(reader, row)
        for step in range(1, 7):
            changed(store, sweep_id, step)
            with Reader.open(path) as reader:
                rows = kept.update(reader)
                assert rows is not None
                assert len(rows), "what has changed is told"
                same(kept, sheet.read(reader, row))
                assert kept.update(reader) is not None
        cell = store.next_pending(sweep_id)
        assert cell is not None
        store.begin_attempt(sweep_id, cell.cell_id, timeout_s=60)
        with Reader.open(path) as reader:
            kept.update(reader)
            assert kept.counts()[Status.STARTED] == 1


def test_what_a_new_run_does_to_the_plan_is_read_anew(tmp_path: Path) -> None:
    path, sheets = tmp_path / "sweeps.db", Sheets()
    with Store.open(path) as store:
        cells = store_helpers.grid([64, 128, 256])
        sweep_id = store_helpers.register(store, cells)
        for step in range(3):
            changed(store, sweep_id, step)
        for more in ([], [64, 128, 256, 512], [64, 128]):
            if more:
                store_helpers.register(store, store_helpers.grid(more), retry=frozenset({Status.OOM}))
            with Reader.open(path) as reader, sheets.of(reader, reader.sweep("s")) as found:
                same(found, sheet.read(reader, reader.sweep("s")))
                assert found.counts() == reader.counts(sweep_id)


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE cells SET reason = 'a' || char(30) || 'b' || char(31) WHERE id = 2",
        "UPDATE attempts SET prompt_eval_rate = 9e300 WHERE id = 1",
    ],
)
def test_what_cannot_be_packed_is_read_row_by_row(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "sweeps.db"
    with Store.open(path) as store:
        sweep_id = store_helpers.register(store, store_helpers.grid([64, 128]))
        for step in range(3):
            changed(store, sweep_id, step)
    with store_helpers.stranger(path) as connection:
        connection.execute(spoil)
    with Reader.open(path) as reader:
        row = reader.sweep("s")
        made, rows = sheet.read(reader, row), columns.read(reader, row)
        assert made.counts() == reader.counts(row.sweep_id)
        for name in ("status", "reason", "flags", "num_ctx"):
            one, other = made.columns.coded[name], rows.coded[name]
            assert [one.words[code] for code in one.codes] == [other.words[code] for code in other.codes]


def test_threads_that_read_side_by_side_say_what_one_says(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Reader.open(older) as reader:
        for row in reader.sweeps():
            with monkeypatch.context() as patched:
                patched.setattr("ollama_sweep.store.many.packed.AT_ONCE", 2)
                apart = sheet.read(reader, row)
            same(apart, sheet.read(reader, row))


def test_cells_of_several_models_and_rare_shapes_are_told_apart(tmp_path: Path) -> None:
    path = many_cells.fill(tmp_path, 12)
    with store_helpers.stranger(path) as connection:
        connection.execute("UPDATE cells SET model = 'other' WHERE id % 3 = 0")
        connection.execute("UPDATE plan SET model = 'named' WHERE position % 5 = 0")
        connection.execute("UPDATE attempts SET runs = 7, choice = 2 WHERE id % 4 = 0")
        connection.execute("UPDATE attempts SET flags = 'drifted,spilled' WHERE id % 7 = 0 AND status = 'ok'")
        connection.execute("INSERT INTO intervals SELECT sweep_id, segment_id, metric, loads, 7, 1.5 FROM intervals")
    with Reader.open(path) as reader:
        row = reader.sweep("grid")
        made, rows = sheet.read(reader, row), columns.read(reader, row)
    for name in ("model", "task", "status", "flags"):
        one, other = made.columns.coded[name], rows.coded[name]
        assert [one.words[code] for code in one.codes] == [other.words[code] for code in other.codes], name
    is_ok = np.isfinite(rows.numbers["prompt_eval_rate"])
    for name in ("looks", "prompt_eval_rate_low", "prompt_eval_rate_high"):
        assert np.allclose(made.columns.numbers[name][is_ok], rows.numbers[name][is_ok], rtol=1e-8), name


def test_a_sheet_that_nobody_wants_any_more_is_given_up(tmp_path: Path) -> None:
    sheets = Sheets()
    with Reader.open(many_cells.fill(tmp_path, 12)) as reader:
        sheets.end()
        with pytest.raises(StorageError, match="asked to end"), sheets.of(reader, reader.sweep("grid")):
            pass


def test_intervals_are_those_of_the_view(tmp_path: Path) -> None:
    path = many_cells.fill(tmp_path, 12)
    with Reader.open(path) as reader:
        row = reader.sweep("grid")
        made, rows = sheet.read(reader, row), columns.read(reader, row)
        for end in ("_low", "_high"):
            name = f"prompt_eval_rate{end}"
            assert np.isfinite(rows.numbers[name]).any()
            assert np.allclose(made.columns.numbers[name], rows.numbers[name], rtol=1e-8, equal_nan=True)
        results = list(reader.results(row.sweep_id))
        said = describe_best(results, None, reader.spreads(row.sweep_id), contexts=False)
        assert verdict.describe(made.of_metric(reader, None)).text == said


def test_the_time_of_very_many_attempts_is_estimated_of_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = many_cells.fill(tmp_path, 60)
    monkeypatch.setattr(further, "SAMPLED", 400)
    monkeypatch.setattr("ollama_sweep.store.loads.reading.MOST_TIMED", 1000)
    with store_helpers.stranger(path) as connection:
        connection.execute("UPDATE attempts SET purpose = 'pass' WHERE id > 1800")
        connection.execute("UPDATE attempts SET finished_at = '2026-01-01T00:00:03+00:00' WHERE id > 1800")
    seen: list[Any] = []
    with Reader.open(path) as reader:
        found = reader.seconds(1)
        reader._connection.set_trace_callback(seen.append)
        reader.seconds(1)
    assert found[None] == pytest.approx(1800 * 5, rel=0.05)
    assert found[Purpose.PASS] == pytest.approx(1800 * 3, rel=0.05)
    assert len(json.dumps(seen)) < 20_000, "not every attempt was asked for"
