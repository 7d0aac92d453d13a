"""A sweep as the person wrote it, checked: what `config` makes of a YAML file and the command line. No I/O.

Every field says whether it is `identity` (part of what a cell measures) or `runtime` (how it is measured);
a test fails for a field that says neither. The small language of `exclude:` is here too.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ollama_sweep.cells import MAIN_TASK, Scalar
from ollama_sweep.conditions import Conditions
from ollama_sweep.errors import ConfigError, nearest
from ollama_sweep.task import Setup

if TYPE_CHECKING:
    from ollama_sweep.yaml_strict import Node

IDENTITY = {"role": "identity"}
RUNTIME = {"role": "runtime"}
DEFAULT_NUM_PREDICT = 2
"""Only prompt processing is wanted of the main task."""


@dataclass(frozen=True)
class PromptSpec:
    """The prompt: a text (from a file or given), or `tokens`, a length the text is made to on the model."""

    text: str | None = field(metadata=IDENTITY)
    tokens: int | None = field(default=None, metadata=IDENTITY)
    source: str = field(default="", metadata=RUNTIME)


@dataclass(frozen=True)
class Repeats:
    """Measured runs per attempt: at least `minimum`; up to `maximum` until their interval is `until` wide."""

    minimum: int = 3
    maximum: int = 3
    until: float | None = None


@dataclass(frozen=True)
class Interim:
    """When pictures are drawn while the sweep runs: after so many cells, or seconds; both None: never."""

    cells: int | None = None
    seconds: float | None = 1800.0


@dataclass(frozen=True)
class Exclusion:
    """One `exclude:` line, e.g. `num_batch > num_ctx`; `matches` gets a cell's dimension values and options."""

    text: str
    matches: Callable[[Mapping[str, Scalar]], bool]


