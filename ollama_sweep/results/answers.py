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
from ollama_sweep.core.metrics import metric
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import AnswerRow, CellResult
from ollama_sweep.core.summary import answered
from ollama_sweep.results.prices import PriceTable

MOST_BINS = 10
_WIDE_RANGE = 16
_NICE = (1, 2, 5)


@dataclass(frozen=True)
class Measure:
    """A number that an answer may have: its name, its words in a picture, and how it is read."""

    name: str
    words: str
    of: Callable[[AnswerRow], float | None]

    @property
    def unit(self) -> str:
        return metric(self.name).unit


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


_MEASURES = (
    Measure("prompt_tokens", "prompt tokens", lambda row: row.prompt_eval_count),
    Measure("output_tokens", "output tokens", lambda row: row.eval_count),
    Measure("total_tokens", "prompt and output tokens", total_tokens),
    Measure("latency_s", "latency", lambda row: row.latency_s),
    Measure("ttft_s", "time to the first token", lambda row: row.ttft_s),
    Measure("load_duration_s", "load time", lambda row: row.load_duration_s),
    Measure("prompt_eval_duration_s", "prompt processing time", lambda row: row.prompt_eval_duration_s),
    Measure("eval_duration_s", "generation time", lambda row: row.eval_duration_s),
    Measure("total_duration_s", "total time of the engine", lambda row: row.total_duration_s),
    Measure("decode_tps", "decode speed", lambda row: row.decode_tps),
    Measure("score", "score", lambda row: row.scores.get("score")),
)
MEASURES: Mapping[str, Measure] = {measure.name: measure for measure in _MEASURES}


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


def pooled_over(rows: Iterable[AnswerRow | CellResult]) -> dict[str, int]:
    """By dimension how many of its values numbers of these rows hold together; {} where none has several.

    The model and the task are no dimensions here: nothing is ever pooled over them.
    """
    found: dict[str, set[Scalar]] = {}
    for row in rows:
        for name, value in row.coordinates.items():
            found.setdefault(name, set()).add(value)
    return {name: len(seen) for name, seen in found.items() if len(seen) > 1 and name not in ("model", "task")}


def pooled_words(pooled: Mapping[str, int]) -> str:
    """`pooled over 5 num_ctx and 2 num_batch`; "" for nothing."""
    named = [f"{count} {name}" for name, count in pooled.items()]
    return f"pooled over {' and '.join([', '.join(named[:-1]), named[-1]] if named[1:] else named)}" if named else ""


def pooled_by_model(rows: Sequence[AnswerRow]) -> str:
    """What a picture says that holds a number for each model and task: over what it pools at most; "" for nothing."""
    most: dict[str, int] = {}
    for members in by_model(rows).values():
        for task in {row.task for row in members}:
            for name, count in pooled_over(row for row in members if row.task == task).items():
                most[name] = max(count, most.get(name, 0))
    return pooled_words(most)


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
