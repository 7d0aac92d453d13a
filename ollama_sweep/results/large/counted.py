"""What is counted over very many cells, and which of them to look at first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from ollama_sweep.core.outcome import CellResult, Flag, Status, failure_label
from ollama_sweep.results.large.columns import Columns, flag_set
from ollama_sweep.results.large.sheet import Sheet
from ollama_sweep.store.reader import Reader

SPOILED = frozenset({Flag.DRIFTED, Flag.THROTTLED, Flag.BUSY, Flag.SHARED_GPU, Flag.NOISY})


def labels(found: Columns) -> Counter[str]:
    """The words for cells without a number, and how many there are of each."""
    statuses, reasons = found.coded["status"], found.coded["reason"]
    mixed = statuses.codes.astype(np.int32) * len(reasons.words) + reasons.codes
    counts: Counter[str] = Counter()
    for code, count in enumerate(np.bincount(mixed).tolist()):
        word = statuses.words[code // len(reasons.words)]
        status = Status(str(word)) if count and word else None
        if status is not None and (status.is_failure or status is Status.SKIPPED):
            counts[failure_label(status, str(reasons.words[code % len(reasons.words)] or ""))] += count
    return counts


def flags(found: Columns) -> Counter[Flag]:
    """How many cells carry each flag."""
    known = found.coded["flags"]
    counts: Counter[Flag] = Counter()
    for word, count in zip(known.words, np.bincount(known.codes, minlength=len(known.words)).tolist(), strict=True):
        counts.update(dict.fromkeys(flag_set(word), count))
    return counts


def remarkable(reader: Reader, sheet: Sheet, n: int) -> list[CellResult]:
    """The cells to look at first: so many of each task that lead, the best first, and that were disturbed."""
    rows = list(dict.fromkeys(_remarkable(sheet.of_metric(reader, None), n)))
    positions = sheet.positions[rows].tolist()
    found = {result.row["position"]: result for result in reader.results_at(sheet.row.sweep_id, positions)}
    return [found[position] for position in positions if position in found]


def _remarkable(found: Columns, n: int) -> Iterator[int]:
    coded = found.coded
    is_ok = _of_words(coded["status"], lambda word: word == Status.OK)
    is_spoiled = _of_words(coded["flags"], lambda word: bool(flag_set(word) & SPOILED))
    for task, one in found.metrics.items():
        is_there = is_ok & (coded["task"].codes == coded["task"].values[task])
        if one.name in found.numbers:
            values = found.numbers[one.name] if one.better < 0 else -found.numbers[one.name]
            where = np.nonzero(is_there & np.isfinite(values))[0]
            if len(where) > n:
                where = where[np.sort(np.argpartition(values[where], n)[:n])]
            yield from where[np.argsort(values[where], kind="stable")].tolist()
        yield from np.nonzero(is_there & is_spoiled)[0][:n].tolist()


def _of_words(codes: Any, holds: Any) -> Any:
    """Which rows have a word of which this holds."""
    return np.array([holds(word) for word in codes.words] or [False], bool)[codes.codes]
