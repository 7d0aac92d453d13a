"""The numbers of a cell, of its runs: medians, ranges, intervals. Pure; docs/measurement.md gives the reasons.

What answers come to together is said here once: of the runs of a cell while it is measured, and of kept answers,
whose cells a report or a picture may pool.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ollama_sweep.core import rates, stats
from ollama_sweep.core.metrics import Kind, metric
from ollama_sweep.core.noise import spread
from ollama_sweep.core.noise.spread import Load, load_of
from ollama_sweep.core.outcome import Asked, Run, Summary
from ollama_sweep.core.rates import streamed_decode_rate
from ollama_sweep.core.stats import known_median

A = TypeVar("A", bound=Asked)
PROMPT_RATE = "prompt_eval_rate"
SEEN_SHARE = 0.01
"""So much of the time an overlap of answers must last to be one."""


@dataclass(frozen=True)
class Category:
    """The questions of one category: how many were asked and answered, their mean tokens/s and mean score."""

    asked: int
    succeeded: int
    tokens_per_s: float | None
    score: float | None

    @property
    def success_rate(self) -> float | None:
        return rates.share(self.succeeded, self.asked)


def answered(asked: Iterable[A]) -> list[A]:
    """Those with an answer; the others failed and are never averaged in."""
    return [one for one in asked if one.answer is not None and not one.answer.failure]


def tokens_per_s(one: Asked) -> float | None:
    """Output tokens over the whole latency, the wait for the first one included."""
    return rates.per_second(one.eval_count, one.latency_s)


def score_mean(asked: Iterable[Asked]) -> float | None:
    """The mean score of what was answered; a question that was asked several times, also in several cells, counts once.

    None where nothing was judged.
    """
    found = _scores_by_question(asked)
    return stats.mean_over_questions(found) if found else None


def score_interval(asked: Iterable[Asked]) -> tuple[float, float] | None:
    """(low, high): where the true mean score lies with 95 %, by `stats.mean_interval`: questions count, not answers."""
    return stats.mean_interval(_scores_by_question(asked))


def categories(asked: Iterable[A]) -> dict[str, Category]:
    """By category, in the order in which they come; {} without categories."""
    found: dict[str, list[A]] = {}
    for one in asked:
        if one.answer and one.answer.category:
            found.setdefault(one.answer.category, []).append(one)
    return {name: _category(members) for name, members in found.items()}


def _category(asked: Sequence[Asked]) -> Category:
    good = answered(asked)
    return Category(len(asked), len(good), stats.known_mean(map(tokens_per_s, good)), score_mean(good))


def _scores_by_question(asked: Iterable[Asked]) -> list[list[float]]:
    found: dict[str, list[float]] = {}
    for one in answered(asked):
        score = one.scores.get("score")
        if one.answer is not None and score is not None and math.isfinite(score):
            found.setdefault(one.answer.item, []).append(score)
    return list(found.values())


# -- a cell ----------------------------------------------------------------------------------------------------------


def summarize(*loads: Sequence[Run]) -> Summary:
    """Medians of the believed runs, warm-ups left out; the prompt's rate of several loads by `spread.value_of`."""
    used = [run for runs in loads for run in runs if run.believed and not run.warmup]
    speeds = [run.prompt_eval_rate for run in used if run.prompt_eval_rate is not None]
    if not speeds:
        return Summary()
    said = [load[PROMPT_RATE] for runs in loads if PROMPT_RATE in (load := own_load(runs))]
    names = sorted({name for run in used for name in run.scores})
    count = known_median([run.prompt_eval_count for run in used])
    eval_count = known_median([run.eval_count for run in used])
    return Summary(
        runs=len(used),
        prompt_eval_count=None if count is None else round(count),
        loads=max(1, len(said)),
        prompt_eval_rate=spread.value_of(said) if len(said) > 1 else stats.median(speeds),
        prompt_eval_rate_min=min(speeds),
        prompt_eval_rate_max=max(speeds),
        prompt_eval_duration_s=known_median([run.prompt_eval_duration_s for run in used]),
        eval_count=None if eval_count is None else round(eval_count),
        eval_rate=known_median([run.eval_rate for run in used]),
        total_duration_s=known_median([run.total_duration_s for run in used]),
        scores={
            **{name: stats.median([run.scores[name] for run in used if name in run.scores]) for name in names},
            **_thinking(used),
            **_task_score(len(used), used),
        },
    )


