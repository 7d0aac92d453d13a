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
    from ollama_sweep.results.plots import Plot, PlotOptions

EVERY = "all"
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
      ollama-sweep plot all --csv results_local.csv
    """

    if given["list_all"]:
        _list(as_json)
        return
    jobs = _jobs(name, given)
    material = _of_csv(given["csv_file"], configs) if given["csv_file"] is not None else _of_sweeps(configs, db)
    material = _of_tasks(material, given["tasks"])
    files = _draw(jobs, material, given["out"], f".{given['kind']}", is_all=name == EVERY)
    if as_json:
        paths = [str(file) for file in files]
        say_json({"plot": name, "sweep": material.name, "files": paths, "notes": material.notes})
        return
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
    if plots.takes(plot) not in (plots.CELLS, plots.ANSWERS):
        raise ConfigError(f"{name} draws a comparison: ollama-sweep compare A B --picture FILE", "plot")
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
    for name in (name for name in plots.known() if plots.takes(plots.load(name)) in (plots.CELLS, plots.ANSWERS)):
        metrics = [m for m in METRICS if m != "cost" or options.prices] if name == "token_heatmap" else [None]
        jobs += [Job(name, plots.load(name), replace(options, metric=metric)) for metric in metrics]
    return jobs


def _of_sweeps(configs: Sequence[str], db: Path) -> Material:
    from ollama_sweep.results.find import find_sweep
    from ollama_sweep.store.reader import Reader

    with Reader.open(db) as reader, reader.snapshot():
        rows = [find_sweep(reader, config) for config in (configs or (None,))]
        rows = list({row.sweep_id: row for row in rows}.values())
        cells = [cell for row in rows for cell in reader.results(row.sweep_id)]
        answers = [answer for row in rows for answer in reader.answers(row.sweep_id) if answer.answer.prompt]
    machines = {row.machine for row in rows}
    tokens = rows[0].spec.get("prompt_tokens") if len(rows) == 1 else None
    return Material(
        "_vs_".join(row.name for row in rows),
        ", ".join(row.name for row in rows),
        cells,
        answers,
        [],
        machine=machines.pop() if len(machines) == 1 else "several machines",
        prompt_tokens=tokens if isinstance(tokens, int) and tokens else None,
    )


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
        if is_all and not _says_something(job.name, material.cells):
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


def _says_something(plot: str, cells: Sequence[CellResult]) -> bool:
    """Two plots are about a dimension that few sweeps have."""
    if plot == "grid":
        return len({cell.task for cell in cells}) > 1
    return plot != "concurrency" or any("concurrency" in cell.coordinates for cell in cells)


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
    return material.cells
