"""Pairs: two sweeps measured one after the other, and in turns, under weather of known size. By the program's own rule.

Simulated are 60 cells of one load each, with a control now and then, 1.5 % between runs and 1.2 % between loads, and
beside that what the machine does over time: nothing, a slow drift, or a wandering that outlasts a load. An alarm is a
comparison that calls a cell or all together slower or faster where only the weather was another.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

import _common
import numpy as np

CELLS, LOADS, RUNS, EACH, CONTROLS = 60, 0.012, 0.015, 3, 10


@dataclass(frozen=True)
class Design:
    """Weather (its words, drift over all, spread of its wandering, how many loads it lasts), and what changed."""

    weather: str
    drift: float = 0.0
    wander: float = 0.0
    lasts: float = 1.0
    changed: float = 0.0


DESIGNS = [
    Design(weather, drift, wander, lasts, changed)
    for weather, drift, wander, lasts in (
        ("none", 0.0, 0.0, 1.0),
        ("drift of 8 %", 0.08, 0.0, 1.0),
        ("wandering 5 %, 40 loads long", 0.0, 0.05, 40.0),
        ("wandering 5 %, from load to load", 0.0, 0.05, 0.01),
    )
    for changed in (0.0, -0.08)
]


def weather_of(chance: Any, design: Design, count: int) -> Any:
    """What the machine adds to the logarithm of each load in the order of time."""
    keep = math.exp(-1 / design.lasts)
    found, now = np.zeros(count), chance.normal(0, design.wander)
    for number in range(count):
        now = keep * now + math.sqrt(1 - keep**2) * chance.normal(0, design.wander)
        found[number] = now - design.drift * number / count
    return found


def order(*, in_turns: bool) -> list[tuple[int, int, bool]]:
    """Each load in the order of time: the arm, the cell, whether it is a control."""
    places: list[tuple[int, bool]] = []
    for number in range(CELLS):
        places.append((number, False))
        if number % (CELLS // CONTROLS) == 0:
            places.append((0, True))
    if not in_turns:
        return [(arm, cell, control) for arm in (0, 1) for cell, control in places]
    found = []
    for number, (cell, control) in enumerate(places):
        first = number % 2
        found += [(arm, cell, control) for arm in (first, 1 - first)]
    return found


def verdicts(chance: Any, design: Design, *, in_turns: bool) -> tuple[list[Any], Any]:
    """Of each cell and over all, as `compare` makes them."""
    from ollama_sweep.core.noise.spread import Load, load_of, spreads_of
    from ollama_sweep.results.compare import rule
    from ollama_sweep.results.compare.turns import Timed, turns_of

    plan = order(in_turns=in_turns)
    weather = weather_of(chance, design, len(plan))
    sides: list[dict[int, list[tuple[float, bool, Load]]]] = [{}, {}]
    for at, (arm, cell, control) in enumerate(plan):
        level = 4.6 + weather[at] + chance.normal(0, LOADS) + math.log1p(design.changed) * arm
        load = load_of([float(run) for run in np.exp(level + chance.normal(0, RUNS, EACH))])
        sides[arm].setdefault(cell, []).append((60.0 * at, control, load))
    noise = rule.noise_of(*(spreads_of([load for _, _, load in loads] for loads in side.values()) for side in sides))
    measured = [
        {cell: rule.measured([load for _, control, load in loads if not control]) for cell, loads in side.items()}
        for side in sides
    ]
    changes = [rule.change(measured[0][cell], measured[1][cell], noise) for cell in range(CELLS)]
    whole = rule.change_over_all([(measured[0][cell], measured[1][cell]) for cell in range(CELLS)], noise)
    if in_turns:
        timed = [
            {(str(cell), ""): [Timed(at, load, 0, not control) for at, control, load in loads]
             for cell, loads in side.items()}
            for side in sides
        ]  # fmt: skip
        turns = turns_of("pair", timed[0], timed[1])
        changes = [turns.changes.get((str(cell), ""), one) for cell, one in enumerate(changes)]
        whole = turns.over_all(changes) or whole
    limits = rule.Limits(0.05)
    return [one.verdict for one in rule.judge(changes, limits)], rule.judge_one(whole, limits)


def row(design: Design, comparisons: int, seed: int, *, in_turns: bool) -> list[str]:
    """A row of the table."""
    from ollama_sweep.results.compare.rule import Verdict

    chance = np.random.default_rng(seed)
    told = (Verdict.SLOWER, Verdict.FASTER)
    cells, wholes, right, held, width = 0, 0, 0, 0, 0.0
    for _ in range(comparisons):
        found, whole = verdicts(chance, design, in_turns=in_turns)
        cells += any(one in told for one in found)
        right += found.count(Verdict.SLOWER)
        wholes += whole is not None and whole.verdict in told
        if whole is not None and whole.low is not None and whole.high is not None:
            held += whole.low <= 1 + design.changed <= whole.high
            width += math.log(whole.high / whole.low) / 2

    def share(count: float) -> str:
        return f"{100 * count / comparisons:.1f} %"

    what = f"{design.changed:+.0%}" if design.changed else "nothing"
    how = "in turns" if in_turns else "one after the other"
    named = f"{100 * right / comparisons / CELLS:.0f} %" if design.changed else ""
    return [f"{design.weather}; {what} changed; {how}", share(cells), named, share(wholes), share(held),
            f"± {100 * width / comparisons:.1f} %"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Pairs: in turns against one after the other.")
    parser.add_argument("--comparisons", type=int, default=200, help="simulated comparisons a row (default 200)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation (default 1)")
    options = parser.parse_args()
    _common.head(parser)
    rows = [
        row(design, options.comparisons, options.seed, in_turns=in_turns)
        for design in DESIGNS
        for in_turns in (False, True)
    ]
    _common.table(["weather; change; how", "a cell is told", "of the cells", "over all is told", "its interval holds",
                   "its width"], rows)  # fmt: skip


if __name__ == "__main__":
    main()
