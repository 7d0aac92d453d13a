"""Decides whether a number may be believed, and why not. Pure; docs/measurement.md gives the reasons."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ollama_sweep.core import stats
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.outcome import Answer, Effective, Flag, Outcome, Run, Status, Summary
from ollama_sweep.core.rates import decode_rate, prompt_rate

NONCE_TOLERANCE = 4
"""A fixed-width number may be so many tokens longer or shorter in tokenizers that join digits."""
BELIEVED_CACHED_SHARE = 0.01
TEMPLATE_TOKENS = 32
"""A chat template's opening stands before the nonce and stays cached; so few tokens change no rate."""
BELIEVED_TEMPLATE_SHARE = 0.10
PRINTED_TOLERANCE = 0.01
NOISY_WIDTH = 0.10
WARMER = 0.03
"""A run that is so much faster than the one before it was not yet the last one to warm up."""
SPREAD_OUT = 0.05
"""Runs of a cell that differ by so much are too few."""
BUSY_SHARE = 0.20
"""Others may use so much of all cores during the runs."""


def judge_run(
    generation: Generation,
    *,
    number: int,
    warmup: bool,
    nonce: str,
    expected_tokens: int | None,
    scores: dict[str, float],
    tolerance: int = NONCE_TOLERANCE,
) -> Run:
    """A run with its own rates and whether it is believed. Raises CellFailed (parse_error, truncated)."""
    count, duration_s = generation.prompt_eval_count, generation.prompt_eval_duration_s
    if not count or not duration_s:
        missing = "prompt eval count" if not count else "prompt eval duration"
        raise CellFailed(Status.PARSE_ERROR, "count_missing", f"no {missing} in the statistics", generation.raw)
    _check_length(count, expected_tokens, tolerance, "", generation.raw)
    rate = prompt_rate(count, generation.cached_count, duration_s)
    doubt = _doubt(generation, count, duration_s, rate)
    return replace(_run(generation, number, rate), warmup=warmup, nonce=nonce, believed=not doubt, doubt=doubt,
                   scores={**generation.numbers, **scores})  # fmt: skip


def judge_answer(
    generation: Generation,
    *,
    number: int,
    warmup: bool,
    nonce: str,
    answer: Answer,
    is_fresh: bool,
    expected_tokens: int | None,
    tolerance: int = NONCE_TOLERANCE,
) -> Run:
    """A run of a task with questions: its answer counts, its prompt rate only where no cache can have helped.

    Raises CellFailed (truncated) where the engine read another number of tokens than the question has.
    """
    count, duration_s = generation.prompt_eval_count, generation.prompt_eval_duration_s
    if count:
        _check_length(count, expected_tokens, tolerance, f"{answer.item}: ", generation.raw)
    is_known = count and duration_s and not _is_from_cache(generation.cached_count, count, is_fresh=is_fresh)
    rate = prompt_rate(count, generation.cached_count, duration_s) if is_known and count and duration_s else None
    return replace(_run(generation, number, rate), warmup=warmup, nonce=nonce, answer=answer)


def length_tolerance(cell: Cell) -> int:
    """How many tokens a prompt may be off: it is counted without thinking, and templates have other words for that."""
    return TEMPLATE_TOKENS if cell.think else NONCE_TOLERANCE


def _check_length(count: int, expected: int | None, tolerance: int, what: str, raw: str) -> None:
    if expected is not None and abs(count - expected) > tolerance:
        text = f"{what}the engine read {count} prompt tokens instead of {expected}"
        raise CellFailed(Status.TRUNCATED, "prompt_cut", text, raw)


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
        scores=generation.numbers,
        ttft_s=generation.ttft_s,
        thinking_count=generation.thinking_count,
        thinking_duration_s=generation.thinking_duration_s,
    )


def unanswered(number: int, answer: Answer, duration_s: float, raw: str, thought: Generation | None = None) -> Run:
    """The run of a question that was not answered: kept, and never part of a number. `thought`: only thoughts came."""
    run = Run(number, False, "", None, None, None, None, None, None, None, None, None, None, duration_s,
              believed=False, doubt="not_answered", raw=raw, answer=answer)  # fmt: skip
    if thought is None:
        return run
    return replace(run, thinking_count=thought.thinking_count, thinking_duration_s=thought.thinking_duration_s)


