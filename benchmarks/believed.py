"""How often what is said of a cell is true: simulated cells with a known truth, and the code that measures real ones.

200 cells whose speeds rise with num_batch and fall a little with num_ctx, three runs a load, the control cell as often
as a sweep of that size has it by itself. Each cell's first load, then a second look at a tenth of the time, by the
functions that a sweep uses. Said is: the share of cells whose interval holds the truth, of those that were looked at
again, and of the best; how wide the intervals are against those of spreads that are known for certain; and by how much
the cell that is called best is slower than the truly best, with a second look and with as many seconds spent on one
more run in every third cell instead.

Then the same cells on a machine that becomes 8 % slower meanwhile (evenly, in one step, there and back): by how much
the map is wrong (RMS of the logarithms about the truth, what all have in common taken off) measured column by column,
in a shuffled order, in three shuffled passes, and column by column with the rate that is corrected by the control
cell; and how often intervals hold the truth with and without the correction.

    python benchmarks/believed.py --sweeps 400
"""

from __future__ import annotations

import argparse
import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ollama_sweep.core.judge import wants_warmup
from ollama_sweep.core.loading.controls import controls_wanted
from ollama_sweep.core.noise.drift import Point, line_of
from ollama_sweep.core.noise.spread import MEDIAN_VARIANCE, Load, Spreads, half_width, load_of, spreads_of, value_of
from ollama_sweep.core.outcome import CellResult, Status
from ollama_sweep.core.stats import best_set
from ollama_sweep.results import second_look

COLUMNS, ROWS = 10, 20
NOISE = (0.0, 0.01, 0.05, 0.16)
RUN_NOISE = 0.015
RUNS = 3
METRIC = "prompt_eval_rate"


@dataclass
class Cell:
    """A cell with its truth, and the loads that its value is of."""

    place: tuple[int, int]
    truth: float
    loads: list[Load] = field(default_factory=list)
    looks: int = 0

    @property
    def value(self) -> float:
        return value_of(self.loads)

    @property
    def position(self) -> int:
        return self.place[0] * ROWS + self.place[1]

    @property
    def runs(self) -> int:
        return sum(load.runs for load in self.loads)

    def result(self, spreads: Spreads) -> CellResult:
        """As a sweep would read it back."""
        half = half_width(spreads, runs=self.runs, loads=len(self.loads)) or 0.0
        return CellResult(
            key=f"{self.place}", coordinates={"num_ctx": self.place[0], "num_batch": self.place[1]}, model="m",
            task="prompt_eval", status=Status.OK,
            metrics={METRIC: self.value, f"{METRIC}_low": self.value / math.exp(half), "looks": self.looks,
                     f"{METRIC}_high": self.value * math.exp(half), "runs": self.runs, "loads": len(self.loads)},
            row={"position": self.position},
        )  # fmt: skip

    def is_held(self, spreads: Spreads) -> bool:
        half = half_width(spreads, runs=self.runs, loads=len(self.loads))
        return half is not None and abs(math.log(self.value / self.truth)) <= half


@dataclass
class Said:
    """What many sweeps came to."""

    cells: list[float] = field(default_factory=list)
    again: list[bool] = field(default_factory=list)
    best: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)


class Machine:
    """Loads of cells: each has a middle of its own, about which its runs lie."""

    def __init__(self, seed: int, noise: float) -> None:
        self.draw, self.noise = random.Random(seed), noise

    def load(self, truth: float, runs: int = RUNS) -> Load:
        middle = math.log(truth) + self.draw.gauss(0, self.noise)
        return load_of([math.exp(middle + self.draw.gauss(0, RUN_NOISE)) for _ in range(runs)])


def grid() -> list[Cell]:
    return [
        Cell((column, row), 300 * math.exp(-0.02 * column + 0.35 * (1 - math.exp(-row / 4))))
        for column in range(COLUMNS)
        for row in range(ROWS)
    ]


