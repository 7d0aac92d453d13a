"""The tasks of a sweep, set up as its file says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ollama_sweep import engines
from ollama_sweep.core.cell import PROMPT_TOKENS
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.core.text import one_line
from ollama_sweep.plan import at_once
from ollama_sweep.plan.spec import Repeats, SweepSpec
from ollama_sweep.plan.survey import refuse_settings_of_a_strange_server
from ollama_sweep.tasks import load
from ollama_sweep.tasks.base import Setup


def with_tasks(spec: SweepSpec) -> SweepSpec:
    """The sweep with its tasks set up, which reads their data. Raises ConfigError.

    What a named engine cannot have is refused here as well, before anything waits for a server.
    """
    if spec.arms:
        arms = tuple(with_tasks(arm) for arm in spec.arms)
        return replace(arms[0], name=spec.name, arm=None, arms=arms)
    refuse_settings_of_a_strange_server(spec, spec.engine)
    at_once.refuse_engine(spec, spec.engine, engines.facts(spec.engine))
    setups = set_up(spec.task_names, spec.task_options)
    at_once.refuse_tasks(spec, setups)
    more = (*warnings(setups, spec.repeats), *at_once.queueing(spec), *at_once.too_few(spec, setups))
    ready = replace(spec, setups=setups, warnings=(*spec.warnings, *more))
    return _without_lengths(ready) if not any(map(ready.has_own_prompt, ready.task_names)) else ready


def _without_lengths(spec: SweepSpec) -> SweepSpec:
    """The sweep without a dimension that none of its cells has."""
    if PROMPT_TOKENS not in spec.dimensions:
        return spec
    others = {name: values for name, values in spec.dimensions.items() if name != PROMPT_TOKENS}
    text = (
        f"prompt.tokens: no task of this sweep sends the prompt, so its length is not varied: {', '.join(spec.setups)}"
    )
    return replace(spec, dimensions=others, warnings=(*spec.warnings, text))


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
