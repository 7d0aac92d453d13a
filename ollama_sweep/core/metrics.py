"""The numeric columns of a result: their words, units, which way is better, and how a value is written. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ollama_sweep.core.cell import MAIN_TASK
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.outcome import CellResult, Status
from ollama_sweep.core.stats import in_words, interval_of
from ollama_sweep.core.units import format_bytes, format_rate

DEFAULT_METRIC = "prompt_eval_rate"
_NAME = re.compile(r"[A-Za-z0-9_]{1,40}")
_STATISTIC = re.compile(r"(?<!_per)_(min|max|median|mean|low|high|p\d\d)$")
_WORDS = {
    "prompt_eval_rate": "prompt processing speed",
    "prompt_eval_rate_min": "prompt processing speed of the slowest run",
    "prompt_eval_rate_max": "prompt processing speed of the fastest run",
    "prompt_eval_duration_s": "prompt processing time",
    "prompt_eval_count": "prompt tokens",
    "eval_rate": "generation speed",
    "eval_duration_s": "generation time",
    "eval_count": "generated tokens",
    "load_duration_s": "load time",
    "total_duration_s": "total time of a run",
    "ttft_s": "time to the first token",
    "latency_s": "latency",
    "latency_mean_s": "mean latency",
    "latency_p50_s": "median latency",
    "latency_p95_s": "95th percentile of the latency",
    "latency_p99_s": "99th percentile of the latency",
    "latency_max_s": "longest latency",
    "generation_time_s": "time from the first token to the last",
    "tokens_per_s": "output tokens over the whole latency",
    "decode_tps": "decode speed without the first token",
    "chars_per_s": "output characters over the whole latency",
    "requests_per_min": "requests per minute",
    "rows_per_s": "embedding speed",
    "encoding_time_s": "time to embed all rows",
    "embedding_dimension": "dimension of the vectors",
    "score": "score",
    "quality": "quality, the mean score",
    "accuracy": "accuracy",
    "letter_failure_rate": "share of answers without a letter",
    "valid_json": "share of valid JSON",
    "success_rate": "share of questions answered",
    "answers": "answers",
    "failed_answers": "failed answers",
    "task_score": "task score (n · 3600 / seconds)",
    "cost": "cost",
    "peak_rss_bytes": "peak memory of the engine's processes",
    "peak_vram_bytes": "peak memory on the GPU",
    "energy_j": "energy",
    "cpu_energy_j": "energy of the processor",
    "gpu_energy_j": "energy of the GPU",
    "throttled_s": "time with lowered clocks",
    "size_bytes": "memory in use",
    "size_vram_bytes": "memory in use on the GPU",
    "effective_num_ctx": "num_ctx really used",
    "effective_num_batch": "num_batch really used",
}
_ENDS = {
    "min": "smallest",
    "max": "largest",
    "low": "lower end of its interval",
    "high": "upper end of its interval",
}
_UNITS = {
    "chars_per_s": "chars/s",
    "rows_per_s": "rows/s",
    "tokens_per_s": "tokens/s",
    "requests_per_min": "requests/min",
}
_LOWER_IS_BETTER = re.compile(
    r"(^failed_|_failures?$|_failure_rate$|_energy_j$|^energy_j$|^throttled_s$|^placeholder|^hallucinated|^cost$)"
)
_SHARES = re.compile(r"^success_rate|_(failure|error)_rate$")
_PREFERRED = ("quality", "score", "accuracy", "decode_tps", "tokens_per_s", "rows_per_s")
_MOST_LISTED = 40
_OF_TASKS = {"chat": "decode_tps", "embeddings": "rows_per_s"}
_OF_THE_LOAD = re.compile(
    r"^(load_|size_|effective_|runs$|attempts$|answers$|failed_|peak_|(cpu_|gpu_)?energy_|throttled_|task_score$|cost$)"
)
_NEUTRAL = re.compile(r"(^effective_|_count$|_words$|^runs$|^attempts$|^answers|_answers$|^num_|_size$|_dimension$)")


@dataclass(frozen=True)
class Metric:
    """A numeric column. `better` is 1 where higher is better, -1 where lower is, 0 where neither."""

    name: str
    words: str
    unit: str
    better: int

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
        """Every run has one, so that the cell's value is a median; else the load or the cell has one."""
        return not _OF_THE_LOAD.search(self.name)

    @property
    def is_bytes(self) -> bool:
        return self.unit == "bytes"

    @property
    def direction(self) -> str:
        """`higher is better`, `lower is better`, or nothing."""
        return {1: "higher is better", -1: "lower is better"}.get(self.better, "")


def metric(name: str) -> Metric:
    """What is known of a column by its name. Raises ConfigError for what cannot be a column's name."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:60]!r} is not a metric; only letters, digits and _ (max 40)", "metric")
    stem = _STATISTIC.sub("", name)
    unit = _unit(stem)
    lower = bool(_LOWER_IS_BETTER.search(stem)) or unit in {"s", "bytes"}
    better = -1 if lower else 0 if _NEUTRAL.search(stem) else 1
    return Metric(name, _words(name, stem), unit, better)


def _words(name: str, stem: str) -> str:
    end = _ENDS.get(name[len(stem) + 1 :])
    if name in _WORDS or stem not in _WORDS or not end:
        return _WORDS.get(name, name.replace("_", " "))
    return f"{_WORDS[stem]}, {end}"


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
    existing = sorted({column for result in results for column in result.metrics}) or sorted(_WORDS)
    if name not in (DEFAULT_METRIC, default_metric(results)) and name not in existing:
        shown = existing if len(existing) <= _MOST_LISTED else [column for column in existing if column in _WORDS]
        more = f" and {len(existing) - len(shown)} more" if len(shown) < len(existing) else ""
        known = f"{', '.join(shown)}{more}.{nearest(name, existing)}"
        raise ConfigError(f"unknown metric {name}. Known: {known}", "metric")
    return found


def range_and_runs(result: CellResult, of: Metric, *, sure: bool = True) -> str:
    """`322–335, 3 runs`: what a measured cell's value rests on; what is not known is left out.

    From six runs on it is the interval: `325–334 at 96.1 %, 9 runs`; without `sure` it does not say how sure that is.
    """
    found = interval_of(result, of.name)
    found = found if sure else replace(found, coverage=None)
    runs = int(result.metrics.get("runs", 0)) if of.is_per_run else 0
    parts = [in_words(found, of.text)] if of.text(found.low) != of.text(found.high) else []
    failed = int(result.metrics.get("failed_answers", 0))
    word = "answer" if "answers" in result.metrics else "run"
    counted = f"{runs} of {runs + failed} answered" if failed else f"{runs} {word}{'s' if runs > 1 else ''}"
    return ", ".join([*parts, counted] if runs else parts)


def _unit(stem: str) -> str:
    for name, unit in _UNITS.items():
        if stem.endswith(name):
            return unit
    if _SHARES.search(stem):
        return ""
    if stem.endswith(("_rate", "_tps")) or "_tps_" in stem:
        return "tokens/s"
    if stem.endswith("_bytes"):
        return "bytes"
    if stem.endswith("_s"):
        return "s"
    if stem.endswith("_j"):
        return "J"
    return "tokens" if stem.endswith("_count") else ""
