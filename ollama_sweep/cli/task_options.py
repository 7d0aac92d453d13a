"""--data-path, --max-tokens, --temperature and --max-retries: short for an option of each task that has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ollama_sweep.core.cell import MAIN_TASK
from ollama_sweep.core.errors import ConfigError

if TYPE_CHECKING:
    from ollama_sweep.plan.spec import SweepSpec

OPTIONS = {
    "--data-path": ("data", "FILE", "The items that the task reads (docs/tasks.md)."),
    "--max-tokens": ("max_tokens", "TOKENS", "Longest answer to a question of the tasks."),
    "--temperature": ("temperature", "NUMBER", "Temperature of the tasks' answers."),
    "--max-retries": ("max_retries", "COUNT", "How often a question without an answer is asked again."),
}
F = TypeVar("F", bound=Callable[..., Any])


def task_options(command: F) -> F:
    """All of them. What one means depends on the tasks of the sweep, so their values are checked with these."""
    for option, (_, metavar, text) in reversed(OPTIONS.items()):
        command = click.option(option, default=None, metavar=metavar, help=text)(command)
    return command


def given_of(given: Mapping[str, Any]) -> dict[str, str]:
    """What was typed, by option."""
    typed = {option: given.get(option.lstrip("-").replace("-", "_")) for option in OPTIONS}
    return {option: value for option, value in typed.items() if value is not None}


def settings_of(spec: SweepSpec, typed: Mapping[str, str]) -> tuple[str, ...]:
    """The same as texts of `--set` for the tasks of this sweep. Raises ConfigError where no task has the option."""
    found = []
    for option, value in typed.items():
        name = OPTIONS[option][0]
        having = [task for task in spec.task_names if _has(task, name)]
        if not having:
            raise ConfigError(f"no task of this sweep has it; it runs {', '.join(spec.task_names)}", option)
        if name == "data" and len(having) > 1:
            example = f"--set tasks.{having[0]}.data=FILE"
            message = f"{', '.join(having)} read files of their own; say whose this is, for example {example}"
            raise ConfigError(message, option)
        text = json.dumps(value, ensure_ascii=False) if name == "data" else value
        found += [f"tasks.{task}.{_as_in_file(spec, task, name)}={text}" for task in having]
    return tuple(found)


def _has(task: str, name: str) -> bool:
    """Every task with questions asks again; only texts have tokens; a prompt set is its own data."""
    from ollama_sweep import tasks
    from ollama_sweep.core.generation import GENERATE

    made = tasks.load(task)
    if task == MAIN_TASK:
        return False
    if name == "data":
        return not getattr(made, "is_prompt_set", False)
    return name == "max_retries" or made.kind == GENERATE


def _as_in_file(spec: SweepSpec, task: str, name: str) -> str:
    """num_predict and max_tokens are the same: the one that the file has is replaced."""
    is_other = name == "max_tokens" and "num_predict" in spec.task_options.get(task, {})
    return "num_predict" if is_other else name
