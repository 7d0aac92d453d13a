"""The mean score of each model, with the interval in which the true mean lies; a bar for each task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ollama_sweep.core.metrics import metric
from ollama_sweep.core.outcome import AnswerRow
from ollama_sweep.core.summary import answered, score_interval, score_mean
from ollama_sweep.core.units import format_rate
from ollama_sweep.results.answers import by_model, pooled_by_model, values
from ollama_sweep.results.plots import ANSWERS, PlotOptions
from ollama_sweep.results.plots.shared import bar_chart
from ollama_sweep.results.plots.shared.bar_chart import Bar, BarsData

TAKES = ANSWERS
USES: frozenset[str] = frozenset()
NAME = "avg_by_model_score"


def collect(rows: Sequence[AnswerRow], options: PlotOptions) -> list[BarsData]:
    """What the picture shows. Failed answers have no score and are counted apart."""
    tasks = tuple(task for task in dict.fromkeys(row.task for row in rows) if values(_of(rows, task), "score"))
    groups = {name: _bars_of(members, tasks) for name, members in by_model(rows).items()}
    scored = len(values(rows, "score"))
    failed = sum(bool(row.answer.failure) for row in rows)
    facts = bar_chart.facts_of(
        (
            f"{scored} scored answer{'' if scored == 1 else 's'}",
            f"{failed} failed, in no mean" if failed else "",
            f"{len(rows) - failed - scored} without a score" if len(rows) > failed + scored else "",
            pooled_by_model(answered(rows)),
            "lines: where the true mean lies with 95 %" if _has_interval(groups) else "",
            f"sweep {options.sweep}" if options.sweep else "",
            f"task {tasks[0]}" if len(tasks) == 1 and tasks[0] else "",
            options.machine,
        )
    )
    highest = max((bar.value for bars in groups.values() for bar in bars.values()), default=0.0)
    return [
        BarsData(
            title=f"Mean score of each model ({metric('score').direction})",
            facts=facts,
            axis="Mean score",
            kinds=tasks or ("",),
            groups=groups,
            missing="no score",
            notice="" if scored else _notice(len(rows), failed),
            limit=1.0 if highest <= 1 else None,
        )
    ]


def draw(data: BarsData, axes: Any) -> None:
    """Draw the bars into matplotlib's axes."""
    bar_chart.draw(data, axes)


def save_all(rows: Sequence[AnswerRow], options: PlotOptions, folder: Path, *, suffix: str = ".png") -> list[Path]:
    """Write the picture into a folder; its path. Raises StorageError."""
    (data,) = collect(rows, options)
    return bar_chart.save(data, folder / f"{NAME}{suffix}")


def _of(rows: Sequence[AnswerRow], task: str) -> list[AnswerRow]:
    return [row for row in rows if row.task == task]


def _bars_of(rows: Sequence[AnswerRow], tasks: Sequence[str]) -> dict[str, Bar]:
    bars = {}
    for task in tasks:
        own = _of(rows, task)
        middle = score_mean(own)
        if middle is not None:
            bars[task] = Bar(middle, f"{format_rate(middle)}  (n = {_counted(own)})", score_interval(own))
    return bars


def _counted(rows: Sequence[AnswerRow]) -> str:
    """How many answers, and of how many questions where some were asked several times."""
    scored = [row for row in rows if values([row], "score")]
    questions = len({row.answer.item for row in scored})
    return f"{len(scored)}" if questions == len(scored) else f"{len(scored)} of {questions} questions"


def _has_interval(groups: dict[str, dict[str, Bar]]) -> bool:
    return any(bar.interval for bars in groups.values() for bar in bars.values())


def _notice(rows: int, failed: int) -> str:
    if rows and failed == rows:
        return f"no answers: {failed} failed"
    return "no answer has a score" if rows else "no answers yet"
