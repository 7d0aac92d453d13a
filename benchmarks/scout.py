"""How many seconds a scouted sweep takes against every cell in full, and how near its map comes to the truth.

The simulated maps of planners.py: a load takes 90 s and a run about 30 s. The context swap loads the model once, and
once more for Ollama's rendering; a context takes 0.1 s. A context that fails costs another load of the model, as on a
GPU, where the process is a new one then. It has the true rates times a factor of its own for each map, and each cell
lies off that by 1 % (a standard deviation). Maps from number 30 on were never looked at.

With --real the same grid is measured on a real Ollama: every cell in full, twice, and scouted, each into a database of
its own, one after the other in the order whole, scouted, whole.

    python benchmarks/scout.py --maps 12 --replays 3
    python benchmarks/scout.py --real --contexts 10 --batches 6 --folder FOLDER
    python benchmarks/scout.py --real --layers 6 --experts 48    # a model that is slow to load and quick to run
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

import _common
import _random_model
import planners
from planners import LOAD_S, Truth, simulated

import ollama_sweep
from ollama_sweep.core.noise.spread import Sums, load_of, sums_of
from ollama_sweep.core.surface.goal import BEST, LARGEST, MAP, PER_CONTEXT, Goal
from ollama_sweep.core.surface.places import Found, Known, Noise
from ollama_sweep.core.surface.scouted import Scouted, all_expected, factors_of
from ollama_sweep.plan.memory.staircase import Staircase
from ollama_sweep.results.likely.scouted import scouted_map
from ollama_sweep.run.planners import scout
from ollama_sweep.run.planners.base import Next, Problem, Reached
from ollama_sweep.run.planners.steering import PLANNERS
from ollama_sweep.run.session import SessionOptions
from ollama_sweep.store.reader import Reader

CONTEXT_S, OWN = 0.1, 0.01
FACTORS = (0.93, 1.03)
PARTS = ("edge_s", "scout_s", "own_s")


@dataclass
class Played:
    """What a scouted sweep came to: seconds of the edge, of the scout, and of the sweep itself."""

    edge_s: float
    scout_s: float
    own_s: float
    cells: int
    ended: Reached
    rms: float
    holds: float

    @property
    def seconds(self) -> float:
        return self.edge_s + self.scout_s + self.own_s


def swapped(truth: Truth, chance: random.Random) -> Truth:
    """The same map as the context swap sees it."""
    factor = chance.uniform(*FACTORS)
    rates = [rate / factor * math.exp(chance.gauss(0, OWN)) for rate in truth.rates]
    known = [Known.FITS if how is Known.FITS else Known.FAILED for how in truth.known]
    return replace(truth, rates=rates, known=known, load_s=CONTEXT_S, loads_spread=0.5 * truth.loads_spread)


def edge(truth: Truth) -> tuple[float, frozenset[int]]:
    """What it takes to find what does not fit, by contexts alone, and which places that are."""
    contexts = sorted({place.num_ctx for place in truth.places})
    batches = sorted({place.num_batch for place in truth.places})
    at = {(contexts.index(place.num_ctx), batches.index(place.num_batch)): index
          for index, place in enumerate(truth.places)}  # fmt: skip
    stairs, seconds, left = Staircase(len(contexts), len(batches)), 2 * LOAD_S, len(contexts) + len(batches)
    while left and (place := stairs.next_place(left)) is not None:
        left -= 1
        holds = truth.known[at[place]] is Known.FITS
        seconds += CONTEXT_S if holds else 2 * LOAD_S
        stairs.learn(place, holds=holds)
    return seconds, frozenset(index for (column, row), index in at.items() if row >= stairs.fails[column])


def scouting(
    truth: Truth, goal: Goal, beyond: frozenset[int], chance: random.Random
) -> tuple[float, dict[int, Found], Noise]:
    """The scout with its own planner: its seconds, what it found, and how far its runs and loads differ."""
    results: dict[int, Found] = {index: Found(Known.FAILED) for index in beyond}
    seconds, sums = 0.0, Sums()
    while True:
        rest = frozenset(range(len(truth.places))) - results.keys()
        found = PLANNERS[goal.kind](Problem(truth.places, rest, dict(results), Noise.of(sums.spreads)), goal)
        if isinstance(found, Reached):
            return seconds, results, Noise.of(sums.spreads)
        results[found.position], rates = truth.loaded(found.position, found.runs, chance)
        seconds += results[found.position].seconds
        sums = sums.plus(sums_of([load_of(rates)])) if rates else sums


def play(truth: Truth, goal: Goal, seed: int) -> Played:
    """All stages of a scouted sweep."""
    chance = random.Random(seed)
    swap = swapped(truth, chance)
    edge_s, beyond = edge(swap)
    scout_s, found, noise = scouting(swap, goal, beyond, chance)
    told = Scouted(found, noise)
    results: dict[int, Found] = {}
    own_s, sums = 0.0, Sums()
    while True:
        rest = frozenset(range(len(truth.places))) - results.keys()
        own_noise = Noise.of(sums.spreads)
        step = scout.decide(Problem(truth.places, rest, dict(results), own_noise), goal, told)
        if isinstance(step, Reached):
            rms = _rms(truth, results, rest, told, own_noise)
            return Played(edge_s, scout_s, own_s, len(results), step, rms, planners._holds(truth, goal, step))
        assert isinstance(step, Next)
        results[step.position], rates = truth.loaded(step.position, step.runs, chance)
        own_s += results[step.position].seconds
        sums = sums.plus(sums_of([load_of(rates)])) if rates else sums


def _rms(truth: Truth, results: Mapping[int, Found], rest: frozenset[int], told: Scouted, noise: Noise) -> float:
    """How far the map lies from the true rates: measured cells and scouted ones, the root of the mean square."""
    known = factors_of(truth.places, results, rest, told, noise)
    likely = all_expected([place for place in truth.places if place.position in rest], told, known)
    errors = [math.log(found.rate / truth.rates[index]) for index, found in results.items() if found.rate]
    errors += [one.log - math.log(truth.rates[index]) for index, one in likely.items()]
    return math.sqrt(fmean(error**2 for error in errors)) if errors else 0.0


def row_of(words: str, goal: Goal, maps: Sequence[Truth], replays: int) -> list[str]:
    """A line of the table."""
    played = [(truth.exhaustive_s(), play(truth, goal, 1000 * number + at))
              for number, truth in enumerate(maps) for at in range(replays)]  # fmt: skip
    shares = [one.seconds / every_s for every_s, one in played]
    parts = [fmean(getattr(one, name) / every_s for every_s, one in played) for name in PARTS]
    return [
        words, f"{fmean(shares):.3f}", f"{_common.percentile(shares, 0.9):.3f}", *(f"{part:.3f}" for part in parts),
        f"{fmean(one.cells for _, one in played):.0f}", f"{100 * fmean(one.rms for _, one in played):.1f} %",
        f"{100 * fmean('not steady' not in one.ended.says for _, one in played):.0f} %",
        f"{100 * fmean(one.holds for _, one in played):.0f} %",
    ]  # fmt: skip


# -- on a real engine --------------------------------------------------------------------------------------------------

GRID = """
engine: ollama
model: {model}
prompt: {{tokens: {tokens}}}
num_ctx: {contexts}
num_batch: {batches}
num_thread: {threads}
warmup: 1
repeats: 3
control: off
second_look: off
interim: off
"""
MODEL = "small"
Cells = dict[tuple[int, int], float]


def measured(db: Path, name: str) -> Cells:
    """The rates of a sweep by num_ctx and num_batch; of a scouted one also what is likely of the others."""
    rows = ollama_sweep.rows(db, name)
    found = {
        (int(str(row["num_ctx"])), int(str(row["num_batch"]))): float(str(row["prompt_eval_rate"]))
        for row in rows if row["prompt_eval_rate"]
    }  # fmt: skip
    with Reader.open(db) as reader:
        sweep = reader.sweep(name)
        likely = scouted_map(reader, sweep)
        at = {cell.place.position: (cell.place.num_ctx, cell.place.num_batch)
              for cell in reader.goal_cells(sweep.sweep_id)}  # fmt: skip
    if likely is not None:
        print(f"{name}: {likely.words}", flush=True)
        found |= {at[position]: one.rate for position, one in likely.expected.items()}
    return found


def apart(one: Cells, other: Cells) -> str:
    """How far two maps lie from one another, and how fast the best cell of each is in the other one."""
    both = one.keys() & other.keys()
    if not both:
        return "no cell in both"
    rms = math.sqrt(fmean(math.log(one[place] / other[place]) ** 2 for place in both))
    best = [max(cells, key=lambda place: cells[place]) for cells in (one, other)]
    shares = [cells[place] / max(cells.values()) for cells, place in zip((other, one), best, strict=True)
              if place in cells]  # fmt: skip
    said = " and ".join(f"{100 * share:.0f} %" for share in shares)
    return f"RMS {100 * rms:.1f} % over {len(both)} cells; the best cell of each has {said} of the best of the other"


def on_a_real_engine(options: argparse.Namespace, folder: Path) -> None:
    """Whole, scouted, whole; with --folder the same command goes on, and what is done already counts no seconds."""
    binary, usual = _common.script_output("get_ollama", "--print"), _common.script_output("get_model")
    model = _random_model.model_of(options, folder, usual)
    contexts = [1536 + 512 * number for number in range(options.contexts)]
    batches = [round(8 * 64 ** (number / max(1, options.batches - 1))) for number in range(options.batches)]
    with _common.ollama_server(binary, folder / "server") as server:
        (folder / "Modelfile").write_text(f"FROM {model}\n", "utf-8")
        server.command("create", MODEL, "-f", str(folder / "Modelfile"))
        os.environ.update(server.environment())
        maps, rows = {}, []
        for name in ("whole1", "scouted", *(() if options.once else ("whole2",))):
            text = GRID.format(
                model=MODEL, tokens=options.tokens, threads=options.threads, contexts=contexts, batches=batches
            )
            (folder / f"{name}.yaml").write_text(f"name: {name}\n{text}", "utf-8")
            spec = ollama_sweep.load(folder / f"{name}.yaml", host=server.host, ollama=str(server.binary))
            began = time.monotonic()
            ollama_sweep.measure(
                spec, folder / f"{name}.db", options=SessionOptions(no_pause=True, scout=name == "scouted")
            )
            took_s, maps[name] = time.monotonic() - began, measured(folder / f"{name}.db", name)
            rows.append([name, f"{took_s:.0f} s", str(len(ollama_sweep.rows(folder / f"{name}.db", name)))])
            print(", ".join(rows[-1]), flush=True)
    print()
    _common.table(["map", "took", "cells"], rows)
    for one, other in combinations(maps, 2):
        print(f"{one} against {other}: {apart(maps[one], maps[other])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--maps", type=int, default=12, help="simulated maps")
    parser.add_argument("--replays", type=int, default=3, help="replays of each, with loads drawn anew")
    parser.add_argument("--first", type=int, default=planners.SEEN, help="the first map's number")
    parser.add_argument("--real", action="store_true", help="measure on a real engine in place of the simulation")
    parser.add_argument("--contexts", type=int, default=12, help="values of num_ctx with --real (default 12)")
    parser.add_argument("--batches", type=int, default=10, help="values of num_batch with --real (default 10)")
    parser.add_argument("--tokens", type=int, default=1000, help="length of the prompt with --real (default 1000)")
    parser.add_argument("--threads", type=int, default=2, help="threads with --real (default 2)")
    _random_model.add_arguments(parser)
    parser.add_argument("--once", action="store_true", help="with --real: no second whole map")
    parser.add_argument("--folder", type=Path, help="where --real keeps its databases")
    given = parser.parse_args()
    _common.head(parser)
    if given.real:
        with contextlib.nullcontext(given.folder) if given.folder else _common.temporary_folder() as folder:
            folder.mkdir(parents=True, exist_ok=True)
            on_a_real_engine(given, folder.absolute())
        return
    simulate(given)


def simulate(given: argparse.Namespace) -> None:
    """The table of simulated maps."""
    began = time.monotonic()
    kinds: list[tuple[str, Goal, float | None]] = [
        ("map, 5 % not whole on the GPU", Goal(MAP), 0.05), ("map, 20 %", Goal(MAP), 0.2), ("best", Goal(BEST), None),
        ("per-context", Goal(PER_CONTEXT), None), ("largest", Goal(LARGEST), None),
    ]  # fmt: skip
    rows = []
    for words, goal, spilled in kinds:
        maps = [simulated(given.first + number, spilled=spilled, cells=624) for number in range(given.maps)]
        rows.append(row_of(words, goal, maps, given.replays))
    columns = ["goal, scouted", "seconds / exhaustive", "9 of 10", "edge", "scout", "own", "cells", "RMS", "steady",
               "answer holds"]  # fmt: skip
    _common.table(columns, rows)
    print(f"\nIt took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
