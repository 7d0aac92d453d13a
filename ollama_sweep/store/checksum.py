"""A checksum over an attempt and all that belongs to it, and one of each row that belongs to none: what a disk or a
copy has changed is found by it.

It is made of the values as SQLite gives them back, and kept beside the attempt as text: the form, then a part for each
kind of row, `2 cell:… attempt:… runs:… scores:… answers:… prompts:… telemetry:…`. A value that is NULL is left out, so
a column that is NULL in old rows joins a list without a new form. A column that has a value in them, one that leaves a
list, or a further table needs a new form: one more entry in `FORMS`, the last of which is written.

Rows of the tables in `ROWS` have a column `checksum` of their own.
"""

# ruff: noqa: S608 - what is put into SQL here are our own names of tables and columns; values are always bound
from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_CELL = (
    "key", "engine", "model", "model_digest", "num_ctx", "num_batch", "options", "server", "task", "task_options",
    "prompt_hash", "quantization", "parameter_size",
)  # fmt: skip
"""What a cell is, and never changes."""
_ATTEMPT = (
    "id", "cell_id", "sweep_id", "number", "status", "reason", "error", "flags", "timeout_s", "repeats", "started_at",
    "finished_at", "pid", "boot_id", "runs", "prompt_eval_count", "prompt_eval_rate", "prompt_eval_rate_min",
    "prompt_eval_rate_max", "prompt_eval_duration_s", "eval_count", "eval_rate", "total_duration_s", "scores",
    "effective_num_ctx", "effective_num_batch", "size_bytes", "size_vram_bytes", "load_duration_s", "others_loaded",
    "purpose", "loads", "choice",
)  # fmt: skip
"""All but the segment, which `recover` empties where it is lost."""
_RUNS = (
    "part", "number", "warmup", "nonce", "prompt_eval_count", "cached_count", "prompt_eval_duration_s",
    "prompt_eval_rate", "eval_count", "eval_duration_s", "eval_rate", "total_duration_s", "load_duration_s",
    "printed_rate", "client_duration_s", "believed", "doubt", "ttft_s",
    "thinking_count", "thinking_duration_s", "started_s",
)  # fmt: skip
_SCORES = ("part", "name", "value")
_ANSWERS = (
    "part", "item", "category", "prompt_hash", "output", "failure", "tries", "chunk_count", "is_estimated",
    "peak_rss_bytes", "thoughts",
)  # fmt: skip
_ASKED = "hash IN (SELECT prompt_hash FROM answers WHERE attempt_id = ?)"


@dataclass(frozen=True)
class _Part:
    """Rows of a table that belong to an attempt, in the order of `key`."""

    table: str
    columns: tuple[str, ...]
    where: str = "attempt_id = ?"
    key: str = "part"


_FORM_1 = {
    "cell": _Part("cells", _CELL, "id = (SELECT cell_id FROM attempts WHERE id = ?)", "id"),
    "attempt": _Part("attempts", _ATTEMPT, "id = ?", "id"),
    "runs": _Part("runs", _RUNS),
    "scores": _Part("scores", _SCORES, key="part, name"),
    "answers": _Part("answers", _ANSWERS),
    "prompts": _Part("prompts", ("hash", "text"), _ASKED, "hash"),
}
FORMS: Mapping[str, Mapping[str, _Part]] = {
    "1": _FORM_1,
    "2": {**_FORM_1, "telemetry": _Part("telemetry", ("series",), key="attempt_id")},
}
_NOW = list(FORMS)[-1]
ROWS: Mapping[str, tuple[str, ...]] = {
    "plan": ("sweep_id", "position", "cell_id", "coordinates", "model", "same_as"),
    "controls": ("sweep_id", "cell_id", "prompt_eval_rate", "drift", "measured_at"),
    "load_values": ("attempt_id", "metric", "log_median", "runs", "squares"),
    "corrections": ("attempt_id", "drift"),
    "further_loads": ("sweep_id", "cell_id", "purpose", "number", "place", "reason", "choice"),
    "second_looks": ("sweep_id", "share", "begun_at"),
    "out_of_memory": (
        "attempt_id", "is_fresh", "engine", "engine_version", "machine", "model_digest", "modelfile_hash", "num_ctx",
        "num_batch", "load_options", "server", "gpu_free_bytes", "memory_free_bytes",
    ),
    "scans": (
        "sweep_id", "combination", "num_ctx", "num_batch", "result", "reason", "error", "effective_num_ctx",
        "effective_num_batch", "size_bytes", "size_vram_bytes", "load_duration_s", "scanned_at",
    ),
    "goals": ("sweep_id", "goal", "of_file", "begun_at", "ended_at", "is_reached", "says", "answers"),
    "choices": ("attempt_id", "goal", "reason", "how_far"),
    "lanes": ("sweep_id", "name", "host", "gpu"),
    "leases": ("attempt_id", "lane_id", "until_at"),
    "disturbances": ("sweep", "lanes", "coordinates", "alone", "beside", "is_there", "measured_at"),
}  # fmt: skip
"""Of each table what a row is sealed over: not what changes later, nor a reference that `recover` may empty. A goal is
sealed anew whenever it changes."""


