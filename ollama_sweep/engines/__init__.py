"""The registry of engines: a file in this folder is an engine, its name is the file's name."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from typing import cast

from ollama_sweep.engine import Engine, EngineSettings
from ollama_sweep.errors import ConfigError, nearest

ENTRY_POINTS = "ollama_sweep.engines"


def known() -> tuple[str, ...]:
    """Names of all engines: the files here, and those other packages add by entry points."""
    own = {module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}
    return tuple(sorted(own | {point.name for point in entry_points(group=ENTRY_POINTS)}))


def choose(settings: EngineSettings) -> str:
    """What `auto` means on this machine: Ollama where there is one to run, else the embedded llama.cpp."""
    ollama = importlib.import_module("ollama_sweep.engines.ollama")
    return "ollama" if ollama.is_usable(settings) else "llamacpp"


def load(name: str, settings: EngineSettings) -> Engine:
    """Import the engine's file, only now, and make it. Raises ConfigError for an unknown name."""
    if name not in known():
        raise ConfigError(f"unknown engine {name}. Known: {', '.join(known())}.{nearest(name, known())}", "engine")
    added = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    module = added[name].load() if name in added else importlib.import_module(f"ollama_sweep.engines.{name}")
    return cast("Engine", module.Engine(settings))
