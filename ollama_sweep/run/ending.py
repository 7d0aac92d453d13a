"""What a sweep leaves when its session ends: pictures, tables, the best cells in words, a line in the logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.errors import SweepError
from ollama_sweep.run.summaries import summaries

SHOWN_CONTEXTS = 8


@dataclass(frozen=True)
class Ending:
    """`best` is a text of several lines; `doubtful` counts cells that failed or carry a flag; pictures come first."""

    best: str
    summaries: tuple[str, ...]
    doubtful: int
    files: tuple[Path, ...]


def end_of(db: Path, name: str, out: Path) -> Ending:
    """Draw a sweep into the folder and say what came of it. Raises ConfigError, StorageError."""
    from ollama_sweep.results.best import describe_best
    from ollama_sweep.results.pictures import draw_sweep
    from ollama_sweep.store.reader import Reader

    reached("before_pictures")
    with Reader.open(db) as reader:
        row = reader.sweep(name)
        results = list(reader.results(row.sweep_id))
    files = draw_sweep(row, results, out)
    contexts = {result.coordinates.get("num_ctx") for result in results}
    best = describe_best(results, contexts=len(contexts) <= SHOWN_CONTEXTS)
    doubtful = sum(result.status.is_failure or bool(result.flags) for result in results)
    return Ending(best, tuple(_summaries(db, name)), doubtful, tuple(files))


def _summaries(db: Path, name: str) -> list[str]:
    """What the answers of each model came to; a log that cannot be written costs nothing else."""
    try:
        return summaries(db, name)
    except SweepError as error:
        return [f"Warning: {error}"]
