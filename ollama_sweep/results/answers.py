"""What pictures and reports ask of kept answers: tokens, cost, one line per model, bins of tokens. Pure.

`answers_csv` makes the same rows of another tool's file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ollama_sweep.core import stats
from ollama_sweep.core.cell import model_label
from ollama_sweep.core.outcome import AnswerRow
from ollama_sweep.results.prices import PriceTable

MOST_BINS = 10
_WIDE_RANGE = 16
_NICE = (1, 2, 5)


@dataclass(frozen=True)
class Measure:
    """A number that an answer may have: its words, its unit, and how it is read."""

    words: str
    unit: str
    of: Callable[[AnswerRow], float | None]


def total_tokens(row: AnswerRow) -> int | None:
    """Tokens of the prompt and of the answer; None where one of them is unknown."""
    if row.prompt_eval_count is None or row.eval_count is None:
        return None
    return row.prompt_eval_count + row.eval_count


def cost(row: AnswerRow, prices: PriceTable) -> float | None:
    """What the answer cost, in the table's currency; None without both counts or without a price for its model.

    Cached tokens of the prompt cost as much as the others.
    """
    price = prices.price_of(row.model)
    if price is None or row.prompt_eval_count is None or row.eval_count is None:
        return None
    return row.prompt_eval_count * price.input_per_token + row.eval_count * price.output_per_token


MEASURES: Mapping[str, Measure] = {
    "prompt_tokens": Measure("prompt tokens", "tokens", lambda row: row.prompt_eval_count),
    "output_tokens": Measure("output tokens", "tokens", lambda row: row.eval_count),
    "total_tokens": Measure("prompt and output tokens", "tokens", total_tokens),
    "latency_s": Measure("latency", "s", lambda row: row.latency_s),
    "ttft_s": Measure("time to the first token", "s", lambda row: row.ttft_s),
    "load_duration_s": Measure("load time", "s", lambda row: row.load_duration_s),
    "prompt_eval_duration_s": Measure("prompt processing time", "s", lambda row: row.prompt_eval_duration_s),
    "eval_duration_s": Measure("generation time", "s", lambda row: row.eval_duration_s),
    "total_duration_s": Measure("total time of the engine", "s", lambda row: row.total_duration_s),
    "decode_tps": Measure("decode speed", "tokens/s", lambda row: row.decode_tps),
    "score": Measure("score", "", lambda row: row.scores.get("score")),
}


def answered(rows: Iterable[AnswerRow]) -> list[AnswerRow]:
    """The rows that hold an answer; the others failed and are never averaged in."""
    return [row for row in rows if not row.answer.failure]


def values(rows: Iterable[AnswerRow], name: str) -> list[float]:
    """The measure `name` of the answered rows that have it."""
    found = (MEASURES[name].of(row) for row in answered(rows))
    return [float(value) for value in found if value is not None and math.isfinite(value)]


def by_model(rows: Sequence[AnswerRow]) -> dict[str, list[AnswerRow]]:
    """Rows by model in the order of the names: the label for people -> all its rows, failed ones among them.

    The label is the model, `model @ engine` where rows come from several engines, and `…, sweep` where the same
    label occurs in several sweeps.
    """
    several = len({row.engine for row in rows}) > 1
    labels = [f"{model_label(row.model)} @ {row.engine}" if several else model_label(row.model) for row in rows]
    sweeps: dict[str, set[str]] = {}
    for row, label in zip(rows, labels, strict=True):
        sweeps.setdefault(label, set()).add(row.sweep)
    found: dict[str, list[AnswerRow]] = {}
    for row, label in zip(rows, labels, strict=True):
        found.setdefault(f"{label}, {row.sweep}" if len(sweeps[label]) > 1 else label, []).append(row)
    return dict(sorted(found.items(), key=lambda item: _natural(item[0])))


def _natural(name: str) -> list[str | int]:
    """A key that sorts `model2` before `model10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def mean(numbers: Sequence[float]) -> float:
    """The arithmetic mean. Raises ValueError for none."""
    if not numbers:
        raise ValueError("no values")
    return math.fsum(numbers) / len(numbers)


def score_interval(rows: Iterable[AnswerRow]) -> tuple[float, float] | None:
    """(low, high): where the true mean score lies with 95 %, by `stats.mean_interval`: a question counts once."""
    by_question: dict[str, list[float]] = {}
    for row in rows:
        if scores := values([row], "score"):
            by_question.setdefault(row.answer.item, []).extend(scores)
    return stats.mean_interval(list(by_question.values()))


@dataclass(frozen=True)
class Region:
    """A bin: prompt tokens in [low, high), output tokens in [low, high), and the values of the answers in it."""

    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return stats.median(self.values)


def regions(
    rows: Iterable[AnswerRow], of: Callable[[AnswerRow], float | None], x_edges: Sequence[int], y_edges: Sequence[int]
) -> list[Region]:
    """The bins of prompt tokens (x) and output tokens (y) in which answers lie, the highest median first."""
    found: dict[tuple[int, int], list[float]] = {}
    for row in answered(rows):
        value = of(row)
        if value is None or row.prompt_eval_count is None or row.eval_count is None:
            continue
        x, y = _bin(row.prompt_eval_count, x_edges), _bin(row.eval_count, y_edges)
        if x is not None and y is not None:
            found.setdefault((x, y), []).append(value)
    made = [
        Region((x_edges[x], x_edges[x + 1]), (y_edges[y], y_edges[y + 1]), tuple(numbers))
        for (x, y), numbers in sorted(found.items())
    ]
    return sorted(made, key=lambda region: -region.median)


def bin_edges(counts: Sequence[int], most: int = MOST_BINS) -> tuple[int, ...]:
    """Edges of at most `most` half-open bins that hold all counts: round steps, or powers of two for wide ranges.

    Raises ValueError for none.
    """
    if not counts:
        raise ValueError("no counts")
    low, high = min(counts), max(counts)
    if high >= _WIDE_RANGE * max(low, 1):
        return _powers(low, high, most)
    step = 1
    while len(edges := _steps(low, high, step)) - 1 > most:
        step = _next_nice(step)
    return edges


def _steps(low: int, high: int, step: int) -> tuple[int, ...]:
    start = low // step * step
    bins = (high - start) // step + 1
    return tuple(start + number * step for number in range(bins + 1))


def _next_nice(step: int) -> int:
    """1, 2, 5, 10, 20, 50 …"""
    digit = int(str(step)[0])
    return _NICE[(_NICE.index(digit) + 1) % 3] * (step // digit) * (10 if digit == 5 else 1)


def _powers(low: int, high: int, most: int) -> tuple[int, ...]:
    """0 first where a count is below 1, then powers of two, or of 4, 8 … where there would be too many."""
    first = 0 if low < 1 else low.bit_length() - 1
    for exponent in range(1, 64):
        edges = [] if low >= 1 else [0]
        edges += [2**power for power in range(first, high.bit_length() + exponent, exponent)]
        while len(edges) > 2 and edges[-2] > high:
            edges.pop()
        if len(edges) - 1 <= most:
            return tuple(edges)
    raise ValueError(f"{high} is no count of tokens")


def _bin(count: int, edges: Sequence[int]) -> int | None:
    return next((number for number in range(len(edges) - 1) if edges[number] <= count < edges[number + 1]), None)
