"""Engines, tasks and plots: the files of a folder of the package, and what other packages on this computer add."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any

from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.metrics import Metric
from ollama_sweep.core.text import one_line

NO_PLUGINS = frozenset({"base", "shared"})
"""In each folder: the contract, and what several plug-ins use."""


class Plugins:
    """All of one kind (`engine`, `task`, `plot`), by name. Nothing of them is imported before it is loaded.

    A name is that of a file of the folder, or of a folder in it with a file of the kind's name (`engine`). Other
    packages add theirs by entry points of the group `ollama_sweep.<kind>s`; one with a name of ours stands for ours.
    """

    def __init__(self, kind: str, package: str, path: Iterable[str]) -> None:
        self._kind, self._package, self._path = kind, package, path

    def names(self) -> set[str]:
        """Of the files here, and of those that other packages add."""
        return {*self.own(), *self._added()}

    def module(self, name: str) -> Any:
        """The plug-in's module, imported only now. Raises ConfigError for an unknown name."""
        added = self._added()
        if name in added:
            return added[name].load()
        if name not in self.own():
            raise self.unknown(name, self.names())
        found = importlib.import_module(f"{self._package}.{name}")
        is_folder = hasattr(found, "__path__")
        return importlib.import_module(f"{found.__name__}.{self._kind}") if is_folder else found

    def metrics(self) -> Iterator[Metric]:
        """What they declare of their numbers; one of another package that cannot be loaded declares nothing."""
        for name in sorted(self.names()):
            with contextlib.nullcontext() if name in self.own() else contextlib.suppress(Exception):
                made = getattr(self.module(name), self._kind.capitalize())
                yield from [one for one in getattr(made, "metrics", ()) if isinstance(one, Metric)]

    def unknown(self, name: str, known: Iterable[str]) -> ConfigError:
        """The refusal of a name that none has."""
        names = sorted(known)
        text = f"unknown {self._kind} {one_line(name)}. Known: {', '.join(names)}.{nearest(name, names)}"
        return ConfigError(text, self._kind)

    def own(self) -> set[str]:
        """The names of the files here."""
        return set(_files(tuple(self._path)))

    def _added(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in _entry_points(f"ollama_sweep.{self._kind}s", tuple(sys.path))}


@lru_cache(maxsize=8)
def _files(path: tuple[str, ...]) -> frozenset[str]:
    """The names of the modules in these folders; asked for several times for each cell."""
    return frozenset(module.name for module in pkgutil.iter_modules(path)) - NO_PLUGINS


@lru_cache(maxsize=8)
def _entry_points(group: str, _path: tuple[str, ...]) -> EntryPoints:
    """Those of all packages on the path. Each of them is read for that, which takes longer than anything else here."""
    return entry_points(group=group)
