"""The results of very many cells as columns of numbers: read in one pass, never a row for each of them in memory.

Pictures, tables and the best in words are made of them where a sweep has more than `pictures.MANY` cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ollama_sweep.core.cell import MAIN_TASK, PROMPT_TOKENS
from ollama_sweep.core.judge import is_unfilled
from ollama_sweep.core.metrics import Metric, default_metric, find_metric, metric
from ollama_sweep.core.noise import neighbours
from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import CellResult, Flag, Status, failure_label
from ollama_sweep.core.stats import CONFIRMED_LOOKS, range_and_runs
from ollama_sweep.results.grids import Grid, Progress, X, Y, in_order, is_told, place_of
from ollama_sweep.results.plots import PlotOptions
from ollama_sweep.results.plots.shared import field as fields
from ollama_sweep.results.plots.shared.field import Field
from ollama_sweep.results.plots.shared.heatmap_data import HeatmapData, Kind, collect_one, kind_of

if TYPE_CHECKING:
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow

SAMPLE = 200
_ENDS = ("", "_low", "_high", "_min", "_max")
_COUNTS = ("runs", "loads", "looks", "answers", "failed_answers")
MOST_MARKS = 20_000
"""Cells of one picture that are looked at one by one: more of them cannot have a number each."""


def _as_it_is(value: Scalar) -> Scalar:
    return value


@dataclass
class Codes:
    """A column of few different values: each row has the number of its value. `check` looks at each of them once."""

    check: Callable[[Scalar], Scalar]
    values: dict[Scalar, int] = field(default_factory=dict)
    parts: list[Any] = field(default_factory=list)

    def add(self, column: Sequence[Scalar]) -> None:
        known = self.values
        different = dict.fromkeys(column)
        for value in different:
            known.setdefault(value, len(known))
        if len(different) == 1:
            self.parts.append(np.full(len(column), known[column[0]], np.int32))
        else:
            self.parts.append(np.fromiter(map(known.__getitem__, column), np.int32, len(column)))

    @classmethod
    def of(cls, values: Sequence[Scalar], codes: Any) -> Codes:
        """Those of values that were looked at already; in as few bytes as they need."""
        known = {value: number for number, value in enumerate(values)}
        return cls(_as_it_is, known, [codes.astype(np.min_scalar_type(max(1, len(known))), copy=False)])

    def put(self, rows: Any, column: Sequence[Scalar]) -> None:
        """Other values for these rows."""
        new = [self.values.setdefault(value, len(self.values)) for value in column]
        if len(self.values) > np.iinfo(self.codes.dtype).max:
            self.codes = self.codes.astype(np.int32)
        self.codes[rows] = new
        self.__dict__.pop("words", None)

    @cached_property
    def codes(self) -> Any:
        found = np.concatenate(self.parts) if self.parts else np.zeros(0, np.int32)
        self.parts = []
        return found

    @cached_property
    def words(self) -> list[Scalar]:
        return [self.check(value) for value in self.values]


@dataclass
class Columns:
    """All results of a sweep. `metrics` is by task; a number column has NaN where a cell has none."""

    row: SweepRow
    metrics: Mapping[str, Metric]
    samples: Mapping[str, Sequence[CellResult]]
    coded: Mapping[str, Codes]
    numbers: dict[str, Any]
    names: Sequence[str]
    result_at: Callable[[int], CellResult]
    spreads: Mapping[str, Spreads]


@dataclass
class Part:
    """One picture: its field, and for its table the words of the cells without a number.

    `where` are its rows, `places` where each stands in the field (row after row).
    """

    field: Field
    metric: Metric
    is_own: bool
    words: Sequence[str]
    labels: Any
    results: Callable[[], Iterator[CellResult]]
    where: Any
    places: Any

    def drawn(self) -> HeatmapData | Field:
        """What the picture is made of: as ever, a mark for each cell, unless there are too many."""
        about = self.field.about
        if self.field.kinds.size > MOST_MARKS:
            return self.field
        cells = {place_of(result): result for result in self.results()}
        grid = Grid(about.combination, self.model, about.columns, about.rows, cells)
        options = PlotOptions(sweep=about.sweep, machine=about.machine, prompt_tokens=about.prompt_tokens)
        return replace(collect_one(grid, self.metric, options), spread=about.spread)

    @property
    def model(self) -> str:
        """That of the first cell."""
        return next(self.results()).model


def read(reader: Reader, row: SweepRow, asked: str | None = None) -> Columns:
    """Everything that pictures, tables and words need. Raises ConfigError for a metric that the results do not have."""
    samples = {task: reader.some_results(row.sweep_id, task, SAMPLE) for task in reader.tasks(row.sweep_id)}
    every = [result for some in samples.values() for result in some]
    chosen = find_metric(asked, every) if asked is not None else None
    metrics = {task: chosen or metric(default_metric(some)) for task, some in samples.items()}
    there = set(reader.result_columns())
    wanted = {one.name + end for one in metrics.values() for end in _ENDS}
    tokens = row.spec.get("prompt_tokens")
    more = _COUNTS if tokens and set(samples) <= {MAIN_TASK} else (*_COUNTS, "prompt_eval_count")
    numbers = [name for name in dict.fromkeys([*sorted(wanted), *more]) if name in there]
    further = [name for name in row.dimensions if name not in (X, Y, "model", "task")]
    names = [X, Y, "model", "task", *further]
    columns = [name if f"dimension_{name}" not in there else f"dimension_{name}" for name in names]
    coded = {name: Codes(partial(reader.checked, column)) for name, column in zip(names, columns, strict=True)}
    coded |= {name: Codes(partial(reader.checked, name)) for name in ("reason", "flags")}
    coded["status"] = Codes(partial(_status, reader))
    parts: dict[str, list[Any]] = {name: [] for name in numbers}
    for rows in reader.in_parts(row.sweep_id, [*columns, "status", "reason", "flags", *numbers]):
        by_column = list(zip(*rows, strict=True))
        for name, column in zip([*names, "status", "reason", "flags", *numbers], by_column, strict=True):
            coded[name].add(column) if name in coded else parts[name].append(_floats(reader, name, column))
    return Columns(
        row, metrics, samples, coded,
        {name: np.concatenate(found) if found else np.zeros(0) for name, found in parts.items()},
        names, lambda position: reader.result(row.sweep_id, position), reader.spreads(row.sweep_id),
    )  # fmt: skip


def _status(reader: Reader, value: Scalar) -> Scalar:
    """None for what is no status: its cell is left out, as a row that cannot be read is."""
    return value if value in set(Status) else reader.checked("status", value and b"")


def _floats(reader: Reader, name: str, column: Sequence[Any]) -> Any:
    if set(map(type, column)) <= {float, int, type(None)}:
        return np.array(column, float)
    checked = [reader.checked(name, value) for value in column]
    return np.array([value if isinstance(value, int | float) else np.nan for value in checked], float)


# -- pictures and tables ---------------------------------------------------------------------------------------------


def off_neighbours(found: Columns) -> dict[int, float]:
    """Cells that are off what their neighbours say, by position, and by what share: a few of each grid."""
    off: dict[int, float] = {}
    status = found.coded["status"]
    for where, _ in combinations(found):
        one = found.metrics[str(found.coded["task"].words[found.coded["task"].codes[where[0]]])]
        is_ok = np.array([word == Status.OK for word in status.words], bool)[status.codes[where]]
        rates = found.numbers[one.name][where] if one.name in found.numbers else np.full(len(where), np.nan)
        (columns, across), (rows, down) = (ranked(found, name, where) for name in (X, Y))
        at = np.zeros((len(columns), len(rows)), np.int64)
        at[across, down] = where
        logs = np.full(at.shape, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            logs[across, down] = np.where(is_ok & (rates > 0), np.log(rates), np.nan)
        runs, loads = (np.nan_to_num(found.numbers[name], nan=1.0)[at] for name in ("runs", "loads"))
        sigmas = neighbours.sigma(found.spreads.get(one.name), runs, loads)
        off |= {int(at[x, y]): share for x, y, share in neighbours.off(logs, sigmas)}
    return off


def parts_of(found: Columns, machine: str, chosen: Any | None = None, axes: tuple[str, str] = (X, Y)) -> Iterator[Part]:
    """One part per combination of the dimensions other than these two, in the order of the plan; of the `chosen` rows
    where not of all.
    """
    for where, combination in combinations(found, chosen, axes):
        yield part_of(found, where, combination, machine, axes)


def combinations(
    found: Columns, chosen: Any | None = None, axes: tuple[str, str] = (X, Y)
) -> Iterator[tuple[Any, tuple[tuple[str, Scalar], ...]]]:
    """The rows of each combination of the dimensions other than the two, and what it combines."""
    row, coded = found.row, found.coded
    several = {name: len(coded[name].values) > 1 for name in found.names}
    models = compact(_mixed(coded, ("task", "model")))[0] if several["model"] else [0]
    models_apart = len(models) > len(coded["task"].values)
    swept = [name for name in row.dimensions if name not in (X, Y)]
    apart = [name for name, is_apart in (("model", models_apart), ("task", several["task"])) if is_apart]
    names = [name for name in dict.fromkeys([*(name for name in (X, Y) if name in row.dimensions), *swept, *apart])
             if name not in axes]  # fmt: skip
    is_read = np.array([word is not None for word in coded["status"].words] or [True], bool)[coded["status"].codes]
    every = np.nonzero(is_read)[0] if chosen is None else chosen[is_read[chosen]]
    if not len(every):
        return
    known, group = compact(_mixed(coded, names)[every]) if names else ([0], None)
    first = np.zeros(len(known), np.int64)
    if group is not None:
        first[group[::-1]] = np.arange(len(group))[::-1]  # the last one that is written stays: the first row of each
    for number in np.argsort(first):
        where = every if group is None else every[group == number]
        pairs = ((name, coded[name].words[coded[name].codes[where[0]]]) for name in names)
        yield where, tuple(filter(is_told, pairs))


def _mixed(coded: Mapping[str, Codes], names: Sequence[str]) -> Any:
    """A number for each combination of these columns."""
    mixed = np.zeros(len(coded["status"].codes), np.int64)
    for name in names:
        mixed = mixed * len(coded[name].values) + coded[name].codes
    return mixed


def compact(numbers: Any) -> tuple[Any, Any]:
    """The different ones of these numbers, none below 0, ascending, and which of them each is."""
    most = int(numbers.max()) + 1 if len(numbers) else 1
    if most > 4 * len(numbers) + 1000:
        known, codes = np.unique(numbers, return_inverse=True)
        return known, codes
    known = np.nonzero(np.bincount(numbers, minlength=most))[0]
    table = np.zeros(most, np.int32)
    table[known] = np.arange(len(known))
    return known, table[numbers]


def part_of(
    found: Columns, where: Any, combination: tuple[tuple[str, Scalar], ...], machine: str, axes: tuple[str, str]
) -> Part:
    """The picture of these rows, which are one combination."""
    coded, row = found.coded, found.row
    task = str(coded["task"].words[coded["task"].codes[where[0]]])
    one = found.metrics[task]
    columns, across = ranked(found, axes[0], where)
    rows, down = ranked(found, axes[1], where)
    states = states_of(coded, where)
    models = {coded["model"].words[code] for code in compact(coded["model"].codes[where])[0]}
    about = HeatmapData(
        columns=columns, rows=rows, cells={}, metric=one, model=str(models.pop()) if len(models) == 1 else "",
        sweep=row.name, machine=machine, combination=combination, progress=progress_of(states),
        prompt_tokens=_prompt_tokens(found, task, where, states), task=task, x=axes[0], y=axes[1],
        spread=found.spreads[one.name].words if one.name in found.spreads else "",
    )  # fmt: skip
    shape = len(rows), len(columns)
    made = Field(
        about, np.zeros(shape, np.uint8), np.full(shape, np.nan), np.zeros(shape, np.uint16), np.zeros(shape, bool)
    )
    at = down.astype(np.int64) * len(columns) + across
    values = _fill(made, found, where, states, one, at)
    made.labels = {
        kind: Counter({label: count for label, count in states.counted() if label and states.kind(label) is kind})
        for kind in (Kind.FAILED, Kind.SKIPPED)
    }
    if one.better and np.isfinite(values).any() and not {PROMPT_TOKENS, "task"} & set(axes):
        best, tied = best_of(found, where, one, values)
        made.tied.ravel()[at[tied]] = True
        made.best = int(down[best]), int(across[best])
        sure = range_and_runs(found.result_at(int(where[best])), one)
        made.best_text = fields.best_text(about, made.best, float(values[best]), sure)
    labels = np.zeros(shape, np.int16)
    labels.ravel()[at] = states.codes + 1
    said = ["", *(states.label(number) for number in range(len(states.words)))]
    return Part(made, one, one.name == default_metric(found.samples[task]), said, labels,
                partial(_results, found, where, states, combination),
                where.astype(np.int32, copy=False), at.astype(np.int32))  # fmt: skip


def _fill(made: Field, found: Columns, where: Any, states: _States, one: Metric, at: Any) -> Any:
    """Put these rows into a field at their places; their values."""
    kinds = np.array([fields.CODES[kind_of(status)] for status, _ in states.words], np.uint8)[states.codes]
    is_measured = kinds == fields.CODES[Kind.MEASURED]
    known = found.numbers[one.name][where] if one.name in found.numbers else np.full(len(where), np.nan)
    values = np.where(is_measured, known, np.nan)
    made.kinds.ravel()[at], made.values.ravel()[at] = kinds, values
    made.flags.ravel()[at] = np.where(is_measured, _flags(found, where, made.about.task, made.about), 0)
    return values


def put_into(part: Part, found: Columns, where: Any, at: Any) -> None:
    """Some rows of a picture have changed; its colours, its best and what is tied with that stay as they are."""
    _fill(part.field, found, where, states_of(found.coded, where), part.metric, at)


@dataclass
class _States:
    """The status and the reason of each row, as numbers of the words they are."""

    words: Sequence[tuple[Status, str]]
    codes: Any

    def label(self, number: int) -> str:
        status, reason = self.words[number]
        is_told = status.is_final and status is not Status.OK
        return failure_label(status, reason) if is_told else ""

    def kind(self, label: str) -> Kind:
        return next(kind_of(status) for n, (status, _) in enumerate(self.words) if self.label(n) == label)

    def counted(self) -> Iterator[tuple[str, int]]:
        counts: Counter[str] = Counter()
        for number, count in enumerate(np.bincount(self.codes, minlength=len(self.words))):
            counts[self.label(number)] += int(count)
        yield from counts.items()


def states_of(coded: Mapping[str, Codes], where: Any) -> _States:
    statuses, reasons = coded["status"], coded["reason"]
    mixed = statuses.codes[where].astype(np.int64) * len(reasons.values) + reasons.codes[where]
    known, codes = compact(mixed)
    words = [
        (Status(str(statuses.words[code // len(reasons.values)])), str(reasons.words[code % len(reasons.values)] or ""))
        for code in known
    ]
    return _States(words, codes)


def progress_of(states: _States) -> Progress:
    counts: Counter[Status] = Counter()
    for (status, _), count in zip(states.words, np.bincount(states.codes, minlength=len(states.words)), strict=True):
        counts[status] += int(count)
    failed = sum(count for status, count in counts.items() if status.is_failure)
    return Progress(counts[Status.OK], failed, counts[Status.SKIPPED], len(states.codes))


def ranked(found: Columns, name: str, where: Any) -> tuple[tuple[Scalar, ...], Any]:
    """The values of a dimension in their order, and each row's place among them; one None where it is not swept."""
    if name not in found.row.dimensions and name not in ("model", "task"):
        return (None,), np.zeros(len(where), np.int64)
    codes, words = found.coded[name].codes[where], found.coded[name].words
    used = sorted((int(code) for code in compact(codes)[0]), key=lambda code: in_order(words[code]))
    ranks = np.zeros(len(words), np.int64)
    ranks[used] = np.arange(len(used))
    return tuple(words[code] for code in used), ranks[codes]


