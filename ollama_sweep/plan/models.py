"""`model: all`: which of an engine's installed models can do a sweep's tasks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.errors import ConfigError, EngineUnavailable
from ollama_sweep.core.generation import EMBED, GENERATE
from ollama_sweep.engines.base import Engine, ModelInfo
from ollama_sweep.plan.spec import SweepSpec

ALL = "all"
"""What stands for every installed model; one that is really called so is `all:latest`."""
_NEEDED = {GENERATE: "completion", EMBED: "embedding"}
_VERB = {GENERATE: "answer", EMBED: "embed"}


@dataclass(frozen=True)
class Installed:
    """An installed model: what the engine says of it, or why it says nothing."""

    name: str
    info: ModelInfo | None
    error: str = ""


def is_cloud(model: str) -> bool:
    """The model does not run on this machine."""
    return model.endswith((":cloud", "-cloud"))


def installed(engine: Engine) -> tuple[Installed, ...]:
    """Every installed model, by name. Raises EngineUnavailable where the engine itself cannot be used."""
    return tuple(_look_up(engine, name) for name in engine.models())


def _look_up(engine: Engine, name: str) -> Installed:
    try:
        return Installed(name, engine.model_info(name))
    except (EngineUnavailable, ConfigError) as error:
        engine.describe()
        return Installed(name, None, str(error))


def can(info: ModelInfo, kind: str) -> bool | None:
    """Whether a model can do a kind of task; None where its engine does not say."""
    return _NEEDED[kind] in info.capabilities if info.capabilities else None


def resolved(spec: SweepSpec, engine: Engine, kinds: Collection[str], say: Callable[[str], None]) -> SweepSpec:
    """The sweep with the installed models that can do these kinds of tasks as its dimension `model`.

    A sweep that names its models stays as it is. Raises ConfigError where no model is left, EngineUnavailable.
    """
    if spec.dimensions.get("model") != (ALL,):
        return spec
    return replace(spec, dimensions={**spec.dimensions, "model": usable(engine, kinds, say)})


def usable(engine: Engine, kinds: Collection[str], say: Callable[[str], None]) -> tuple[str, ...]:
    """The names of the installed models that can do these kinds of tasks; `say` is told them and those left out.

    Raises ConfigError where there is none, EngineUnavailable.
    """
    found = installed(engine)
    if not found:
        raise ConfigError(f"all: no model is installed for {engine.describe().name}", "model")
    why = {model.name: _why_not(model, kinds) for model in found}
    kept = tuple(name for name, reason in why.items() if not reason)
    left_out = ", ".join(f"{name} ({reason})" for name, reason in why.items() if reason)
    if not kept:
        raise ConfigError(f"all: no installed model can do this sweep's tasks: {left_out}", "model")
    rest = f"; left out: {left_out}" if left_out else ""
    say(f"model: all is {', '.join(model_label(name) for name in kept)}{rest}")
    return kept


def _why_not(model: Installed, kinds: Collection[str]) -> str:
    """Why a model is left out, empty where it is not."""
    if is_cloud(model.name):
        return "runs in a cloud"
    if model.info is None:
        return model.error
    unable = [_VERB[kind] for kind in _NEEDED if kind in kinds and can(model.info, kind) is False]
    return f"cannot {' and '.join(unable)}" if unable else ""
