"""The keys of a sweep file that are not dimensions: texts, counts, repeats, the order, the prompt and the template."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ollama_sweep import engines
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.core.text import one_line
from ollama_sweep.engines.shared import modelfile
from ollama_sweep.machine import env
from ollama_sweep.machine.conditions import Conditions, parse_quiet_hours
from ollama_sweep.machine.files import expanded, read_text
from ollama_sweep.plan.spec import Interim, PromptSpec, Repeats

ORDERS = ("column-first", "columns-bisected", "row-first", "shuffled")
ENGINE_OPTIONS = ("device", "max_seq_length", "trust_remote_code")
_Entries = Mapping[str, Node]
_REPEATS = ("min", "max", "until")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_MODELFILE_MB, _PROMPT_MB = 1, 16


def unknown(node: Node, name: str, known: Iterable[str], what: str = "unknown key") -> ConfigError:
    """The refusal of a key nobody knows, with the nearest known one."""
    if name.lower().replace("-", "_") in ("api_key", "apikey"):
        return node.error("api_key must not be in the file; use api_key_env: NAME")
    if name == "stop":
        return node.error("stop belongs into the Modelfile: PARAMETER stop")
    return node.error(f"{what} {one_line(name)}.{nearest(name, known)}")


def text(node: Node | None, name: str) -> str | None:
    """One line of text, None where the key is missing."""
    return node.line_of_text(name) if node else None


def identifier(node: Node | None, name: str) -> str | None:
    """Letters, digits and _, None where the key is missing."""
    word = text(node, name)
    if node and word and not _IDENTIFIER.fullmatch(word):
        raise node.error(f"{name}: only letters, digits and _ (max 40)")
    return word


def count(node: Node | None, name: str, default: int, low: int, high: int) -> int:
    """A whole number between two bounds."""
    value = node.whole(name, default) if node else default
    if node and not low <= value <= high:
        raise node.error(f"{name} must be {low} to {high}")
    return value


def repeats(node: Node | None) -> Repeats:
    """A number of runs, or {min, max, until}."""
    if node is None or not isinstance(node.value, dict):
        runs = count(node, "repeats", 3, 1, 1000)
        return Repeats(runs, runs)
    parts = node.value
    for part, inner in parts.items():
        if part not in _REPEATS:
            raise unknown(inner, part, _REPEATS, "repeats: unknown key")
    if len(parts) != len(_REPEATS):
        raise node.error("repeats: write a number, or {min: 3, max: 20, until: 2%}")
    minimum, maximum = (count(parts[part], f"repeats.{part}", 3, 1, 1000) for part in ("min", "max"))
    if maximum < minimum:
        raise parts["max"].error(f"repeats.max: {maximum} is smaller than min {minimum}")
    until = _PERCENT.fullmatch(parts["until"].source)
    if not until or not 0 < float(until.group(1)) < 100:
        raise parts["until"].error("repeats.until: write a percentage like 2%")
    return Repeats(minimum, maximum, float(until.group(1)) / 100)


def order(node: Node | None) -> str:
    """One of `ORDERS`."""
    word = text(node, "order") or ORDERS[0]
    if node and word not in ORDERS:
        raise node.error(f"order: {node.shown} is not known; known are {', '.join(ORDERS)}.{nearest(word, ORDERS)}")
    return word


def template(node: Node | None, allow_local: bool) -> tuple[Path | None, str]:
    """The Modelfile template: its path and its text, checked."""
    if node is None:
        return None, ""
    path = expanded(node.line_of_text("modelfile"))
    text = read_text(path, _MODELFILE_MB, node)
    modelfile.parse(text, str(path), allow_local)
    return path, text


def prompt(node: Node) -> PromptSpec:
    """The prompt of a file, of {text: ...} or of {tokens: 4096}."""
    if isinstance(node.value, dict):
        return _given_prompt(node, node.value)
    path = expanded(node.line_of_text("prompt"))
    text = read_text(path, _PROMPT_MB, node)
    if not text.strip():
        raise node.error(f"{path}: the prompt is empty")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise node.error(f"{path}:{line}: contains a control character (U+0000)")
    return PromptSpec(text, source=str(path))


def _given_prompt(node: Node, parts: _Entries) -> PromptSpec:
    for part, inner in parts.items():
        if part not in ("text", "tokens"):
            raise unknown(inner, part, ("text", "tokens"), "prompt: unknown key")
    if len(parts) != 1:
        raise node.error("prompt: write a path, {text: ...} or {tokens: 4096}")
    if "tokens" in parts:
        return PromptSpec(None, count(parts["tokens"], "prompt.tokens", 4096, 1, 10_000_000))
    text = parts["text"]
    if isinstance(text.value, str) and not text.value.strip():
        raise text.error("the prompt is empty")
    return PromptSpec(text.text("prompt.text"))


def words(node: Node | None, name: str) -> tuple[str, ...]:
    """A command as a list of words, never one string that a shell would have to take apart."""
    if node is None:
        return ()
    if not isinstance(node.value, list) or not node.value:
        raise node.error(f"{name} must be a list of words, such as [systemctl, --user, restart, ollama]")
    return tuple(item.line_of_text(name) for item in node.value)


def task_options(node: Node | None) -> Mapping[str, Mapping[str, Node]]:
    """`tasks:` with the options of each task below its name; the tasks themselves check them."""
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        raise node.mismatch("tasks", "write the names of tasks and their options below it")
    for name, inner in node.value.items():
        if not isinstance(inner.value, dict) and inner.value is not None:
            raise inner.mismatch(f"tasks.{name}", "write options such as num_predict: 100 below it")
    return {name: inner.value if isinstance(inner.value, dict) else {} for name, inner in node.value.items()}


def default_model(engine: Node | None) -> Node | None:
    """The model of LLM_MODEL_NAME, or the usual one, for an engine that has such; None for every other."""
    usual = engines.facts(str(engine.value)).default_model if engine else None
    if usual is None:
        return None
    model = env.setting("LLM_MODEL_NAME") or usual
    return Node(model, "LLM_MODEL_NAME", 0, model)


def engine_options(node: Node | None) -> Mapping[str, str]:
    """What only some engines know: where it computes, the longest text, whether a model may bring code."""
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        raise node.mismatch("engine_options", "write names and their values below it")
    found = {}
    for name, inner in node.value.items():
        if name == "device":
            found[name] = inner.line_of_text(name)
        elif name == "max_seq_length":
            found[name] = str(count(inner, name, 512, 1, 1_000_000))
        elif name == "trust_remote_code":
            found[name] = "yes" if inner.truth(name) else "no"
        else:
            raise unknown(inner, name, ENGINE_OPTIONS, "engine_options: unknown key")
    return found


def managed(node: Node | None) -> bool:
    """`server: managed`: the sweep starts and watches a server of its own."""
    if node is not None and node.value != "managed":
        raise node.error(f"server: {node.shown} is not known; the only value is managed")
    return node is not None


def conditions(entries: _Entries) -> Conditions:
    """quiet_hours, only_on_ac and wait_for_idle_gpu: what a sweep waits for before each cell."""
    node = entries.get("quiet_hours")
    found = Conditions(
        only_on_ac="only_on_ac" in entries and entries["only_on_ac"].truth("only_on_ac"),
        wait_for_idle_gpu="wait_for_idle_gpu" in entries and entries["wait_for_idle_gpu"].truth("wait_for_idle_gpu"),
    )
    if node is None:
        return found
    try:
        hours = parse_quiet_hours(", ".join(item.line_of_text("quiet_hours") for item in node.items))
    except ValueError as error:
        raise node.error(f"quiet_hours: {error}") from None
    return replace(found, quiet=hours)


def interim(node: Node | None, name: str, default: Interim) -> Interim:
    """A number of cells, a time like 10m, or off."""
    if node is None:
        return default
    if node.value == "off":
        return Interim(None, None)
    if isinstance(node.value, str):
        try:
            return Interim(None, node.seconds(name))
        except ConfigError:
            message = f"{name}: write a number of cells (20), a time like 10m (at most 168h), or off"
            raise node.error(message) from None
    return Interim(count(node, name, 20, 1, 1_000_000), None)
