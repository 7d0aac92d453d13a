"""What a sweep leaves when its session ends: the best cells in words and tables first, then pictures.

Pictures are drawn by a child that whoever asks the sweep to stop ends, and that can cost nothing but itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.errors import SweepError
from ollama_sweep.core.outcome import CellResult
from ollama_sweep.run.stopping import Stopping
from ollama_sweep.run.summaries import summaries
from ollama_sweep.store.rows import SweepRow

SHOWN_CONTEXTS = 8
DRAWING_S, STOPPED_S, HURRIED_S = 300.0, 30.0, 10.0
"""The longest that a sweep waits for its pictures; that was told to stop; that was told to stop now."""


@dataclass(frozen=True)
class Ending:
    """`best` is a text of several lines; `doubtful` counts cells that failed or carry a flag."""

    best: str
    summaries: tuple[str, ...]
    doubtful: int
    row: SweepRow
    results: Sequence[CellResult]


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
    from ollama_sweep.store.reader import Reader

    with Reader.open(db) as reader:
        row = reader.sweep(name)
        results = list(reader.results(row.sweep_id))
    contexts = {result.coordinates.get("num_ctx") for result in results}
    best = describe_best(results, contexts=len(contexts) <= SHOWN_CONTEXTS)
    doubtful = sum(result.status.is_failure or bool(result.flags) for result in results)
    return Ending(best, tuple(_summaries(db, name)), doubtful, row, results)


def files_of(end: Ending, out: Path, stopping: Stopping, is_stopped: Callable[[], bool]) -> Files:
    """Write the tables and draw the pictures of a sweep into the folder; what fails costs itself only.

    `is_stopped`: whether the drawing shall end, asked again and again.
    """
    from ollama_sweep.results.pictures import folder_of, save_tables

    reached("before_pictures")
    tables: list[Path] = []
    failures = []
    try:
        target = folder_of(end.row, out)
    except SweepError as error:
        return Files((), (), (str(error),))
    try:
        tables = save_tables(end.results, target)
    except SweepError as error:
        failures.append(str(error))
    drawn = _drawn(end, target, stopping, is_stopped)
    return Files(drawn.pictures, tuple(tables), (*failures, *drawn.failures), drawn.is_cut)


def _drawn(end: Ending, target: Path, stopping: Stopping, is_stopped: Callable[[], bool]) -> Files:
    from ollama_sweep.machine import process

    def draw(tell: Callable[[str], None]) -> None:
        from ollama_sweep.results.pictures import draw_each

        for one in draw_each(end.row, end.results, target):
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
