"""The numbers of a cell, of its runs: medians, ranges, intervals. Pure; docs/measurement.md gives the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ollama_sweep.core import stats
from ollama_sweep.core.outcome import Run, Summary
from ollama_sweep.core.rates import streamed_decode_rate, task_score


def summarize(runs: Sequence[Run]) -> Summary:
    """Medians of the believed runs, warm-ups left out."""
    used = [run for run in runs if run.believed and not run.warmup]
    rates = [run.prompt_eval_rate for run in used if run.prompt_eval_rate is not None]
    if not rates:
        return Summary()
    names = sorted({name for run in used for name in run.scores})
    count = _median([run.prompt_eval_count for run in used])
    eval_count = _median([run.eval_count for run in used])
    return Summary(
        runs=len(used),
        prompt_eval_count=None if count is None else round(count),
        prompt_eval_rate=stats.median(rates),
        prompt_eval_rate_min=min(rates),
        prompt_eval_rate_max=max(rates),
        prompt_eval_duration_s=_median([run.prompt_eval_duration_s for run in used]),
        eval_count=None if eval_count is None else round(eval_count),
        eval_rate=_median([run.eval_rate for run in used]),
        total_duration_s=_median([run.total_duration_s for run in used]),
        scores={
            **{name: stats.median([run.scores[name] for run in used if name in run.scores]) for name in names},
            **_interval("prompt_eval_rate", rates, len(used)),
            **task_score(len(used), used),
        },
    )


def _interval(name: str, values: Sequence[float], runs: int) -> dict[str, float]:
    """NAME_low and NAME_high, between which the true median lies; nothing where too few runs, or not all, have it."""
    if len(values) < max(stats.ORDER_STATISTIC_RUNS, runs):
        return {}
    low, high = stats.interval(values)
    return {f"{name}_low": low, f"{name}_high": high}


def summarize_answers(runs: Sequence[Run], added: Mapping[str, float]) -> Summary:
    """Numbers of a cell whose task has questions; `runs` are all measured ones, `added` what the task adds.

    Shares (scores that are 0 or 1, and `score`) are means, everything else is a median over the answers. `quality` is
    the mean score where a question without an answer counts 0. What tasks are ranked by has an interval: a mean the one
    in which it truly lies (NAME_low, NAME_high), a speed its range (NAME_min, NAME_max), and from six answers on the
    interval of its median. Raises nothing; without answers all is empty.
    """
    used = [run for run in runs if run.believed]
    if not used:
        return Summary()
    count = _median([run.prompt_eval_count for run in used])
    eval_count = _median([run.eval_count for run in used])
    return Summary(
        runs=len(used),
        prompt_eval_count=None if count is None else round(count),
        prompt_eval_rate=_median([run.prompt_eval_rate for run in used]),
        prompt_eval_duration_s=_median([run.prompt_eval_duration_s for run in used]),
        eval_count=None if eval_count is None else round(eval_count),
        eval_rate=_median([run.eval_rate for run in used]),
        total_duration_s=_median([run.total_duration_s for run in used]),
        scores={**_scores(used), **_of_all(runs, used), **_speeds(used), **_qualities(runs, used), **added},
    )


def _scores(used: Sequence[Run]) -> dict[str, float]:
    names = sorted({name for run in used for name in run.scores})
    return {name: _middle(name, [run.scores[name] for run in used if name in run.scores]) for name in names}


def _middle(name: str, values: Sequence[float]) -> float:
    if name == "score" or set(values) <= {0.0, 1.0}:
        return sum(values) / len(values)
    return stats.median(values)


def _of_all(runs: Sequence[Run], used: Sequence[Run]) -> dict[str, float]:
    """What every task with questions has: how many of them were answered, and in what time."""
    return {
        "answers": len(used),
        "failed_answers": len(runs) - len(used),
        "success_rate": len(used) / len(runs),
        **task_score(len(used), runs),
    }


def _speeds(used: Sequence[Run]) -> dict[str, float]:
    """Times and speeds of the answers: medians, the smallest and the largest, intervals."""
    scored = stats.MEDIANS & {name for run in used for name in run.scores}
    seen: dict[str, list[float | None]] = {
        "latency_s": [run.client_duration_s for run in used],
        "ttft_s": [run.ttft_s for run in used],
        "decode_tps": [streamed_decode_rate(run) for run in used],
        **{name: [run.scores.get(name) for run in used] for name in sorted(scored)},
    }
    found: dict[str, float] = {}
    for name, values in seen.items():
        known = [value for value in values if value is not None]
        if known:
            found |= {name: stats.median(known), f"{name}_min": min(known), f"{name}_max": max(known)}
            found |= _interval(name, known, len(used))
    return found


def _qualities(runs: Sequence[Run], used: Sequence[Run]) -> dict[str, float]:
    """`quality`, in which what was not answered counts 0, and the intervals of that and of `score`."""
    scored = [run for run in used if "score" in run.scores]
    if not scored:
        return {}
    quality = sum(run.scores["score"] for run in scored) / len(runs)
    return {"quality": quality} | _mean_interval("quality", runs) | _mean_interval("score", scored)


def _mean_interval(name: str, runs: Sequence[Run]) -> dict[str, float]:
    by_question: dict[str, list[float]] = {}
    for run in runs:
        by_question.setdefault(run.answer.item if run.answer else "", []).append(run.scores.get("score", 0.0))
    found = stats.mean_interval(list(by_question.values()))
    return {f"{name}_low": found[0], f"{name}_high": found[1]} if found else {}


def _median(values: Sequence[float | int | None]) -> float | None:
    present = [float(value) for value in values if value is not None]
    return stats.median(present) if present else None
