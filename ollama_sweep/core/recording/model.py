"""What a recording holds: the grid, and every load of every cell with the raw numbers of its runs. Plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ollama_sweep.core.cell import PROMPT_TOKENS
from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import Effective, Flag, Purpose, Status
from ollama_sweep.core.rates import prompt_rate

VERSION = 1
NOT_OPTIONS = frozenset({"model", "task", PROMPT_TOKENS})
"""Dimensions that are no option of a load or a request."""


class FailedIn(StrEnum):
    """Where a load failed: before its first request, in a request, or when what came of them was judged."""

    LOAD = "load"
    REQUEST = "request"
    JUDGING = "judging"


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One generation as the engine reported it. Counts in tokens, durations in seconds; None is unknown.

    `doubt` is why the run was not believed, "" where it was. `printed_rate` is kept where it is the doubt.
    """

    warmup: bool
    doubt: str
    prompt_eval_count: int | None
    cached_count: int | None
    prompt_eval_duration_s: float | None
    eval_count: int | None
    eval_duration_s: float | None
    total_duration_s: float | None
    load_duration_s: float | None
    client_duration_s: float
    ttft_s: float | None
    thinking_count: int | None = None
    thinking_duration_s: float | None = None
    printed_rate: float | None = None

    @property
    def believed(self) -> bool:
        """Its numbers count."""
        return not self.doubt

    @property
    def prompt_eval_rate(self) -> float | None:
        """Tokens/s of the uncached part of the prompt."""
        if not self.prompt_eval_count or not self.prompt_eval_duration_s:
            return None
        return prompt_rate(self.prompt_eval_count, self.cached_count, self.prompt_eval_duration_s)


@dataclass(frozen=True, slots=True)
class RecordedLoad:
    """One attempt at a cell: a load, and the requests that were made in it, warm-ups first.

    `status` is `ok` or a failure, `purpose` None for the cell's own load. The seconds from its start to its end are
    those before the first request (`load_s`: create, load, read back), those of the requests, and for one that failed
    in a request those of that request (`failure_s`); one that failed in the load cost its `load_s`.
    """

    status: Status
    reason: str
    purpose: Purpose | None
    flags: frozenset[Flag]
    load_s: float
    failure_s: float
    failed_in: FailedIn | None
    effective: Effective
    runs: tuple[RecordedRun, ...]

    @property
    def seconds(self) -> float:
        """What it cost, from its start to its end."""
        return self.load_s + math.fsum(run.client_duration_s for run in self.runs) + self.failure_s

    @property
    def measured(self) -> tuple[RecordedRun, ...]:
        """Its runs without the warm-ups."""
        return tuple(run for run in self.runs if not run.warmup)


@dataclass(frozen=True, slots=True)
class RecordedCell:
    """One point of the grid with its loads, the oldest first; none where it was not measured.

    `coordinates` are in the order of the grid's dimensions. `options` are all load and request options, `server` the
    settings of a managed server, both sorted by name. `tokens` is the prompt's true length, None where nobody counted.
    `is_skipped`: the prompt does not fit its num_ctx, so it was never tried.
    """

    coordinates: Options
    model: str
    options: Options
    server: Options
    tokens: int | None
    is_skipped: bool
    loads: tuple[RecordedLoad, ...]

    @property
    def place(self) -> Mapping[str, Scalar]:
        """Its coordinates by name."""
        return dict(self.coordinates)

    @property
    def num_ctx(self) -> int | None:
        """None where the engine chose."""
        return _whole(dict(self.options).get("num_ctx"))

    @property
    def num_batch(self) -> int | None:
        """None where the engine chose."""
        return _whole(dict(self.options).get("num_batch"))


@dataclass(frozen=True, slots=True)
class RecordedModel:
    """A model that was measured: its name without folders, its digest, and what the engine said of it, where it did."""

    name: str
    digest: str
    quantization: str | None = None
    parameter_size: str | None = None
    family: str | None = None
    context_length: int | None = None
    size_bytes: int | None = None
    kv_bytes_per_token: int | None = None


@dataclass(frozen=True)
class Recording:
    """A sweep as it was measured. `dimensions` are in the order of the grid, outermost first.

    `machine` is one line about the computer, `has_gpu` what its engine computed on; `recorded_at` is ISO 8601 in UTC,
    of the first load. `prompt_tokens` is the length that was wanted of the prompt, None where it had another text or
    several lengths. `remark` is what a person says of it. `digest` is that of the file's content.
    """

    name: str
    engine: str
    engine_version: str
    machine: str
    has_gpu: bool
    recorded_at: str
    remark: str
    dimensions: Mapping[str, tuple[Scalar, ...]]
    prompt_tokens: int | None
    timeout_s: float | None
    models: tuple[RecordedModel, ...]
    cells: tuple[RecordedCell, ...]
    digest: str = ""
    version: int = field(default=VERSION)

    @property
    def measured(self) -> tuple[RecordedCell, ...]:
        """The cells with a load."""
        return tuple(cell for cell in self.cells if cell.loads)

    @property
    def engine_in_words(self) -> str:
        """`ollama 0.34.0`."""
        return f"{self.engine} {self.engine_version}".strip()


def _whole(value: Scalar) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
