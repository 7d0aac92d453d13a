"""What a scout says of the cells of a sweep that its own engine has not measured: drawn and told, and never rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ollama_sweep.core.summary import PROMPT_RATE
from ollama_sweep.core.surface.factor import FEWEST, NOT_STEADY, Factors
from ollama_sweep.core.surface.places import Noise
from ollama_sweep.core.surface.scouted import Expected, all_expected, factors_of
from ollama_sweep.results.find import replayed_words
from ollama_sweep.store.goals.scouting import ScoutedGrid, found_by, grids
from ollama_sweep.store.rows import SCOUT

if TYPE_CHECKING:
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow


@dataclass(frozen=True)
class ScoutedMap:
    """`factors` are those of each grid, `expected` what cells that are not measured are likely to be, by position.

    `builds` says where the scout was made with another build than the one that is here now.
    """

    scout: str
    factors: tuple[Factors, ...] = ()
    expected: Mapping[int, Expected] = field(default_factory=dict)
    cells: int = 0
    """Cells that only the scout has measured, whether a factor is known or not."""
    builds: str = ""

    @property
    def is_unsteady(self) -> bool:
        """Enough was measured both ways, and it does not say what the scout's rates are worth."""
        return any(one.cells >= FEWEST and not one.is_steady for one in self.factors)

    @property
    def factor_words(self) -> str:
        """`0.995 ± 1.2 % (12 cells)`, of each grid."""
        return "; ".join(one.words for one in self.factors)

    @property
    def words(self) -> str:
        """What a person must know of it."""
        if self.is_unsteady:
            text = (
                f"{NOT_STEADY.capitalize()}, so the scout {self.scout} is no map: "
                f"{self.factor_words}. Every cell with: run --no-scout"
            )
        else:
            times = "times" if all(one.parts for one in self.factors) else "factor"
            text = f"Scouted: {self.cells} more cells by context swap ({self.scout}), {times} {self.factor_words}."
        return "\n".join(filter(None, [text, self.builds]))

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        return {
            "sweep": self.scout, "cells": self.cells, "steady": not self.is_unsteady,
            "factors": [part.as_dict() for one in self.factors for part in one.parts], "builds": self.builds,
        }  # fmt: skip


def scouted_map(reader: Reader, row: SweepRow) -> ScoutedMap | None:
    """What the scout of a sweep says; None for one that is not scouted."""
    name = str(row.spec.get(SCOUT) or "")
    scout = reader.sweep_if_there(name) if name else None
    if scout is None:
        return None
    noise, own = (Noise.of(reader.spreads(one.sweep_id).get(PROMPT_RATE)) for one in (scout, row))
    found = found_by(reader.goal_cells(scout.sweep_id), reader.goal_kinds(scout.sweep_id))
    cells, kinds = reader.goal_cells(row.sweep_id), reader.goal_kinds(row.sweep_id)
    factors: list[Factors] = []
    expected: dict[int, Expected] = {}
    count = 0
    for grid in grids(cells, kinds, found, noise):
        known = factors_of(grid.places, grid.results, grid.is_open, grid.scouted, own)
        factors.append(known)
        count += sum(place.position in grid.is_open and grid.scouted.fits(place) for place in grid.places)
        if known.is_steady:
            expected |= _of_open(grid, known)
    return ScoutedMap(name, tuple(factors), expected, count, _builds(reader, scout))


def _of_open(grid: ScoutedGrid, known: Factors) -> dict[int, Expected]:
    places = [place for place in grid.places if place.position in grid.is_open]
    return dict(all_expected(places, grid.scouted, known))


def _builds(reader: Reader, scout: SweepRow) -> str:
    """That cells were scouted with another build of the library than the one at hand now; "" where none were."""
    now = _build(reader.segment(scout.sweep_id) or {})
    others = sorted({_build(one) for one in reader.measured_in(scout.sweep_id)} - {now})
    if not others:
        return ""
    return (
        f"Note: cells of {scout.name} were scouted with another build ({', '.join(others)}) than the one here now "
        f"({now}). For a map of this build give the sweep another name and scout again."
    )


def _build(surroundings: Mapping[str, object]) -> str:
    """The version and the first digits of the library's digest."""
    digest = str(surroundings.get("library_digest") or "").removeprefix("sha256:")
    return " ".join(filter(None, [str(surroundings.get("engine_version") or "?"), digest[:12]]))


def told(text: str, row: SweepRow, scouted: ScoutedMap | None) -> str:
    """What is said of a sweep, with where its numbers are from; a scout that is no map is said first."""
    parts = [text, replayed_words(row)]
    if scouted is not None:
        parts.insert(0 if scouted.is_unsteady else 1, scouted.words)
    return "\n".join(filter(None, parts))
