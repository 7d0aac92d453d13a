"""Read a damaged database: a copy that SQLite opens, and its rows in ranges around what cannot be read.

The damaged file itself is only ever read, and never by SQLite, which would write to it.
"""

# ruff: noqa: S608 - what is put into SQL here are our own names of tables and columns; values are always bound
from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ollama_sweep.core.errors import ConfigError, DatabaseInUse
from ollama_sweep.store import file as files
from ollama_sweep.store.schema import APPLICATION_ID, MIGRATIONS, USER_VERSION

PAGE_BYTES = 4096
"""SQLite's default, which our databases have."""
_CHUNK_BYTES = 1024 * 1024
_MAGIC = b"SQLite format 3\0"
_NO_PAGES = slice(28, 40)
"""In the header: the number of pages and the list of free ones; zeros make SQLite look at the file's size."""
_TABLE_LEAF, _TABLE_INTERIOR = 0x0D, 0x05
_DEFINITION_COLUMNS, _DEFINED = 5, (b"table", b"index", b"trigger", b"view")
_NO_LIMIT = (1 << 62) - 1
_IDS_AT_THE_END = 4096
"""How far behind the last readable row others are looked for, where nothing says how many there were."""

Row = tuple[Any, ...]
_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)


@dataclass(frozen=True)
class Table:
    """What is known of a table of ours: `key` is `rowid`, or the columns of a table without one."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    has_id: bool
    sql: str
    root: int


def tables_of(connection: sqlite3.Connection) -> dict[str, Table]:
    """Our tables in a sound database, in the order of their making."""
    found = {}
    rows = connection.execute("SELECT name, sql, rootpage FROM sqlite_master WHERE type = 'table' ORDER BY rowid")
    for name, sql, root in rows.fetchall():
        if not name.startswith(("sqlite_", "_")):
            found[name] = _table(connection, name, sql, root)
    return found


def _table(connection: sqlite3.Connection, name: str, sql: str, root: int) -> Table:
    info = connection.execute(f"PRAGMA table_info({name})").fetchall()
    key = tuple(row[1] for row in sorted(info, key=lambda row: int(row[5])) if row[5])
    without_rowid = "WITHOUT ROWID" in sql.upper()
    has_id = not without_rowid and len(key) == 1 and any(row[1] == key[0] and row[2] == "INTEGER" for row in info)
    return Table(name, tuple(row[1] for row in info), key if without_rowid else ("rowid",), has_id, sql, root)


# -- the copy --------------------------------------------------------------------------------------------------------


def copy_damaged(path: Path, copy: Path) -> int:
    """Copy a database and its log; what the disk does not give becomes zeros. Returns how many bytes that is.

    A file that was cut off inside a page ends before it: SQLite would take what is missing of a row for zeros.
    """
    lost = sum(
        _copy_file(source, target)
        for source, target in ((path, copy), (files.wal_path(path), files.wal_path(copy)))
        if source.exists()
    )
    size = copy.stat().st_size
    if size > PAGE_BYTES:
        os.truncate(copy, size - size % PAGE_BYTES)
    return lost


def _copy_file(source: Path, target: Path) -> int:
    """In large pieces; where one cannot be read, in pages."""
    size, lost, position = source.stat().st_size, 0, 0
    piece = _CHUNK_BYTES
    with source.open("rb", buffering=0) as reading, target.open("xb") as writing:
        while position < size:
            try:
                data = os.pread(reading.fileno(), min(piece, size - position), position)
            except OSError:
                if piece == PAGE_BYTES:
                    lost += min(PAGE_BYTES, size - position)
                    position += PAGE_BYTES
                piece = PAGE_BYTES
                continue
            if not data:
                break
            writing.seek(position)
            writing.write(data)
            position += len(data)
            if position % _CHUNK_BYTES == 0:
                piece = _CHUNK_BYTES
        writing.truncate(size)
    return lost


def open_copy(copy: Path, path: Path, ours: Mapping[str, Table]) -> sqlite3.Connection:
    """The copy, open for reading; where its first page is lost it gets a new one.

    Raises DatabaseInUse (another program's) and ConfigError (a newer version's).
    """
    if _has_header(copy):
        connection = _open(copy)
        try:
            is_whole = _is_whole(connection, path, set(ours))
        except BaseException:
            connection.close()
            raise
        if is_whole:
            return connection if not _mend_definitions(connection, ours) else _reopened(connection, copy)
        connection.close()
    _write_first_page(copy, ours)
    return _open(copy)


def _is_whole(connection: sqlite3.Connection, path: Path, ours: set[str]) -> bool:
    """The definitions of all tables can be read, as far as the file's version has them."""
    names = _names_of(connection)
    application, version = _header_of(connection, "application_id"), _header_of(connection, "user_version")
    if names and application != APPLICATION_ID and not names & ours:
        raise DatabaseInUse(f"{path} belongs to another program (tables: {', '.join(sorted(names)[:5])})")
    if application == APPLICATION_ID and _is_newer(connection, version):
        raise ConfigError(f"{path} was made by a newer version of this program; update it")
    return ours <= names or is_older(connection)


