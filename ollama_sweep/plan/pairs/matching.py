"""Where the cells of a pair stand: which are the same place, in which order, and which would have one key on both arms.

Two arms of one file have the same places in the same order, and are walked side by side. Where that is not so, those of
the second arm are put into the order of the first.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.plan.pairs.common import common_dimensions, load_of, place_of
from ollama_sweep.plan.survey import ArmOfPair, Survey

ONLY_HERE = -1


@dataclass(frozen=True)
class Places:
    """The number of its load for each position of an arm's plan: equal numbers are the same place on both arms.

    `partners` has for each position that of the same cell on the other arm, ONLY_HERE where there is none.
    """

    loads: tuple[array[int], array[int]]
    partners: tuple[array[int], array[int]]

    @property
    def matched(self) -> int:
        """How many cells both arms have."""
        return sum(place != ONLY_HERE for place in self.partners[0])


def joined(a: Survey, b: Survey) -> tuple[Survey, Survey, Places]:
    """Both arms as they are measured in turns. Raises ConfigError for two that `compare` would refuse."""
    if a.engine != b.engine:
        raise ConfigError(f"{a.engine} and {b.engine}: numbers of two engines are not compared", "pair")
    found = _side_by_side(a, b)
    cells_b = None
    if found is None:
        cells_b, found = _put_in_order(a, b)
    pairs, loads = found
    if not len(pairs[0]):
        raise ConfigError("the arms have no cell in common", "pair")
    twins = _twins(a, b, pairs, loads, cells_b)
    sides = (
        replace(a, arm=ArmOfPair("a", b.fingerprint, twins[0])),
        replace(b, arm=ArmOfPair("b", a.fingerprint, twins[1], cells_b)),
    )
    return (*sides, Places(loads, _partners(pairs, loads)))


_Pairs = tuple["array[int]", "array[int]"]


def _side_by_side(a: Survey, b: Survey) -> tuple[_Pairs, _Pairs] | None:
    """Positions that belong together, and the load of each; None where the arms have not the same places in order."""
    common = common_dimensions(a.spec, b.spec)
    loads, last, number = array("q"), None, -1
    for one, other in zip_longest(a.each_cell(), b.each_cell()):
        if one is None or other is None or place_of(one, common) != place_of(other, common):
            return None
        _refuse_differing(a, b, one, other)
        load = load_of(one, common)
        number += load != last
        last = load
        loads.append(number)
    places = array("q", range(len(loads)))
    return (places, places), (loads, loads)


def _put_in_order(a: Survey, b: Survey) -> tuple[list[Cell], tuple[_Pairs, _Pairs]]:
    """The cells of b in the order of a, each that a lacks behind the one it followed; what `_side_by_side` gives."""
    common = common_dimensions(a.spec, b.spec)
    cells_a = list(a.each_cell())
    where = {place_of(cell, common): number for number, cell in enumerate(cells_a)}
    ranked: list[tuple[int, int, Cell]] = []
    before = ONLY_HERE
    for cell in b.each_cell():
        at = where.get(place_of(cell, common))
        before = before if at is None else at
        ranked.append((before, at is None, cell))
        if at is not None:
            _refuse_differing(a, b, cells_a[at], cell)
    ranked.sort(key=lambda one: one[:2])
    pairs: _Pairs = (array("q"), array("q"))
    for number, (at, is_only_here, _) in enumerate(ranked):
        if not is_only_here:
            pairs[0].append(at)
            pairs[1].append(number)
    return [cell for _, _, cell in ranked], (pairs, _numbered(cells_a, ranked, common))


def _numbered(cells_a: list[Cell], ranked: list[tuple[int, int, Cell]], common: Iterable[str]) -> _Pairs:
    """The loads of both arms, counted in the one order of both."""
    merged = [(at, 0, 0, at, load_of(cell, common)) for at, cell in enumerate(cells_a)]
    merged += [(at, int(only), 1, number, load_of(cell, common)) for number, (at, only, cell) in enumerate(ranked)]
    loads: _Pairs = (array("q", bytes(8 * len(cells_a))), array("q", bytes(8 * len(ranked))))
    last: object = None
    number = -1
    for _, _, arm, position, load in sorted(merged, key=lambda one: one[:4]):
        number += load != last
        last = load
        loads[arm][position] = number
    return loads


def _refuse_differing(a: Survey, b: Survey, one: Cell, other: Cell) -> None:
    """Raise ConfigError for a cell whose arms do not ask the same of the same model, which `compare` would refuse."""
    models = a.models[one.model], b.models[other.model]
    if models[0].digest != models[1].digest:
        names = f"{one.model} and {other.model}" if one.model != other.model else one.model
        raise ConfigError(
            f"the arms have different models ({names}), and numbers of two models are not compared", "pair"
        )
    if one.task_options != other.task_options or a.task_versions[one.task] != b.task_versions[other.task]:
        raise ConfigError(
            f"the task {one.task} has other options on arm b, and numbers of two tasks are not compared", "pair"
        )
    if a.prompts[one.asked].hash != b.prompts[other.asked].hash:
        what = "prompts" if a.prompts[one.asked].is_own_prompt else f"questions of the task {one.task}"
        raise ConfigError(f"the arms have different {what}, and their numbers are not compared", "pair")


def _twins(
    a: Survey, b: Survey, pairs: _Pairs, loads: _Pairs, cells_b: list[Cell] | None
) -> tuple[bytearray, bytearray]:
    """For each position of both plans: 1 where the other arm's cell would have the very same key."""
    found = bytearray(len(loads[0])), bytearray(len(loads[1]))
    cells = enumerate(a.each_cell()), enumerate(cells_b or b.each_cell())
    for at_a, at_b in zip(*pairs, strict=True):
        of_a, of_b = _go_to(at_a, cells[0]), _go_to(at_b, cells[1])
        found[0][at_a] = found[1][at_b] = a.key(of_a) == b.key(of_b)
    return found


def _go_to(position: int, cells: Iterator[tuple[int, Cell]]) -> Cell:
    """What lies between has no partner."""
    return next(cell for at, cell in cells if at == position)


def _partners(pairs: _Pairs, loads: _Pairs) -> _Pairs:
    of_a, of_b = (array("q", [ONLY_HERE]) * len(side) for side in loads)
    for at_a, at_b in zip(*pairs, strict=True):
        of_a[at_a], of_b[at_b] = at_b, at_a
    return of_a, of_b
