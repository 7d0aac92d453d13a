"""One cell explained: what was asked and used, its attempts and runs, each flag with its rule, and why it was when."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.judge import BUSY_SHARE, NOISY_WIDTH
from ollama_sweep.core.metrics import default_metric, find_metric
from ollama_sweep.core.outcome import FLAG_MEANINGS, RETRIED, CellResult, Flag, Purpose, Status, failure_label
from ollama_sweep.core.stats import range_and_runs, value_of
from ollama_sweep.core.units import format_bytes, format_rate
from ollama_sweep.results.grids import flags_of
from ollama_sweep.results.status import place_words, settled
from ollama_sweep.store.attempts import RUN_COLUMNS
from ollama_sweep.store.loads.further import WAITING, Made
from ollama_sweep.store.loads.stored import gives_value
from ollama_sweep.store.memory.pruning import LOADS
from ollama_sweep.store.scans import FITS, OOM, ScannedLoad, combination_of

if TYPE_CHECKING:
    from ollama_sweep.core.options import Scalar
    from ollama_sweep.core.outcome import Effective, Run, Series
    from ollama_sweep.store.one_cell import Control, Place
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import AttemptRow, PlannedCell, SweepRow

_KEY = re.compile(r"(c\d+:)?[0-9a-f]{4,32}")
_HOW = "name it by NAME=VALUE …, by four or more letters of its key, or by its position"
_SHOWN = 8
_DIGITS = 18
"""SQLite's whole numbers have at least so many."""


@dataclass(frozen=True)
class ExplainedFlag:
    """A flag, the rule behind it, and what it goes by here ("" where the rule says all)."""

    flag: Flag
    rule: str
    here: str


@dataclass(frozen=True)
class ExplainedAttempt:
    """An attempt with why it was made, its runs, what the engine printed by part, and what sensors said meanwhile."""

    attempt: AttemptRow
    why: str
    runs: tuple[Run, ...]
    raw: Mapping[str, str]
    telemetry: Series | None = None


@dataclass(frozen=True)
class Verdict:
    """What loads say of a num_ctx and num_batch. `result` is FITS, SPILLED, OOM or another failure.

    `load` is the one that says it: of this very place, or (`is_own` is false) of one that needs more, or less.
    """

    result: str
    load: ScannedLoad
    is_own: bool

    def words(self) -> str:
        """`fits, as num_ctx 8192 with num_batch 512 did`."""
        used = self.load.effective
        sizes = [format_bytes(used.size_bytes)] if self.is_own and used.size_bytes else []
        sizes += [f"{format_bytes(used.size_vram_bytes)} of it on the GPU"] if sizes and used.size_vram_bytes else []
        result = f"{self.result} ({self.load.reason})" if self.is_own and self.load.reason else self.result
        other = [] if self.is_own else [f"as {place_words(self.load)} {'was' if self.result == OOM else 'did'}"]
        return ", ".join([result, *sizes, *other])

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        return {"result": self.result, "own": self.is_own, "load": self.load.as_dict()}


@dataclass(frozen=True)
class Explained:
    """All that is known of a cell of a sweep; `total` counts the places of its plan; `scan`: what a scan says."""

    sweep: str
    engine: str
    total: int
    place: Place
    planned: PlannedCell
    result: CellResult
    flags: tuple[ExplainedFlag, ...]
    attempts: tuple[ExplainedAttempt, ...]
    controls: tuple[Control, ...]
    waiting: tuple[Made, ...]
    surroundings: Mapping[int, Mapping[str, object]]
    witness: Place | None = None
    """The cell because of which this one is left out, or probed."""
    is_last: bool = False
    """It comes last, because what is no larger ran out of memory here before."""
    scan: Verdict | None = None
    original: Place | None = None
    """The cell that was measured in its place; the attempts are then that one's."""

    @property
    def is_left_out(self) -> bool:
        """The cell is not measured because of its witness."""
        return self.result.status is Status.SKIPPED and self.witness is not None

    @property
    def last(self) -> ExplainedAttempt | None:
        """The attempt that the cell's value and flags come from: the last one that counts."""
        return _last(self.attempts)

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        cell = self.planned.cell
        return {
            "sweep": self.sweep, "engine": self.engine, "position": self.place.position, "cells": self.total,
            "cell": self.place.key, "coordinates": dict(self.place.coordinates), "model": cell.model,
            "model_digest": self.planned.model_digest, "task": cell.task, "prompt_hash": self.planned.prompt_hash,
            "options": dict(cell.options), "server": dict(cell.server), "task_options": dict(cell.task_options),
            "result": dict(self.result.row), "flags": [asdict(flag) for flag in self.flags],
            "attempts": [_attempt_dict(one) for one in self.attempts],
            "waiting_loads": [asdict(load) for load in self.waiting],
            "controls": [asdict(control) for control in self.controls],
            "scan": self.scan.as_dict() if self.scan else None,
            "reused_from": self.original.key if self.original else None,
            "segments": {str(number): dict(found) for number, found in self.surroundings.items()},
            "left_out_by": dict(self.witness.coordinates) if self.witness and self.is_left_out else None,
        }  # fmt: skip


