"""Every number of a database made again, attempt by attempt; see `again` for how. Nothing is kept of what agrees."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from ollama_sweep import tasks
from ollama_sweep.core.cell import Cell, cell_key
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.options import Options
from ollama_sweep.results.numbers import spreads
from ollama_sweep.results.numbers.again import Read, Sources, check
from ollama_sweep.results.numbers.tally import Number, Tally, is_same
from ollama_sweep.store.one_cell import FormerLoad
from ollama_sweep.store.rows import StoredAttempt
from ollama_sweep.tasks.base import Task

if TYPE_CHECKING:
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.verify import Difference

CORRECTED = "a rate without drift: the line through the controls goes on"
CONTROL_RUNS = "the rate of a control measurement: its runs were not kept"


@dataclass(frozen=True)
class Differing:
    """An attempt, a control measurement, or the spreads of a segment, with numbers that are not what they should be."""

    place: Difference
    numbers: tuple[Number, ...]

    def words(self) -> str:
        """One line: the sweep, the cell, the attempt, and what differs."""
        return self.place.words()

    def as_dict(self) -> dict[str, object]:
        numbers = [{"part": one.part, "name": one.name, "stored": one.stored, "made": one.made, "why": one.why}
                   for one in self.numbers]  # fmt: skip
        place = self.place
        return {"sweep": place.sweep, "coordinates": dict(place.coordinates), "cell": place.cell,
                "attempt": place.attempt, "numbers": numbers}  # fmt: skip


@dataclass
class Numbers:
    """Makes the numbers of a database again: walk over `differing`, then ask for the counts."""

    reader: Reader
    read: Read
    attempts: int = 0
    differs: int = 0
    tally: Tally = field(default_factory=Tally)
    _tasks: dict[str, tuple[Task | None, bool]] = field(default_factory=dict)

    def differing(self) -> Iterator[Differing]:
        """Attempts with numbers that differ, then control measurements and spreads; the counts are those of all."""
        for attempt in self.reader.stored_attempts():
            found = check(attempt, self._sources(attempt))
            self.tally.add(found)
            self.attempts += bool(attempt.runs) or any(attempt.numbers.values())
            if found.differing:
                yield self._told(found, self.reader.place_of(attempt.attempt_id, (found.words(),)))
        yield from self._differing_controls()
        yield from self._differing_spreads()
        self.tally.cannot[CORRECTED] += self.reader.corrected_loads()

    def _differing_controls(self) -> Iterator[Differing]:
        from ollama_sweep.store.verify import Difference

        for one in self.reader.stored_controls():
            found, control = Tally(), one.control
            drifts = [control.prompt_eval_rate / base - 1 for base in one.bases]
            made = next((drift for drift in drifts if is_same(drift, control.drift)), next(iter(drifts), None))
            part = f"control at {control.measured_at}"
            found.compare(part, "drift", control.drift, made)
            if one.own_rate is None:
                found.cannot[CONTROL_RUNS] += 1
            else:
                found.compare(part, "prompt_eval_rate", control.prompt_eval_rate, one.own_rate)
            self.tally.add(found)
            if found.differing:
                yield self._told(found, Difference(one.sweep, one.coordinates, "", None, (found.words(),)))

    def _differing_spreads(self) -> Iterator[Differing]:
        from ollama_sweep.store.verify import Difference

        for one in self.reader.stored_spreads():
            found = spreads.check(one)
            self.tally.add(found)
            if found.differing:
                place = Difference(one.sweep, {}, f"spreads of segment {one.segment}", None, (found.words(),))
                yield self._told(found, place)

    def _told(self, found: Tally, place: Difference) -> Differing:
        self.differs += len(found.differing)
        return Differing(place, tuple(found.differing))

    def _sources(self, attempt: StoredAttempt) -> Sources:
        if attempt.task not in self._tasks:
            self._tasks[attempt.task] = _task(attempt.task)
        task, is_ours = self._tasks[attempt.task]
        return Sources(self.read, task, is_ours, _earlier_version(attempt, task), lambda: self._earlier(attempt))

    def _earlier(self, attempt: StoredAttempt) -> list[FormerLoad]:
        return self.reader.former_loads(attempt) if attempt.number > 1 else []

    def as_dict(self) -> dict[str, object]:
        """The counts: `older_rule` by the rule's name, `cannot` by the reason."""
        return {
            "attempts": self.attempts,
            "agrees": self.tally.agrees,
            "older_rule": dict(self.tally.older),
            "cannot": {why: count for why, count in self.tally.cannot.items() if count},
            "differs": self.differs,
        }

    def words(self) -> list[str]:
        """The counts in lines."""
        older, cannot = self.tally.older, self.tally.cannot
        told = [
            (self.tally.agrees, "agree"),
            (older.total(), "were made by an older rule"),
            (cannot.total(), "cannot be made again"),
            (self.differs, "differ"),
        ]
        counts = ", ".join(f"{count} {words}" for count, words in told if count or words == "agree")
        lines = [f"{sum(count for count, _ in told)} numbers of {self.attempts} attempts were made again: {counts}"]
        for found, words in ((older, "by an older rule"), (cannot, "not made again")):
            lines += [f"  {words}: {why}: {count}" for why, count in found.most_common() if count]
        return lines


def _task(name: str) -> tuple[Task | None, bool]:
    """The task of this name, None where it is not here; whether it is one of ours."""
    try:
        task = tasks.load(name)
    except (ConfigError, ImportError, AttributeError):
        return None, False
    return task, name in tasks.own() or getattr(task, "is_prompt_set", False)


def _earlier_version(attempt: StoredAttempt, task: Task | None) -> int | None:
    """The version of its task that an attempt was measured with, where the cell's key says an earlier one than now."""
    now = int(getattr(task, "version", 1))
    if now < 2:
        return None
    try:
        known = attempt.identity
        options, server, task_options = (_options(known[name]) for name in ("options", "server", "task_options"))
    except ValueError:
        return None
    cell = Cell((), known["model"], options, attempt.task, task_options, server)
    for modelfile in ("", known["modelfile"]):
        for version, arm in product(range(1, now), ("", "a", "b")):
            made = cell_key(cell, engine=attempt.engine, model_digest=known["model_digest"], modelfile=modelfile,
                            prompt_hash=known["prompt_hash"], task_version=version, arm=arm)  # fmt: skip
            if made == attempt.key:
                return version
    return None


def _options(text: str) -> Options:
    found: Mapping[str, object] = json.loads(text)
    return tuple(found.items())  # type: ignore[arg-type]  # what a key was made of was single values
