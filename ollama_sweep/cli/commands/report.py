"""`report [CONFIG ...]`: what the tasks of a sweep say per model, on the terminal and as the files people know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import paths, shared
from ollama_sweep.cli.terminal import say, say_exactly, say_json, warn
from ollama_sweep.core.errors import ConfigError

if TYPE_CHECKING:
    from ollama_sweep.results.analysis import Analysis
    from ollama_sweep.results.groups import Group
    from ollama_sweep.results.report import Report
    from ollama_sweep.run.analyst import Asked
    from ollama_sweep.store.rows import Holder, SweepRow


@click.command("report", short_help="What each task says per model; files, cost, analysis.")
@click.argument("configs", nargs=-1, metavar="[CONFIG]...")
@click.option("--out", type=paths.FOLDER, default=None, metavar="DIR", help="Write the files here.")
@click.option(
    "--html", type=paths.OUTPUT, default=None, metavar="FILE", help="Write all of it as one page; - prints it."
)
@click.option("--force", is_flag=True, help="Write over an existing page.")
@click.option("--md", "as_md", is_flag=True, help="Print it as markdown, for an issue.")
@click.option("--prices", type=paths.SOURCE, default=None, metavar="FILE", help="Prices per model.")
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
      ollama-sweep report --html report.html
      ollama-sweep report --cost-per-token 0.0000005 --json
    """
    page, as_md = given["html"], given["as_md"]
    if as_md and (as_json or page is not None):
        raise ConfigError(f"give one of --md and {'--json' if as_json else '--html'}", "--md")
    if page is not None or as_md:
        _shown(configs, db, given, as_json=as_json)
        return
    from ollama_sweep.results.find import apart

    is_plain = given["out"] is None and given["analysis_model"] is None
    found = [_collected(one, db, given) for one in (apart(db, configs) if is_plain else [configs])]
    if as_json:
        said = [one.as_dict() for one in found]
        say_json(said[0] if len(said) == 1 else {"reports": said})
        return
    for line in [line for one in found for line in ("", *lines_of(one))][1:]:
        say(line)


def _collected(configs: Sequence[str], db: Path, given: dict[str, Any]) -> Report:
    """What the tasks say, compared by a model and written as files where that is asked for."""
    from ollama_sweep.results.prices import price_table
    from ollama_sweep.results.report import collect, write_files
    from ollama_sweep.run import analyst

    out, asked = given["out"], given["analysis_model"]

    def analyse(groups: Sequence[Group], row: SweepRow, writer: Holder | None) -> Analysis:
        model = analyst.chosen_model(asked, groups, allow_cloud=given["allow_cloud"])
        if writer is not None:
            text = f"a sweep is running (pid {writer.pid}), and the analysis would spoil its numbers. Wait for its end"
            raise ConfigError(text, analyst.OPTION)
        return analyst.analysis_by(model, groups, row, _asked(given))

    prices = price_table(given["prices"], given["cost_per_token"])
    found = collect(configs, db, prices=prices, out=out, analyse=None if asked is None else analyse)
    return found if out is None else write_files(found, out)


def _shown(configs: Sequence[str], db: Path, given: dict[str, Any], *, as_json: bool) -> None:
    """The page or the markdown; files and an analysis beside it where they are asked for."""
    from ollama_sweep.cli import repeating
    from ollama_sweep.machine.files import write_whole
    from ollama_sweep.machine.places import STDOUT
    from ollama_sweep.results.page import making, markdown
    from ollama_sweep.results.prices import price_table

    target: Path | None = given["html"]
    is_printed = str(target) in STDOUT
    if is_printed and (as_json or given["out"] is not None):
        raise ConfigError(f"a page on the terminal goes without {'--json' if as_json else '--out'}", "--html")
    if target is not None and not is_printed:
        making.check_free(target, force=given["force"])
    prices = price_table(given["prices"], given["cost_per_token"])
    read = making.read(configs, db, repeating.repeats)
    wants_more = given["out"] is not None or given["analysis_model"] is not None
    more = _collected(configs, db, given) if wants_more else None
    analysis = more.analysis if more is not None else None
    words = [analysis.readable, *([f"Note: {analysis.note}"] if analysis.note else [])] if analysis else []
    if target is None:
        say_exactly(markdown.markdown(read, prices=prices, analysis=words))
        return
    page = making.page(read, prices=prices, analysis=words)
    if is_printed:
        say_exactly(page.decode())
        return
    write_whole(target, page)
    files = [target, *(more.files if more is not None else ())]
    if as_json:
        say_json({"sweeps": [gathered.row.name for gathered, _ in read], "files": [str(file) for file in files]})
        return
    for file in files:
        say(file)


def _asked(given: dict[str, Any]) -> Asked:
    """Where the analysis model is asked; what its engine says goes to stderr, so that --json stays JSON."""
    from ollama_sweep.run.analyst import Asked

    def say(line: str) -> None:
        warn(line)

    trace = shared.trace_to_stderr(given["verbose"])
    return Asked(given["engine"], given["host"], given["ollama"], given["remote"], say, trace)


# -- in words --------------------------------------------------------------------------------------------------------


def lines_of(found: Report) -> list[str]:
    """What a person reads."""
    from ollama_sweep.cli.tables import table
    from ollama_sweep.results.groups import PERCENTILE_METHOD
    from ollama_sweep.results.words import at_once_lines, check_line, cost_lines, group_line, task_table

    lines = [f"Sweep {row.name} on {row.engine} ({row.machine})" for row in found.sweeps]
    lines += [drift_line(sweep, drifts) for sweep, drifts in found.drifts.items()]
    lines += [
        f"Spread of {name} in {sweep}: {one.words}"
        for sweep, by_metric in found.spreads.items()
        for name, one in by_metric.items()
    ]
    for task in dict.fromkeys(group.task for group in found.groups):
        members = [group for group in found.groups if group.task == task]
        lines += ["", f"Task {task}", *(f"  {group_line(group)}" for group in members), ""]
        lines += table(task_table(members), left=2, indent="  ")
        for group in members:
            lines += [f"  {group.label}, {line}" for line in at_once_lines(group.cells)]
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
