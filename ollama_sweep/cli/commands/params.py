"""`params MODEL`: sensible num_ctx and num_batch ranges for a model on this machine, as YAML to paste."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import shared, suggested
from ollama_sweep.cli.terminal import say_json, say_lines

if TYPE_CHECKING:
    from ollama_sweep.cli.suggested import Suggested


@click.command("params", short_help="Sensible num_ctx and num_batch ranges for a model.")
@suggested.model_options
@shared.db_option
@shared.json_option
@shared.verbose_option
def command(model: str, db: Path, as_json: bool, **given: Any) -> None:
    """Ranges of num_ctx and num_batch from MODEL's training context, its KV cache and the memory that is free now.

    MODEL is an installed name or the path of a .gguf file. What is printed is a sweep file: save it, then run it. It
    is a first look at the whole range; measure a smaller part with smaller steps afterwards. `init` writes the same
    as a file with comments.

    \b
    Example:
      ollama-sweep params llama3:8b > configs/llama3.yaml
      ollama-sweep run configs/llama3.yaml
    """
    from ollama_sweep.plan.written import sweep_file

    one = suggested.suggested(model, db, given)
    text = sweep_file.brief(one.info, one.memory, one.found, suggested.measured_already(db, one.sweeps))
    if as_json:
        say_json(_picture(one, text), indent=2)
        return
    say_lines(text)


def _picture(one: Suggested, text: str) -> dict[str, object]:
    info, found = one.info, one.found
    return {
        "model": info.name,
        "engine": one.engine.name if one.engine else None,
        "parameter_size": info.parameter_size,
        "quantization": info.quantization,
        "size_bytes": info.size_bytes,
        "context_length": info.context_length,
        "kv_bytes_per_token": info.kv_bytes_per_token,
        "free_bytes": one.memory.free_bytes,
        "memory": one.memory.where,
        "num_ctx": found.num_ctx.picture(),
        "num_batch": found.num_batch.picture(),
        "prompt": {"tokens": found.prompt_tokens},
        "cells": found.cells,
        "reasons": dict(found.reasons),
        "notes": list(found.notes),
        "yaml": text,
    }
