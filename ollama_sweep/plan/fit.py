"""What fits and what repeats: usable contexts, physical sizes, memory of a load. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from ollama_sweep.core.cell import Cell
from ollama_sweep.engines.base import ModelInfo

CONTEXT_PADDING = 256
"""llama.cpp rounds num_ctx up to a multiple of this (src/llama-context.cpp)."""


def usable_ctx(cell: Cell, model: ModelInfo) -> int:
    """num_ctx after the cap at the length the model was trained for; 0 where the engine chooses and nobody knows."""
    return min(cell.num_ctx, model.context_length or cell.num_ctx)


def fits(cell: Cell, model: ModelInfo, prompt_tokens: int) -> bool:
    """Prompt, answer and one more token fit the context, so nothing is cut; true where the engine chooses num_ctx."""
    usable = usable_ctx(cell, model)
    return not usable or usable >= prompt_tokens + cell.num_predict + 1


def physical(cell: Cell, model: ModelInfo) -> tuple[int, int]:
    """(num_ctx, num_batch) as llama.cpp really uses them: at most the training length, padded, batch <= context."""
    num_ctx = usable_ctx(cell, model)
    return math.ceil(num_ctx / CONTEXT_PADDING) * CONTEXT_PADDING, min(cell.num_batch, num_ctx or cell.num_batch)


def repeating(some: Iterable[Cell], models: Mapping[str, ModelInfo]) -> list[list[Cell]]:
    """Groups of cells that are the same configuration once the engine has clamped them."""
    groups: dict[tuple[object, ...], list[Cell]] = defaultdict(list)
    for cell in some:
        rest = tuple(pair for pair in cell.options if pair[0] not in ("num_ctx", "num_batch"))
        kind = (cell.model, cell.task, cell.task_options, cell.server, rest)
        groups[(kind, physical(cell, models[cell.model]))].append(cell)
    return [group for group in groups.values() if len(group) > 1]


def kv_cache_bytes(num_ctx: int, model: ModelInfo) -> int | None:
    """Bytes of an f16 KV cache for so many tokens of context; None where the metadata do not say."""
    if model.kv_bytes_per_token is None:
        return None
    capped = min(num_ctx, model.context_length or num_ctx)
    return math.ceil(capped / CONTEXT_PADDING) * CONTEXT_PADDING * model.kv_bytes_per_token


def load_bytes(num_ctx: int, model: ModelInfo) -> int | None:
    """Weights and KV cache; compute buffers, which grow with num_batch, come on top."""
    cache = kv_cache_bytes(num_ctx, model)
    return None if cache is None or model.size_bytes is None else cache + model.size_bytes
