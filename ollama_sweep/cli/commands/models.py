"""`models`: what is installed for an engine, and what each of it can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import say, say_json, warn

if TYPE_CHECKING:
    from ollama_sweep.engines.base import Engine, EngineInfo, EngineSettings
    from ollama_sweep.plan.models import Installed

HEAD = ("NAME", "PARAMETERS", "QUANTIZATION", "SIZE", "CONTEXT", "CAN", "LOADED")
UNKNOWN = "-"


@click.command("models", short_help="What is installed for an engine, and what each model can do.")
@click.option("--engine", default="auto", show_default=True, help="auto, or one of the engines by name.")
@click.option("--host", default=None, metavar="HOST", help="Where the server answers.")
@click.option("--ollama", default=None, metavar="PATH", help="The ollama program.")
@click.option("--remote", is_flag=True, help="Allow a host that is another machine.")
@shared.db_option
@shared.json_option
@shared.verbose_option
def command(as_json: bool, **given: Any) -> None:
    """The installed models: parameters, quantization, size, training context, what each can do, and whether it is
    loaded now. Nothing is loaded or pulled for this.

    `models: all` in a sweep file takes all of these that can do the sweep's tasks.

    \b
    Example:
      ollama-sweep models
      ollama-sweep models --engine ollama --host 127.0.0.1:11434 --json
    """
    info, found = look(settings_of(given), given["engine"])
    if as_json:
        picture = {"engine": info.name, "version": info.version, "where": info.where}
        rows = [_picture(model) for model in found]
        say_json({**picture, "models": rows}, indent=2)
        return
    for line in lines(info, found):
        say(line)


def settings_of(given: dict[str, Any]) -> EngineSettings:
    """What the engine is told by the options of this command."""
    from ollama_sweep.engines.base import EngineSettings

    return EngineSettings(
        host=given["host"],
        ollama=given["ollama"],
        allow_remote=given["remote"],
        say=warn,
        trace=shared.trace_to_stderr(given["verbose"]),
    )


def look(settings: EngineSettings, name: str) -> tuple[EngineInfo, tuple[Installed, ...]]:
    """The engine and its installed models. Raises ConfigError for an unknown engine, EngineUnavailable."""
    from ollama_sweep import engines
    from ollama_sweep.plan.models import installed

    chosen = engines.choose(settings) if name == "auto" else name
    engine: Engine = engines.load(chosen, settings)
    try:
        return engine.describe(), installed(engine)
    finally:
        engine.close()


def lines(info: EngineInfo, found: tuple[Installed, ...]) -> list[str]:
    """A line for each model under a head; one line where there is none."""
    from ollama_sweep import engines
    from ollama_sweep.cli.tables import table

    where = info.in_words
    if not found:
        example = engines.facts(info.name).how_to_get_a_model
        hint = f". For example: {example}" if example else ""
        return [f"No model is installed for {where}{hint}"]
    rows = [HEAD, *(_row(model) for model in found)]
    return [*table(rows, left=len(HEAD)), f"{len(found)} installed for {where}"]


def _row(model: Installed) -> tuple[str, ...]:
    from ollama_sweep.core.units import format_bytes

    info = model.info
    if info is None:
        return (model.name, *[UNKNOWN] * 4, " ".join(model.error.split()), UNKNOWN)
    size = format_bytes(info.size_bytes) if info.size_bytes else UNKNOWN
    context = str(info.context_length or UNKNOWN)
    loaded = UNKNOWN if info.is_loaded is None else "yes" if info.is_loaded else "no"
    return (
        model.name,
        info.parameter_size or UNKNOWN,
        info.quantization or UNKNOWN,
        size,
        context,
        _can(model),
        loaded,
    )


def _can(model: Installed) -> str:
    able = {"answer": _able(model, "generate"), "embed": _able(model, "embed")}
    return ", ".join(word for word, is_able in able.items() if is_able) or UNKNOWN


def _able(model: Installed, kind: str) -> bool | None:
    from ollama_sweep.plan.models import can

    return can(model.info, kind) if model.info else None


def _picture(model: Installed) -> dict[str, object]:
    info = model.info
    if info is None:
        return {"name": model.name, "error": model.error}
    return {
        "name": info.name,
        "digest": info.digest,
        "parameter_size": info.parameter_size,
        "quantization": info.quantization,
        "size_bytes": info.size_bytes,
        "context_length": info.context_length,
        "capabilities": list(info.capabilities),
        "can_answer": _able(model, "generate"),
        "can_embed": _able(model, "embed"),
        "is_loaded": info.is_loaded,
    }