def is_older(connection: sqlite3.Connection) -> bool:
    """An earlier version made the file, so some tables are not in it."""
    version = _header_of(connection, "user_version")
    return _header_of(connection, "application_id") == APPLICATION_ID and 0 < (version or 0) < USER_VERSION


def _is_newer(connection: sqlite3.Connection, version: int | None) -> bool:
    """By its list of migrations, for the number in the header may be what is damaged; by that where there is none."""
    try:
        made = {str(name) for (name,) in connection.execute("SELECT name FROM _sqlite_migrations")}
    except _DAMAGE:
        made = set()
    return bool(made - {name for name, _ in MIGRATIONS}) if made else (version or 0) > USER_VERSION


def _mend_definitions(connection: sqlite3.Connection, ours: Mapping[str, Table]) -> bool:
    """Give a table our definition again where its own has a column that we do not know: a bit of it has flipped.

    SQLite would read the column under its wrong name, and every row would lack a value. True where one was mended.
    """
    is_mended = False
    for table in ours.values():
        with contextlib.suppress(*_DAMAGE):
            names = {row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")}
            if names - set(table.columns):
                connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (table.sql, table.name))
                is_mended = True
    return is_mended


def _reopened(connection: sqlite3.Connection, copy: Path) -> sqlite3.Connection:
    """Another connection, which reads the definitions anew."""
    connection.close()
    return _open(copy)


