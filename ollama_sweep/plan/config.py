"""A sweep file and the command line -> SweepSpec. Every mistake is one ConfigError that names file and line or option.

All keys lie in one flat table of nodes (`dimensions:` and `options:` are only ways to write them); what the command
line gives replaces nodes there, so one set of checks serves both. Other files are read last.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, cast

from ollama_sweep import engines
from ollama_sweep.core import strict_yaml
from ollama_sweep.core.cell import MAIN_TASK, PROMPT_TOKENS
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.options import Scalar, asked_for, is_server_setting
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.core.text import harmless, one_line
from ollama_sweep.engines.shared import modelfile
from ollama_sweep.machine import secrets
from ollama_sweep.machine.conditions import Conditions
from ollama_sweep.machine.files import check_file, expanded, read_text
from ollama_sweep.plan import fields as fields
from ollama_sweep.plan.exclude import parse_exclusion
from ollama_sweep.plan.goals import goal as goals
from ollama_sweep.plan.keys import (
    ALIASES,
    AXES,
    BY_NAME,
    DIMENSIONS,
    KEYS,
    LENGTHS,
    OPTIONS,
    OVERRIDES,
    OWN_VARIABLES,
    SECTIONS,
    STEP_LIMITS,
    TEXTS,
    Kind,
)
from ollama_sweep.plan.models import ALL, is_cloud
from ollama_sweep.plan.pairs import arms as pairs
from ollama_sweep.plan.spec import DEFAULT_NUM_PREDICT, Exclusion, PromptSpec, SweepSpec

_Entries = Mapping[str, Node]
_SET_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z_][A-Za-z0-9_-]*){0,2}")
_REPLACES = {"step": "factor", "factor": "step", "text": "tokens", "tokens": "text"}
_NEEDED = ("model", "num_ctx", "num_batch", "prompt")
_RANGE = ("start", "end", "step", "factor")
_TYPES: Mapping[Kind, type] = {Kind.WHOLE: int, Kind.NUMBER: float, Kind.TRUTH: bool, Kind.THOUGHT: object}
_UNLIMITED = {0: "0 is dropped by Ollama and then means unlimited", -1: "-1 means unlimited"}
_CONFIG_MB = 1
_LONGEST_VARIABLE = 4096


def kind_of(name: str) -> type | None:
    """The type of a dimension's or option's values; None for a name that is neither."""
    if name in DIMENSIONS:
        return _TYPES.get(DIMENSIONS[name].kind, str)
    return str if is_server_setting(name) else None


def load_spec(path: Path | None, overrides: Mapping[str, object], *, max_cells: int = 2_000_000) -> SweepSpec:
    """The checked sweep of a file and of the command line, which wins. Raises ConfigError.

    `overrides` holds values of the options in `keys.OVERRIDES`, `set` (texts `key=value`), `keys` (YAML by key, from
    Python), the permissions `allow_cloud` and `allow_local_gguf`, and the path `libllama`.
    """
    return spec_of(given_entries(path, overrides), path, overrides, max_cells=max_cells)


def given_entries(path: Path | None, overrides: Mapping[str, object]) -> dict[str, Node]:
    """Every key of a file and of the command line, each with its place, unchecked. Raises ConfigError."""
    entries = {} if path is None else _file_entries(path)
    for keys, node in _given(overrides):
        _replace(entries, keys, node)
    if "model" not in entries and (model := fields.default_model(entries.get("engine"))):
        entries["model"] = model
    return entries


def values_of(name: str, node: Node) -> tuple[Scalar, ...]:
    """The checked values of one dimension. Raises ConfigError."""
    return _axis(name, node).build()


def spec_of(
    entries: _Entries, path: Path | None, overrides: Mapping[str, object], *, max_cells: int = 2_000_000
) -> SweepSpec:
    """The checked sweep of these keys, or the pair; see `load_spec`. Raises ConfigError."""
    if pairs.PAIR in entries:
        return pairs.of_entries(entries, lambda own: spec_of(own, path, overrides, max_cells=max_cells), _replace)
    _check_keys(entries, path)
    spec = _without_files(entries, path, max_cells)
    template_path, template = fields.template(entries.get("modelfile"), bool(overrides.get("allow_local_gguf")))
    prompt = fields.prompt(entries["prompt"]) if "prompt" in entries else PromptSpec(None)
    own_models = [given["model"] for given in spec.task_options.values() if "model" in given]
    for node in (entries["model"], *own_models):
        _check_models(node, bool(overrides.get("allow_cloud")), has_files=engines.facts(spec.engine).takes_files)
    libllama = overrides.get("libllama")
    return replace(
        spec,
        template_path=template_path,
        template=template,
        prompt=prompt,
        libllama=None if libllama is None else str(libllama),
        warnings=(*spec.warnings, *_unused_recording(spec)),
    )


def _unused_recording(spec: SweepSpec) -> Iterator[str]:
    """A recording does not make a sweep a replay."""
    if spec.settings.get("recording") is not None and not engines.facts(spec.engine).is_replayed:
        yield f"recording is only for `engine: replay`; the engine {spec.engine} measures, and does not read it"


def _without_files(entries: _Entries, path: Path | None, max_cells: int) -> SweepSpec:
    axes = _dimensions(entries, path, max_cells)
    fixed = {name: _value(name, entries[name]) for name in entries if kind_of(name) and name not in axes}
    options = {name: value for name, value in fixed.items() if name in OPTIONS}
    options = asked_for(options)
    server = {name: value for name, value in fixed.items() if is_server_setting(name)}
    if "num_predict" not in axes and _tasks(entries) == [MAIN_TASK]:
        options.setdefault("num_predict", DEFAULT_NUM_PREDICT)
    length = _length(entries)
    exclude = _exclusions(entries.get("exclude"), [*axes, *options, *server, *length])
    spec = SweepSpec(
        model=str(fixed.get("model", "")),
        dimensions=axes,
        prompt=PromptSpec(None),
        options=options,
        server=server,
        task=str(fixed.get("task", MAIN_TASK)),
        task_options=_task_options(entries.get("tasks")),
        exclude=exclude,
        name=path.stem if path else "sweep",
        config_path=path,
        warnings=_oversized_batch(axes, {**options, **length}, exclude),
    )
    spec = replace(spec, **_fields_of(entries))
    _check_lanes(spec, entries)
    spec = replace(spec, managed=spec.managed or spec.gpus is not None)
    if spec.goal is not None:
        goals.check(spec.goal, spec, entries["goal"].place)
    return spec


def _check_lanes(spec: SweepSpec, entries: _Entries) -> None:
    """Lanes say where a sweep is measured, so nothing else does. Raises ConfigError."""
    key, others = ("gpus", ("hosts", "host")) if spec.gpus is not None else ("hosts", ("host", "server"))
    for other in others if spec.has_lanes else ():
        if other in entries:
            raise entries[other].error(f"{other}: {key} says where this sweep is measured; leave out one of them")


def _fields_of(entries: _Entries) -> dict[str, Any]:
    """What the keys come to that one reader reads alone, by field of the sweep; all others go into `settings`."""
    plain = [key for key in KEYS if key.kind in fields.READERS and not key.sweeps]
    found: dict[str, Any] = {key.field: fields.read(key, entries[key.name]) for key in plain if key.name in entries}
    found.pop("", None)
    conditions = {field.name: found.pop(field.name) for field in fields_of(Conditions) if field.name in found}
    settings = {key.name: fields.setting(key, entries.get(key.name)) for key in plain if not key.field}
    return {**found, "conditions": Conditions(**conditions), "settings": settings}


def _file_entries(path: Path) -> dict[str, Node]:
    root = strict_yaml.parse(read_text(path, _CONFIG_MB), str(path))
    if root is None:
        raise ConfigError("the file is empty; a sweep needs model, num_ctx and num_batch", str(path))
    if not isinstance(root.value, dict):
        raise root.error("a sweep is made of keys and values such as num_ctx: 4096")
    entries: dict[str, Node] = {}
    for name, node in root.value.items():
        for written, inner in _section(name, node) if name in SECTIONS else ((name, node),):
            inner_name = ALIASES.get(written, written)
            first = entries.setdefault(inner_name, inner)
            if first is not inner:
                same = f" ({written} is the same key)" if written != inner_name else ""
                raise inner.error(f"{inner_name} is given twice (first on line {first.line}){same}")
    return entries


def _section(name: str, node: Node) -> Iterator[tuple[str, Node]]:
    """The entries of `dimensions:` or `options:` as they would stand at the top of the file."""
    if not isinstance(node.value, dict):
        raise node.mismatch(name, "write names and their values below it")
    for inner_name, inner in node.value.items():
        yield inner_name, _in_section(name, inner_name, inner)


def _in_section(section: str, name: str, node: Node) -> Node:
    known = (*DIMENSIONS, *ALIASES) if section == "dimensions" else OPTIONS
    if name not in known and not (section == "dimensions" and is_server_setting(name)):
        raise fields.unknown(node, name, known, f"unknown {section.removesuffix('s')}")
    is_one_value = not isinstance(node.value, list | dict)
    if section == "options" and not is_one_value:
        raise node.error(f"options.{name} takes one value; several belong under dimensions")
    return Node([node], node.where, node.line) if section == "dimensions" and is_one_value else node


def _given(overrides: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], Node]]:
    """What the command line gave: where it belongs, and its value with the option as its place."""
    for key, override in OVERRIDES:
        given = overrides.get(override.name)
        if given is not None:
            source = str(given)
            value = source if key.kind in TEXTS else strict_yaml.scalar(source)
            node = Node(value, override.option, 0, source)
            if key.kind is Kind.GOAL:
                node = strict_yaml.parse(source, override.option, numbered=False) or node
            yield (key.name, override.part) if override.part else (key.name,), node
    for text in cast("tuple[str, ...]", overrides.get("set") or ()):
        name, equals, source = text.partition("=")
        if not equals or not _SET_KEY.fullmatch(name):
            raise ConfigError(f'"{one_line(text)}" is not key=value, for example repeats=5', "--set")
        where = f"--set {name}"
        yield tuple(name.split(".")), strict_yaml.parse(source, where, numbered=False) or Node(None, where)
    for name, source in cast("Mapping[str, str]", overrides.get("keys") or {}).items():
        yield tuple(name.split(".")), strict_yaml.parse(source, name, numbered=False) or Node(None, name)


def _replace(entries: dict[str, Node], keys: tuple[str, ...], node: Node) -> None:
    """Set an entry, or one part of it such as `num_ctx.step`."""
    if keys[0] in SECTIONS:
        if len(keys) == 1:
            raise node.error(f"name what to set, for example --set {keys[0]}.num_gpu=0")
        node = _in_section(keys[0], keys[1], node) if len(keys) == 2 else node
        keys = keys[1:]
    name = ALIASES.get(keys[0], keys[0])
    parts = keys[1:] if name in ("tasks", "prompt") else tuple(filter(None, [".".join(keys[1:])]))
    entries[name] = _with_part(entries.get(name), parts, node) if parts else node


def _with_part(old: Node | None, keys: tuple[str, ...], node: Node) -> Node:
    """A mapping with one more part; `tasks.chat.num_predict` goes two levels down."""
    parts = {**old.value} if old is not None and isinstance(old.value, dict) else {}
    parts.pop(_REPLACES.get(keys[0], ""), None)
    place = old if old is not None and parts else node
    inner = node if len(keys) == 1 else _with_part(parts.get(keys[0]), keys[1:], node)
    return Node({**parts, keys[0]: inner}, place.where, place.line)


def _check_keys(entries: _Entries, path: Path | None) -> None:
    for name, node in entries.items():
        if name not in BY_NAME and kind_of(name) is None:
            raise fields.unknown(node, name, BY_NAME)
    for name in _needed(entries):
        if name not in entries:
            raise missing(name, path)


def missing(name: str, path: Path | None) -> ConfigError:
    """The refusal of a sweep that lacks a key."""
    return ConfigError(f"{name} is missing; {BY_NAME[name].needed}", str(path) if path else None)


def _needed(entries: _Entries) -> list[str]:
    """What a sweep cannot do without: the sizes and the prompt are the main task's; some servers have sizes."""
    if MAIN_TASK not in _tasks(entries):
        return ["model"]
    engine = str(entries["engine"].value) if "engine" in entries else ""
    return ["model", "prompt"] if engines.facts(engine).has_own_sizes() else list(_NEEDED)


