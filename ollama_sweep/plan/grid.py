"""SweepSpec -> ordered cells, and what can be said of them before any runs. Pure."""

from __future__ import annotations

import itertools
import math
import random
from array import array
from collections.abc import Iterator, Sequence

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.options import Options, Scalar, is_server_setting
from ollama_sweep.plan.spec import DEFAULT_NUM_PREDICT, SweepSpec
from ollama_sweep.tasks.base import Setup

NOT_OPTIONS = frozenset({"model", "task"})
FEWEST_CELLS = 5
"""A smaller sweep would be made of controls; it has none by itself."""
FEWEST_CONTROLS, CELLS_PER_CONTROL = 5, 25


def cells(spec: SweepSpec) -> list[Cell]:
    """Every cell that `exclude` leaves, in the order of the sweep. Raises ConfigError where none is left."""
    return list(each_cell(spec))


def each_cell(spec: SweepSpec) -> Iterator[Cell]:
    """The same one after the other; never all of them at once."""
    kept = _shuffled(spec) if spec.order == "shuffled" else _kept(spec)
    first = next(kept, None)
    if first is None:
        raise ConfigError("exclude leaves no cell", "exclude")
    yield first
    yield from kept


def _kept(spec: SweepSpec) -> Iterator[Cell]:
    combined = (_cell(spec, coordinates) for coordinates in _coordinates(spec))
    return (cell for cell in combined if not _is_excluded(spec, cell))


def _shuffled(spec: SweepSpec) -> Iterator[Cell]:
    """The cells in an order that is the same at every start: their numbers are shuffled, each is made in its turn."""
    numbers = array("q", range(math.prod(len(values) for values in spec.dimensions.values())))
    if spec.exclude:
        numbers = array("q", (n for n in numbers if not _is_excluded(spec, _cell(spec, _coordinates_at(spec, n)))))
    random.Random(len(numbers)).shuffle(numbers)  # noqa: S311
    return (_cell(spec, _coordinates_at(spec, number)) for number in numbers)


def _coordinates_at(spec: SweepSpec, number: int) -> Options:
    """The combination that has this number in nesting order."""
    found = []
    for name in reversed(nesting(spec)):
        values = _in_order(spec, name)
        number, place = divmod(number, len(values))
        found.append((name, values[place]))
    return tuple(reversed(found))


def _coordinates(spec: SweepSpec) -> Iterator[Options]:
    """Combinations of all dimensions in nesting order, outermost first."""
    names = nesting(spec)
    values = [_in_order(spec, name) for name in names]
    for combination in itertools.product(*values):
        yield tuple(zip(names, combination, strict=True))


def controls_wanted(loads: int) -> int:
    """So often the control cell is measured in a sweep of so many loads, where nobody says how often."""
    return max(FEWEST_CONTROLS, loads // CELLS_PER_CONTROL) if loads >= FEWEST_CELLS else 0


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
    if options.get("think") is False or (setup.questions and all(one.texts for one in setup.questions)):
        options.pop("think", None)  # false is what holds without it; vectors are made without a thought
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
    known = {"think": False, **dict(cell.options), **dict(cell.coordinates)}
    return any(exclusion.matches(known) for exclusion in spec.exclude)
