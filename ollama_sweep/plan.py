"""SweepSpec -> ordered cells, and what can be said of them before any runs. Pure."""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ollama_sweep.cells import Cell, Options, Scalar, is_server_setting
from ollama_sweep.engine import ModelInfo
from ollama_sweep.errors import ConfigError
from ollama_sweep.spec import DEFAULT_NUM_PREDICT, SweepSpec
from ollama_sweep.task import Setup

CONTEXT_PADDING = 256
"""llama.cpp rounds num_ctx up to a multiple of this (src/llama-context.cpp)."""
NOT_OPTIONS = frozenset({"model", "task"})


def cells(spec: SweepSpec) -> list[Cell]:
    """Every cell that `exclude` leaves, in the order of the sweep. Raises ConfigError where none is left."""
    return list(each_cell(spec))


def each_cell(spec: SweepSpec) -> Iterator[Cell]:
    """The same one after the other: only the order `shuffled` needs all of them at once."""
    kept = _kept(spec)
    if spec.order == "shuffled":
        shuffled = list(kept)
        random.Random(len(shuffled)).shuffle(shuffled)  # noqa: S311 - the same order at every start
        kept = iter(shuffled)
    first = next(kept, None)
    if first is None:
        raise ConfigError("exclude leaves no cell", "exclude")
    yield first
    yield from kept


def _kept(spec: SweepSpec) -> Iterator[Cell]:
    combined = (_cell(spec, coordinates) for coordinates in _coordinates(spec))
    return (cell for cell in combined if not _is_excluded(spec, cell))


def _coordinates(spec: SweepSpec) -> Iterator[Options]:
    """Combinations of all dimensions in nesting order, outermost first."""
    names = nesting(spec)
    values = [_in_order(spec, name) for name in names]
    for combination in itertools.product(*values):
        yield tuple(zip(names, combination, strict=True))


def nesting(spec: SweepSpec) -> tuple[str, ...]:
    """Dimension names, outermost first: server settings, model, others as written, num_ctx, num_batch, the task."""
    server = [name for name in spec.dimensions if is_server_setting(name)]
    further = [name for name in spec.dimensions if name not in (*server, "model", "num_ctx", "num_batch", "task")]
    main = ["num_batch", "num_ctx"] if spec.order == "row-first" else ["num_ctx", "num_batch"]
    names = [*server, "model", *further, *main, "task"]
    return tuple(name for name in names if name in spec.dimensions)


def _in_order(spec: SweepSpec, name: str) -> Sequence[Scalar]:
    values = spec.dimensions[name]
    return bisected(values) if name == "num_ctx" and spec.order == "columns-bisected" else values


def bisected(values: Sequence[Scalar]) -> list[Scalar]:
    """First, last, middle, quarters …: each value once, the whole range visible early."""
    if not values:
        return []
    order = [0, len(values) - 1]
    gaps = [(0, len(values) - 1)]
    while gaps:
        halves = []
        for low, high in gaps:
            middle = (low + high) // 2
            if middle in (low, high):
                continue
            order.append(middle)
            halves += [(low, middle), (middle, high)]
        gaps = halves
    return [values[index] for index in dict.fromkeys(order)]


def _cell(spec: SweepSpec, coordinates: Options) -> Cell:
    swept = dict(coordinates)
    task = str(swept.get("task", spec.task))
    setup = spec.setups.get(task, Setup())
    further = {name: value for name, value in swept.items() if name not in NOT_OPTIONS}
    asked = {"num_predict": DEFAULT_NUM_PREDICT, **setup.defaults, **spec.options, **setup.request, **further}
    options = {name: value for name, value in asked.items() if not is_server_setting(name)}
    server = {name: value for name, value in {**spec.server, **further}.items() if is_server_setting(name)}
    return Cell(
        coordinates=coordinates,
        model=setup.model or str(swept.get("model", spec.model)),
        options=tuple(sorted(options.items())),
        task=task,
        task_options=setup.options,
        server=tuple(sorted(server.items())),
        system=setup.system,
    )


def _is_excluded(spec: SweepSpec, cell: Cell) -> bool:
    known = {**dict(cell.options), **dict(cell.coordinates)}
    return any(exclusion.matches(known) for exclusion in spec.exclude)


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
