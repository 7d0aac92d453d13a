"""The mean durations of each model's answers: latency, total, reading the prompt, generating."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ollama_sweep.core.outcome import AnswerRow
from ollama_sweep.core.stats import mean
from ollama_sweep.core.summary import answered
from ollama_sweep.core.units import format_rate
from ollama_sweep.results.answers import MEASURES, by_model, pooled_by_model, values
from ollama_sweep.results.plots import ANSWERS, PlotOptions
from ollama_sweep.results.plots.shared import bar_chart
from ollama_sweep.results.plots.shared.bar_chart import Bar, BarsData

TAKES = ANSWERS
USES: frozenset[str] = frozenset()
NAME = "avg_by_model_durations"
KINDS = ("latency_s", "total_duration_s", "prompt_eval_duration_s", "eval_duration_s")


def collect(rows: Sequence[AnswerRow], options: PlotOptions) -> list[BarsData]:
    """What the picture shows. A mean is that of the answers that have the number; failed ones have none."""
    kinds = {name: MEASURES[name].words for name in KINDS}
    good = answered(rows)
    tasks = [task for task in dict.fromkeys(row.task for row in good) if task]
    facts = bar_chart.facts_of(
        (
            f"{len(good)} answer{'' if len(good) == 1 else 's'}",
            f"{len(rows) - len(good)} failed, in no mean" if len(rows) > len(good) else "",
            pooled_by_model(good),
            f"sweep {options.sweep}" if options.sweep else "",
            f"task{'s' if len(tasks) > 1 else ''} {', '.join(tasks)}" if tasks else "",
            options.machine,
        )
    )
    return [
        BarsData(
            title="Mean durations of each model (lower is better)",
            facts=facts,
            axis="Mean duration (s)",
            kinds=tuple(kinds.values()),
            groups={label: _bars_of(members, kinds) for label, members in by_model(rows).items()},
            missing="not known",
            notice="" if good else f"no answers: {len(rows)} failed" if rows else "no answers yet",
        )
    ]


def draw(data: BarsData, axes: Any) -> None:
    """Draw the bars into matplotlib's axes."""
    bar_chart.draw(data, axes)


def save_all(rows: Sequence[AnswerRow], options: PlotOptions, folder: Path, *, suffix: str = ".png") -> list[Path]:
    """Write the picture into a folder; its path. Raises StorageError."""
    (data,) = collect(rows, options)
    return bar_chart.save(data, folder / f"{NAME}{suffix}")


def _bars_of(rows: Sequence[AnswerRow], kinds: dict[str, str]) -> dict[str, Bar]:
    found = {words: values(rows, name) for name, words in kinds.items()}
    return {
        words: Bar(mean(numbers), f"{format_rate(mean(numbers))} s  (n = {len(numbers)})")
        for words, numbers in found.items()
        if numbers
    }
