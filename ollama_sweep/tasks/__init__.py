"""What is asked and how it is judged. A task knows no engine, no database and no plan.

A file in this folder is a task and its name is the file's name, apart from `base` (the contract) and `shared` (what
several tasks use). So is a prompt set `prompts/NAME.yaml`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from ollama_sweep.core.metrics import Metric, add_source
from ollama_sweep.machine.plugins import Plugins
from ollama_sweep.tasks.base import Task
from ollama_sweep.tasks.shared import data

_PLUGINS = Plugins("task", __name__, __path__)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")


def known() -> tuple[str, ...]:
    """Names of all tasks: the files here, those other packages add by entry points, and prompt sets."""
    return tuple(sorted({*_PLUGINS.names(), *_prompt_sets()}))


def load(name: str) -> Task:
    """Make a task; its file is imported only now. Raises ConfigError for an unknown name."""
    if name in _PLUGINS.names():
        return cast("Task", _PLUGINS.module(name).Task())
    sets = _prompt_sets()
    if name not in sets:
        raise _PLUGINS.unknown(name, known())
    without_python = importlib.import_module("ollama_sweep.tasks.shared.prompt_set")
    return cast("Task", without_python.Task(name, sets[name]))


def own() -> set[str]:
    """Names of the tasks whose files lie here."""
    return _PLUGINS.own()


def metrics() -> Iterator[Metric]:
    """What tasks declare of their numbers."""
    return _PLUGINS.metrics()


add_source(metrics)


def _prompt_sets() -> dict[str, Path]:
    """Prompt sets by name; those of the working directory come before the shipped ones."""
    found: dict[str, Path] = {}
    for folder in data.folders():
        for path in sorted(folder.glob("*.yaml")):
            if _NAME.fullmatch(path.stem):
                found.setdefault(path.stem, path)
    return found
