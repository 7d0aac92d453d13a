"""Who answers. An engine knows no task, no database and no plan, and no other engine but the one it is a kind of.

A file in this folder is an engine, or a folder with a file `engine`, and its name is the engine's name; apart from
`base` (the contract) and `shared` (what several engines use).
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from types import ModuleType
from typing import cast

from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.metrics import Metric, add_source
from ollama_sweep.engines.base import Engine, EngineSettings

ENTRY_POINTS = "ollama_sweep.engines"
NO_ENGINES = frozenset({"base", "shared"})


def known() -> tuple[str, ...]:
    """Names of all engines: the files here, and those other packages add by entry points."""
    own = {module.name for module in pkgutil.iter_modules(__path__)} - NO_ENGINES
    return tuple(sorted(own | {point.name for point in entry_points(group=ENTRY_POINTS)}))


def choose(settings: EngineSettings) -> str:
    """What `auto` means on this machine: Ollama where there is one to run, else the embedded llama.cpp."""
    ollama = importlib.import_module("ollama_sweep.engines.ollama.engine")
    return "ollama" if ollama.is_usable(settings) else "llamacpp"


def load(name: str, settings: EngineSettings) -> Engine:
    """Import the engine's file, only now, and make it. Raises ConfigError for an unknown name."""
    if name not in known():
        raise ConfigError(f"unknown engine {name}. Known: {', '.join(known())}.{nearest(name, known())}", "engine")
    added = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    module = added[name].load() if name in added else _module(name)
    return cast("Engine", module.Engine(settings))


def metrics() -> Iterator[Metric]:
    """What engines of other packages declare of their numbers; one that cannot be loaded declares nothing."""
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        with contextlib.suppress(Exception):
            yield from [one for one in getattr(point.load().Engine, "metrics", ()) if isinstance(one, Metric)]


add_source(metrics)


def _module(name: str) -> ModuleType:
    found = importlib.import_module(f"{__name__}.{name}")
    return importlib.import_module(f"{found.__name__}.engine") if hasattr(found, "__path__") else found
