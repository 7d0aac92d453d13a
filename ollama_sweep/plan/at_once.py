"""Several questions at once (`concurrency`): which engines and tasks can, and what a server will keep waiting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ollama_sweep import engines
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.engines.base import Engine
from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.tasks.base import Setup

KEY = "concurrency"
_PARALLEL = ("num_parallel", "OLLAMA_NUM_PARALLEL")


def most(spec: SweepSpec) -> int:
    """The largest number of questions in flight at once."""
    return max(cast("tuple[int, ...]", spec.dimensions.get(KEY, (spec.options.get(KEY, 1),))))


def refuse_engine(spec: SweepSpec, name: str, engine: type[Engine] | Engine) -> None:
    """Raise ConfigError where the engine asks one question at a time and more are wanted."""
    if most(spec) > 1 and not engine.asks_at_once:
        known = ((one, engines.facts(one)) for one in engines.known())
        able = ", ".join(one for one, facts in known if facts.asks_at_once and not facts.is_scripted)
        text = f"the engine {name} asks one question at a time, so concurrency can only be 1; others can: {able}"
        raise ConfigError(text, KEY)


def refuse_tasks(spec: SweepSpec, setups: Mapping[str, Setup]) -> None:
    """Raise ConfigError where a task has nothing to ask at once: one prompt, or rows that go in batches already."""
    if most(spec) == 1:
        return
    unable = [name for name, setup in setups.items() if not _can(setup)]
    if not unable:
        return
    able = [name for name in setups if name not in unable]
    why = "sends its rows in batches" if setups[unable[0]].questions else "asks one prompt again and again"
    rest = f"; here {', '.join(able)} can" if able else ", such as chat, items, mmlu, json_quality or a prompt set"
    text = f"the task {unable[0]} {why}, so concurrency can only be 1; it takes a task with questions{rest}"
    raise ConfigError(text, KEY)


def _can(setup: Setup) -> bool:
    return bool(setup.questions) and not any(question.texts for question in setup.questions)


def too_few(spec: SweepSpec, setups: Mapping[str, Setup]) -> tuple[str, ...]:
    """A warning for each task that has fewer questions than may be in flight."""
    wanted = most(spec)
    counts = {name: len(one.questions) * (one.repeats or spec.repeats.minimum) for name, one in setups.items()}
    return tuple(
        f"concurrency goes up to {wanted}, and {name} asks {count} in a cell: no more are in flight (repeats, limit)"
        for name, count in counts.items()
        if count < wanted and wanted > 1
    )


def queueing(spec: SweepSpec) -> tuple[str, ...]:
    """A warning where the sweep's own server runs fewer requests at once than are in flight."""
    wanted = most(spec)
    if wanted == 1 or not spec.managed:
        return ()
    given = [value for name in _PARALLEL for value in spec.dimensions.get(name, (spec.server.get(name),))]
    known = [int(value) for value in given if value is not None and str(value).isdigit()]
    if not known:
        text = "num_parallel is not set, and Ollama runs 1 at once unless OLLAMA_NUM_PARALLEL says more"
    elif min(known) < wanted:
        text = f"num_parallel is {min(known)}" if len(known) == 1 else f"num_parallel goes down to {min(known)}"
    else:
        return ()
    return (f"concurrency goes up to {wanted} and {text}: the others wait in the server's queue (served_parallel)",)
