"""Which cell of a scout is the same place as a cell of the sweep that it scouts for."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ollama_sweep.core.surface.places import Found, Known, Noise, Place
from ollama_sweep.core.surface.scouted import Scouted
from ollama_sweep.store.goals.cells import GoalCell

_ENGINES_OWN = (0, 2, 6)
"""Parts of a kind that are the engine's, or that engines write down in their own ways: engine, server, options. What a
sweep varies of these is among its coordinates, which a kind has as well."""
Where = tuple[str, int, int]


@dataclass(frozen=True)
class ScoutedGrid:
    """A grid of a sweep: all its places, what is known of them, which are open, and what the scout knows of them."""

    places: tuple[Place, ...]
    results: Mapping[int, Found]
    is_open: frozenset[int]
    scouted: Scouted


def of_place(kind: str, place: Place) -> Where:
    """Equal for the same place of a sweep and of its scout; `kind` is what a cell is beside both sizes."""
    parts = json.loads(kind)
    return json.dumps([part for at, part in enumerate(parts) if at not in _ENGINES_OWN]), place.num_ctx, place.num_batch


def found_by(cells: Iterable[GoalCell], kinds: Mapping[int, str], beyond: Collection[int] = ()) -> dict[Where, Found]:
    """What a scout has found, by place; positions `beyond` are known not to fit by loads without a prompt."""
    found: dict[Where, Found] = {}
    for cell in cells:
        position = cell.place.position
        where = of_place(kinds[position], cell.place)
        if cell.found is not None and not cell.is_open:
            found[where] = cell.found
        elif position in beyond:
            found[where] = Found(Known.FAILED)
    return found


def grids(
    cells: Iterable[GoalCell], kinds: Mapping[int, str], found: Mapping[Where, Found], noise: Noise
) -> list[ScoutedGrid]:
    """The grids of a sweep with what its scout has found; `noise` is that of the scout."""
    groups: dict[str, list[GoalCell]] = {}
    for cell in cells:
        groups.setdefault(kinds[cell.place.position], []).append(cell)
    return [_grid(group, kind, found, noise) for kind, group in groups.items()]


def _grid(group: list[GoalCell], kind: str, found: Mapping[Where, Found], noise: Noise) -> ScoutedGrid:
    return ScoutedGrid(
        places=tuple(cell.place for cell in group),
        results={cell.place.position: cell.found for cell in group if cell.found is not None and not cell.is_open},
        is_open=frozenset(cell.place.position for cell in group if cell.is_open),
        scouted=scouted_of(kind, (cell.place for cell in group), found, noise),
    )


def scouted_of(kind: str, places: Iterable[Place], found: Mapping[Where, Found], noise: Noise) -> Scouted:
    """What the scout knows of these places of one kind."""
    here = ((place.position, found.get(of_place(kind, place))) for place in places)
    return Scouted({position: one for position, one in here if one is not None}, noise)