def _flags(found: Columns, where: Any, task: str, about: HeatmapData) -> Any:
    """The bits of the flags; an imported cell was not judged, so it is asked whether it is `unfilled`."""
    known = found.coded["flags"]
    flags = np.array([fields.bits(flag_set(text)) for text in known.words], np.uint16)[known.codes[where]]
    imported = (flags & np.uint16(fields.bits(frozenset({Flag.IMPORTED})))) != 0
    if task == MAIN_TASK and about.prompt_tokens and imported.any():
        batches = found.coded[Y]
        marked = np.array(
            [isinstance(value, int) and is_unfilled(value, about.prompt_tokens) for value in batches.words]
        )
        flags[imported & marked[batches.codes[where]]] |= np.uint16(fields.bits(frozenset({Flag.UNFILLED})))
    return flags


def _prompt_tokens(found: Columns, task: str, where: Any, states: _States) -> int | None:
    told = found.row.spec.get("prompt_tokens")
    if task == MAIN_TASK and isinstance(told, int) and told:
        return told
    is_ok = np.array([status is Status.OK for status, _ in states.words])[states.codes]
    counts = found.numbers["prompt_eval_count"][where][is_ok]
    counts = counts[np.isfinite(counts) & (counts != 0)]
    return round(float(np.median(counts))) if counts.size else None


