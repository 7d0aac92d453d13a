"""Asks the questions of a task, one after the other or several at once, and keeps what came of each.

A failed one is kept apart. What came is given in the order of the questions, whichever was answered first.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ollama_sweep.core import judge, thoughts
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed
from ollama_sweep.core.events import Event, Notice, RunFinished
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.outcome import Answer, Effective, Run, Status
from ollama_sweep.engines.base import Engine
from ollama_sweep.engines.shared import gate
from ollama_sweep.machine.clocks import REAL, Clock
from ollama_sweep.machine.crew import Crew
from ollama_sweep.machine.telemetry import Watch
from ollama_sweep.plan import prompts
from ollama_sweep.plan.lengths import SentPrompt
from ollama_sweep.tasks.base import Question, Setup, Task

TAKES_THE_CELL = frozenset({Status.CRASHED, Status.OOM, Status.RESOURCE})
"""After these the engine is gone or would fail the same way again; other failures are those of one question."""
RETRY_PAUSE_S = 1.0
ONLY_THOUGHTS = "only_thoughts"


class OnlyThoughts(CellFailed):
    """The model thought and did not answer; what it thought is kept."""

    def __init__(self, question: Question, generation: Generation, num_predict: int) -> None:
        used = generation.eval_count
        cut = f": num_predict {num_predict} ended them" if used is not None and used >= num_predict else ""
        text = f"{question.id}: only thoughts and no answer{cut}"
        super().__init__(Status.ERROR, ONLY_THOUGHTS, text, generation.raw)
        self.generation = generation


Asked = tuple[Run, CellFailed | None]
"""The run of a question, and why it has no answer."""


@dataclass
class Asking:
    """One attempt at a cell whose task has questions of its own.

    `first` is the number of its first run; `asked_s` are the seconds of asking that former attempts at it took.
    """

    cell: Cell
    effective: Effective
    task: Task
    setup: Setup
    sent: SentPrompt
    engine: Engine
    timeout_s: float
    watch: Watch
    emit: Callable[[Event], None]
    first: int = 1
    asked_s: float = 0.0
    clock: Clock = REAL
    _zero: float = field(default=0.0, init=False)
    _over: threading.Event = field(default_factory=threading.Event, init=False)
    _judging: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._zero = self.clock.monotonic_s()

    def warm_up(self, number: int) -> Iterator[Run]:
        """One discarded run; one that fails is said and nothing more. Raises CellFailed where it takes the cell."""
        question = self.setup.warmup or self.sent.questions[0]
        try:
            run = self._try(question, number, warmup=True, tries=1)
        except CellFailed as failure:
            if failure.status in TAKES_THE_CELL:
                raise
            self.emit(Notice(f"The warm-up of {self.cell.task} failed: {failure.error.splitlines()[0]}"))
            self._rest_after(failure)
        else:
            self.emit(RunFinished(self.cell, number, True, run.prompt_eval_rate))
            yield run

    def ask_all(self, rounds: int) -> Generator[Run]:
        """Every question, so many times. Raises CellFailed where none was answered, or the engine is gone."""
        failure: CellFailed | None = None
        answered, reasons = 0, set[str]()
        self._zero = self.clock.monotonic_s() - self.asked_s
        ask = self._in_turn if self.cell.concurrency == 1 else self._at_once
        with contextlib.closing(ask(self.sent.questions * rounds)) as asked:
            for run, last in asked:
                failure, answered = last or failure, answered + run.believed
                reasons |= {last.reason} if last else set()
                self.emit(RunFinished(self.cell, run.number, False, run.prompt_eval_rate))
                yield run
        if failure is not None and not answered:
            text = f"none of {len(self.sent.questions)} questions was answered; the last: {failure.error}"
            reason = ONLY_THOUGHTS if reasons == {ONLY_THOUGHTS} else "no_answers"
            raise CellFailed(failure.status, reason, text, failure.raw)

    def _in_turn(self, questions: Sequence[Question]) -> Generator[Asked]:
        for number, question in enumerate(questions, self.first):
            run, failure = self._ask(question, number)
            self._rest_after(failure)
            yield run, failure

    def _at_once(self, questions: Sequence[Question]) -> Generator[Asked]:
        """As many in flight as the cell says. After a timeout no other is begun until all have ended, and it rested."""
        waiting, next_number = deque(enumerate(questions, self.first)), self.first
        done: dict[int, Asked] = {}
        late: CellFailed | None = None
        try:
            with Crew[Asked](self.engine.cut_short, self._over) as crew:
                while waiting or crew.in_flight:
                    while waiting and late is None and crew.in_flight < self.cell.concurrency:
                        number, question = waiting.popleft()
                        crew.begin(number, partial(self._ask, question, number))
                    number, done[number] = crew.next()
                    failure = done[number][1]
                    late = failure if failure is not None and failure.status is Status.TIMEOUT else late
                    if late is not None and not crew.in_flight:
                        self._rest_after(late)
                        late = None
                    while next_number in done:
                        yield done.pop(next_number)
                        next_number += 1
        except CellFailed:
            yield from (done[number] for number in sorted(done))  # answered before one took the cell
            raise

    def _ask(self, question: Question, number: int) -> Asked:
        """A question until it is answered or its tries are used up."""
        started = self.clock.monotonic_s()
        failure = self._too_long(question)
        tries = 0
        while failure is None or (tries <= self.setup.max_retries and failure.status is not Status.TRUNCATED):
            if failure is not None and self.clock.wait(self._over, RETRY_PAUSE_S):
                break
            tries += 1
            try:
                return self._try(question, number, warmup=False, tries=tries), None
            except CellFailed as error:
                if error.status in TAKES_THE_CELL:
                    raise
                failure = error
            if failure.status is Status.TIMEOUT or isinstance(failure, OnlyThoughts):
                break
        thought = failure.generation if isinstance(failure, OnlyThoughts) else None
        answer = Answer(question.id, question.category, question.text, failure=failure.error, tries=max(tries, 1),
                        thoughts=thought.thoughts if thought else "")  # fmt: skip
        run = judge.unanswered(number, answer, self.clock.monotonic_s() - started, failure.raw, thought)
        return replace(run, started_s=self._offset_s(question, started)), failure

    def _too_long(self, question: Question) -> CellFailed | None:
        """What does not fit the context is not sent: Ollama would cut it without a word."""
        tokens, num_ctx = self.sent.lengths.get(question.id), self.effective.num_ctx or self.cell.num_ctx
        needed = (tokens or 0) + self.cell.num_predict + 1
        if not tokens or not num_ctx or num_ctx >= needed:
            return None
        text = f"{question.id} needs num_ctx {needed} ({tokens} tokens) and has {num_ctx}, so it was not asked"
        return CellFailed(Status.TRUNCATED, "does_not_fit", text)

    def _rest_after(self, failure: CellFailed | None) -> None:
        """A request that was given up goes on inside the engine and would spoil the next one."""
        if failure is not None and failure.status is Status.TIMEOUT:
            self.engine.release(failed=True)
            self.engine.prepare(self.cell.for_engine)

    def _offset_s(self, question: Question, at: float) -> float | None:
        """When that was, from the cell's first request on; None where one question is never asked beside another."""
        return max(0.0, at - self._zero) if self.engine.asks_at_once and not question.texts else None

    @property
    def _is_fresh(self) -> bool:
        """Nothing of a prompt may come from a cache that does not show, for which an engine may have to load again."""
        return self.setup.is_fresh and self.cell.concurrency == 1

    def _try(self, question: Question, number: int, *, warmup: bool, tries: int) -> Run:
        is_alone = warmup or self.cell.concurrency == 1
        if is_alone:
            self.watch.mark()
        nonce = prompts.new_nonce() if self.setup.is_fresh else ""
        started = self.clock.monotonic_s()
        generation = self._generate(question, nonce)
        started = max(
            started, self.clock.monotonic_s() - generation.client_duration_s
        )  # one that had to wait was sent later
        peak_rss_bytes = self.watch.peak_since_mark() if is_alone else None
        with self._judging:
            run = self._judged(question, number, generation, nonce, warmup=warmup, tries=tries, peak=peak_rss_bytes)
        return run if warmup else replace(run, started_s=self._offset_s(question, started))

    def _judged(
        self, question: Question, number: int, generation: Generation, nonce: str, *, warmup: bool, tries: int,
        peak: int | None,
    ) -> Run:  # fmt: skip
        """One thread at a time: a task judges as if it were alone."""
        if thoughts.only_thoughts(generation) and not warmup:
            raise OnlyThoughts(question, generation, self.cell.num_predict)
        if generation.vectors is None and not generation.text.strip() and not generation.thoughts:
            raise CellFailed(Status.ERROR, "empty_answer", f"{question.id}: the answer is empty", generation.raw)
        answer = Answer(
            item=question.id,
            category=question.category,
            prompt=question.text,
            text=generation.text if generation.vectors is None else str(generation.vectors),
            tries=tries,
            chunk_count=generation.chunk_count,
            is_estimated=generation.is_estimated,
            peak_rss_bytes=peak,
            thoughts=generation.thoughts,
        )
        run = judge.judge_answer(
            generation, number=number, warmup=warmup, nonce=nonce, answer=answer, is_fresh=self._is_fresh,
            expected_tokens=self.sent.lengths.get(question.id), tolerance=judge.length_tolerance(self.cell),
        )  # fmt: skip
        return run if warmup else replace(run, scores={**run.scores, **self.task.score(question, generation)})

    def _generate(self, question: Question, nonce: str) -> Generation:
        is_fresh, cell = self._is_fresh, self.cell.for_engine
        text = prompts.with_nonce(nonce, question.text) if nonce else question.text
        try:
            if question.texts:
                found = self.engine.embed(cell, question.texts, question.batch_size, self.timeout_s)
            else:
                found = self.engine.generate(cell, text, self.timeout_s, fresh=is_fresh)
        except CellFailed as failure:
            raise gate.storable(failure) from None
        return thoughts.apart(gate.checked(found, fresh=is_fresh))
