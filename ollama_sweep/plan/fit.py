"""What fits and what repeats: usable contexts, physical sizes, memory of a load. Pure."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from ollama_sweep.core.cell import Cell
from ollama_sweep.engines.base import ModelInfo, padded

MOST_LISTED = 10_000


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
    return padded(num_ctx), min(cell.num_batch, num_ctx or cell.num_batch)


def repeating(some: Iterable[Cell], models: Mapping[str, ModelInfo]) -> list[list[Cell]]:
    """Groups of cells that are the same configuration once the engine has clamped them."""
    groups: dict[tuple[object, ...], list[Cell]] = defaultdict(list)
    for cell in some:
        groups[clamped(cell, models)].append(cell)
    return [group for group in groups.values() if len(group) > 1]


def clamped(cell: Cell, models: Mapping[str, ModelInfo]) -> tuple[object, ...]:
    """The same for cells that are the same configuration once the engine has clamped them."""
    rest = tuple(pair for pair in cell.options if pair[0] not in ("num_ctx", "num_batch"))
    kind = (*cell.asked, cell.task_options, cell.server, rest)
    return kind, physical(cell, models[cell.model])


class Repeats:
    """Counts the groups of cells that are the same configuration, without keeping the cells: their marks only.

    `groups` are the labels of the first of them, as long as they have at most MOST_LISTED cells together.
    """

    def __init__(self, models: Mapping[str, ModelInfo]) -> None:
        self._models = models
        self._marks = array("q")

    def add(self, cell: Cell) -> None:
        self._marks.append(hash(repr(clamped(cell, self._models))))  # -1 and -2 have the same hash

    def groups(self, again: Iterable[Cell]) -> tuple[int, list[tuple[str, ...]]]:
        """How many groups there are, and the first; `again` are the cells once more, in the same order."""
        counts = dict(_counted(self._marks))
        found: dict[int, list[str]] = {}
        listed = 0
        for mark, cell in zip(self._marks, again if counts else (), strict=False):
            if mark not in counts or (mark not in found and listed + counts[mark] > max(MOST_LISTED, counts[mark])):
                continue
            if mark not in found:
                found[mark], listed = [], listed + counts[mark]
            if len(found[mark]) < MOST_LISTED:
                found[mark].append(cell.label())
        return len(counts), [tuple(labels) for labels in found.values()]


def _counted(marks: array[int]) -> Iterator[tuple[int, int]]:
    """Each mark that occurs more than once, and how often."""
    for mark, members in groupby(sorted(marks)):
        count = sum(1 for _ in members)
        if count > 1:
            yield mark, count


def kv_cache_bytes(num_ctx: int, model: ModelInfo) -> int | None:
    """Bytes of an f16 KV cache for so many tokens of context; None where the metadata do not say."""
    return model.kv_cache_bytes(num_ctx)


def load_bytes(num_ctx: int, model: ModelInfo) -> int | None:
    """Weights and KV cache; compute buffers, which grow with num_batch, come on top."""
    cache = kv_cache_bytes(num_ctx, model)
    return None if cache is None or model.size_bytes is None else cache + model.size_bytes
