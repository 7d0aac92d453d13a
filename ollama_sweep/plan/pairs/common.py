"""What two sweeps have in common: the dimensions by which their cells are matched, as `compare` matches them."""

from __future__ import annotations

from collections.abc import Iterable

from ollama_sweep.core.cell import MAIN_TASK, Cell
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.options import Scalar
from ollama_sweep.engines import AUTO
from ollama_sweep.plan.grid import INNERMOST
from ollama_sweep.plan.spec import SweepSpec

SIZES = ("num_ctx", "num_batch")
_SHOWN = 6


def common_dimensions(a: SweepSpec, b: SweepSpec) -> tuple[str, ...]:
    """Those of both. A setting of which each has one value is none: it is what differs."""
    names = [name for name in a.dimensions if name in b.dimensions and name != "task"]
    return tuple(name for name in names if name in SIZES or not _is_one_each(a, b, name))


def _is_one_each(a: SweepSpec, b: SweepSpec, name: str) -> bool:
    of_a, of_b = a.dimensions[name], b.dimensions[name]
    return len(of_a) == len(of_b) == 1 and of_a != of_b


def place_of(cell: Cell, common: Iterable[str]) -> tuple[object, ...]:
    """What a cell is matched by: its task and its coordinates."""
    coordinates = dict(cell.coordinates)
    return (cell.task, *(_normal(coordinates.get(name)) for name in common))


def load_of(cell: Cell, common: Iterable[str]) -> tuple[object, ...]:
    """What cells of one load have in common on both arms."""
    coordinates = dict(cell.coordinates)
    return tuple(_normal(coordinates.get(name)) for name in common if name not in INNERMOST)


def _normal(value: Scalar) -> Scalar:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def refuse_strangers(a: SweepSpec, b: SweepSpec, place: str) -> None:
    """Raise ConfigError for two sweeps that `compare` would not compare, as far as the files say."""
    for spec in (a, b):
        if spec.goal is not None and not spec.goal.is_off:
            raise ConfigError(
                "the sweeps of a pair are measured in turns, so no planner can choose cells for a goal", place
            )
    if AUTO not in (a.engine, b.engine) and a.engine != b.engine:
        raise ConfigError(f"{a.engine} and {b.engine}: numbers of two engines are not compared", place)
    for name in dict.fromkeys([*a.dimensions, *b.dimensions]):
        _refuse_dimension(a, b, name, place)
    tasks = set(a.task_names) & set(b.task_names)
    if not tasks:
        of_a, of_b = (", ".join(spec.task_names) for spec in (a, b))
        raise ConfigError(f"the arms have no task in common: a has {of_a}, b has {of_b}", place)
    asked = (a.prompt.text, a.prompt.tokens), (b.prompt.text, b.prompt.tokens)
    if MAIN_TASK in tasks and asked[0] != asked[1]:
        raise ConfigError("the arms have different prompts, and numbers of two prompts are not compared", place)


def _refuse_dimension(a: SweepSpec, b: SweepSpec, name: str, place: str) -> None:
    of_a, of_b = ([_normal(value) for value in spec.dimensions.get(name, ())] for spec in (a, b))
    if name == "task":
        return
    if not (of_a and of_b):
        letter, values = ("a", of_a) if of_a else ("b", of_b)
        if len(values) > 1:
            raise ConfigError(
                f"arm {letter} varies {name} ({_listed(values)}) and the other does not: their cells cannot be matched",
                place,
            )
    elif not set(of_a) & set(of_b) and not (name not in SIZES and len(of_a) == len(of_b) == 1):
        raise ConfigError(
            f"the arms have no cell in common: a has {name} {_listed(of_a)}, b has {_listed(of_b)}", place
        )


def _listed(values: list[Scalar]) -> str:
    return ", ".join(map(str, values[:_SHOWN])) + (" …" if len(values) > _SHOWN else "")
