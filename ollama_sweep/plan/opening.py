"""The engine of a sweep: which one, what it is told, and opened for as long as it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ollama_sweep import engines
from ollama_sweep.engines.base import Engine, EngineSettings

if TYPE_CHECKING:
    from ollama_sweep.core.ledger import Ledger
    from ollama_sweep.engines.base import EngineInfo
    from ollama_sweep.plan.spec import SweepSpec
    from ollama_sweep.store.reader import Reader


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
        libllama=spec.libllama,
        extra={**spec.engine_options, **({"setup": "yes"} if setup else {})},
        say=say,
        trace=trace,
    )
    return settings if ledger is None else replace(settings, ledger=ledger)


def engine_name(spec: SweepSpec, settings: EngineSettings, pinned: str | None) -> str:
    """The engine to use: the one asked for, the one this sweep began with, or what `auto` finds."""
    if spec.engine != engines.AUTO:
        return spec.engine
    return pinned or engines.choose(settings)


def pinned_engine(reader: Reader | None, name: str) -> str | None:
    """The engine that this sweep began with, None where it is new."""
    row = reader.sweep_if_there(name) if reader else None
    return row.engine if row else None


def open_engine(name: str, settings: EngineSettings) -> Engine:
    """The engine by name. Raises ConfigError for an unknown one."""
    return engines.load(name, settings)


@contextlib.contextmanager
def opened(name: str, settings: EngineSettings) -> Iterator[Engine]:
    """The engine by name, closed at the end. Raises ConfigError for an unknown one."""
    engine = open_engine(name, settings)
    try:
        yield engine
    finally:
        engine.close()


def is_elsewhere(info: EngineInfo) -> bool:
    """What measures is not on this computer, or cannot be told to be, so this computer's readings are not its own."""
    from ollama_sweep.machine import ports

    return "://" in info.where and info.details.get("server") != "own" and ports.is_elsewhere(info.where)
