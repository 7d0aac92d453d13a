"""Decides whether a number may be believed, and why not. Pure; docs/measurement.md gives the reasons."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ollama_sweep import stats
from ollama_sweep.cells import Answer, Cell, Effective, Flag, Outcome, Run, Status, Summary
from ollama_sweep.engine import Generation
from ollama_sweep.errors import CellFailed

NONCE_TOLERANCE = 4
"""A fixed-width number may be so many tokens longer or shorter in tokenizers that join digits."""
BELIEVED_CACHED_SHARE = 0.01
TEMPLATE_TOKENS = 32
"""A chat template's opening stands before the nonce and stays cached; so few tokens change no rate."""
BELIEVED_TEMPLATE_SHARE = 0.10
PRINTED_TOLERANCE = 0.01
NOISY_WIDTH = 0.10


def judge_run(
    generation: Generation,
    *,
    number: int,
    warmup: bool,
    nonce: str,
    expected_tokens: int | None,
    scores: dict[str, float],
) -> Run:
    """A run with its own rates and whether it is believed. Raises CellFailed (parse_error, truncated)."""
    count, duration_s = generation.prompt_eval_count, generation.prompt_eval_duration_s
    if not count or not duration_s:
        missing = "prompt eval count" if not count else "prompt eval duration"
        raise CellFailed(Status.PARSE_ERROR, "count_missing", f"no {missing} in the statistics", generation.raw)
    _check_length(count, expected_tokens, "", generation.raw)
    rate = _rate(count, generation, duration_s)
    doubt = _doubt(generation, count, duration_s, rate)
    return replace(_run(generation, number, rate), warmup=warmup, nonce=nonce, believed=not doubt, doubt=doubt,
                   scores=scores)  # fmt: skip


def judge_answer(
    generation: Generation,
    *,
    number: int,
    warmup: bool,
    nonce: str,
    answer: Answer,
    is_fresh: bool,
    expected_tokens: int | None,
) -> Run:
    """A run of a task with questions: its answer counts, its prompt rate only where no cache can have helped.

    Raises CellFailed (truncated) where the engine read another number of tokens than the question has.
    """
    count, duration_s = generation.prompt_eval_count, generation.prompt_eval_duration_s
    if count:
        _check_length(count, expected_tokens, f"{answer.item}: ", generation.raw)
    is_known = count and duration_s and not _is_from_cache(generation.cached_count, count, is_fresh=is_fresh)
    rate = _rate(count, generation, duration_s) if is_known and count and duration_s else None
    return replace(_run(generation, number, rate), warmup=warmup, nonce=nonce, answer=answer)


def _check_length(count: int, expected: int | None, what: str, raw: str) -> None:
    if expected is not None and abs(count - expected) > NONCE_TOLERANCE:
        text = f"{what}the engine read {count} prompt tokens instead of {expected}"
        raise CellFailed(Status.TRUNCATED, "prompt_cut", text, raw)


def _rate(count: int, generation: Generation, duration_s: float) -> float:
    """Tokens that were really read, over their time."""
    return (count - (generation.cached_count or 0)) / duration_s


def _run(generation: Generation, number: int, rate: float | None) -> Run:
    """Everything that the engine reported, with our own rates."""
    return Run(
        number=number,
        warmup=False,
        nonce="",
        prompt_eval_count=generation.prompt_eval_count,
        cached_count=generation.cached_count,
        prompt_eval_duration_s=generation.prompt_eval_duration_s,
        prompt_eval_rate=rate,
        eval_count=generation.eval_count,
        eval_duration_s=generation.eval_duration_s,
        eval_rate=decode_rate(generation.eval_count, generation.eval_duration_s),
        total_duration_s=generation.total_duration_s,
        load_duration_s=generation.load_duration_s,
        printed_rate=generation.printed_rate,
        client_duration_s=generation.client_duration_s,
        believed=True,
        raw=generation.raw,
        ttft_s=generation.ttft_s,
    )


def unanswered(number: int, answer: Answer, duration_s: float, raw: str) -> Run:
    """The run of a question that was not answered: kept, and never part of a number."""
    return Run(number, False, "", None, None, None, None, None, None, None, None, None, None, duration_s,
               believed=False, doubt="not_answered", raw=raw, answer=answer)  # fmt: skip


def _is_from_cache(cached: int | None, count: int, *, is_fresh: bool) -> bool:
    """More came from a cache than the opening of a template; where that is not known, only a new prompt is trusted."""
    if cached is None:
        return not is_fresh
    allowed = BELIEVED_TEMPLATE_SHARE if cached <= TEMPLATE_TOKENS else BELIEVED_CACHED_SHARE
    return cached / count > allowed


def decode_rate(eval_count: int | None, eval_duration_s: float | None) -> float | None:
    """Decode tokens/s. The first token comes with the prompt's last batch, so n tokens took n - 1 steps."""
    if not eval_count or eval_count < 2 or not eval_duration_s:
        return None
    return (eval_count - 1) / eval_duration_s


