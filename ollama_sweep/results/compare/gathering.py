"""What the loads of both sides say of each cell, and how far runs and loads differ. One place gathers them."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ollama_sweep.core.metrics import Kind, Metric
from ollama_sweep.core.noise.spread import Load, Spreads, load_of, spreads_of
from ollama_sweep.core.stats import median
from ollama_sweep.results.compare import rule, turns
from ollama_sweep.results.compare.matching import Key, load_of_key
from ollama_sweep.results.compare.rule import Answered, Change, Measured, Noise
from ollama_sweep.results.compare.sides import Side
from ollama_sweep.results.compare.turns import Timed, Turns
from ollama_sweep.store.loads.compared import LoadRow, PlanCell

Pairs = Mapping[Key, tuple[PlanCell, PlanCell]]
Places = Mapping[int, Key | None]
"""The cells of a side and task by their position; None for one that the other side does not have."""


@dataclass
class Gathered:
    """The changes of the cells that both sides have a value of, all together, and the noise they are judged by.

    `values` of A and of B are in the metric's unit, `rests_on` are their runs and loads. `needs_loads` is False for
    scores, whose error is that of the questions. `times` is when each side's loads began, the first and the last.
    """

    noise: Noise = field(default_factory=Noise)
    changes: dict[Key, Change] = field(default_factory=dict)
    values: tuple[dict[Key, float], dict[Key, float]] = field(default_factory=lambda: ({}, {}))
    rests_on: tuple[dict[Key, tuple[int, int]], dict[Key, tuple[int, int]]] = field(default_factory=lambda: ({}, {}))
    over_all: Change | None = None
    turns: Turns = field(default_factory=Turns)
    needs_loads: bool = True
    times: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))

    @property
    def missing(self) -> int:
        """Loads that are needed before anything can be told."""
        return self.noise.missing if self.needs_loads else 0

    @property
    def in_turns(self) -> bool:
        """Both were measured in the same time, so that what the machine did meanwhile met both."""
        a, b = self.times
        return bool(a and b) and max(a[0], b[0]) < min(a[1], b[1])


def is_score(metric: Metric) -> bool:
    """A mean over questions, whose error is that of the questions and not that of loads."""
    return metric.kind in (Kind.MEAN, Kind.SHARE, Kind.COUNT) and not metric.unit


@dataclass(frozen=True)
class Wanted:
    """The cells that are to be judged: `sure` ones, and `noisy` ones only where all runs are like theirs."""

    sure: Container[Key]
    noisy: Container[Key] = ()

    def has(self, key: Key, a: Measured, b: Measured, noise: Noise) -> bool:
        """Whether the cell, which came to `a` and `b`, is one of them."""
        if key in self.sure:
            return True
        return key in self.noisy and rule.is_usual(a, noise.a) and rule.is_usual(b, noise.b)


def gather(sides: tuple[Side, Side], places: tuple[Places, Places], wanted: Wanted, metric: Metric) -> Gathered:
    """What both sides say of the cells at these places; those that are not wanted still tell of the noise."""
    found = Gathered()
    if is_score(metric):
        _scores(found, sides, places, wanted, metric)
    elif _has_questions(sides[0], places[0], metric):
        _answers(found, sides, places, wanted, metric)
    else:
        _runs(found, sides, places, wanted, metric)
    return found


def places_of(pairs: Pairs, number: int, others: Iterable[PlanCell]) -> Places:
    """Those of the cells that both sides have, and of others that only this one has."""
    return {**dict.fromkeys(cell.position for cell in others),
            **{cells[number].position: key for key, cells in pairs.items()}}  # fmt: skip


def _loads_of(
    side: Side, places: Places, metric: Metric, times: list[str]
) -> Iterator[tuple[Key | None, list[LoadRow]]]:
    """The loads of a side, cell by cell: those that `Reader.loads` lets stand beside one another."""
    for position, rows in side.reader.loads(side.sweep.sweep_id, side.segment_id, metric.name, side.positions):
        if position in places:
            for row in rows:
                times[:] = [min([row.started_at, *times]), max([row.started_at, *times])]
            yield places[position], rows


def _has_questions(side: Side, places: Places, metric: Metric) -> bool:
    _, rows = next(_loads_of(side, places, metric, []), (None, []))
    return any(row.items[0] for row in rows)


def _above_zero(rows: Sequence[LoadRow]) -> list[Load]:
    """A ratio needs values above zero."""
    kept = [tuple(value for value in row.values if value > 0) for row in rows]
    return [load_of(values) for values in kept if values]


# -- runs of one prompt ------------------------------------------------------------------------------------------------


def _runs(
    found: Gathered, sides: tuple[Side, Side], places: tuple[Places, Places], wanted: Wanted, metric: Metric
) -> None:
    """Cells whose runs are the same thing again; of each only what it comes to is kept."""
    measured: list[dict[Key, Measured]] = []
    spreads: list[Spreads] = []
    pair = turns.pair_of(*sides)
    kept: tuple[dict[Key, list[Timed]], dict[Key, list[Timed]]] = ({}, {})
    for number, side in enumerate(sides):
        of_side: dict[Key, Measured] = {}
        measured.append(of_side)
        into = kept[number] if pair else None
        spreads.append(spreads_of(_noted(side, places[number], metric, of_side, found.times[number], into)))
    found.noise = rule.noise_of(*spreads)
    found.turns = turns.turns_of(pair, *kept)
    _judgeable(found, measured[0], measured[1], wanted)


def _noted(
    side: Side,
    places: Places,
    metric: Metric,
    measured: dict[Key, Measured],
    times: list[str],
    kept: dict[Key, list[Timed]] | None,
) -> Iterator[list[Load]]:
    """The loads that tell how far loads differ; of a pair each is `kept` with its time."""
    for key, rows in _loads_of(side, places, metric, times):
        own = _above_zero([row for row in rows if row.is_value])
        if key is not None and own:
            measured[key] = rule.measured(own)
        if key is not None and kept is not None:
            kept[key] = [turns.timed(row, load) for row in rows for load in _above_zero([row])]
        for choice in sorted({row.choice for row in rows}):
            yield _above_zero([row for row in rows if row.choice == choice])


def _judgeable(found: Gathered, a: Mapping[Key, Measured], b: Mapping[Key, Measured], wanted: Wanted) -> None:
    """Make changes of what both sides have and is wanted; values are shown of all."""
    for side, of_side in enumerate((a, b)):
        for key, one in of_side.items():
            found.values[side].setdefault(key, math.exp(one.log_value))
            found.rests_on[side].setdefault(key, (one.runs, one.loads))
    both = [(key, one, b[key]) for key, one in a.items() if key in b and wanted.has(key, one, b[key], found.noise)]
    for key, of_a, of_b in both:
        found.changes[key] = found.turns.changes.get(key) or rule.change(of_a, of_b, found.noise)
    loads = [load_of_key(key) for key, _, _ in both]
    found.over_all = found.turns.over_all([found.changes[key] for key, _, _ in both], loads) or rule.change_over_all(
        [(of_a, of_b) for _, of_a, of_b in both], found.noise, loads
    )


# -- answers to questions ----------------------------------------------------------------------------------------------


def _kept(
    found: Gathered, sides: tuple[Side, Side], places: tuple[Places, Places], metric: Metric
) -> list[dict[Key, list[LoadRow]]]:
    """The loads of questions that are their cells' values; a control asks none."""
    return [
        {
            key: own
            for key, rows in _loads_of(side, places[number], metric, found.times[number])
            if key is not None and (own := [row for row in rows if row.is_value])
        }
        for number, side in enumerate(sides)
    ]


