"""`run --interactive`: asks a person at a terminal what to measure, and shows it as the sweep file it is.

Nothing is made before the last question is answered. What is asked are entries of a sweep file, so the same checks
serve both; the file is written only where the person names a path.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from ollama_sweep import engines, tasks
from ollama_sweep.cli import shared
from ollama_sweep.cli.commands import models
from ollama_sweep.cli.entries import listed, written
from ollama_sweep.cli.terminal import printable, say, say_lines
from ollama_sweep.core.cell import MAIN_TASK
from ollama_sweep.core.errors import ConfigError, SweepError, nearest
from ollama_sweep.core.strict_yaml import Node, parse
from ollama_sweep.core.text import one_line, surrogate_in
from ollama_sweep.engines.base import EngineInfo, EngineSettings
from ollama_sweep.machine import computer
from ollama_sweep.machine.files import check_file, expanded, write_whole
from ollama_sweep.plan import config as sweep_file
from ollama_sweep.plan.models import ALL, Installed, can, installed
from ollama_sweep.plan.opening import is_elsewhere
from ollama_sweep.plan.setups import with_tasks
from ollama_sweep.plan.spec import SweepSpec

HERE = "--interactive"
NAME = "interactive"
SIZES = {"num_ctx": "4096", "num_batch": "512"}
LONGEST_PROMPT = 1024
"""Tokens of the prompt that is made where the person names none; at most half of the smallest num_ctx."""
T = TypeVar("T")
_Entries = dict[str, Node]


@dataclass(frozen=True)
class _Place:
    """The engine that will measure, what is installed for it, and what it can do."""

    name: str
    info: EngineInfo
    found: tuple[Installed, ...]
    kinds: frozenset[str]
    settable: frozenset[str] | None


def interview(config: Path | None, given: dict[str, Any]) -> SweepSpec:
    """The sweep that the person describes; the values of CONFIG and the command line are the defaults.

    Raises ConfigError without a terminal, EngineUnavailable, click.Abort for Ctrl-C and Ctrl-D. Where the person has
    saved the answers, `given["interactive"]` is false afterwards: the file says everything then.
    """
    _refuse_without_person(given)
    overrides = shared.overrides_of(given)
    entries = sweep_file.given_entries(config, overrides)
    place = _look(entries, given)
    here = computer.OtherMachine(place.info.where) if is_elsewhere(place.info) else computer.machine()
    say(f"Machine: {here.line()}")
    say(f"Engine: {place.info.in_words}")
    _ask_tasks(entries, place)
    _ask_models(entries, place)
    if MAIN_TASK in _names(entries, "task"):
        _ask_sizes(entries, place)
    if config is None:
        entries.setdefault("name", _text(NAME))
    spec = with_tasks(
        sweep_file.spec_of(entries, config, overrides, max_cells=int(given.get("max_cells") or 2_000_000))
    )
    text = written(entries)
    say_lines(f"\nThe same as a sweep file:\n\n{text}\n")
    saved = _save(text)
    if saved is None:
        return spec
    given["interactive"] = False
    return with_tasks(
        sweep_file.load_spec(saved, {key: overrides[key] for key in overrides if key.startswith("allow")})
    )


def _refuse_without_person(given: Mapping[str, Any]) -> None:
    for option, why in {
        "detach": "save the answers, then: run FILE --detach",
        "as_json": "--json is for programs",
    }.items():
        if given.get(option):
            raise ConfigError(f"not together with --{option.removeprefix('as_')}; {why}", HERE)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("needs a terminal to ask in; without one write a sweep file and run that", HERE)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is no UTF-8 is refused as an answer, and asked again


def _text(value: str) -> Node:
    return Node(value, HERE, 0, value)


def _list(values: list[str]) -> Node:
    return Node([_text(value) for value in values], HERE) if len(values) > 1 else _text(values[0])


def _names(entries: _Entries, key: str) -> list[str]:
    return [str(item.value) for item in entries[key].items] if key in entries else []


def _look(entries: _Entries, given: Mapping[str, Any]) -> _Place:
    """Opens the engine for a moment, so that nothing is open while the person thinks."""
    values = {key: str(entries[key].value) for key in ("host", "ollama", "api_key_env", "engine") if key in entries}
    settings = EngineSettings(
        host=values.get("host"),
        ollama=values.get("ollama"),
        api_key_env=values.get("api_key_env"),
        allow_remote=given["remote"],
        managed="server" in entries,
        say=say,
        trace=shared.trace_to_stderr(given["verbose"]),
    )
    asked = values.get("engine", "auto")
    name = engines.choose(settings) if asked == "auto" else asked
    engine = engines.load(name, settings)
    try:
        return _Place(name, engine.describe(), installed(engine), engine.kinds, engine.settable)
    finally:
        engine.close()


def _ask(question: str, default: str | None, check: Callable[[str], T]) -> T:
    """Ask until the answer is one; Enter takes the default, where there is one (an empty one is not shown)."""

    def checked(answer: str) -> T:
        try:
            if surrogate_in(answer):
                raise ConfigError("the answer is not UTF-8")
            return check(answer)
        except SweepError as error:
            raise click.UsageError(printable(str(error), sys.stdout)) from None

    answer: T = click.prompt(
        printable(question, sys.stdout), default=default, value_proc=checked, show_default=bool(default)
    )
    return answer


# -- the questions ---------------------------------------------------------------------------------------------------


def _ask_tasks(entries: _Entries, place: _Place) -> None:
    known = [name for name in tasks.known() if tasks.load(name).kind in place.kinds]
    say()
    say("Tasks:")
    width = max(len(name) for name in known)
    for number, name in enumerate(known, 1):
        say(f"  {number:>2}  {name:<{width}}  {_described(name)}")
    usual = [name for name in _names(entries, "task") if name in known]
    default = usual or ([MAIN_TASK] if MAIN_TASK in known else known[:1])
    chosen = _ask("Which tasks (numbers or names)", ", ".join(default), lambda answer: _chosen(answer, known, "task"))
    options = entries.pop("tasks", Node({}, HERE)).value
    kept = {name: node for name, node in options.items() if name in chosen} if isinstance(options, dict) else {}
    for name in chosen:
        kept |= _with_data(name, kept)
    entries["task"] = _list(chosen)
    if kept:
        entries["tasks"] = Node(kept, HERE)


def _described(name: str) -> str:
    """The first sentence about a task; of one without Python where its prompts are."""
    module = sys.modules[type(tasks.load(name)).__module__]
    if module.__name__.rpartition(".")[2].startswith("_"):
        return f"the prompts of prompts/{name}.yaml"
    return (module.__doc__ or "").strip().partition("\n")[0].partition(". ")[0].rstrip(".")


def _with_data(name: str, options: Mapping[str, Node]) -> dict[str, Node]:
    """The options of a task with a data file, asked for where the task cannot be set up without one."""
    given = options[name].value if name in options else {}
    own = given if isinstance(given, dict) else {}
    try:
        tasks.load(name).setup(own)
    except ConfigError as error:
        say(str(error))
    else:
        return {name: options[name]} if name in options else {}

    def with_path(answer: str) -> Node:
        completed = {**own, "data": _text(answer)}
        tasks.load(name).setup(completed)
        return Node(completed, HERE)

    return {name: _ask(f"Path of the data for {name}", None, with_path)}


def _chosen(answer: str, known: list[str], what: str) -> list[str]:
    """The names that an answer such as `1, 3` or `chat items` means. Raises ConfigError."""
    found: dict[str, None] = {}
    for word in answer.replace(",", " ").split():
        if word.isdecimal() and 1 <= int(word) <= len(known):
            word = known[int(word) - 1]
        if word not in known:
            hint = nearest(word, known)
            raise ConfigError(f"no {what} {one_line(word)}; there are 1 to {len(known)}: {', '.join(known)}.{hint}")
        found[word] = None
    if not found:
        raise ConfigError(f"name at least one {what}")
    return list(found)


def _ask_models(entries: _Entries, place: _Place) -> None:
    say()
    known = [model.name for model in place.found]
    for number, line in enumerate(models.lines(place.info, place.found)):
        say(f"  {number if 1 <= number <= len(known) else '':>2}  {line}")
    usual = [name for name in _names(entries, "model") if _is_there(name, known)]
    kinds = {tasks.load(task).kind for task in _names(entries, "task")}
    able = [model.name for model in place.found if model.info and all(can(model.info, k) is not False for k in kinds)]
    default = ", ".join(usual or able[:1])
    question = f"Which models (numbers or names, {ALL}, or the path of a .gguf file)"
    entries["model"] = _list(_ask(question, default or None, lambda answer: _chosen_models(answer, known)))


def _is_there(name: str, known: list[str]) -> bool:
    if name.endswith(".gguf"):
        return expanded(name).is_file()
    return not known or name == ALL or name in known or f"{name}:latest" in known


def _chosen_models(answer: str, known: list[str]) -> list[str]:
    """As `_chosen`, with names that lack `:latest` and files besides. Raises ConfigError."""
    found: dict[str, None] = {}
    for word in (part.strip() for part in answer.split(",")):
        if word.endswith(".gguf"):
            check_file(expanded(word))
        if word and not _is_there(word, known):
            found |= dict.fromkeys(_chosen(word, known, "model"))
        elif word:
            found[word] = None
    if not found or (ALL in found and len(found) > 1):
        raise ConfigError(f"name at least one model, or {ALL} alone")
    return list(found)


def _ask_sizes(entries: _Entries, place: _Place) -> None:
    smallest = 2 * LONGEST_PROMPT
    for name, usual in SIZES.items():
        if place.settable is not None and name not in place.settable:
            entries.pop(name, None)
            continue
        default = listed(entries[name]) if name in entries else usual
        question = f"{name} (such as {usual}, or 1024, 2048, or {{start: 1024, end: 8192, factor: 2}})"
        entries[name] = _ask(question, default, partial(_size, name))
        values = [value for value in sweep_file.values_of(name, entries[name]) if isinstance(value, int)]
        smallest = min(values) if name == "num_ctx" else smallest
    if "prompt" not in entries:
        tokens = max(1, min(LONGEST_PROMPT, smallest // 2))
        entries["prompt"] = Node({"tokens": Node(tokens, HERE, 0, str(tokens))}, HERE)


def _size(name: str, answer: str) -> Node:
    is_list = "," in answer and not answer.lstrip().startswith(("[", "{"))
    node = parse(f"[{answer}]" if is_list else answer, HERE, numbered=False)
    if node is None:
        raise ConfigError(f"{name}: has no value", HERE)
    sweep_file.values_of(name, node)
    return node


def _save(text: str) -> Path | None:
    """Where the person keeps the file; None where they do not."""

    def path_of(answer: str) -> Path | None:
        if not answer.strip():
            return None
        path = expanded(answer.strip())
        if path.exists():
            raise ConfigError(f"{path} is there already")
        if not path.parent.is_dir():
            raise ConfigError(f"{path.parent} is no folder")
        return path

    answer = _ask("Save it as (a path; Enter: do not)", "", path_of)
    if answer is not None:
        write_whole(answer, text.encode())
        say(f"Saved. The next time: ollama-sweep run {answer}")
    return answer
