"""Every formula of a rate, once, and the limits of what can be measured."""

from __future__ import annotations

COUNT_MOST = 10_000_000
RATE_MOST = 10_000_000.0
LENGTH_MOST = 2**31 - 1
"""Of a context; models are trained for more than 10,000,000 tokens."""
BYTES_MOST = 2**50
DURATION_MOST_S = 366 * 86400.0
REQUEST_SHARE, REQUEST_SLACK_S = 1.10, 0.05
"""A duration inside a request may be longer than the request was here by so much: two clocks are compared."""


def prompt_rate(count: int, cached: int | None, duration_s: float) -> float:
    """Tokens that were really read, over their time."""
    return (count - (cached or 0)) / duration_s


def per_second(count: float | None, duration_s: float) -> float | None:
    """So many over their whole time; None where the count is not known or no time has passed."""
    return count / duration_s if count is not None and duration_s > 0 else None


def generation_time(duration_s: float, ttft_s: float | None) -> float | None:
    """What an answer took after its first piece; None where it was not streamed."""
    return duration_s - ttft_s if ttft_s is not None and duration_s >= ttft_s else None


def decode_rate(eval_count: int | None, duration_s: float | None) -> float | None:
    """Decode tokens/s. The first token comes with the prompt's last batch, so n tokens took n - 1 steps."""
    if not eval_count or eval_count < 2 or not duration_s:
        return None
    return (eval_count - 1) / duration_s


def streamed_decode_rate(eval_count: int | None, duration_s: float, ttft_s: float | None) -> float | None:
    """`decode_tps`: decode tokens/s as the client sees them; None where the answer was not streamed."""
    return decode_rate(eval_count, generation_time(duration_s, ttft_s))


def whole_decode_rate(eval_count: int | None, duration_s: float, ttft_s: float | None) -> float | None:
    """All n tokens over the time after the first one, as earlier tools have it: only for the files that people know.

    It is larger than `streamed_decode_rate` by one token; nothing else shows it.
    """
    return per_second(eval_count, generation_time(duration_s, ttft_s) or 0.0)


def requests_per_min(mean_latency_s: float) -> float | None:
    """How many questions one after the other are answered in a minute; None where no time has passed."""
    return 60 / mean_latency_s if mean_latency_s > 0 else None


def task_score(count: int, seconds: float) -> float | None:
    """So many tasks in so many seconds, as tasks an hour; None where no time has passed."""
    return count * 3600 / seconds if seconds > 0 else None


def share(part: int, whole: int) -> float | None:
    """A part of so many, 0 to 1; None of nothing."""
    return part / whole if whole else None
