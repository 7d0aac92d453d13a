"""What each model's answers came to, said when its cells are done, with its line in `results/benchmark_log.csv`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ollama_sweep.errors import SweepError
from ollama_sweep.events import CellStarted, Event

FOLDER = Path("results")


class ModelSummaries:
    """Listens to a sweep whose models are a dimension: they are its outer loop, so a new one ends the one before."""

    def __init__(self, db: Path, name: str, say: Callable[[str], None]) -> None:
        self._db, self._name, self._say = db, name, say
        self._model = ""

    def __call__(self, event: Event) -> None:
        if not isinstance(event, CellStarted):
            return
        model = str(dict(event.cell.coordinates).get("model") or "")
        if self._model and model != self._model:
            self._say_of(self._model)
        self._model = model

    def _say_of(self, model: str) -> None:
        try:
            lines = summaries(self._db, self._name, model)
        except SweepError as error:
            lines = [f"Warning: no summary of {model}: {error}"]
        for line in lines:
            self._say(line)


def summaries(db: Path, name: str, model: str = "") -> list[str]:
    """A line for each task of a model ("": of every one), whose numbers are appended to the log as well.

    Empty where no question was asked. Raises ConfigError, StorageError.
    """
    from ollama_sweep.report.saving import append_logs
    from ollama_sweep.report.task_stats import make_groups
    from ollama_sweep.report.task_words import summary_lines
    from ollama_sweep.store.reader import Reader

    with Reader.open(db) as reader:
        sweep_id = reader.sweep(name).sweep_id
        rows = list(reader.answers(sweep_id))
        results = list(reader.results(sweep_id)) if rows else []
    if model:
        rows = [row for row in rows if row.coordinates.get("model") == model]
        results = [result for result in results if result.coordinates.get("model") == model]
    if not rows:
        return []
    written = append_logs([group for group in make_groups(rows, results) if group.rows], FOLDER)
    return [*summary_lines(rows, results), f"Log: {', '.join(map(str, written))}"]
