"""Dataclasses as plain data for JSON, and read back strictly: a field that is unknown, missing or of another kind is
one line that names it. Pure.

What equals a field's default is left out. Tuples, sets and mappings are lists and objects, whose types the fields say;
where a field says `object` a value stays what JSON makes of it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from enum import StrEnum
from typing import Any, TypeVar, cast

from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.text import one_line, strict_json

T = TypeVar("T")
ALWAYS = "always"
"""In a field's metadata: it is written down also where it has its default."""
_SCALARS = (bool, int, float, str, type(None))


def as_text(value: object) -> str:
    """A dataclass as one line of JSON. Raises ValueError for NaN and infinity, and for what has no plain form."""
    return json.dumps(plain(value), allow_nan=False, separators=(",", ":"))


def plain(value: object) -> Any:
    """The same as what JSON knows. Raises ValueError for what has no plain form."""
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, _SCALARS):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: (field, getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {name: plain(inner) for name, (field, inner) in fields.items() if not _is_default(field, inner)}
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(plain(inner) for inner in value)
    if isinstance(value, Iterable):
        return [plain(inner) for inner in value]
    raise ValueError(f"{type(value).__name__} has no plain form")


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    if field.metadata.get(ALWAYS):
        return False
    if field.default is not dataclasses.MISSING:
        return type(value) is type(field.default) and value == field.default
    return field.default_factory is not dataclasses.MISSING and value == field.default_factory()


def of_text(kind: type[T], text: str, where: str) -> T:
    """The dataclass that `as_text` wrote. Raises ConfigError with `where` and the field."""
    try:
        value = strict_json(text)
    except json.JSONDecodeError:
        raise ConfigError("is no JSON: it is cut off or was changed", where) from None
    except ValueError as error:
        raise ConfigError(str(error), where) from None
    return read(kind, value, where)


def read(kind: type[T], value: object, where: str) -> T:
    """A value of this type, of plain data. Raises ConfigError with `where` and the field."""
    return cast("T", _read(kind, value, where, kind.__name__))


def _read(kind: Any, value: object, where: str, name: str) -> Any:
    if kind is object or kind is Any:
        return value
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _one_of(typing.get_args(kind), value, where, name)
    if origin is not None:
        return _collection(origin, typing.get_args(kind), value, where, name)
    if dataclasses.is_dataclass(kind):
        return _dataclass(cast("type[Any]", kind), value, where, name)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if value not in {member.value for member in kind}:
            raise _bad(value, where, name, f"one of {', '.join(sorted(member.value for member in kind))}")
        return kind(value)
    return _scalar(kind, value, where, name)


def _scalar(kind: Any, value: object, where: str, name: str) -> Any:
    if kind is float and type(value) in (int, float):
        number = float(cast("float", value))
        if math.isfinite(number):
            return number
    elif type(value) is kind:
        return value
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    raise _bad(value, where, name, words.get(kind, str(kind)))


def _one_of(kinds: tuple[Any, ...], value: object, where: str, name: str) -> Any:
    """The first kind that takes it; whole numbers stay whole where both are allowed."""
    if type(value) in kinds:
        return value
    error = _bad(value, where, name, "another kind of value")
    for kind in kinds:
        try:
            return _read(kind, value, where, name)
        except ConfigError as refused:
            error = refused if dataclasses.is_dataclass(kind) or typing.get_origin(kind) else error
    raise error


def _collection(origin: Any, inner: tuple[Any, ...], value: object, where: str, name: str) -> Any:
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _bad(value, where, name, "an object")
        return {key: _read(inner[1], one, where, f"{name}.{key}") for key, one in value.items()}
    if not isinstance(value, list):
        raise _bad(value, where, name, "a list")
    if origin is tuple and (len(inner) != 2 or inner[1] is not Ellipsis):
        if len(value) != len(inner):
            raise _bad(value, where, name, f"a list of {len(inner)}")
        return tuple(_read(kind, one, where, name) for kind, one in zip(inner, value, strict=True))
    made = [_read(inner[0], one, where, name) for one in value]
    return frozenset(made) if origin is frozenset else tuple(made)


def _dataclass(kind: type[Any], value: object, where: str, name: str) -> Any:
    if not isinstance(value, dict):
        raise _bad(value, where, name, "an object")
    known: dict[str, tuple[Any, bool]] = _fields(cast("Hashable", kind))
    for key in value:
        if key not in known:
            raise ConfigError(f"{name}: unknown field {one_line(key)}.{nearest(key, known)}", where)
    for key, (_, is_needed) in known.items():
        if is_needed and key not in value:
            raise ConfigError(f"{name}.{key} is missing", where)
    return kind(**{key: _read(known[key][0], one, where, f"{name}.{key}") for key, one in value.items()})


@functools.cache
def _fields(kind: Hashable) -> dict[str, tuple[Any, bool]]:
    """Each field's type, and whether it must be there."""
    of = cast("type[Any]", kind)
    hints = typing.get_type_hints(of)
    return {field.name: (hints[field.name],
                         field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING)
            for field in dataclasses.fields(of) if field.init}  # fmt: skip


def _bad(value: object, where: str, name: str, wanted: str) -> ConfigError:
    return ConfigError(f"{name}: {one_line(json.dumps(value, default=str))} is not {wanted}", where)
