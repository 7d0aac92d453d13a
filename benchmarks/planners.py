"""How many seconds a goal takes, against measuring every cell, and against other ways to choose the next one.

Simulated maps with a known truth: a rate that rises with num_batch and may fall again, a fall with num_ctx, bumps, a
spilled region, an edge of memory, noise of runs and of loads that is drawn anew in each replay. Every third map, and
all from number 30 on, are held back: nothing was chosen by them. Recordings of real maps are taken with --recordings.
A load takes 90 s and a run about 30 s. Exhaustive is every cell with one run before three counted ones. Other ways:
cells at random without replacement; coarse to fine; expected improvement per second of a plain Gaussian process (both
axes alike); Optuna's TPE and GPSampler where they are installed. They have no end of their own for this question, so
they are told when their best measured cell is within 5 %.

    python benchmarks/planners.py --maps 30 --replays 7
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import _common

from ollama_sweep.core.noise.spread import Sums, load_of, spreads_of, sums_of
from ollama_sweep.core.outcome import Flag, Status
from ollama_sweep.core.recording import reading
from ollama_sweep.core.surface.goal import BEST, FULL, LARGEST, MAP, PER_CONTEXT, Goal, Runs
from ollama_sweep.core.surface.places import Found, Known, Noise, Place
from ollama_sweep.run.planners.base import Next, Problem, Reached
from ollama_sweep.run.planners.steering import PLANNERS

LOAD_S, RUN_S, COUNT = 90.0, 30.0, 4096
CLOSE = 0.95


@dataclass
class Truth:
    """A map: for each place its true rate, whether it fits, its size, and what a load takes; spreads of logarithms.

    Of a recording `drawn` are the rates that a load gives, by place, `noise` is what its session knew, and `rates` are
    those of other runs; an answer is then compared with what a whole map of `drawn` names, which is `against`.
    """

    name: str
    places: tuple[Place, ...]
    rates: Sequence[float]
    known: Sequence[Known]
    sizes: Sequence[int | None]
    load_s: float
    count: int
    runs_spread: float
    loads_spread: float
    drawn: Sequence[float] | None = None
    noise: Noise | None = None
    against: float | None = None

    def load(self, index: int, wanted: Runs, chance: random.Random) -> Found:
        """One load of a place."""
        return self.loaded(index, wanted, chance)[0]

    def loaded(self, index: int, wanted: Runs, chance: random.Random) -> tuple[Found, list[float]]:
        """The same with the rates of its runs."""
        known = self.known[index]
        if known in (Known.FAILED, Known.TRIED):
            return Found(known, loads=1, seconds=self.load_s), []
        rates = self._rates(index, chance)
        once = known is Known.SPILLED and wanted.is_once_where_spilled
        if once or (wanted.most is not None and wanted.agrees(rates[0])):
            rates = rates[:1]
        run_s = self.count / self.rates[index]
        seconds = self.load_s + (len(rates) + wanted.warmup) * run_s
        warming = chance.gauss(0, 1.3 * self.runs_spread) if wanted.warmup else None
        rate, size = sorted(rates)[len(rates) // 2], self.sizes[index]
        return Found(known, rate, len(rates), 1, size, seconds, self.load_s, self.count, None, warming), rates

    def _rates(self, index: int, chance: random.Random) -> list[float]:
        if self.drawn is not None:
            return [self.drawn[index]]
        load = chance.gauss(0, self.loads_spread)
        return [self.rates[index] * math.exp(load + chance.gauss(0, self.runs_spread)) for _ in range(3)]

    def exhaustive_s(self) -> float:
        """Every cell, with one run before three counted ones."""
        return sum(
            self.load_s + (0 if known in (Known.FAILED, Known.TRIED) else 4 * self.count / rate)
            for rate, known in zip(self.rates, self.known, strict=True)
        )

    def fits(self) -> list[int]:
        """Indices of what is not spilled; where all is, of what has a rate."""
        whole = [index for index, known in enumerate(self.known) if known is Known.FITS]
        return whole or [index for index, known in enumerate(self.known) if known is Known.SPILLED]

    def best(self) -> float:
        """The rate that an answer is compared with."""
        return self.against if self.against is not None else max(self.rates[index] for index in self.fits())


# -- maps ------------------------------------------------------------------------------------------------------------

SEEN = 30
"""Maps from this number on were never looked at."""
SHAPES = ((39, 16), (24, 14), (20, 18), (30, 12))


def simulated(seed: int, *, spilled: float | None = None, cells: int | None = None) -> Truth:
    """A map of its own for each seed."""
    chance = random.Random(seed)
    width, height = SHAPES[seed % len(SHAPES)] if cells is None else (39, 16)
    contexts = [1024 * (n + 1) for n in range(width)] if chance.random() < 0.6 else _octaves(1024, 131072, width)
    batches = _octaves(16, 2048, height) if chance.random() < 0.6 else [64 * (n + 1) for n in range(height)]
    half, steep = 2 ** chance.uniform(4, 9), chance.uniform(0.5, 1.3)
    peak, fall = 2 ** chance.uniform(7, 12), chance.uniform(0, 0.12)
    slope, bend = chance.uniform(0, 0.3), chance.uniform(0.7, 1.5)
    bumps = [
        (chance.uniform(-0.12, 0.12), chance.uniform(math.log2(batches[0]), math.log2(batches[-1])), chance.random(),
         chance.uniform(0.4, 1.2), chance.uniform(0.08, 0.3))
        for _ in range(chance.randrange(6))
    ]  # fmt: skip
    share = chance.choice((0.0, 0.05, 0.2, 0.4)) if spilled is None else spilled
    noise = chance.choice((0.01, 0.02, 0.03))
    top_ctx, top_batch = contexts[-1], batches[-1]
    places = tuple(Place(n, ctx, batch) for n, (ctx, batch) in enumerate((c, b) for c in contexts for b in batches))
    logs, sizes = [], []
    for place in places:
        octave, along = math.log2(place.num_batch), (place.num_ctx - contexts[0]) / (top_ctx - contexts[0])
        value = -math.log(1 + (half / place.num_batch) ** steep) - fall * max(0.0, octave - math.log2(peak))
        value -= slope * (place.num_ctx / top_ctx) ** bend
        value += sum(height * math.exp(-0.5 * ((octave - at) / wide) ** 2 - 0.5 * ((along - there) / long) ** 2)
                     for height, at, there, wide, long in bumps)  # fmt: skip
        logs.append(value)
        ctx, batch = place.num_ctx / top_ctx, place.num_batch / top_batch
        sizes.append(4 + 6 * ctx + 1.5 * batch + 2 * ctx * batch)
    limit = sorted(sizes)[min(len(sizes) - 1, int((1 - share) * len(sizes)))] if share else max(sizes)
    known = [Known.FITS if s <= limit else Known.SPILLED if s <= 1.25 * limit else Known.FAILED for s in sizes]
    rates = [math.exp(value) * (1.0 if s <= limit else 0.5 / (1 + 8 * (s / limit - 1)))
             for value, s in zip(logs, sizes, strict=True)]  # fmt: skip
    usual = sorted(rate for rate, how in zip(rates, known, strict=True) if how is Known.FITS)
    scale = COUNT / RUN_S / usual[len(usual) // 2]
    rates = [rate * scale for rate in rates]
    sizes_bytes = [int(size * 1e9) for size in sizes]
    return Truth(f"simulated {seed}", places, rates, known, sizes_bytes, LOAD_S, COUNT, noise, noise)


def _octaves(low: int, high: int, count: int) -> list[int]:
    return sorted({round(low * (high / low) ** (n / (count - 1))) for n in range(count)})


def recorded(path: Path, half: int = 0) -> Truth:
    """A real map, scaled to loads of 90 s and runs of 30 s. A planner is told one half of the runs of each load, and
    the other half judges its answer: nobody knows the true rates, and the fastest run of a noisy map is hardly one.

    It holds where these say that it is within 5 % of the cell that a whole map of the first half names.
    """
    found = reading.read(path.read_bytes(), str(path))
    cells = [cell for cell in found.cells if cell.num_ctx and cell.num_batch and not cell.is_skipped and cell.loads]
    places = tuple(Place(n, cell.num_ctx or 0, cell.num_batch or 0) for n, cell in enumerate(cells))
    known, told, judging, sizes, loads = [], [], [], [], []
    for cell in cells:
        last = cell.loads[-1]
        runs = [run.prompt_eval_rate for load in cell.loads for run in load.measured if run.prompt_eval_rate]
        loads += [[load_of(runs)]] if runs else []
        known.append(Known.SPILLED if runs and Flag.SPILLED in last.flags else Known.FITS if runs
                     else Known.FAILED if last.status is Status.OOM else Known.TRIED)  # fmt: skip
        told.append(median(runs[half::2] or runs or [1.0]))
        judging.append(median(runs[1 - half :: 2] or runs or [1.0]))
        sizes.append(last.effective.size_bytes if last.effective else None)
    count = int(median(rate for rate, how in zip(judging, known, strict=True) if how is Known.FITS) * RUN_S)
    noise = Noise.of(spreads_of(loads))
    truth = Truth(path.name, places, judging, known, sizes, LOAD_S, count, noise.runs or 0.0, 0.0, told, noise)
    truth.against = judging[max(truth.fits(), key=lambda index: told[index])]
    return truth


# -- playing ---------------------------------------------------------------------------------------------------------


@dataclass
class Ended:
    """What a way has taken, and whether its answer holds."""

    seconds: float
    cells: int
    holds: float


def planned(truth: Truth, goal: Goal, seed: int) -> tuple[Ended, dict[int, Found]]:
    """By our planner, with its own end."""
    chance, results, seconds, sums = random.Random(seed), dict[int, Found](), 0.0, Sums()
    while True:
        open_ones = frozenset(range(len(truth.places))) - results.keys()
        noise = truth.noise if truth.noise is not None else Noise.of(sums.spreads)
        found = PLANNERS[goal.kind](Problem(truth.places, open_ones, dict(results), noise), goal)
        if isinstance(found, Reached):
            return Ended(seconds, len(results), _holds(truth, goal, found)), results
        assert isinstance(found, Next)
        results[found.position], rates = truth.loaded(found.position, found.runs, chance)
        seconds += results[found.position].seconds
        sums = sums.plus(sums_of([load_of(rates)])) if rates else sums


def _holds(truth: Truth, goal: Goal, found: Reached) -> float:
    """Whether the answer is right; of `per-context` the share of columns that are."""
    if goal.kind == MAP:
        return 1.0
    if not found.answers:
        return 0.0
    fits = set(truth.fits())
    if goal.kind == BEST:
        return float(truth.rates[found.answers[0]] >= CLOSE * truth.best())
    if goal.kind == LARGEST:
        return float(_is_largest(truth, goal, found.answers[0]))
    named = {truth.places[index].num_ctx: index for index in found.answers}
    right = []
    for ctx in dict.fromkeys(place.num_ctx for place in truth.places):
        column = [index for index, place in enumerate(truth.places) if place.num_ctx == ctx]
        there = [index for index in column if index in fits]
        there = there or [index for index in column if truth.known[index] is Known.SPILLED]
        if there:
            top = max(truth.rates[index] for index in there)
            right.append(ctx in named and truth.rates[named[ctx]] >= CLOSE * top)
    return sum(right) / len(right)


def _is_largest(truth: Truth, goal: Goal, index: int) -> bool:
    """It holds within 5 %, and no num_ctx that is a step larger holds for certain."""
    fits, best = truth.fits(), truth.best()
    contexts = sorted({place.num_ctx for place in truth.places})
    certain = [truth.places[i].num_ctx for i in fits if truth.rates[i] >= goal.rate * best * 1.02]
    mine = contexts.index(truth.places[index].num_ctx)
    return index in fits and truth.rates[index] >= goal.rate * CLOSE * best and mine + 1 >= contexts.index(max(certain))


def reproduced(maps: Sequence[Truth]) -> str:
    """How far a whole map's own answer, by one half of the runs, is the best one by the other half."""
    shares = [truth.best() / max(truth.rates[index] for index in truth.fits()) for truth in maps]
    near = sum(share >= CLOSE for share in shares)
    return (
        f"What a whole recorded map names is within 5 % of the best by its other runs in {near} of {len(shares)}; "
        f"the median of that is {100 * median(shares):.0f} % of the best."
    )