def _last(attempts: Sequence[ExplainedAttempt]) -> ExplainedAttempt | None:
    return next((one for one in reversed(attempts) if gives_value(one.attempt.purpose, one.attempt.status)), None)


def _attempt_dict(one: ExplainedAttempt) -> dict[str, object]:
    rest = dict(one.raw)
    runs = [{"part": run.part, **_run_dict(run), "raw": rest.pop(run.part, "")} for run in one.runs]
    return {
        **asdict(one.attempt), "flags": sorted(one.attempt.flags), "why": one.why, "runs": runs, "raw": rest,
        "telemetry": None if one.telemetry is None else asdict(one.telemetry),
    }  # fmt: skip


def _run_dict(run: Run) -> dict[str, object]:
    return {name: getattr(run, name) for name in RUN_COLUMNS}


_TELEMETRY = (
    ("power", ("gpu_power_w",), "W", 1.0), ("processor", ("cpu_power_w",), "W", 1.0),
    ("memory", ("rss_bytes", "used_bytes"), "bytes", 1.0), ("GPU memory", ("gpu_used_bytes",), "bytes", 1.0),
    ("GPU", ("gpu_celsius",), "°C", 1.0),
    ("GPU", ("gpu_busy_share",), "%", 100.0), ("processor", ("cpu_share",), "%", 100.0),
    ("memory pressure", ("pressure_memory_share",), "%", 100.0), ("battery", ("battery_percent",), "%", 1.0),
)  # fmt: skip
"""What is said of telemetry in one line: words, the quantity (the first that is known), unit, and the factor to it."""


def telemetry_words(series: Series) -> str:
    """`power 35 to 71 W, memory 1.2 GiB to 3.4 GiB, …`: the smallest and the largest reading of what is known."""
    found = []
    for words, names, unit, factor in _TELEMETRY:
        line = next((series.lines[name] for name in names if name in series.lines), None)
        if line is not None and (words != "memory pressure" or line.high > 0):
            low, high = (format_bytes(value) if unit == "bytes" else f"{factor * value:.0f}"
                         for value in (line.low, line.high))  # fmt: skip
            extent = f"{low} to {high}" if low != high else low
            found.append(f"{words} {extent}{'' if unit == 'bytes' else f' {unit}'}")
    return ", ".join(found)


def value_words(result: CellResult) -> str:
    """Where the cell stands: its value with range and runs, or how it failed."""
    if result.status is not Status.OK:
        return failure_label(result.status, result.reason)
    about = find_metric(default_metric([result]), [result])
    value = value_of(result, about.name)
    if value is None:
        return "measured"
    extent = range_and_runs(result, about)
    return f"{about.words} {about.with_unit(value)}{f' ({extent})' if extent else ''}"


# --- which cell


def find_place(reader: Reader, sweep: SweepRow, words: Sequence[str]) -> Place:
    """The cell that these words name: `num_ctx=4096 num_batch=64`, the beginning of a key, or a position.

    Raises ConfigError with the nearest that there is, also where several cells are meant.
    """
    if all("=" in word for word in words):
        return _by_coordinates(reader, sweep, _wanted(sweep, words))
    if len(words) > 1:
        raise ConfigError(f"{' '.join(words)!r} names no cell; {_HOW}{_perhaps_a_sweep(reader, words)}", "CELL")
    (word,) = words
    longest = len(str(sum(reader.counts(sweep.sweep_id).values())))
    if word.isdecimal() and (len(word) <= longest or not _KEY.fullmatch(word)):
        return place_at(reader, sweep, word)
    if not _KEY.fullmatch(word):
        raise ConfigError(f"{word!r} names no cell; {_HOW}{_perhaps_a_sweep(reader, words)}", "CELL")
    found = reader.places_of(sweep.sweep_id, word, 2)
    if len({place.key for place in found}) > 1:
        raise ConfigError(f"several keys begin with {word}: {', '.join(place.key for place in found)} …", "CELL")
    if not found:
        raise ConfigError(f"no cell of sweep {sweep.name} has a key that begins with {word}", "CELL")
    return found[0]