def _has_header(copy: Path) -> bool:
    with copy.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _open(copy: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(copy, isolation_level=None)
    with contextlib.suppress(sqlite3.DatabaseError):
        # This one setting lets SQLite read a file with a damaged definition or of the wrong length.
        connection.execute("PRAGMA writable_schema = ON").fetchall()
        connection.execute("PRAGMA cell_size_check = ON").fetchall()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return connection


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Also true where nobody can say."""
    names = _names_of(connection)
    return not names or name in names


def _names_of(connection: sqlite3.Connection) -> set[str]:
    try:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except _DAMAGE:
        return set()
    return {str(name) for (name,) in rows}


def _header_of(connection: sqlite3.Connection, name: str) -> int | None:
    try:
        return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
    except _DAMAGE:
        return None


def _write_first_page(copy: Path, ours: Mapping[str, Table]) -> None:
    """Give the copy a first page that says where our tables begin: in every database of one version they do so alike.

    It is made by SQLite, in a file of its own, with the shortest definitions. What does not fit on it goes to the end.
    """
    maker = copy.with_name(copy.name + "-page")
    with contextlib.closing(sqlite3.connect(maker, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("BEGIN")
        for table in ours.values():
            connection.execute(_shortest(table))
        connection.execute("PRAGMA writable_schema = ON")
        for table in ours.values():
            connection.execute("UPDATE sqlite_master SET rootpage = ? WHERE name = ?", (table.root, table.name))
        connection.execute("COMMIT")
    made = maker.read_bytes()
    maker.unlink()
    page = bytearray(made[:PAGE_BYTES])
    page[_NO_PAGES] = bytes(len(page[_NO_PAGES]))
    with copy.open("r+b") as file:
        end = -(-file.seek(0, os.SEEK_END) // PAGE_BYTES)
        for number, place in enumerate(_children(page)):
            child = int.from_bytes(page[place])
            page[place] = (end + number + 1).to_bytes(4)
            file.seek((end + number) * PAGE_BYTES)
            file.write(made[(child - 1) * PAGE_BYTES : child * PAGE_BYTES])
        file.seek(0)
        file.write(page)


def _children(page: bytes | bytearray) -> list[slice]:
    """Where a first page that is not the only one of its tree names the others (https://sqlite.org/fileformat2.html)."""
    head = 100
    if page[head] != _TABLE_INTERIOR:
        return []
    cells = [head + 12 + 2 * n for n in range(int.from_bytes(page[head + 3 : head + 5]))]
    places = [int.from_bytes(page[at : at + 2]) for at in cells]
    return [slice(place, place + 4) for place in (*places, head + 8)]


def _shortest(table: Table) -> str:
    """A definition without types, checks and indexes; only what decides how a row is stored."""
    if not table.has_id and table.key != ("rowid",):
        names = ", ".join(table.columns)
        return f"CREATE TABLE {table.name} ({names}, PRIMARY KEY ({', '.join(table.key)})) WITHOUT ROWID"
    first, *others = table.columns
    return f"CREATE TABLE {table.name} ({first}{' INTEGER PRIMARY KEY' if table.has_id else ''}, {', '.join(others)})"


# -- its rows --------------------------------------------------------------------------------------------------------


@dataclass
class Reading:
    """Reads one table of a damaged database.

    `unreadable` counts the row numbers that cannot be read; with `is_open_ended` nobody knows how many more there were.
    """

    connection: sqlite3.Connection
    table: Table
    unreadable: int = 0
    is_open_ended: bool = False

    def columns(self) -> tuple[str, ...]:
        """Those that the file has: an older version's has fewer; none where the table cannot be read at all."""
        found = {row[1] for row in self._all(f"PRAGMA table_info({self.table.name})")}
        return tuple(column for column in self.table.columns if column in found)

    def rows(self, columns: Sequence[str], groups: Sequence[int]) -> Iterator[Row]:
        """Every row that can be read: its number, then these columns. `groups` are the first halves of a double key."""
        if self.table.key == ("rowid",):
            yield from self._ranges(columns, "rowid", "", self._last("rowid", ""))
            return
        first, second = self.table.key
        for group in groups:
            yield from self._ranges(
                columns, second, f"{first} = {group} AND ", self._last(second, f"{first} = {group}")
            )

    def _ranges(self, columns: Sequence[str], number: str, where: str, largest: int | None) -> Iterator[Row]:
        """Ranges are halved around what cannot be read, down to a single row."""
        sql = f"""SELECT {number}, {", ".join(columns)} FROM {self.table.name} {self._itself}
            WHERE {where}{number} BETWEEN ? AND ? ORDER BY {number}"""
        is_guessed, last = False, 0
        ranges = [(int(not where), _NO_LIMIT if largest is None else largest)]
        while ranges:
            low, high = ranges.pop()
            try:
                for row in self.connection.execute(sql, (low, high)):
                    low = last = max(low, row[0] + 1)
                    yield row
            except _DAMAGE:
                if high == _NO_LIMIT:
                    is_guessed = self.is_open_ended = True
                    high = last + _IDS_AT_THE_END
                if low < high:
                    middle = (low + high) // 2
                    ranges += [(middle + 1, high), (low, middle)]
                else:
                    self.unreadable += low == high and not is_guessed

    @property
    def _itself(self) -> str:
        return "NOT INDEXED" if self.table.key == ("rowid",) else ""

    def _last(self, number: str, where: str) -> int | None:
        """The largest number that anything still knows: the table, its indexes, its counter."""
        condition = f"WHERE {where}" if where else ""
        table = self.table.name
        asked = [f"SELECT {number} FROM {table} {self._itself} {condition} ORDER BY {number} DESC LIMIT 1"]
        asked += [f"SELECT max({number}) FROM {table} INDEXED BY {index} {condition}" for index in self._indexes()]
        asked += [f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'"] if not where else []
        return self._most(asked)

    def expected(self) -> int | None:
        """How many rows there were, by an index that can still be read; None where none says."""
        return self._most(f"SELECT count(*) FROM {self.table.name} INDEXED BY {name}" for name in self._indexes())

    def _indexes(self) -> list[str]:
        """Those that are not the table itself and have every one of its rows."""
        own = ("c", "u", "pk") if self.table.key == ("rowid",) else ("c", "u")
        rows = self._all(f"PRAGMA index_list({self.table.name})")
        return [str(name) for _, name, _, origin, is_partial in rows if not is_partial and origin in own]

    def _most(self, asked: Iterable[str]) -> int | None:
        answers = [row[0] for sql in asked for row in self._all(sql)]
        return max((answer for answer in answers if isinstance(answer, int)), default=None)

    def _all(self, sql: str) -> list[Row]:
        try:
            return self.connection.execute(sql).fetchall()
        except _DAMAGE:
            return []


# -- its rows, page by page ------------------------------------------------------------------------------------------


class Leaves:
    """The pages that hold rows, found by what they look like: for tables whose tree of pages is torn.

    Rows are never deleted from our large tables, so that a page of rows has none that are out of date. The copy's
    first page is replaced; SQLite is then told to take one page after the other for a whole table.
    """

    def __init__(self, copy: Path, ours: Mapping[str, Table]) -> None:
        self._pages = _pages_by_shape(copy)
        _write_first_page(copy, ours)
        files.wal_path(copy).unlink(missing_ok=True)
        self._connection = _open(copy)
        self._connection.execute("PRAGMA journal_mode = OFF").fetchall()
        self._version = 1

    def close(self) -> None:
        self._connection.close()

    def rows(self, table: Table) -> Iterator[Row]:
        """Every row on every page that may be this table's: its number, then all columns."""
        for page in self._pages.get((len(table.columns), table.has_id), ()):
            self._version += 1
            self._connection.execute("UPDATE sqlite_master SET rootpage = ? WHERE name = ?", (page, table.name))
            self._connection.execute(f"PRAGMA schema_version = {self._version}")
            with contextlib.suppress(*_DAMAGE):
                sql = f"SELECT rowid, {', '.join(table.columns)} FROM {table.name}"
                yield from self._connection.execute(sql)


def _pages_by_shape(copy: Path) -> dict[tuple[int, bool], list[int]]:
    """Page numbers by the first row's number of columns, and whether its first column is the row's number."""
    found: dict[tuple[int, bool], list[int]] = {}
    with copy.open("rb") as file:
        number = 0
        while len(page := file.read(PAGE_BYTES)) == PAGE_BYTES:
            number += 1
            shape = _shape(page) if number > 1 and page[0] == _TABLE_LEAF else None
            if shape:
                found.setdefault(shape, []).append(number)
    return found


def _shape(page: bytes) -> tuple[int, bool] | None:
    """See https://sqlite.org/fileformat2.html: a row is its length, its number, and a header of types."""
    rows = int.from_bytes(page[3:5])
    if not rows:
        return None
    try:
        start = int.from_bytes(page[8:10])
        for _ in range(2):
            _, start = _varint(page, start)
        length, position = _varint(page, start)
        types = []
        while position < start + length:
            kind, position = _varint(page, position)
            types.append(kind)
    except IndexError:
        return None
    if len(types) == _DEFINITION_COLUMNS and page.startswith(_DEFINED, position):
        return None  # a page of definitions, of the file itself or of the first page that was made anew
    return (len(types), types[0] == 0) if types else None


def _varint(page: bytes, position: int) -> tuple[int, int]:
    value = 0
    for _ in range(8):
        byte = page[position]
        position += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, position
    return value << 8 | page[position], position + 1
