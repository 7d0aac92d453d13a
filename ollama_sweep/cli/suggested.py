"""What `params` and `init` know of a model: what its engine or file says, the memory, and the ranges that suit it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import warn
from ollama_sweep.core.errors import ConfigError, EngineUnavailable

if TYPE_CHECKING:
    from ollama_sweep.engines.base import EngineInfo, ModelInfo
    from ollama_sweep.plan.ranges import Room, Suggestion

F = TypeVar("F", bound=Callable[..., Any])
_NO_OLLAMA = "no Ollama was found: install it from ollama.com, or name a .gguf file, which llama.cpp can measure"


@dataclass(frozen=True)
class Suggested:
    """A model, who was asked of it (None for a file), and what was found; `sweeps` of it stand in the database."""

    info: ModelInfo
    engine: EngineInfo | None
    memory: Room
    found: Suggestion
    sweeps: Sequence[str]


def model_options(command: F) -> F:
    """MODEL, and who is asked of it."""
    command = click.option("--remote", is_flag=True, help="Allow a host that is another machine.")(command)
    command = click.option("--ollama", default=None, metavar="PATH", help="The ollama program.")(command)
    command = click.option("--host", default=None, metavar="HOST", help="Where the Ollama server answers.")(command)
    command = click.option("--engine", default="auto", show_default=True, help="auto, ollama, llamacpp or fake.")(
        command
    )
    return click.argument("model")(command)


def suggested(model: str, db: Path, given: Mapping[str, Any]) -> Suggested:
    """The model's metadata, the memory that is free, and ranges for both. Raises ConfigError, EngineUnavailable."""
    import os

    from ollama_sweep.machine.computer import machine, visible
    from ollama_sweep.plan import opening, ranges

    info, engine = _look_up(model, given)
    is_elsewhere = engine is not None and opening.is_elsewhere(engine)
    here, settings = machine(), {} if is_elsewhere else os.environ
    memory = ranges.room(visible(here.gpus, os.environ), here.available_bytes)
    memory = ranges.UNKNOWN_ROOM if is_elsewhere else memory
    return Suggested(info, engine, memory, ranges.suggest(info, memory, settings), _sweeps_of(db, model))


def _look_up(model: str, given: Mapping[str, Any]) -> tuple[ModelInfo, EngineInfo | None]:
    """The model's metadata: of a file from its head, else from the engine."""
    if model.lower().endswith(".gguf"):
        return _file_info(model), None
    if model.endswith((":cloud", "-cloud")):
        raise ConfigError(f"{model} is a cloud model: it does not run on this machine", "MODEL")
    from ollama_sweep import engines
    from ollama_sweep.engines.base import EngineSettings

    settings = EngineSettings(
        host=given["host"],
        ollama=given["ollama"],
        allow_remote=given["remote"],
        say=warn,
        trace=shared.trace_to_stderr(given["verbose"]),
    )
    is_chosen = given["engine"] == engines.AUTO
    name = engines.choose(settings) if is_chosen else given["engine"]
    engine = engines.load(name, settings)
    try:
        return engine.model_info(model), engine.describe()
    except (ConfigError, EngineUnavailable):
        if is_chosen and name == engines.FALLBACK:
            raise EngineUnavailable(_NO_OLLAMA) from None
        raise
    finally:
        engine.close()


def _file_info(model: str) -> ModelInfo:
    """Of a file's head only."""
    from ollama_sweep.engines.shared.gguf import head_info, read_header

    is_embedder = read_header(Path(model).expanduser()).is_embedding_model
    return replace(head_info(model), capabilities=("embedding",) if is_embedder else ("completion",))


def _sweeps_of(db: Path, model: str) -> list[str]:
    """The names of the sweeps of this model that the database holds."""
    from ollama_sweep.store.reader import Reader

    reader = Reader.if_there(db)
    if reader is None:
        return []
    with reader:
        return [row.name for row in reader.sweeps() if model in _models_of(row.spec.get("model"))]


def _models_of(entries: object) -> list[str]:
    """The names in a stored picture's `name digest` entries."""
    return [str(entry).rpartition(" ")[0] for entry in entries] if isinstance(entries, list) else []


def measured_already(db: Path, sweeps: Sequence[str]) -> list[str]:
    """A line for each of these sweeps, at most three."""
    return [f"{db} has results of it already: ollama-sweep best {name}" for name in sweeps[:3]]
