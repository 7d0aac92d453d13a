"""What this end of a cluster says of itself, for the handshake."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from ollama_sweep import __version__
from ollama_sweep.plan.hosts.handshake import Side

EXTRA = "ollama_sweep"
"""The word under which a worker says it to its scheduler, as plain data: it is read before anything is sent."""


def own(name: str) -> Side:
    """This one; what it has of Ollama is said by its lane."""
    return Side(name, __version__, f"{sys.version_info.major}.{sys.version_info.minor}", _distributed())


def _distributed() -> str:
    try:
        return version("distributed")
    except PackageNotFoundError:
        return ""
