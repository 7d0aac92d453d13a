"""What the answers of a cell say together: speeds of one answer, latencies, means, a breakdown by category.

An answer is counted where there is one (`run.answer.failure` is empty); what was not answered is in no mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from ollama_sweep.core import stats
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.outcome import Run

PERCENTILES = {"latency_p50_s": 0.5, "latency_p95_s": 0.95, "latency_p99_s": 0.99}


def speed(generation: Generation) -> dict[str, float]:
    """Speeds of one answer: over all of its time, generation_time_s without the time to the first token."""
    scores: dict[str, float] = {"output_words": float(len(generation.text.split()))}
    duration_s = generation.client_duration_s
    if generation.ttft_s is not None and duration_s >= generation.ttft_s:
        scores["generation_time_s"] = duration_s - generation.ttft_s
    if duration_s > 0:
        scores["chars_per_s"] = len(generation.text) / duration_s
        if generation.eval_count is not None:
            scores["tokens_per_s"] = generation.eval_count / duration_s
    return scores


def measured(runs: Iterable[Run]) -> list[Run]:
    """The runs that asked a question, failed ones among them."""
    return [run for run in runs if not run.warmup and run.answer is not None]


def answered(runs: Iterable[Run]) -> list[Run]:
    """The runs that have an answer."""
    return [run for run in measured(runs) if run.answer and not run.answer.failure]


def latencies(runs: Sequence[Run]) -> dict[str, float]:
    """Mean, percentiles and the longest of what the person waited for an answer; requests_per_min is 60 / mean."""
    found = [run.client_duration_s for run in answered(runs) if run.believed]
    if not found:
        return {}
    mean_s = sum(found) / len(found)
    percentiles = {name: stats.percentile(found, share) for name, share in PERCENTILES.items()}
    rate = {"requests_per_min": 60 / mean_s} if mean_s > 0 else {}
    return {"latency_mean_s": mean_s, **percentiles, "latency_max_s": max(found), **rate}


def means(runs: Sequence[Run], names: Iterable[str]) -> dict[str, float]:
    """The mean of each score over the answers that have it; a score that no answer has is left out."""
    by_name = {name: [run.scores[name] for run in answered(runs) if name in run.scores] for name in names}
    return {name: sum(values) / len(values) for name, values in by_name.items() if values}


def average(runs: Sequence[Run], name: str, value: Callable[[Run], float | None]) -> dict[str, float]:
    """avg_NAME over the believed answers."""
    found = [number for run in answered(runs) if run.believed and (number := value(run)) is not None]
    return {f"avg_{name}": sum(found) / len(found)} if found else {}


def by_category(runs: Sequence[Run]) -> dict[str, float]:
    """For every category: answers, the share that was answered, the mean score, and the mean tokens per second."""
    scores: dict[str, float] = {}
    asked = measured(runs)
    for category in sorted({run.answer.category for run in asked if run.answer and run.answer.category}):
        own = [run for run in asked if run.answer and run.answer.category == category]
        name, good = slug(category), answered(own)
        scores[f"answers_{name}"] = float(len(good))
        scores[f"success_rate_{name}"] = len(good) / len(own)
        for score, short in (("score", "score"), ("tokens_per_s", "avg_tps")):
            scores |= {f"{short}_{name}": value for value in means(good, [score]).values()}
    return scores


_SLUG_LENGTH = 27
"""So that `success_rate_` and a slug make a metric's name of at most 40 characters."""


def slug(category: str) -> str:
    """A category as part of a score's name: `Instruction Following` -> `instruction_following`."""
    return re.sub(r"[^a-z0-9]+", "_", category.casefold()).strip("_")[:_SLUG_LENGTH].strip("_") or "other"
