"""Packed columns of very many cells as arrays; what cannot be packed is read row by row, each value looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Status
from ollama_sweep.results.grids import X, Y
from ollama_sweep.store.many.packed import (
    BETWEEN,
    LARGEST,
    LOADS,
    LOOKS,
    NOTHING,
    OPEN,
    RUNS,
    WITHIN,
    Packed,
    Unpackable,
    Wanted,
)

if TYPE_CHECKING:
    from ollama_sweep.store.reader import Reader

PLAIN = {"": (str(Status.OK), "", ""), OPEN: (str(Status.PENDING), "", "")}
_SHAPE = ("runs", "loads", "looks")

State = tuple[str, str, str]
"""Status, reason and flags."""


@dataclass
class Cells:
    """Some cells in the order of the plan. Of texts, shapes and states the words, and which of them each cell has.

    A number that is not there is NaN, of a place 0.
    """

    positions: Any
    places: Mapping[str, Any]
    states: Sequence[State]
    state_codes: Any
    shapes: tuple[Sequence[int], Any]
    numbers: Mapping[str, Any]
    texts: Mapping[str, tuple[Sequence[Scalar], Any]]


def cells_between(reader: Reader, sweep_id: int, first: int, last: int, wanted: Wanted) -> Cells:
    """The cells of a part of the plan."""
    try:
        return _unpacked(reader, reader.packed(sweep_id, first, last, wanted), wanted)
    except Unpackable:
        return _one_by_one(reader, sweep_id, range(first, last + 1), wanted)


def cells_at(reader: Reader, sweep_id: int, positions: Sequence[int], wanted: Wanted) -> Cells:
    """The cells at these positions, ascending."""
    try:
        return _unpacked(reader, reader.packed_at(sweep_id, positions, wanted), wanted)
    except Unpackable:
        return _one_by_one(reader, sweep_id, positions, wanted)


def place_of(value: int) -> int | None:
    """What stands at a place; None for 0, which a cell has where it is not set."""
    return value or None


def _unpacked(reader: Reader, packed: Packed, wanted: Wanted) -> Cells:
    if isinstance(packed.positions, tuple):
        positions = np.arange(packed.positions[0], packed.positions[1] + 1)
    else:
        positions = np.fromstring(packed.positions, np.int64, sep=",") if packed.positions else np.zeros(0, np.int64)
    count = len(positions)
    numbers = {name: _values(_whole(text, count), wanted.numbers[name]) for name, text in packed.numbers.items()}
    if not wanted.has_state:
        return Cells(positions, {}, (), None, ((), None), numbers, {})
    words, codes = _words(packed.states, count)
    usual = 0 if wanted.usual is None else wanted.usual.shape
    each = [_state(word, usual, packed.alike) for word in words]
    texts: dict[str, tuple[Sequence[Scalar], Any]] = {
        name: _coded([one.alike[at] for one in each], codes) for at, name in enumerate(("task", "model"))
    }
    for name, text in packed.texts.items():
        literals, of_each = _words(text, count)
        texts[name] = [reader.checked(name, _literal(word)) for word in literals], of_each
    return Cells(
        positions, {name: _whole(text, count) for name, text in packed.places.items()},
        [one.state for one in each], codes, ([one.shape for one in each], codes), numbers, texts,
    )  # fmt: skip


def _whole(text: str, count: int) -> Any:
    found = np.fromstring(text, np.int64, sep=",") if text else np.zeros(0, np.int64)
    if len(found) != count:
        raise Unpackable("not whole numbers")
    return found


def _values(found: Any, scale: float) -> Any:
    known = found != NOTHING
    if (np.abs(found[known]) >= LARGEST).any():
        raise Unpackable("numbers that are too large")
    values = np.full(len(found), np.nan)
    values[known] = found[known] / scale
    return values


def _words(text: str, count: int) -> tuple[list[str], Any]:
    """The different words of a text, and which of them each cell has."""
    parts = text.split(BETWEEN) if count else []
    if len(parts) != count:
        raise Unpackable("a separator in a text")
    known = {word: number for number, word in enumerate(dict.fromkeys(parts))}
    if len(known) == 1:
        return list(known), np.zeros(count, np.uint8)
    return list(known), np.fromiter(map(known.__getitem__, parts), np.int32, count)


class _Read(NamedTuple):
    """What a packed state says: state, shape, task and model."""

    state: State
    shape: int
    alike: tuple[str, str]


def _state(word: str, usual: int, alike: tuple[str, str]) -> _Read:
    if word in PLAIN:
        state = PLAIN[word]
        return _Read(state, usual if word == "" else 0, alike)
    parts = word.split(WITHIN)
    if len(parts) == 2:
        return _Read((parts[0], parts[1], ""), 0, alike)
    if len(parts) != 6 or not (parts[3].isdecimal() or parts[3] == ""):
        raise Unpackable("a separator in a text")
    is_usual = parts[3] == "" and parts[0] == Status.OK
    return _Read((parts[0], parts[1], parts[2]), usual if is_usual else int(parts[3] or 0), (parts[4], parts[5]))


def _coded(words: Sequence[str], codes: Any) -> tuple[Sequence[Scalar], Any]:
    """These words of codes, each once, and which of them each cell has."""
    known = {word: number for number, word in enumerate(dict.fromkeys(words))}
    if len(known) < 2:
        return list(known), np.zeros(len(codes), np.uint8)
    return list(known), np.array([known[word] for word in words], np.int32)[codes]


def _literal(word: str) -> Any:
    """A literal of SQL."""
    if word == "NULL":
        return None
    if word.startswith("'"):
        return word[1:-1].replace("''", "'")
    if word.startswith("X'"):
        return bytes.fromhex(word[2:-1])
    try:
        return int(word)
    except ValueError:
        return float(word)


def _one_by_one(reader: Reader, sweep_id: int, positions: Sequence[int], wanted: Wanted) -> Cells:
    """The same of rows; what cannot be read is noted and left out. Of attempts only their looks are known then."""
    texts = ["model", "task", *wanted.texts] if wanted.has_state else []
    names = ["position", X, Y, "status", "reason", "flags", *_SHAPE, *texts, *wanted.numbers]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for row in reader.some_rows(sweep_id, names, positions):
        for name, value in zip(names, reader.checked_row(names, row), strict=True):
            columns[name].append(value)
    count = len(columns["position"])
    numbers = {name: np.array([_number(value) for value in columns[name]], float) for name in wanted.numbers}
    kept = np.array(columns["position"], np.int64)
    if not wanted.has_state:
        return Cells(kept, {}, (), None, ((), None), numbers, {})
    places = {name: np.array([_place(value) for value in columns[name]], np.int64) for name in (X, Y)}
    each = [tuple(str(value or "") for value in state) for state in zip(columns["status"], columns["reason"],
                                                                    columns["flags"], strict=True)]  # fmt: skip
    states: dict[Any, int] = {state: number for number, state in enumerate(dict.fromkeys(each))}
    looks = np.array([min(LOOKS - 1, int(looks or 0)) for looks in columns["looks"]], np.int64)
    shapes = [RUNS * LOADS * number for number in range(LOOKS)]
    found: dict[str, tuple[Sequence[Scalar], Any]] = {}
    for name in texts:
        known = {word: number for number, word in enumerate(dict.fromkeys(columns[name]))}
        found[name] = list(known), np.fromiter(map(known.__getitem__, columns[name]), np.int32, count)
    return Cells(kept, places, list(states), np.array([states[state] for state in each], np.int32),
                 (shapes, looks), numbers, found)  # fmt: skip


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def _place(value: object) -> int:
    return value if isinstance(value, int) else 0
