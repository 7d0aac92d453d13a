"""`init MODEL [FILE]`: a commented sweep file with ranges that suit the model and the memory."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from ollama_sweep.cli import paths, shared, suggested
from ollama_sweep.cli.terminal import say, say_exactly
from ollama_sweep.core.errors import ConfigError

_WHERE = ("host", "ollama")
"""Options that are keys of the file as well."""


@click.command("init", short_help="A commented sweep file for a model, to begin with.")
@suggested.model_options
@click.argument("file", required=False, type=paths.LATER)
@click.option("--force", is_flag=True, help="Write over an existing file.")
@shared.db_option
@shared.verbose_option
def command(model: str, file: Path | None, force: bool, db: Path, **given: Any) -> None:
    """Write a sweep file for MODEL with the ranges of `params`, with what each key is for, and with further keys that
    are often wanted, switched off.

    MODEL is an installed name or the path of a .gguf file. FILE left out is the model's name with .yaml, in this
    folder; `-` prints it. An engine that is named here stands in the file.

    \b
    Example:
      ollama-sweep init llama3:8b
      ollama-sweep plan llama3-8b.yaml
    """
    from ollama_sweep.machine.files import write_whole
    from ollama_sweep.machine.places import STDOUT, check_output
    from ollama_sweep.plan.written import sweep_file

    target = file or _usual(model)
    is_printed = str(target) in STDOUT
    if not is_printed:
        check_output(target)
    if not is_printed and target.exists() and not force:
        raise ConfigError("exists; use --force, or name another file", str(target))
    _check_name(model)
    one = suggested.suggested(model, db, given)
    name = shlex.quote("FILE.yaml" if is_printed else str(target))
    remote = " --remote" if given["remote"] else ""
    further = [*suggested.measured_already(db, one.sweeps), "", *_next(name, remote), *_for_editors(target)]
    text = sweep_file.commented(one.info, one.memory, one.found, further, _where(given))
    if is_printed:
        say_exactly(text)
        return
    write_whole(target, text.encode())
    say(f"{target}: {sweep_file.size(one.found)}")
    for line in _next(name, remote):
        say(f"  {line}")


def _for_editors(target: Path) -> list[str]:
    """How the schema comes to lie beside the file, which names it; nothing where it does."""
    from ollama_sweep.plan import schema

    beside = target.parent / schema.FILE
    return (
        []
        if beside.exists()
        else ["", f"Editors complete this file after: ollama-sweep schema > {shlex.quote(str(beside))}"]
    )


def _usual(model: str) -> Path:
    """The model's name as that of a file in this folder: `llama3-8b.yaml`, also for hf.co/someone/llama3:8b."""
    from ollama_sweep.machine.files import safe_name

    last = model.rpartition("/")[2]
    stem = last[: -len(".gguf")] if last.lower().endswith(".gguf") else last
    path = Path(f"{safe_name(stem, exact=False)}.yaml")
    paths.OUTPUT.convert(path, None, None)
    return path


def _check_name(model: str) -> None:
    """That a sweep file can name it, before an engine is asked. Raises ConfigError."""
    from ollama_sweep.plan.load import load

    load(model=model, allow_cloud=True, prompt={"text": "any"}, num_ctx=512, num_batch=512)


def _where(given: dict[str, Any]) -> dict[str, str]:
    """Who answers, where the person has said so."""
    from ollama_sweep import engines

    named = {} if given["engine"] == engines.AUTO else {"engine": given["engine"]}
    return named | {name: given[name] for name in _WHERE if given[name]}


def _next(name: str, remote: str) -> list[str]:
    commands = {
        f"plan {name}{remote}": "what would run, and how much memory it takes",
        f"run {name}{remote}": "measure it, or go on with it",
        f"best {name}": "the best cells and a Modelfile that uses them",
    }
    width = max(map(len, commands))
    return [f"ollama-sweep {words:<{width}}  # {what}" for words, what in commands.items()]