def _results(found: Columns, where: Any, states: _States, combination: Options) -> Iterator[CellResult]:
    """The rows of one picture, as far as it needs them."""
    coded = {name: (found.coded[name].words, found.coded[name].codes) for name in (X, Y, "model", "task", "flags")}
    flags = [flag_set(text) for text in coded["flags"][0]]
    swept = [name for name in (X, Y) if name in found.row.dimensions]
    others = {name: value for name, value in combination if name in found.row.dimensions}
    for number, code in zip(where.tolist(), states.codes.tolist(), strict=True):
        status, reason = states.words[code]
        at = {name: words[codes[number]] for name, (words, codes) in coded.items() if name != "flags"}
        values = ((name, float(column[number])) for name, column in found.numbers.items())
        yield CellResult(
            key="", coordinates={**others, **{name: at[name] for name in swept}}, model=str(at["model"] or ""),
            task=str(at["task"] or ""), status=status, reason=reason, flags=flags[coded["flags"][1][number]],
            metrics={name: value for name, value in values if value == value},
        )  # fmt: skip


def flag_set(text: Scalar) -> frozenset[Flag]:
    return frozenset(Flag(word) for word in str(text or "").split(",") if word in set(Flag))


def best_of(found: Columns, where: Any, one: Metric, values: Any) -> tuple[int, Any]:
    """The best of these rows, and which of them cannot be told from it: as `stats.best_set` has it."""
    known_flags = found.coded["flags"]
    is_copy = np.array([Flag.REUSED in flag_set(word) for word in known_flags.words], bool)
    if is_copy.any():
        reused = is_copy[known_flags.codes[where]]
        if np.isfinite(values[~reused]).any():
            values = np.where(reused, np.nan, values)
    low, high = values, values
    for lowest, highest in (("_min", "_max"), ("_low", "_high")):
        if one.name + lowest in found.numbers and one.name + highest in found.numbers:
            lows, highs = found.numbers[one.name + lowest][where], found.numbers[one.name + highest][where]
            known = np.isfinite(lows) & np.isfinite(highs)
            low, high = np.where(known, lows, low), np.where(known, highs, high)
    signed = values if one.better >= 0 else -values
    best = int(np.nanargmax(signed))
    looks = found.numbers["looks"][where] if "looks" in found.numbers else np.zeros(len(where))
    confirmed = np.isfinite(values) & (looks >= CONFIRMED_LOOKS)
    if confirmed.any():
        first = int(np.argmax(np.where(confirmed, signed, -np.inf)))
        best = first if low[best] <= high[first] and high[best] >= low[first] else best
    with np.errstate(invalid="ignore"):
        tied = np.isfinite(values) & (low <= high[best]) & (high >= low[best])
    tied[best] = False
    return best, tied
