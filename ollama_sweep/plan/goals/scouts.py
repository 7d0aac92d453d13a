"""A sweep that is scouted by context swap: by which engine, what it measures, and what each way takes. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ollama_sweep import engines
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.forecast import Took
from ollama_sweep.core.surface.goal import BEST, LARGEST, MAP, Goal
from ollama_sweep.core.surface.scouted import LEADING, LEAST_SAMPLED, MOST_CONTEXTS, MOST_SAMPLED
from ollama_sweep.plan.goals import goal as goals
from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.store.rows import scout_of

OPTION = "--scout"
WHOLE_MAP = Goal(MAP, is_given=True)
"""What a scouted sweep is for where nothing else is said."""
SPILLED = 0.2
"""The share of a grid beyond the edge of memory that is reckoned with at most."""


def engine_of(own: str) -> str:
    """The engine that scouts for another one. Raises ConfigError where there is none."""
    found = engines.facts(own).scout
    if not found:
        able = ", ".join(sorted(name for name in engines.known() if _is_scouted(name)))
        raise ConfigError(f"no engine scouts for {own} by context swap; it is for the engines {able}", OPTION)
    return found


def _is_scouted(name: str) -> bool:
    facts = engines.facts(name)
    return bool(facts.scout) and not facts.is_scripted


def check(goal: Goal, spec: SweepSpec) -> None:
    """Raises ConfigError where a sweep is nothing that can be scouted."""
    if spec.arms:
        raise ConfigError(f"{spec.name} is a pair; scout its sweeps one by one, without the pair", OPTION)
    if goal.is_off:
        raise ConfigError("a scouted sweep needs a goal, and --goal off wants every cell in full", OPTION)
    goals.check(goal, spec, OPTION)


def scout_spec(spec: SweepSpec, engine: str, goal: Goal) -> SweepSpec:
    """The sweep that scouts: the same cells on another engine, for the same goal, without looking twice."""
    return replace(
        spec,
        name=scout_of(spec.name),
        engine=engine,
        goal=replace(goal, is_given=True),
        settings={**spec.settings, "second_look": 0.0, "passes": 1},
    )


# -- what each way takes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """A way to measure a sweep: how many cells its own engine measures, and how many are only scouted; seconds are None
    as long as nothing was measured that tells what a load and a run take."""

    way: str
    cells_low: int
    cells_high: int
    scouted: int = 0
    seconds_low: float | None = None
    seconds_high: float | None = None


def ways(goal: Goal, spec: SweepSpec, cells: int, history: Sequence[Took]) -> tuple[Way, ...]:
    """Every cell in full, the goal without a scout, and with one; of a sweep of which nothing is done yet."""
    usual = goals.expected(goal, spec)
    low, high = _own_cells(goal, spec, cells)
    runs = spec.warmup.minimum + spec.repeats.minimum
    found = (
        Way("every cell", cells, cells),
        Way(f"goal {goal.kind}", min(usual.low, cells), min(usual.high, cells)),
        Way(f"goal {goal.kind}, scouted", low, high, cells if goal.kind == MAP else min(usual.high, cells)),
    )
    if not history:
        return found
    load_s = fmean(max(0.0, took.seconds - took.asking_s) for took in history)
    run_s = fmean(took.asking_s for took in history) / runs
    full_s, once_s = load_s + runs * run_s, load_s + run_s
    every, by_goal, scouted = found
    return (
        replace(every, seconds_low=cells * full_s, seconds_high=cells * full_s),
        replace(by_goal, seconds_low=by_goal.cells_low * once_s, seconds_high=by_goal.cells_high * full_s),
        replace(
            scouted,
            seconds_low=scouted.scouted * run_s + low * once_s,
            seconds_high=scouted.scouted * 2 * run_s + high * once_s + LEADING * (full_s - once_s),
        ),
    )


def _own_cells(goal: Goal, spec: SweepSpec, cells: int) -> tuple[int, int]:
    contexts = len(spec.dimensions["num_ctx"])
    if goal.kind == MAP:
        low = LEAST_SAMPLED + min(contexts, MOST_CONTEXTS) // 2 + LEADING
        high = MOST_SAMPLED + min(contexts, MOST_CONTEXTS) + 2 * LEADING + contexts // 2 + round(SPILLED * cells)
    elif goal.kind in (BEST, LARGEST):
        low, high = 7, MOST_SAMPLED + 8
    else:
        low, high = contexts, MOST_SAMPLED + 2 * contexts
    return min(low, cells), min(high, cells)
