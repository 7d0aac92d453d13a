"""A smooth surface through measured rates: log rate = f(log2 num_batch) + g(num_ctx) + something of its own here.

All three are unknown curves that change little over a short way (Gaussian processes). How strongly each of them may
change is chosen by the measured values themselves, as a mixture of the choices that explain them best. Where the true
surface has a step or a narrow bump, it is not seen until somebody measures there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

from ollama_sweep.core.surface.places import Found, Noise, Place, coordinates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

MOST_POINTS = 240
"""Of more measured places only so many are looked at, evenly taken: the sums grow with their cube."""
KEPT = 5
"""So many choices are mixed."""
MEAN_VARIANCE = 9.0


@dataclass(frozen=True)
class Choice:
    """How strongly the parts may change (standard deviations of logarithms), and over which way.

    Ways are octaves of num_batch and shares of the whole of num_ctx. `noise` multiplies what chance is thought to be.
    """

    by_batch: float
    way_batch: float
    by_ctx: float
    way_ctx: float
    here: float
    noise: float


@cache
def _choices() -> list[tuple[Choice, float]]:
    """Each choice with the logarithm of how likely it is before anything was measured."""
    found = []
    for (batch, p1), way_b, (ctx, p2), way_c, (here, p3), (noise, p4) in product(
        ((0.15, 0.25), (0.4, 0.4), (1.0, 0.35)), (2.0, 5.0),
        ((0.03, 0.35), (0.1, 0.35), (0.35, 0.3)), (0.35, 1.2),
        ((0.015, 0.5), (0.05, 0.35), (0.12, 0.15)), ((1.0, 0.7), (2.5, 0.3)),
    ):  # fmt: skip
        found.append((Choice(batch, way_b, ctx, way_c, here, noise), math.log(p1 * p2 * p3 * p4 / 4)))
    return found


WAY_HERE = (1.0, 0.25)
"""What is a place's own reaches so far, in octaves of num_batch and shares of num_ctx."""