def sweep(machine: Machine, said: Said, *, looks: bool) -> None:
    """One sweep from its first load to its best cell."""
    cells = grid()
    count = len(cells)
    for number, cell in enumerate(cells):
        cell.loads = [machine.load(cell.truth, RUNS + (0 if looks else number % 3 == 0))]
    control = [machine.load(cells[0].truth) for _ in range(controls_wanted(count))]
    spreads = spreads_of([[*cells[0].loads, *control], *([*cell.loads] for cell in cells[1:])])
    again = _look_again(machine, cells, spreads, (count + len(control)) // 10) if looks else []
    results = {cell.place: cell.result(spreads) for cell in cells}
    best, _ = best_set(list(results.values()), METRIC)
    winner = next(cell for cell in cells if results[cell.place] is best)
    said.cells.append(sum(cell.is_held(spreads) for cell in cells) / count)
    said.again += [cell.is_held(spreads) for cell in again]
    said.best.append(winner.is_held(spreads))
    known = 1.96 * math.sqrt(RUN_NOISE**2 * MEDIAN_VARIANCE / RUNS + machine.noise**2)
    said.widths.append((half_width(spreads, runs=RUNS, loads=1) or math.inf) / known)
    said.loss.append(1 - winner.truth / max(cell.truth for cell in cells))


def _look_again(machine: Machine, cells: list[Cell], spreads: Spreads, loads: int) -> list[Cell]:
    known, by_metric = {cell.place: cell for cell in cells}, {METRIC: spreads}
    doubts = second_look.doubts([cell.result(spreads) for cell in cells], by_metric, loads)
    chosen = [known[_place(doubt.cell)] for doubt in doubts]
    before = {cell.place: cell.loads for cell in chosen}
    for cell in chosen:
        cell.loads, cell.looks = [machine.load(cell.truth)], 1
    leading = [known[_place(doubt.cell)] for doubt in doubts if doubt.reason == second_look.AMONG_THE_BEST]
    of_all = {cell.position: {METRIC: value_of([*before[cell.place], *cell.loads])} for cell in leading}
    (best,) = second_look.best_ones([cell.result(spreads) for cell in cells], of_all)
    winner = known[_place(best.cell)]
    each = min(second_look.MOST_OF_THE_BEST, max(1, loads - len(chosen)))
    winner.loads, winner.looks = [machine.load(winner.truth) for _ in range(each)], 2
    return [*chosen, winner]


def _place(result: CellResult) -> tuple[int, int]:
    return int(str(result.coordinates["num_ctx"])), int(str(result.coordinates["num_batch"]))


# -- a machine that drifts ---------------------------------------------------------------------------------------------

DRIFTS: Mapping[str, Callable[[float], float]] = {
    "none": lambda share: 0.0,
    "evenly": lambda share: math.log1p(-0.08 * share),
    "one step": lambda share: math.log1p(-0.08) * (share > 0.5),
    "there and back": lambda share: math.log1p(-0.08 * math.sin(math.pi * share)),
}
"""The logarithm of the machine's speed at a share of the sweep's time, by a drift of 8 % in all."""


@dataclass
class Maps:
    """What sweeps came to on one machine: how wrong their maps are, by how they were made, and what intervals hold."""

    wrong: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    held: list[float] = field(default_factory=list)
    held_corrected: list[float] = field(default_factory=list)
    corrects: list[bool] = field(default_factory=list)


def drifting(machine: Machine, drift: Callable[[float], float], maps: Maps) -> None:
    """One sweep in each way of making it."""
    cells = grid()
    places = range(len(cells))
    for name, passes, is_shuffled in (("shuffled", 1, True), ("three passes", 3, True)):
        loads: list[list[Load]] = [[] for _ in places]
        for turn in range(passes):
            order = machine.draw.sample(places, len(cells)) if is_shuffled else list(places)
            for number, place in enumerate(order):
                share = (turn + number / len(cells)) / passes
                loads[place].append(machine.load(cells[place].truth * math.exp(drift(share))))
        maps.wrong[name].append(_wrong(cells, [math.log(value_of(one)) for one in loads]))
    _with_control(machine, drift, maps, cells)


def _with_control(machine: Machine, drift: Callable[[float], float], maps: Maps, cells: list[Cell]) -> None:
    wanted, total = controls_wanted(len(cells)), len(cells)
    control, points = list[Load](), list[Point]()
    for number, cell in enumerate(cells):
        share = number / total
        cell.loads = [machine.load(cell.truth * math.exp(drift(share)))]
        points += [] if points else [Point(0.0, cell.value)]
        if len(control) < min(wanted, 1 + (wanted - 1) * (number + 1) // total):
            control.append(machine.load(cells[0].truth * math.exp(drift(share))))
            points.append(Point(share, value_of(control[-1:])))
    spreads = spreads_of([[*cells[0].loads, *control], *([*cell.loads] for cell in cells[1:])])
    half, line = half_width(spreads, runs=RUNS, loads=1) or 0.0, line_of(points)
    logs = [math.log(cell.value) for cell in cells]
    better = [log - math.log1p(line.correction(number / total)) * line.is_better for number, log in enumerate(logs)]
    maps.wrong["column-first"].append(_wrong(cells, logs))
    maps.wrong["with control"].append(_wrong(cells, better))
    maps.corrects.append(line.is_better)
    maps.held.append(_mean([abs(off) <= half for off in _off(cells, logs)]))
    maps.held_corrected.append(_mean([abs(off) <= half for off in _off(cells, better)]))


def _off(cells: Sequence[Cell], logs: Sequence[float]) -> list[float]:
    """By how much each lies off the truth, what all have in common taken off."""
    off = [log - math.log(cell.truth) for cell, log in zip(cells, logs, strict=True)]
    return [one - _mean(off) for one in off]


def _wrong(cells: Sequence[Cell], logs: Sequence[float]) -> float:
    return math.sqrt(_mean([off**2 for off in _off(cells, logs)]))


def print_drifts(sweeps: int) -> None:
    ways = "column-first   shuffled   three passes   with control"
    print(f"\ndrift of 8 %     loads   {ways}   cells held   corrected   corrects")
    for name, drift in DRIFTS.items():
        for noise in (0.0, 0.01, 0.05):
            machine, maps = Machine(11, noise), Maps()
            for _ in range(sweeps):
                drifting(machine, drift, maps)
            wrong = [f"{100 * _mean(maps.wrong[way]):5.2f} %"
                     for way in ("column-first", "shuffled", "three passes", "with control")]  # fmt: skip
            said = "   ".join(word.rjust(width) for word, width in zip(wrong, (12, 8, 12, 12), strict=True))
            print(f"{name:<14} ± {100 * noise:3g} %   {said}   "
                  f"{100 * _mean(maps.held):8.1f} %   {100 * _mean(maps.held_corrected):7.1f} %   "
                  f"{100 * _mean(maps.corrects):6.0f} %")  # fmt: skip


def warm_up(seed: int, penalty: float, decay: float) -> float:
    """What is left of a penalty that the first runs of a load have, after `warmup: auto`: the error of the first that
    counts, as a share."""
    draw, rates = random.Random(seed), list[float]()
    while wants_warmup(rates, 1, 5, RUN_NOISE):
        rates.append(300 * (1 - penalty * decay ** len(rates)) * math.exp(draw.gauss(0, RUN_NOISE)))
    return penalty * decay ** len(rates)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=200, help="Simulated sweeps for each noise.")
    asked = parser.parse_args()
    print(f"{asked.sweeps} sweeps of {COLUMNS * ROWS} cells; runs ± {100 * RUN_NOISE:g} %, {RUNS} a load")
    print("loads   second look   cells held   looked at again   best held   width   loss of the best")
    for noise in NOISE:
        for looks in (True, False):
            machine, said = Machine(7, noise), Said()
            for _ in range(asked.sweeps):
                sweep(machine, said, looks=looks)
            again = f"{100 * _mean(said.again):6.1f} %" if said.again else "       –"
            print(f"± {100 * noise:3g} %   {'10 %' if looks else 'off ':>9}   {100 * _mean(said.cells):8.1f} %   "
                  f"{again:>15}   {100 * _mean(said.best):7.1f} %   {_mean(said.widths):5.2f}   "
                  f"{100 * _mean(said.loss):6.2f} %")  # fmt: skip
    for penalty, decay in ((0.4, 0.0), (0.4, 0.3), (0.4, 0.5)):
        left = _mean([warm_up(seed, penalty, decay) for seed in range(asked.sweeps)])
        print(f"first run {100 * penalty:g} % slower, then {decay:g} of that each time: {100 * left:.2f} % left")
    print_drifts(asked.sweeps)


if __name__ == "__main__":
    main()
