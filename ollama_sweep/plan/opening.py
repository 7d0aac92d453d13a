"""The engine of a sweep: which one, what it is told, and opened for as long as it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ollama_sweep import engines
from ollama_sweep.engines.base import Engine, EngineSettings
from ollama_sweep.machine.clocks import REAL, Clock, FastClock

if TYPE_CHECKING:
    from ollama_sweep.core.ledger import Ledger
    from ollama_sweep.core.options import Scalar
    from ollama_sweep.engines.base import EngineInfo
    from ollama_sweep.machine.computer import Machine, OtherMachine
    from ollama_sweep.plan.spec import Interim, SweepSpec
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
    clock: Clock = REAL,
) -> EngineSettings:
    """What an engine of this sweep is told."""
    settings = EngineSettings(
        host=spec.host or next((one.host for one in spec.hosts), None),
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
        clock=clock,
        recording=_text(spec.settings.get("recording")),
        recording_seed=_number(spec.settings.get("recording_seed")),
    )
    return settings if ledger is None else replace(settings, ledger=ledger)


def _text(value: Scalar) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Scalar) -> int | None:
    return value if isinstance(value, int) else None


def clock_of(spec: SweepSpec) -> Clock:
    """The clock of a run of this sweep: the real one, but for an engine that answers from a recording."""
    return FastClock() if engines.facts(spec.engine).is_replayed else REAL


def interim_of(spec: SweepSpec) -> Interim:
    """When pictures are drawn while it runs; nobody waits for those of a replay who did not ask for another time."""
    from ollama_sweep.plan.spec import Interim

    return Interim(None, None) if spec.interim == Interim() and not clock_of(spec).is_real else spec.interim


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


def machine_of(info: EngineInfo) -> Machine | OtherMachine:
    """The computer that an engine measures, as far as it can be seen from here."""
    from ollama_sweep.machine import computer

    if info.replays:
        gpus = (computer.Gpu(info.replays, None, None, ""),) if info.details.get("has_gpu") else ()
        return computer.RecordedMachine(info.details.get("machine", ""), gpus)
    return computer.OtherMachine(info.where) if is_elsewhere(info) else computer.machine()


def is_elsewhere(info: EngineInfo) -> bool:
    """What measures is not on this computer, or cannot be told to be, so this computer's readings are not its own."""
    from ollama_sweep.machine import ports

    if info.replays:
        return True
    return "://" in info.where and info.details.get("server") != "own" and ports.is_elsewhere(info.where)