def seal(connection: sqlite3.Connection, attempt_id: int) -> None:
    """Store the checksum of an attempt that has ended."""
    parts = FORMS[_NOW]
    made = (f"{name}:{_digest(connection, part, attempt_id, part.columns)}" for name, part in parts.items())
    text = " ".join([_NOW, *made])
    connection.execute("INSERT OR REPLACE INTO checksums (attempt_id, checksum) VALUES (?, ?)", (attempt_id, text))


def seal_rows(connection: sqlite3.Connection, table: str, where: str, bound: Sequence[object] = ()) -> None:
    """Store the checksums of rows that were just written; `where` may say `checksum IS NULL`, but has an index."""
    names, function = ROWS[table], f"{table}_checksum"
    sql = f"UPDATE {table} SET checksum = {function}({', '.join(names)}) WHERE {where}"
    try:
        connection.execute(sql, bound)
    except sqlite3.OperationalError as error:
        if "no such function" not in str(error):
            raise
        # Once for a connection: SQLite takes no function a second time while somebody still reads rows.
        connection.create_function(function, len(names), lambda *row: row_checksum(table, row), deterministic=True)
        connection.execute(sql, bound)


def row_checksum(table: str, row: Sequence[str | bytes | float | None]) -> int:
    """Of the values of `ROWS`, in that order."""
    known = zip(ROWS[table], row, strict=True)
    return zlib.crc32(b" ".join(_text_of(name, value) for name, value in known if value is not None))


def differing(connection: sqlite3.Connection, attempt_id: int, stored: str) -> Iterator[str]:
    """The parts of an attempt that are not what they were: `cell`, `attempt`, `runs` …; `checksum` is not one of ours.

    Raises sqlite3.DatabaseError where rows cannot be read.
    """
    form, *found = stored.split(" ")
    digests = dict(pair.split(":", 1) for pair in found if ":" in pair)
    parts = FORMS.get(form)
    if parts is None or set(digests) != set(parts):
        yield "checksum"
        return
    for name, part in parts.items():
        if _digest(connection, part, attempt_id, _columns_there(connection, part)) != digests[name]:
            yield name


def _columns_there(connection: sqlite3.Connection, part: _Part) -> Sequence[str]:
    """An older file lacks what is NULL in all its rows."""
    there = {str(row[0], "ascii") if isinstance(row[0], bytes) else row[0]
             for row in connection.execute("SELECT name FROM pragma_table_info(?, 'main')", (part.table,))}  # fmt: skip
    return [name for name in part.columns if name in there]


def _digest(connection: sqlite3.Connection, part: _Part, attempt_id: int, columns: Sequence[str]) -> str:
    sql = f"SELECT {', '.join(columns)} FROM main.{part.table} WHERE {part.where} ORDER BY {part.key}"
    made = hashlib.blake2b(digest_size=8)
    for row in connection.execute(sql, (attempt_id,)):
        named = zip(columns, row, strict=True)
        made.update(b"".join([_text_of(name, value) for name, value in named if value is not None]))
        made.update(b"\n")
    return made.hexdigest()


def _text_of(name: str, value: str | bytes | float) -> bytes:
    """A value with its name, its type and its length, so that no two rows have the same text.

    Texts come as such from a writer's connection, as `Text` from one that must read every byte.
    """
    content = value if isinstance(value, bytes) else str(value).encode()
    return f"{name} {_KINDS.get(type(value), 'b')}{len(content)} ".encode() + content


class Text(bytes):
    """A text of the database as its bytes, which need not be UTF-8: the `text_factory` of who checks."""


_KINDS: Mapping[type, str] = {int: "i", float: "f", str: "t", Text: "t"}
