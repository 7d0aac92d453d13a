"""Rows of CSV text as programs write it: with commas, and as Excel does in many countries with `;` or tabs.

Another separator than the comma is taken only where it is certain: `sep=;` in the first line says so, or every row
has as many fields with it, two or more, and with commas they have not.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

SEPARATORS = ",;\t"
_SAID = re.compile(r'"?sep=(.)"?\r?(?:\n|\Z)', re.IGNORECASE)


class NotRows(ValueError):
    """The text is no CSV; `line` is where the row begins that is none."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.line = line


Row = tuple[list[str], int]


def rows(text: str) -> Iterator[Row]:
    """Each row that is not empty, with the line where it begins. Raises NotRows where it comes to what is no CSV."""
    said = _SAID.match(text)
    if said and said[1] in SEPARATORS:
        found, error = _read(text[said.end() :], said[1], 2)
    else:
        found, error = _read_as_is(text)
    yield from found
    if error is not None:
        raise error


def _read_as_is(text: str) -> tuple[list[Row], NotRows | None]:
    usual = _read(text, ",", 1)
    if _is_even(*usual):
        return usual
    others = [_read(text, sign, 1) for sign in SEPARATORS[1:] if sign in text]
    certain = [other for other in others if _is_even(*other)]
    return certain[0] if len(certain) == 1 else usual


def _is_even(found: list[Row], error: NotRows | None) -> bool:
    """Every row has as many fields, two or more."""
    counts = {len(row) for row, _ in found}
    return error is None and len(counts) == 1 and 1 not in counts


def _read(text: str, sign: str, first: int) -> tuple[list[Row], NotRows | None]:
    """The rows up to the first that is none, and what is wrong with that."""
    found: list[Row] = []
    limit = csv.field_size_limit(max(1, len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=sign)
    begin = first
    try:
        for row in reader:
            if row:
                found.append((row, begin))
            begin = first + reader.line_num
    except csv.Error as error:
        return found, NotRows(str(error), begin)
    finally:
        csv.field_size_limit(limit)
    return found, None
