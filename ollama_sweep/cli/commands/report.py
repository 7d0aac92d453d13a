"""`report [CONFIG ...]`: what the tasks of a sweep say per model, on the terminal and as the files people know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import analyst, shared
from ollama_sweep.core.errors import ConfigError

if TYPE_CHECKING:
    from ollama_sweep.results.analysis import Analysis
    from ollama_sweep.results.groups import Group
    from ollama_sweep.results.outliers import Outlying
    from ollama_sweep.results.prices import PriceTable
    from ollama_sweep.results.routing import Expensive, Routing
    from ollama_sweep.store.rows import SweepRow

MOST_DRIFTS = 100_000


@click.command("report", short_help="What each task says per model; files, cost, analysis.")
@click.argument("configs", nargs=-1, metavar="[CONFIG]...")
@click.option("--out", type=click.Path(path_type=Path), default=None, metavar="DIR", help="Write the files here.")
@click.option("--prices", type=click.Path(path_type=Path), default=None, metavar="FILE", help="Prices per model.")
@click.option("--cost-per-token", type=float, default=None, metavar="X", help="The same price for every token.")
@click.option("--analysis-model", default=None, metavar="NAME", help="Let a model compare; auto: the best tested one.")
@click.option("--engine", default=None, help="What the analysis model runs on. [default: the sweep's engine]")
@click.option("--host", default=None, metavar="HOST", help="Where that engine's server answers.")
@click.option("--ollama", default=None, metavar="PATH", help="The ollama program.")
@click.option("--remote", is_flag=True, help="Allow a host that is another machine.")
@click.option("--allow-cloud", is_flag=True, help="Allow a :cloud model for the analysis.")
@shared.db_option
@shared.json_option
@shared.verbose_option
def command(configs: tuple[str, ...], db: Path, as_json: bool, **given: Any) -> None:
    """Mean, median, P95, P99, max and success rate per model and task; CONFIG left out means the sweep that ran last.

    \b
    Example:
      ollama-sweep report configs/quickstart.yaml --out results
      ollama-sweep report --cost-per-token 0.0000005 --json
    """
    import json

    found = collect(configs, db, given)
    if given["out"] is not None:
        found.files = write_files(found, given["out"])
    if as_json:
        click.echo(json.dumps(found.as_dict(), ensure_ascii=False))
        return
    for line in lines_of(found):
        click.echo(line)


@dataclass
class Report:
    """Everything the command says."""

    sweeps: list[SweepRow]
    groups: list[Group]
    unit: str
    regions: dict[str, list[Expensive]]
    routing: list[Routing]
    outlying: list[Outlying]
    drifts: dict[str, list[float]]
    notes: list[str] = field(default_factory=list)
    analysis: Analysis | None = None
    files: list[Path] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        from ollama_sweep.results.groups import PERCENTILE_METHOD

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
            "outlying_runs": [run.as_dict() for run in self.outlying],
            "analysis": {
                "model": analysis.model,
                "readable": analysis.readable,
                "structured": analysis.structured,
                "note": analysis.note or None,
            }
            if analysis
            else None,
            "notes": self.notes,
            "files": [str(path) for path in self.files],
        }


def collect(configs: Sequence[str], db: Path, given: dict[str, Any]) -> Report:
    """Read, calculate and, where it is asked for, let a model compare. Raises ConfigError before anything is made."""
    from ollama_sweep.results.find import find_sweep
    from ollama_sweep.results.groups import make_groups
    from ollama_sweep.results.outliers import outlying_runs
    from ollama_sweep.results.saving import check_folder
    from ollama_sweep.store.reader import Reader

    prices = price_table(given["prices"], given["cost_per_token"])
    with Reader.open(db) as reader, reader.snapshot():
        sweeps = [find_sweep(reader, config) for config in (configs or (None,))]
        sweeps = list({row.sweep_id: row for row in sweeps}.values())
        rows = [answer for row in sweeps for answer in reader.answers(row.sweep_id)]
        results = [cell for row in sweeps for cell in reader.results(row.sweep_id)]
        rates = {key: found for row in sweeps for key, found in reader.rates(row.sweep_id).items()}
        drifts = {row.name: [drift for _, drift in reader.drifts(row.sweep_id, MOST_DRIFTS)] for row in sweeps}
        writer = reader.writer()
    groups = make_groups(rows, results, prices)
    names = " and ".join(row.name for row in sweeps)
    if not groups:
        raise ConfigError(f"sweep {names} has no measured cell yet. Start with: sweep.py run {sweeps[0].config_path}")
    if given["out"] is not None:
        check_folder(given["out"])
        if not rows:
            raise ConfigError(f"sweep {names} has kept no answers; its files are those of export and heatmap", "--out")
    asked = given["analysis_model"]
    model = "" if asked is None else analyst.chosen_model(asked, groups, allow_cloud=given["allow_cloud"])
    if model and writer is not None:
        text = f"a sweep is running (pid {writer.pid}), and the analysis would spoil its numbers. Wait for its end"
        raise ConfigError(text, analyst.OPTION)
    found = calculated(sweeps, groups, prices, outlying_runs(results, rates))
    found.drifts = {sweep: measured for sweep, measured in drifts.items() if measured}
    found.analysis = analyst.analysis_by(model, groups, sweeps[0], given) if model else None
    return found


def price_table(file: Path | None, cost_per_token: float | None) -> PriceTable | None:
    """The prices of the command line; None without any. Raises ConfigError."""
    from ollama_sweep.results.prices import load_prices, one_price

    if file is not None and cost_per_token is not None:
        raise ConfigError("give --prices or --cost-per-token, not both")
    if cost_per_token is not None:
        return one_price(cost_per_token)
    return load_prices(file) if file is not None else None


def calculated(
    sweeps: list[SweepRow], groups: list[Group], prices: PriceTable | None, outlying: list[Outlying]
) -> Report:
    """Everything but the analysis and the files."""
    from ollama_sweep.core.outcome import AnswerRow
    from ollama_sweep.results import routing
    from ollama_sweep.results.answers import cost
    from ollama_sweep.results.outliers import outlying_note

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
    notes = [*notes_on(groups, prices), *outlying_note(outlying)]
    return Report(sweeps, groups, unit, regions, hints, outlying, {}, notes)


def notes_on(groups: Sequence[Group], prices: PriceTable | None) -> list[str]:
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


def write_files(found: Report, out: Path) -> list[Path]:
    """Write every file; their paths. Raises ConfigError, StorageError."""
    from datetime import UTC, datetime

    from ollama_sweep.machine.device_report import device_info
    from ollama_sweep.results import analysis, hardware, saving, task_files

    with_answers = [group for group in found.groups if group.rows]
    contents = task_files.task_files(with_answers)
    if len({group.label for group in with_answers}) > 1 or found.analysis:
        contents.append(task_files.comparison_file(with_answers, found.analysis or analysis.plain(with_answers)))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    machines = "; ".join(dict.fromkeys(row.machine for row in found.sweeps))
    contents.append(hardware.hardware_file(with_answers, device_info(), now, machines))
    for group in with_answers:
        if len(group.rows) > task_files.MOST_PROMPT_FILES:
            found.notes.append(
                f"{group.label}, {group.task}: more than {task_files.MOST_PROMPT_FILES} answers, so no file each"
            )
    return [*saving.save_files(contents, out), *saving.append_logs(with_answers, out)]


# -- in words --------------------------------------------------------------------------------------------------------


def lines_of(found: Report) -> list[str]:
    """What a person reads."""
    from ollama_sweep.results.groups import PERCENTILE_METHOD
    from ollama_sweep.results.words import check_line, group_line, task_table

    lines = [f"Sweep {row.name} on {row.engine} ({row.machine})" for row in found.sweeps]
    lines += [drift_line(sweep, drifts) for sweep, drifts in found.drifts.items()]
    for task in dict.fromkeys(group.task for group in found.groups):
        members = [group for group in found.groups if group.task == task]
        lines += ["", f"Task {task}", *(f"  {group_line(group)}" for group in members), ""]
        lines += [f"  {line}" for line in task_table(members)]
        for group in members:
            lines += [f"  {line}" for line in (*category_lines(group), *check_line(group), *cost_lines(group))]
        lines += [f"  Expensive: {region.text(found.unit)}" for region in found.regions.get(task, [])]
    lines += ["", *(f"Routing, {line}" for hint in found.routing for line in hint.lines())] if found.routing else []
    if found.analysis:
        lines += ["", f"Analysis by {found.analysis.model}:", found.analysis.readable]
        lines += [f"Note: {found.analysis.note}"] if found.analysis.note else []
    lines += ["", f"Percentiles: {PERCENTILE_METHOD}.", *(f"Note: {note}." for note in found.notes)]
    return [*lines, *file_lines(found.files)]


def drift_line(sweep: str, drifts: Sequence[float]) -> str:
    """How far the machine's speed went from that at the beginning; the newest control measurement comes first."""
    last, lowest, highest = (f"{100 * drift:+.1f} %" for drift in (drifts[0], min(drifts), max(drifts)))
    return f"Drift of {sweep}: {last} at the last of {len(drifts)} control measurements ({lowest} to {highest})"


