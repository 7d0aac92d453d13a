"""Every formula of a rate, once."""

from __future__ import annotations

from collections.abc import Sequence

from ollama_sweep.core.generation import Generation
from ollama_sweep.core.outcome import Run


def prompt_rate(count: int, generation: Generation, duration_s: float) -> float:
    """Tokens that were really read, over their time."""
    return (count - (generation.cached_count or 0)) / duration_s


def decode_rate(eval_count: int | None, eval_duration_s: float | None) -> float | None:
    """Decode tokens/s. The first token comes with the prompt's last batch, so n tokens took n - 1 steps."""
    if not eval_count or eval_count < 2 or not eval_duration_s:
        return None
    return (eval_count - 1) / eval_duration_s


def task_score(answered: int, runs: Sequence[Run]) -> dict[str, float]:
    """What was answered, over all the time that it took, as so many an hour."""
    seconds = sum(run.client_duration_s for run in runs)
    return {"task_score": answered * 3600 / seconds} if seconds else {}


def streamed_decode_rate(run: Run) -> float | None:
    """Decode tokens/s as the client sees them, without the first token; None where the answer was not streamed."""
    if run.ttft_s is None or run.eval_count is None or run.eval_count < 2 or run.client_duration_s <= run.ttft_s:
        return None
    return (run.eval_count - 1) / (run.client_duration_s - run.ttft_s)
