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
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
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
    return cast("T", _reader(cast("Hashable", kind))(value, where, kind.__name__))


_Reader = Callable[[object, str, str], Any]
"""Gives the value of a type that plain data stand for; `where` and the field's name are for what it raises."""


@functools.cache
def _reader(of: Hashable) -> _Reader:
    """The reader of a type, made once: an order or a result has a hundred fields."""
    kind = cast("Any", of)
    if kind is object or kind is Any:
        return lambda value, where, name: value
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _reader_of_one(inner)
    if origin is not None:
        return _collection_reader(origin, inner)
    if dataclasses.is_dataclass(kind):
        return _dataclass_reader(cast("type[Any]", kind))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _word_reader(kind)
    return _scalar_reader(kind)


def _word_reader(kind: type[StrEnum]) -> _Reader:
    members = {member.value: member for member in kind}

    def reader(value: object, where: str, name: str) -> Any:
        if not isinstance(value, str) or value not in members:
            raise _bad(value, where, name, f"one of {', '.join(sorted(members))}")
        return members[value]

    return reader


def _scalar_reader(kind: Any) -> _Reader:
    if kind is float:
        return _number
    names = {int: "a whole number", str: "text", bool: "true or false", type(None): "null"}
    words = names.get(kind, str(kind))

    def reader(value: object, where: str, name: str) -> Any:
        if type(value) is not kind:
            raise _bad(value, where, name, words)
        return value

    return reader


def _number(value: object, where: str, name: str) -> float:
    if type(value) in (int, float):
        number = float(cast("float", value))
        if math.isfinite(number):
            return number
    raise _bad(value, where, name, "a number")


def _reader_of_one(kinds: tuple[Any, ...]) -> _Reader:
    """The first kind that takes it; whole numbers stay whole where both are allowed."""
    readers = [(kind, _reader(kind)) for kind in kinds]

    def reader(value: object, where: str, name: str) -> Any:
        if type(value) in kinds:
            return value
        error = _bad(value, where, name, "another kind of value")
        for kind, one in readers:
            try:
                return one(value, where, name)
            except ConfigError as refused:
                error = refused if dataclasses.is_dataclass(kind) or typing.get_origin(kind) else error
        raise error

    return reader


def _collection_reader(origin: Any, inner: tuple[Any, ...]) -> _Reader:
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping_reader(_reader(inner[1]))
    if origin is tuple and (len(inner) != 2 or inner[1] is not Ellipsis):
        return _row_reader([_reader(kind) for kind in inner])
    one, make = _reader(inner[0]), frozenset if origin is frozenset else tuple

    def reader(value: object, where: str, name: str) -> Any:
        if not isinstance(value, list):
            raise _bad(value, where, name, "a list")
        return make([one(item, where, name) for item in value])

    return reader


def _mapping_reader(one: _Reader) -> _Reader:
    def reader(value: object, where: str, name: str) -> Any:
        if not isinstance(value, dict):
            raise _bad(value, where, name, "an object")
        return {key: one(item, where, f"{name}.{key}") for key, item in value.items()}

    return reader


def _row_reader(each: Sequence[_Reader]) -> _Reader:
    def reader(value: object, where: str, name: str) -> Any:
        if not isinstance(value, list):
            raise _bad(value, where, name, "a list")
        if len(value) != len(each):
            raise _bad(value, where, name, f"a list of {len(each)}")
        return tuple(one(item, where, name) for one, item in zip(each, value, strict=True))

    return reader


def _dataclass_reader(kind: type[Any]) -> _Reader:
    hints = typing.get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    readers = {field.name: _reader(hints[field.name]) for field in fields}
    needed = {
        field.name: None
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def reader(value: object, where: str, name: str) -> Any:
        if not isinstance(value, dict):
            raise _bad(value, where, name, "an object")
        if not value.keys() <= readers.keys():
            key = next(key for key in value if key not in readers)
            raise ConfigError(f"{name}: unknown field {one_line(key)}.{nearest(key, readers)}", where)
        if not needed.keys() <= value.keys():
            raise ConfigError(f"{name}.{next(key for key in needed if key not in value)} is missing", where)
        return kind(**{key: readers[key](one, where, f"{name}.{key}") for key, one in value.items()})

    return reader


def _bad(value: object, where: str, name: str, wanted: str) -> ConfigError:
    return ConfigError(f"{name}: {one_line(json.dumps(value, default=str))} is not {wanted}", where)
