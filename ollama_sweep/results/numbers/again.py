"""Makes the numbers of one attempt again: of its runs by the engine's reader and the formulas, of the attempt by its
task and the rules of a summary.

Each number is made of the last one that was made: the counts of what the engine said, the rates of these counts, the
medians of these rates. So what differs is named where it begins. Times of a clock here and readings of sensors come of
no formula and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from ollama_sweep.core import judge, metrics, summary
from ollama_sweep.core.errors import CellFailed, ConfigError
from ollama_sweep.core.generation import EMBED, GENERATE, Generation, Vectors
from ollama_sweep.core.metrics import Kind
from ollama_sweep.core.noise.spread import Load
from ollama_sweep.core.outcome import Run, Status, Summary
from ollama_sweep.results.numbers import older
from ollama_sweep.results.numbers.tally import WHOLE, Number, Tally, Value, is_same
from ollama_sweep.store.one_cell import FormerLoad
from ollama_sweep.store.rows import StoredAttempt
from ollama_sweep.tasks.base import SpeaksAgain, Task

NOT_SAID = "not in what was kept of the engine's output"
NOT_KEPT = "the engine's output was not kept"
IMPORTED = "imported from an older file"
NOT_EXPECTED = "the judgement of an answer: what was expected of it is not kept"
TASK_GONE = "their task is not here"
OF_THE_OUTPUT = (
    "prompt_eval_count", "cached_count", "prompt_eval_duration_s", "eval_count", "eval_duration_s", "total_duration_s",
    "load_duration_s", "printed_rate", "thinking_count",
)  # fmt: skip
OF_A_CLOCK = ("client_duration_s", "ttft_s", "thinking_duration_s")
"""Held against the engine's output where that says them, else left out."""
IMPORTED_ENGINE = "imported"
_JUDGED = frozenset({Status.OK})
_VECTORS = re.compile(r"(\d{1,15}) x (\d{1,15})\b")
_COLUMNS = tuple(one.name for one in fields(Summary) if one.name != "scores")
_OF_A_GENERATION = frozenset(one.name for one in fields(Generation))


class Read(Protocol):
    """An engine's reader of what it said; see `Engine.read_again`. Raises ValueError for what it has not said."""

    def __call__(
        self, engine: str, raw: str, version: str, *, fresh: bool, embeds: bool
    ) -> Mapping[str, float | None]: ...


@dataclass(frozen=True)
class Sources:
    """What numbers are made again with.

    `task` is None where the attempt's task is not here, `is_ours`: it is one of this program's; `task_version` that of
    the attempt where it is known to be an earlier one. `earlier` gives the former loads of the cell, the oldest first.
    """

    read: Read
    task: Task | None
    is_ours: bool
    task_version: int | None
    earlier: Callable[[], Sequence[FormerLoad]]


def check(attempt: StoredAttempt, sources: Sources) -> Tally:
    """All numbers of an attempt, made again and compared."""
    tally = Tally()
    if attempt.engine == IMPORTED_ENGINE:
        found = [*attempt.numbers.values(), *attempt.scores.values()]
        tally.cannot[IMPORTED] += sum(value not in (None, 0) for value in found)
        return tally
    made = [_Again(attempt, run, sources, tally).run() for run in attempt.runs]
    _check_summary(attempt, made, sources, tally)
    return tally


# -- a run -----------------------------------------------------------------------------------------------------------


