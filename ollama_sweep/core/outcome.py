"""How an attempt ends: statuses, flags, runs, summaries, outcomes, and the rows that are read back. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ollama_sweep.core.options import Scalar
from ollama_sweep.core.rates import streamed_decode_rate


class Status(StrEnum):
    """How an attempt ended, or where a cell stands (the table of words in docs/architecture.md)."""

    PENDING = "pending"
    STARTED = "started"
    OK = "ok"
    OOM = "oom"
    RESOURCE = "resource"
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    CRASHED = "crashed"
    PARSE_ERROR = "parse_error"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    DISCARDED = "discarded"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        """The cell needs no further attempt by itself."""
        return self not in _NOT_FINAL

    @property
    def is_failure(self) -> bool:
        """The cell was tried and gave no number."""
        return self in FAILURES

    @property
    def counts(self) -> bool:
        """An attempt that says something of its cell (an interrupted one does not)."""
        return self is Status.OK or self in FAILURES


FAILURES = frozenset({Status.OOM, Status.RESOURCE, Status.TIMEOUT, Status.TRUNCATED, Status.CRASHED,
                      Status.PARSE_ERROR, Status.ERROR})  # fmt: skip
_NOT_FINAL = frozenset({Status.PENDING, Status.STARTED, Status.INTERRUPTED, Status.DISCARDED})
RETRIED = frozenset({Status.CRASHED, Status.PARSE_ERROR, Status.ERROR})
"""Failures worth another attempt by themselves; the others would fail the same way."""
SURE_AGAIN = frozenset({"only_thoughts", "cannot_think"})
"""Reasons that another attempt would meet again, whatever the status."""


class Purpose(StrEnum):
    """What a load was made for, where the cell had a value or it is not the cell's own."""

    REPEATS = "repeats"
    PASS = "pass"  # noqa: S105 - no password
    SECOND_LOOK = "second_look"
    CONTROL = "control"
    PAIR = "pair"


class Flag(StrEnum):
    """Something true beside the status of a measured cell."""

    SPILLED = "spilled"
    CLAMPED = "clamped"
    CACHED = "cached"
    UNFILLED = "unfilled"
    DRIFTED = "drifted"
    NOISY = "noisy"
    UNSTABLE = "unstable"
    THROTTLED = "throttled"
    WARM = "warm"
    BUSY = "busy"
    SHARED_GPU = "shared_gpu"
    LOAD_FAILED = "load_failed"
    IMPORTED = "imported"
    REUSED = "reused"
    DISTURBED = "disturbed"


FLAG_MEANINGS: Mapping[Flag, str] = {
    Flag.SPILLED: "part of the model sits on the CPU",
    Flag.CLAMPED: "the engine used another num_ctx, num_batch or num_parallel than asked",
    Flag.CACHED: "prompt tokens came from a cache, so the run was not used",
    Flag.UNFILLED: "num_batch exceeds the prompt's tokens, so it cannot matter",
    Flag.DRIFTED: "the machine's speed had drifted",
    Flag.NOISY: "the runs differ by more than 10 %",
    Flag.UNSTABLE: "one attempt ran out of memory and another did not",
    Flag.THROTTLED: "the hardware lowered its clock",
    Flag.WARM: "the GPU was warmer than `cooldown` asked for",
    Flag.BUSY: "other programs used more than 20 % of the processor",
    Flag.SHARED_GPU: "the server had another model loaded or answered others, or another program computed on the GPU",
    Flag.LOAD_FAILED: "a further load of it gave no number",
    Flag.IMPORTED: "taken from an older file, not measured here",
    Flag.REUSED: "the same configuration as another cell, measured there",
    Flag.DISTURBED: "lanes beside its own disturb it (doctor --lanes), so it compares with cells of its sweep only",
}


@dataclass(frozen=True)
class Answer:
    """What was answered to one question of a task. `prompt` is the question as it stands in its set, without nonce.

    `failure` says why there is no answer, "" where there is one; `tries` counts the attempts at this question.
    `chunk_count` is the number of pieces of a streamed answer; `is_estimated` marks token counts that the engine did
    not give (words × 1.3). `peak_rss_bytes` is that of the engine's processes while it answered. `thoughts` is what was
    thought before the answer, and no part of it.
    """

    item: str
    category: str
    prompt: str
    text: str = ""
    failure: str = ""
    tries: int = 1
    chunk_count: int | None = None
    is_estimated: bool = False
    peak_rss_bytes: int | None = None
    thoughts: str = ""


@dataclass(frozen=True)
class Run:
    """One generation inside an attempt. Counts in tokens, durations in seconds; None is unknown, never zero.

    `prompt_eval_count` includes cached tokens; `prompt_eval_rate` is derived here from the uncached ones. `answer` is
    kept for tasks with questions of their own. A run whose answer failed is never believed. `thinking_count` are the
    tokens of thoughts, which `eval_count` includes. `started_s` is when the question was sent, from the first request
    of its load on (what lies between sessions is left out); None where it may not be asked beside others.
    """

    number: int
    warmup: bool
    nonce: str
    prompt_eval_count: int | None
    cached_count: int | None
    prompt_eval_duration_s: float | None
    prompt_eval_rate: float | None
    eval_count: int | None
    eval_duration_s: float | None
    eval_rate: float | None
    total_duration_s: float | None
    load_duration_s: float | None
    printed_rate: float | None
    client_duration_s: float
    believed: bool
    doubt: str = ""
    raw: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    ttft_s: float | None = None
    answer: Answer | None = None
    thinking_count: int | None = None
    thinking_duration_s: float | None = None
    started_s: float | None = None

    @property
    def part(self) -> str:
        """Its name in its attempt: `warmup 1`, `run 1`, …"""
        return f"{'warmup' if self.warmup else 'run'} {self.number}"

    @property
    def latency_s(self) -> float:
        """What the person waited, from the request to the last piece."""
        return self.client_duration_s


