"""Realistic results of sweeps, made by a formula: speed, spread, memory, and what fails where."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from ollama_sweep.core.judge import is_unfilled
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import CellResult, Flag, Status

Place = tuple[int, int]
GPU = "NVIDIA RTX 4090 (24 GiB), AMD Ryzen 9 7950X, 64 GiB"


@dataclass(frozen=True)
class Machine:
    """A pretended machine: memory in bytes, the rate of a large batch, and how far runs differ."""

    memory: float = 24e9
    weights: float = 14e9
    kv_per_token: float = 60e3
    buffer_per_token: float = 1.1e6
    peak_rate: float = 2600.0
    half_batch: float = 160.0
    spread: float = 0.008
    prompt_tokens: int = 1800

    def needed(self, num_ctx: int, num_batch: int) -> float:
        return self.weights + self.kv_per_token * num_ctx + self.buffer_per_token * num_batch


@dataclass(frozen=True)
class Recipe:
    """What to make. `special` sets the outcome of single places; `spills` lets half a GiB too much go to the CPU."""

    contexts: Iterable[int] = (2048, 4096, 8192)
    batches: Iterable[int] = (64, 128, 256)
    machine: Machine = Machine()
    model: str = "nemotron_f"
    other: Mapping[str, Scalar] = field(default_factory=dict)
    special: Mapping[Place, tuple[Status, str]] = field(default_factory=dict)
    measured: Callable[[int, int], bool] = lambda num_ctx, num_batch: True
    spills: bool = True
    runs: int = 3
    seed: int = 1


def make(recipe: Recipe | None = None) -> list[CellResult]:
    """All cells of a grid, column by column."""
    recipe = recipe or Recipe()
    chance = random.Random(recipe.seed)
    return [_cell(recipe, ctx, batch, chance) for ctx in recipe.contexts for batch in recipe.batches]


def large(measured: Callable[[int, int], bool] = lambda num_ctx, num_batch: True) -> list[CellResult]:
    """The 39 x 16 grid of the default sweep, with a staircase of failures, spills and two timeouts."""
    special = {
        (86016, 640): (Status.TIMEOUT, ""),
        (94208, 128): (Status.TIMEOUT, "no_statistics"),
        (92160, 896): (Status.RESOURCE, ""),
        (55296, 1408): (Status.CRASHED, ""),
    }
    contexts, batches = range(32768, 110593, 2048), range(128, 2049, 128)
    machine = Machine(weights=17.2e9)
    return make(Recipe(contexts, batches, machine, special=special, measured=measured))


def result(num_ctx: int, num_batch: int, rate: float | None = 300.0, **changes: object) -> CellResult:
    """One cell by hand: measured where it has a rate, else pending; `changes` are fields of CellResult."""
    metrics = {} if rate is None else {"prompt_eval_rate": rate, "runs": 3.0}
    made = CellResult(
        key=f"c1:{num_ctx}-{num_batch}",
        coordinates={"num_ctx": num_ctx, "num_batch": num_batch},
        model="smollm2",
        task="prompt_eval",
        status=Status.PENDING if rate is None else Status.OK,
        metrics=metrics,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def ranged(num_ctx: int, num_batch: int, rate: float, low: float, high: float, **changes: object) -> CellResult:
    """A measured cell with the smallest and largest rate of its runs."""
    metrics = {"prompt_eval_rate": rate, "prompt_eval_rate_min": low, "prompt_eval_rate_max": high, "runs": 3.0}
    return result(num_ctx, num_batch, rate, metrics=metrics, **changes)


def _cell(recipe: Recipe, num_ctx: int, num_batch: int, chance: random.Random) -> CellResult:
    rates = _rates(recipe, num_batch, chance)
    status, reason, flags = _ending(recipe, num_ctx, num_batch)
    slow = 0.45 if Flag.SPILLED in flags else 1.0
    metrics = _metrics(recipe, [rate * slow for rate in rates], num_ctx, num_batch) if status is Status.OK else {}
    coordinates = {**recipe.other, "num_ctx": num_ctx, "num_batch": num_batch}
    error = {Status.OOM: "cudaMalloc failed: out of memory", Status.CRASHED: "GGML_ASSERT failed"}.get(status, "")
    tried = 0 if status in (Status.PENDING, Status.SKIPPED) else 1
    row: dict[str, Scalar] = {
        "sweep": "default",
        "engine": "fake",
        "model": recipe.model,
        **coordinates,
        "task": "prompt_eval",
        "status": str(status),
        "flags": ", ".join(sorted(flags)),
        "attempts": tried,
        **{name: round(value, 4) for name, value in metrics.items()},
        "reason": reason,
        "error": error,
        "finished_at": "2026-03-01T12:00:00+00:00" if tried else None,
    }
    key = f"c1:{recipe.model}-{coordinates}"
    return CellResult(
        key, coordinates, recipe.model, "prompt_eval", status, reason, error, flags, tried, metrics, row
    )  # fmt: skip


def _rates(recipe: Recipe, num_batch: int, chance: random.Random) -> list[float]:
    machine = recipe.machine
    filled = min(num_batch, machine.prompt_tokens)
    true = machine.peak_rate * filled / (filled + machine.half_batch)
    return sorted(true * chance.gauss(1.0, machine.spread) for _ in range(recipe.runs))


def _ending(recipe: Recipe, num_ctx: int, num_batch: int) -> tuple[Status, str, frozenset[Flag]]:
    if not recipe.measured(num_ctx, num_batch):
        return Status.PENDING, "", frozenset()
    if (num_ctx, num_batch) in recipe.special:
        status, reason = recipe.special[num_ctx, num_batch]
        return status, reason, frozenset()
    if num_ctx <= recipe.machine.prompt_tokens:
        return Status.SKIPPED, "does_not_fit", frozenset()
    missing = recipe.machine.needed(num_ctx, num_batch) - recipe.machine.memory
    if missing > (0.5e9 if recipe.spills else 0):
        return Status.OOM, "cuda_oom", frozenset()
    flags = {Flag.SPILLED} if missing > 0 else set()
    flags |= {Flag.UNFILLED} if is_unfilled(num_batch, recipe.machine.prompt_tokens) else set()
    return Status.OK, "", frozenset(flags | ({Flag.CLAMPED} if num_batch > num_ctx else set()))


def _metrics(recipe: Recipe, rates: list[float], num_ctx: int, num_batch: int) -> dict[str, float]:
    rate = median(rates)
    tokens = recipe.machine.prompt_tokens
    needed = recipe.machine.needed(num_ctx, num_batch)
    return {
        "runs": float(len(rates)),
        "prompt_eval_count": float(tokens),
        "prompt_eval_rate": rate,
        "prompt_eval_rate_min": rates[0],
        "prompt_eval_rate_max": rates[-1],
        "prompt_eval_duration_s": tokens / rate,
        "eval_rate": 61.0,
        "load_duration_s": 4.0 + num_ctx / 20000,
        "size_bytes": needed,
        "size_vram_bytes": min(needed, recipe.machine.memory),
    }
