"""What the tasks of sweeps say per model: groups, what is expensive, routing, drift, and the files people know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.machine.device_report import device_info
from ollama_sweep.results import analysis, hardware, routing, saving, task_files
from ollama_sweep.results.answers import cost
from ollama_sweep.results.find import find_sweep
from ollama_sweep.results.groups import PERCENTILE_METHOD, make_groups
from ollama_sweep.results.outliers import outlying_note, outlying_runs
from ollama_sweep.store.reader import Reader

if TYPE_CHECKING:
    from ollama_sweep.core.outcome import AnswerRow
    from ollama_sweep.results.analysis import Analysis
    from ollama_sweep.results.groups import Group
    from ollama_sweep.results.outliers import Outlying
    from ollama_sweep.results.prices import PriceTable
    from ollama_sweep.results.routing import Expensive, Routing
    from ollama_sweep.store.rows import Holder, SweepRow

    Analyse = Callable[[Sequence[Group], SweepRow, Holder | None], Analysis]
    """Compares the groups by a model; the sweep says on what it may run, the holder whether one is measuring now."""

MOST_DRIFTS = 100_000


@dataclass(frozen=True)
class Report:
    """What the tasks of some sweeps say per model."""

    sweeps: tuple[SweepRow, ...]
    groups: tuple[Group, ...]
    unit: str
    regions: Mapping[str, Sequence[Expensive]]
    routing: tuple[Routing, ...]
    outlying: tuple[Outlying, ...]
    drifts: Mapping[str, Sequence[float]]
    spreads: Mapping[str, Mapping[str, Spreads]]
    notes: tuple[str, ...]
    analysis: Analysis | None = None
    files: tuple[Path, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        analysis = self.analysis
        return {
            "sweeps": [{"sweep": row.name, "engine": row.engine, "machine": row.machine} for row in self.sweeps],
            "percentile_method": PERCENTILE_METHOD,
            "groups": [group.as_dict() for group in self.groups],
            "expensive_regions": {
                "of": "latency_s" if self.unit == "s" else "cost",
                "unit": self.unit,
                "by_task": {task: [region.as_dict() for region in found] for task, found in self.regions.items()},
            },
            "routing": [hint.as_dict() for hint in self.routing],
            "drift": {
                sweep: {"measurements": len(drifts), "last": drifts[0], "lowest": min(drifts), "highest": max(drifts)}
                for sweep, drifts in self.drifts.items()
            },
            "spreads": {
                sweep: {name: one.as_dict() for name, one in by_metric.items()}
                for sweep, by_metric in self.spreads.items()
            },
            "outlying_runs": [run.as_dict() for run in self.outlying],
            "analysis": {
                "model": analysis.model,
                "readable": analysis.readable,
                "structured": analysis.structured,
                "note": analysis.note or None,
            }
            if analysis
            else None,
            "notes": list(self.notes),
            "files": [str(path) for path in self.files],
        }


def collect(
    configs: Sequence[str],
    db: Path,
    *,
    prices: PriceTable | None = None,
    out: Path | None = None,
    analyse: Analyse | None = None,
) -> Report:
    """Read, calculate and, where it is asked for, let a model compare. Raises ConfigError before anything is made.

    Without `configs` it is the sweep that ran last; `out` is where the files shall be written.
    """
    with Reader.open(db) as reader, reader.snapshot():
        sweeps = [find_sweep(reader, config) for config in (configs or (None,))]
        sweeps = list({row.sweep_id: row for row in sweeps}.values())
        rows = [answer for row in sweeps for answer in reader.answers(row.sweep_id)]
        results = [cell for row in sweeps for cell in reader.results(row.sweep_id)]
        rates = {key: found for row in sweeps for key, found in reader.rates(row.sweep_id).items()}
        drifts = {row.name: [drift for _, drift in reader.drifts(row.sweep_id, MOST_DRIFTS)] for row in sweeps}
        spreads = {row.name: reader.spreads(row.sweep_id) for row in sweeps}
        writer = reader.writer()
    groups = make_groups(rows, results, prices)
    names = " and ".join(row.name for row in sweeps)
    if not groups:
        raise ConfigError(
            f"sweep {names} has no measured cell yet. Start with: ollama-sweep run {sweeps[0].config_path}"
        )
    if out is not None:
        saving.check_folder(out)
        if not rows:
            raise ConfigError(f"sweep {names} has kept no answers; its files are those of export and heatmap", "--out")
    comparison = analyse(groups, sweeps[0], writer) if analyse else None
    found = _calculated(sweeps, groups, prices, outlying_runs(results, rates))
    measured = {sweep: values for sweep, values in drifts.items() if values}
    return replace(found, drifts=measured, spreads=spreads, analysis=comparison)


def _calculated(
    sweeps: list[SweepRow], groups: list[Group], prices: PriceTable | None, outlying: list[Outlying]
) -> Report:
    """Everything but the analysis and the files."""

    def price_of(row: AnswerRow) -> float | None:
        return cost(row, prices) if prices else None

    def seconds_of(row: AnswerRow) -> float | None:
        return row.latency_s

    regions: dict[str, list[Expensive]] = {}
    hints: list[Routing] = []
    for task in dict.fromkeys(group.task for group in groups):
        members = [group for group in groups if group.task == task and group.rows]
        if members:
            rows = [row for group in members for row in group.rows]
            regions[task] = routing.expensive_regions(rows, price_of if prices else seconds_of)
            hints += [routing.route(members)] if len(members) > 1 else []
    unit = prices.currency if prices else "s"
    notes = (*_notes_on(groups, prices), *outlying_note(outlying))
    return Report(tuple(sweeps), tuple(groups), unit, regions, tuple(hints), tuple(outlying), {}, {}, notes)


def _notes_on(groups: Sequence[Group], prices: PriceTable | None) -> list[str]:
    """What a person should know of these numbers."""
    notes = []
    if any(row.answer.is_estimated for group in groups for row in group.rows):
        notes.append("some token counts are estimated (words x 1.3), because the engine gave none")
    mixed = [group for group in groups if len({row.cell for row in group.rows} or group.cells) > 1]
    if mixed:
        notes.append("a line holds all cells of its model and task; export has every cell by itself")
    unpriced = [group.label for group in groups if prices and group.costs is None]
    if unpriced:
        notes.append(f"no cost for {', '.join(dict.fromkeys(unpriced))}: no price, or no token counts")
    return notes


def write_files(found: Report, out: Path) -> Report:
    """Write every file; the report that names them. Raises ConfigError, StorageError."""
    with_answers = [group for group in found.groups if group.rows]
    contents = task_files.task_files(with_answers)
    if len({group.label for group in with_answers}) > 1 or found.analysis:
        contents.append(task_files.comparison_file(with_answers, found.analysis or analysis.plain(with_answers)))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    machines = "; ".join(dict.fromkeys(row.machine for row in found.sweeps))
    contents.append(hardware.hardware_file(with_answers, device_info(), now, machines))
    notes = (
        f"{group.label}, {group.task}: more than {task_files.MOST_PROMPT_FILES} answers, so no file each"
        for group in with_answers
        if len(group.rows) > task_files.MOST_PROMPT_FILES
    )
    files = (*saving.save_files(contents, out), *saving.append_logs(with_answers, out))
    return replace(found, notes=(*found.notes, *notes), files=files)
