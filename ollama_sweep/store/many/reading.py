"""What a reader says of very many cells."""

# ruff: noqa: S608 - what is put into SQL here are our own names of columns; values are always bound
from __future__ import annotations

import contextlib
import copy
import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Self

from ollama_sweep.core.errors import SweepError
from ollama_sweep.store.file import Reading
from ollama_sweep.store.lanes import disturbances
from ollama_sweep.store.many import abreast, packed
from ollama_sweep.store.many.packed import Packed, Usual, Wanted


class ManyReading(Reading):
    """The part of `Reader` about sweeps of very many cells."""

    def blocks(self, sweep_id: int) -> list[tuple[int, int]]:
        """First and last position of each part of the plan that `packed` takes at once."""
        with self._storage_errors():
            return list(packed.blocks(self._connection, sweep_id))

    @contextlib.contextmanager
    def abreast(self, n: int) -> Iterator[Sequence[Self]]:
        """Readers that see what this one sees, for as many threads; this one alone where that has changed since, or
        where there can be no more of them. What they cannot read this one tells.
        """
        with contextlib.ExitStack() as stack:
            readers: list[Self] = []
            with contextlib.suppress(SweepError, sqlite3.Error, OSError):
                found = [self._on(one) for one in stack.enter_context(abreast.connections(self.path, n))]
                if found and found[0]._standing() == self._standing():
                    readers = found
            yield readers or [self]

    def _on(self, connection: sqlite3.Connection) -> Self:
        other = copy.copy(self)
        other._connection = connection
        return other

    def _standing(self) -> list[object]:
        """Differs wherever something has become of a cell: its sweep's plan, its attempts, what is counted of both."""
        tables = ("SELECT * FROM sweeps ORDER BY id", "SELECT * FROM status_counts ORDER BY sweep_id, status")
        return [self.mark(), *map(self._rows, tables)]

    def mark(self) -> tuple[int, int, int]:
        """The last attempt of all, how many have not ended, what was found of lanes last: others as soon as one begins
        or ends, or cells may have other flags."""
        ((last, under_way),) = self._rows(
            """SELECT (SELECT COALESCE(max(id), 0) FROM main.attempts),
                (SELECT count(*) FROM main.attempts INDEXED BY attempts_open WHERE finished_at IS NULL)"""
        )
        with self._storage_errors():
            return int(last), int(under_way), disturbances.last(self._connection)

    def packed(self, sweep_id: int, first: int, last: int, wanted: Wanted) -> Packed:
        """The cells of a part of the plan, a text for each column. Raises Unpackable."""
        with self._storage_errors():
            return packed.between(self._connection, sweep_id, first, last, wanted)

    def packed_at(self, sweep_id: int, positions: Sequence[int], wanted: Wanted) -> Packed:
        """The cells at these positions. Raises Unpackable."""
        with self._storage_errors():
            return packed.at(self._connection, sweep_id, positions, wanted)

    def some_rows(self, sweep_id: int, columns: Sequence[str], positions: Sequence[int]) -> list[tuple[Any, ...]]:
        """These columns of the view `results` at these places of the plan, as they stand in the database."""
        named = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
        sql = f"""SELECT {named} FROM results WHERE sweep = (SELECT name FROM sweeps WHERE id = ?)
            AND position IN (SELECT value FROM json_each(?)) ORDER BY position"""
        return self._rows(sql, sweep_id, json.dumps(list(map(int, positions))))

    def factors(self, metric: str) -> dict[int, float]:
        """What a value is divided and multiplied by for its interval, by the shape of its attempt."""
        with self._storage_errors():
            return packed.factors(self._connection, metric)

    def usual(self, sweep_id: int) -> Usual:
        """What most attempts' numbers rest on."""
        with self._storage_errors():
            return packed.usual(self._connection, sweep_id)

    def has_looked(self, sweep_id: int) -> bool:
        """A second look was begun: cells of it may have been chosen for their values."""
        return bool(self._rows("SELECT EXISTS (SELECT 1 FROM second_looks WHERE sweep_id = ?)", sweep_id)[0][0])

    def touched_since(self, sweep_id: int, attempt_id: int, n: int) -> tuple[int, list[int]]:
        """The last attempt of all, and at most so many places of the plan whose result may have changed since."""
        with self._storage_errors():
            return packed.changed(self._connection, sweep_id, attempt_id, n)

    def recent_positions(self, sweep_id: int, n: int) -> list[int]:
        """Where the sweep measured last, at most so many cells."""
        with self._storage_errors():
            return packed.recent(self._connection, sweep_id, n)

    def extent(self, sweep_id: int) -> tuple[str, str] | None:
        """When the first and the last of the sweep's own attempts ended; None where none did."""
        with self._storage_errors():
            return packed.extent(self._connection, sweep_id)