Way = Callable[[Truth, random.Random, dict[int, Found]], Iterator[int]]


def other(truth: Truth, way: Way, seed: int) -> Ended:
    """By another way, which is told when its best measured cell is within 5 %; measured in full, as it would be."""
    chance, results, seconds = random.Random(seed), dict[int, Found](), 0.0
    for index in way(truth, chance, results):
        if index in results:
            continue
        results[index] = truth.load(index, FULL, chance)
        seconds += results[index].seconds
        if truth.known[index] is Known.FITS and truth.rates[index] >= CLOSE * truth.best():
            return Ended(seconds, len(results), 1.0)
    return Ended(seconds, len(results), 0.0)


def at_random(truth: Truth, chance: random.Random, results: dict[int, Found]) -> Iterator[int]:  # noqa: ARG001
    """Any cell that was not measured."""
    order = list(range(len(truth.places)))
    chance.shuffle(order)
    yield from order


def coarse_to_fine(truth: Truth, chance: random.Random, results: dict[int, Found]) -> Iterator[int]:
    """Every eighth value of each axis, then halved steps around the best so far."""
    contexts = sorted({place.num_ctx for place in truth.places})
    batches = sorted({place.num_batch for place in truth.places})
    at = {(place.num_ctx, place.num_batch): index for index, place in enumerate(truth.places)}
    step = 8
    yield from (at[c, b] for c in contexts[step // 2 :: step] for b in batches[step // 2 :: step])
    while step > 1:
        step //= 2
        rated = [index for index, found in results.items() if found.is_measured]
        best = truth.places[max(rated, key=lambda index: results[index].rate or 0.0)] if rated else truth.places[0]
        i, j = contexts.index(best.num_ctx), batches.index(best.num_batch)
        for di in (-step, 0, step):
            for dj in (-step, 0, step):
                if 0 <= i + di < len(contexts) and 0 <= j + dj < len(batches):
                    yield at[contexts[i + di], batches[j + dj]]
    yield from at_random(truth, chance, results)


def _plain_kernel(one: Any, two: Any, deviation: float) -> Any:
    """Matérn 5/2, the same way on both axes."""
    import numpy as np

    way = math.sqrt(5) * np.sqrt(((one[:, None] - two[None]) ** 2).sum(axis=2)) / 0.3
    return deviation**2 * (1 + way + way**2 / 3) * np.exp(-way)


def cost_cooled(truth: Truth, chance: random.Random, results: dict[int, Found]) -> Iterator[int]:
    """Expected improvement of a plain Gaussian process, over seconds to the power of the budget that is left."""
    import numpy as np
    from scipy.special import ndtr

    ctx = np.array([math.log2(place.num_ctx) for place in truth.places])
    batch = np.array([math.log2(place.num_batch) for place in truth.places])
    at = np.stack([(ctx - ctx.min()) / np.ptp(ctx), (batch - batch.min()) / np.ptp(batch)], axis=1)
    order = list(range(len(truth.places)))
    chance.shuffle(order)
    yield from order[:5]
    while len(results) < len(truth.places):
        measured = [index for index, found in results.items() if found.is_measured]
        if not measured:
            yield next(index for index in order if index not in results)
            continue
        values = np.log([results[index].rate or 1.0 for index in measured])
        middle, wide = values.mean(), max(values.std(), 0.05)

        inner = _plain_kernel(at[measured], at[measured], wide) + 0.03**2 * np.eye(len(measured))
        across = _plain_kernel(at, at[measured], wide)
        mean = middle + across @ np.linalg.solve(inner, values - middle)
        variance = wide**2 - np.einsum("ij,ji->i", across, np.linalg.solve(inner, across.T))
        deviation = np.sqrt(np.maximum(variance, 1e-9))
        scaled = (mean - values.max()) / deviation
        gain = deviation * (scaled * ndtr(scaled) + np.exp(-0.5 * scaled**2) / math.sqrt(2 * math.pi))
        left = max(0.0, 1 - len(results) / 60)
        score = gain / (truth.load_s + 4 * truth.count / np.exp(mean)) ** left
        score[list(results)] = -1
        yield int(score.argmax())


def optuna_way(sampler: str) -> Way:
    """A sampler of Optuna over the indices of both axes; that a cell must fit whole is a constraint, as it wants it."""

    def way(truth: Truth, chance: random.Random, results: dict[int, Found]) -> Iterator[int]:
        optuna = importlib.import_module("optuna")

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore")
        contexts = sorted({place.num_ctx for place in truth.places})
        batches = sorted({place.num_batch for place in truth.places})
        at = {(place.num_ctx, place.num_batch): index for index, place in enumerate(truth.places)}
        seed = chance.randrange(10**6)
        made = optuna.samplers.GPSampler if sampler == "GP" else optuna.samplers.TPESampler
        chosen = made(seed=seed, constraints_func=lambda trial: (trial.user_attrs["misses"],))
        study = optuna.create_study(direction="maximize", sampler=chosen)
        slowest = math.inf
        for _ in range(min(len(truth.places), 120)):
            trial = study.ask()
            i, j = trial.suggest_int("ctx", 0, len(contexts) - 1), trial.suggest_int("batch", 0, len(batches) - 1)
            index = at[contexts[i], batches[j]]
            yield index
            found = results[index]
            slowest = min(slowest, found.rate or slowest)
            trial.set_user_attr("misses", 0.0 if found.known is Known.FITS else 1.0)
            study.tell(trial, math.log(found.rate or (slowest if slowest < math.inf else 1.0)))
        yield from at_random(truth, chance, results)

    return way


# -- tables ----------------------------------------------------------------------------------------------------------


def goal_rows(label: str, maps: Sequence[Truth], kinds: Sequence[str], replays: int) -> list[list[str]]:
    rows = []
    for kind in kinds:
        ended: list[Ended] = []
        shares: list[float] = []
        for number, truth in enumerate(maps):
            whole = truth.exhaustive_s()
            for replay in range(replays):
                one, _ = planned(truth, Goal(kind), 1000 * number + replay)
                ended.append(one)
                shares.append(one.seconds / whole)
        holds = sum(one.holds for one in ended) / len(ended)
        cells = [one.cells for one in ended]
        rows.append([
            f"{kind}, {label}", f"{len(ended)}", f"{sum(shares) / len(shares):.3f}",
            f"{_common.percentile(shares, 0.9):.3f}", f"{sum(cells) / len(cells):.0f}",
            f"{_common.percentile(cells, 0.9):.0f}", f"{100 * holds:.1f} %",
        ])  # fmt: skip
    return rows


def map_rows(label: str, maps: Sequence[Truth]) -> list[list[str]]:
    """The whole map: seconds, and how far its values are from the truth, beside those of every cell in full."""
    shares, errors, plain = [], [], []
    for number, truth in enumerate(maps):
        ended, results = planned(truth, Goal(MAP), number)
        shares.append(ended.seconds / truth.exhaustive_s())
        chance = random.Random(number)
        for index, found in results.items():
            if found.rate and found.known is Known.FITS:
                errors.append(math.log(found.rate / truth.rates[index]))
                full = truth.load(index, FULL, chance).rate
                plain.append(math.log((full or 1.0) / truth.rates[index]))
    numbers = [f"{sum(shares) / len(shares):.3f}", f"{max(shares):.3f}"]
    return [[f"map, {label}", f"{len(maps)}", *numbers, f"{100 * _rms(errors):.1f} %", f"{100 * _rms(plain):.1f} %"]]


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values)) if values else 0.0


