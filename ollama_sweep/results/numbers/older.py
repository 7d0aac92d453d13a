"""Rules by which earlier versions made numbers, each with its name: for nothing but to know such a number again.

A rule here is one that was in use: a number of a database of that time agrees with it and with no later one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ollama_sweep.core import rates, stats, summary
from ollama_sweep.core.judge import BELIEVED_CACHED_SHARE
from ollama_sweep.core.outcome import Run
from ollama_sweep.tasks.shared.scores import slug

ORDER_STATISTICS = "an interval of the runs alone, by their order"
"""From six runs on NAME_low and NAME_high were two of the runs themselves."""
MEDIAN_OF_RUNS = "the median of all runs, not of loads"
ENDS_OF_A_RANGE = "the ends of a range were called min_NAME and max_NAME"
OVER_ANSWERS = "a mean over answers, not over questions"
BY_VALUES = "a mean where all values are 0 or 1, else a median"
"""Before the kind of a number was declared."""
ALL_TOKENS = "all tokens over the time of the answer, the first one among them"
WITH_CACHED = "cached tokens counted as read"
AS_SEEN = "answers at once as the client saw them, also where it saw an end late"
ANY_CACHED = "more than 1 % from a cache were doubted, a template's opening among them"


def of_version(task: str, version: int) -> str:
    """The name of the rules of an earlier version of a task."""
    return f"{task} version {version}"


def prompt_rates(run: Run) -> Iterator[tuple[str, float | None]]:
    """Rates of a prompt by older rules."""
    yield WITH_CACHED, rates.per_second(run.prompt_eval_count, run.prompt_eval_duration_s or 0.0)


def eval_rates(run: Run) -> Iterator[tuple[str, float | None]]:
    """Rates of the answer by older rules."""
    yield ALL_TOKENS, rates.per_second(run.eval_count, run.eval_duration_s or 0.0)


def doubts(run: Run) -> Iterator[tuple[str, str]]:
    """Why a run was not believed, by older rules."""
    count, cached = run.prompt_eval_count or 0, run.cached_count or 0
    if count and cached / count > BELIEVED_CACHED_SHARE and run.answer is None:
        yield ANY_CACHED, "cached"


def of_runs(name: str, measured: Sequence[Run]) -> Iterator[tuple[str, float | None]]:
    """A column of an attempt from when loads were not told apart."""
    if name == "prompt_eval_rate":
        yield MEDIAN_OF_RUNS, stats.known_median(run.prompt_eval_rate for run in measured if run.believed)


def scores(
    name: str, measured: Sequence[Run], *, is_of_loads: bool, is_sealed: bool
) -> Iterator[tuple[str, float | None]]:
    """A number of a cell by older rules, of its measured runs.

    An attempt that knows how many loads it speaks for is younger than all of them, one with a checksum than most.
    """
    if name == "served_parallel":
        yield AS_SEEN, summary.most_served(summary.by_load(measured), summary.as_seen)
    if is_of_loads:
        return
    used = [run for run in measured if run.believed]
    stem, _, end = name.rpartition("_")
    if end in ("low", "high") and len(values := _values(stem, used)) >= stats.ORDER_STATISTIC_RUNS:
        yield ORDER_STATISTICS, stats.interval(values)[end == "high"]
    if is_sealed:
        return
    end, _, stem = name.partition("_")
    if end in ("min", "max") and (values := _values(stem, used)):
        yield ENDS_OF_A_RANGE, min(values) if end == "min" else max(values)
    yield from ((OVER_ANSWERS, value) for known, value in _over_answers(measured, used).items() if known == name)
    if values := [run.scores[name] for run in used if name in run.scores]:
        yield BY_VALUES, stats.mean(values) if set(values) <= {0.0, 1.0} else stats.median(values)


def _values(name: str, used: Sequence[Run]) -> list[float]:
    """Those of the runs that have it."""
    found = [_value(name, run) for run in used]
    return [value for value in found if value is not None]


def _value(name: str, run: Run) -> float | None:
    if name in ("prompt_eval_rate", "ttft_s", "latency_s"):
        value: float | None = getattr(run, name)
        return value
    if name == "decode_tps":
        return rates.streamed_decode_rate(run.eval_count, run.latency_s, run.ttft_s)
    return run.scores.get(name)


def _over_answers(measured: Sequence[Run], used: Sequence[Run]) -> Mapping[str, float]:
    """score, quality and score_CATEGORY where a question that was asked more often counted more."""
    scored = [run for run in used if "score" in run.scores]
    if not scored:
        return {}
    found = {
        "score": stats.mean([run.scores["score"] for run in scored]),
        "quality": sum(run.scores["score"] for run in scored) / len(measured),
    }
    by_category: dict[str, list[float]] = {}
    for run in summary.answered(scored):
        if run.answer is not None and run.answer.category:
            by_category.setdefault(slug(run.answer.category), []).append(run.scores["score"])
    return found | {f"score_{name}": stats.mean(values) for name, values in by_category.items()}