@dataclass
class _Again:
    """One run on its way to being made again."""

    attempt: StoredAttempt
    stored: Run
    sources: Sources
    tally: Tally

    def run(self) -> Run:
        if self.stored.doubt == "not_answered":
            return self._unanswered()
        said = self._said()
        made = replace(self.stored, **said) if said else self.stored
        made = self._with_rates(made, self._judged(made))
        scores = self._scores(made)
        return made if scores is made.scores else replace(made, scores=scores)

    def _compare(self, name: str, stored: Value, made: Value, rules: Sequence[tuple[str, Value]] = ()) -> bool:
        known = () if self.attempt.is_sealed else rules
        return self.tally.compare(self.stored.part, name, stored, made, known)

    def _unanswered(self) -> Run:
        """A question without an answer has no numbers but those of its thoughts."""
        for name in (*OF_THE_OUTPUT, "prompt_eval_rate", "eval_rate"):
            if name != "thinking_count":
                self._compare(name, getattr(self.stored, name), None)
        if self.stored.thinking_count is not None:
            self.tally.cannot[NOT_SAID] += 1
        self._compare("believed", "believed" if self.stored.believed else "", "")
        return replace(self.stored, believed=False)

    def _said(self) -> dict[str, Any]:
        """What the engine's output says otherwise than the database."""
        if self.stored.part not in self.attempt.raws:
            known = [name for name in OF_THE_OUTPUT if getattr(self.stored, name) is not None]
            self.tally.cannot[NOT_KEPT] += len(known)
            return {}
        try:
            found = self.sources.read(
                self.attempt.engine, self.attempt.raws[self.stored.part], self.attempt.engine_version,
                fresh=bool(self.stored.nonce), embeds=_embeds(self.sources.task),
            )  # fmt: skip
        except ValueError as error:
            text = f"cannot be read as that of {self.attempt.engine} ({error})"
            self.tally.differing.append(Number(self.stored.part, "the raw output", None, None, text))
            return {}
        others: dict[str, Any] = {}
        for name in (*OF_THE_OUTPUT, *OF_A_CLOCK):
            stored = getattr(self.stored, name)
            if name in found:
                if not self._compare(name, stored, found[name]):
                    others[name] = found[name]
            elif stored is not None and name not in OF_A_CLOCK:
                self.tally.cannot[NOT_SAID] += 1
        for name in set(found) - _OF_A_GENERATION:
            if name in self.stored.scores:
                self._compare(name, self.stored.scores[name], found[name])
        return {name: value for name, value in others.items() if value is not None or name != "client_duration_s"}

    def _judged(self, made: Run) -> Run | None:
        """The run with its rates and whether it is believed; None where its numbers allow none."""
        generation, answer = _generation(made, _embeds(self.sources.task)), made.answer
        given: dict[str, Any] = {"number": made.number, "warmup": made.warmup, "nonce": made.nonce}
        try:
            if answer is None:
                return judge.judge_run(generation, scores={}, expected_tokens=None, **given)
            fresh = bool(made.nonce)
            return judge.judge_answer(generation, answer=answer, is_fresh=fresh, expected_tokens=None, **given)
        except CellFailed:
            return None

    def _with_rates(self, made: Run, judged: Run | None) -> Run:
        stored = self.stored
        rate, eval_rate = (judged.prompt_eval_rate, judged.eval_rate) if judged else (None, None)
        if self._compare("prompt_eval_rate", stored.prompt_eval_rate, rate, list(older.prompt_rates(made))):
            rate = stored.prompt_eval_rate
        if self._compare("eval_rate", stored.eval_rate, eval_rate, list(older.eval_rates(made))):
            eval_rate = stored.eval_rate
        doubt = judged.doubt if judged else stored.doubt
        if not (self.attempt.status in _JUDGED or self.attempt.reason in ("not_believed", "bug")):
            doubt = doubt or "attempt_failed"
        was = stored.doubt or ("believed" if stored.believed else "not believed")
        if self._compare("believed", was, doubt or "believed", list(older.doubts(made))):
            doubt = stored.doubt
        known = (made.prompt_eval_rate, made.eval_rate, made.doubt, made.believed)
        if (rate, eval_rate, doubt, not doubt) == known:
            return made
        return replace(made, prompt_eval_rate=rate, eval_rate=eval_rate, believed=not doubt, doubt=doubt)

    def _scores(self, made: Run) -> Mapping[str, float]:
        """The scores, those that need no judge made again."""
        task, others = self.sources.task, dict[str, float]()
        again: Mapping[str, float] = {}
        if made.scores and isinstance(task, SpeaksAgain) and not made.warmup and made.answer is not None:
            again = task.unjudged(_generation(made, _embeds(task)))
        for name in made.scores:
            if name in again:
                if not self._compare(name, made.scores[name], again[name]):
                    others[name] = again[name]
            elif self.sources.task_version is not None:
                self.tally.older[older.of_version(self.attempt.task, self.sources.task_version)] += 1
            elif made.answer is not None and not made.warmup:
                self.tally.cannot[NOT_EXPECTED if task else TASK_GONE] += 1
        return {**made.scores, **others} if others else made.scores


def _embeds(task: Task | None) -> bool:
    return getattr(task, "kind", GENERATE) == EMBED