def other_rows(maps: Sequence[Truth], replays: int, *, with_optuna: bool) -> list[list[str]]:
    ways: dict[str, Way] = {
        "at random, no cell twice": at_random,
        "coarse to fine": coarse_to_fine,
        "cost-cooled EI (plain GP)": cost_cooled,
    }
    if with_optuna:
        ways["Optuna TPE"] = optuna_way("TPE")
        if importlib.util.find_spec("torch") is not None:
            ways["Optuna GPSampler"] = optuna_way("GP")
    rows = []
    told: list[float] = []
    for number, truth in enumerate(maps):
        whole = truth.exhaustive_s()
        told += [_until_close(truth, 1000 * number + replay) / whole for replay in range(replays)]
    rows.append(["`best`, told when", f"{sum(told) / len(told):.4f}", f"{_common.percentile(told, 0.95):.4f}"])
    for name, way in ways.items():
        shares = [other(truth, way, 1000 * number + replay).seconds / truth.exhaustive_s()
                  for number, truth in enumerate(maps) for replay in range(replays)]  # fmt: skip
        rows.append([name, f"{sum(shares) / len(shares):.4f}", f"{_common.percentile(shares, 0.95):.4f}"])
    return rows


def _until_close(truth: Truth, seed: int) -> float:
    """Our own planner, told like the others when its best measured cell is within 5 %."""
    chance, results, seconds = random.Random(seed), dict[int, Found](), 0.0
    while True:
        open_ones = frozenset(range(len(truth.places))) - results.keys()
        found = PLANNERS[BEST](Problem(truth.places, open_ones, dict(results), Noise(), doubt=-1.0), Goal(BEST))
        if isinstance(found, Reached):
            return seconds
        results[found.position] = truth.load(found.position, found.runs, chance)
        seconds += results[found.position].seconds
        if truth.known[found.position] is Known.FITS and truth.rates[found.position] >= CLOSE * truth.best():
            return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--maps", type=int, default=30, help="simulated maps; a tenth as many for `map`")
    parser.add_argument("--replays", type=int, default=7, help="replays of each, with loads drawn anew")
    parser.add_argument("--first", type=int, default=0, help="the first map's number")
    parser.add_argument("--recordings", type=Path, nargs="*", default=[], help="recordings of real maps")
    parser.add_argument("--only", choices=["best", "per-context", "largest", "map", "others"], help="one table")
    given = parser.parse_args()
    _common.head(parser)
    began = time.monotonic()
    seeds = range(given.first, given.first + given.maps)
    parts = {
        "maps it was made with": [simulated(seed) for seed in seeds if seed % 3 and seed < SEEN],
        "maps held back": [simulated(seed) for seed in seeds if seed % 3 == 0 or seed >= SEEN],
        "recorded": [recorded(path, half) for path in given.recordings for half in (0, 1)],
    }
    kinds = [kind for kind in (BEST, PER_CONTEXT, LARGEST) if given.only in (None, kind)]
    rows = [row for label, maps in parts.items() if maps for row in goal_rows(label, maps, kinds, given.replays)]
    if rows:
        columns = ["goal", "replays", "seconds / exhaustive", "9 of 10", "cells", "9 of 10", "answer holds"]
        _common.table(columns, sorted(rows))
        print()
    if parts["recorded"]:
        print(f"{reproduced(parts['recorded'])}\n")
    if given.only in (None, "map"):
        few = max(1, given.maps // 10)
        real = [simulated(given.first + seed, spilled=share, cells=624) for share in (0.05, 0.2) for seed in range(few)]
        rows = [*map_rows("5 % not whole on the GPU", real[:few]), *map_rows("20 %", real[few:])]
        rows += map_rows("recorded", parts["recorded"]) if parts["recorded"] else []
        _common.table(["goal", "maps", "seconds / exhaustive", "worst", "RMS error", "of every cell in full"], rows)
        print()
    if given.only in (None, "others"):
        with_optuna = importlib.util.find_spec("optuna") is not None
        maps = [*parts["maps it was made with"], *parts["maps held back"]]
        _common.table(["until a cell within 5 %", "seconds / exhaustive", "19 of 20"],
                      other_rows(maps, max(1, given.replays // 3), with_optuna=with_optuna))  # fmt: skip
    print(f"\nIt took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
