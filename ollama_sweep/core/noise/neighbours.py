"""Which numbers of a grid are off what their neighbours say: by arrays, in a time that grows with the grid. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ollama_sweep.core.noise.spread import MEDIAN_VARIANCE, Spreads

MOST_OFF = 50
OFF = 0.10
OFF_SIGMAS = 3.0
_REACH = 2
"""So far away a number is heard."""


def off(logs: Any, sigmas: Any) -> Iterator[tuple[int, int, float]]:
    """The places whose number is off what the neighbours say in both directions, and by what share (the lesser of the
    two), the worst first; it then says nothing of others.

    `logs` is an array of two dimensions of logarithms, NaN for none; `sigmas` is how far each may be off by chance.
    """
    import numpy as np

    logs = np.array(logs, float)
    is_line = min(logs.shape) == 1
    limits = np.maximum(OFF, OFF_SIGMAS * np.asarray(sigmas, float))
    far = _far(logs, limits, is_line=is_line)
    for _ in range(min(MOST_OFF, far.size)):
        at = np.unravel_index(int(np.argmax(np.abs(far))), far.shape)
        x, y = int(at[0]), int(at[1])
        if not far[x, y]:
            return
        yield x, y, math.expm1(float(far[x, y]))
        logs[x, y] = np.nan
        around = tuple(slice(max(0, n - 2 * _REACH), n + 2 * _REACH + 1) for n in (x, y))
        near = tuple(slice(max(0, n - _REACH), n + _REACH + 1) for n in (x, y))
        inner = tuple(slice(n.start - a.start, n.stop - a.start) for n, a in zip(near, around, strict=True))
        far[near] = _far(logs[around], limits[around], is_line=is_line)[inner]


def sigma(spreads: Spreads | None, runs: Any, loads: Any) -> Any:
    """Of the difference between a cell, or an array of them, and the mean of two others; 0 where nothing is known."""
    import numpy as np

    if spreads is None:
        return np.zeros(np.shape(runs))
    of_runs = spreads.runs.sigma**2 * MEDIAN_VARIANCE / np.maximum(runs, 1)
    return np.sqrt(1.5 * (of_runs + spreads.loads.sigma**2 / np.maximum(loads, 1)))


def _far(logs: Any, limits: Any, *, is_line: bool) -> Any:
    """How far each number is off, 0 where it is not."""
    import numpy as np

    gaps = np.stack([logs - _said(logs, is_line=is_line), logs - _said(logs.T, is_line=is_line).T])
    if is_line:
        gap = np.where(np.isnan(gaps[0]), gaps[1], gaps[0])
    else:
        lesser = np.where(np.abs(gaps[0]) < np.abs(gaps[1]), gaps[0], gaps[1])
        gap = np.where(np.sign(gaps[0]) == np.sign(gaps[1]), lesser, np.nan)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(np.expm1(gap)) > limits, gap, 0.0)


def _said(logs: Any, *, is_line: bool) -> Any:
    """What the neighbours along the first dimension say: their mean, and at an edge what goes on straight from the
    next two. On a grid of one line an edge is not spoken of: it may be a bend.
    """
    import numpy as np

    padded = np.pad(logs, ((_REACH, _REACH), (0, 0)), constant_values=np.nan)
    count = len(logs)
    beyond_before, before, after, beyond_after = (padded[n : n + count] for n in (0, 1, 3, 4))
    said = (before + after) / 2
    if is_line:
        return said
    near = np.where(np.isnan(after), before, after)
    beyond = np.where(np.isnan(after), beyond_before, beyond_after)
    return np.where(np.isnan(said), np.where(np.isnan(beyond), near, 2 * near - beyond), said)
