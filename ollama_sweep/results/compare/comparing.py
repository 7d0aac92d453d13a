"""`compare`: what became of each cell from A to B and of all together, and what that is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.metrics import Metric, default_metric, find_metric
from ollama_sweep.core.metrics import metric as metric_named
from ollama_sweep.core.noise.spread import Spread
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import CellResult, Flag, Status
from ollama_sweep.results.compare import gathering, rule
from ollama_sweep.results.compare.matching import ALLOWED, Key, Matched, coordinates_of, matched
from ollama_sweep.results.compare.rule import Change, Judged, Limits, Noise, Verdict
from ollama_sweep.results.compare.sides import Side, find_sides
from ollama_sweep.results.compare.turns import Turns, pair_of
from ollama_sweep.store.beside import DEFAULT_DB
from ollama_sweep.store.loads.compared import PlanCell

THRESHOLD = 0.05
_WHAT_IT_IS = frozenset({Flag.SPILLED, Flag.CLAMPED, Flag.UNFILLED, Flag.DISTURBED})
"""Flags that say what a cell is; those of both sides must agree. Every other flag says that its number is in doubt."""
_LOOKED_AT = 200
FLAGGED, FAILED, PENDING, NO_VALUE, SHARED = "flagged", "failed", "not measured", "no value", "the same measurement"
"""Why a cell is in no verdict."""


@dataclass(frozen=True, slots=True)
class ComparedCell:
    """A cell of both sides; each pair is (A, B). `rests_on` is (runs, loads) of each.

    `left_out` says why it is in no verdict, "" where it is in one. `judged` None: nothing can be said at all.
    """

    coordinates: Mapping[str, Scalar]
    task: str
    models: tuple[str, str]
    statuses: tuple[Status, Status]
    flags: tuple[frozenset[Flag], frozenset[Flag]]
    values: tuple[float | None, float | None]
    rests_on: tuple[tuple[int, int], tuple[int, int]]
    change: Change | None
    judged: Judged | None
    left_out: str = ""


@dataclass(frozen=True)
class Part:
    """A task's cells by one metric.

    `missing` loads are needed before anything can be told. `in_turns`: both sides were measured in the same time.
    """

    task: str
    metric: Metric
    noise: Noise
    needs_loads: bool
    missing: int
    in_turns: bool
    cells: tuple[ComparedCell, ...]
    over_all: Judged | None
    change: Change | None
    turns: Turns = field(default_factory=Turns)
    """What turns say, where both are the arms of a pair."""

    @property
    def is_speed(self) -> bool:
        """It is slower or faster; else worse or better."""
        return self.metric.unit == "s" or "/" in self.metric.unit

    def word(self, verdict: Verdict) -> str:
        """The verdict as it is said of this metric."""
        return verdict if self.is_speed else {Verdict.SLOWER: "worse", Verdict.FASTER: "better"}.get(verdict, verdict)

    def counts(self) -> dict[Verdict, int]:
        """How many cells have each verdict, in the order of the words."""
        found = Counter(cell.judged.verdict for cell in self.cells if cell.judged and not cell.left_out)
        return {verdict: found[verdict] for verdict in Verdict if found[verdict] or verdict in _ALWAYS_SAID}

    def left_out(self) -> dict[str, int]:
        """How many cells are in no verdict, and why."""
        return dict(Counter(cell.left_out for cell in self.cells if cell.left_out))

    def at(self, threshold: float) -> tuple[list[Judged], Judged | None]:
        """The verdicts of its cells and over all, by another threshold."""
        limits = Limits(threshold, self.metric.better)
        changes = [cell.change for cell in self.cells if _is_measured(cell) and cell.change]
        of_status = [cell.judged for cell in self.cells if cell.judged and not cell.left_out and not _is_measured(cell)]
        judged = rule.judge(changes, limits, missing=self.missing)
        return [*judged, *of_status], rule.judge_one(self.change, limits, missing=self.missing)

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        return {
            "task": self.task, "metric": self.metric.name, "unit": self.metric.unit, "better": self.metric.better,
            "spreads": {side: _spreads_dict(self, number) for number, side in enumerate("ab")},
            "loads_known": not self.needs_loads or self.noise.is_known, "in_turns": self.in_turns,
            "turns": _turns_dict(self.turns),
            "over_all": _judged_dict(self, self.over_all) | {"cells": sum(map(_is_measured, self.cells))},
            "counts": {self.word(verdict): count for verdict, count in self.counts().items()},
            "left_out": self.left_out(), "cells": [_cell_dict(self, cell) for cell in self.cells],
        }  # fmt: skip


_ALWAYS_SAID = (Verdict.SLOWER, Verdict.FASTER, Verdict.SAME, Verdict.CANNOT_TELL)


def _is_measured(cell: ComparedCell) -> bool:
    """Its verdict is that of its values."""
    return not cell.left_out and cell.judged is not None and cell.judged.verdict in _ALWAYS_SAID


@dataclass(frozen=True)
class Comparison:
    """A against B. `only_a` and `only_b` count the cells that one side has; `notes` is what a person should know."""

    a: Side
    b: Side
    threshold: float
    parts: tuple[Part, ...]
    only_a: int
    only_b: int
    notes: tuple[str, ...]
    dimensions: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it in words and a table."""
        from ollama_sweep.results.compare.telling import text

        return text(self)

    def slower(self, threshold: float | None = None) -> int:
        """How many cells are slower beyond noise, or ran out of memory or spilled, and wholes that are slower."""
        return sum(one.verdict.is_worse for part in self.parts for one in _all_judged(part, threshold, self.threshold))

    def untold(self, threshold: float | None = None) -> int:
        """Of how many cells and wholes it cannot be told whether they are slower; 1 where nothing is compared."""
        judged = [one for part in self.parts for one in _all_judged(part, threshold, self.threshold)]
        return sum(one.may_be_slower and not one.verdict.is_worse for one in judged) if judged else 1

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        return {
            "a": self.a.as_dict(), "b": self.b.as_dict(), "threshold": self.threshold,
            "parts": [part.as_dict() for part in self.parts], "only_a": self.only_a, "only_b": self.only_b,
            "notes": list(self.notes), "pair": pair_of(self.a, self.b) or None,
        }  # fmt: skip


