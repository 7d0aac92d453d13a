"""`service CONFIG`: a sweep that goes on by itself after a reboot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli.terminal import say, say_lines, warn
from ollama_sweep.core.errors import ConfigError

if TYPE_CHECKING:
    from ollama_sweep.machine.service import Plan, System


@click.command(
    "service",
    short_help="Go on with a sweep after a reboot.",
    context_settings={"ignore_unknown_options": True},
)
@click.option("--install", is_flag=True, help="Put it in place for this user.")
@click.option("--remove", is_flag=True, help="Take an installed one away.")
@click.option("--for", "kind", type=click.Choice(["systemd", "launchd"]), default=None, help="Print this kind.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[CONFIG] [OPTIONS OF run]")
def command(install: bool, remove: bool, kind: str | None, words: tuple[str, ...]) -> None:
    """Print a systemd user unit or a launchd agent that runs `run CONFIG …` from this folder, or install it.

    \b
    Example:
      ollama-sweep service configs/default.yaml
      ollama-sweep service configs/default.yaml --db big.db --install
    """
    from ollama_sweep.machine import service

    plan = _plan(words)
    if kind is not None and not (install or remove):
        say_lines(service.unit(plan) if kind == "systemd" else service.plist(plan))
        return
    system = _system(install or remove)
    if kind not in (None, system.kind):
        raise ConfigError(f"this system has {system.kind}, not {kind}", "--for")
    if remove:
        _remove(system, plan)
    elif install:
        _install(system, plan)
    else:
        say_lines(system.text(plan))
        warn(f"Put it in place with --install; it becomes {system.file(plan)}")


def _plan(words: tuple[str, ...]) -> Plan:
    """The command line of `run`, checked as `run` checks it. Raises ConfigError, click's errors."""
    import os

    from ollama_sweep.cli import shared
    from ollama_sweep.cli.commands import run
    from ollama_sweep.machine import service
    from ollama_sweep.run.detached import program_words
    from ollama_sweep.store.beside import log_path

    given: dict[str, Any] = run.command.make_context("ollama-sweep service", list(words)).params
    if given.get("detach"):
        raise ConfigError("a service needs no --detach", "--detach")
    spec = shared.spec_from(given["config"], given)
    config = [] if given["config"] or given["pair"] else [str(spec.config_path)]
    return service.Plan(
        name=spec.name,
        words=(*_program(program_words()), "run", *config, *words),
        folder=Path.cwd(),
        log=log_path(given["db"]),
        settings=service.settings_of(os.environ),
    )


def _program(words: list[str]) -> list[str]:
    """With whole paths: a service does not start in this folder's shell."""
    return [str(Path(word).absolute()) if not word.startswith("-") and Path(word).exists() else word for word in words]


def _system(needed: bool) -> System:
    from ollama_sweep.machine import service

    try:
        return service.this_system(Path.home())
    except ConfigError as error:
        if needed:
            raise
        raise ConfigError(f"{error}. To see the texts: --for systemd, --for launchd") from None


def _install(system: System, plan: Plan) -> None:
    import os

    from ollama_sweep.machine import service

    file = system.install(plan)
    say(f"Installed: {file}")
    say(f"Start it now: {system.start_words(plan)}")
    if system.kind == "systemd":
        say("It starts when you log in; to start at boot, without a login: loginctl enable-linger")
    else:
        say("It starts when you log in")
    for name in service.secrets_of(os.environ):
        place = f"~/{service.SECRETS_FILE} (chmod 600)" if system.kind == "systemd" else "the file's own settings"
        say(f"{name} is not in it, because it holds passwords; write it into {place}")
    say("Look at it with ollama-sweep status and logs -f, stop it with ollama-sweep stop")
    say("Remove it with the same command and --remove in place of --install")


def _remove(system: System, plan: Plan) -> None:
    file = system.remove(plan)
    if file is None:
        raise ConfigError(f"nothing is installed for sweep {plan.name} ({system.file(plan)})", "--remove")
    say(f"Removed: {file}. A run that goes on is ended with: ollama-sweep stop")