def _tasks(entries: _Entries) -> list[object]:
    return [item.value for item in entries["task"].items] if "task" in entries else [MAIN_TASK]


def _dimensions(entries: _Entries, path: Path | None, max_cells: int) -> dict[str, tuple[Scalar, ...]]:
    """Dimensions with their values; the size of the grid is looked at before any range is built."""
    axes = {}
    for name, node in entries.items():
        is_all = name == "model" and node.value == ALL
        if name in ("num_ctx", "num_batch") or is_all or (kind_of(name) and isinstance(node.value, list | dict)):
            axes[name] = _axis(name, node)
    count = math.prod(axis.count for axis in axes.values())
    if (lengths := fields.several_lengths(entries.get("prompt"))) is not None:
        axes[PROMPT_TOKENS] = _axis(LENGTHS.name, lengths)
        tasks = _tasks(entries)
        count = count // len(tasks) * (len(tasks) + tasks.count(MAIN_TASK) * (axes[PROMPT_TOKENS].count - 1))
    if count > max_cells:
        message = f"the grid has {count:,} cells (limit {max_cells:,}; --max-cells)"
        raise ConfigError(message, str(path) if path else None)
    return {name: axis.build() for name, axis in axes.items()}


def _length(entries: _Entries) -> dict[str, Scalar]:
    """The prompt's wanted length by its name, where it has one and is no dimension."""
    tokens = fields.wanted_lengths(entries.get("prompt"))
    return {} if tokens is None or not isinstance(tokens.value, int) else {PROMPT_TOKENS: tokens.value}


