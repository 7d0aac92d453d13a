"""All that a page says of a sweep, as plain data: the verdict in words first. Pure but for the pictures it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.noise.drift import drift_of
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Status
from ollama_sweep.core.text import in_short
from ollama_sweep.results.best import best_cells, describe_best
from ollama_sweep.results.export import long_rows
from ollama_sweep.results.find import replayed_words
from ollama_sweep.results.grids import Grid, X, Y, in_words, make_grids
from ollama_sweep.results.groups import make_groups
from ollama_sweep.results.page import maps, tables
from ollama_sweep.results.page.gathering import MOST_CELLS, MOST_MAPS, Gathered
from ollama_sweep.results.page.maps import Link, Map
from ollama_sweep.results.page.tables import Table
from ollama_sweep.results.plots import PlotOptions
from ollama_sweep.results.plots.shared import heatmap_data
from ollama_sweep.results.plots.shared.heatmap_data import HeatmapData
from ollama_sweep.results.prices import PriceTable

NOT_TOLD = frozenset({"sweep", "engine", "position"})
"""Columns that all cells of a sweep share, or that only say where a row stands."""


@dataclass(frozen=True)
class Line:
    """A line of the verdict and what it is: `best`, `head`, `note` or `more`."""

    text: str
    kind: str


@dataclass(frozen=True)
class Repeat:
    """How something is done again: what, and the commands."""

    what: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """A picture of its own: `data` is its address, which holds all of it."""

    name: str
    words: str
    data: str


@dataclass(frozen=True)
class SweepView:
    """A sweep on a page. `id` tells its parts apart from those of others, `data` is all of it for machines."""

    id: str
    name: str
    verdict: tuple[Line, ...]
    notices: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    maps: tuple[Map, ...]
    pictures: tuple[Picture, ...]
    tables: tuple[Table, ...]
    repeats: tuple[Repeat, ...]
    data: Mapping[str, object]


def sweep_view(
    number: int, gathered: Gathered, *, pictures: Sequence[Picture] = (), repeats: Sequence[Repeat] = (),
    notes: Sequence[str] = (), prices: PriceTable | None = None,
) -> SweepView:  # fmt: skip
    """Everything a page says of a sweep. Raises nothing for one that is empty, failed or runs now."""
    name = f"s{number}"
    shown, unshown = maps_of(name, gathered)
    return SweepView(
        id=name, name=gathered.row.name, verdict=tuple(verdict(gathered)),
        notices=(*notices(gathered), *unshown, *notes), facts=tuple(facts(gathered)), maps=tuple(shown),
        pictures=tuple(pictures), tables=tuple(tables_of(name, gathered, prices)), repeats=tuple(repeats),
        data=data_of(gathered),
    )  # fmt: skip


# -- in words --------------------------------------------------------------------------------------------------------


def verdict(gathered: Gathered) -> Iterator[Line]:
    """The best cells in the words of `best`, its table left to the page."""
    text = gathered.verdict or describe_best(gathered.cells, None, gathered.spreads, contexts=False)
    for line in text.splitlines():
        kind = "best" if line.startswith(("Best:", "No ")) else "note" if line.startswith("Note: ") else "more"
        yield Line(line.strip(), "head" if line.endswith(":") else kind)


def notices(gathered: Gathered) -> Iterator[str]:
    """That nothing of it was measured here, what stands between it and its end, and what is not shown."""
    if words := replayed_words(gathered.row):
        yield words
    if gathered.scouted is not None:
        yield from gathered.scouted.words.splitlines()
    done = sum(count for status, count in gathered.counts.items() if status.is_final)
    if gathered.writer is not None:
        now = f" Now: {in_words(gathered.running.coordinates.items())}." if gathered.running else ""
        waits = f" It waits: {gathered.writer.note}." if gathered.writer.note else ""
        yield f"The sweep runs: {done} of {gathered.total} cells are done.{now}{waits}"
    elif gathered.goal is not None and gathered.goal.is_reached and done < gathered.total:
        left = f"{gathered.total - done} of {gathered.total} cells are not measured"
        yield f"The goal {gathered.goal.goal.words} is reached; {left}."
    elif done < gathered.total:
        yield f"The sweep is not finished: {done} of {gathered.total} cells are done."
    if not gathered.total:
        yield "The sweep has no cells."
    if gathered.is_large:
        yield (f"{gathered.total:,} cells are more than a page can show one by one (at most {MOST_CELLS:,}): maps show "
               "them in tiles, tables those to look at first, and the tables of tasks are left out.")  # fmt: skip
    yield from (f"{note[:1].upper()}{note[1:]}." for note in gathered.notes)


def facts(gathered: Gathered) -> Iterator[tuple[str, str]]:
    """What was measured, where, when, and how far its numbers differ."""
    row, cells = gathered.row, gathered.cells
    yield "machine", row.machine
    version = gathered.surroundings.get("engine_version")
    yield "engine", f"{row.engine} {version}" if version else row.engine
    models = list(dict.fromkeys(map(model_label, _named(gathered, "model"))))
    yield ("model" if len(models) < 2 else "models"), in_short(models)
    tasks = _named(gathered, "task")
    yield ("task" if len(tasks) < 2 else "tasks"), in_short(tasks)
    yield "cells", ", ".join([f"{gathered.total:,}", *_counted(gathered.counts)])
    times: Sequence[str] = sorted(str(cell.row["finished_at"]) for cell in cells if cell.row.get("finished_at"))
    times = gathered.extent or times
    if times:
        first, last = _minute(times[0]), _minute(times[-1])
        yield "measured", f"{first} to {last} UTC" if first != last else f"{first} UTC"
    for name, one in gathered.spreads.items():
        yield f"spread of {name}", one.words
    if len(gathered.points) > 1:
        about = drift_of(gathered.points, gathered.spreads.get("prompt_eval_rate"))
        flagged = (
            f"{'beyond' if about.is_flagged else 'within'} the ± {about.limit:.1%} from which on cells are flagged"
        )
        yield "drift", f"{about.words} over {len(gathered.points)} control loads, {flagged}"


def _named(gathered: Gathered, name: str) -> list[str]:
    """The models, or the tasks, of all cells."""
    if gathered.sheet is not None:
        return [str(word) for word in gathered.sheet.columns.coded[name].words]
    return list(dict.fromkeys(getattr(cell, name) for cell in gathered.cells))


def _counted(counts: Mapping[Status, int]) -> Iterator[str]:
    for status, count in counts.items():
        yield f"{count:,} {status}"


def _minute(text: str) -> str:
    return text[:16].replace("T", " ")


# -- maps, tables, data ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """How maps are looked at: a metric over two dimensions; None is what each task is about. `predicts`: also what
    pending cells are likely to be.
    """

    metric: str | None = None
    x: str = X
    y: str = Y
    predicts: bool = False


BY_ITSELF = Look()


def maps_of(
    name: str, gathered: Gathered, look: Look = BY_ITSELF, link: Link | None = None, *,
    drawn: Sequence[tuple[HeatmapData, Grid]] | None = None,
) -> tuple[list[Map], list[str]]:  # fmt: skip
    """The maps, and what is said of those that are left out. Raises ConfigError for a metric that no cell has."""
    if gathered.sheet is not None:
        made, count = gathered.tiled
        return [replace(one, id=f"{name}-map{at}").map() for at, one in enumerate(made)], left_out(count)
    drawn = drawn_of(gathered, look) if drawn is None else drawn
    found = [maps.of_cells(f"{name}-map{at}", *one, link) for at, one in enumerate(drawn[:MOST_MAPS])]
    return found, left_out(len(drawn))


def drawn_of(gathered: Gathered, look: Look = BY_ITSELF) -> list[tuple[HeatmapData, Grid]]:
    """What the maps are made of, one for each combination of the other dimensions. Raises ConfigError as above."""
    grids = make_grids(gathered.cells, look.x, look.y)
    if not grids:
        return []
    return list(
        zip(heatmap_data.collect(gathered.cells, options_of(gathered, look), look.x, look.y), grids, strict=True)
    )


def options_of(gathered: Gathered, look: Look = BY_ITSELF) -> PlotOptions:
    """What pictures of the sweep say beside its cells."""
    tokens = gathered.row.spec.get("prompt_tokens")
    return PlotOptions(
        sweep=gathered.row.name, machine=gathered.row.machine, spreads=gathered.spreads,
        prompt_tokens=tokens if isinstance(tokens, int) and tokens else None, metric=look.metric,
        predicts=look.predicts or bool(gathered.row.spec.get("goal")), scouted=gathered.scouted,
    )  # fmt: skip


def left_out(count: int) -> list[str]:
    """What is said of maps that are more than a page shows."""
    more = count - MOST_MAPS
    return [f"{more} of {count} maps are left out: the table of cells has theirs."] if more > 0 else []


def tables_of(
    name: str, gathered: Gathered, prices: PriceTable | None = None, *, cells: bool = True
) -> Iterator[Table]:
    """All tables, the one of every cell at the end; without `cells` a page has that one otherwise."""
    if not gathered.is_large:
        yield from tables.best_tables(name, gathered.cells)
        yield from tables.group_tables(name, make_groups(gathered.answers, gathered.cells, prices))
    found = (tables.lane_table(name, gathered), tables.failure_table(name, gathered), tables.flag_table(name, gathered))
    yield from (one for one in found if one is not None)
    yield tables.spread_table(name, gathered.spreads)
    yield tables.surroundings_table(name, gathered)
    yield tables.settings_table(name, gathered)
    if cells:
        yield tables.cell_table(name, gathered)


def data_of(gathered: Gathered) -> dict[str, object]:
    """All of it for machines: settings, surroundings, spreads, the best cells, and the cells as columns and rows."""
    row, cells = gathered.row, gathered.cells
    rows = long_rows(cells)
    names = [name for name in dict.fromkeys(name for one in rows for name in one)
             if name not in NOT_TOLD and any(one.get(name) is not None for one in rows)]  # fmt: skip
    return {
        "sweep": row.name, "engine": row.engine, "machine": row.machine, "dimensions": list(row.dimensions),
        "created_at": row.created_at, "last_run_at": row.last_run_at, "settings": dict(row.spec),
        "surroundings": dict(gathered.surroundings),
        "counts": {str(status): count for status, count in gathered.counts.items()},
        "spreads": {name: one.as_dict() for name, one in gathered.spreads.items()},
        "controls": [[point.at_s, point.rate] for point in gathered.points],
        **({"scouted": gathered.scouted.as_dict()} if gathered.scouted else {}),
        "best": None if gathered.is_large else best_cells(cells, None, gathered.spreads).as_dict(),
        "cells_shown": len(cells), "cells_total": gathered.total,
        "columns": names, "cells": [[_rounded(one.get(name)) for name in names] for one in rows],
    }  # fmt: skip


def _rounded(value: Scalar) -> Scalar:
    """Nine digits are more than anything here is measured with, and half of what a page would hold."""
    return float(f"{value:.9g}") if isinstance(value, float) else value
