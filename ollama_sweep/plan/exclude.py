"""The small language of `exclude`: a comparison over the names of dimensions, checked when it is read."""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.options import Scalar
from ollama_sweep.plan.spec import Exclusion

if TYPE_CHECKING:
    pass


LONGEST = 200
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
    """A part of an expression: what it yields, and how.

    float stands for every number, object for what may be true, false or a text; else it is bool or str.
    """

    kind: type
    of: Callable[[_Values], Any]


class _NotAllowed(Exception):
    """This part of an expression is not in the language."""


def parse_exclusion(text: str, kinds: Mapping[str, type], where: str) -> Exclusion:
    """An exclusion over the names in `kinds`: a sweep's dimensions and options with their types.

    It is read with Python's syntax, of which only a few forms are taken. A comparison with what a cell does not have
    is neither true nor false (None), and leaves no cell out. Raises ConfigError with `where`.
    """
    text = " ".join(text.split())
    try:
        if len(text) > LONGEST:
            raise _NotAllowed(f"is longer than {LONGEST} characters")
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
            return _Part(bool, partial(_combined, parts, not isinstance(op, ast.And)))
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            truth = _wanted(bool, _part(inner, kinds))
            return _Part(bool, lambda values: _known(operator.not_, truth.of(values)))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            number = _wanted(float, _part(inner, kinds))
            return _Part(float, lambda values: _known(operator.neg, number.of(values)))
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _ARITHMETIC:
            return _calculation(_ARITHMETIC[type(op)], _part(left, kinds), _part(right, kinds))
        case ast.Compare():
            return _comparison(node, kinds)
    raise _NotAllowed("is too much; allowed are < <= > >= == != and or not + - * // % with names, numbers and texts")


def _kind(python_type: type) -> type:
    return float if python_type is int else python_type


def _wanted(kind: type, part: _Part) -> _Part:
    if part.kind is not kind:
        wanted = {bool: "a comparison", float: "a number", str: "a text", object: "true, false or a text"}
        raise _NotAllowed(f"has {wanted[part.kind]} where {wanted[kind]} is needed")
    return part


def _name(name: str, kinds: Mapping[str, type]) -> _Part:
    if name not in kinds:
        hint = nearest(name, kinds)
        raise _NotAllowed(f"names {name}, which this sweep does not set; it sets {', '.join(kinds)}.{hint}")
    return _Part(_kind(kinds[name]), lambda values: values.get(name))


def _calculation(operation: Callable[[Any, Any], Any], left: _Part, right: _Part) -> _Part:
    _wanted(float, left)
    _wanted(float, right)
    return _Part(float, lambda values: _known(operation, left.of(values), right.of(values)))


def _comparison(node: ast.Compare, kinds: Mapping[str, type]) -> _Part:
    parts = [_part(inner, kinds) for inner in (node.left, *node.comparators)]
    operations = [_COMPARISONS.get(type(op)) for op in node.ops]
    has_any = any(part.kind is object for part in parts)
    for operation, part in zip(operations, parts[1:], strict=True):
        if not has_any or float in (part.kind, parts[0].kind):
            _wanted(parts[0].kind, part)
        if operation is None or (part.kind is not float and operation not in (operator.eq, operator.ne)):
            raise _NotAllowed("compares in a way that is not allowed; texts and true/false know only == and !=")
    steps = [_step(op, left, right) for op, left, right in zip(operations, parts, parts[1:], strict=False) if op]
    return _Part(bool, partial(_combined, steps, False))


def _step(operation: Callable[[Any, Any], bool], left: _Part, right: _Part) -> _Part:
    return _Part(bool, lambda values: _known(operation, left.of(values), right.of(values)))


def _known(operation: Callable[..., Any], *given: Any) -> Any:
    """What comes of these values; None where one of them is not known."""
    return None if None in given else operation(*given)


def _combined(parts: Sequence[_Part], decisive: bool, values: _Values) -> bool | None:
    """Decided by the first part that is `decisive`; else not known where one part is not."""
    result: bool | None = not decisive
    for part in parts:
        found: bool | None = part.of(values)
        if found is decisive:
            return decisive
        result = None if found is None else result
    return result
