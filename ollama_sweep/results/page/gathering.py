"""What a page needs of the database, read at once: nothing here is shown yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ollama_sweep.core.lanes.factors import LaneFactor, factors
from ollama_sweep.core.noise.drift import Point
from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.core.outcome import CellResult, Status
from ollama_sweep.results.likely.scouted import ScoutedMap, scouted_map
from ollama_sweep.results.pictures import is_many

if TYPE_CHECKING:
    from ollama_sweep.core.outcome import AnswerRow
    from ollama_sweep.results.large.sheet import Sheet
    from ollama_sweep.results.page.tiles import Tiled
    from ollama_sweep.store.goals.keeping import KeptGoal
    from ollama_sweep.store.lanes.keeping import LaneRow
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import FailedAttempt, Holder, RunningAttempt, SweepRow

MOST_MAPS = 40
MOST_CELLS = 2500
"""A sweep of more cells is shown in tiles: so many a browser draws at once, each with its words."""
REMARKABLE, MOST_ERRORS = 100, 50


@dataclass(frozen=True)
class Gathered:
    """A sweep. `cells` are all of them, in order; of a sweep of very many those to look at first, and then `sheet` has
    all of them, `verdict` its best cells in words, and `extent` is when the first and the last of them ended.
    """

    row: SweepRow
    counts: Mapping[Status, int]
    cells: Sequence[CellResult]
    answers: Sequence[AnswerRow]
    spreads: Mapping[str, Spreads]
    surroundings: Mapping[str, object]
    points: Sequence[Point]
    errors: Sequence[FailedAttempt]
    writer: Holder | None
    running: RunningAttempt | None
    notes: Sequence[str]
    verdict: str = ""
    sheet: Sheet | None = None
    tiled: tuple[Sequence[Tiled], int] = ((), 0)
    """The maps of very many cells, as far as they are shown, and how many there are."""
    extent: tuple[str, str] | None = None
    scouted: ScoutedMap | None = None
    goal: KeptGoal | None = None
    lanes: Sequence[LaneRow] = ()
    factors: Mapping[str, LaneFactor] = field(default_factory=dict)

    @property
    def is_large(self) -> bool:
        """Not every cell is here."""
        return self.sheet is not None

    @property
    def total(self) -> int:
        """All cells of the plan."""
        return sum(self.counts.values())


def gather(reader: Reader, row: SweepRow, sheet: Sheet | None = None) -> Gathered:
    """All that is shown of a sweep; inside a snapshot it is of one moment.

    Who gives a sheet of very many cells makes its maps as well.
    """
    counts = reader.counts(row.sweep_id)
    writer, last = reader.writer(), reader.last_sweep()
    is_measured = writer is not None and last is not None and last.sweep_id == row.sweep_id
    large = is_many(counts, MOST_CELLS)
    tiled: tuple[Sequence[Tiled], int] = ((), 0)
    if large and sheet is None:
        sheet, tiled = _read(reader, row)
    cells = list(reader.results(row.sweep_id)) if not large or sheet is None else _remarkable(reader, sheet)
    return Gathered(
        row=row,
        counts=counts,
        cells=cells,
        answers=() if large else tuple(reader.answers(row.sweep_id)),
        spreads=reader.spreads(row.sweep_id),
        surroundings=reader.segment(row.sweep_id) or {},
        points=tuple(reader.control_points(row.sweep_id)),
        errors=tuple(reader.errors(row.sweep_id, MOST_ERRORS)),
        writer=writer if is_measured else None,
        running=reader.running(row.sweep_id) if is_measured else None,
        notes=tuple(_notes(reader, row, () if large else cells)),
        verdict="" if not large or sheet is None else _verdict(reader, sheet),
        sheet=sheet if large else None,
        tiled=tiled,
        extent=reader.extent(row.sweep_id) if large else None,
        scouted=scouted_map(reader, row),
        goal=reader.goal(row.sweep_id),
        lanes=reader.lanes(row.sweep_id),
        factors=factors(reader.control_rates(row.sweep_id)),
    )


def _read(reader: Reader, row: SweepRow) -> tuple[Sheet, tuple[Sequence[Tiled], int]]:
    from ollama_sweep.results.large import sheet
    from ollama_sweep.results.page import tiles

    made = sheet.read(reader, row)
    return made, tiles.of_columns("", made.of_metric(reader, None), row.machine, most_maps=MOST_MAPS)


def _remarkable(reader: Reader, sheet: Sheet) -> list[CellResult]:
    from ollama_sweep.results.large import counted

    return sheet.once("remarkable", lambda: counted.remarkable(reader, sheet, REMARKABLE))


def _verdict(reader: Reader, sheet: Sheet) -> str:
    """The best cells in the words of `best`, of all of them."""
    from ollama_sweep.results.large import verdict

    return sheet.once("verdict", lambda: verdict.describe(sheet.of_metric(reader, None)).text)


def _notes(reader: Reader, row: SweepRow, cells: Sequence[CellResult]) -> list[str]:
    """What a person should know of these numbers."""
    from ollama_sweep.results.outliers import outlying_note, outlying_runs
    from ollama_sweep.store import beside

    missing = reader.missing_cells()
    rates = reader.rates(row.sweep_id) if cells else {}
    lanes = reader.disturbance(row.sweep_id)
    told = [lanes.sentence] if lanes is not None else []
    return [*told, *([beside.missing_words(missing)] if missing else []), *outlying_note(outlying_runs(cells, rates))]