def _all_judged(part: Part, threshold: float | None, own: float) -> list[Judged]:
    cells, whole = part.at(own if threshold is None else threshold)
    return [*cells, *([whole] if whole else [])]


def compare(
    a: str,
    b: str,
    *,
    db: Path | str = DEFAULT_DB,
    metric: str | None = None,
    threshold: float = THRESHOLD,
    allow: Iterable[str] = (),
    only: tuple[Sequence[int] | None, Sequence[int] | None] = (None, None),
) -> Comparison:
    """Compare two sweeps: each a database, a sweep file, a sweep's name in `db`, or FILE:NAME, with @N for a segment.

    `threshold` is a share: 0.05. `allow` names what may differ: model, prompt, task, engine. `only` are the positions
    in the plans of A and of B that are compared, and tell of the noise; None for all. Nothing is written. Raises
    ConfigError, DatabaseInUse, StorageError.
    """
    allowed = check_allowed(allow)
    if not 0 <= threshold < 1:
        raise ConfigError(f"{threshold:g} is no share from 0 to below 1", "threshold")
    with ExitStack() as opened:
        found = find_sides(str(a), str(b), Path(db), opened)
        sides = replace(found[0], positions=only[0]), replace(found[1], positions=only[1])
        both = matched(*sides, allowed)
        parts = tuple(_parts(*sides, both, metric, threshold))
        notes = (*_notes(*sides, parts), *both.notes)
        return Comparison(*sides, threshold, parts, len(both.only_a), len(both.only_b), notes, both.dimensions)


def check_allowed(allow: Iterable[str]) -> frozenset[str]:
    """The words of `allow`. Raises ConfigError with the nearest one."""
    for word in (found := frozenset(allow)):
        if word not in ALLOWED:
            known = f"{', '.join(ALLOWED)}.{nearest(word, ALLOWED)}"
            raise ConfigError(f"{word or 'nothing'} cannot be allowed. Known: {known}", "allow")
    return found


# -- parts -------------------------------------------------------------------------------------------------------------


def _parts(a: Side, b: Side, both: Matched, asked: str | None, threshold: float) -> Iterator[Part]:
    tasks: dict[str, dict[Key, tuple[PlanCell, PlanCell]]] = {}
    for key, cells in both.pairs.items():
        tasks.setdefault(cells[0].task, {})[key] = cells
    looked_at = {task: _some(a, b, cells) for task, cells in tasks.items()}
    everything = [result for results in looked_at.values() for result in results]
    if asked is not None:
        find_metric(asked, everything)
    for task, pairs in tasks.items():
        name = asked or default_metric(looked_at[task])
        if asked and len(tasks) > 1 and not any(asked in result.metrics for result in looked_at[task]):
            continue
        others = [[cell for cell in only if cell.task == task] for only in (both.only_a, both.only_b)]
        places = (gathering.places_of(pairs, 0, others[0]), gathering.places_of(pairs, 1, others[1]))
        yield _part((a, b), task, pairs, places, _with_direction(metric_named(name)), threshold)