def _generation(run: Run, embeds: bool) -> Generation:
    """What the engine gave, as far as it was stored."""
    text = run.answer.text if run.answer is not None else ""
    found = _VECTORS.match(text) if embeds else None
    return Generation(
        text="" if found else text,
        vectors=Vectors(int(found[1]), int(found[2])) if found else None,
        **{name: getattr(run, name) for name in (*OF_THE_OUTPUT, *OF_A_CLOCK)},
    )


# -- the attempt -----------------------------------------------------------------------------------------------------


def _check_summary(attempt: StoredAttempt, runs: Sequence[Run], sources: Sources, tally: Tally) -> None:
    is_ok = attempt.status is Status.OK
    loads, made = _summarized(attempt, runs, sources) if is_ok else ([], Summary())
    measured = [run for load in loads for run in load if not run.warmup]
    is_of_loads = attempt.numbers.get("loads") is not None
    for name in _COLUMNS:
        stored, found = attempt.numbers.get(name), getattr(made, name)
        rules = older.of_runs(name, measured) if not is_of_loads else ()
        if (stored or found) and (is_of_loads or name != "loads"):  # no runs are no number
            tally.compare(WHOLE, name, stored, found, rules)
    again = {**made.scores, **summary.energy_per_token(attempt.scores, runs)}
    for name in dict.fromkeys((*again, *attempt.scores, *attempt.score_rows)):
        _check_score(attempt, name, again.get(name), measured, sources, tally)
    if is_of_loads:
        _check_load(attempt, summary.own_load(runs) if is_ok else {}, tally)


def _check_load(attempt: StoredAttempt, made: Mapping[str, Load], tally: Tally) -> None:
    """What this load said by itself, of which spreads are made."""
    for name in dict.fromkeys((*made, *attempt.loads)):
        for part in ("log_median", "runs", "squares"):
            stored, found = (getattr(loads.get(name), part, None) for loads in (attempt.loads, made))
            tally.compare(WHOLE, f"{part} of its load's {name}", stored, found)


def _check_score(
    attempt: StoredAttempt, name: str, made: float | None, measured: Sequence[Run], sources: Sources, tally: Tally
) -> None:
    stored, in_table = attempt.scores.get(name), attempt.score_rows.get(name)
    if not is_same(stored, in_table):
        tally.differing.append(Number(WHOLE, f"{name} of the table scores", in_table, stored))
    if made is None and (stored is None or _is_of_a_sensor(name)):
        return
    is_of_loads = attempt.numbers.get("loads") is not None
    rules = older.scores(name, measured, is_of_loads=is_of_loads, is_sealed=attempt.is_sealed)
    if made is None and not sources.is_ours:
        matching = next((rule for rule, value in rules if is_same(stored, value)), None)
        if matching:
            tally.older[matching] += 1
        else:
            tally.cannot[TASK_GONE] += 1
        return
    tally.compare(WHOLE, name, stored, made, rules)


def _is_of_a_sensor(name: str) -> bool:
    """Something that the attempt has once, and no formula gives."""
    try:
        known = metrics.metric(name)
    except ConfigError:
        return False
    return known.is_declared and known.kind is Kind.ONCE


def _summarized(attempt: StoredAttempt, runs: Sequence[Run], sources: Sources) -> tuple[list[Sequence[Run]], Summary]:
    """The loads that the numbers speak for, and what they come to.

    Which of the former loads are among them hangs on why the cell was measured again: all, those in the same
    surroundings, or none. Those are taken with which most of the numbers agree.
    """
    earlier = sources.earlier()
    found: list[tuple[int, list[Sequence[Run]], Summary]] = []
    for beside in (earlier, [load for load in earlier if load.is_alike], []):
        loads = [*(load.runs for load in beside), runs]
        made = _summary_of(loads, sources.task)
        agreeing = sum(is_same(attempt.numbers.get(name), getattr(made, name)) for name in _COLUMNS)
        found.append((agreeing, loads, made))
        if agreeing == len(_COLUMNS) or not earlier:
            break
    _, loads, made = max(found, key=lambda one: one[0])
    return loads, made


def _summary_of(loads: Sequence[Sequence[Run]], task: Task | None) -> Summary:
    measured = [run for load in loads for run in load if not run.warmup]
    if all(run.answer is None for run in measured):
        return summary.summarize(*loads)
    added: dict[str, float] = {}
    if task is not None:
        try:
            added = task.summarize(measured)
        except Exception:  # a task of another package, of another version perhaps
            added = {}
    return summary.summarize_answers(measured, added, len(loads))
