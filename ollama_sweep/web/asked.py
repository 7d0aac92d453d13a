"""What a link asks for: every state of a page stands in its address, so it can be sent and kept. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import CellResult, Flag, Status
from ollama_sweep.core.text import in_short
from ollama_sweep.results.grids import X, Y, in_order, in_word, value_at
from ollama_sweep.results.page.view import Look

ONLY = "only."
"""In front of a dimension's name: only the cells with this value of it."""
ROWS = 100
"""Cells on a page of their table."""
BETWEEN = ".."
"""Between the first and the last value of a part of a map."""
_KNOWN = ("sweep", "metric", "x", "y", "across", "down", "against", "status", "flag", "page", "predict", "at", "part")


@dataclass(frozen=True)
class Asked:
    """A sweep and how it is looked at. "" is what a page takes by itself; `only` are values of dimensions.

    `against` is the sweep that the map is a ratio to; `page` counts from 1. `across` and `down` are a part of the map,
    `2048..4096` by the values of `x` and `y`.
    """

    sweep: str = ""
    metric: str = ""
    x: str = ""
    y: str = ""
    only: tuple[tuple[str, str], ...] = ()
    status: str = ""
    flag: str = ""
    against: str = ""
    page: int = 1
    predicts: bool = False
    across: str = ""
    down: str = ""

    @property
    def look(self) -> Look:
        """How the maps are looked at."""
        return Look(self.metric or None, self.x or X, self.y or Y, self.predicts)

    @property
    def is_filtered(self) -> bool:
        """Not every cell is asked for."""
        return bool(self.only or self.status or self.flag or self.across or self.down)

    def link(self, path: str = "", **changes: object) -> str:
        """The address of this with changes; whatever is as by itself is left out of it."""
        asked = replace(self, **changes)  # type: ignore[arg-type]
        words = {"sweep": asked.sweep, "metric": asked.metric, "x": asked.x, "y": asked.y, "across": asked.across,
                 "down": asked.down, "status": asked.status, "flag": asked.flag, "against": asked.against,
                 "page": str(asked.page) if asked.page > 1 else "",
                 "predict": "1" if asked.predicts else ""}  # fmt: skip
        pairs = [(name, value) for name, value in words.items() if value]
        pairs += [(f"{ONLY}{name}", value) for name, value in asked.only]
        return f"{path}?{urlencode(pairs)}" if pairs else path or "."

    def chosen(self, cells: Iterable[CellResult]) -> list[CellResult]:
        """The cells that are asked for. Raises ConfigError for a part of the map that there is not."""
        cells = list(cells)
        parts = {name: values_within({value_at(cell, name) for cell in cells}, word, where)
                 for name, word, where in self.parts()}  # fmt: skip
        found = [cell for cell in cells if self._has(cell)]
        return [cell for cell in found if all(value_at(cell, name) in values for name, values in parts.items())]

    def parts(self) -> list[tuple[str, str, str]]:
        """Of the dimensions of the map of which a part is asked for: the name, the part, and its word."""
        found = ((self.look.x, self.across, "across"), (self.look.y, self.down, "down"))
        return [(name, word, where) for name, word, where in found if word]

    def _has(self, cell: CellResult) -> bool:
        if (self.status and cell.status != self.status) or (self.flag and self.flag not in cell.flags):
            return False
        return all(in_word(value_at(cell, name)) == value for name, value in self.only)

    def check(self, dimensions: Sequence[str]) -> None:
        """Raises ConfigError for a dimension that the sweep does not have, a status or a flag that there is not."""
        known = (*dimensions, "model", "task", X, Y)
        for where, name in (("x", self.x), ("y", self.y), *((ONLY + name, name) for name, _ in self.only)):
            if name and name not in known:
                some = ", ".join(dict.fromkeys(known))
                raise ConfigError(f"{name} is no dimension. There are {some}.{nearest(name, known)}", where)
        if self.x and self.look.x == self.look.y:
            raise ConfigError(f"{self.x} is both across and down", "x")
        for where, word, kinds in (("status", self.status, Status), ("flag", self.flag, Flag)):
            if word and word not in list(kinds):
                some = ", ".join(kinds)
                raise ConfigError(f"{word} is none. There are {some}.{nearest(word, list(kinds))}", where)


def values_within(values: Iterable[Scalar], word: str, where: str) -> set[Scalar]:
    """The values from the first to the last that are named. Raises ConfigError for one that there is not."""
    ordered = sorted(values, key=in_order)
    named = [in_word(value) for value in ordered]
    first, _, last = word.partition(BETWEEN)
    for end in (first, last or first):
        if end not in named:
            raise ConfigError(f"there is no value {end}.{nearest(end, named)}", where)
    return set(ordered[named.index(first) : named.index(last or first) + 1])


def check_values(asked: Asked, values_of: Callable[[str], Iterable[Scalar]]) -> None:
    """Raises ConfigError for a value that no cell of the plan has."""
    for name, value in asked.only:
        known = dict.fromkeys(map(in_word, values_of(name)))
        if known and value not in known:
            there = in_short(list(known))
            raise ConfigError(f"no cell has {name} {value}. There are {there}.{nearest(value, known)}", ONLY + name)


def read(query: Iterable[tuple[str, str]]) -> Asked:
    """What an address asks. Raises ConfigError for a word it does not know, and for a page that is no number."""
    pairs = [(name, value.strip()) for name, value in query if value.strip()]
    only = tuple(sorted((name.removeprefix(ONLY), value) for name, value in pairs if name.startswith(ONLY)))
    words: Mapping[str, str] = {name: value for name, value in pairs if not name.startswith(ONLY)}
    check_words(words, _KNOWN)
    if words.get("predict", "1") != "1":
        raise ConfigError(f"{words['predict']} is none; write 1, or leave it out", "predict")
    return Asked(
        words.get("sweep", ""), words.get("metric", ""), words.get("x", ""), words.get("y", ""), only,
        words.get("status", ""), words.get("flag", ""), words.get("against", ""),
        number(words.get("page", "1"), "page"), words.get("predict", "") == "1",
        words.get("across", ""), words.get("down", ""),
    )  # fmt: skip


def check_words(words: Iterable[str], known: Sequence[str]) -> None:
    """Raises ConfigError for one that an address does not take."""
    for name in words:
        if name not in known:
            raise ConfigError(f"unknown word {name} in the address.{nearest(name, known)}")


def number(word: str, where: str, low: int = 1) -> int:
    """A whole number of an address. Raises ConfigError."""
    if not word:
        raise ConfigError(f"is missing; write a whole number from {low} on", where)
    if not (word.isascii() and word.isdecimal() and len(word) <= 9 and int(word) >= low):
        raise ConfigError(f"{word} is no whole number from {low} on", where)
    return int(word)
