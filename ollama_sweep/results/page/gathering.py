"""What a page needs of the database, read at once: nothing here is shown yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ollama_sweep.core.noise.drift import Point
from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.core.outcome import CellResult, Status
from ollama_sweep.results.likely.scouted import ScoutedMap, scouted_map
from ollama_sweep.results.pictures import is_many

if TYPE_CHECKING:
    from ollama_sweep.core.outcome import AnswerRow
    from ollama_sweep.results.large.columns import Part
    from ollama_sweep.store.goals.keeping import KeptGoal
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import FailedAttempt, Holder, RunningAttempt, SweepRow

MOST_CELLS = 2500
"""A sweep of more cells is shown in tiles: so many a browser draws at once, each with its words."""
REMARKABLE, MOST_ERRORS = 100, 50


@dataclass(frozen=True)
class Gathered:
    """A sweep. `cells` are all of them, in order; of a sweep of very many those to look at first, and then `parts` has
    its maps and `verdict` its best cells in words.
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
    parts: Sequence[Part] = ()
    scouted: ScoutedMap | None = None
    goal: KeptGoal | None = None

    @property
    def is_large(self) -> bool:
        """Not every cell is here."""
        return bool(self.parts)

    @property
    def total(self) -> int:
        """All cells of the plan."""
        return sum(self.counts.values())


def gather(reader: Reader, row: SweepRow) -> Gathered:
    """All that is shown of a sweep; inside a snapshot it is of one moment."""
    counts = reader.counts(row.sweep_id)
    writer, last = reader.writer(), reader.last_sweep()
    is_measured = writer is not None and last is not None and last.sweep_id == row.sweep_id
    large = is_many(counts, MOST_CELLS)
    verdict, parts = _large(reader, row) if large else ("", ())
    cells = reader.remarkable(row.sweep_id, REMARKABLE) if large else list(reader.results(row.sweep_id))
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
        verdict=verdict,
        parts=parts,
        scouted=scouted_map(reader, row),
        goal=reader.goal(row.sweep_id),
    )


def _large(reader: Reader, row: SweepRow) -> tuple[str, tuple[Part, ...]]:
    """The verdict and the maps of a sweep of very many cells, never with a row for each in memory."""
    from ollama_sweep.results.large import columns

    found = columns.read(reader, row)
    return columns.describe(found).text, tuple(columns.parts_of(found, row.machine))


def _notes(reader: Reader, row: SweepRow, cells: Sequence[CellResult]) -> list[str]:
    """What a person should know of these numbers."""
    from ollama_sweep.results.outliers import outlying_note, outlying_runs
    from ollama_sweep.store import beside

    missing = reader.missing_cells()
    rates = reader.rates(row.sweep_id) if cells else {}
    return [*([beside.missing_words(missing)] if missing else []), *outlying_note(outlying_runs(cells, rates))]
