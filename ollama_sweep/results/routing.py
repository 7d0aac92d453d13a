"""Which answers are expensive, and which model could take which prompts: only where the data say it. Pure.

Two models are compared over the same questions. The faster one is `as good` for prompts of a size where the other's
score is better by at most `MARGIN` with 95 %, and the other is `better` where it is so with 95 %. The interval is the
mean of the differences ± 1.96 standard errors, and never less than ± 3 / n: what never happened in n questions may
still happen that often. Everything between is not known and is said to be so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ollama_sweep.core.outcome import AnswerRow
from ollama_sweep.core.stats import half_width, mean, median
from ollama_sweep.core.summary import answered
from ollama_sweep.results.answers import Region, bin_edges, regions
from ollama_sweep.results.groups import Group

MARGIN = 0.1
FEWEST = 10
"""Questions that both models answered, in a range of sizes: with fewer nothing is said of it."""
MOST_RANGES, SIZE_OF_RANGE = 4, 30
"""So many questions can say that a model is as good (3 / 30 is the margin)."""
MOST_REGIONS = 3
REGION_BINS = 6
NOTABLE = 1.25


@dataclass(frozen=True)
class Expensive:
    """A region of prompt and output tokens that takes more than its share. `share` and `of_answers` are 0 to 1."""

    region: Region
    total: float
    share: float
    of_answers: float

    def text(self, unit: str) -> str:
        """`prompts of 512 to 1023 tokens with answers of 64 to 127: 55 % of the time in 12 % of the answers …`."""
        (low, high), (short, long) = self.region.prompt_tokens, self.region.output_tokens
        what = "time" if unit == "s" else "cost"
        mean_words = f"{self.total / len(self.region.values):.3g} {unit}".strip()
        return (
            f"prompts of {_extent(low, high)} tokens with answers of {_extent(short, long)}: "
            f"{100 * self.share:.0f} % of the {what} in {100 * self.of_answers:.0f} % of the answers "
            f"(mean {mean_words}, n = {len(self.region.values)})"
        )

    def as_dict(self) -> dict[str, object]:
        return {
            "prompt_tokens": [self.region.prompt_tokens[0], self.region.prompt_tokens[1] - 1],
            "output_tokens": [self.region.output_tokens[0], self.region.output_tokens[1] - 1],
            "answers": len(self.region.values),
            "share_of_answers": self.of_answers,
            "share": self.share,
            "total": self.total,
            "median": self.region.median,
        }


def _extent(low: int, end: int) -> str:
    return f"{low} to {end - 1}" if end - 1 > low else str(low)


def expensive_regions(rows: Sequence[AnswerRow], of: Callable[[AnswerRow], float | None]) -> list[Expensive]:
    """At most three bins that take a quarter more of the whole than their share of the answers, the largest first.

    `of` gives what an answer took: seconds, or its cost. Nothing for a single bin.
    """
    known = [row for row in answered(rows) if row.prompt_eval_count is not None and row.eval_count is not None]
    if not known:
        return []
    x_edges = bin_edges([row.prompt_eval_count or 0 for row in known], REGION_BINS)
    y_edges = bin_edges([row.eval_count or 0 for row in known], REGION_BINS)
    found = regions(known, of, x_edges, y_edges)
    count, whole = sum(len(region.values) for region in found), math.fsum(v for region in found for v in region.values)
    if len(found) < 2 or whole <= 0:
        return []
    made = []
    for region in found:
        total = math.fsum(region.values)
        made.append(Expensive(region, total, total / whole, len(region.values) / count))
    above = [region for region in made if region.share >= NOTABLE * region.of_answers]
    return sorted(above, key=lambda region: -region.share)[:MOST_REGIONS]


# -- routing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SizeRange:
    """Questions of one range of prompt tokens, answered by both models.

    `gain` is the other's mean score less that of the fast model, `low` to `high` holds the true one with about 95 %;
    `speed_up` is how many times faster the fast model is.
    """

    prompt_tokens: tuple[int, int]
    questions: int
    gain: float
    low: float
    high: float
    speed_up: float

    @property
    def verdict(self) -> str:
        """`fast`, `big`, or `unknown`."""
        if self.questions < FEWEST:
            return "unknown"
        return "big" if self.low > 0 else "fast" if self.high <= MARGIN else "unknown"

    def text(self, fast: str, big: str) -> str:
        low, high = self.prompt_tokens
        size = f"prompts of {low} to {high} tokens"
        facts = f"score of {big} {self.gain:+.2f} ({self.low:+.2f} to {self.high:+.2f}), n = {self.questions}"
        if self.verdict == "fast":
            return f"{size}: {fast}, as good and {self.speed_up:.1f} times faster ({facts})"
        if self.verdict == "big":
            return f"{size}: {big}, which is better though {fast} is {self.speed_up:.1f} times faster ({facts})"
        return f"{size}: the data do not say ({facts})"


@dataclass(frozen=True)
class Routing:
    """What the data say about sending prompts to one of two models. `why_not` is "" where `ranges` say something."""

    task: str
    fast: str = ""
    big: str = ""
    ranges: tuple[SizeRange, ...] = ()
    why_not: str = ""

    def lines(self) -> list[str]:
        """In words."""
        if self.why_not:
            return [f"{self.task}: no routing hint: {self.why_not}"]
        return [f"{self.task}: {line}" for line in [self._rule(), *(r.text(self.fast, self.big) for r in self.ranges)]]

    def _rule(self) -> str:
        verdicts = [found.verdict for found in self.ranges]
        small = len(list(itertools.takewhile(lambda verdict: verdict == "fast", verdicts)))
        large = len(list(itertools.takewhile(lambda verdict: verdict == "big", reversed(verdicts))))
        if small == len(verdicts):
            return f"all prompts to {self.fast}: {self.big} is not better anywhere"
        if large == len(verdicts):
            return f"all prompts to {self.big}: it is better everywhere"
        if small and large:
            return (
                f"prompts up to {self.ranges[small - 1].prompt_tokens[1]} tokens to {self.fast}, "
                f"from {self.ranges[-large].prompt_tokens[0]} tokens to {self.big}"
            )
        if small:
            return (
                f"prompts up to {self.ranges[small - 1].prompt_tokens[1]} tokens to {self.fast}; above it is not known"
            )
        if large:
            return f"prompts from {self.ranges[-large].prompt_tokens[0]} tokens to {self.big}; below it is not known"
        return "the data do not say which prompts could go to which model"

    def as_dict(self) -> dict[str, object]:
        return {
            "task": self.task,
            "fast": self.fast or None,
            "big": self.big or None,
            "hint": self.why_not or self._rule(),
            "ranges": [
                {
                    "prompt_tokens": list(found.prompt_tokens), "questions": found.questions, "gain": found.gain,
                    "gain_low": found.low, "gain_high": found.high, "speed_up": found.speed_up,
                    "verdict": found.verdict,
                }
                for found in self.ranges
            ],
        }  # fmt: skip


def route(groups: Sequence[Group]) -> Routing:
    """The hint of one task: its fastest model against the best one. `groups` are those of the task."""
    task = groups[0].task
    tried = [group for group in groups if answered(group.rows) and "latency_s" in group.spreads]
    if len(tried) < 2:
        return Routing(task, why_not="it takes two models with answers")
    scored = [group for group in tried if "score" in group.spreads]
    if len(scored) < 2:
        return Routing(task, why_not="the answers have no scores, so which are good enough is not known")
    fast = min(scored, key=lambda group: group.spreads["latency_s"].median)
    big = max(scored, key=lambda group: group.spreads["score"].mean)
    if big is fast:
        return Routing(task, fast.label, why_not=f"{fast.label} is the fastest and has the best score")
    pairs = _pairs(fast.rows, big.rows)
    if len(pairs) < FEWEST:
        return Routing(
            task,
            fast.label,
            big.label,
            why_not=f"{len(pairs)} questions were scored for both models; it takes {FEWEST}",
        )
    return Routing(task, fast.label, big.label, tuple(_range(part) for part in _parts(pairs)))


@dataclass(frozen=True)
class _Pair:
    """One question that both models answered: prompt tokens, gain in score, latencies."""

    tokens: float
    gain: float
    fast_s: float
    big_s: float


def _pairs(fast: Sequence[AnswerRow], big: Sequence[AnswerRow]) -> list[_Pair]:
    """By question, with the means over its answers; the tokens are those of the fast model's count."""
    first, second = _by_item(fast), _by_item(big)
    return sorted(
        (
            _Pair(
                mean([float(row.prompt_eval_count or 0) for row in first[item]]),
                mean([row.scores["score"] for row in second[item]])
                - mean([row.scores["score"] for row in first[item]]),
                mean([row.latency_s for row in first[item]]),
                mean([row.latency_s for row in second[item]]),
            )
            for item in first
            if item in second
        ),
        key=lambda pair: pair.tokens,
    )


