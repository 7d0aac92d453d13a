"""Who answers. An engine knows no task, no database and no plan, and no other engine but the one it is a kind of.

A file in this folder is an engine, or a folder with a file `engine`, and its name is the engine's name; apart from
`base` (the contract) and `shared` (what several engines use).
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import cast

from ollama_sweep.core.generation import EMBED, GENERATE
from ollama_sweep.engines.base import Engine, EngineSettings, Kept
from ollama_sweep.engines.shared.gate import Nonsense
from ollama_sweep.machine.plugins import Plugins

AUTO, SCRIPTED = "auto", "fake"
PREFERRED, BY_HOST, FALLBACK = "ollama", "ollama_http", "llamacpp"
"""What `auto` takes where there is one to run, what it takes where a server is named, and what it takes else."""
_PLUGINS = Plugins("engine", __name__, __path__)


class _Unknown(Engine):
    """What is assumed of an engine that is not chosen yet, or whose name nobody knows: that it can do everything."""

    settable = None
    kinds = frozenset({GENERATE, EMBED})
    asks_at_once = True


def known() -> tuple[str, ...]:
    """Names of all engines: the files here, and those other packages add by entry points."""
    return tuple(sorted(_PLUGINS.names()))


def facts(name: str) -> type[Engine]:
    """The class of an engine, for what is known of it before one is made. `auto` and unknown names have one, too."""
    return _class(name) if name in _PLUGINS.names() else _Unknown


def load(name: str, settings: EngineSettings) -> Engine:
    """Import the engine's file, only now, and make it. Raises ConfigError for an unknown name."""
    return _class(name)(settings)


def reader(name: str) -> Callable[[Kept], Mapping[str, float | None]]:
    """`Engine.read_again` of the engine of this name; it gives nothing where that is not here any more.

    Nothing also of what the scripted engine has said in the place of another one.
    """
    try:
        own, scripted = facts(name).read_again, facts(SCRIPTED).read_again
    except (ImportError, AttributeError):
        own = scripted = _Unknown.read_again

    def read(kept: Kept) -> Mapping[str, float | None]:
        try:
            return own(kept)
        except Nonsense:
            with contextlib.suppress(Nonsense):
                scripted(kept)
                return {}
            raise

    return read


def choose(settings: EngineSettings) -> str:
    """What `auto` means on this machine: Ollama where there is one to run, a server that the person has named, else
    the embedded llama.cpp.
    """
    return next((name for name in (PREFERRED, BY_HOST) if facts(name).is_usable(settings)), FALLBACK)


def _class(name: str) -> type[Engine]:
    return _with_defaults(_PLUGINS.module(name).Engine)


@cache
def _with_defaults(made: type) -> type[Engine]:
    """A plain class of another package gets the base behind its own methods, for what these do not say."""
    if issubclass(made, Engine):
        return made
    return cast("type[Engine]", types.new_class(made.__name__, (made, Engine)))