@dataclass(frozen=True)
class SweepSpec:
    """One sweep. `dimensions` maps each swept name to its values, in the order the file gives them.

    num_ctx and num_batch are always among them where a prompt's rate is measured. `options` are load and request
    options that are not swept, num_predict among them where only the main task runs. `model` is "" where `model` is a
    dimension. `task_options` is what the file says under `tasks:`, by task; `setups` what the tasks make of it
    (`survey.with_tasks`).
    """

    model: str = field(metadata=IDENTITY)
    dimensions: Mapping[str, tuple[Scalar, ...]] = field(metadata=IDENTITY)
    prompt: PromptSpec = field(metadata=IDENTITY)
    template: str = field(default="", metadata=IDENTITY)
    options: Mapping[str, Scalar] = field(default_factory=dict, metadata=IDENTITY)
    server: Mapping[str, Scalar] = field(default_factory=dict, metadata=IDENTITY)
    task: str = field(default=MAIN_TASK, metadata=IDENTITY)
    task_options: Mapping[str, Mapping[str, Node]] = field(default_factory=dict, metadata=RUNTIME)
    setups: Mapping[str, Setup] = field(default_factory=dict, metadata=IDENTITY)
    engine: str = field(default="auto", metadata=IDENTITY)
    engine_options: Mapping[str, str] = field(default_factory=dict, metadata=IDENTITY)
    exclude: tuple[Exclusion, ...] = field(default=(), metadata=RUNTIME)
    name: str = field(default="sweep", metadata=RUNTIME)
    template_path: Path | None = field(default=None, metadata=RUNTIME)
    config_path: Path | None = field(default=None, metadata=RUNTIME)
    warmup: int = field(default=1, metadata=RUNTIME)
    repeats: Repeats = field(default=Repeats(), metadata=RUNTIME)
    timeout_s: float = field(default=600.0, metadata=RUNTIME)
    load_timeout_s: float = field(default=600.0, metadata=RUNTIME)
    retries: int = field(default=1, metadata=RUNTIME)
    order: str = field(default="column-first", metadata=RUNTIME)
    conditions: Conditions = field(default=Conditions(), metadata=RUNTIME)
    interim: Interim = field(default=Interim(), metadata=RUNTIME)
    control: Interim = field(default=Interim(50, None), metadata=RUNTIME)
    host: str | None = field(default=None, metadata=RUNTIME)
    managed: bool = field(default=False, metadata=RUNTIME)
    restart_command: tuple[str, ...] = field(default=(), metadata=RUNTIME)
    ollama: str | None = field(default=None, metadata=RUNTIME)
    api_key_env: str | None = field(default=None, metadata=RUNTIME)
    warnings: tuple[str, ...] = field(default=(), metadata=RUNTIME)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks of the sweep, in the order of the file."""
        return tuple(str(name) for name in self.dimensions.get("task", (self.task,)))


_LONGEST = 200
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_Values = Mapping[str, Scalar]


@dataclass(frozen=True)
class _Part:
    """A part of an expression: what it yields (float stands for every number, else bool or str), and how."""

    kind: type
    of: Callable[[_Values], Any]


class _NotAllowed(Exception):
    """This part of an expression is not in the language."""


def parse_exclusion(text: str, kinds: Mapping[str, type], where: str) -> Exclusion:
    """An exclusion over the names in `kinds`: a sweep's dimensions and options with their types.

    It is read with Python's syntax, of which only a few forms are taken. Raises ConfigError with `where`.
    """
    text = " ".join(text.split())
    try:
        if len(text) > _LONGEST:
            raise _NotAllowed(f"is longer than {_LONGEST} characters")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = ast.parse(text, mode="eval")
        part = _wanted(bool, _part(tree.body, kinds))
    except _NotAllowed as error:
        raise ConfigError(f'exclude: "{text[:60]}" {error}', where) from None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConfigError(f'exclude: "{text[:60]}" is not a comparison such as num_batch > num_ctx', where) from None

    def matches(values: _Values) -> bool:
        try:
            return bool(part.of(values))
        except ArithmeticError as error:
            raise ConfigError(f'exclude: "{text}" cannot be calculated: {error}', where) from None

    return Exclusion(text, matches)


def _part(node: ast.AST, kinds: Mapping[str, type]) -> _Part:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return _Part(_kind(type(value)), lambda values: value)
        case ast.Name(id="true" | "false" as word):
            return _Part(bool, lambda values: word == "true")
        case ast.Name(id=name):
            return _name(name, kinds)
        case ast.BoolOp(op=op, values=nodes):
            parts = [_wanted(bool, _part(inner, kinds)) for inner in nodes]
            combine = all if isinstance(op, ast.And) else any
            return _Part(bool, lambda values: combine(part.of(values) for part in parts))
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            truth = _wanted(bool, _part(inner, kinds))
            return _Part(bool, lambda values: not truth.of(values))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            number = _wanted(float, _part(inner, kinds))
            return _Part(float, lambda values: -number.of(values))
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _ARITHMETIC:
            return _calculation(_ARITHMETIC[type(op)], _part(left, kinds), _part(right, kinds))
        case ast.Compare():
            return _comparison(node, kinds)
    raise _NotAllowed("is too much; allowed are < <= > >= == != and or not + - * // % with names, numbers and texts")


def _kind(python_type: type) -> type:
    return float if python_type is int else python_type


def _wanted(kind: type, part: _Part) -> _Part:
    if part.kind is not kind:
        wanted = {bool: "a comparison", float: "a number", str: "a text"}
        raise _NotAllowed(f"has {wanted[part.kind]} where {wanted[kind]} is needed")
    return part


def _name(name: str, kinds: Mapping[str, type]) -> _Part:
    if name not in kinds:
        hint = nearest(name, kinds)
        raise _NotAllowed(f"names {name}, which this sweep does not set; it sets {', '.join(kinds)}.{hint}")
    return _Part(_kind(kinds[name]), lambda values: values[name])


def _calculation(operation: Callable[[Any, Any], Any], left: _Part, right: _Part) -> _Part:
    _wanted(float, left)
    _wanted(float, right)
    return _Part(float, lambda values: operation(left.of(values), right.of(values)))


def _comparison(node: ast.Compare, kinds: Mapping[str, type]) -> _Part:
    parts = [_part(inner, kinds) for inner in (node.left, *node.comparators)]
    operations = [_COMPARISONS.get(type(op)) for op in node.ops]
    for operation, part in zip(operations, parts[1:], strict=True):
        _wanted(parts[0].kind, part)
        if operation is None or (part.kind is not float and operation not in (operator.eq, operator.ne)):
            raise _NotAllowed("compares in a way that is not allowed; texts and true/false know only == and !=")
    steps = list(zip(operations, parts, parts[1:], strict=False))
    return _Part(bool, lambda values: all(op(left.of(values), right.of(values)) for op, left, right in steps if op))
