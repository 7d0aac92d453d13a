"""Sensible num_ctx and num_batch ranges for a model on a machine. Pure: metadata and free memory in, ranges out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ollama_sweep.core.options import KV_CACHE_SHARES
from ollama_sweep.core.units import format_bytes
from ollama_sweep.engines.base import ModelInfo
from ollama_sweep.machine.computer import Gpu

CTX_STEP = 2048
SMALL_CTX_STEP = 256
"""llama.cpp rounds num_ctx up to a multiple of this."""
USUAL_START = 4096
"""Where the range begins for models that go far beyond: it holds a prompt that fills num_batch 2048."""
MOST_CONTEXTS = 8
SMALLEST_BATCH = 32
LARGEST_BATCH = 2048
CAUTIOUS_CTX = 8192
COMPUTE_SHARE = 0.10
"""Compute buffers, as a share of weights and cache; they grow with num_batch and are not in the metadata."""
GPU_RESERVE_BYTES = 1 << 30
"""Ollama leaves so much of each GPU free (llama-server's LLAMA_ARG_FIT_TARGET) before it moves layers to the CPU."""
RAM_RESERVE_BYTES = 1 << 29


@dataclass(frozen=True)
class Room:
    """Memory for a model: free now (None: nobody says), how much of it stays unused, and whose it is, in words."""

    free_bytes: int | None
    reserve_bytes: int
    where: str
    is_gpu: bool = False

    @property
    def told(self) -> str:
        """`20.0 GiB of GPU memory free`."""
        free = "an unknown part" if self.free_bytes is None else format_bytes(self.free_bytes)
        return f"{free} of {self.where} free"


UNKNOWN_ROOM = Room(None, 0, "the server's memory")
"""Of a server that is not on this computer."""


@dataclass(frozen=True)
class Range:
    """A range as a sweep file has it, with its end; `step` or `factor`."""

    start: int
    end: int
    step: int | None = None
    factor: int | None = None

    def values(self) -> list[int]:
        """Every value."""
        found = [self.start]
        while found[-1] < self.end:
            found.append(found[-1] * self.factor if self.factor else found[-1] + (self.step or 1))
        return found

    def picture(self) -> dict[str, int]:
        """The keys of the sweep file."""
        if self.start == self.end:
            return {"start": self.start, "end": self.end, "step": 1}
        way = {"factor": self.factor} if self.factor else {"step": self.step or 1}
        return {"start": self.start, "end": self.end, **way}


@dataclass(frozen=True)
class Suggestion:
    """Ranges and a prompt's length, each with its reason in a line; `notes` say what is not known or not good."""

    num_ctx: Range
    num_batch: Range
    prompt_tokens: int
    reasons: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> int:
        return len(self.num_ctx.values()) * len(self.num_batch.values())


def room(gpus: Sequence[Gpu], available_bytes: int) -> Room:
    """The memory of all GPUs together, as llama.cpp splits a model over them; RAM where there is no GPU.

    Unknown where one of them does not say how much it has.
    """
    if not gpus:
        return Room(available_bytes, RAM_RESERVE_BYTES, "RAM")
    count = len(gpus)
    where = "GPU memory" if count == 1 else f"GPU memory ({count} GPUs summed: a model is split over them)"
    free = [gpu.free_bytes for gpu in gpus if gpu.free_bytes is not None]
    return Room(sum(free) if len(free) == count else None, count * GPU_RESERVE_BYTES, where, is_gpu=True)


def cache_factor(settings: Mapping[str, str]) -> tuple[float, str]:
    """How many times an f16 cache of one request Ollama's settings make it, and why in words ("" for once)."""
    factor, reasons = KV_CACHE_SHARES.get(settings.get("OLLAMA_KV_CACHE_TYPE", "f16").lower(), 1.0), []
    if factor != 1.0:
        reasons.append(f"OLLAMA_KV_CACHE_TYPE={settings['OLLAMA_KV_CACHE_TYPE']}")
    parallel = settings.get("OLLAMA_NUM_PARALLEL", "")
    if parallel.isdigit() and int(parallel) > 1:
        factor *= int(parallel)
        reasons.append(f"OLLAMA_NUM_PARALLEL={parallel}")
    return factor, " and ".join(reasons)


def largest_context(model: ModelInfo, memory: Room, factor: float = 1.0) -> int | None:
    """The largest num_ctx whose weights, cache and buffers fit; 0 where the weights do not; None where it is unknown.

    A model without a cache that grows (its metadata count 0 bytes per token) fits at its training context.
    """
    if memory.free_bytes is None or model.size_bytes is None or model.kv_bytes_per_token is None:
        return None
    for_cache = (memory.free_bytes - memory.reserve_bytes) / (1 + COMPUTE_SHARE) - model.size_bytes
    if for_cache <= 0:
        return 0
    if model.kv_bytes_per_token * factor <= 0:
        return model.context_length
    return int(for_cache / (model.kv_bytes_per_token * factor)) // SMALL_CTX_STEP * SMALL_CTX_STEP


def _no_text(model: ModelInfo) -> list[str]:
    if not model.capabilities or "completion" in model.capabilities:
        return []
    return [f"{model.name} cannot generate text ({', '.join(model.capabilities)}): a sweep of it has no prompt rates"]


def suggest(model: ModelInfo, memory: Room, settings: Mapping[str, str] | None = None) -> Suggestion:
    """Ranges up to what the model was trained for and what fits, and a prompt that fills the largest num_batch."""
    factor, why_factor = cache_factor(settings or {})
    fitting = largest_context(model, memory, factor)
    top, reason, notes = _top(model, memory, fitting)
    if why_factor and model.kv_bytes_per_token:
        notes = [f"{why_factor} is counted in: the cache takes {factor:g} times an f16 cache of one request", *notes]
    num_ctx = _contexts(top)
    num_batch = _batches(num_ctx.start)
    tokens = num_batch.end
    reasons = {
        "num_ctx": reason,
        "num_batch": f"up to {num_batch.end}: a prompt of so many tokens still fits the smallest num_ctx",
        "prompt": f"fills num_batch {num_batch.end} and fits num_ctx {num_ctx.start} with its answer",
    }
    return Suggestion(num_ctx, num_batch, tokens, reasons, (*notes, *_no_text(model)))


def _top(model: ModelInfo, memory: Room, fitting: int | None) -> tuple[int, str, list[str]]:
    """The largest num_ctx, why it is that, and what is to be said besides."""
    trained = model.context_length
    free = f"{memory.told} now"
    if memory.free_bytes is None:
        top = _rounded(min(trained or CAUTIOUS_CTX, CAUTIOUS_CTX))
        note = f"how much of {memory.where} is free is not known, so what fits is not known either: a cautious range"
        return top, f"up to {top}: cautious, nobody says how much memory is free", [note]
    if fitting is None:
        top = _rounded(min(trained or CAUTIOUS_CTX, CAUTIOUS_CTX))
        note = "the model's metadata do not give its size and KV cache, so what fits is not known: a cautious range"
        return top, f"up to {top}: cautious, the metadata do not say what fits", [note]
    if fitting < SMALL_CTX_STEP:
        return _too_large(model, memory, free)
    if trained is None:
        top = _rounded(min(fitting, CAUTIOUS_CTX))
        note = "the model's metadata do not say what context it was trained for: a cautious range"
        return top, f"up to {top}: cautious, the context it was trained for is not known", [note]
    top = _rounded(min(trained, fitting))
    if trained <= fitting:
        return top, f"up to {top}: it was trained for {trained}, and that fits ({free})", []
    return top, f"up to {top}: what fits with weights and cache ({free}); it was trained for {trained}", []


def _too_large(model: ModelInfo, memory: Room, free: str) -> tuple[int, str, list[str]]:
    top = _rounded(min(model.context_length or CAUTIOUS_CTX, CAUTIOUS_CTX))
    weights = format_bytes(model.size_bytes or 0)
    rest = "part of it will sit on the CPU (spilled)" if memory.is_gpu else "cells will be slow or run out of memory"
    note = f"the weights take {weights} and do not fit ({free}): {rest}; a smaller model or quantization would fit"
    return top, f"up to {top}: cautious, since the weights alone do not fit", [note]


def _rounded(num_ctx: int) -> int:
    """Down to a multiple of 2048, or of 256 for a small one."""
    step = CTX_STEP if num_ctx >= CTX_STEP else SMALL_CTX_STEP
    return num_ctx // step * step or num_ctx


def _contexts(top: int) -> Range:
    """By factor 2 where that ends at the top, else in steps of a multiple of 2048 (of 256 for a small one)."""
    if _is_power_of_two(top):
        start = USUAL_START if top >= 4 * USUAL_START else max(top // 4, min(top, SMALL_CTX_STEP))
        return Range(start, top, factor=2)
    unit = CTX_STEP if top >= 2 * CTX_STEP else SMALL_CTX_STEP
    first = USUAL_START if top >= 4 * USUAL_START else unit
    if top <= first:
        return Range(top, top)
    step = -(-(top - first) // (MOST_CONTEXTS - 1) // unit) * unit
    return Range(top - (top - first) // step * step, top, step=step)


def _batches(smallest_ctx: int) -> Range:
    """32 to 2048 by factor 2, ending where a prompt of num_batch tokens still fits the smallest num_ctx well."""
    end = min(LARGEST_BATCH, _power_of_two(max(1, smallest_ctx // 2)))
    return Range(min(SMALLEST_BATCH, end), end, factor=2)


def _power_of_two(limit: int) -> int:
    return 1 << (limit.bit_length() - 1)


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0
