"""What each model's answers came to, said when its cells are done, with its line in `results/benchmark_log.csv`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ollama_sweep.core.errors import SweepError
from ollama_sweep.core.events import CellFinished, Event

if TYPE_CHECKING:
    from ollama_sweep.core.outcome import CellResult
    from ollama_sweep.store.rows import SweepRow

FOLDER = Path("results")


class ModelSummaries:
    """Listens to a sweep whose models are a dimension: one whose last cell has ended is summed up while others go on.

    The models that are done at the end are those of `summaries`. Which cells are open is asked once, after the first
    answers, and counted from then on, so that it costs nothing with each cell.
    """

    def __init__(self, db: Path, name: str, say: Callable[[str], None]) -> None:
        self._db, self._name, self._say = db, name, say
        self._open: Counter[str] | None = None

    def __call__(self, event: Event) -> None:
        if not isinstance(event, CellFinished) or "model" not in dict(event.cell.coordinates):
            return
        if self._open is None:
            if not any(run.answer for run in event.outcome.runs):
                return
            self._open = self._count()
        elif event.outcome.status.counts and not event.will_retry:
            self._open[event.cell.model] -= 1
        if self._open[event.cell.model] == 0 and any(count > 0 for count in self._open.values()):
            self._say_of(event.cell.model)

    def _count(self) -> Counter[str]:
        """How many cells of each model are still to be measured."""
        from ollama_sweep.store.reader import Reader

        try:
            with Reader.open(self._db) as reader:
                results = list(reader.results(reader.sweep(self._name).sweep_id))
        except SweepError:
            return Counter()
        return Counter({result.key: result.model for result in results if not result.status.is_final}.values())

    def _say_of(self, model: str) -> None:
        try:
            lines = summaries(self._db, self._name, model)
        except SweepError as error:
            lines = [f"Warning: no summary of {model}: {error}"]
        for line in lines:
            self._say(line)


def summaries(db: Path, name: str, model: str = "") -> list[str]:
    """A line for each task of a model ("": of every one); those of models whose cells are all done go to the log.

    Empty where no question was asked. Raises ConfigError, StorageError.
    """
    from ollama_sweep.results.groups import make_groups
    from ollama_sweep.results.saving import append_logs
    from ollama_sweep.results.words import summary_lines
    from ollama_sweep.store.reader import Reader

    with Reader.open(db) as reader:
        sweep = reader.sweep(name)
        rows = list(reader.answers(sweep.sweep_id))
        results = list(reader.results(sweep.sweep_id)) if rows else []
    models = {result.key: result.model for result in results}
    if model:
        rows = [row for row in rows if models[row.cell] == model]
        results = [result for result in results if result.model == model]
    unfinished = _unfinished(results)
    done = [row for row in rows if models[row.cell] not in unfinished]
    groups = [group for group in make_groups(done, results) if group.rows]
    written = append_logs(groups, FOLDER, in_folders=_asks_several(sweep))
    return [*summary_lines(rows, results), *([f"Log: {', '.join(map(str, written))}"] if written else [])]


def _unfinished(results: Sequence[CellResult]) -> set[str]:
    """The models that have cells still to be measured."""
    return {result.model for result in results if not result.status.is_final}


def _asks_several(sweep: SweepRow) -> bool:
    """Several tasks of the sweep have questions, so each has a folder of its own from the first line on."""
    rounds = sweep.spec.get("rounds")
    return isinstance(rounds, dict) and len(rounds) > 1
