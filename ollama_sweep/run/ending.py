"""What a sweep leaves when its session ends: the best cells in words and tables first, then pictures.

Pictures are drawn by a child that whoever asks the sweep to stop ends, and that can cost nothing but itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.errors import SweepError
from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.core.outcome import CellResult, Flag
from ollama_sweep.run.stopping import Stopping
from ollama_sweep.run.words.summaries import summaries
from ollama_sweep.store.rows import SweepRow

if TYPE_CHECKING:
    from ollama_sweep.results.large.columns import Part
    from ollama_sweep.results.likely.scouted import ScoutedMap
    from ollama_sweep.store.reader import Reader

SHOWN_CONTEXTS = 8
DRAWING_S, STOPPED_S, HURRIED_S = 300.0, 30.0, 10.0
"""The longest that a sweep waits for its pictures; that was told to stop; that was told to stop now."""


@dataclass(frozen=True)
class Ending:
    """`best` is a text of several lines; `doubtful` counts cells that failed or carry a flag.

    `parts` are in place of `results` where there are very many cells.
    """

    best: str
    summaries: tuple[str, ...]
    doubtful: int
    row: SweepRow
    results: Sequence[CellResult]
    parts: Sequence[Part] | None = None
    spreads: Mapping[str, Spreads] | None = None
    scouted: ScoutedMap | None = None


@dataclass(frozen=True)
class Files:
    """What was written, pictures first, and what could not be, in words. `is_cut`: the person did not want to wait."""

    pictures: tuple[Path, ...]
    tables: tuple[Path, ...]
    failures: tuple[str, ...] = ()
    is_cut: bool = False


def end_of(db: Path, name: str) -> Ending:
    """What came of a sweep. Raises ConfigError, StorageError."""
    from ollama_sweep.results.best import describe_best
    from ollama_sweep.results.grids import length_of
    from ollama_sweep.results.likely.scouted import scouted_map, told
    from ollama_sweep.results.pictures import is_many
    from ollama_sweep.store.reader import Reader

    with Reader.open(db) as reader:
        row = reader.sweep(name)
        if is_many(reader.counts(row.sweep_id)):
            return _end_of_many(reader, row, db)
        results, spreads = list(reader.results(row.sweep_id)), reader.spreads(row.sweep_id)
        scouted = scouted_map(reader, row)
    contexts = {(result.coordinates.get("num_ctx"), length_of(result)) for result in results}
    best = describe_best(results, spreads=spreads, contexts=len(contexts) <= SHOWN_CONTEXTS)
    best = told(best, row, scouted)
    doubtful = sum(result.status.is_failure or bool(result.flags - {Flag.REUSED}) for result in results)
    return Ending(best, tuple(_summaries(db, name)), doubtful, row, results, spreads=spreads, scouted=scouted)


def _end_of_many(reader: Reader, row: SweepRow, db: Path) -> Ending:
    from ollama_sweep.results.large import columns, verdict

    found = columns.read(reader, row)
    told = verdict.describe(found)
    parts = list(columns.parts_of(found, row.machine))
    return Ending(told.text, tuple(_summaries(db, row.name)), told.doubtful, row, (), parts)


def files_of(end: Ending, db: Path, out: Path, stopping: Stopping, is_stopped: Callable[[], bool]) -> Files:
    """Write the tables and draw the pictures of a sweep into the folder; what fails costs itself only.

    `is_stopped`: whether the drawing shall end, asked again and again.
    """
    from ollama_sweep.results.large import files as large
    from ollama_sweep.results.pictures import folder_of

    reached("before_pictures")
    tables: list[Path] = []
    failures = []
    try:
        target = folder_of(end.row, out)
    except SweepError as error:
        return Files((), (), (str(error),))
    try:
        tables = _tables(end, db, target, is_stopped)
    except large.Stopped:
        return Files((), (), (), is_cut=True)
    except SweepError as error:
        failures.append(str(error))
    drawn = _drawn(end, target, stopping, is_stopped)
    return Files(drawn.pictures, tuple(tables), (*failures, *drawn.failures), drawn.is_cut)


def _tables(end: Ending, db: Path, target: Path, is_stopped: Callable[[], bool]) -> list[Path]:
    from ollama_sweep.results.large import files as large
    from ollama_sweep.results.pictures import save_tables
    from ollama_sweep.store.reader import Reader

    if end.parts is None:
        return save_tables(end.results, target)
    with Reader.open(db) as reader:
        return large.save_tables(reader, end.row, end.parts, target, is_stopped)


def _drawn(end: Ending, target: Path, stopping: Stopping, is_stopped: Callable[[], bool]) -> Files:
    from ollama_sweep.machine import process

    def draw(tell: Callable[[str], None]) -> None:
        from ollama_sweep.results.large import files as large
        from ollama_sweep.results.pictures import draw_each

        each = (
            draw_each(end.row, end.results, target, spreads=end.spreads, scouted=end.scouted)
            if end.parts is None
            else large.draw_each(end.parts, target)
        )
        for one in each:
            tell(json.dumps(["failed" if isinstance(one, SweepError) else "drawn", str(one)]))

    if stopping.wants_no_pictures:
        return Files((), (), (), is_cut=True)
    limit_s = HURRIED_S if stopping.now else STOPPED_S if stopping.requested else DRAWING_S
    try:
        done = process.run_apart(draw, timeout_s=limit_s, is_cut=is_stopped, started=lambda: reached("in_picture"))
    except OSError as error:
        return Files((), (), (f"no process for them ({error.strerror or error})",))
    said = [_heard(line) for line in done.lines]
    failures = [text for what, text in said if what != "drawn"]
    if done.failure and not done.is_cut and "" not in [what for what, _ in said]:
        failures.append(done.failure)
    return Files(tuple(Path(text) for what, text in said if what == "drawn"), (), tuple(failures), done.is_cut)


def _heard(line: str) -> tuple[str, str]:
    """("drawn", its path), ("failed", why), ("", what ended the child)."""
    if not line.startswith("["):
        return "", line
    what, text = json.loads(line)
    return str(what), str(text)


def _summaries(db: Path, name: str) -> list[str]:
    """What the answers of each model came to; a log that cannot be written costs nothing else."""
    try:
        return summaries(db, name)
    except SweepError as error:
        return [f"Warning: {error}"]
