"""One attempt at one cell: prepare the engine, warm up, run, judge. It stores nothing."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ollama_sweep import prompts, stats, validity
from ollama_sweep.cells import Cell, Effective, Outcome, Run, Status
from ollama_sweep.crashpoints import reached
from ollama_sweep.engine import Engine
from ollama_sweep.errors import CellFailed, EngineMissing, SweepError
from ollama_sweep.events import Event, RunFinished
from ollama_sweep.files import too_many_files
from ollama_sweep.spec import SweepSpec
from ollama_sweep.stopping import StopNow
from ollama_sweep.survey import SentPrompt
from ollama_sweep.task import Task


def system_oom_kills() -> int:
    """How many processes the kernel has ended for want of memory since the start (Linux; elsewhere always 0)."""
    try:
        text = Path("/proc/vmstat").read_text("ascii")
    except OSError:
        return 0
    counts = [line.split()[1] for line in text.splitlines() if line.startswith("oom_kill ")]
    return int(counts[0]) if counts else 0


@dataclass(frozen=True)
class Measuring:
    """How a sweep measures: its settings, its prompts and tasks by name, and the engine."""

    spec: SweepSpec
    sent: Mapping[str, SentPrompt]
    tasks: Mapping[str, Task]
    engine: Engine
    emit: Callable[[Event], None]
    has_gpu: bool = False
    oom_kills: Callable[[], int] = system_oom_kills

    def outcome(self, cell: Cell, earlier: Sequence[Run]) -> Outcome:
        """Prepare, warm up, run and judge; a failure of the cell is an outcome. Raises StopNow, EngineUnavailable.

        `earlier` are believed runs of former attempts at this cell, which its median speaks for as well.
        """
        runs: list[Run] = []
        effective, killed_before = Effective(), self.oom_kills()
        try:
            effective = self.engine.prepare(cell)
            reached("after_prepare")
            self._collect_runs(cell, runs, len(earlier))
            tokens = self.sent[cell.model].tokens
            return validity.judge_attempt(cell, runs, earlier, effective, prompt_tokens=tokens, has_gpu=self.has_gpu)
        except CellFailed as failure:
            return self._failed(cell, failure, runs, effective, self.oom_kills() - killed_before)
        except (StopNow, SweepError):
            raise
        except Exception as error:
            if text := too_many_files(error):
                raise EngineMissing(text) from error
            return Outcome(Status.ERROR, "bug", traceback.format_exc(), runs=tuple(runs), effective=effective)

    def _failed(
        self, cell: Cell, failure: CellFailed, runs: Sequence[Run], effective: Effective, oom_kills: int
    ) -> Outcome:
        tokens = self.sent[cell.model].tokens
        nothing = validity.summarize([])
        flags = validity.flags_of(cell, nothing, effective, prompt_tokens=tokens, has_gpu=self.has_gpu)
        status, reason = Status(failure.status), failure.reason
        if reason == "killed" and oom_kills > 0:
            status, reason = Status.OOM, "host_oom"
        return Outcome(
            status=status,
            reason=reason,
            error=failure.error,
            flags=frozenset(flags),
            runs=tuple(replace(run, believed=False, doubt=run.doubt or "attempt_failed") for run in runs),
            effective=effective,
            raw=failure.raw,
        )

    def _collect_runs(self, cell: Cell, runs: list[Run], earlier: int) -> None:
        runs.extend(self._run(cell, number, warmup=True) for number in range(1, self.spec.warmup + 1))
        reached("after_warmup")
        wanted = max(1, self.spec.repeats.minimum - earlier)
        while self._wants_more(runs, wanted, earlier):
            number = earlier + 1 + sum(not run.warmup for run in runs)
            runs.append(self._run(cell, number, warmup=False))
            reached("after_run")

    def _wants_more(self, runs: Sequence[Run], wanted: int, earlier: int) -> bool:
        measured = [run for run in runs if not run.warmup]
        if len(measured) < wanted:
            return True
        repeats = self.spec.repeats
        if repeats.until is None or earlier + len(measured) >= repeats.maximum:
            return False
        rates = [run.prompt_eval_rate for run in measured if run.believed and run.prompt_eval_rate is not None]
        return len(rates) < 2 or stats.relative_width(rates) > repeats.until

    def _run(self, cell: Cell, number: int, *, warmup: bool) -> Run:
        sent, nonce = self.sent[cell.model], prompts.new_nonce()
        text = prompts.with_nonce(nonce, sent.text)
        generation = self.engine.generate(cell, text, self.spec.timeout_s)
        scores = {} if warmup else self.tasks[cell.task].score(text, generation)
        run = validity.judge_run(
            generation, number=number, warmup=warmup, nonce=nonce, expected_tokens=sent.tokens, scores=scores
        )
        self.emit(RunFinished(cell, number, warmup, run.prompt_eval_rate))
        return run
