"""What answers and cells say per model and task: mean, median, P95, P99, max, success, cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ollama_sweep.core import rates, summary
from ollama_sweep.core.cell import model_label
from ollama_sweep.core.metrics import Kind, Metric, metric
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import AnswerRow, CellResult, Status
from ollama_sweep.core.stats import PERCENTILE_METHOD as PERCENTILE_METHOD
from ollama_sweep.core.stats import Spread, mean, spread
from ollama_sweep.core.summary import answered, score_mean, tokens_per_s
from ollama_sweep.results.answers import cost, pooled_over
from ollama_sweep.results.grids import length_of, work_in_words
from ollama_sweep.results.prices import PriceTable

_HIDDEN = frozenset({"runs", "attempts", "prompt_eval_rate_min", "prompt_eval_rate_max", "position",
                     "effective_num_ctx", "effective_num_batch", "effective_num_parallel"})  # fmt: skip
Identity = tuple[str, str, str]
"""Model, engine and sweep."""


@dataclass(frozen=True)
class Costs:
    """What the answers cost, in the currency of the table; `by_cell` by the cell's key."""

    total: float
    tokens: int
    answers: int
    by_cell: Mapping[str, float]
    currency: str = ""

    def as_dict(self) -> dict[str, object]:
        per_cell = spread(self.by_cell.values())
        return {
            "currency": self.currency or None,
            "total": self.total,
            "per_token": self.total / self.tokens if self.tokens else None,
            "per_answer": self.total / self.answers if self.answers else None,
            "per_cell": per_cell.as_dict() if per_cell else None,
            "by_cell": dict(self.by_cell),
        }


@dataclass(frozen=True)
class Group:
    """One model at one task: its answers and cells, and what they say. `label` is the model's name for people.

    Where the prompt's length is a dimension each length has a group, which its label names: speeds of different lengths
    are not pooled.
    `spreads` are by name: numbers of answers where there are any, else of cells, and those that only cells have.
    """

    label: str
    model: str
    engine: str
    sweep: str
    task: str
    rows: tuple[AnswerRow, ...] = ()
    cells: tuple[CellResult, ...] = ()
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    costs: Costs | None = None
    prompt_tokens: int | None = None

    @property
    def asked(self) -> int:
        """Questions; cells that were tried where the task keeps no answers."""
        return len(self.rows) or sum(cell.status.counts for cell in self.cells)

    @property
    def succeeded(self) -> int:
        return len(answered(self.rows)) if self.rows else sum(cell.status is Status.OK for cell in self.cells)

    @property
    def success_rate(self) -> float | None:
        """The share (0 to 1) of questions that were answered, or of tried cells that were measured."""
        return rates.share(self.succeeded, self.asked)

    @property
    def requests_per_min(self) -> float | None:
        found = self.spreads.get("latency_s")
        return rates.requests_per_min(found.mean) if found else None

    @property
    def pooled(self) -> dict[str, int]:
        """By dimension how many of its values the numbers hold together."""
        return pooled_over(answered(self.rows) or [cell for cell in self.cells if cell.status is Status.OK])

    def fact(self, name: str) -> str | None:
        """`quantization` or `parameter_size`, of an answer or of a cell."""
        found: list[Scalar] = [getattr(row, name) for row in self.rows[:1]]
        found += [cell.row.get(name) for cell in self.cells[:1]]
        return next((str(value) for value in found if value), None)

    def as_dict(self) -> dict[str, object]:
        return {
            "model": self.model,
            "label": self.label,
            "task": self.task,
            "prompt_tokens": self.prompt_tokens,
            "engine": self.engine,
            "sweep": self.sweep,
            "quantization": self.fact("quantization"),
            "parameter_size": self.fact("parameter_size"),
            "cells": len(self.cells) or len({row.cell for row in self.rows}),
            "pooled_over": self.pooled,
            "asked": self.asked,
            "succeeded": self.succeeded,
            "success_rate": self.success_rate,
            "requests_per_min": self.requests_per_min,
            "numbers": {name: found.as_dict() for name, found in self.spreads.items()},
            "categories": categories(self.rows),
            "cost": self.costs.as_dict() if self.costs else None,
        }


def make_groups(
    rows: Sequence[AnswerRow], results: Sequence[CellResult], prices: PriceTable | None = None
) -> list[Group]:
    """One group for each model, task and length of the prompt: by task in the order of the sweep, then by model."""
    labels = labels_of([*map(_row_identity, rows), *map(_cell_identity, results)])
    found: dict[tuple[str, Identity, int | None], tuple[list[AnswerRow], list[CellResult]]] = {}
    for cell in results:
        found.setdefault((cell.task, _cell_identity(cell), length_of(cell)), ([], []))[1].append(cell)
    for row in rows:
        found.setdefault((row.task, _row_identity(row), None), ([], []))[0].append(row)
    tasks = list(dict.fromkeys(task for task, _, _ in found))
    made = [
        Group(
            ", ".join(filter(None, (labels[identity], work_in_words("", length)))),
            *identity,
            task,
            tuple(own),
            tuple(cells),
            _spreads(own, cells),
            _costs(own, cells, prices),
            length,
        )
        for (task, identity, length), (own, cells) in sorted(found.items(), key=lambda one: one[0][2] or 0)
        if own or any(cell.status.counts for cell in cells)
    ]
    return sorted(made, key=lambda group: (tasks.index(group.task), labels[group.model, group.engine, group.sweep]))


