"""The engine of a sweep: what it is told, which one it is, and the engine itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ollama_sweep.core.ledger import Ledger
    from ollama_sweep.engines.base import Engine, EngineSettings
    from ollama_sweep.plan.spec import SweepSpec


def silent(line: str) -> None:
    """Takes a line for a person where there is none."""


def engine_settings(
    spec: SweepSpec,
    *,
    ledger: Ledger | None = None,
    say: Callable[[str], None] = silent,
    trace: Callable[[str], None] = silent,
    remote: bool = False,
    setup: bool = False,
) -> EngineSettings:
    """What an engine of this sweep is told."""
    from ollama_sweep.engines.base import EngineSettings

    settings = EngineSettings(
        host=spec.host,
        ollama=spec.ollama,
        template=spec.template,
        timeout_s=spec.timeout_s,
        load_timeout_s=spec.load_timeout_s,
        allow_remote=remote,
        managed=spec.managed,
        restart_command=spec.restart_command,
        api_key_env=spec.api_key_env,
        extra={**spec.engine_options, **({"setup": "yes"} if setup else {})},
        say=say,
        trace=trace,
    )
    return settings if ledger is None else replace(settings, ledger=ledger)


def engine_name(spec: SweepSpec, settings: EngineSettings, pinned: str | None) -> str:
    """The engine to use: the one asked for, the one this sweep began with, or what `auto` finds."""
    from ollama_sweep import engines

    if spec.engine != "auto":
        return spec.engine
    return pinned or engines.choose(settings)


def open_engine(name: str, settings: EngineSettings) -> Engine:
    """The engine by name. Raises ConfigError for an unknown one."""
    from ollama_sweep import engines

    return engines.load(name, settings)