def _perhaps_a_sweep(reader: Reader, words: Sequence[str]) -> str:
    named = next((word for word in words if any(word == sweep.name for sweep in reader.sweeps())), None)
    return f". {named} is a sweep: name it with --sweep {named}" if named else ""


def place_at(reader: Reader, sweep: SweepRow, position: str, where: str = "CELL") -> Place:
    """The cell at a position, a whole number, which was asked for at `where`. Raises ConfigError."""
    found = reader.place_at(sweep.sweep_id, int(position)) if len(position) <= _DIGITS else None
    if found is None:
        last = sum(reader.counts(sweep.sweep_id).values()) - 1
        raise ConfigError(f"sweep {sweep.name} has no cell at position {position}; there are 0 to {last}", where)
    return found


def _wanted(sweep: SweepRow, words: Sequence[str]) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for name, value in (_pair(sweep, word) for word in words):
        if wanted.setdefault(name, value) != value:
            raise ConfigError(f"{name} is given twice: {wanted[name]} and {value}", "CELL")
    return wanted


def _pair(sweep: SweepRow, word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    if name not in sweep.dimensions:
        known = ", ".join(sweep.dimensions)
        raise ConfigError(f"{name} is no dimension of sweep {sweep.name}. It has {known}."
                          f"{nearest(name, sweep.dimensions)}", "CELL")  # fmt: skip
    return name, value


def _by_coordinates(reader: Reader, sweep: SweepRow, wanted: Mapping[str, str]) -> Place:
    found, known = [], {name: dict[str, None]() for name in wanted}
    for place in reader.places(sweep.sweep_id):
        for name, values in known.items():
            if name in place.coordinates:
                values[_text(place.coordinates[name])] = None
        if all(_is(place.coordinates.get(name), value) for name, value in wanted.items()):
            found.append(place)
    if not found:
        raise ConfigError(_no_such_cell(sweep, wanted, known), "CELL")
    if len(found) > 1:
        open_ones = [name for name in sweep.dimensions
                     if len({_text(place.coordinates.get(name)) for place in found}) > 1]  # fmt: skip
        said = " ".join(f"{name}={value}" for name, value in wanted.items())
        raise ConfigError(
            f"{said} are {len(found)} cells of sweep {sweep.name}; say also {', '.join(open_ones)}", "CELL"
        )
    return found[0]


def _no_such_cell(sweep: SweepRow, wanted: Mapping[str, str], known: Mapping[str, Mapping[str, None]]) -> str:
    for name, value in wanted.items():
        values = list(known[name])
        if not any(_is(one, value) for one in values):
            shown = ", ".join(values[:_SHOWN]) + (" …" if len(values) > _SHOWN else "")
            return f"sweep {sweep.name} has no {name} {value}; it has {shown}.{nearest(value, values)}"
    said = " ".join(f"{name}={value}" for name, value in wanted.items())
    return f"sweep {sweep.name} has no cell with {said}: it is left out, or was never part of the plan"


def _is(value: Scalar, word: str) -> bool:
    return word in (_text(value), model_label(_text(value)))


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- what is known of it


def explain(reader: Reader, sweep: SweepRow, place: Place) -> Explained:
    """All that the database holds of a cell of a sweep."""
    result = reader.result(sweep.sweep_id, place.position)
    planned = reader.planned(sweep.sweep_id, place.position)
    witness, is_last = reader.witness(sweep.sweep_id, place.position), reader.is_late(sweep.sweep_id, place.position)
    original = reader.original_of(sweep.sweep_id, place.key)
    measured = original or place
    attempts = _attempts(reader, sweep.name, measured, _turn(reader, measured, witness, is_last=is_last))
    last = _last(attempts)
    known = reader.segments()
    return Explained(
        sweep=sweep.name,
        engine=sweep.engine,
        total=sum(reader.counts(sweep.sweep_id).values()),
        place=place,
        planned=planned,
        result=result,
        flags=tuple(_flag(flag, result, planned, last, reader) for flag in sorted(flags_of(result))),
        attempts=tuple(attempts),
        controls=tuple(reader.controls(sweep.sweep_id, place.key)),
        waiting=tuple(load for load in reader.further_loads(place.key) if load.state == WAITING),
        surroundings={number: known[number] for one in attempts
                      if (number := one.attempt.segment) is not None and number in known},
        witness=witness,
        is_last=is_last,
        scan=_scan(reader, sweep, planned),
        original=original,
    )  # fmt: skip


def _turn(reader: Reader, place: Place, witness: Place | None, *, is_last: bool) -> str:
    """Why a cell had its first attempt when it had it."""
    mine = next((one.started_at for one in reader.attempts(place.key)), "")
    if witness is not None and mine:
        failed = [one.finished_at for one in reader.attempts(witness.key) if one.status is Status.OOM]
        if len(failed) >= LOADS and str(failed[LOADS - 1]) <= mine:
            where = ", ".join(f"{name} {value}" for name, value in witness.coordinates.items())
            return f"a probe: {where} leaves out what is at least as large"
    return "its turn in the plan, among what comes last" if is_last else "its turn in the plan"


def _scan(reader: Reader, sweep: SweepRow, planned: PlannedCell) -> Verdict | None:
    cell = planned.cell
    combination = combination_of(cell, planned.model_digest, str(sweep.spec.get("modelfile") or ""))
    return verdict(reader.scanned_loads(sweep.sweep_id), combination, cell.num_ctx, cell.num_batch)


def verdict(loads: Sequence[ScannedLoad], combination: str, num_ctx: int, num_batch: int) -> Verdict | None:
    """What is known of a place: by its own last load, else by the nearest one that decides it; None where none does."""
    found = list(settled(load for load in loads if load.combination == combination))
    own = [load for load in found if (load.num_ctx, load.num_batch) == (num_ctx, num_batch)]
    if own:
        return Verdict(own[-1].result, own[-1], is_own=True)
    fitted = [load for load in found if load.result == FITS and load.num_ctx >= num_ctx and load.num_batch >= num_batch]
    too_much = [load for load in found
                if load.result == OOM and load.num_ctx <= num_ctx and load.num_batch <= num_batch]  # fmt: skip
    nearest = min(fitted or too_much, key=lambda load: abs(load.num_ctx - num_ctx) + abs(load.num_batch - num_batch),
                  default=None)  # fmt: skip
    return None if nearest is None else Verdict(nearest.result, nearest, is_own=False)


def _attempts(reader: Reader, sweep: str, place: Place, turn: str) -> list[ExplainedAttempt]:
    found: list[ExplainedAttempt] = []
    wanted = {load.attempt_id: load for load in reader.further_loads(place.key)}
    for attempt in reader.attempts(place.key):
        before = found[-1].attempt if found else None
        further = attempt.purpose is not None
        why = _why_further(attempt, wanted.get(attempt.attempt_id)) if further else _why(attempt, before, turn)
        if chosen := reader.chosen(attempt.attempt_id):
            first = "" if why == turn else f"{why}; "
            why = f"{first}for the goal {chosen.goal}: {chosen.reason}; then: {chosen.how_far}"
        if attempt.sweep != sweep:
            why += f"; measured by sweep {attempt.sweep}, which shares this cell"
        number = attempt.attempt_id
        if lane := reader.lane_of(number):
            why += f"; measured by lane {lane}"
        found.append(ExplainedAttempt(attempt, why, tuple(reader.runs(number)), reader.raw_outputs(number),
                                      reader.telemetry(number)))  # fmt: skip
    return found


def _why_further(attempt: AttemptRow, wanted: Made | None) -> str:
    """What a load was made for that is not the cell's own."""
    if attempt.purpose is Purpose.CONTROL:
        return "the control cell, loaded anew to see the drift and how far loads differ"
    why = wanted.reason if wanted else "measured again"
    if attempt.purpose is Purpose.SECOND_LOOK:
        return f"second look: {why}; the value is that of the loads from here on"
    return why


def _why(attempt: AttemptRow, before: AttemptRow | None, turn: str) -> str:
    if Flag.IMPORTED in attempt.flags:
        return "taken from an older file"
    if before is None:
        return turn
    if before.status is Status.INTERRUPTED:
        return f"the attempt before was interrupted{f' ({before.reason})' if before.reason else ''}"
    if before.status is Status.DISCARDED:
        return f"the attempt before was discarded{f' ({before.reason})' if before.reason else ''}"
    if before.status is Status.STARTED:
        return "the attempt before never ended"
    if before.status in RETRIED:
        return f"the attempt before ended as {before.status}, which is tried again"
    if before.status is Status.OOM:
        return "asked for again after oom: by --retry, or because a second failure leaves out larger cells (prune)"
    if before.status is not Status.OK:
        return f"asked for again after {before.status}: by --retry, or with a longer time limit"
    if attempt.repeats > before.repeats:
        return f"more runs were asked for, {attempt.repeats} in place of {before.repeats}"
    if attempt.segment != before.segment:
        return "asked for again in other surroundings"
    return "asked for again"


def _flag(
    flag: Flag, result: CellResult, planned: PlannedCell, last: ExplainedAttempt | None, reader: Reader
) -> ExplainedFlag:
    rule = FLAG_MEANINGS[flag]
    if flag is Flag.DISTURBED and last is not None:
        return ExplainedFlag(flag, rule, _of_lanes(reader, last.attempt.sweep))
    return ExplainedFlag(flag, rule, " and ".join(_because(flag, result, planned, last)) if last else "")


def _of_lanes(reader: Reader, sweep: str) -> str:
    """What `doctor --lanes` found of those of the sweep that measured the cell."""
    measured_by = reader.sweep_if_there(sweep)
    found = reader.disturbance(measured_by.sweep_id) if measured_by is not None else None
    return "" if found is None else f"{found.words}, measured on {found.measured_at[:10]}"


def _because(flag: Flag, result: CellResult, planned: PlannedCell, last: ExplainedAttempt) -> Iterator[str]:
    effective, metrics = last.attempt.effective, result.metrics
    if flag is Flag.CLAMPED:
        used: dict[str, float | None] = {"num_ctx": effective.num_ctx, "num_batch": effective.num_batch}
        used["num_parallel"] = metrics.get("effective_num_parallel")
        asked = {**dict(planned.cell.server), **dict(planned.cell.options)}
        for name, value in used.items():
            if value is not None and asked.get(name) and value != asked[name]:
                yield f"asked {name} {asked[name]}, used {value:g}"
    elif flag is Flag.SPILLED and effective.size_bytes is not None:
        yield f"{format_bytes(effective.size_vram_bytes or 0)} of {format_bytes(effective.size_bytes)} are on the GPU"
    elif flag is Flag.UNFILLED and "prompt_eval_count" in metrics:
        yield f"num_batch {planned.cell.num_batch}, prompt of {metrics['prompt_eval_count']:.0f} tokens"
    elif flag is Flag.NOISY and (rate := metrics.get("prompt_eval_rate")):
        low, high = metrics.get("prompt_eval_rate_min", rate), metrics.get("prompt_eval_rate_max", rate)
        width = f"{100 * (high - low) / rate:.0f} %, and the limit is {100 * NOISY_WIDTH:.0f} %"
        yield f"{format_rate(low)} to {format_rate(high)} around {format_rate(rate)}: {width}"
    elif flag is Flag.CACHED:
        cached = [run for run in last.runs if run.doubt == "cached" and not run.warmup]
        for run in cached[:1]:
            yield f"{len(cached)} runs; {run.part} had {run.cached_count} of {run.prompt_eval_count} tokens cached"
    else:
        yield from _of_surroundings(flag, effective, metrics)


def _of_surroundings(flag: Flag, effective: Effective, metrics: Mapping[str, float]) -> Iterator[str]:
    """What the machine and others on it did meanwhile."""
    if flag is Flag.SHARED_GPU and effective.others_loaded:
        yield f"beside it: {', '.join(effective.others_loaded)}"
    if flag is Flag.SHARED_GPU and metrics.get("gpu_shared_s"):
        yield f"another program computed on the GPU for {metrics['gpu_shared_s']:.1f} s"
    if flag is Flag.BUSY and "others_cpu_share" in metrics:
        yield f"{100 * metrics['others_cpu_share']:.0f} %, and the limit is {100 * BUSY_SHARE:.0f} %"
    if flag is Flag.THROTTLED and "throttled_s" in metrics:
        yield f"for {metrics['throttled_s']:.1f} s"