def labels_of(identities: Iterable[Identity]) -> dict[Identity, str]:
    """Names for people: the model, with its engine or its sweep where that is needed to tell two apart."""
    known = list(dict.fromkeys(identities))
    several = len({engine for _, engine, _ in known}) > 1
    short = {one: f"{model_label(one[0])} @ {one[1]}" if several else model_label(one[0]) for one in known}
    names = list(short.values())
    return {one: f"{name}, {one[2]}" if names.count(name) > 1 else name for one, name in short.items()}


def _row_identity(row: AnswerRow) -> Identity:
    return row.model, row.engine, row.sweep


def _cell_identity(cell: CellResult) -> Identity:
    return cell.model, str(cell.row.get("engine") or ""), str(cell.row.get("sweep") or "")


def _spreads(rows: Sequence[AnswerRow], cells: Sequence[CellResult]) -> dict[str, Spread]:
    numbers: dict[str, list[float]] = {}
    for row in answered(rows):
        for name, value in _numbers_of(row).items():
            numbers.setdefault(name, []).append(value)
    of_cells: dict[str, list[float]] = {}
    for cell in cells:
        if cell.status is Status.OK:
            for name, value in cell.metrics.items():
                of_cells.setdefault(name, []).append(float(value))
    for name, values in of_cells.items():
        if name not in _HIDDEN and name not in numbers and (not rows or metric(name).kind is Kind.ONCE):
            numbers[name] = values
    spreads = {name: found for name, values in numbers.items() if (found := spread(values))}
    score = score_mean(rows)
    return spreads if score is None else spreads | {"score": replace(spreads["score"], mean=score)}


def _numbers_of(row: AnswerRow) -> dict[str, float]:
    found = {
        "latency_s": row.latency_s,
        "ttft_s": row.ttft_s,
        "tokens_per_second": tokens_per_s(row),
        "decode_tps": row.decode_tps,
        "chars_per_s": rates.per_second(len(row.answer.text) or None, row.latency_s),
        "prompt_tokens": row.prompt_eval_count,
        "output_tokens": row.eval_count,
        **{name: value for name, value in row.scores.items() if name != "tokens_per_s"},
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def is_embedding(row: AnswerRow) -> bool:
    """The answer is vectors."""
    return "rows_per_s" in row.scores


def judgements(row: AnswerRow) -> dict[str, float]:
    """The scores of an answer that judge it."""
    return {name: value for name, value in row.scores.items() if _is_judgement(metric(name))}


def _is_judgement(declared: Metric) -> bool:
    """Not a time, a speed or a size, as far as somebody declares what it is."""
    return declared.kind in (Kind.MEAN, Kind.SHARE, Kind.COUNT) or not declared.is_declared


def checks_of(rows: Sequence[AnswerRow]) -> dict[str, dict[str, object]]:
    """By score: its mean, over how many answers, and where it is a yes or no the failures as `k/n`."""
    found: dict[str, list[float]] = {}
    for row in answered(rows):
        for name, value in judgements(row).items():
            found.setdefault(name, []).append(value)
    made: dict[str, dict[str, object]] = {}
    for name, values in found.items():
        middle = (score_mean(rows) if name == "score" else None) or mean(values)
        made[name] = {"mean": middle, "n": len(values)}
        if set(values) <= {0.0, 1.0} and metric(name).kind is not Kind.COUNT:
            made[name]["failures"] = f"{values.count(0.0)}/{len(values)}"
    return made


def categories(rows: Sequence[AnswerRow]) -> dict[str, dict[str, object]]:
    """By category: asked, succeeded, mean tokens/s and mean score (None where there is none); {} without categories."""
    return {
        name: {
            "asked": found.asked,
            "succeeded": found.succeeded,
            "mean_tokens_per_second": found.tokens_per_s,
            "mean_score": found.score,
        }
        for name, found in summary.categories(rows).items()
    }


# -- cost ------------------------------------------------------------------------------------------------------------


def _costs(rows: Sequence[AnswerRow], cells: Sequence[CellResult], prices: PriceTable | None) -> Costs | None:
    if prices is None:
        return None
    if not rows:
        return _costs_of_cells(cells, prices)
    by_cell: dict[str, float] = {}
    tokens = answers = 0
    for row in answered(rows):
        price = cost(row, prices)
        if price is not None:
            by_cell[row.cell] = by_cell.get(row.cell, 0.0) + price
            tokens += (row.prompt_eval_count or 0) + (row.eval_count or 0)
            answers += 1
    return Costs(math.fsum(by_cell.values()), tokens, answers, by_cell, prices.currency) if answers else None


def _costs_of_cells(cells: Sequence[CellResult], prices: PriceTable) -> Costs | None:
    """Of a task without answers: its believed runs at the medians of their tokens."""
    by_cell: dict[str, float] = {}
    tokens = runs = 0
    for cell in cells:
        price, count = prices.price_of(cell.model), cell.metrics.get("runs", 0)
        read, written = cell.metrics.get("prompt_eval_count"), cell.metrics.get("eval_count")
        if price is None or read is None or written is None or cell.status is not Status.OK or not count:
            continue
        by_cell[cell.key] = count * (read * price.input_per_token + written * price.output_per_token)
        tokens += round(count * (read + written))
        runs += round(count)
    return Costs(math.fsum(by_cell.values()), tokens, runs, by_cell, prices.currency) if by_cell else None