def _doubt(generation: Generation, count: int, duration_s: float, rate: float) -> str:
    if _is_from_cache(generation.cached_count or 0, count, is_fresh=True):
        return "cached"
    printed = generation.printed_rate
    if printed is None or _close(printed, rate) or _close(printed, count / duration_s):
        return ""
    return "printed_rate"


def _close(printed: float, own: float) -> bool:
    return abs(printed - own) <= PRINTED_TOLERANCE * own + 0.005


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
            **_task_score(len(used), used),
        },
    )


def _interval(name: str, values: Sequence[float], runs: int) -> dict[str, float]:
    """NAME_low and NAME_high, between which the true median lies; nothing where too few runs, or not all, have it."""
    if len(values) < max(stats.ORDER_STATISTIC_RUNS, runs):
        return {}
    low, high = stats.interval(values)
    return {f"{name}_low": low, f"{name}_high": high}


def _task_score(answered: int, runs: Sequence[Run]) -> dict[str, float]:
    """What was answered, over all the time that it took, as so many an hour."""
    seconds = sum(run.client_duration_s for run in runs)
    return {"task_score": answered * 3600 / seconds} if seconds else {}


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
        **_task_score(len(used), runs),
    }


def _speeds(used: Sequence[Run]) -> dict[str, float]:
    """Times and speeds of the answers: medians, the smallest and the largest, intervals."""
    scored = stats.MEDIANS & {name for run in used for name in run.scores}
    seen: dict[str, list[float | None]] = {
        "latency_s": [run.client_duration_s for run in used],
        "ttft_s": [run.ttft_s for run in used],
        "decode_tps": [_decode_tps(run) for run in used],
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


def _decode_tps(run: Run) -> float | None:
    """Decode tokens/s as the client sees them, without the first token; None where the answer was not streamed."""
    if run.ttft_s is None or run.eval_count is None or run.eval_count < 2 or run.client_duration_s <= run.ttft_s:
        return None
    return (run.eval_count - 1) / (run.client_duration_s - run.ttft_s)


def _median(values: Sequence[float | int | None]) -> float | None:
    present = [float(value) for value in values if value is not None]
    return stats.median(present) if present else None


def judge_attempt(
    cell: Cell,
    runs: Sequence[Run],
    summary: Summary,
    effective: Effective,
    *,
    prompt_tokens: int | None,
    has_gpu: bool,
) -> Outcome:
    """The outcome of an attempt whose runs all ended; `summary` speaks for believed runs of former attempts as well."""
    flags = flags_of(cell, summary, effective, prompt_tokens=prompt_tokens, has_gpu=has_gpu)
    measured = [run for run in runs if not run.warmup]
    if any(run.doubt == "cached" for run in measured):
        flags |= {Flag.CACHED}
    if not summary.runs:
        doubts = sorted({run.doubt for run in measured if run.doubt})
        text = f"none of {len(measured)} runs can be believed: {', '.join(doubts)}"
        if doubts == ["cached"]:
            text += " (a longer prompt or a shorter SYSTEM text makes the cached part smaller)"
        return Outcome(Status.ERROR, "not_believed", text, frozenset(flags), tuple(runs), summary, effective)
    return Outcome(Status.OK, flags=frozenset(flags), runs=tuple(runs), summary=summary, effective=effective)


def flags_of(
    cell: Cell, summary: Summary, effective: Effective, *, prompt_tokens: int | None, has_gpu: bool
) -> set[Flag]:
    """What is true beside the status: clamped, spilled, unfilled, noisy, throttled, shared_gpu."""
    flags = set()
    if _is_clamped(cell, effective):
        flags.add(Flag.CLAMPED)
    if is_spilled(cell, effective, has_gpu=has_gpu):
        flags.add(Flag.SPILLED)
    if prompt_tokens is not None and cell.num_batch > prompt_tokens + NONCE_TOLERANCE:
        flags.add(Flag.UNFILLED)
    if effective.others_loaded:
        flags.add(Flag.SHARED_GPU)
    rate, low, high = summary.prompt_eval_rate, summary.prompt_eval_rate_min, summary.prompt_eval_rate_max
    if rate and low is not None and high is not None and (high - low) / rate > NOISY_WIDTH:
        flags.add(Flag.NOISY)
    if summary.scores.get("throttled_s", 0.0) > 0:
        flags.add(Flag.THROTTLED)
    return flags


def is_unstable(status: Status, earlier: Collection[Status]) -> bool:
    """The memory sufficed in one attempt at a cell and not in another; `earlier` are those of its former attempts."""
    return {Status.OK, Status.OOM} <= {status, *earlier}


def _is_clamped(cell: Cell, effective: Effective) -> bool:
    other_ctx = bool(effective.num_ctx and cell.num_ctx) and effective.num_ctx != cell.num_ctx
    other_batch = bool(effective.num_batch and cell.num_batch) and effective.num_batch != cell.num_batch
    return other_ctx or other_batch


def is_spilled(cell: Cell, effective: Effective, *, has_gpu: bool) -> bool:
    """Part of the model sits on the CPU though a GPU is there and the person did not ask for it."""
    size, vram = effective.size_bytes, effective.size_vram_bytes
    if size is None or vram is None or cell.option("num_gpu") == 0:
        return False
    return vram < size and (vram > 0 or has_gpu)
