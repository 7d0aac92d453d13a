"""SweepSpec -> ordered cells, and what can be said of them before any runs. Pure."""

from __future__ import annotations

import itertools
import math
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ollama_sweep.core.cell import PROMPT_TOKENS, Cell
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.loading.change import Change, change_by
from ollama_sweep.core.options import MATTER_OF_COURSE, Options, Scalar, asked_for, is_server_setting
from ollama_sweep.plan.spec import DEFAULT_NUM_PREDICT, SweepSpec
from ollama_sweep.tasks.base import Setup

NOT_OPTIONS = frozenset({"model", "task", PROMPT_TOKENS})
INNERMOST = ("task", "concurrency", PROMPT_TOKENS)
AUTO, COLUMN_FIRST = "auto", "column-first"
"""What no change of needs another load."""


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
    numbers = array("q", range(combinations(spec)))
    outer, asked = _outer(spec), _asked(spec)
    if spec.exclude:
        made = ((n, _cell(spec, _coordinates_at(n, outer, asked))) for n in numbers)
        numbers = array("q", (n for n, cell in made if not _is_excluded(spec, cell)))
    random.Random(len(numbers)).shuffle(numbers)  # noqa: S311
    return (_cell(spec, _coordinates_at(number, outer, asked)) for number in numbers)


def combinations(spec: SweepSpec) -> int:
    """How many cells there are, those that `exclude` leaves out among them."""
    return math.prod(map(len, _outer(spec).values())) * len(_asked(spec))


def _coordinates_at(number: int, outer: dict[str, Sequence[Scalar]], asked: Sequence[Options]) -> Options:
    """The combination that has this number in nesting order."""
    number, place = divmod(number, len(asked))
    found = []
    for name in reversed(outer):
        number, at = divmod(number, len(outer[name]))
        found.append((name, outer[name][at]))
    return (*reversed(found), *asked[place])


def _coordinates(spec: SweepSpec) -> Iterator[Options]:
    """Combinations of all dimensions in nesting order, outermost first."""
    if spec.order == AUTO:
        yield from _seldom_changed(spec)
        return
    outer, asked = _outer(spec), _asked(spec)
    for combination in itertools.product(*outer.values()):
        pairs = tuple(zip(outer, combination, strict=True))
        yield from ((*pairs, *inner) for inner in asked)


def _seldom_changed(spec: SweepSpec) -> Iterator[Options]:
    """The same in the order `auto`: what is dear to change is changed as seldom as can be.

    Each model's weights are read once, also where a task asks a model of its own. Under each model all settings of the
    server follow one another, under the next one backwards, so that no change of model is a restart as well.
    """
    settings, requests = list(_combined(spec, Change.RESTART)), list(_combined(spec, Change.KEPT))
    for turn, places in enumerate(_by_weights(spec)):
        for setting in settings if turn % 2 == 0 else reversed(settings):
            for load in _combined(spec, Change.RELOAD):
                for request, (model, asked) in itertools.product(requests, places):
                    yield (*model, *setting, *load, *request, *asked)


def _combined(spec: SweepSpec, needs: Change) -> Iterator[Options]:
    """The combinations of all dimensions that need this, in nesting order."""
    names = [name for name in nesting(spec) if name not in INNERMOST and change_by(name) is needs]
    for combination in itertools.product(*(spec.dimensions[name] for name in names)):
        yield tuple(zip(names, combination, strict=True))


def _by_weights(spec: SweepSpec) -> list[list[tuple[Options, Options]]]:
    """The models with what is asked of each, those together that have the same weights loaded."""
    models: list[Options] = [(("model", model),) for model in spec.dimensions.get("model", ())] or [()]
    found: dict[str, list[tuple[Options, Options]]] = {}
    for model, asked in itertools.product(models, _asked(spec)):
        found.setdefault(_cell(spec, (*model, *asked)).model, []).append((model, asked))
    return list(found.values())


def _asked(spec: SweepSpec) -> list[Options]:
    """The innermost combinations: each task, how many questions at once, each length of the prompt for who sends it."""
    counts: list[Options] = [(("concurrency", count),) for count in spec.dimensions.get("concurrency", ())] or [()]
    found: list[Options] = []
    for task, count in itertools.product(spec.task_names, counts):
        named: Options = ((("task", task),) if "task" in spec.dimensions else ()) + count
        found += [named if length is None else (*named, (PROMPT_TOKENS, length)) for length in spec.lengths_of(task)]
    return found


def _outer(spec: SweepSpec) -> dict[str, Sequence[Scalar]]:
    """All other dimensions, outermost first, with their values in order."""
    return {name: _in_order(spec, name) for name in nesting(spec) if name not in INNERMOST}


def nesting(spec: SweepSpec) -> tuple[str, ...]:
    """Dimension names, outermost first: server settings, model, others as written, sizes, what loads nothing.

    In the order `auto` the model comes before the server's settings, and what needs no load behind the sizes.
    """
    server = [name for name in spec.dimensions if is_server_setting(name)]
    main = ["num_batch", "num_ctx"] if spec.order == "row-first" else ["num_ctx", "num_batch"]
    further = [name for name in spec.dimensions if name not in (*server, "model", *main, *INNERMOST)]
    names = [*server, "model", *further, *main, *INNERMOST]
    if spec.order == AUTO:
        loads = [name for name in further if change_by(name) is not Change.KEPT]
        request = [name for name in further if name not in loads]
        names = ["model", *server, *loads, *main, *request, *INNERMOST]
    return tuple(name for name in names if name in spec.dimensions)


def order_of(spec: SweepSpec) -> str:
    """The order of the cells; where `auto` changes nothing it is column-first, as which earlier versions planned it."""
    plain = replace(spec, order=COLUMN_FIRST)
    if spec.order != AUTO or nesting(spec) != nesting(plain):
        return spec.order
    groups, models = _by_weights(spec), spec.dimensions.get("model", ("",))
    is_plain = len(groups) == len(models) and all(len({model for model, _ in group}) == 1 for group in groups)
    return COLUMN_FIRST if is_plain else AUTO


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
    options = asked_for({name: value for name, value in asked.items() if not is_server_setting(name)})
    if setup.questions and all(one.texts for one in setup.questions):
        options.pop("think", None)  # vectors are made without a thought
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
    own = {PROMPT_TOKENS: spec.prompt.tokens} if spec.has_own_prompt(cell.task) else {}
    known = {**MATTER_OF_COURSE, **own, **dict(cell.options), **dict(cell.coordinates)}
    return any(exclusion.matches(known) for exclusion in spec.exclude)
