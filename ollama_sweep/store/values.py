"""Values of the database, looked at before they are believed: what cannot be read costs its own row or field.

A bit that flipped, a copy that went wrong or another program's write may put anything anywhere. `strict_…` functions
raise `Unreadable`; a `Notes` says what is done without it, and keeps what a person is told.
"""

from __future__ import annotations

import json
import math
import sqlite3
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from ollama_sweep.core.errors import UnreadableValue
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Flag, Series, Status
from ollama_sweep.machine.sensing import series as packing

T = TypeVar("T")
SHOWN = 3
"""So many places are named in the line for a person; `verify` names all."""


class Unreadable(ValueError):
    """A value that is not what its place holds."""


BROKEN = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, zlib.error)
"""What reading nonsense may raise."""


class Notes:
    """What could not be read; `place` names a row in words."""

    def __init__(self, path: Path, say: Callable[[str], None] | None = None) -> None:
        self._path, self._say = path, say
        self._places: dict[str, None] = {}
        self._is_said = False

    def note(self, place: str) -> None:
        """One more value; with `say` the first of them is told at once."""
        self._places.setdefault(place)
        if self._say is not None:
            self.tell(self._say)

    def field(self, place: str, read: Callable[[Any], T], value: object, otherwise: T) -> T:
        """A value as `read` gives it, `otherwise` where it cannot be read."""
        try:
            return read(value)
        except BROKEN:
            self.note(place)
            return otherwise

    def fields(self, row_place: str, readers: Mapping[str, Callable[[Any], Any]], row: dict[str, Any]) -> None:
        """Each value of a row as its reader gives it, None where it cannot be read or there is none."""
        for name, read in readers.items():
            if (value := row[name]) is not None:
                try:
                    row[name] = read(value)
                except BROKEN:
                    self.note(f"{name} of {row_place}")
                    row[name] = None

    def row(self, place: str, make: Callable[..., T], *values: Any) -> T | None:
        """What `make` gives; None for a row that cannot be read."""
        try:
            return make(*values)
        except BROKEN:
            self.note(place)
            return None

    def rows(self, place: str, make: Callable[..., T], rows: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """Those that can be read."""
        for row in rows:
            if (made := self.row(place, make, *row)) is not None:
                yield made

    def tell(self, say: Callable[[str], None]) -> None:
        """The one line, once; nothing where all could be read."""
        if self._places and not self._is_said:
            self._is_said = True
            say(self.line())

    def warn(self) -> None:
        """The same as a warning of Python's."""
        self.tell(lambda line: warnings.warn(line, UnreadableValue, stacklevel=4))

    def line(self) -> str:
        """What a person is told."""
        shown = list(self._places)[:SHOWN]
        more = len(self._places) - len(shown)
        what = ", ".join(shown) + (f" and {more} more" if more else "")
        return f"{self._path} has values that cannot be read ({what}); they are left out. {way_out(self._path)}"


def way_out(path: Path) -> str:
    """Which commands help."""
    return f"What is wrong: ollama-sweep verify --db {path}. {recover_words(path)}"


def recover_words(path: Path) -> str:
    return f"A sound copy: ollama-sweep recover --db {path} --to new.db"


# -- one value -------------------------------------------------------------------------------------------------------


def text(value: object) -> str:
    if not isinstance(value, str) or isinstance(value, BrokenText):
        raise Unreadable("no text")
    return value


def optional_text(value: object) -> str | None:
    return None if value is None else text(value)


def number(value: object) -> float:
    """A finite number, whole or not."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unreadable("no number")
    return value


def whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unreadable("no whole number")
    return value


def optional_number(value: object) -> float | None:
    return None if value is None else number(value)


def optional_whole(value: object) -> int | None:
    return None if value is None else whole(value)


def optional_scalar(value: object) -> Scalar:
    """A number or a text."""
    return optional_text(value) if isinstance(value, str) else optional_number(value)


def status(value: object) -> Status:
    return Status(text(value))


def flags(value: object) -> frozenset[Flag]:
    return frozenset(Flag(word) for word in text(value).split(",") if word)


def known_flags(value: object) -> frozenset[Flag]:
    """Those of the words that are flags."""
    known = set(map(str, Flag))
    return frozenset(Flag(word) for word in str(value).split(",") if word in known)


def moment(value: object) -> datetime:
    """A time in ISO 8601; UTC where it says no zone."""
    found = datetime.fromisoformat(text(value))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def json_object(value: object) -> dict[str, Any]:
    found = _json(value)
    if not isinstance(found, dict):
        raise Unreadable("no object")
    return found


def scalars(value: object) -> dict[str, Scalar]:
    """A JSON object of single values."""
    found = json_object(value)
    if not all(one is None or isinstance(one, str | int | float) for one in found.values()):
        raise Unreadable("no single values")
    return found


def json_list(value: object) -> list[Any]:
    found = _json(value)
    if not isinstance(found, list):
        raise Unreadable("no list")
    return found


def names(value: object) -> tuple[str, ...]:
    """A JSON list of texts."""
    found = json_list(value)
    if not all(isinstance(one, str) for one in found):
        raise Unreadable("no names")
    return tuple(found)


def _json(value: object) -> Any:
    try:
        return json.loads(text(value), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"broken JSON: {error}") from None


def _refuse(word: str) -> None:
    raise Unreadable(f"{word} is no number")


def series(value: object) -> Series:
    """Telemetry as it is packed."""
    return packing.unpacked(unpacked(value))


def unpacked(value: object) -> str:
    """A compressed text."""
    if not isinstance(value, bytes):
        raise Unreadable("not compressed")
    return zlib.decompress(value).decode("utf-8", "surrogatepass")


# -- texts that are not UTF-8 ----------------------------------------------------------------------------------------


class BrokenText(str):
    """A text with bytes that are not UTF-8; they are shown as `\\xff`."""


def lenient_text(value: bytes) -> str:
    """The `text_factory` of a connection that has met such a text."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return BrokenText(value.decode("utf-8", "backslashreplace"))


def is_text_error(error: sqlite3.Error) -> bool:
    """Python's own error for a text that is not UTF-8."""
    return str(error).startswith("Could not decode to UTF-8")


def rows_of(connection: sqlite3.Connection, sql: str, values: Any = ()) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, also those with texts that are not UTF-8: only then every text is looked at in Python."""
    given = 0
    try:
        for row in connection.execute(sql, values):
            given += 1
            yield row
    except sqlite3.OperationalError as error:
        if not is_text_error(error) or connection.text_factory is lenient_text:
            raise
    else:
        return
    connection.text_factory = lenient_text
    rest = connection.execute(sql, values)
    for number_, row in enumerate(rest):
        if number_ >= given:
            yield row