def _answers(
    found: Gathered, sides: tuple[Side, Side], places: tuple[Places, Places], wanted: Wanted, metric: Metric
) -> None:
    """Speeds of answers: by question where both sides asked it, so that short and long answers are no noise."""
    kept = _kept(found, sides, places, metric)
    loads: list[dict[Key, list[Load]]] = [{}, {}]
    free, counted = 0, 0
    for key in [key for key in kept[0] if key in kept[1]]:
        rows = [side[key] for side in kept]
        paired = rule.paired_by_question(*map(_by_question, rows))
        own = paired or tuple(map(_above_zero, rows))
        if not all(own):
            continue
        for number in (0, 1):
            loads[number][key] = own[number]
            found.values[number][key] = _middle(rows[number])
            found.rests_on[number][key] = sum(len(row.values) for row in rows[number]), len(rows[number])
        every = [*own[0], *own[1]]
        counted += sum(load.runs - 1 for load in every)
        free += sum(load.runs - 1 for load in (every[1:] if paired else every))
    share = free / counted if counted else 1.0
    spreads = [spreads_of(side.values()) for side in loads]
    spreads = [replace(one, runs=replace(one.runs, df=round(one.runs.df * share))) for one in spreads]
    found.noise = rule.noise_of(*spreads)
    measured = [{key: rule.measured(own) for key, own in side.items()} for side in loads]
    _judgeable(found, measured[0], measured[1], wanted)


def _by_question(rows: Sequence[LoadRow]) -> list[Answered]:
    kept = [
        tuple((item, value) for item, value in zip(row.items, row.values, strict=True) if value > 0) for row in rows
    ]
    return [Answered(values) for values in kept if values]


def _middle(rows: Sequence[LoadRow]) -> float:
    """What is shown: the median of all values, as the cell has it."""
    return median([value for row in rows for value in row.values])


def _scores(
    found: Gathered, sides: tuple[Side, Side], places: tuple[Places, Places], wanted: Wanted, metric: Metric
) -> None:
    """Means over questions, by those that both sides were asked."""
    found.needs_loads = False
    kept = _kept(found, sides, places, metric)
    for key in [key for key in kept[0] if key in kept[1]]:
        means = [_means(side[key]) for side in kept]
        common = means[0].keys() & means[1].keys()
        if not common:
            continue
        of_sides = [sum(side[name] for name in common) / len(common) for side in means]
        for number in (0, 1):
            found.values[number][key] = of_sides[number]
            found.rests_on[number][key] = len(common), len(kept[number][key])
        if key in wanted.sure and min(of_sides) > 0:
            found.changes[key] = rule.change_of_scores(*means) or Change(math.log(of_sides[1] / of_sides[0]))
    found.over_all = rule.mean_of_changes(list(found.changes.values()))


def _means(rows: Sequence[LoadRow]) -> dict[str, float]:
    """Each question with the mean of its values over all loads."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for item, value in zip(row.items, row.values, strict=True):
            found.setdefault(item, []).append(value)
    return {item: sum(values) / len(values) for item, values in found.items()}
