"""The registry of tasks: a file in this folder is a task, its name is the file's name."""

from __future__ import annotations

import importlib
import pkgutil
from typing import cast

from ollama_sweep.errors import ConfigError, nearest
from ollama_sweep.task import Task


def known() -> tuple[str, ...]:
    """Names of all tasks."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))


def load(name: str) -> Task:
    """Import the task's file, only now, and make it. Raises ConfigError for an unknown name."""
    if name not in known():
        raise ConfigError(f"unknown task {name}. Known: {', '.join(known())}.{nearest(name, known())}", "task")
    return cast("Task", importlib.import_module(f"ollama_sweep.tasks.{name}").Task())
