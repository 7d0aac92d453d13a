"""One attempt at one cell: prepare the engine, warm up, run, judge. It stores nothing."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ollama_sweep.core import judge, stats, thoughts
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.errors import CellFailed, EngineMissing, EngineUnavailable, SweepError, keeping
from ollama_sweep.core.events import Event, Notice, RunFinished
from ollama_sweep.core.outcome import Effective, Outcome, Run, Status
from ollama_sweep.core.summary import asked_s, energy_per_token, summarize, summarize_answers
from ollama_sweep.core.surface.goal import FULL, Runs
from ollama_sweep.engines.base import Engine
from ollama_sweep.engines.shared import gate
from ollama_sweep.machine.clocks import REAL, Clock
from ollama_sweep.machine.files import too_many_files
from ollama_sweep.machine.telemetry import NoTelemetry, Watch
from ollama_sweep.plan import prompts
from ollama_sweep.plan.lengths import SentPrompt
from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.run.questions import Asking
from ollama_sweep.run.stopping import StopNow
from ollama_sweep.run.turns import Beside
from ollama_sweep.tasks.base import Task

LOOK_EVERY_S = 1.0
SUSPENDED_S = 5.0
UNSEEN: Mapping[str, Any] = {"watch": lambda pids: NoTelemetry(), "oom_kills": lambda: 0}
"""What is measured of a machine that cannot be seen: this one's readings would be nobody's."""


def system_oom_kills() -> int:
    """How many processes the kernel has ended for want of memory since the start (Linux; elsewhere always 0)."""
    try:
        text = Path("/proc/vmstat").read_text("ascii")
    except OSError:
        return 0
    counts = [line.split()[1] for line in text.splitlines() if line.startswith("oom_kill ")]
    return int(counts[0]) if counts else 0


def _is_enough(runs: Sequence[Run], asked: Runs) -> bool:
    """As many runs as a planner wants of this cell, and the first of them is what it expected."""
    measured = [run for run in runs if not run.warmup]
    if asked.most is None or len(measured) != asked.most:
        return False
    first = measured[0]
    return first.believed and first.prompt_eval_rate is not None and asked.agrees(first.prompt_eval_rate)


def _rates(runs: Sequence[Run]) -> list[float]:
    return [run.prompt_eval_rate or 0.0 for run in runs]


def _parallel(cell: Cell, effective: Effective) -> dict[str, float]:
    """How many requests the server was started for, where the sweep is about that and the server says so."""
    asked = {name for name, _ in (*cell.coordinates, *cell.options, *cell.server)}
    if effective.num_parallel is None or not asked & {"concurrency", "num_parallel"}:
        return {}
    return {"effective_num_parallel": effective.num_parallel}


def unbroken(measure: Callable[[], Outcome], clock: Clock, stops: Callable[[], tuple[int, float]]) -> Outcome:
    """What is measured, or that it was discarded because computer or program stood still meanwhile. Raises as it does.

    `stops` is `Stopping.stops`.
    """
    slept_s, stood = clock.suspended_s(), stops()
    outcome = measure()
    if clock.suspended_s() - slept_s > SUSPENDED_S:
        return Outcome(Status.DISCARDED, "suspended", "the computer was suspended meanwhile", raw=outcome.raw)
    if clock.is_real and all(now > then for now, then in zip(stops(), stood, strict=True)):
        return Outcome(Status.DISCARDED, "suspended", "this program was stopped meanwhile", raw=outcome.raw)
    return outcome


@dataclass
class Surroundings:
    """What is seen beside a cell while it is measured: what telemetry watches, and models of others on the engine's
    server. A client that comes after the load is no less in the way than one that was there before."""

    engine: Engine
    watch: Watch
    clock: Clock = REAL
    others: set[str] = field(default_factory=set)
    _looked_at: float = -float("inf")

    def look(self, *, is_last: bool = False) -> None:
        """Between two runs, at most once in `LOOK_EVERY_S`, and after the last one."""
        if is_last or self.clock.monotonic_s() - self._looked_at >= LOOK_EVERY_S:
            with contextlib.suppress(CellFailed, EngineUnavailable):
                self.others.update(gate.names("others_loaded", self.engine.others_loaded()))
            self._looked_at = self.clock.monotonic_s()

    def beside(self, effective: Effective) -> Effective:
        """What a load uses, with whoever was seen beside it."""
        more = sorted(self.others.difference(effective.others_loaded))
        return replace(effective, others_loaded=(*effective.others_loaded, *more))


@dataclass(frozen=True)
class Measuring:
    """How a sweep measures: its settings, what is sent by `Cell.asked`, its tasks by name, and the engine."""

    spec: SweepSpec
    sent: Mapping[tuple[str, str, int | None], SentPrompt]
    tasks: Mapping[str, Task]
    engine: Engine
    emit: Callable[[Event], None]
    has_gpu: bool = False
    oom_kills: Callable[[], int] = system_oom_kills
    runs_spread: Callable[[], float] = lambda: 0.0
    watch: Callable[[Callable[[], tuple[int, ...]]], Watch] = lambda pids: NoTelemetry()
    clock: Clock = REAL
    loading: Callable[[Cell], contextlib.AbstractContextManager[None]] = lambda cell: contextlib.nullcontext()
    """What a load waits for, where several lanes share a disk."""

    def outcome(self, cell: Cell, beside: Beside, wanted: Runs = FULL) -> Outcome:
        """Prepare, warm up, run and judge; a failure of the cell is an outcome. Raises StopNow, EngineUnavailable.

        `beside` are former loads of this cell, which its numbers speak for as well; `wanted` is how often it is run.
        """
        runs: list[Run] = []
        effective, killed_before = Effective(), self.oom_kills()
        watch = self.watch(self.engine.processes)
        around = Surroundings(self.engine, watch, self.clock)
        try:
            watch.begin_load()
            with self.loading(cell):
                effective = gate.effective(self.engine.prepare(cell.for_engine))
            reached("after_prepare")
            watch.start()
            self._collect_runs(cell, runs, beside.runs, effective, around, wanted)
            seen = watch.stop()
            around.look(is_last=True)
            effective = around.beside(effective)
            return replace(self._judged(cell, runs, beside, effective, seen), series=watch.series())
        except CellFailed as failure:
            killed, seen = self.oom_kills() - killed_before, watch.stop()
            effective = around.beside(effective)
            return replace(self._failed(cell, failure, runs, effective, killed, seen), series=watch.series())
        except (StopNow, SweepError, MemoryError):
            raise
        except Exception as error:
            if text := too_many_files(error):
                raise EngineMissing(text) from error
            return Outcome(Status.ERROR, "bug", traceback.format_exc(), runs=tuple(runs), effective=effective)
        finally:
            watch.stop()
            for name in watch.newly_lost():
                self.emit(Notice(f"Warning: {name} no longer answers; what it measured is unknown from now on"))

    def load(self, cell: Cell) -> Outcome:
        """Load and read back what is used, nothing more; `ok` where that worked. Raises StopNow, EngineUnavailable."""
        killed_before = self.oom_kills()
        try:
            effective = gate.effective(self.engine.prepare(cell))
        except CellFailed as failure:
            return self._failed(cell, failure, (), Effective(), self.oom_kills() - killed_before, {})
        except (StopNow, SweepError, MemoryError):
            raise
        except Exception as error:
            if text := too_many_files(error):
                raise EngineMissing(text) from error
            return Outcome(Status.ERROR, "bug", traceback.format_exc())
        reached("after_prepare")
        flags = judge.flags_of(cell, summarize([]), effective, prompt_tokens=None, has_gpu=self.has_gpu)
        return Outcome(Status.OK, flags=frozenset(flags), effective=effective)

    def _judged(
        self, cell: Cell, runs: Sequence[Run], beside: Beside, effective: Effective, seen: Mapping[str, float]
    ) -> Outcome:
        sent, tokens = self._sent(cell), self._tokens(cell)
        loads = [*beside.loads, runs]
        if sent.is_own_prompt:
            summary = summarize(*loads)
            tokens = tokens or summary.prompt_eval_count
        else:
            measured = [run for load in loads for run in load if not run.warmup]
            summary = summarize_answers(measured, self.tasks[cell.task].summarize(measured), len(loads))
        more = {**seen, **energy_per_token(seen, runs), **_parallel(cell, effective)}
        summary = replace(summary, scores={**summary.scores, **more})
        return judge.judge_attempt(cell, runs, summary, effective, prompt_tokens=tokens, has_gpu=self.has_gpu)

    def _sent(self, cell: Cell) -> SentPrompt:
        return self.sent[cell.asked]

    def _tokens(self, cell: Cell) -> int | None:
        """The length of the sweep's own prompt: questions of tasks differ in theirs."""
        return self._sent(cell).tokens if self._sent(cell).is_own_prompt else None

    def _failed(
        self,
        cell: Cell,
        failure: CellFailed,
        runs: Sequence[Run],
        effective: Effective,
        oom_kills: int,
        seen: Mapping[str, float],
    ) -> Outcome:
        nothing = summarize()
        flags = judge.flags_of(cell, nothing, effective, prompt_tokens=self._tokens(cell), has_gpu=self.has_gpu)
        failure = gate.storable(failure)
        status, reason = Status(failure.status), failure.reason
        if reason in ("killed", "runner_died", "load_crash") and oom_kills > 0:
            status, reason = Status.OOM, "host_oom"
        return Outcome(
            status=status,
            reason=reason,
            error=failure.error,
            flags=frozenset(flags | judge.flags_of_others(seen)),
            runs=tuple(replace(run, believed=False, doubt=run.doubt or "attempt_failed") for run in runs),
            effective=effective,
            raw=failure.raw,
        )

    def _collect_runs(
        self,
        cell: Cell,
        runs: list[Run],
        earlier: Sequence[Run],
        effective: Effective,
        around: Surroundings,
        asked: Runs,
    ) -> None:
        if not self._sent(cell).is_own_prompt:
            return self._ask_questions(cell, runs, earlier, effective, around)
        while asked.warmup and judge.wants_warmup(
            _rates(runs), self.spec.warmup.minimum, self.spec.warmup.maximum, self.runs_spread()
        ):
            runs.append(self._run(cell, len(runs) + 1, warmup=True))
        reached("after_warmup")
        around.watch.begin_runs()
        wanted = max(1, self.spec.repeats.minimum - len(earlier))
        if asked.is_once_where_spilled and judge.is_spilled(cell, effective, has_gpu=self.has_gpu):
            asked = Runs(most=1)
        while not _is_enough(runs, asked) and self._wants_more(runs, wanted, len(earlier)):
            number = len(earlier) + 1 + sum(not run.warmup for run in runs)
            runs.append(self._run(cell, number, warmup=False))
            around.look()
            reached("after_run")
        return None

    def _ask_questions(
        self, cell: Cell, runs: list[Run], earlier: Sequence[Run], effective: Effective, around: Surroundings
    ) -> None:
        setup, sent = self.spec.setups[cell.task], self._sent(cell)
        asking = Asking(
            cell=cell,
            effective=effective,
            task=self.tasks[cell.task],
            setup=setup,
            sent=sent,
            engine=self.engine,
            timeout_s=self.spec.timeout_s,
            watch=around.watch,
            emit=self.emit,
            first=max((run.number for run in earlier), default=0) + 1,
            asked_s=asked_s(earlier),
            clock=self.clock,
        )
        for number in range(1, self.spec.warmup.minimum + 1):
            runs.extend(asking.warm_up(number))
        reached("after_warmup")
        around.watch.begin_runs()
        rounds = (setup.repeats or self.spec.repeats.minimum) - len(earlier) // len(sent.questions)  # answered or not
        with contextlib.closing(asking.ask_all(max(1, rounds))) as asked:
            for run in asked:
                runs.append(run)
                around.look()
                reached("after_run")

    def _wants_more(self, runs: Sequence[Run], wanted: int, earlier: int) -> bool:
        measured = [run for run in runs if not run.warmup]
        if len(measured) < wanted:
            return True
        repeats = self.spec.repeats
        if earlier + len(measured) >= repeats.maximum:
            return False
        rates = [run.prompt_eval_rate for run in measured if run.believed and run.prompt_eval_rate is not None]
        if repeats.is_auto:
            return not earlier and judge.wants_more_runs(rates[: repeats.minimum], self.runs_spread())
        return repeats.until is not None and (len(rates) < 2 or stats.relative_width(rates) > repeats.until)

    def _run(self, cell: Cell, number: int, *, warmup: bool) -> Run:
        sent, nonce = self._sent(cell), prompts.new_nonce()
        text = prompts.with_nonce(nonce, sent.text)
        generation = gate.checked(self.engine.generate(cell.for_engine, text, self.spec.timeout_s), fresh=True)
        generation = thoughts.apart(generation)
        with keeping(generation.raw):
            scores = {} if warmup else self.tasks[cell.task].score(sent.questions[0], generation)
            run = judge.judge_run(
                generation, number=number, warmup=warmup, nonce=nonce, expected_tokens=sent.tokens, scores=scores,
                tolerance=judge.length_tolerance(cell),
            )  # fmt: skip
        self.emit(RunFinished(cell, number, warmup, run.prompt_eval_rate))
        return run