class Asked(Protocol):
    """A question and what came of it: a run while it is measured, a kept answer afterwards."""

    @property
    def answer(self) -> Answer | None: ...
    @property
    def latency_s(self) -> float: ...
    @property
    def eval_count(self) -> int | None: ...
    @property
    def scores(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Summary:
    """What an attempt's believed runs say: medians, with the smallest and largest prompt rate.

    It speaks for `loads` loads: its own, and earlier ones that may stand beside it.
    """

    runs: int = 0
    prompt_eval_count: int | None = None
    prompt_eval_rate: float | None = None
    prompt_eval_rate_min: float | None = None
    prompt_eval_rate_max: float | None = None
    prompt_eval_duration_s: float | None = None
    eval_count: int | None = None
    eval_rate: float | None = None
    total_duration_s: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    loads: int = 1


@dataclass(frozen=True)
class Effective:
    """What the engine really uses after a load; None where it does not say. Sizes in bytes."""

    num_ctx: int | None = None
    num_batch: int | None = None
    size_bytes: int | None = None
    size_vram_bytes: int | None = None
    load_duration_s: float | None = None
    others_loaded: tuple[str, ...] = ()
    num_parallel: int | None = None


@dataclass(frozen=True)
class Line:
    """One quantity over the time of an attempt: its smallest and largest reading, and means over steps of time.

    A point is None where nothing was read.
    """

    low: float
    high: float
    points: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Series:
    """What sensors said while an attempt lasted, by quantity (`gpu_power_w`, `rss_bytes`, …), from its load on.

    A point stands for `step_s`. The load is over and what counts begins at `counts_from_s`, the measured runs at
    `runs_from_s`; None where it did not come to that.
    """

    step_s: float = 0.0
    counts_from_s: float | None = None
    runs_from_s: float | None = None
    lines: Mapping[str, Line] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, with everything worth keeping of it."""

    status: Status
    reason: str = ""
    error: str = ""
    flags: frozenset[Flag] = frozenset()
    runs: tuple[Run, ...] = ()
    summary: Summary = Summary()
    effective: Effective = Effective()
    raw: str = ""
    series: Series = Series()


@dataclass(frozen=True)
class CellResult:
    """One row of the view `results`: where a cell of a sweep stands now.

    `coordinates` maps every swept dimension to its value; `metrics` every numeric column that has a value.
    `reused_from` is the key of the cell whose result this one has, "" where it has its own.
    """

    key: str
    coordinates: Mapping[str, Scalar]
    model: str
    task: str
    status: Status
    reason: str = ""
    error: str = ""
    flags: frozenset[Flag] = frozenset()
    attempts: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    row: Mapping[str, Scalar] = field(default_factory=dict)
    reused_from: str = ""


@dataclass(frozen=True)
class AnswerRow:
    """One kept answer of a sweep with everything measured of it: for reports, files and pictures.

    Counts in tokens, durations in seconds; None is unknown. `latency_s` is what the person waited, from the request
    to the last piece. `coordinates` are those of the cell; `number` counts the runs of the attempt. `config` holds the
    task's and the request's options (`num_predict`, `temperature`, …).
    """

    sweep: str
    engine: str
    model: str
    task: str
    cell: str
    coordinates: Mapping[str, Scalar]
    number: int
    answer: Answer
    latency_s: float
    finished_at: str = ""
    ttft_s: float | None = None
    load_duration_s: float | None = None
    prompt_eval_count: int | None = None
    cached_count: int | None = None
    prompt_eval_duration_s: float | None = None
    eval_count: int | None = None
    eval_duration_s: float | None = None
    total_duration_s: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Scalar] = field(default_factory=dict)
    quantization: str | None = None
    parameter_size: str | None = None
    thinking_count: int | None = None
    thinking_duration_s: float | None = None

    @property
    def decode_tps(self) -> float | None:
        """Decode tokens/s without the first token; None where it cannot be said."""
        return streamed_decode_rate(self.eval_count, self.latency_s, self.ttft_s)


LABELS: Mapping[Status, str] = {
    Status.OOM: "OOM",
    Status.RESOURCE: "CUDA resource allocation error",
    Status.TIMEOUT: "Timeout or no output",
    Status.TRUNCATED: "Truncated",
    Status.CRASHED: "Crashed",
    Status.PARSE_ERROR: "Parse error",
    Status.ERROR: "Error",
    Status.SKIPPED: "Skipped",
    Status.PENDING: "not measured yet",
}
_REASON_LABELS = {
    "cuda_oom": "CUDA OOM",
    "host_resource": "Resource limit of the system",
    "gpu_oom": "GPU OOM",
    "create": "Create failed",
    "no_statistics": "Timeout or no output",
    "does_not_fit": "Does not fit",
    "memory": "Left out (memory)",
    "parked": "Parked",
    "cannot_embed": "Cannot embed",
    "no_answers": "No answers",
    "only_thoughts": "Only thoughts",
    "cannot_think": "Cannot think",
}


def failure_label(status: Status, reason: str) -> str:
    """The words for a cell without a number, the same in pictures, tables and on the terminal."""
    return _REASON_LABELS.get(reason) or LABELS.get(status, str(status))
