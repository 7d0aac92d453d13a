"""What ways to tell a scout's factor come to: how often their interval of 95 % holds it, and how wide it is.

Cells that both engines measured lie off the factor by 2 % (a standard deviation of logarithms). Some are disturbed,
on either engine (`both`) or only on the one that is scouted for (`one`): by an error whose logarithm has a standard
deviation of 1, so that 218 beside 1,900 tokens/s is nothing unusual. `recorded` are the ratios of 120 cells that a real
Ollama measured twice, one map after the other; there the truth is the median of all of them.

    python benchmarks/factor.py --draws 2000
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement
from statistics import fmean, median

import _common

from ollama_sweep.core.noise.spread import quantile
from ollama_sweep.core.recording.reading import read
from ollama_sweep.core.surface.factor import STEADY, TRIMMED, Pair, factors
from ollama_sweep.core.surface.places import Place

SPREAD, DISTURBED = 0.02, 1.0
CELLS = (8, 12, 24)
MAPS = tuple(f"tests/data/recordings/6-layers-48-experts-2-threads-{number}.jsonl.gz" for number in (1, 2))
FAR, MOST_TRIMMED = 3.0, 0.35
Interval = tuple[float, float]
Draw = Callable[[random.Random, int], list[float]]


def as_it_is(logs: Sequence[float]) -> Interval:
    """The program's own: a fifth is left out at either end, Yuen's interval."""
    (one,) = factors([Pair(Place(0, 1, 1), log) for log in logs]).parts
    reach = one.error * quantile(one.df)
    return one.log - reach, one.log + reach


def trimmed_as_needed(logs: Sequence[float]) -> Interval:
    """The same, leaving out more where more cells lie far off, up to a third at either end."""
    values, middle = sorted(logs), median(logs)
    far = FAR * 1.4826 * median(abs(value - middle) for value in values)
    off = max(sum(value < middle - far for value in values), sum(value > middle + far for value in values))
    least = int(TRIMMED * len(values))
    cut = min(max(off, least), max(least, int(MOST_TRIMMED * len(values))))
    kept = values[cut : len(values) - cut]
    held = [kept[0]] * cut + kept + [kept[-1]] * cut
    mean = fmean(held)
    spread = math.sqrt(sum((value - mean) ** 2 for value in held) / (len(held) - 1))
    reach = quantile(len(kept) - 1) * spread / ((1 - 2 * cut / len(values)) * math.sqrt(len(values)))
    return fmean(kept) - reach, fmean(kept) + reach


def by_signs(logs: Sequence[float]) -> Interval:
    """The median, with the interval that the signs of the distances from it give."""
    count, chance, beyond = len(logs), 0.0, 0
    while chance + math.comb(count, beyond) / 2**count <= 0.025:
        chance += math.comb(count, beyond) / 2**count
        beyond += 1
    values = sorted(logs)
    return values[max(0, beyond - 1)], values[count - max(1, beyond)]


def by_ranks(logs: Sequence[float]) -> Interval:
    """Hodges and Lehmann: of the means of all pairs, with the interval of signed ranks."""
    means = sorted((one + other) / 2 for one, other in combinations_with_replacement(logs, 2))
    count = len(logs)
    ways = [1.0] + [0.0] * (count * (count + 1) // 2)
    for rank in range(1, count + 1):
        for total in range(len(ways) - 1, rank - 1, -1):
            ways[total] += ways[total - rank]
    chance, beyond = ways[0] / 2**count, 0
    while chance <= 0.025:
        beyond += 1
        chance += ways[beyond] / 2**count
    return means[max(0, beyond - 1)], means[-max(1, beyond)]


WAYS: dict[str, Callable[[Sequence[float]], Interval]] = {
    "as it is": as_it_is, "as needed": trimmed_as_needed, "signs": by_signs, "ranks": by_ranks,
}  # fmt: skip


def disturbed(share: float, *, only_one: bool = False) -> Draw:
    """Cells of which this share is disturbed."""

    def draw(chance: random.Random, cells: int) -> list[float]:
        found = []
        for _ in range(cells):
            off = abs(chance.gauss(0, DISTURBED)) if chance.random() < share else 0.0
            found.append(chance.gauss(0, SPREAD) - (off if only_one else off * chance.choice((-1, 1))))
        return found

    return draw


def recorded() -> Draw:
    """Cells of the two recorded maps, drawn without putting one back."""
    first, second = map(_rates, MAPS)
    logs = [math.log(second[place] / rate) for place, rate in first.items()]
    truth = median(logs)
    return lambda chance, cells: [value - truth for value in chance.sample(logs, cells)]


def _rates(name: str) -> dict[object, float]:
    found: dict[object, float] = {}
    for cell in read((_common.ROOT / name).read_bytes(), name).cells:
        runs = [run for load in cell.loads for run in load.runs if run.believed and not run.warmup]
        found[cell.coordinates] = median(
            (run.prompt_eval_count or 0) / (run.prompt_eval_duration_s or 1) for run in runs
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=2000, metavar="COUNT", help="How often each is drawn anew.")
    draws: int = parser.parse_args().draws
    kinds = {
        "none disturbed": disturbed(0), "10 %, both": disturbed(0.1), "20 %, both": disturbed(0.2),
        "35 %, both": disturbed(0.35), "20 %, one": disturbed(0.2, only_one=True), "recorded": recorded(),
    }  # fmt: skip
    rows = []
    for kind, draw in kinds.items():
        for cells in CELLS:
            chance = random.Random(f"{kind} {cells}")
            drawn = [draw(chance, cells) for _ in range(draws)]
            rows.append([kind, str(cells), *(_said([way(logs) for logs in drawn]) for way in WAYS.values())])
    _common.table(("disturbed", "cells", *WAYS), rows)


def _said(found: Sequence[Interval]) -> str:
    """How often it holds the truth, half its width in the middle, and how often that is steady."""
    halves = [math.expm1((high - low) / 2) for low, high in found]
    holds = fmean(low <= 0 <= high for low, high in found)
    return f"{100 * holds:.1f} % ± {100 * median(halves):.1f} % {100 * fmean(half <= STEADY for half in halves):.0f} %"


if __name__ == "__main__":
    main()