def _some(a: Side, b: Side, cells: Mapping[Key, tuple[PlanCell, PlanCell]]) -> list[CellResult]:
    """Results of both sides from which it can be seen what a task measures."""
    first = next(iter(cells.values()))
    return [
        result
        for side, cell in zip((a, b), first, strict=True)
        for result in side.reader.some_results(side.sweep.sweep_id, cell.task, _LOOKED_AT)
    ]


def _with_direction(metric: Metric) -> Metric:
    if not metric.better:
        why = (
            "neither more nor less of it is better"
            if metric.is_declared
            else "nobody says whether more of it is better"
        )
        raise ConfigError(f"{metric.name} cannot be compared: {why}", "metric")
    return metric


def _part(
    sides: tuple[Side, Side],
    task: str,
    pairs: gathering.Pairs,
    places: tuple[gathering.Places, gathering.Places],
    metric: Metric,
    threshold: float,
) -> Part:
    is_same_file = sides[0].reader is sides[1].reader
    left_out = {key: why for key, cells in pairs.items() if (why := _left_out(*cells, is_same_file=is_same_file))}
    measured = {key for key in pairs if _of_status(*pairs[key]) is None}
    noisy = {key for key in measured if left_out.get(key) == FLAGGED and _is_only_noisy(*pairs[key])}
    found = gathering.gather(sides, places, gathering.Wanted(measured - left_out.keys(), noisy), metric)
    left_out = {key: why for key, why in left_out.items() if key not in noisy or key not in found.changes}
    limits, order = Limits(threshold, metric.better), list(found.changes)
    judged = dict(zip(order, rule.judge(list(found.changes.values()), limits, missing=found.missing), strict=True))
    return Part(
        task=task, metric=metric, noise=found.noise, needs_loads=found.needs_loads, missing=found.missing,
        in_turns=found.in_turns,
        cells=tuple(_cell(key, cells, found, judged, left_out) for key, cells in pairs.items()),
        over_all=rule.judge_one(found.over_all, limits, missing=found.missing), change=found.over_all,
        turns=found.turns,
    )  # fmt: skip


def _left_out(a: PlanCell, b: PlanCell, *, is_same_file: bool) -> str:
    """Why a cell is in no verdict."""
    if not (a.status.counts and b.status.counts):
        return PENDING
    if is_same_file and a.attempt_id is not None and a.attempt_id == b.attempt_id:
        return SHARED
    if (a.flags | b.flags) - _WHAT_IT_IS or (a.flags ^ b.flags) - {Flag.SPILLED}:
        return FLAGGED
    if _of_status(a, b) is None and not a.status is b.status is Status.OK:
        return FAILED
    return ""


def _is_only_noisy(a: PlanCell, b: PlanCell) -> bool:
    """Nothing else is wrong with either."""
    without = [replace(cell, flags=cell.flags - {Flag.NOISY}) for cell in (a, b)]
    return not _left_out(*without, is_same_file=False)


def _of_status(a: PlanCell, b: PlanCell) -> Verdict | None:
    """The verdict of a cell whose memory did not hold any more, or does now."""
    if (a.status, b.status) == (Status.OK, Status.OOM):
        return Verdict.TO_OOM
    if (a.status, b.status) == (Status.OOM, Status.OK):
        return Verdict.FROM_OOM
    if a.status is b.status is Status.OK and (Flag.SPILLED in a.flags) != (Flag.SPILLED in b.flags):
        return Verdict.TO_SPILLED if Flag.SPILLED in b.flags else Verdict.FROM_SPILLED
    return None


def _cell(
    key: Key,
    cells: tuple[PlanCell, PlanCell],
    found: gathering.Gathered,
    judged: Mapping[Key, Judged],
    left_out: Mapping[Key, str],
) -> ComparedCell:
    a, b = cells
    why, values = left_out.get(key, ""), (found.values[0].get(key), found.values[1].get(key))
    verdict = None if why else _of_status(a, b)
    ratio = values[1] / values[0] if values[0] and values[1] else None
    result = Judged(ratio, None, None, None, verdict) if verdict else judged.get(key)
    return ComparedCell(
        coordinates=coordinates_of(key), task=a.task, models=(a.model, b.model), statuses=(a.status, b.status),
        flags=(a.flags, b.flags), values=values,
        rests_on=(found.rests_on[0].get(key, (0, 0)), found.rests_on[1].get(key, (0, 0))),
        change=found.changes.get(key), judged=result,
        left_out=why or ("" if result else NO_VALUE),
    )  # fmt: skip