def _is_from_cache(cached: int | None, count: int, *, is_fresh: bool) -> bool:
    """More came from a cache than the opening of a template; where that is not known, only a new prompt is trusted."""
    if cached is None:
        return not is_fresh
    allowed = BELIEVED_TEMPLATE_SHARE if cached <= TEMPLATE_TOKENS else BELIEVED_CACHED_SHARE
    return cached / count > allowed


def _doubt(generation: Generation, count: int, duration_s: float, rate: float) -> str:
    if _is_from_cache(generation.cached_count or 0, count, is_fresh=True):
        return "cached"
    printed = generation.printed_rate
    if printed is None or _close(printed, rate) or _close(printed, count / duration_s):
        return ""
    return "printed_rate"


def _close(printed: float, own: float) -> bool:
    return abs(printed - own) <= PRINTED_TOLERANCE * own + 0.005


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
    """What is true beside the status: clamped, spilled, unfilled, noisy, throttled, busy, shared_gpu."""
    flags = set()
    if _is_clamped(cell, effective):
        flags.add(Flag.CLAMPED)
    if is_spilled(cell, effective, has_gpu=has_gpu):
        flags.add(Flag.SPILLED)
    if is_unfilled(cell.num_batch, prompt_tokens):
        flags.add(Flag.UNFILLED)
    if effective.others_loaded:
        flags.add(Flag.SHARED_GPU)
    rate, low, high = summary.prompt_eval_rate, summary.prompt_eval_rate_min, summary.prompt_eval_rate_max
    if rate and low is not None and high is not None and (high - low) / rate > NOISY_WIDTH:
        flags.add(Flag.NOISY)
    if summary.scores.get("throttled_s", 0.0) > 0:
        flags.add(Flag.THROTTLED)
    return flags | flags_of_others(summary.scores)


def flags_of_others(seen: Mapping[str, float]) -> set[Flag]:
    """What programs of others did meanwhile: busy, shared_gpu; `seen` is what telemetry says."""
    flags = set()
    if seen.get("others_cpu_share", 0.0) > BUSY_SHARE:
        flags.add(Flag.BUSY)
    if seen.get("gpu_shared_s", 0.0) > 0:
        flags.add(Flag.SHARED_GPU)
    return flags


def wants_warmup(rates: Sequence[float], least: int, most: int, runs_spread: float) -> bool:
    """Whether another run before the measured ones is needed; `rates` are those of the runs so far.

    `least`, then on while a new one is faster than the one before by more than runs differ, at most `most`.
    """
    if len(rates) < least or len(rates) >= most:
        return len(rates) < least
    return len(rates) < 2 or rates[-1] > rates[-2] * (1 + max(WARMER, 2 * runs_spread))


def wants_more_runs(rates: Sequence[float], runs_spread: float) -> bool:
    """Whether the first runs of a cell differ by more than runs do here."""
    if len(rates) < 2:
        return True
    return (max(rates) - min(rates)) / stats.median(rates) > max(SPREAD_OUT, 3 * runs_spread)


def is_unfilled(num_batch: int, prompt_tokens: int | None) -> bool:
    """num_batch exceeds a prompt of this length, so it cannot matter; False where the length is not known.

    The number in front of a prompt makes it a few tokens shorter or longer, so as many more are no difference.
    """
    return bool(prompt_tokens) and num_batch > (prompt_tokens or 0) + NONCE_TOLERANCE


def is_unstable(status: Status, earlier: Collection[Status]) -> bool:
    """The memory sufficed in one attempt at a cell and not in another; `earlier` are those of its former attempts."""
    return {Status.OK, Status.OOM} <= {status, *earlier}


def _is_clamped(cell: Cell, effective: Effective) -> bool:
    other_ctx = bool(effective.num_ctx and cell.num_ctx) and effective.num_ctx != cell.num_ctx
    other_batch = bool(effective.num_batch and cell.num_batch) and effective.num_batch != cell.num_batch
    parallel = dict(cell.server).get("num_parallel")
    other_parallel = bool(effective.num_parallel and parallel) and effective.num_parallel != parallel
    return other_ctx or other_batch or other_parallel


def is_spilled(cell: Cell, effective: Effective, *, has_gpu: bool) -> bool:
    """Part of the model sits on the CPU though a GPU is there and the person did not ask for it."""
    size, vram = effective.size_bytes, effective.size_vram_bytes
    if size is None or vram is None or cell.option("num_gpu") == 0:
        return False
    return vram < size and (vram > 0 or has_gpu)
