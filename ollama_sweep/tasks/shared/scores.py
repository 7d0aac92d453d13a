"""What the answers of a cell say together: speeds of one answer, latencies, means, a breakdown by category.

An answer is counted where there is one (`run.answer.failure` is empty); what was not answered is in no mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from ollama_sweep.core import rates, stats, summary
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.metrics import Kind, Metric
from ollama_sweep.core.outcome import Run

SPEEDS = (
    Metric("output_words"),
    Metric("generation_time_s", "time from the first token to the last", "s", -1),
    Metric("chars_per_s", "output characters over the whole latency", "chars/s", 1),
    Metric("tokens_per_s", "output tokens over the whole latency", "tokens/s", 1, is_ranked=True),
)
"""Of every answer; no judgement of it."""
LATENCIES = (
    Metric("latency_mean_s", "mean latency", "s", -1, Kind.MEAN),
    Metric("latency_p50_s", "median latency", "s", -1),
    Metric("latency_p95_s", "95th percentile of the latency", "s", -1),
    Metric("latency_p99_s", "99th percentile of the latency", "s", -1),
    Metric("latency_max_s", "longest latency", "s", -1),
    Metric("requests_per_min", "requests per minute", "requests/min", 1),
)
AVERAGES = (
    Metric("avg_tokens_per_s", "", "tokens/s", 1, Kind.MEAN),
    Metric("avg_ttft_s", "", "s", -1, Kind.MEAN),
)
OF_CATEGORIES = (
    Metric("answers_*", kind=Kind.COUNT),
    Metric("success_rate_*", better=1, kind=Kind.SHARE),
    Metric("score_*", better=1, kind=Kind.MEAN),
    Metric("avg_tps_*", unit="tokens/s", better=1, kind=Kind.MEAN),
)
OLD_NAMES = (
    Metric("min_tokens_per_s", unit="tokens/s", better=1),
    Metric("max_tokens_per_s", unit="tokens/s", better=1),
    Metric("min_ttft_s", unit="s", better=-1),
    Metric("max_ttft_s", unit="s", better=-1),
)
"""Of databases that were made before the ends of a range were called NAME_min and NAME_max."""


def speed(generation: Generation) -> dict[str, float]:
    """Speeds of one answer: over all of its time, generation_time_s without the time to the first token."""
    duration_s = generation.client_duration_s
    found: dict[str, float | None] = {
        "output_words": float(len(generation.text.split())),
        "generation_time_s": rates.generation_time(duration_s, generation.ttft_s),
        "chars_per_s": rates.per_second(len(generation.text), duration_s),
        "tokens_per_s": rates.per_second(generation.eval_count, duration_s),
    }
    return {name: value for name, value in found.items() if value is not None}


def answered(runs: Iterable[Run]) -> list[Run]:
    """The measured runs that have an answer."""
    return summary.answered(run for run in runs if not run.warmup)


def latencies(runs: Sequence[Run]) -> dict[str, float]:
    """Mean, percentiles and the longest of what the person waited for an answer, and the requests per minute."""
    found = stats.spread(run.latency_s for run in answered(runs) if run.believed)
    if found is None:
        return {}
    named = {"latency_mean_s": found.mean, "latency_p50_s": found.median, "latency_p95_s": found.p95,
             "latency_p99_s": found.p99, "latency_max_s": found.high}  # fmt: skip
    rate = rates.requests_per_min(found.mean)
    return named if rate is None else named | {"requests_per_min": rate}


def means(runs: Sequence[Run], names: Iterable[str]) -> dict[str, float]:
    """The mean of each score over the answers that have it; a score that no answer has is left out."""
    found = {name: stats.known_mean(run.scores.get(name) for run in answered(runs)) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def average(runs: Sequence[Run], name: str, value: Callable[[Run], float | None]) -> dict[str, float]:
    """avg_NAME over the believed answers."""
    found = stats.known_mean(value(run) for run in answered(runs) if run.believed)
    return {} if found is None else {f"avg_{name}": found}


def by_category(runs: Sequence[Run]) -> dict[str, float]:
    """For every category: answers, the share that was answered, the mean score, and the mean tokens per second."""
    scores: dict[str, float | None] = {}
    for category, found in sorted(summary.categories(run for run in runs if not run.warmup).items()):
        name = slug(category)
        scores |= {f"answers_{name}": float(found.succeeded), f"success_rate_{name}": found.success_rate,
                   f"score_{name}": found.score, f"avg_tps_{name}": found.tokens_per_s}  # fmt: skip
    return {name: value for name, value in scores.items() if value is not None}


_SLUG_LENGTH = 27
"""So that `success_rate_` and a slug make a metric's name of at most 40 characters."""


def slug(category: str) -> str:
    """A category as part of a score's name: `Instruction Following` -> `instruction_following`."""
    return re.sub(r"[^a-z0-9]+", "_", category.casefold()).strip("_")[:_SLUG_LENGTH].strip("_") or "other"