# -- what a person should know -----------------------------------------------------------------------------------------


def _notes(a: Side, b: Side, parts: Sequence[Part]) -> Iterator[str]:
    for letter, side in (("A", a), ("B", b)):
        if side.is_last:
            file = side.reader.path
            yield f"{letter} is the sweep of {file} that ran last; {file}:NAME names another one"
        if side.segment is None and side.segments > 1:
            yield (f"{letter} was measured in {side.segments} segments; {side.name}@1 to {side.name}@{side.segments} "
                   "are each of them")  # fmt: skip
    if a.sweep.machine != b.sweep.machine:
        yield (f"A and B are of different machines ({a.sweep.machine or 'unknown'}; {b.sweep.machine or 'unknown'}): "
               "this compares machines")  # fmt: skip
    if changed := surroundings(a, b):
        yield f"the surroundings differ: {', '.join(changed)}"
    if any(part.noise.is_shared and part.noise.is_known for part in parts):
        yield "one side has too few loads of its own, so the loads of both speak for both"
    if pair := pair_of(a, b):
        yield from _turns_notes(pair, parts)
    elif any(part.needs_loads and part.change and not part.in_turns for part in parts):
        yield ("A and B were measured one after the other: what all cells have in common may be the machine's drift, "
               "which only turns taken side by side can tell apart")  # fmt: skip


def _turns_notes(pair: str, parts: Sequence[Part]) -> Iterator[str]:
    alone = sum(part.turns.alone for part in parts)
    known = [part.turns for part in parts if part.turns.turns]
    if known or any(part.in_turns for part in parts):
        yield (
            f"A and B are the pair {pair}, measured in turns, A B B A: what the machine did meanwhile met both, so a "
            "change is what differs between them and not the time they were measured at"
        )
    if alone and known:
        loads = f"{alone} load{'s' if alone != 1 else ''}"
        yield f"{loads} had none of the other arm beside it (a second look, a retry, or a run that went on later)"
    if known and not any(turns.are_known for turns in known):
        yield "what turns differ by is not known, because too few cells had several: each arm is judged by its loads"


def surroundings(a: Side, b: Side) -> list[str]:
    """`engine_version 0.33.0 -> 0.34.0`, for each that differs and is known of both."""
    names = sorted(a.surroundings.keys() & b.surroundings.keys())
    return [f"{name} {a.surroundings[name]} -> {b.surroundings[name]}" for name in names
            if a.surroundings[name] != b.surroundings[name]]  # fmt: skip


# -- for machines ------------------------------------------------------------------------------------------------------


def _spreads_dict(part: Part, number: int) -> dict[str, object]:
    if not part.needs_loads:
        return {"runs": None, "runs_df": 0, "loads": None, "loads_df": 0}
    spreads = (part.noise.a, part.noise.b)[number]
    return {**_spread_dict("runs", spreads.runs), **_spread_dict("loads", spreads.loads)}


def _turns_dict(turns: Turns) -> dict[str, object] | None:
    """None for two sweeps that are no pair."""
    if not turns.pair:
        return None
    return {
        "pair": turns.pair, "turns": turns.turns, "alone": turns.alone, "cells": len(turns.changes),
        "spread": turns.spread.sigma if turns.spread.df else None, "df": turns.spread.df,
    }  # fmt: skip


def _spread_dict(name: str, spread: Spread) -> dict[str, object]:
    return {name: spread.sigma if spread.df else None, f"{name}_df": spread.df}


def _judged_dict(part: Part, judged: Judged | None) -> dict[str, object]:
    if judged is None:
        return {"ratio": None, "low": None, "high": None, "p": None, "verdict": None, "more_loads": None}
    return {
        "ratio": judged.ratio, "low": judged.low, "high": judged.high, "p": judged.p,
        "verdict": part.word(judged.verdict), "more_loads": judged.more_loads,
    }  # fmt: skip


def _cell_dict(part: Part, cell: ComparedCell) -> dict[str, object]:
    sides = {
        side: {
            "model": cell.models[n], "status": str(cell.statuses[n]), "flags": sorted(cell.flags[n]),
            "value": cell.values[n], "runs": cell.rests_on[n][0], "loads": cell.rests_on[n][1],
        }
        for n, side in enumerate("ab")
    }  # fmt: skip
    judged = _judged_dict(part, cell.judged)
    if cell.left_out:
        judged["verdict"] = None
    return {"coordinates": dict(cell.coordinates), "task": cell.task, **sides, **judged, "left_out": cell.left_out}
