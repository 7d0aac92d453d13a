"""The results of very many cells as arrays that are kept: made of packed columns, and brought up to date cell by cell.

It is what `columns.read` gives, without a row for each cell on the way and with the numbers of one metric at a time. A
value is exact to ten digits of a usual one; whatever is told of a single cell is read of its row.
"""

from __future__ import annotations

import contextlib
import math
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ollama_sweep.core.cell import MAIN_TASK
from ollama_sweep.core.errors import StorageError
from ollama_sweep.core.metrics import DEFAULT_METRIC, Metric, default_metric, find_metric, metric
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import CellResult, Status
from ollama_sweep.core.stats import known_median
from ollama_sweep.results.grids import X, Y
from ollama_sweep.results.large import unpacking
from ollama_sweep.results.large.columns import Codes, Columns, compact
from ollama_sweep.results.large.unpacking import Cells
from ollama_sweep.store.many.packed import LOADS, LOOKS, RUNS, Unpackable, Usual, Wanted

if TYPE_CHECKING:
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow

T = TypeVar("T")
SAMPLE = 200
DIGITS = 10
USUAL, MOST_USUAL = 1e6, 1e15
"""So large a value is taken to be where none was measured yet, and at most."""
MOST_CHANGED = 2000
"""Cells that are looked at one by one after a commit; more are read like all of them."""
ABREAST = 2
"""Threads that read the cells side by side."""
MOST_METRICS = 3
"""Numbers of so many metrics are kept."""
_STATE = ("status", "reason", "flags")
_ENDS = ("_low", "_high", "_min", "_max")


