"""The numeric columns of a result: their words, units, which way is better, and how a value is written. Pure.

Who makes a number declares it: the core the ones below, a task or an engine those of its attribute `metrics`. They
are asked for the first time that a name is not known here. Of a name that nobody declares, such as that of a task
which is gone, neither unit nor direction is assumed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from ollama_sweep.core.cell import MAIN_TASK
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.outcome import CellResult, Status
from ollama_sweep.core.units import format_bytes, format_rate

DEFAULT_METRIC = "prompt_eval_rate"
_NAME = re.compile(r"[A-Za-z0-9_]{1,40}")
_ENDS = {
    "min": "smallest",
    "max": "largest",
    "low": "lower end of its interval",
    "high": "upper end of its interval",
}
_PREFERRED = ("quality", "score", "accuracy", "decode_tps", "tokens_per_s", "rows_per_s")
_MOST_LISTED = 40
_OF_TASKS = {"chat": "decode_tps", "embeddings": "rows_per_s"}
_RUNS_THEMSELVES = frozenset({"runs", "loads", "looks", "attempts", "answers", "failed_answers"})


class Kind(StrEnum):
    """What the number of a cell is of those of its runs or answers.

    A share is the mean of what is 0 or 1. Of a count in every answer the cell has the mean, so many an answer. `once`
    is what the load or the cell as a whole has once.
    """

    MEDIAN = "median"
    MEAN = "mean"
    SHARE = "share"
    COUNT = "count"
    ONCE = "once"


@dataclass(frozen=True)
class Metric:
    """A numeric column. `better` is 1 where higher is better, -1 where lower is, 0 where neither.

    One `*` in the name stands for what is not known before, such as a category. Without words the name is read as
    words. A median that tasks are ranked by has its smallest and largest value, and an interval. `is_declared` is
    False where nobody says what the column is.
    """

    name: str
    words: str = ""
    unit: str = ""
    better: int = 0
    kind: Kind = Kind.MEDIAN
    is_ranked: bool = False
    is_declared: bool = True

    def text(self, value: float) -> str:
        """The value as it stands in a cell: `331`, `0.532`, `3.3 GiB`."""
        if self.is_bytes:
            return format_bytes(value)
        if self.name == "cost":
            return f"{value:.3g}"
        if float(value).is_integer() and (self.better == 0 or abs(value) < 100):
            return f"{value:.0f}"
        return format_rate(value)

    def with_unit(self, value: float) -> str:
        """The value in a sentence: `331 tokens/s`."""
        return self.text(value) if self.is_bytes or not self.unit else f"{self.text(value)} {self.unit}"

    @property
    def is_per_run(self) -> bool:
        """Every run has one, so that the cell's value rests on so many; else the load or the cell has one."""
        return self.kind is not Kind.ONCE and self.name not in _RUNS_THEMSELVES

    @property
    def is_bytes(self) -> bool:
        return self.unit == "bytes"

    @property
    def direction(self) -> str:
        """`higher is better`, `lower is better`, or nothing."""
        return {1: "higher is better", -1: "lower is better"}.get(self.better, "")


_CORE = (
    Metric("prompt_eval_rate", "prompt processing speed", "tokens/s", 1, is_ranked=True),
    Metric("prompt_eval_rate_min", "prompt processing speed of the slowest run", "tokens/s", 1),
    Metric("prompt_eval_rate_max", "prompt processing speed of the fastest run", "tokens/s", 1),
    Metric("prompt_eval_rate_corrected", "prompt processing speed without the machine's drift", "tokens/s", 1),
    Metric("prompt_eval_duration_s", "prompt processing time", "s", -1),
    Metric("prompt_eval_count", "prompt tokens", "tokens"),
    Metric("eval_rate", "generation speed", "tokens/s", 1),
    Metric("eval_duration_s", "generation time", "s", -1),
    Metric("eval_count", "generated tokens", "tokens"),
    Metric("thinking_count", "tokens of thinking", "tokens"),
    Metric("thinking_duration_s", "time of thinking", "s", -1),
    Metric("load_duration_s", "load time", "s", -1, Kind.ONCE),
    Metric("total_duration_s", "total time of a run", "s", -1),
    Metric("ttft_s", "time to the first token", "s", -1, is_ranked=True),
    Metric("latency_s", "latency", "s", -1, is_ranked=True),
    Metric("decode_tps", "decode speed without the first token", "tokens/s", 1, is_ranked=True),
    Metric("requests_per_s", "requests answered each second", "requests/s", 1, Kind.ONCE),
    Metric("tokens_per_s_total", "tokens of all answers together", "tokens/s", 1, Kind.ONCE),
    Metric("ttft_s_p50", "median time to the first token", "s", -1, Kind.ONCE),
    Metric("ttft_s_p95", "P95 of the time to the first token", "s", -1, Kind.ONCE),
    Metric("served_parallel", "requests that the server ran at once", "", 0, Kind.ONCE),
    Metric("effective_num_parallel", "num_parallel really used", "", 0, Kind.ONCE),
    Metric("score", "score", "", 1, Kind.MEAN),
    Metric("quality", "quality, the mean score", "", 1, Kind.MEAN),
    Metric("success_rate", "share of questions answered", "", 1, Kind.SHARE),
    Metric("answers", "answers", "", 0, Kind.COUNT),
    Metric("failed_answers", "failed answers", "", -1, Kind.COUNT),
    Metric("runs", kind=Kind.COUNT),
    Metric("loads", kind=Kind.COUNT),
    Metric("looks", kind=Kind.COUNT),
    Metric("attempts", kind=Kind.COUNT),
    Metric("task_score", "task score (n · 3600 / seconds)", "", 1, Kind.ONCE),
    Metric("cost", "cost", "", -1, Kind.ONCE),
    Metric("peak_rss_bytes", "peak memory of the engine's processes", "bytes", -1, Kind.ONCE),
    Metric("peak_vram_bytes", "peak memory on the GPU", "bytes", -1, Kind.ONCE),
    Metric("energy_j", "energy", "J", -1, Kind.ONCE),
    Metric("cpu_energy_j", "energy of the processor", "J", -1, Kind.ONCE),
    Metric("gpu_energy_j", "energy of the GPU", "J", -1, Kind.ONCE),
    Metric("energy_per_token_j", "energy for each token", "J", -1, Kind.ONCE),
    Metric("mean_power_w", "mean power", "W", -1, Kind.ONCE),
    Metric("peak_gpu_celsius", "highest temperature of the GPU", "°C", -1, Kind.ONCE),
    Metric("throttled_s", "time with lowered clocks", "s", -1, Kind.ONCE),
    Metric("gpu_shared_s", "time with another program on the GPU", "s", -1, Kind.ONCE),
    Metric("others_cpu_share", "share of the processor that others used", "", -1, Kind.ONCE),
    Metric("size_bytes", "memory in use", "bytes", -1, Kind.ONCE),
    Metric("size_vram_bytes", "memory in use on the GPU", "bytes", -1, Kind.ONCE),
    Metric("effective_num_ctx", "num_ctx really used", "", 0, Kind.ONCE),
    Metric("effective_num_batch", "num_batch really used", "", 0, Kind.ONCE),
    # Of an answer, in reports and pictures, under the names that people know.
    Metric("prompt_tokens", unit="tokens"),
    Metric("output_tokens", unit="tokens"),
    Metric("total_tokens", unit="tokens"),
    Metric("tokens_per_second", unit="tokens/s", better=1),
)

