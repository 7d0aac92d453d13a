"""The best of very many cells: as `best` says it, in words and for machines, never with a row for each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ollama_sweep.core.cell import MAIN_TASK, PROMPT_TOKENS
from ollama_sweep.core.metrics import Metric, default_metric, metric
from ollama_sweep.core.outcome import CellResult, Flag, Status
from ollama_sweep.core.text import harmless
from ollama_sweep.results import best as words
from ollama_sweep.results.grids import X, Y, work_in_words
from ollama_sweep.results.large.columns import (
    Columns,
    best_of,
    combinations,
    compact,
    flag_set,
    progress_of,
    ranked,
    states_of,
)
from ollama_sweep.results.plots.shared.heatmap_data import Kind

MOST_SHOWN = 100
"""Of those that are tied with the best so many are given to a machine."""


@dataclass(frozen=True)
class Told:
    """What `describe` says, and how many cells failed or carry a flag."""

    text: str
    doubtful: int


def _by_work(found: Columns) -> Iterator[tuple[str, str, Any]]:
    """What can be compared, as `grids.by_work` has it: words that tell it apart, its task, its rows."""
    coded = found.coded
    is_read = np.array([word is not None for word in coded["status"].words], bool)[coded["status"].codes]
    tasks = sorted(found.metrics, key=lambda task: task != MAIN_TASK)
    for task in tasks:
        where = np.nonzero((coded["task"].codes == coded["task"].values[task]) & is_read)[0]
        lengths, ranks = ranked(found, PROMPT_TOKENS, where)
        for number, length in enumerate(lengths):
            wanted = length if isinstance(length, int) else None
            yield work_in_words(task if len(tasks) > 1 else "", wanted), task, where[ranks == number]


@dataclass(frozen=True)
class Found:
    """The best of what can be compared: its row, those that cannot be told from it, the best first, and the values of
    all rows (`where`). `winner` is None where nothing has a number.
    """

    task: str
    metric: Metric
    where: Any
    winner: int | None = None
    tied: Any = ()


def best_in(found: Columns, task: str, where: Any) -> Found:
    """The best of these rows, which can be compared."""
    one = found.metrics[task]
    status = found.coded["status"]
    is_ok = np.array([word == Status.OK for word in status.words] or [False], bool)[status.codes[where]]
    known = found.numbers[one.name][where] if one.name in found.numbers else np.full(len(where), np.nan)
    values = np.where(is_ok, known, np.nan)
    if not np.isfinite(values).any():
        return Found(task, one, where)
    winner, tied = best_of(found, where, one, values)
    order = np.nonzero(tied)[0]
    order = order[np.argsort(-values[order] if one.better >= 0 else values[order], kind="stable")]
    return Found(task, one, where, int(where[winner]), where[order])


def describe(found: Columns) -> Told:
    """The best cell of each task, and of each length of the prompt, in the words of `best`."""
    parts = [(work, best_in(found, task, where)) for work, task, where in _by_work(found)]
    lines = []
    for work, one in parts:
        is_first = one.task == parts[0][1].task
        said = _described(found, one) if is_first else _in_a_line(found, one)
        head = harmless(work)
        lines += [said] if len(parts) < 2 else [f"{head}:", said] if is_first else [harmless(f"{work}: {said}")]
    statuses = np.array([word is not None and Status(str(word)).is_failure for word in found.coded["status"].words])
    flagged = np.array([bool(flag_set(word) - {Flag.REUSED}) for word in found.coded["flags"].words])
    doubtful = statuses[found.coded["status"].codes] | flagged[found.coded["flags"].codes]
    return Told("\n".join(lines), int(doubtful.sum()))


def _described(found: Columns, best: Found) -> str:
    if best.winner is None:
        return _nothing(found, best)
    cell = found.result_at(best.winner)
    return words.described(
        cell, _shown(found, best), len(best.tied), best.metric, progress_of(states_of(found.coded, best.where)),
        found.spreads.get(best.metric.name), _around(found, best, cell), _by_model(found, best),
    )  # fmt: skip


def _in_a_line(found: Columns, best: Found) -> str:
    if best.winner is None:
        return _nothing(found, best)
    return words.in_a_line(found.result_at(best.winner), _shown(found, best), len(best.tied), best.metric)


def _shown(found: Columns, best: Found) -> list[CellResult]:
    return [found.result_at(int(number)) for number in best.tied[: words.MOST_TIED]]


def _nothing(found: Columns, best: Found) -> str:
    states = states_of(found.coded, best.where)
    counts = {label: count for label, count in states.counted() if label and states.kind(label) is Kind.FAILED}
    return words.nothing(progress_of(states), Counter(counts), best.metric)


def _by_model(found: Columns, best: Found) -> list[CellResult]:
    """The best of each model, in the order of the plan; none where there is one model."""
    codes = found.coded["model"].codes[best.where]
    known, group = compact(codes)
    if len(known) < 2:
        return []
    first = sorted(range(len(known)), key=lambda number: int(np.argmax(group == number)))
    each = (best_in(found, best.task, best.where[group == number]).winner for number in first)
    return [found.result_at(winner) for winner in each if winner is not None]


def _around(found: Columns, best: Found, cell: CellResult) -> list[str]:
    """What the cells around the best one say of it."""
    home = next(where for where, _ in combinations(found, best.where) if best.winner in where)
    rows, _ = ranked(found, Y, home)
    batches = found.coded[Y] if Y in found.row.dimensions else None
    if batches is None:
        return []
    known = compact(batches.codes[best.tied])[0] if len(best.tied) else []
    at_edge = words.edge(rows, cell, {batches.words[code] for code in known})
    if at_edge:
        return at_edge
    beside = best.tied[np.isin(best.tied, home)] if len(best.tied) else np.zeros(0, np.int64)
    across = found.coded[X].codes
    beside = beside[across[beside] == across[best.winner]]
    return words.smaller(cell, [batches.words[code] for code in batches.codes[beside]])


# -- for machines ----------------------------------------------------------------------------------------------------


def best_cells(found: Columns, *, is_of_all: bool = False) -> tuple[words.Best, int]:
    """What `best.best_cells` says, of very many cells: of the first task, or `is_of_all`, where a metric was asked for.

    With the first MOST_SHOWN of those that are tied, and how many there are.
    """
    parts = list(_by_work(found))
    tasks = [task for _, task, _ in parts]
    mine = [best_in(found, task, where) for _, task, where in parts if is_of_all or task == tasks[0]]
    lengths, _ = ranked(found, PROMPT_TOKENS, np.arange(len(found.coded["task"].codes)))
    has_lengths = any(isinstance(length, int) for length in lengths)
    if not has_lengths and len(mine) > 1:
        mine = [best_in(found, tasks[0], np.concatenate([one.where for one in mine]))]
    known = [one for one in mine if one.winner is not None]
    if not known:
        return words.Best(mine[0].metric if mine else metric(default_metric([])), None), 0
    last = known[-1]
    assert last.winner is not None
    winner = found.result_at(last.winner)
    return words.Best(
        metric=last.metric,
        winner=winner,
        tied=tuple(found.result_at(int(number)) for number in last.tied[:MOST_SHOWN]),
        by_context=tuple(_by_context(found, last)),
        by_model=tuple(_by_model(found, last)),
        by_length=tuple(found.result_at(one.winner) for one in known if one.winner is not None) if has_lengths else (),
        warnings=tuple(words.own_warnings(winner, last.metric, progress_of(states_of(found.coded, last.where)),
                                          _around(found, last, winner))),
        spreads=found.spreads.get(last.metric.name),
    ), len(last.tied)  # fmt: skip


def _by_context(found: Columns, best: Found) -> Iterator[CellResult]:
    """The best of each num_ctx, all else as in the best cell."""
    home = next(where for where, _ in combinations(found, best.where) if best.winner in where)
    values, ranks = ranked(found, X, home)
    order = np.argsort(ranks, kind="stable")
    for some in np.split(home[order], np.cumsum(np.bincount(ranks, minlength=len(values)))[:-1]):
        one = best_in(found, best.task, some)
        if one.winner is not None:
            yield found.result_at(one.winner)
