"""`params MODEL`: sensible num_ctx and num_batch ranges for a model on this machine, as YAML to paste."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import say_json, say_lines, warn
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.text import as_json, whole_line

if TYPE_CHECKING:
    from ollama_sweep.engines.base import EngineInfo, ModelInfo
    from ollama_sweep.plan.ranges import Range, Room, Suggestion

_PLAIN = re.compile(r"[A-Za-z~./][\w~./:-]*[\w]")
_NOT_PLAIN = frozenset({"true", "false", "null", "yes", "no", "on", "off"})


@click.command("params", short_help="Sensible num_ctx and num_batch ranges for a model.")
@click.argument("model")
@click.option("--engine", default="auto", show_default=True, help="auto, ollama, llamacpp or fake.")
@click.option("--host", default=None, metavar="HOST", help="Where the Ollama server answers.")
@click.option("--ollama", default=None, metavar="PATH", help="The ollama program.")
@click.option("--remote", is_flag=True, help="Allow a host that is another machine.")
@shared.db_option
@shared.json_option
@shared.verbose_option
def command(model: str, db: Path, as_json: bool, **given: Any) -> None:
    """Ranges of num_ctx and num_batch from MODEL's training context, its KV cache and the memory that is free now.

    MODEL is an installed name or the path of a .gguf file. What is printed is a sweep file: save it, then run it. It
    is a first look at the whole range; measure a smaller part with smaller steps afterwards.

    \b
    Example:
      ollama-sweep params llama3:8b > configs/llama3.yaml
      ollama-sweep run configs/llama3.yaml
    """
    import os

    from ollama_sweep.machine.computer import machine, visible
    from ollama_sweep.plan import opening, ranges

    info, engine = _look_up(model, given)
    is_elsewhere = engine is not None and opening.is_elsewhere(engine)
    here, settings = machine(), {} if is_elsewhere else os.environ
    memory = ranges.room(visible(here.gpus, os.environ), here.available_bytes)
    memory = ranges.UNKNOWN_ROOM if is_elsewhere else memory
    found = ranges.suggest(info, memory, settings)
    text = text_of(info, memory, found, _measured_already(db, model))
    if as_json:
        say_json(_picture(info, engine, memory, found, text), indent=2)
        return
    say_lines(text)


def _look_up(model: str, given: dict[str, Any]) -> tuple[ModelInfo, EngineInfo | None]:
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
    name = engines.choose(settings) if given["engine"] == "auto" else given["engine"]
    if name == engines.FALLBACK and given["engine"] == engines.AUTO:
        settings.say("No Ollama was found (install it from ollama.com, or: make ollama): llama.cpp looks for the model")
    engine = engines.load(name, settings)
    try:
        return engine.model_info(model), engine.describe()
    finally:
        engine.close()


def _file_info(model: str) -> ModelInfo:
    """Of a file's head only: its digest, which takes a while for a large file, is not needed."""
    from ollama_sweep.engines.base import ModelInfo
    from ollama_sweep.engines.shared.gguf import read_header

    path = Path(model).expanduser()
    header = read_header(path)
    return ModelInfo(
        name=model,
        digest="",
        family=header.architecture,
        parameter_size=header.parameter_size,
        quantization=header.quantization,
        context_length=header.context_length,
        size_bytes=path.stat().st_size,
        kv_bytes_per_token=header.kv_bytes_per_token,
        capabilities=("embedding",) if header.is_embedding_model else ("completion",),
    )


def text_of(info: ModelInfo, memory: Room, found: Suggestion, further: list[str]) -> str:
    """The sweep file, its comments included. The first is for editors, where a schema lies beside the file."""
    from ollama_sweep.plan.schema import COMMENT

    lines = [COMMENT, *_head(info, memory, found), *further, *_body(info.name, found)]
    return "".join(f"{line}\n" for line in lines)


