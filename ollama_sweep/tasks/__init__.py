"""What is asked and how it is judged. A task knows no engine, no database and no plan.

A file in this folder is a task and its name is the file's name, apart from `base` (the contract) and `shared` (what
several tasks use). So is a prompt set `prompts/NAME.yaml`.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.metrics import Metric, add_source
from ollama_sweep.core.text import one_line
from ollama_sweep.tasks.base import Task
from ollama_sweep.tasks.shared import data

ENTRY_POINTS = "ollama_sweep.tasks"
NO_TASKS = frozenset({"base", "shared"})
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")


def known() -> tuple[str, ...]:
    """Names of all tasks: the files here, those other packages add by entry points, and prompt sets."""
    return tuple(sorted({*_own(), *_added(), *_prompt_sets()}))


def load(name: str) -> Task:
    """Make a task; its file is imported only now. Raises ConfigError for an unknown name."""
    if name in _own():
        return cast("Task", importlib.import_module(f"ollama_sweep.tasks.{name}").Task())
    added = _added()
    if name in added:
        return cast("Task", added[name]().Task())
    sets = _prompt_sets()
    if name not in sets:
        hint = nearest(name, known())
        raise ConfigError(f"unknown task {one_line(name)}. Known: {', '.join(known())}.{hint}", "task")
    without_python = importlib.import_module("ollama_sweep.tasks.shared.prompt_set")
    return cast("Task", without_python.Task(name, sets[name]))


def metrics() -> Iterator[Metric]:
    """What the tasks declare of their numbers; one of another package that cannot be loaded declares nothing."""
    for name in sorted(_own()):
        yield from importlib.import_module(f"ollama_sweep.tasks.{name}").Task.metrics
    for _, load_module in sorted(_added().items()):
        with contextlib.suppress(Exception):
            yield from [one for one in getattr(load_module().Task, "metrics", ()) if isinstance(one, Metric)]


add_source(metrics)


def _own() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__)} - NO_TASKS


def _added() -> dict[str, Callable[[], Any]]:
    return {point.name: point.load for point in entry_points(group=ENTRY_POINTS)}


def _prompt_sets() -> dict[str, Path]:
    """Prompt sets by name; those of the working directory come before the shipped ones."""
    found: dict[str, Path] = {}
    for folder in data.folders():
        for path in sorted(folder.glob("*.yaml")):
            if _NAME.fullmatch(path.stem):
                found.setdefault(path.stem, path)
    return found