@dataclass(frozen=True)
class _Axis:
    """A dimension's values, counted but perhaps not built yet."""

    count: int
    build: Callable[[], tuple[Scalar, ...]]


def _axis(name: str, node: Node) -> _Axis:
    if isinstance(node.value, dict):
        return _range(name, node, node.value)
    if node.value == []:
        raise node.error(f"{name}: the list is empty")
    values: dict[Scalar, None] = {}
    for item in node.items:
        value = _value(name, item)
        if value in values:
            raise item.error(f"{name}: {item.shown} is listed twice")
        values[value] = None
    return _Axis(len(values), lambda: tuple(values))


def _range(name: str, node: Node, parts: _Entries) -> _Axis:
    """{start, end, step} or {start, end, factor}; the end belongs to the range where a step meets it."""
    kind = _kind_of_axis(name)
    if kind not in (int, float):
        raise node.error(f"{name}: a range needs numbers; write a list")
    for part, inner in parts.items():
        if part not in _RANGE:
            raise fields.unknown_part(inner, part, _RANGE, name)
    if not {"start", "end"} <= parts.keys() or len(parts) != 3:
        raise node.error(f"{name}: write {{start, end, step}} or {{start, end, factor}}")
    start, end = (Fraction(str(_value(name, parts[part], f"{name}.{part}"))) for part in ("start", "end"))
    if end < start:
        raise parts["end"].error(f"{name}.end: {parts['end'].shown} is smaller than start {parts['start'].shown}")
    if "factor" in parts:
        return _geometric(name, start, end, parts)
    step = Fraction(str(parts["step"].within(f"{name}.step", kind, *STEP_LIMITS[AXES[name].kind])))
    if kind is int:
        numbers = range(int(start), int(end) + 1, int(step))
        return _Axis(len(numbers), lambda: tuple(numbers))
    count = int((end - start) // step) + 1
    return _Axis(count, lambda: tuple(float(start + step * index) for index in range(count)))


def _kind_of_axis(name: str) -> type | None:
    return int if name == LENGTHS.name else kind_of(name)


def _geometric(name: str, start: Fraction, end: Fraction, parts: _Entries) -> _Axis:
    factor = Fraction(str(parts["factor"].within(f"{name}.factor", float, 1.01, 1_000_000)))
    if start <= 0:
        raise parts["start"].error(f"{name}.start: must be more than 0 where there is a factor")
    values: dict[Scalar, None] = {}
    while start <= end:
        values[round(start) if _kind_of_axis(name) is int else float(start)] = None
        start *= factor
    return _Axis(len(values), lambda: tuple(values))


def _value(name: str, node: Node, label: str | None = None) -> Scalar:
    """One value of a dimension or option, checked."""
    if name not in AXES:
        return _variable(name, node)
    key = AXES[name]
    if key.kind is Kind.MODEL:
        return _model_name(node)
    if key.kind in fields.READERS:
        return cast("Scalar", fields.read(key, node))
    if name == "num_predict" and type(node.value) is int and node.value in _UNLIMITED:
        raise node.error(f"num_predict: {_UNLIMITED[node.value]}; write 1 or more")
    assert key.low is not None
    assert key.high is not None
    return node.within(label or name, _TYPES[key.kind], key.low, key.high)


def _variable(name: str, node: Node) -> str:
    """The value of an environment variable of the server: a text on one line, kept as it is written, and no secret."""
    if name in OWN_VARIABLES:
        raise node.error(f"{name} is set by the sweep itself")
    if isinstance(node.value, dict | list) or node.value is None:
        raise node.mismatch(name, "write one value, such as 1")
    text = node.source or str(node.value)
    if harmless(text) != text:
        raise node.error(f"{name}: contains a line break or another control character; write one value on one line")
    if secrets.is_secret(name, text):
        raise node.error(f"{name}: carries a secret, which is not for a file; set {name} in the environment")
    if len(text) > _LONGEST_VARIABLE:
        raise node.error(f"{name}: has {len(text)} characters (max {_LONGEST_VARIABLE})")
    return text


def _model_name(node: Node) -> str:
    """An installed name ([host/][namespace/]model[:tag]) or the path of a .gguf file."""
    if isinstance(node.value, str) and modelfile.is_file(node.value):
        return str(expanded(node.line_of_text("model")))
    text = node.text("model")
    fault = modelfile.name_fault(text)
    if fault:
        raise node.error(f"model: {fault}")
    return text


def _task_options(node: Node | None) -> dict[str, dict[str, Node]]:
    """What each task is given; a model of its own is checked like the sweep's."""
    found = {task: dict(given) for task, given in fields.task_options(node).items()}
    for given in found.values():
        if "model" in given:
            own = given["model"]
            given["model"] = Node(_model_name(own), own.where, own.line, own.source)
    return found


def _check_models(node: Node, allow_cloud: bool, *, has_files: bool) -> None:
    for item in node.items:
        model = str(item.value)
        if has_files and modelfile.is_file(model):
            check_file(expanded(model), item)
        elif model == ALL and len(node.items) > 1:
            raise item.error(f"model: {ALL} is every installed model and stands alone; one so called is all:latest")
        elif is_cloud(model) and not allow_cloud:
            raise item.error(f"{model} is a cloud model; use --allow-cloud")


def _exclusions(node: Node | None, names: Iterable[str]) -> tuple[Exclusion, ...]:
    kinds = {name: int if name == PROMPT_TOKENS else kind_of(name) or str for name in names}
    items = node.items if node else []
    return tuple(parse_exclusion(item.text("exclude"), kinds, item.place) for item in items)


def _oversized_batch(dimensions: Mapping[str, tuple[Scalar, ...]], options: Mapping[str, Scalar],
                     exclude: tuple[Exclusion, ...]) -> tuple[str, ...]:  # fmt: skip
    """A warning where some cell of the grid has a larger num_batch than num_ctx."""
    contexts, batches = (cast("tuple[int, ...]", dimensions.get(name, ())) for name in ("num_ctx", "num_batch"))
    further = {name: values for name, values in dimensions.items()
               if name not in ("num_ctx", "num_batch") and any(name in line.text for line in exclude)}  # fmt: skip
    for num_ctx in sorted(contexts):
        for num_batch in sorted((value for value in batches if value > num_ctx), reverse=True):
            for rest in product(*further.values()):
                cell = {**options, **dict(zip(further, rest, strict=True)), "num_ctx": num_ctx, "num_batch": num_batch}
                if not any(line.matches(cell) for line in exclude):
                    what = f"num_batch {num_batch} is larger than num_ctx {num_ctx}"
                    return (f"{what}; llama.cpp limits it, cells will repeat each other",)
    return ()
