"""`plot NAME [CONFIG]...`: one picture of the answers or the cells of sweeps, or of another tool's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import paths, shared
from ollama_sweep.cli.terminal import say, say_json, warn
from ollama_sweep.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from ollama_sweep.core.outcome import AnswerRow, CellResult
    from ollama_sweep.results.explain import Explained
    from ollama_sweep.results.plots import Plot, PlotOptions
    from ollama_sweep.results.plots.drift import Controls
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow

EVERY = "all"
_MADE_HERE = ("cells", "answers", "controls", "cell")
"""What plots take that this command has, as `plots` names it."""
SUFFIXES = (".png", ".svg", ".pdf")


@click.command("plot", short_help="Scatters, bars and heatmaps of answers and cells.")
@click.argument("name", required=False)
@click.argument("configs", nargs=-1, metavar="[CONFIG]...")
@click.option("--list", "list_all", is_flag=True, help="Show the names of all plots.")
@click.option("--metric", default=None, help="What is drawn: of grid and heatmap any numeric column of `results`, "
              "of token_heatmap latency, eval_duration or cost.")  # fmt: skip
@click.option("--x", default=None, metavar="DIMENSION", help="Across in grid. [default: num_ctx]")
@click.option("--y", default=None, metavar="DIMENSION", help="Down in grid. [default: task]")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task; may be given several times.")
@click.option("--cell", "cells", multiple=True, metavar="CELL", help="Of cell: 'num_ctx=4096 num_batch=256', a key or "
              "a position; may be given several times.  [default: the best]")  # fmt: skip
@click.option("--prices", type=paths.SOURCE, default=None, metavar="FILE", help="Prices per model.")
@click.option("--cost-per-token", type=float, default=None, metavar="X", help="The same price for every token.")
@click.option("--csv", "csv_file", type=paths.SOURCE, default=None, metavar="FILE",
              help="Draw a results_local.csv instead of sweeps.")  # fmt: skip
@click.option("--out", default="heatmaps", show_default=True, type=paths.FOLDER, help="A folder.")
@click.option("--format", "kind", default="png", show_default=True, metavar="KIND", help="png, svg or pdf.")
@shared.db_option
@shared.json_option
def command(name: str | None, configs: tuple[str, ...], db: Path, as_json: bool, **given: Any) -> None:
    """Draw NAME (or all) into OUT/<sweep>/; CONFIG left out means the sweep that ran last, several are compared.

    \b
    Example:
      ollama-sweep plot output_tokens_vs_latency
      ollama-sweep plot grid --x num_ctx --y task --metric quality
      ollama-sweep plot cell --cell "num_ctx=4096 num_batch=256"
      ollama-sweep plot all --csv results_local.csv
    """
    if given["list_all"]:
        _list(as_json)
        return
    jobs = _jobs(name, given)
    csv_file = given["csv_file"]
    chosen = given["cells"] if _want_a_cell(jobs) else None
    found = [_of_csv(csv_file, configs)] if csv_file is not None else _each(configs, db, chosen)
    drawn = []
    for material in [_of_tasks(one, given["tasks"]) for one in found]:
        files = _draw(jobs, material, given["out"], f".{given['kind']}", is_all=name == EVERY)
        drawn.append((material, files))
    if as_json:
        each = [
            {"plot": name, "sweep": one.name, "files": [str(file) for file in files], "notes": one.notes}
            for one, files in drawn
        ]
        say_json(each[0] if len(each) == 1 else {"plot": name, "sweeps": each})
        return
    for material, files in drawn:
        for note in material.notes:
            warn(f"Note: {note}")
        for file in files:
            say(file)


@dataclass(frozen=True)
class Job:
    """One plot with what the person chose of it."""

    name: str
    plot: Plot
    options: PlotOptions


@dataclass
class Material:
    """What there is to draw. `name` is that of the folder, `sweep` that of the sweeps in titles, "" for a file;
    `notes` is what a person should know.
    """

    name: str
    sweep: str
    cells: Sequence[CellResult]
    answers: Sequence[AnswerRow]
    notes: list[str]
    machine: str = ""
    prompt_tokens: int | None = None
    controls: Sequence[Controls] = ()
    explained: Sequence[Explained] = ()


def _list(as_json: bool) -> None:
    from ollama_sweep.results import plots

    found = {name: plots.load(name) for name in plots.known()}
    if as_json:
        listed = [{"plot": name, "of": plots.takes(plot), "what": plots.about(plot)} for name, plot in found.items()]
        say_json(listed)
        return
    width = max(len(name) for name in found)
    for name, plot in found.items():
        say(f"{name:<{width}}  {plots.about(plot)}")


def _jobs(name: str | None, given: dict[str, Any]) -> list[Job]:
    """The plots to draw, with everything checked that can be checked without data. Raises ConfigError."""
    from ollama_sweep.results import plots
    from ollama_sweep.results.prices import price_table

    names = [*plots.known(), EVERY]
    if name is None:
        raise ConfigError(f"which one? Known: {', '.join(names)}", "plot")
    if f".{given['kind']}" not in SUFFIXES:
        raise ConfigError(f"{given['kind']} is not a kind of picture. Allowed: png, svg, pdf", "--format")
    prices = price_table(given["prices"], given["cost_per_token"])
    options = plots.PlotOptions(metric=given["metric"], x=given["x"] or "", y=given["y"] or "", prices=prices)
    if name == EVERY:
        if given["metric"] is not None:
            raise ConfigError("all draws every plot with its own metric; name one plot for another metric", "--metric")
        return _every_job(options)
    if name not in names:
        raise ConfigError(f"unknown plot {name}. Known: {', '.join(names)}.{nearest(name, names)}", "plot")
    plot = plots.load(name)
    if plots.takes(plot) not in _MADE_HERE:
        raise ConfigError(f"{name} draws a comparison: ollama-sweep compare A B --picture FILE", "plot")
    if given["cells"] and plots.takes(plot) != plots.CELL:
        raise ConfigError(f"{name} does not take it; it is for cell", "--cell")
    chosen = {"metric": given["metric"], "x": given["x"], "y": given["y"], "prices": prices}
    for option, value in chosen.items():
        if value is not None and option not in plots.uses(plot):
            users = ", ".join(other for other in plots.known() if option in plots.uses(plots.load(other)))
            raise ConfigError(f"{name} does not take it; it is for {users}", f"--{option}")
    return [Job(name, plot, options)]


def _every_job(options: PlotOptions) -> list[Job]:
    """Every plot once, the binned heatmap for each of its metrics that can be drawn."""
    from ollama_sweep.results import plots
    from ollama_sweep.results.plots.token_heatmap import METRICS

    jobs = []
    for name in (name for name in plots.known() if plots.takes(plots.load(name)) in _MADE_HERE):
        metrics = [m for m in METRICS if m != "cost" or options.prices] if name == "token_heatmap" else [None]
        jobs += [Job(name, plots.load(name), replace(options, metric=metric)) for metric in metrics]
    return jobs


def _want_a_cell(jobs: Sequence[Job]) -> bool:
    from ollama_sweep.results import plots

    return any(plots.takes(job.plot) == plots.CELL for job in jobs)


def _each(configs: Sequence[str], db: Path, chosen: Sequence[str] | None) -> list[Material]:
    """These sweeps together, those of a pair one by one; `chosen` None: no single cell is wanted."""
    from ollama_sweep.results.find import apart

    return [_of_sweeps(together, db, chosen) for together in apart(db, configs)]


def _of_sweeps(configs: Sequence[str], db: Path, chosen: Sequence[str] | None) -> Material:
    from ollama_sweep.results.find import find_sweep
    from ollama_sweep.results.plots.drift import Controls
    from ollama_sweep.store.reader import Reader

    with Reader.open(db) as reader, reader.snapshot():
        rows = [find_sweep(reader, config) for config in (configs or (None,))]
        rows = list({row.sweep_id: row for row in rows}.values())
        by_sweep = {row.sweep_id: list(reader.results(row.sweep_id)) for row in rows}
        answers = [answer for row in rows for answer in reader.answers(row.sweep_id) if answer.answer.prompt]
        controls = [
            Controls(row.name, reader.control_points(row.sweep_id), row.machine,
                     reader.spreads(row.sweep_id).get("prompt_eval_rate"))
            for row in rows
        ]  # fmt: skip
        explained = [
            found
            for row in (rows if chosen is not None else ())
            for found in _explained(reader, row, by_sweep[row.sweep_id], chosen or ())
        ]
    machines = {row.machine for row in rows}
    tokens = rows[0].spec.get("prompt_tokens") if len(rows) == 1 else None
    return Material(
        "_vs_".join(row.name for row in rows),
        ", ".join(row.name for row in rows),
        [cell for row in rows for cell in by_sweep[row.sweep_id]],
        answers,
        [],
        machine=machines.pop() if len(machines) == 1 else "several machines",
        prompt_tokens=tokens if isinstance(tokens, int) and tokens else None,
        controls=controls,
        explained=explained,
    )


def _explained(reader: Reader, row: SweepRow, cells: Sequence[CellResult], chosen: Sequence[str]) -> list[Explained]:
    """The cells that were chosen with all they have; else the best one, and none where nothing was measured."""
    from ollama_sweep.results.best import best_cells
    from ollama_sweep.results.explain import explain, find_place

    words = [one.replace(",", " ").split() for one in chosen]
    if not all(words):
        raise ConfigError("names no cell; name it by NAME=VALUE …, a key or a position", "--cell")
    if not words:
        best = best_cells(cells).winner
        words = [[str(best.row["position"])]] if best is not None else []
    return [explain(reader, row, find_place(reader, row, one)) for one in words]


def _of_csv(path: Path, configs: Sequence[str]) -> Material:
    from ollama_sweep.results.foreign_csv import read_answers

    if configs:
        raise ConfigError(f"draws the file alone; leave out {', '.join(configs)}", "--csv")
    found = read_answers(path)
    return Material(path.stem, "", [], found.rows, list(found.notes))


def _of_tasks(material: Material, tasks: Sequence[str]) -> Material:
    if not tasks:
        return material
    known = sorted({cell.task for cell in material.cells} | {row.task for row in material.answers})
    for task in tasks:
        if task not in known:
            raise ConfigError(f"{material.name} has no task {task}; it has {', '.join(known)}.{nearest(task, known)}",
                              "--task")  # fmt: skip
    cells = [cell for cell in material.cells if cell.task in tasks]
    return replace(material, cells=cells, answers=[row for row in material.answers if row.task in tasks])


def _draw(jobs: Sequence[Job], material: Material, out: Path, suffix: str, *, is_all: bool) -> list[Path]:
    """Write the pictures; with `is_all` what cannot be drawn is said in the notes and left out."""
    from ollama_sweep.machine.files import inside, safe_name

    folder = inside(out, safe_name(material.name))
    files: list[Path] = []
    for job in jobs:
        if is_all and not _says_something(job.name, material):
            continue
        options = replace(
            job.options, sweep=material.sweep, machine=material.machine, prompt_tokens=material.prompt_tokens
        )
        try:
            files += job.plot.save_all(_rows_of(job, material), options, folder, suffix=suffix)
        except ConfigError as error:
            if not is_all:
                raise
            material.notes.append(f"{job.name} is left out: {error}")
    if not files:
        raise ConfigError(f"nothing of {material.name} can be drawn: {'; '.join(material.notes)}")
    return files


def _says_something(plot: str, material: Material) -> bool:
    """Some plots are about what few sweeps have."""
    if plot == "grid":
        return len({cell.task for cell in material.cells}) > 1
    if plot == "drift":
        return any(len(one.points) > 1 for one in material.controls) or not material.sweep
    if plot == "concurrency":
        return any("concurrency" in cell.coordinates for cell in material.cells)
    return True


def _rows_of(job: Job, material: Material) -> Sequence[Any]:
    """The rows that a plot takes. Raises ConfigError where there are none."""
    from ollama_sweep.results import plots

    if plots.takes(job.plot) == plots.ANSWERS:
        if not material.answers:
            raise ConfigError(f"{material.name} has kept no answers; tasks with questions (chat, items, mmlu …) have")
        return material.answers
    if not material.sweep:
        of_answers = ", ".join(name for name in plots.known() if plots.takes(plots.load(name)) == plots.ANSWERS)
        raise ConfigError(f"{job.name} draws the cells of a sweep; a file has answers, for {of_answers}", "--csv")
    if plots.takes(job.plot) == plots.CONTROLS:
        return material.controls
    if plots.takes(job.plot) == plots.CELL:
        if not material.explained:
            raise ConfigError(f"{material.name} has no measured cell yet; name one with --cell")
        return material.explained
    return material.cells