def _head(info: ModelInfo, memory: Room, found: Suggestion) -> list[str]:
    """What the numbers come from, as comments."""
    from ollama_sweep.core.units import format_bytes

    facts = [info.parameter_size and f"{info.parameter_size} parameters", info.quantization]
    facts += [f"{format_bytes(info.size_bytes)} of weights"] if info.size_bytes else []
    facts += [f"trained for {info.context_length} tokens"] if info.context_length else []
    known = ", ".join(fact for fact in facts if fact) or "nothing known of it"
    cache = "KV cache: unknown"
    if info.kv_bytes_per_token is not None:
        largest = found.num_ctx.end
        total = format_bytes(info.kv_bytes_per_token * largest)
        cache = f"KV cache (f16): {format_bytes(info.kv_bytes_per_token)} a token, {total} for num_ctx {largest}"
    lines = [f"{info.name}: {known}", f"{cache}. {_free(memory)}"]
    lines += [f"Note: {note}" for note in found.notes]
    contexts, batches = len(found.num_ctx.values()), len(found.num_batch.values())
    lines.append(f"{contexts} num_ctx x {batches} num_batch = {found.cells} cells; out of memory is a result, too")
    return [f"# {_on_one_line(line)}" for line in lines]


def _free(memory: Room) -> str:
    from ollama_sweep.core.units import format_bytes

    if memory.free_bytes is None:
        return f"How much of {memory.where} is free is not known"
    return f"Free now: {format_bytes(memory.free_bytes)} of {memory.where}"


def _measured_already(db: Path, model: str) -> list[str]:
    """A comment for each sweep of this model that the database holds."""
    from ollama_sweep.store.reader import Reader

    reader = Reader.if_there(db)
    if reader is None:
        return []
    with reader:
        names = [row.name for row in reader.sweeps() if model in _models_of(row.spec.get("model"))]
    return [f"# {db} has results of it already: ollama-sweep best {_on_one_line(name)}" for name in names[:3]]


def _models_of(entries: object) -> list[str]:
    """The names in a stored picture's `name digest` entries."""
    return [str(entry).rpartition(" ")[0] for entry in entries] if isinstance(entries, list) else []


def _body(model: str, found: Suggestion) -> list[str]:
    values = {
        "num_ctx": _written(found.num_ctx),
        "num_batch": _written(found.num_batch),
        "prompt": f"{{tokens: {found.prompt_tokens}}}",
    }
    width = max(len(f"{name}: {value}") for name, value in values.items())
    lines = [f"{f'{name}: {value}':<{width}}  # {found.reasons[name]}" for name, value in values.items()]
    return [f"model: {_quoted(model)}", *lines]


def _written(some: Range) -> str:
    if some.start == some.end:
        return str(some.start)
    return "{" + ", ".join(f"{name}: {value}" for name, value in some.picture().items()) + "}"


def _quoted(model: str) -> str:
    is_plain = _PLAIN.fullmatch(model) and model.lower() not in _NOT_PLAIN
    return model if is_plain else as_json(model)


def _on_one_line(text: str) -> str:
    """Metadata come from files of others: no line break may end the comment."""
    return whole_line(" ".join(text.split()))


def _picture(
    info: ModelInfo, engine: EngineInfo | None, memory: Room, found: Suggestion, text: str
) -> dict[str, object]:
    return {
        "model": info.name,
        "engine": engine.name if engine else None,
        "parameter_size": info.parameter_size,
        "quantization": info.quantization,
        "size_bytes": info.size_bytes,
        "context_length": info.context_length,
        "kv_bytes_per_token": info.kv_bytes_per_token,
        "free_bytes": memory.free_bytes,
        "memory": memory.where,
        "num_ctx": found.num_ctx.picture(),
        "num_batch": found.num_batch.picture(),
        "prompt": {"tokens": found.prompt_tokens},
        "cells": found.cells,
        "reasons": dict(found.reasons),
        "notes": list(found.notes),
        "yaml": text,
    }