def energy_per_token(seen: Mapping[str, float], runs: Sequence[Run]) -> dict[str, float]:
    """J for each token that was really read or written in an attempt, the warm-up's as well; `seen` by telemetry."""
    tokens = sum((run.prompt_eval_count or 0) - (run.cached_count or 0) + (run.eval_count or 0) for run in runs)
    return {"energy_per_token_j": seen["energy_j"] / tokens} if "energy_j" in seen and tokens else {}


def _thinking(used: Sequence[Run]) -> dict[str, float]:
    """Tokens and time of thoughts: medians of the runs that had some."""
    found = {
        "thinking_count": known_median([run.thinking_count for run in used]),
        "thinking_duration_s": known_median([run.thinking_duration_s for run in used]),
    }
    return {name: value for name, value in found.items() if value is not None}


def own_load(runs: Sequence[Run]) -> dict[str, Load]:
    """What the runs of one load say by themselves, of each number that cells are ranked by and that loads differ in.

    Of a task with questions that is one value a load: questions differ, and that is no noise.
    """
    used = [run for run in runs if run.believed and not run.warmup]
    if any(run.answer is not None for run in used):
        return {name: load_of([value]) for name, value in _speeds(used).items() if metric(name).is_ranked and value > 0}
    rates = [run.prompt_eval_rate for run in used if run.prompt_eval_rate]
    return {PROMPT_RATE: load_of(rates)} if rates else {}


def summarize_answers(runs: Sequence[Run], added: Mapping[str, float], loads: int = 1) -> Summary:
    """Numbers of a cell whose task has questions; `runs` are all measured ones, `added` what the task adds.

    A score is a median or a mean of those of the answers, as it is declared. `quality` is
    the mean score where a question without an answer counts 0. What tasks are ranked by has an interval: a mean the one
    in which it truly lies (NAME_low, NAME_high), a speed its range (NAME_min, NAME_max), and its interval is made of
    both spreads where it is shown. Raises nothing; without answers all is empty.
    """
    used = [run for run in runs if run.believed]
    if not used:
        return Summary()
    count = known_median([run.prompt_eval_count for run in used])
    eval_count = known_median([run.eval_count for run in used])
    return Summary(
        runs=len(used),
        loads=loads,
        prompt_eval_count=None if count is None else round(count),
        prompt_eval_rate=known_median([run.prompt_eval_rate for run in used]),
        prompt_eval_duration_s=known_median([run.prompt_eval_duration_s for run in used]),
        eval_count=None if eval_count is None else round(eval_count),
        eval_rate=known_median([run.eval_rate for run in used]),
        total_duration_s=known_median([run.total_duration_s for run in used]),
        scores={
            **_scores(used),
            **_of_all(runs, used),
            **_speeds(used),
            **_thinking(used),
            **_at_once(runs),
            **_qualities(runs, used),
            **added,
        },
    )


def _scores(used: Sequence[Run]) -> dict[str, float]:
    names = sorted({name for run in used for name in run.scores})
    return {name: _middle(name, [run.scores[name] for run in used if name in run.scores]) for name in names}


def _middle(name: str, values: Sequence[float]) -> float:
    """As the score is declared; of one that nobody declared the mean where all values are 0 or 1."""
    declared = metric(name)
    is_mean = declared.kind is not Kind.MEDIAN if declared.is_declared else set(values) <= {0.0, 1.0}
    return stats.mean(values) if is_mean else stats.median(values)


def _of_all(runs: Sequence[Run], used: Sequence[Run]) -> dict[str, float]:
    """What every task with questions has: how many of them were answered, and in what time."""
    return {
        "answers": len(used),
        "failed_answers": len(runs) - len(used),
        "success_rate": len(used) / len(runs),
        **_task_score(len(used), runs),
    }


def _task_score(count: int, runs: Sequence[Run]) -> dict[str, float]:
    """What was answered, over all the time that it took, as so many an hour."""
    found = rates.task_score(count, sum(run.latency_s for run in runs))
    return {} if found is None else {"task_score": found}


def _speeds(used: Sequence[Run]) -> dict[str, float]:
    """Times and speeds of the answers: medians, the smallest and the largest."""
    scored = {name for run in used for name in run.scores if metric(name).is_ranked}
    seen: dict[str, list[float | None]] = {
        "latency_s": [run.latency_s for run in used],
        "ttft_s": [run.ttft_s for run in used],
        "decode_tps": [streamed_decode_rate(run.eval_count, run.latency_s, run.ttft_s) for run in used],
        **{name: [run.scores.get(name) for run in used] for name in sorted(scored)},
    }
    found: dict[str, float] = {}
    for name, values in seen.items():
        known = [value for value in values if value is not None]
        if known:
            found |= {name: stats.median(known), f"{name}_min": min(known), f"{name}_max": max(known)}
    return found


