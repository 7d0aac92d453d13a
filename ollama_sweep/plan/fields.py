"""The keys of a sweep file that are not dimensions: texts, counts, repeats, the order, the prompt and the template."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import cast

from ollama_sweep import engines
from ollama_sweep.core.cell import PROMPT_TOKENS
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.core.surface.goal import KINDS, LARGEST, OFF, Goal
from ollama_sweep.core.text import one_line
from ollama_sweep.engines.shared import modelfile
from ollama_sweep.machine import env
from ollama_sweep.machine.conditions import QuietHours, parse_quiet_hours
from ollama_sweep.machine.files import expanded, read_text
from ollama_sweep.plan.keys import BY_NAME, ENGINE_OPTIONS, Key, Kind
from ollama_sweep.plan.spec import Cooldown, Interim, NamedHost, PromptSpec, Repeats, Warmup

_Entries = Mapping[str, Node]
AUTO = "auto"
_REPEATS = ("min", "max", "until")
USUAL_RUNS = {Kind.WARMUP: Warmup().minimum, Kind.REPEATS: Repeats().minimum}
"""What a person may write in place of `auto`."""
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}")
ALL_GPUS = "all"
_MODELFILE_MB, _PROMPT_MB = 1, 16
_GOAL_PARTS = ("ttft_s", "rate")
_LONGEST_TTFT_S = 7 * 86400


def unknown(node: Node, name: str, known: Iterable[str], what: str = "unknown key") -> ConfigError:
    """The refusal of a key nobody knows, with the nearest known one."""
    if name.lower().replace("-", "_") in ("api_key", "apikey"):
        return node.error("api_key must not be in the file; use api_key_env: NAME")
    if name == "stop":
        return node.error("stop belongs into the Modelfile: PARAMETER stop")
    if name == PROMPT_TOKENS:
        return node.error(f"{name} is the name of the dimension; it is written as prompt: {{tokens: [1024, 8192]}}")
    return node.error(f"{what} {one_line(name)}.{nearest(name, known)}")


def unknown_part(node: Node, name: str, known: Collection[str], where: str) -> ConfigError:
    """The refusal of a part that a value does not have; the parts are few, so all are named."""
    return node.error(f"{where}: unknown key {one_line(name)}; known are {', '.join(known)}.{nearest(name, known)}")


def percent_of(text: str) -> float | None:
    """The share that `90%` says; None for what is no percentage."""
    found = _PERCENT.fullmatch(text)
    return float(found.group(1)) / 100 if found else None


def read(key: Key, node: Node) -> object:
    """The checked value of a key that one reader reads alone. Raises ConfigError."""
    return READERS[key.kind](node, key)


def setting(key: Key, node: Node | None) -> Scalar:
    """The checked value of a key without a field of its own: what the file says, else the default."""
    if node is None and key.default is None:
        return None
    return cast("Scalar", read(key, node or Node(key.default, key.name, 0, str(key.default))))


def identifier(node: Node, key: Key) -> str:
    """Letters, digits and _."""
    word = node.line_of_text(key.name)
    if not _IDENTIFIER.fullmatch(word):
        raise node.error(f"{key.name}: only letters, digits and _ (max 40)")
    return word


def count(node: Node, name: str, example: int, low: int | None, high: int | None) -> int:
    """A whole number between two bounds."""
    value = node.whole(name, example)
    if (low is not None and value < low) or (high is not None and value > high):
        raise node.error(f"{name} must be {low} to {high}")
    return value


def warmup(node: Node, key: Key) -> Warmup:
    """A number of runs, or auto."""
    if node.value == AUTO:
        return Warmup()
    if isinstance(node.value, str):
        raise node.error(f"{key.name}: {node.shown} is not known; write a number of runs or {AUTO}")
    runs = _counted(node, key)
    return Warmup(runs, runs)


def share(node: Node, key: Key) -> float:
    """A percentage, 0 for off."""
    if node.value == "off":
        return 0.0
    found = percent_of(node.source)
    if found is None or not 0 < found <= 1:
        raise node.error(f"{key.name}: {node.shown} is not known; write a percentage of 100% at most, like 10%, or off")
    return found


def repeats(node: Node, key: Key) -> Repeats:
    """A number of runs, {min, max, until}, or auto."""
    if node.value == AUTO:
        return Repeats()
    if isinstance(node.value, str):
        raise node.error(
            f"{key.name}: {node.shown} is not known; write a number of runs, {{min, max, until}} or {AUTO}"
        )
    if not isinstance(node.value, dict):
        runs = _counted(node, key)
        return Repeats(runs, runs, is_auto=False)
    parts = node.value
    for part, inner in parts.items():
        if part not in _REPEATS:
            raise unknown_part(inner, part, _REPEATS, "repeats")
    if len(parts) != len(_REPEATS):
        raise node.error("repeats: write a number, or {min: 3, max: 20, until: 2%}")
    minimum, maximum = (count(parts[part], f"repeats.{part}", 3, key.low, key.high) for part in ("min", "max"))
    if maximum < minimum:
        raise parts["max"].error(f"repeats.max: {maximum} is smaller than min {minimum}")
    until = percent_of(parts["until"].source)
    if until is None or not 0 < until < 1:
        raise parts["until"].error("repeats.until: write a percentage like 2%")
    return Repeats(minimum, maximum, until, is_auto=False)


def choice(node: Node, key: Key) -> str | bool:
    """One of some words; where there is only one, whether it stands there."""
    if len(key.choices) == 1:
        if node.value != key.choices[0]:
            raise node.error(f"{key.name}: {node.shown} is not known; the only value is {key.choices[0]}")
        return True
    word = node.line_of_text(key.name)
    if word not in key.choices:
        known = f"known are {', '.join(key.choices)}.{nearest(word, key.choices)}"
        raise node.error(f"{key.name}: {node.shown} is not known; {known}")
    return word


def thought(node: Node, key: Key) -> bool | str:
    """true, false, or one of some words."""
    if isinstance(node.value, bool):
        return node.value
    known = ("true", "false", *key.choices)
    if node.value not in key.choices:
        hint = nearest(str(node.value), known)
        raise node.error(f"{key.name}: {node.shown} is not known; known are {', '.join(known)}.{hint}")
    return str(node.value)


def template(node: Node | None, allow_local: bool) -> tuple[Path | None, str]:
    """The Modelfile template: its path and its text, checked."""
    if node is None:
        return None, ""
    path = expanded(node.line_of_text("modelfile"))
    text = read_text(path, _MODELFILE_MB, node)
    modelfile.check_from(modelfile.parse(text, str(path), allow_local), str(path))
    return path, text


def prompt(node: Node) -> PromptSpec:
    """The prompt of a file, of {text: ...} or of {tokens: 4096}; an empty one for several lengths."""
    if isinstance(node.value, dict):
        return _given_prompt(node, node.value)
    if isinstance(node.value, list):
        raise node.mismatch("prompt", "write one path, {text: ...} or {tokens: [1024, 8192]}")
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
            raise unknown_part(inner, part, ("text", "tokens"), "prompt")
    if len(parts) != 1:
        raise node.error("prompt: write a path, {text: ...} or {tokens: 4096}")
    if "tokens" in parts:
        given = BY_NAME["prompt"]
        if several_lengths(node):
            return PromptSpec(None)
        return PromptSpec(None, count(parts["tokens"], "prompt.tokens", 4096, given.low, given.high))
    text = parts["text"]
    if isinstance(text.value, list):
        raise text.mismatch("prompt.text", "only tokens may be several")
    if isinstance(text.value, str) and not text.value.strip():
        raise text.error("the prompt is empty")
    return PromptSpec(text.text("prompt.text"))


def wanted_lengths(node: Node | None) -> Node | None:
    """What a prompt says of its length, where it says something."""
    return node.value.get("tokens") if node is not None and isinstance(node.value, dict) else None


def several_lengths(node: Node | None) -> Node | None:
    """The lengths of a prompt that are a dimension: a list or a range."""
    tokens = wanted_lengths(node)
    return tokens if tokens is not None and isinstance(tokens.value, list | dict) else None


def words(node: Node, key: Key) -> tuple[str, ...]:
    """A command as a list of words, never one string that a shell would have to take apart."""
    if not isinstance(node.value, list) or not node.value:
        raise node.error(f"{key.name} must be a list of words, such as [systemctl, --user, restart, ollama]")
    return tuple(item.line_of_text(key.name) for item in node.value)


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


def engine_options(node: Node, key: Key) -> Mapping[str, str]:
    """What only some engines know: where it computes, the longest text, whether a model may bring code."""
    if not isinstance(node.value, dict):
        raise node.mismatch(key.name, "write names and their values below it")
    found = {}
    for name, inner in node.value.items():
        if name not in ENGINE_OPTIONS:
            raise unknown_part(inner, name, ENGINE_OPTIONS, key.name)
        value = read(ENGINE_OPTIONS[name], inner)
        found[name] = ("yes" if value else "no") if isinstance(value, bool) else str(value)
    return found


def hours(node: Node, key: Key) -> QuietHours:
    """Times of the week, several in a list or with commas."""
    try:
        return parse_quiet_hours(", ".join(item.line_of_text(key.name) for item in node.items))
    except ValueError as error:
        raise node.error(f"{key.name}: {error}") from None


def interval(node: Node, key: Key) -> Interim:
    """A number of cells, a time like 10m, or off."""
    if node.value == "off":
        return Interim(None, None)
    if isinstance(node.value, str):
        try:
            return Interim(None, node.seconds(key.name))
        except ConfigError:
            message = f"{key.name}: write a number of cells (20), a time like 10m (at most 168h), or off"
            raise node.error(message) from None
    return Interim(count(node, key.name, 20, key.low, key.high), None)


def cooldown(node: Node, key: Key) -> Cooldown:
    """A time like 30s, {gpu_c: 60}, or off."""
    if node.value == "off":
        return Cooldown()
    how = f"{key.name}: write a time like 30s (at most 168h), {{gpu_c: 60}}, or off"
    if not isinstance(node.value, dict):
        try:
            return Cooldown(seconds=node.seconds(key.name))
        except ConfigError:
            raise node.error(how) from None
    for part, inner in node.value.items():
        if part != "gpu_c":
            raise unknown_part(inner, part, ("gpu_c",), key.name)
    if not node.value:
        raise node.error(how)
    return Cooldown(gpu_c=count(node.value["gpu_c"], f"{key.name}.gpu_c", 60, key.low, key.high))


def goal_of(node: Node, key: Key) -> Goal:
    """The name of a goal, `{largest: {ttft_s: 10, rate: 90%}}`, or off."""
    is_given = not node.line
    if isinstance(node.value, dict):
        if len(node.value) != 1:
            raise node.error(f"{key.name}: write one goal, such as {{largest: {{ttft_s: 10, rate: 90%}}}}")
        ((name, inner),) = node.value.items()
        _known_goal(inner, name)
        if name != LARGEST and inner.value is not None:
            raise inner.error(f"{key.name}: {name} has no parts; {LARGEST} has {' and '.join(_GOAL_PARTS)}")
        return _largest(inner, is_given=is_given) if name == LARGEST else Goal(name, is_given=is_given)
    name = node.line_of_text(key.name)
    _known_goal(node, name)
    return Goal(name, is_given=is_given)


def _known_goal(node: Node, name: str) -> None:
    if name not in (*KINDS, OFF):
        hint = nearest(name, (*KINDS, OFF))
        raise node.error(f"goal: {name} is not known; known are {', '.join(KINDS)} and {OFF}.{hint}")


def _largest(node: Node, *, is_given: bool) -> Goal:
    if node.value is None:
        return Goal(LARGEST, is_given=is_given)
    if not isinstance(node.value, dict):
        raise node.mismatch(f"goal.{LARGEST}", "write {ttft_s: 10, rate: 90%}")
    found = Goal(LARGEST, is_given=is_given)
    for part, inner in node.value.items():
        if part not in _GOAL_PARTS:
            raise unknown_part(inner, part, _GOAL_PARTS, f"goal.{LARGEST}")
    rate, ttft_s = found.rate, found.ttft_s
    if "rate" in node.value:
        share = percent_of(node.value["rate"].source)
        if share is None or not 0 < share <= 1:
            raise node.value["rate"].error(f"goal.{LARGEST}.rate: write a percentage of 100% at most, like 90%")
        rate = share
    if "ttft_s" in node.value:
        ttft_s = float(node.value["ttft_s"].within(f"goal.{LARGEST}.ttft_s", float, 0.001, _LONGEST_TTFT_S))
    return Goal(LARGEST, rate, ttft_s, is_given=is_given)


def _counted(node: Node, key: Key) -> int:
    example = key.default if isinstance(key.default, int) else USUAL_RUNS.get(key.kind, key.low or 0)
    return count(node, key.name, example, key.low, key.high)


def gpus(node: Node, key: Key) -> tuple[int, ...]:
    """Numbers of GPUs, none for all of them."""
    if node.value == ALL_GPUS:
        return ()
    if not isinstance(node.value, list) or not node.value:
        raise node.error(f"{key.name}: write {ALL_GPUS}, or a list of numbers like [0, 1]")
    found: list[int] = []
    for item in node.items:
        number = count(item, key.name, 1, key.low, key.high)
        if number in found:
            raise item.error(f"{key.name}: GPU {number} is listed twice; two lanes on one GPU disturb each other")
        found.append(number)
    return tuple(found)


def hosts(node: Node, key: Key) -> tuple[NamedHost, ...]:
    """Servers with their names."""
    if not isinstance(node.value, list) or not node.value:
        raise node.error(f"{key.name}: write a list like {key.example}")
    found: dict[str, NamedHost] = {}
    for item in node.items:
        parts = item.value
        if not isinstance(parts, dict) or not {"name", "host"} <= set(parts):
            raise item.error(f"{key.name}: each one has a name and a host, like {key.example[1:-1]}")
        if strange := [part for part in parts if part not in ("name", "host")]:
            raise item.error(f"{key.name}: unknown key {one_line(strange[0])}; each one has a name and a host only")
        name = parts["name"].line_of_text(f"{key.name}.name")
        if not _HOST_NAME.fullmatch(name):
            raise parts["name"].error(f"{key.name}.name: only letters, digits, _, - and . (max 40)")
        if name in found:
            raise item.error(f"{key.name}: {name} is named twice")
        if other := next((one for one in found if one.casefold() == name.casefold()), None):
            raise item.error(f"{key.name}: {other} and {name} differ by capitals only; call one of them otherwise")
        found[name] = NamedHost(name, parts["host"].address(f"{key.name}.host"))
    return tuple(found.values())


READERS: Mapping[Kind, Callable[[Node, Key], object]] = {
    Kind.TRUTH: lambda node, key: node.truth(key.name),
    Kind.WORD: identifier,
    Kind.TEXT: lambda node, key: node.line_of_text(key.name),
    Kind.COUNT: _counted,
    Kind.SECONDS: lambda node, key: node.seconds(key.name),
    Kind.CHOICE: choice,
    Kind.ADDRESS: lambda node, key: node.address(key.name),
    Kind.WORDS: words,
    Kind.HOURS: hours,
    Kind.INTERVAL: interval,
    Kind.WARMUP: warmup,
    Kind.REPEATS: repeats,
    Kind.SHARE: share,
    Kind.COOLDOWN: cooldown,
    Kind.GOAL: goal_of,
    Kind.ENGINE_OPTIONS: engine_options,
    Kind.THOUGHT: thought,
    Kind.GPUS: gpus,
    Kind.HOSTS: hosts,
}
"""How a key is read that needs to know nothing but its own value; `config` reads the other kinds."""