def file_lines(paths: Sequence[Path]) -> list[str]:
    """What was written; the files of single answers are counted."""
    lines: dict[str, int] = {}
    for path in paths:
        stem, is_answer, _ = path.name.partition("_prompt_")
        shown = str(path.with_name(f"{stem}_prompt_*.json")) if is_answer else str(path)
        lines[shown] = lines.get(shown, 0) + 1
    listed = [f"  {name} ({count} files)" if count > 1 else f"  {name}" for name, count in lines.items()]
    return ["", "Files:", *listed] if listed else []


def category_lines(group: Group) -> list[str]:
    """A line for each category of a model's answers; none for a single one."""
    from ollama_sweep.results.groups import categories

    found = categories(group.rows)
    lines = []
    for name, facts in found.items() if len(found) > 1 else ():
        score, rate = facts["mean_score"], facts["mean_tokens_per_second"]
        parts = [f"{facts['succeeded']} of {facts['asked']} answered"]
        parts += [f"{rate:.3g} tokens/s"] if isinstance(rate, float) else []
        parts += [f"score {score:.2f}"] if isinstance(score, float) else []
        lines.append(f"{group.label}, {name}: {', '.join(parts)}")
    return lines


def cost_lines(group: Group) -> list[str]:
    """What a model's answers cost, where prices are known."""
    costs = group.costs
    if costs is None or not costs.by_cell:
        return []
    unit = f" {costs.currency}" if costs.currency else ""
    cells = list(costs.by_cell.values())
    each = f"{sum(cells) / len(cells):.3g}{unit} a cell"
    extent = f" ({min(cells):.3g}–{max(cells):.3g})" if min(cells) < max(cells) else ""
    token = f"{costs.total / costs.tokens:.3g}{unit} a token, " if costs.tokens else ""
    answer = f"{costs.total / costs.answers:.3g}{unit} an answer" if costs.answers else ""
    return [f"{group.label}, cost: {costs.total:.3g}{unit} in all, {token}{answer}, {each}{extent}"]