_declared: dict[str, Metric] = {}
_sources: list[Callable[[], Iterable[Metric]]] = []
_found: dict[str, Metric] = {}


def declare(made: Iterable[Metric]) -> None:
    """Make metrics known; a name that is known already keeps its meaning."""
    for one in made:
        _declared.setdefault(one.name, one)
    _found.clear()


def add_source(source: Callable[[], Iterable[Metric]]) -> None:
    """Ask this for metrics, too, once and only when a name is not known."""
    _sources.append(source)
    _found.clear()


declare(_CORE)


def metric(name: str) -> Metric:
    """What is known of a column by its name. Raises ConfigError for what cannot be a column's name."""
    if name not in _found:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name[:60]!r} is not a metric; only letters, digits and _ (max 40)", "metric")
        if name not in _declared:
            _ask_sources()
        found = _known(name) or Metric(name, is_declared=False)
        words = found.words or name.replace("_", " ")
        _found[name] = replace(found, name=name, words=words)
    return _found[name]


def _known(name: str) -> Metric | None:
    """As it is declared, as the end of another one's range or interval, or as one of a family."""
    if name in _declared:
        return _declared[name]
    stem, _, end = name.rpartition("_")
    if end in _ENDS and stem in _declared:
        return _end_of(_declared[stem], end)
    family = next((one for one in _declared.values() if "*" in one.name and _is_of(name, one.name)), None)
    return family or (_end_of(known, end) if end in _ENDS and stem and (known := _known(stem)) else None)


def _end_of(whole: Metric, end: str) -> Metric:
    return replace(whole, words=f"{whole.words}, {_ENDS[end]}" if whole.words else "", is_ranked=False)


def _is_of(name: str, family: str) -> bool:
    before, _, after = family.partition("*")
    return name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)


def _ask_sources() -> None:
    while _sources:
        declare(_sources.pop()())


def named() -> list[str]:
    """Every column that somebody gives words, in order."""
    _ask_sources()
    return sorted(name for name, one in _declared.items() if one.words and "*" not in name)


def default_metric(results: Iterable[CellResult]) -> str:
    """The metric that these cells are about: how good the answers are where they are judged, else a speed.

    Before the first number it goes by the name of the task.
    """
    results = list(results)
    tasks = {result.task for result in results}
    if tasks <= {MAIN_TASK}:
        return DEFAULT_METRIC
    existing = {column for result in results if result.status is Status.OK for column in result.metrics}
    expected = next((_OF_TASKS[task] for task in sorted(tasks) if task in _OF_TASKS), "quality")
    return next((name for name in _PREFERRED if name in existing), DEFAULT_METRIC if existing else expected)


def find_metric(name: str, results: Iterable[CellResult]) -> Metric:
    """The metric, checked against what the results hold. Raises ConfigError that lists those that exist.

    Before the first number every column known by name is accepted; a default one always is.
    """
    found, results = metric(name), list(results)
    existing = sorted({column for result in results for column in result.metrics}) or named()
    if name not in (DEFAULT_METRIC, default_metric(results)) and name not in existing:
        worded = named()
        shown = existing if len(existing) <= _MOST_LISTED else [column for column in existing if column in worded]
        more = f" and {len(existing) - len(shown)} more" if len(shown) < len(existing) else ""
        known = f"{', '.join(shown)}{more}.{nearest(name, existing)}"
        raise ConfigError(f"unknown metric {name}. Known: {known}", "metric")
    return found