def asked_s(runs: Iterable[Run]) -> float:
    """The seconds from the first request of these runs to the last end; 0 where nobody looked."""
    return max((run.started_s + run.latency_s for run in runs if run.started_s is not None), default=0.0)


def _at_once(runs: Sequence[Run]) -> dict[str, float]:
    """What a server does for all who ask it together: of the time from the first request to the last end.

    `runs` are all measured ones, answered or not, of one load or of several, each with a clock of its own.
    """
    timed = [run for run in runs if run.started_s is not None]
    good = [run for run in timed if run.believed]
    if not good:
        return {}
    loads = by_load(timed)
    seconds = sum(map(asked_s, loads))
    tokens = [run.eval_count for run in good]
    waits = [run.ttft_s for run in good if run.ttft_s is not None]
    found = {
        "requests_per_s": rates.per_second(len(good), seconds),
        "tokens_per_s_total": None if None in tokens else rates.per_second(sum(filter(None, tokens)), seconds),
        "ttft_s_p50": stats.percentile(waits, 0.5) if waits else None,
        "ttft_s_p95": stats.percentile(waits, 0.95) if waits else None,
        "served_parallel": most_served(loads),
    }
    return {name: value for name, value in found.items() if value is not None}


def by_load(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs of each load: their numbers rise, and begin anew with the next one."""
    loads: list[list[Run]] = []
    for run in runs:
        if not loads or run.number <= loads[-1][-1].number:
            loads.append([])
        loads[-1].append(run)
    return loads


Span = Callable[[Run], tuple[float, float]]


def as_seen(run: Run) -> tuple[float, float]:
    """When the client saw an answer begin and end, in seconds of its load."""
    started_s = run.started_s or 0.0
    return started_s + (run.ttft_s or 0.0), started_s + run.latency_s


def as_served(run: Run) -> tuple[float, float]:
    """When an answer was given: as long as the server says, and not later than its begin and its end were seen. A busy
    client sees one of both late, seldom both by as much.
    """
    begin, end = as_seen(run)
    if run.eval_duration_s:
        end = min(end, begin + run.eval_duration_s)
        begin = min(begin, end - run.eval_duration_s)
    return begin, end


def most_served(loads: Iterable[Iterable[Run]], when: Span = as_served) -> int | None:
    """`served_parallel` of a cell of several loads."""
    served = [count for load in loads if (count := served_parallel(load, when)) is not None]
    return max(served, default=None)


def served_parallel(runs: Iterable[Run], when: Span = as_served) -> int | None:
    """How many answers the server was giving at the same time, at most; None where no answer shows that.

    An answer is given from its first piece to its last one, so one that waits for another's end is not counted. What
    lasted under a hundredth of the time in which answers were given is the client's own delay, and left out.
    """
    given = [
        when(run)
        for run in runs
        if run.believed and run.started_s is not None and run.ttft_s is not None and _has_pieces(run)
    ]
    steps = sorted(step for begin, end in given if begin < end for step in ((begin, 1), (end, -1)))
    lasted: dict[int, float] = {}
    count, before = 0, 0.0
    for at, change in steps:
        lasted[count] = lasted.get(count, 0.0) + at - before if count else 0.0
        count, before = count + change, at
    least = SEEN_SHARE * sum(lasted.values())
    return next((most for most in sorted(lasted, reverse=True) if most and _reached(lasted, most) >= least), None)


def _reached(lasted: Mapping[int, float], count: int) -> float:
    """The seconds with so many or more."""
    return sum(seconds for many, seconds in lasted.items() if many >= count)


def _has_pieces(run: Run) -> bool:
    return run.answer is not None and (run.answer.chunk_count or 0) > 1


def _qualities(runs: Sequence[Run], used: Sequence[Run]) -> dict[str, float]:
    """`score` over what was answered, `quality`, in which what was not answered counts 0, and their intervals."""
    score, found = score_mean(used), score_interval(used)
    if score is None:
        return {}
    by_question: dict[str, list[float]] = {}
    for run in runs:
        by_question.setdefault(run.answer.item if run.answer else "", []).append(run.scores.get("score", 0.0))
    of_all = list(by_question.values())
    means = {"score": score, "quality": stats.mean_over_questions(of_all)}
    return means | _ends("quality", stats.mean_interval(of_all)) | _ends("score", found)


def _ends(name: str, interval: tuple[float, float] | None) -> dict[str, float]:
    return {f"{name}_low": interval[0], f"{name}_high": interval[1]} if interval else {}
