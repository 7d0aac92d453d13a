"""`goal`: what may be wanted of which sweep, and what is to be expected of it. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ollama_sweep.core.cell import MAIN_TASK
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.surface.goal import BEST, LARGEST, MAP, MOST_CELLS, PER_CONTEXT, Goal
from ollama_sweep.plan.spec import SweepSpec

SIZES = ("num_ctx", "num_batch")


def _shape(spec: SweepSpec) -> tuple[int, int, int]:
    """How many values of num_ctx and of num_batch there are, and how many grids of them."""
    contexts, batches = (len(spec.dimensions[name]) for name in SIZES)
    return contexts, batches, math.prod(len(values) for name, values in spec.dimensions.items() if name not in SIZES)


def check(wanted: Goal, spec: SweepSpec, where: str = "goal") -> None:
    """Raises ConfigError where a sweep is nothing that a planner can plan."""
    if wanted.is_off:
        return
    if spec.task_names != (MAIN_TASK,):
        others = ", ".join(name for name in spec.task_names if name != MAIN_TASK)
        raise ConfigError(f"a goal is about the rate of {MAIN_TASK}, and this sweep has the task {others}", where)
    for name in SIZES:
        if name not in spec.dimensions:
            raise ConfigError(f"a goal needs the dimension {name}, which this sweep leaves to the engine", where)
    contexts, batches, grids = _shape(spec)
    if contexts * batches < 2:
        raise ConfigError("a goal needs several cells, and there is one num_ctx with one num_batch", where)
    if wanted.kind == PER_CONTEXT and batches < 2:
        raise ConfigError(f"{PER_CONTEXT} needs several values of num_batch, and there is one", where)
    if wanted.kind == LARGEST and contexts < 2:
        raise ConfigError(f"{LARGEST} needs several values of num_ctx, and there is one", where)
    if contexts * batches * grids > MOST_CELLS:
        raise ConfigError(
            f"the grid has {contexts * batches * grids:,} cells, and a goal may have {MOST_CELLS:,}: a planner "
            "looks at every cell before each next one. Make the grid coarser, or leave the goal out",
            where,
        )


@dataclass(frozen=True)
class Expected:
    """How many cells a goal usually measures, of each grid and together: from `low`, seldom more than `high`."""

    goal: str
    low: int
    high: int
    note: str

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        return {"goal": self.goal, "cells_low": self.low, "cells_high": self.high, "note": self.note}


SMOOTH = "assuming a smooth surface; a narrow bump or a step may be missed, so go on with --goal map for every cell"
_USUAL = {BEST: (6, 32), LARGEST: (8, 60)}


def expected(wanted: Goal, spec: SweepSpec) -> Expected:
    """Of simulated grids of 300 cells and more (docs/benchmarks.md)."""
    contexts, batches, grids = _shape(spec)
    cells = contexts * batches
    if wanted.kind == MAP:
        note = "one run where it agrees with its neighbours, more where it surprises, spilled cells once"
        return Expected(wanted.words, cells * grids, cells * grids, note)
    low, high = _USUAL.get(wanted.kind, (contexts + 4, contexts + 25))
    return Expected(wanted.words, min(low, cells) * grids, min(high, cells) * grids, SMOOTH)
