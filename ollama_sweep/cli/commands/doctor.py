"""`doctor [CONFIG]`: can a sweep run here, and would its numbers be true?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import say, say_json, warn
from ollama_sweep.core.errors import ConfigError, SweepError

if TYPE_CHECKING:
    from ollama_sweep.core.finding import Finding
    from ollama_sweep.engines.base import EngineSettings
    from ollama_sweep.plan.doctor.model import Subject
    from ollama_sweep.store.rows import SweepRow

COLOURS = {"ok": "green", "warning": "yellow", "bad": "red"}
PLACES = ("model", "engine", "host", "ollama")
"""Options that make sense without CONFIG; any other one needs the file."""


JOBS_WAIT_S = 600.0
"""Jobs of a batch system may wait for their turn; a server that is away is said at once."""


class _NotWell(SweepError):
    """Something is bad; the exit code is that of the worst."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@click.command("doctor", short_help="Check Ollama, model, disk, and what would spoil numbers.")
@shared.sweep_options
@click.option("--lanes", is_flag=True, help="Only measure whether the lanes of CONFIG disturb each other.")
@shared.cluster_options
@shared.share_option
@shared.db_option
@shared.json_option
@shared.verbose_option
def command(config: Path | None, db: Path, as_json: bool, verbose: bool, **given: Any) -> None:
    """Check whether a sweep can run here and whether its numbers would be true. Nothing is left behind.

    With CONFIG it looks at that sweep's model and prompt, else at the sweep that ran last, if there is one. It exits
    with 0 when nothing is bad; else with 5 (engine), 4 (disk), 3 (database of others) or 2 (input). What --lanes
    measures is kept in the database: while lanes disturb each other, what they measured is flagged.

    \b
    Example:
      ollama-sweep doctor
      ollama-sweep doctor configs/quickstart.yaml
      ollama-sweep doctor mine.yaml --lanes
      ollama-sweep doctor mine.yaml --lanes --cluster local:2
    """
    if shared.cluster_of(given) and not given["lanes"]:
        raise ConfigError("only with --lanes", "--cluster")
    found = []
    for finding in _of_lanes(config, db, given) if given["lanes"] else _examine(config, db, verbose, given):
        found.append(finding)
        if not as_json:
            say(_line(finding), head=click.style(f"{finding.state:<8}", fg=COLOURS[finding.state]))
    if as_json:
        entries = [{"check": one.check, "state": one.state, "text": one.text, "hint": one.hint} for one in found]
        say_json(entries, indent=2)
    else:
        say()
        say(_summary(found, config))
    worst = max((finding.exit_code for finding in found), default=0)
    if worst:
        bad = [finding.check for finding in found if finding.exit_code]
        raise _NotWell(f"bad: {', '.join(dict.fromkeys(bad))}", worst)


def _examine(config: Path | None, db: Path, verbose: bool, given: dict[str, Any]) -> Iterable[Finding]:
    from ollama_sweep.core.finding import of_error
    from ollama_sweep.plan.doctor.examination import Examination

    try:
        subject, settings = _subject(config, db, verbose, given)
    except SweepError as error:
        yield of_error("config", error)
        subject, settings = _without_sweep(verbose, given)
    yield from Examination(subject, settings, db, allow_network=given["allow_network_db"]).findings()


def _of_lanes(config: Path | None, db: Path, given: dict[str, Any]) -> Iterable[Finding]:
    """Whether those of the sweep disturb each other; nothing else is looked at."""
    from ollama_sweep.core.finding import of_error, warning
    from ollama_sweep.run.lanes import neighbours
    from ollama_sweep.run.session import SessionOptions
    from ollama_sweep.store import lock

    if lock.holder(db) is not None:
        yield warning(
            neighbours.CHECK, "a sweep is running, so nothing is measured beside it", "Ask again when it is done"
        )
        return
    try:
        spec = shared.spec_from(config, given)
        if not spec.has_lanes and not given["cluster"]:
            raise ConfigError("the sweep has no lanes: it needs the key gpus or hosts, or --cluster", "--lanes")
    except SweepError as error:
        yield of_error(neighbours.CHECK, error)
        return
    cluster = shared.cluster_of(given)
    wait_s = JOBS_WAIT_S if cluster.startswith("slurm:") else 0.0
    options = SessionOptions(
        remote=given["remote"], wait_engine_s=wait_s, allow_network_db=given["allow_network_db"],
        cluster=cluster, tls=given["tls"], insecure=given["insecure"],
        share_server=given["share_server"],
    )  # fmt: skip
    yield from neighbours.findings(spec, db, options, warn)


