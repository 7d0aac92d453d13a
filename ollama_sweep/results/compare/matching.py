"""Which cells of A and B are the same one: by coordinates and task, never by key. What else differs is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ollama_sweep.core.cell import MAIN_TASK
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.loading.change import Change, change_by
from ollama_sweep.core.options import Scalar
from ollama_sweep.results.compare.sides import Side
from ollama_sweep.results.grids import X, Y, in_word, in_words
from ollama_sweep.store.loads.compared import PlanCell

ALLOWED = ("model", "prompt", "task", "engine")
"""What may differ where `--allow` says so; everything else that differs is what is compared."""
_SHOWN = 6

Key = tuple[str, str]
"""The coordinates as JSON, and the task."""


@dataclass(frozen=True)
class Matched:
    """The cells that both sides have, and those that only one of them has.

    `dimensions` are those that both have. `notes` say what stood in the way and was left out of the coordinates.
    """

    pairs: Mapping[Key, tuple[PlanCell, PlanCell]]
    only_a: tuple[PlanCell, ...]
    only_b: tuple[PlanCell, ...]
    dimensions: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Cells:
    """A side's cells, and the values of each of its dimensions as far as they matter."""

    side: Side
    letter: str
    cells: list[PlanCell]
    values: dict[str, dict[Scalar, None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for cell in self.cells:
            for name, value in cell.coordinates.items():
                self.values.setdefault(name, {})[value] = None

    def tasks(self) -> list[str]:
        return list(dict.fromkeys(cell.task for cell in self.cells))


def matched(a: Side, b: Side, allowed: frozenset[str]) -> Matched:
    """The cells of both. Raises ConfigError where they have none in common, or differ in what is not allowed to."""
    of_a, of_b = _cells(a, "A"), _cells(b, "B")
    names, notes = _common_dimensions(of_a, of_b)
    tasks_match = _tasks_match(of_a, of_b, allowed)
    keyed = [_keyed(one.cells, names, by_task=tasks_match) for one in (of_a, of_b)]
    both = [key for key in keyed[0] if key in keyed[1]]
    if not both:
        raise ConfigError(_nothing_in_common(of_a, of_b, names))
    pairs = {key: (keyed[0][key], keyed[1][key]) for key in both}
    _check_same(pairs.values(), allowed)
    only = [tuple(cell for key, cell in of_side.items() if key not in pairs) for of_side in keyed]
    return Matched(pairs, only[0], only[1], names, tuple(notes))


def _cells(side: Side, letter: str) -> _Cells:
    found = list(side.reader.plan_cells(side.sweep.sweep_id, side.segment_id, side.positions))
    if not found:
        raise ConfigError(f"{letter}, {side.words()}, has no cells")
    return _Cells(side, letter, found)


def coordinates_of(key: Key) -> dict[str, Scalar]:
    """The coordinates of a key."""
    found = json.loads(key[0])
    assert isinstance(found, dict)
    return found


def load_of_key(key: Key) -> str:
    """The same for cells that differ in nothing that a load hangs on."""
    found = {name: value for name, value in coordinates_of(key).items() if change_by(name) is not Change.KEPT}
    return json.dumps(found)


def _keyed(cells: Iterable[PlanCell], names: Sequence[str], *, by_task: bool) -> dict[Key, PlanCell]:
    return {_key(cell, names, by_task=by_task): cell for cell in cells}


def _key(cell: PlanCell, names: Sequence[str], *, by_task: bool) -> Key:
    found = {name: _normal(cell.coordinates.get(name)) for name in names}
    return json.dumps(found, ensure_ascii=False), cell.task if by_task else ""


def _normal(value: Scalar) -> Scalar:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _common_dimensions(a: _Cells, b: _Cells) -> tuple[tuple[str, ...], list[str]]:
    """The dimensions by which cells are matched.

    A setting that only one side names, or each with one value of its own, never varies: it does not stand in the way,
    and may be what is compared.
    """
    names = [name for name in dict.fromkeys([*a.values, *b.values]) if name != "task"]
    notes, kept = [], []
    for name in names:
        of_a, of_b = a.values.get(name, {}), b.values.get(name, {})
        if of_a and of_b and not (name not in (X, Y) and of_a.keys() != of_b.keys() and _one_each(of_a, of_b)):
            kept.append(name)
            continue
        for mine, other, values in ((a, b, of_a), (b, a, of_b)):
            if len(values) > 1:
                shown = ", ".join(in_word(value) for value in list(values)[:_SHOWN])
                raise ConfigError(
                    f"{mine.letter} varies {name} ({shown}) and {other.letter} does not: their cells cannot be matched"
                )
        if name != "model":
            notes.append(_only_words(name, of_a, of_b))
    return tuple(kept), notes


def _only_words(name: str, a: Mapping[Scalar, None], b: Mapping[Scalar, None]) -> str:
    if a and b:
        return f"A has {in_words([(name, next(iter(a)))])} and B {in_word(next(iter(b)))}"
    return f"only {'A' if a else 'B'} names {in_words([(name, next(iter(a or b)))])}"


def _one_each(a: Mapping[Scalar, None], b: Mapping[Scalar, None]) -> bool:
    """Neither side varies it. Whether two models are the same one is asked of their digests."""
    return len(a) == 1 and len(b) == 1


def _tasks_match(a: _Cells, b: _Cells, allowed: frozenset[str]) -> bool:
    """Whether cells are matched by task: not where each side has one, another one, and that is allowed."""
    of_a, of_b = a.tasks(), b.tasks()
    if set(of_a) & set(of_b):
        return True
    if "task" in allowed and len(of_a) == len(of_b) == 1:
        return False
    raise ConfigError(f"A has the task {', '.join(of_a)} and B {', '.join(of_b)}; to compare them anyway: --allow task")


def _nothing_in_common(a: _Cells, b: _Cells, names: Sequence[str]) -> str:
    for name in names:
        of_a, of_b = ([_normal(value) for value in one.values[name]] for one in (a, b))
        if not set(of_a) & set(of_b):
            shown = [", ".join(map(in_word, values[:_SHOWN])) + (" …" if len(values) > _SHOWN else "")
                     for values in (of_a, of_b)]  # fmt: skip
            hint = nearest(in_word(of_a[0]), map(in_word, of_b)) if isinstance(of_a[0], str) else ""
            return f"A and B have no cell in common: A has {name} {shown[0]}, B has {shown[1]}.{hint}"
    return "A and B have no cell in common: no coordinates of one are those of the other"


def _check_same(pairs: Iterable[tuple[PlanCell, PlanCell]], allowed: frozenset[str]) -> None:
    """Raises ConfigError for the first cell whose two sides do not ask the same of the same model."""
    for a, b in pairs:
        for what, differs in _differences(a, b):
            if what not in allowed:
                raise ConfigError(f"{differs}; to compare them anyway: --allow {what}")


def _differences(a: PlanCell, b: PlanCell) -> Iterable[tuple[str, str]]:
    where = in_words(a.coordinates.items()) or a.task
    if a.engine != b.engine:
        yield "engine", f"A was measured by {a.engine} and B by {b.engine}"
    if a.model_digest and b.model_digest and a.model_digest != b.model_digest:
        names = f"{a.model} and {b.model}" if a.model != b.model else f"{a.model}, which has another digest in B"
        yield "model", f"A and B have different models at {where}: {names}"
    if a.task != b.task:
        yield "task", f"A has the task {a.task} and B {b.task}"
    elif a.task_options != b.task_options:
        yield "task", f"the task {a.task} has other options in B: {b.task_options} in place of {a.task_options}"
    elif a.prompt_hash and b.prompt_hash and a.prompt_hash != b.prompt_hash:
        if a.task == MAIN_TASK:
            yield "prompt", f"A and B have different prompts at {where}"
        else:
            yield "task", f"the task {a.task} asks other questions in B"
