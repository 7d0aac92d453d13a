"""`compare A B`: which cells became slower or faster beyond noise, and what cannot be told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ollama_sweep.cli import paths, shared
from ollama_sweep.cli.terminal import say, say_exactly, say_json
from ollama_sweep.core.errors import ConfigError, NotTold, Slower

if TYPE_CHECKING:
    from ollama_sweep.results.compare.comparing import Comparison

_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]+)?) ?%")


@click.command("compare", short_help="Two sweeps: slower, faster, same, or it cannot be told.")
@click.argument("a")
@click.argument("b")
@click.option("--threshold", default="5%", show_default=True, metavar="P%", help="A smaller change counts as none.")
@click.option("--metric", default=None, help="Any numeric column of `results`; else that of each task.")
@click.option("--allow", default="", metavar="WHAT,…", help="What may differ: model, prompt, task, engine.")
@click.option(
    "--fail-over", default=None, metavar="P%", help="Exit 7 where B is slower by more than this beyond noise."
)
@click.option("--strict", is_flag=True, help="Exit 8 where it cannot be told whether B is slower.")
@click.option("--all", "show_all", is_flag=True, help="Show every cell, not the first 30.")
@click.option("--markdown", is_flag=True, help="Print markdown, for a pull request.")
@click.option("--picture", type=paths.OUTPUT, default=None, metavar="FILE",
              help="Draw the ratios as a map: .png, .svg or .pdf.")  # fmt: skip
@shared.db_option
@shared.json_option
def command(
    a: str,
    b: str,
    threshold: str,
    metric: str | None,
    allow: str,
    fail_over: str | None,
    strict: bool,
    show_all: bool,
    markdown: bool,
    picture: Path | None,
    db: Path,
    as_json: bool,
) -> None:
    """Compare two sweeps cell by cell: B against A.

    A and B are a database, a sweep file, a sweep's name in --db, or FILE:NAME, each with @N for its N-th segment.
    A cell is called slower or faster only where that is beyond the noise of runs and of loads; else it says how many
    more loads would tell.

    \b
    Example:
      ollama-sweep compare before after
      ollama-sweep compare old.db new.db --picture ratio.png
      ollama-sweep compare quickstart@1 quickstart@2 --fail-over 5%
    """
    from ollama_sweep.results.compare import telling
    from ollama_sweep.results.compare.comparing import compare

    if markdown and as_json:
        raise ConfigError("give one of --markdown and --json", "--markdown")
    limit = _share(fail_over, "--fail-over") if fail_over is not None else None
    allowed = [word.strip() for word in allow.split(",")] if allow.strip() else []
    if picture is not None:
        _check_picture(picture)
    found = compare(a, b, db=db, metric=metric, threshold=_share(threshold, "--threshold"), allow=allowed)
    files = _draw(found, picture) if picture is not None else []
    rows = None if show_all else telling.SHOWN
    if as_json:
        say_json({**found.as_dict(), "files": [str(file) for file in files]})
    elif markdown:
        say_exactly(f"{telling.markdown(found, rows=rows)}\n")
    else:
        _say(found, rows)
        for file in files:
            say(file)
    _judge(found, limit, strict=strict)


def _share(text: str, option: str) -> float:
    """`5%` as 0.05. Raises ConfigError."""
    found = _PERCENT.fullmatch(text.strip())
    if not found or not 0 <= float(found[1]) < 100:
        raise ConfigError(f"{text} is no percentage from 0% to below 100%; write it like 5%", option)
    return float(found[1]) / 100


def _check_picture(path: Path) -> None:
    from ollama_sweep.results.plots.shared.figures import SUFFIXES

    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path} is no picture's name; it ends in {', '.join(SUFFIXES)}", "--picture")


def _draw(found: Comparison, path: Path) -> list[Path]:
    from ollama_sweep.results.plots import PlotOptions, ratio

    options = PlotOptions(sweep=f"{found.b.name} against {found.a.name}", machine=_machine(found))
    return ratio.save_as(found.parts, options, path)


def _machine(found: Comparison) -> str:
    a, b = found.a.sweep.machine, found.b.sweep.machine
    return a if a == b else "two machines"


def _say(found: Comparison, rows: int | None) -> None:
    from ollama_sweep.cli.tables import table
    from ollama_sweep.results.compare import telling

    for line in telling.head(found):
        say(line)
    for part in found.parts:
        for line in ("", *telling.summary(found, part)):
            say(line)
        if shown := telling.table(found, part, rows=rows):
            for line in ["", *table(shown), *telling.more(part, rows)]:
                say(line)


def _judge(found: Comparison, limit: float | None, *, strict: bool) -> None:
    """Raises Slower and NotTold, where they are asked for."""
    from ollama_sweep.results.compare.telling import percent

    asked = found.threshold if limit is None else limit
    if limit is not None and (count := found.slower(limit)):
        raise Slower(
            f"B is slower than A by more than {percent(limit)} beyond noise, or lacks memory: {_places(count)}"
        )
    if strict and (count := found.untold(asked)):
        raise NotTold(f"whether B is slower than A by more than {percent(asked)} cannot be told: {_places(count)}")


def _places(count: int) -> str:
    return f"{count} verdict{'s' if count != 1 else ''}"
