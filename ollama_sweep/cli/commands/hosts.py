"""`hosts`: other computers before anything is measured there: are they well, and do they know each other?"""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ollama_sweep.cli import paths, shared
from ollama_sweep.cli.terminal import say, say_json
from ollama_sweep.core.errors import ConfigError, SweepError

if TYPE_CHECKING:
    from ollama_sweep.core.finding import Finding
    from ollama_sweep.plan.hosts.checking import Host, Seen
    from ollama_sweep.plan.spec import SweepSpec

COLOURS = {"ok": "green", "warning": "yellow", "bad": "red"}
SWEEP_FILES = (".yaml", ".yml")
FOLDER = "hosts-tls"
ANSWER_S = 5.0
LONGEST_NAME = 30
SOON_DAYS = 30


@click.group("hosts", no_args_is_help=False, short_help="Other computers: are they well? Certificates between them.")
def command() -> None:
    """Other computers that measure: whether each could, and the certificates by which they know each other.

    \b
    Example:
      ollama-sweep hosts check gpu-a gpu-b:11435 --model llama3:8b
      ollama-sweep hosts init
    """


class _NotWell(SweepError):
    """A host cannot be used; the exit code is that of the worst."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@command.command("check", short_help="Is each host there, with the model, the version, the clock?")
@click.argument("what", nargs=-1, metavar="[FILE | ADDRESS...]")
@click.option("--model", "models", multiple=True, metavar="NAME", help="A model that must be there; may be repeated.")
@click.option("--tls", "tls", type=paths.LATER, default=None, metavar="FOLDER", help="Also look at certificates here.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.1, 600), default=ANSWER_S, show_default=True,
              metavar="SECONDS", help="How long each answer may take.")  # fmt: skip
@shared.json_option
def check(what: tuple[str, ...], models: tuple[str, ...], tls: Path | None, timeout_s: float, as_json: bool) -> None:
    """Ask the hosts of a sweep file, or those at these addresses, all at once: does each answer, as which Ollama, with
    which models and digests, how far is its clock from ours, is there room on its disk where that can be known? One
    line for each; the first one that is well is what the others are compared with. Nothing is loaded or changed.

    A host that cannot be used makes the exit code 5, one that is named twice 2.

    \b
    Example:
      ollama-sweep hosts check 10.0.0.5 10.0.0.6:11435 --model llama3:8b
      ollama-sweep hosts check configs/default.yaml --json
      ollama-sweep hosts check --tls hosts-tls/worker
    """
    from ollama_sweep.core.finding import State

    if math.isnan(timeout_s):
        raise ConfigError("must be a number of seconds", "--timeout")
    if not what and tls is None:
        raise ConfigError("name a sweep file, addresses, or --tls FOLDER", "hosts check")
    seen = _seen(what, models, timeout_s)
    found = [*([_of_certificates(tls)] if tls is not None else []), *(one.finding for one in seen)]
    if as_json:
        say_json([*(_as_dict(one) for one in found[: len(found) - len(seen)]), *map(_host_as_dict, seen)], indent=2)
    else:
        width = min(LONGEST_NAME, max(len(one.check) for one in found))
        for one in found:
            say(_line(one, width), head=click.style(f"{one.state:<8}", fg=COLOURS[one.state]))
        if seen:
            say()
            say(f"{sum(one.finding.state is not State.BAD for one in seen)} of {len(seen)} hosts can be used")
    bad = [one for one in found if one.state is State.BAD]
    if bad:
        raise _NotWell(f"bad: {', '.join(one.check for one in bad)}", max(one.exit_code for one in bad))


def _seen(what: tuple[str, ...], models: tuple[str, ...], timeout_s: float) -> list[Seen]:
    from ollama_sweep import engines
    from ollama_sweep.plan.hosts import checking

    spec, hosts = _hosts(what)
    asked = (*models, *(checking.models_of(spec) if spec is not None and not models else ()))
    engine = spec.engine if spec is not None else engines.AUTO
    return checking.check(hosts, asked, engine=engine, timeout_s=timeout_s)


def _hosts(what: tuple[str, ...]) -> tuple[SweepSpec | None, tuple[Host, ...]]:
    """The hosts of the sweep file that is named, or those at the addresses; what they are to measure, if that is known.

    Raises ConfigError.
    """
    from ollama_sweep.plan.hosts import checking

    named = [word for word in what if Path(word).suffix.lower() in SWEEP_FILES]
    if named and len(what) > 1:
        raise ConfigError(f"name one sweep file, or addresses; here are both, or several: {' '.join(what)}", named[0])
    if not named:
        return None, checking.of_texts(what)
    path = Path(named[0])
    paths.CONFIG.convert(path, None, None)
    spec = shared.spec_from(path, {})
    return spec, checking.of_spec(spec)


def _of_certificates(folder: Path) -> Finding:
    from datetime import UTC, datetime

    from ollama_sweep.core.finding import of_error, ok, warning
    from ollama_sweep.machine.hosts import certificates

    try:
        found = certificates.look(folder)
    except SweepError as error:
        return of_error("tls", error)
    days = (found.ends_at - datetime.now(UTC)).days
    text = f"{folder}: {found.name}, ends on {found.ends_at:%Y-%m-%d}"
    if days < SOON_DAYS:
        hint = f"Make new ones in time: ollama-sweep hosts init {shlex.quote(str(folder.parent))} --force"
        return warning("tls", f"{text}, in {days} days", hint)
    return ok("tls", text)


def _line(one: Finding, width: int) -> str:
    hint = f". {one.hint}" if one.hint else ""
    return f" {one.check:<{width}} {' '.join(one.text.split())}{hint}"


def _as_dict(one: Finding) -> dict[str, object]:
    return {"check": one.check, "state": one.state, "text": one.text, "hint": one.hint}


def _host_as_dict(one: Seen) -> dict[str, object]:
    told = one.told
    what = {
        "version": told.version if told else None,
        "models": dict(told.models) if told else None,
        "clock_off_s": told.clock_off_s if told else None,
        "free_bytes": told.free_bytes if told else None,
    }
    return {**_as_dict(one.finding), "address": one.host.where, **what}


@command.command("init", short_help="Certificates for a coordinator and its workers.")
@click.argument("folder", required=False, type=paths.LATER, default=FOLDER)
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long they are valid.")
@click.option("--force", is_flag=True, help="Write over those that are there.")
def init(folder: Path, days: int, force: bool) -> None:
    """Make certificates in FOLDER (hosts-tls): `coordinator` for this computer, `worker` for every other one. Only who
    has one of them can join, and what hosts say to each other is encrypted. The key that signed them is not kept.

    \b
    Example:
      ollama-sweep hosts init
      scp -r hosts-tls/worker gpu-a:
    """
    from ollama_sweep.machine.hosts import certificates

    ends_at = certificates.make(folder, days=days, force=force)
    here, there = (shlex.quote(str(folder / role)) for role in certificates.ROLES)
    say(f"{folder}: certificates for a coordinator and its workers, until {ends_at:%Y-%m-%d}")
    say(f"  {here} stays on the computer that coordinates")
    say(f"  {there} goes to every other one, for example: scp -r {there} HOST:")
    say("Who has one of these folders can run programs on all of these hosts: copy them by ssh only")
    say("The key that signed them was not kept: for new ones, or one host fewer, use --force and copy them again")
    say(f"Look at one where it is used: ollama-sweep hosts check --tls {here}")
