"""The numeric columns of a result: their words, units, which way is better, and how a value is written. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ollama_sweep.cells import CellResult
from ollama_sweep.errors import ConfigError, nearest
from ollama_sweep.stats import extent
from ollama_sweep.units import format_bytes, format_rate

DEFAULT_METRIC = "prompt_eval_rate"
_NAME = re.compile(r"[A-Za-z0-9_]{1,40}")
_STATISTIC = re.compile(r"_(min|max|median|mean|p\d\d)$")
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
    "size_bytes": "memory in use",
    "size_vram_bytes": "memory in use on the GPU",
    "effective_num_ctx": "num_ctx really used",
    "effective_num_batch": "num_batch really used",
}
_OF_THE_LOAD = re.compile(r"^(load_|size_|effective_|runs$|attempts$)")
_NEUTRAL = re.compile(r"(^effective_|_count$|^runs$|^attempts$|^num_|_size$)")


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
    better = -1 if unit in {"s", "bytes"} else 0 if _NEUTRAL.search(stem) else 1
    return Metric(name, _WORDS.get(name, name.replace("_", " ")), unit, better)


def find_metric(name: str, results: Iterable[CellResult]) -> Metric:
    """The metric, checked against what the results hold. Raises ConfigError that lists those that exist.

    Before the first number every column known by name is accepted; the default one always is.
    """
    found = metric(name)
    existing = sorted({column for result in results for column in result.metrics}) or sorted(_WORDS)
    if name != DEFAULT_METRIC and name not in existing:
        raise ConfigError(f"unknown metric {name}. Known: {', '.join(existing)}.{nearest(name, existing)}", "metric")
    return found


def range_and_runs(result: CellResult, of: Metric) -> str:
    """`322–335, 3 runs`: what a measured cell's value rests on; what is not known is left out."""
    low, high = (of.text(bound) for bound in extent(result, of.name))
    runs = int(result.metrics.get("runs", 0)) if of.is_per_run else 0
    parts = [f"{low}–{high}"] if low != high else []
    return ", ".join([*parts, f"{runs} run{'s' if runs > 1 else ''}"] if runs else parts)


def _unit(stem: str) -> str:
    if stem.endswith(("_rate", "_tps")):
        return "tokens/s"
    if stem.endswith("_bytes"):
        return "bytes"
    if stem.endswith("_s"):
        return "s"
    return "tokens" if stem.endswith("_count") else ""