@dataclass
class Sheet:
    """A sweep. `positions` are those of its rows, ascending; `attempt` is the last attempt that it knows of.

    Used by one thread at a time.
    """

    row: SweepRow
    columns: Columns
    positions: Any
    shapes: Codes
    scales: dict[str, float]
    attempt: int
    usual: Usual | None = None
    is_odd: bool = False
    """It does not count what the database counts: something in it cannot be read."""
    kept: list[str] = field(default_factory=list)
    has_old_ends: bool = False
    """Intervals were made of what runs and loads differed by before the last commit."""
    told: dict[str, Any] = field(default_factory=dict)
    """What was made of it, as long as it does not change."""

    def __len__(self) -> int:
        return len(self.positions)

    def rows_of(self, positions: Sequence[int]) -> Any:
        """The numbers of the rows at these positions, as far as there are such."""
        wanted = np.asarray(sorted(positions), np.int64)
        at = np.searchsorted(self.positions, wanted)
        inside = at < len(self.positions)
        return at[inside][self.positions[at[inside]] == wanted[inside]]

    def counts(self) -> dict[Status, int]:
        """How many cells have each status, without those of which it cannot be read."""
        status = self.columns.coded["status"]
        numbers = np.bincount(status.codes, minlength=len(status.words)).tolist()
        return {Status(str(word)): count for word, count in zip(status.words, numbers, strict=True) if word and count}

    def of_metric(self, reader: Reader, name: str | None) -> Columns:
        """The columns with the numbers of this metric; None: those that each task is about. Raises ConfigError."""
        found = replace(
            self.columns, result_at=lambda number: reader.result(self.row.sweep_id, int(self.positions[number]))
        )
        if name is None:
            return found
        one = find_metric(name, [result for some in found.samples.values() for result in some])
        if one.name not in found.numbers:
            self._add_metric(reader, one)
        return replace(found, metrics=dict.fromkeys(found.metrics, one))

    def numbers_of(self, reader: Reader, name: str) -> Columns:
        """The columns with the numbers of this metric, but not how sure they are."""
        return self.columns if name in self.columns.numbers else self.of_metric(reader, name)

    def _add_metric(self, reader: Reader, one: Metric) -> None:
        own = {name for each in self.columns.metrics.values() for name in (each.name, *(each.name + e for e in _ENDS))}
        self.kept.append(one.name)
        for old in self.kept[:-MOST_METRICS]:
            for name in (old, *(old + end for end in _ENDS)):
                if name not in own:
                    self.columns.numbers.pop(name, None)
                    self.scales.pop(name, None)
        self.kept = self.kept[-MOST_METRICS:]
        _read_numbers(reader, self, [one])

    # -- what has changed --------------------------------------------------------------------------------------------

    def update(self, reader: Reader) -> Any | None:
        """The rows that have changed since it was made or updated last; None where it must be made anew."""
        last, positions = reader.touched_since(self.row.sweep_id, self.attempt, MOST_CHANGED + 1)
        if last < self.attempt:
            return np.zeros(0, np.int64)  # who asks began to read before the last commit that is known
        if len(positions) > MOST_CHANGED or (self.usual is None and _needs_shapes(reader, self.row)):
            return None
        rows = self.rows_of(positions)
        before = self.columns.spreads
        if len(rows):
            try:
                rows = self._put(reader, rows)
            except Unpackable:
                return None
        self.attempt = last
        self.columns.spreads = reader.spreads(self.row.sweep_id)
        self._set_looks(rows)
        self.has_old_ends = True
        if len(rows) or before != self.columns.spreads:
            self.told.clear()
        if not self.is_odd and self.counts() != reader.counts(self.row.sweep_id):
            return None
        return rows

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What is made of it, once until it changes."""
        if name not in self.told:
            self.told[name] = make()
        found: T = self.told[name]
        return found

    def _put(self, reader: Reader, rows: Any) -> Any:
        """Read these rows again; those of them that are not as they were."""
        wanted = Wanted(dict(self.scales), usual=self.usual)
        cells = unpacking.cells_at(reader, self.row.sweep_id, self.positions[rows].tolist(), wanted)
        if not np.array_equal(cells.positions, self.positions[rows]):
            raise Unpackable("cells are gone")
        every = [*(self.columns.coded[name] for name in _STATE), self.shapes]
        before = [known.codes[rows] for known in every]
        for at, known in enumerate(every[:-1]):
            known.put(rows, [cells.states[code][at] for code in cells.state_codes.tolist()])
        shapes, codes = cells.shapes
        self.shapes.put(rows, [shapes[code] for code in codes.tolist()])
        is_new = np.zeros(len(rows), bool)
        for known, old in zip(every, before, strict=True):
            is_new |= known.codes[rows] != old
        for name, values in cells.numbers.items():
            is_new |= ~np.isclose(self.columns.numbers[name][rows], values, rtol=0, atol=0, equal_nan=True)
            self.columns.numbers[name][rows] = values
        return rows[is_new]

    def _set_looks(self, rows: Any) -> None:
        """How often cells were chosen for their values."""
        numbers, codes = self.columns.numbers, self.shapes.codes
        looks = np.fromiter(self.shapes.values, np.int64, len(self.shapes.values)) // (RUNS * LOADS) % LOOKS
        if "looks" not in numbers:
            numbers["looks"] = np.zeros(len(codes), np.uint8)
        numbers["looks"][rows] = looks[codes[rows]]

    def _set_ends(self, reader: Reader) -> None:
        """The interval of each cell where that is of a factor: one more load changes all of them."""
        self.has_old_ends = False
        known, numbers = reader.factors(DEFAULT_METRIC), self.columns.numbers
        if not known or DEFAULT_METRIC not in numbers:
            return
        words = self.shapes.values
        found = np.fromiter((_factor(known, int(str(shape))) for shape in words), float, len(words))[self.shapes.codes]
        numbers[f"{DEFAULT_METRIC}_low"] = numbers[DEFAULT_METRIC] / found
        numbers[f"{DEFAULT_METRIC}_high"] = numbers[DEFAULT_METRIC] * found


def _factor(known: Mapping[int, float], shape: int) -> float:
    """That of an attempt of this shape; looks do not count, and no runs stand for all."""
    runs, rest = shape % RUNS, shape // RUNS
    loads, rest = rest % LOADS, rest // (LOADS * LOOKS)
    plain = RUNS * (loads + LOADS * LOOKS * rest)
    return known.get(plain + runs, known.get(plain, math.nan))


# -- making it -------------------------------------------------------------------------------------------------------


def read(reader: Reader, row: SweepRow, is_over: Callable[[], bool] | None = None) -> Sheet:
    """All cells of a sweep. Raises StorageError, also as soon as `is_over` says that nobody wants them any more."""
    last, _ = reader.touched_since(row.sweep_id, 0, 0)
    sample = reader.results_at(row.sweep_id, reader.recent_positions(row.sweep_id, SAMPLE))
    samples: dict[str, Sequence[CellResult]] = {MAIN_TASK: sample}
    is_guess = not row.spec.get("tasks")
    there = set(reader.result_columns())
    names = _wanted(reader, there, [metric(DEFAULT_METRIC)], row, more=False) if is_guess else []
    scales = {name: _scale(name, sample) for name in names}
    further = [name for name in row.dimensions if name not in (X, Y, "model", "task")]
    usual = reader.usual(row.sweep_id) if _needs_shapes(reader, row) else None
    wanted = Wanted(scales, [_column(name, there) for name in further], True, usual)
    made = _read_state(reader, row, wanted, further, is_over)
    made.columns.spreads = reader.spreads(row.sweep_id)
    tasks = [str(task) for task in made.columns.coded["task"].words]
    if not is_guess or tasks != [MAIN_TASK]:
        samples = {task: reader.some_results(row.sweep_id, task, SAMPLE) for task in tasks}
    made.columns.samples = samples if tasks else {}
    made.columns.metrics = {task: metric(default_metric(samples[task])) for task in tasks}
    made.attempt = last
    _read_numbers(reader, made, list(made.columns.metrics.values()), is_first=True)
    made.is_odd = made.counts() != reader.counts(row.sweep_id)
    return made


def _needs_shapes(reader: Reader, row: SweepRow) -> bool:
    """There are intervals that are made of a factor, or a cell may have been looked at again."""
    return bool(reader.factors(DEFAULT_METRIC)) or reader.has_looked(row.sweep_id)


def _column(name: str, there: set[str]) -> str:
    return name if f"dimension_{name}" not in there else f"dimension_{name}"


def _wanted(reader: Reader, there: set[str], metrics: Sequence[Metric], row: SweepRow, *, more: bool) -> list[str]:
    """The columns of numbers that are read of these metrics: intervals that a factor gives are made of that."""
    found = [one.name + end for one in metrics for end in ("", *_ENDS)]
    if any(reader.factors(DEFAULT_METRIC)):
        found = [name for name in found if not name.startswith(f"{DEFAULT_METRIC}_")]
    found = [name for name in found if name not in (f"{DEFAULT_METRIC}_low", f"{DEFAULT_METRIC}_high")]
    told = row.spec.get("prompt_tokens")
    if more or not (isinstance(told, int) and told):
        found.append("prompt_eval_count")
    return [name for name in dict.fromkeys(found) if name in there]


def _scale(name: str, sample: Sequence[CellResult]) -> float:
    """What values are multiplied by so that so many digits of a usual one are whole."""
    stem = name.rpartition("_")[0] if name.endswith(_ENDS) else name
    known = [abs(value) for cell in sample for value in (cell.metrics.get(name), cell.metrics.get(stem)) if value]
    usual = known_median(value for value in known if math.isfinite(value)) or USUAL
    return float(10.0 ** (DIGITS - math.ceil(math.log10(min(usual, MOST_USUAL)))))


def _read_state(
    reader: Reader, row: SweepRow, wanted: Wanted, further: Sequence[str], is_over: Callable[[], bool] | None
) -> Sheet:
    """Places, states and shapes of all cells, and these numbers."""
    parts = _parts(reader, row.sweep_id, wanted, is_over)
    coded: dict[str, Codes] = {}
    for name in (X, Y):
        places = _of_numbers([part.places[name] for part in parts])
        coded[name] = Codes.of([unpacking.place_of(int(str(value))) for value in places.values], places.codes)
    texts = dict(zip(further, wanted.texts, strict=True))
    for name in ("model", "task", *further):
        column = texts.get(name, name)
        coded[name] = _of_words([part.texts[column] for part in parts])
    for at, name in enumerate(_STATE):
        coded[name] = _of_words([([state[at] for state in part.states], part.state_codes) for part in parts])
    coded["status"].check = lambda value: value if value in set(Status) else None
    positions = _joined([part.positions for part in parts], np.int32)
    names = [X, Y, "model", "task", *further]
    columns = Columns(
        row, {}, {}, coded, {name: _joined([part.numbers[name] for part in parts], float) for name in wanted.numbers},
        names, _nowhere, {},
    )  # fmt: skip
    return Sheet(
        row, columns, positions, _of_words([part.shapes for part in parts]), dict(wanted.numbers), 0, wanted.usual
    )


def _nowhere(number: int) -> CellResult:
    raise LookupError(number)  # `of_metric` knows the reader


def _parts(
    reader: Reader, sweep_id: int, wanted: Wanted, is_over: Callable[[], bool] | None = None
) -> list[Cells]:  # fmt: skip
    """All cells, in the order of the plan: by several threads, each with a reader of its own, where there are many."""
    free: queue.SimpleQueue[Reader] = queue.SimpleQueue()

    def read(block: tuple[int, int]) -> Cells:
        if is_over is not None and is_over():
            raise StorageError("it was asked to end")
        mine = free.get()
        try:
            return unpacking.cells_between(mine, sweep_id, *block, wanted)
        finally:
            free.put(mine)

    blocks = reader.blocks(sweep_id)
    with reader.abreast(ABREAST) if len(blocks) > 1 else contextlib.nullcontext([reader]) as readers:
        for one in readers:
            free.put(one)
        if len(readers) > 1:
            with contextlib.suppress(RuntimeError), ThreadPoolExecutor(len(readers), "cells") as threads:
                return list(threads.map(read, blocks))  # else there can be no more threads here
        return list(map(read, blocks))


def _read_numbers(reader: Reader, sheet: Sheet, metrics: Sequence[Metric], *, is_first: bool = False) -> None:
    """The numbers of these metrics, as far as they are not there."""
    there = set(reader.result_columns())
    has_more = is_first and set(sheet.columns.samples) > {MAIN_TASK}
    names = _wanted(reader, there, metrics, sheet.row, more=has_more)
    sample = [result for some in sheet.columns.samples.values() for result in some]
    _add_numbers(reader, sheet, [name for name in names if name not in sheet.scales], sample)
    sheet._set_looks(slice(None))
    sheet._set_ends(reader)
    if DEFAULT_METRIC in {one.name for one in metrics} and f"{DEFAULT_METRIC}_min" not in sheet.scales:
        numbers = sheet.columns.numbers
        lows = numbers.get(f"{DEFAULT_METRIC}_low")
        if lows is not None and (np.isfinite(numbers[DEFAULT_METRIC]) & ~np.isfinite(lows)).any():
            ends = [name for name in (f"{DEFAULT_METRIC}_min", f"{DEFAULT_METRIC}_max") if name in there]
            _add_numbers(reader, sheet, ends, sample)


def _add_numbers(reader: Reader, sheet: Sheet, names: Sequence[str], sample: Sequence[CellResult]) -> None:
    if not names:
        return
    scales = {name: _scale(name, sample) for name in names}
    parts = _parts(reader, sheet.row.sweep_id, Wanted(scales, has_state=False))
    for name in names:
        sheet.columns.numbers[name] = _joined([part.numbers[name] for part in parts], float)
    sheet.scales |= scales


def _joined(parts: Sequence[Any], kind: Any) -> Any:
    return np.concatenate(parts).astype(kind, copy=False) if parts else np.zeros(0, kind)


def _of_numbers(parts: Sequence[Any]) -> Codes:
    """Whole numbers as codes."""
    found = _joined(parts, np.int64)
    if len(found) and (found == found[0]).all():
        return Codes.of([int(found[0])], np.zeros(len(found), np.uint8))
    known, codes = compact(found) if len(found) and found.min() >= 0 else np.unique(found, return_inverse=True)
    return Codes.of(known.tolist(), codes)


def _of_words(parts: Sequence[tuple[Sequence[Scalar], Any]]) -> Codes:
    """The words of each part and which of them each cell has."""
    values: dict[Scalar, int] = {}
    found = []
    for words, codes in parts:
        table = np.array([values.setdefault(word, len(values)) for word in words] or [0], np.int32)
        found.append(table[codes])
    return Codes.of(list(values), _joined(found, np.int32))