def _by_item(rows: Sequence[AnswerRow]) -> dict[str, list[AnswerRow]]:
    found: dict[str, list[AnswerRow]] = {}
    for row in answered(rows):
        if "score" in row.scores and row.prompt_eval_count is not None:
            found.setdefault(row.answer.item, []).append(row)
    return found


def _parts(pairs: Sequence[_Pair]) -> list[Sequence[_Pair]]:
    """Ranges of prompt tokens with about as many questions each; equal sizes stay together."""
    count = min(MOST_RANGES, max(1, len(pairs) // SIZE_OF_RANGE))
    parts: list[Sequence[_Pair]] = []
    start = 0
    for number in range(1, count + 1):
        end = max(start, round(number * len(pairs) / count))
        while 0 < end < len(pairs) and pairs[end].tokens == pairs[end - 1].tokens:
            end += 1
        if end > start:
            parts.append(pairs[start:end])
            start = end
    return parts


def _range(pairs: Sequence[_Pair]) -> SizeRange:
    gains = [pair.gain for pair in pairs]
    middle = mean(gains)
    half = max(3 / len(gains), half_width(gains))
    fast_s = median([pair.fast_s for pair in pairs])
    return SizeRange(
        prompt_tokens=(round(pairs[0].tokens), round(pairs[-1].tokens)),
        questions=len(pairs),
        gain=middle,
        low=middle - half,
        high=middle + half,
        speed_up=median([pair.big_s for pair in pairs]) / fast_s if fast_s > 0 else 1.0,
    )