def _subject(config: Path | None, db: Path, verbose: bool, given: dict[str, Any]) -> tuple[Subject, EngineSettings]:
    """What is to be looked at: the sweep of CONFIG or of the command line, a sweep of the database, or nothing."""
    from ollama_sweep.plan.doctor.model import subject_of_spec

    row = _row(config, db)
    is_file = config is not None and (config.exists() or row is None)
    if not is_file and not _needs_file(given):
        return _of_row(row, verbose, given)
    from dataclasses import replace

    spec = shared.spec_from(config, given)
    subject = subject_of_spec(spec)
    if subject.engine == "auto" and row is not None and row.name == spec.name:
        subject = replace(subject, engine=row.engine)
    return subject, shared.engine_settings(spec, say=warn, verbose=verbose, remote=given["remote"])


def _needs_file(given: dict[str, Any]) -> bool:
    from ollama_sweep.plan.keys import OVERRIDES

    names = [override.name for _, override in OVERRIDES]
    return bool(given.get("settings")) or any(given.get(name) is not None for name in names if name not in PLACES)


def _row(config: Path | None, db: Path) -> SweepRow | None:
    """The sweep of the database that is meant, as far as there is one; what is wrong with it is said elsewhere."""
    from ollama_sweep.results.find import find_sweeps
    from ollama_sweep.store.reader import Reader

    try:
        reader = Reader.if_there(db)
        if reader is None:
            return None
        with reader:
            return find_sweeps(reader, None if config is None else str(config))[0]
    except (SweepError, OSError):
        return None


def _of_row(row: SweepRow | None, verbose: bool, given: dict[str, Any]) -> tuple[Subject, EngineSettings]:
    from dataclasses import replace

    from ollama_sweep import engines
    from ollama_sweep.plan.doctor.model import subject_of_row

    subject, settings = _without_sweep(verbose, given)
    if row is None:
        return subject, settings
    if settings.host is None:
        host = engines.facts(row.engine).look.living_host(str(row.spec.get("host", "")), settings)
        settings = replace(settings, host=host)
    if subject.models:
        return replace(subject, engine=given.get("engine") or row.engine), settings
    return replace(subject_of_row(row), engine=given.get("engine") or row.engine), settings


def _without_sweep(verbose: bool, given: dict[str, Any]) -> tuple[Subject, EngineSettings]:
    from ollama_sweep.engines.base import EngineSettings
    from ollama_sweep.plan.doctor.model import Subject

    settings = EngineSettings(
        host=given.get("host"),
        ollama=given.get("ollama"),
        allow_remote=given["remote"],
        say=warn,
        trace=shared.trace_to_stderr(verbose),
    )
    models = (given["model"],) if given.get("model") else ()
    return Subject(models=models, engine=given.get("engine") or "auto"), settings


def _line(finding: Finding) -> str:
    hint = f". {finding.hint}" if finding.hint else ""
    return f" {finding.check:<9} {' '.join(finding.text.split())}{hint}"


def _summary(found: list[Finding], config: Path | None) -> str:
    bad = sum(finding.exit_code > 0 for finding in found)
    warnings = sum(finding.state == "warning" for finding in found)
    told = f"{bad} bad, {_counted(warnings, 'warning')}"
    if bad:
        return f"{told}: a sweep would stop at what is bad."
    following = f" Next: ollama-sweep plan {config}" if config else ""
    return f"{told}: a sweep can run.{following}"


def _counted(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
