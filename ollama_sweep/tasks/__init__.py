"""The registry of tasks: a file in this folder is a task, so is a prompt set `prompts/NAME.yaml`."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from ollama_sweep import data_files
from ollama_sweep.errors import ConfigError, nearest
from ollama_sweep.spec import Repeats
from ollama_sweep.task import Setup, Task
from ollama_sweep.yaml_strict import Node, one_line

ENTRY_POINTS = "ollama_sweep.tasks"
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
    without_python = importlib.import_module("ollama_sweep.tasks._without_python")
    return cast("Task", without_python.Task(name, sets[name]))


def set_up(names: Iterable[str], given: Mapping[str, Mapping[str, Node]]) -> dict[str, Setup]:
    """The setups of a sweep's tasks, by name; `given` is what the file says under `tasks:`.

    Raises ConfigError for an unknown task, for options of a task that the sweep does not run, and as `Task.setup`.
    """
    wanted = list(dict.fromkeys(names))
    for name, options in given.items():
        if name not in wanted:
            place = next((node.place for node in options.values()), f"tasks.{name}")
            hint = nearest(name, wanted)
            message = f"tasks.{one_line(name)}: this sweep does not run it; it runs {', '.join(wanted)}.{hint}"
            raise ConfigError(message, place)
    return {name: _set_up(name, given.get(name, {})) for name in wanted}


def _set_up(name: str, given: Mapping[str, Node]) -> Setup:
    """A task's setup; how often an unanswered question is asked again is part of what its cells are known by.

    It decides which questions count as failed. How often every question is asked is not: more rounds are added.
    """
    made = load(name).setup(given)
    if not made.questions:
        return made
    return replace(made, options=tuple(sorted({**dict(made.options), "max_retries": made.max_retries}.items())))


def warnings(setups: Mapping[str, Setup], repeats: Repeats) -> tuple[str, ...]:
    """What a sweep's `repeats` ask of its tasks and cannot have, in words; empty where there is nothing to say."""
    asked = [f"{name} {one.repeats or repeats.minimum}" for name, one in setups.items() if one.questions]
    if repeats.until is None or not asked:
        return ()
    text = "repeats.until holds for the main task only; questions are asked a fixed number of times"
    return (f"{text}: {', '.join(asked)}",)


def _own() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}


def _added() -> dict[str, Callable[[], Any]]:
    return {point.name: point.load for point in entry_points(group=ENTRY_POINTS)}


def _prompt_sets() -> dict[str, Path]:
    """Prompt sets by name; those of the working directory come before the shipped ones."""
    found: dict[str, Path] = {}
    for folder in data_files.folders():
        for path in sorted(folder.glob("*.yaml")):
            if _NAME.fullmatch(path.stem):
                found.setdefault(path.stem, path)
    return found
