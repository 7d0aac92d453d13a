"""Made maps with a known truth: what planners are tried on."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ollama_sweep.core.surface.goal import Goal, Runs
from ollama_sweep.core.surface.places import Found, Known, Noise, Place
from ollama_sweep.run.planners.base import Next, Problem, Reached
from ollama_sweep.run.planners.steering import PLANNERS

Rate = Callable[[int, int], float]


def smooth_rate(num_ctx: int, num_batch: int) -> float:
    """Rises with num_batch, is flat from about 256 on, falls a little with num_ctx."""
    return float(900 / (1 + (60 / num_batch) ** 1.1) * math.exp(-0.1 * num_ctx / 32768))


@dataclass
class Truth:
    """A map: `spills` and `fails` from these sizes (num_ctx × (1 + num_batch / 512)) on, None for never."""

    contexts: Sequence[int]
    batches: Sequence[int]
    rate: Rate = smooth_rate
    spills: float | None = None
    fails: float | None = None
    runs_spread: float = 0.01
    loads_spread: float = 0.01
    load_s: float = 90.0
    count: int = 12_000
    places: tuple[Place, ...] = field(init=False)

    def __post_init__(self) -> None:
        grid = [(ctx, batch) for ctx in self.contexts for batch in self.batches]
        self.places = tuple(Place(number, *place) for number, place in enumerate(grid))

    def size(self, place: Place) -> float:
        return place.num_ctx * (1 + place.num_batch / 512)

    def known(self, place: Place) -> Known:
        if self.fails is not None and self.size(place) >= self.fails:
            return Known.FAILED
        return Known.SPILLED if self.spills is not None and self.size(place) >= self.spills else Known.FITS

    def true(self, place: Place) -> float:
        """The rate; a spilled place has a fifth of it."""
        return self.rate(place.num_ctx, place.num_batch) * (0.2 if self.known(place) is Known.SPILLED else 1.0)

    def measured(self, place: Place, runs: Runs, random: random.Random) -> Found:
        """One load of it."""
        known = self.known(place)
        if known is Known.FAILED:
            return Found(known, loads=1, seconds=self.load_s)
        load = random.gauss(0, self.loads_spread)
        rates = [self.true(place) * math.exp(load + random.gauss(0, self.runs_spread)) for _ in range(3)]
        once = known is Known.SPILLED and runs.is_once_where_spilled
        if once or (runs.most is not None and runs.agrees(rates[0])):
            rates = rates[:1]
        before = [random.gauss(0, 1.3 * self.runs_spread)] if runs.warmup else []
        seconds = self.load_s + (len(rates) + len(before)) * self.count / self.true(place)
        return Found(
            known, sorted(rates)[len(rates) // 2], len(rates), 1, int(self.size(place) * 1e6), seconds,
            self.load_s, self.count, None, before[0] if before else None,
        )  # fmt: skip


@dataclass
class Played:
    """How a goal ended, the cells in the order they were measured, and what they took."""

    ended: Reached
    order: list[Place]
    results: dict[int, Found]
    seconds: float
    steps: list[Next]

    @property
    def answers(self) -> list[Place]:
        return [place for place in self.order if place.position in self.ended.answers]


def play(truth: Truth, goal: Goal, *, seed: int = 0, within_s: float | None = None) -> Played:
    """Measure what the planner asks for until its goal is reached."""
    random_ = random.Random(seed)
    results: dict[int, Found] = {}
    order: list[Place] = []
    steps: list[Next] = []
    seconds = 0.0
    for _ in range(len(truth.places) + 1):
        left_s = None if within_s is None else max(0.0, within_s - seconds)
        open_ones = frozenset(range(len(truth.places))) - results.keys()
        found = PLANNERS[goal.kind](Problem(truth.places, open_ones, dict(results), Noise(), left_s), goal)
        if isinstance(found, Reached):
            return Played(found, order, results, seconds, steps)
        place = truth.places[found.position]
        results[found.position] = truth.measured(place, found.runs, random_)
        seconds += results[found.position].seconds
        order.append(place)
        steps.append(found)
    raise AssertionError("a planner asked for more cells than there are")