class Smooth:
    """The surface. `means` and `deviations` are of logarithms of rates, of the places in the order of `grid`."""

    def __init__(self, grid: Sequence[Place], results: Sequence[tuple[Place, Found]], noise: Noise) -> None:
        """Raises ValueError where nothing was measured."""
        import numpy as np

        measured = _some([pair for pair in results if pair[1].is_measured])
        if not measured:
            raise ValueError("a surface needs a measured place")
        self._np = np
        self._all = np.array(coordinates(grid, grid))
        self._at = np.array(coordinates([place for place, _ in measured], grid))
        values = np.log(np.array([found.rate for _, found in measured], dtype=float))
        self._middle = float(values.mean())
        self._values = values - self._middle
        self._variance = np.array([noise.variance(found) for _, found in measured])
        self._has_noise = noise.is_known
        self._kept = self._chosen()

    # -- the choices -------------------------------------------------------------------------------------------------

    def _chosen(self) -> list[tuple[Choice, float, Numbers, Numbers]]:
        """The choices that explain the values best: each with its weight, its root of the covariance and its weights
        of the values."""
        np = self._np
        choices = _choices()
        stack = self._kernels(self._at, [choice for choice, _ in choices])
        factors = np.array([self._noise_factor(choice) for choice, _ in choices])
        diagonal = factors[:, None] ** 2 * self._variance + 1e-8
        index = np.arange(len(self._at))
        stack[:, index, index] += diagonal
        roots = np.linalg.cholesky(stack)
        rights = np.broadcast_to(self._values[None, :, None], (len(choices), len(self._values), 1))
        halves = np.linalg.solve(roots, rights)[:, :, 0]
        logs = -0.5 * (halves**2).sum(axis=1) - np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)
        logs = logs + np.array([prior for _, prior in choices])
        best = np.argsort(-logs)[:KEPT]
        shares = np.exp(logs[best] - logs[best[0]])
        shares /= shares.sum()
        found = []
        for number, share in zip(best, shares, strict=True):
            weights = np.linalg.solve(roots[number].T, halves[number])
            found.append((choices[number][0], float(share), roots[number], weights))
        return found

    def _noise_factor(self, choice: Choice) -> float:
        return choice.noise if not self._has_noise else 1 + (choice.noise - 1) / 3

    def _kernel(self, one: Numbers, other: Numbers, choice: Choice) -> Numbers:
        """The covariance of the true values at two sets of places."""
        batch = abs(one[:, None, 0] - other[None, :, 0])
        ctx = abs(one[:, None, 1] - other[None, :, 1])
        own: Numbers = (
            MEAN_VARIANCE
            + choice.by_batch**2 * self._smoother(batch / choice.way_batch)
            + choice.by_ctx**2 * self._rough(ctx / choice.way_ctx)
            + choice.here**2 * self._rough(batch / WAY_HERE[0]) * self._rough(ctx / WAY_HERE[1])
        )
        return own

    def _kernels(self, at: Numbers, choices: Sequence[Choice]) -> Numbers:
        """The covariance inside one set of places, of many choices: each part is made once."""
        np = self._np
        batch = abs(at[:, None, 0] - at[None, :, 0])
        ctx = abs(at[:, None, 1] - at[None, :, 1])
        batches = sorted({choice.way_batch for choice in choices})
        contexts = sorted({choice.way_ctx for choice in choices})
        here = self._rough(batch / WAY_HERE[0]) * self._rough(ctx / WAY_HERE[1])
        parts = [*(self._smoother(batch / way) for way in batches), *(self._rough(ctx / way) for way in contexts), here]
        shares = np.array([
            [*(one.by_batch**2 * (one.way_batch == way) for way in batches),
             *(one.by_ctx**2 * (one.way_ctx == way) for way in contexts), one.here**2]
            for one in choices
        ])  # fmt: skip
        found: Numbers = MEAN_VARIANCE + np.tensordot(shares, np.stack(parts), 1)
        return found

    def _rough(self, way: Numbers) -> Numbers:
        """Matérn 3/2."""
        scaled = math.sqrt(3) * way
        found: Numbers = (1 + scaled) * self._np.exp(-scaled)
        return found

    def _smoother(self, way: Numbers) -> Numbers:
        """Matérn 5/2."""
        scaled = math.sqrt(5) * way
        found: Numbers = (1 + scaled + scaled**2 / 3) * self._np.exp(-scaled)
        return found

    # -- what it says ------------------------------------------------------------------------------------------------

    def said(self) -> tuple[Numbers, Numbers]:
        """Mean and standard deviation of the logarithm of the true rate, of every place of the grid."""
        np = self._np
        total, squares = np.zeros(len(self._all)), np.zeros(len(self._all))
        for choice, share, root, weights in self._kept:
            across = self._kernel(self._all, self._at, choice)
            mean = across @ weights
            half = np.linalg.solve(root, across.T)
            own = MEAN_VARIANCE + choice.by_batch**2 + choice.by_ctx**2 + choice.here**2
            variance = np.maximum(own - (half**2).sum(axis=0), 1e-10)
            total += share * mean
            squares += share * (variance + mean**2)
        return total + self._middle, np.sqrt(np.maximum(squares - total**2, 1e-10))

    def draws(self, places: Sequence[int], times: int) -> Numbers:
        """So many surfaces that agree with what was measured, at these indices of the grid: shape (times, places).

        The same ones for the same results: a planner must decide the same after it was killed.
        """
        np = self._np
        random = np.random.default_rng(len(self._at))
        at = self._all[list(places)]
        parts: list[Any] = []
        left = times
        for number, (choice, share, root, weights) in enumerate(self._kept):
            count = left if number == len(self._kept) - 1 else min(left, round(times * share))
            left -= count
            if not count:
                continue
            across = self._kernel(at, self._at, choice)
            half = np.linalg.solve(root, across.T)
            covariance = self._kernel(at, at, choice) - half.T @ half
            covariance[np.diag_indices_from(covariance)] += 1e-6
            own = np.linalg.cholesky(covariance)
            parts.append(across @ weights + random.standard_normal((count, len(at))) @ own.T)
        found: Numbers = np.concatenate(parts) + self._middle
        return found


def _some(measured: list[tuple[Place, Found]]) -> list[tuple[Place, Found]]:
    if len(measured) <= MOST_POINTS:
        return measured
    step = len(measured) / MOST_POINTS
    return [measured[int(number * step)] for number in range(MOST_POINTS)]
