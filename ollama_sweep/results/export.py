"""The results as text for other programs, and the simple form of older scripts in both directions. Pure."""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.metrics import DEFAULT_METRIC, metric
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import CellResult, Status, failure_label
from ollama_sweep.core.stats import extent, value_of
from ollama_sweep.core.text import as_json, half_in, harmless, harmless_lines, strict_json
from ollama_sweep.results.grids import X, Y, in_word, is_told

FORMATS = ("csv", "json", "jsonl", "md")
LAYOUTS = ("full", "simple")
MOST_BYTES = 100 * 2**20
LARGEST = 10_000_000
_FORMULA = frozenset("=+-@")

Row = dict[str, Scalar]


def export(results: Sequence[CellResult], file_format: str = "csv", layout: str = "full") -> str:
    """The results as text. `simple` (json only) is the old form. Raises ConfigError for what there is not."""
    _check_choice("--format", file_format, FORMATS)
    _check_choice("--layout", layout, LAYOUTS)
    if layout == "simple":
        if file_format != "json":
            raise ConfigError(f"simple exists for json only, not for {file_format}", "--layout")
        return _json({"results": simple_rows(results)})
    made: dict[str, Callable[[Sequence[CellResult]], str]] = {
        "csv": long_csv,
        "json": lambda cells: _json({"results": long_rows(cells)}),
        "jsonl": lambda cells: "".join(f"{as_json(row)}\n" for row in long_rows(cells)),
        "md": markdown,
    }
    return made[file_format](results)


def long_rows(results: Iterable[CellResult]) -> list[Row]:
    """One row a cell with every column of the database's view; numbers that are none become None."""
    rows = [dict(result.row) or _own_row(result) for result in results]
    return [{name: finite(value) for name, value in row.items()} for row in rows]


def long_csv(results: Iterable[CellResult]) -> str:
    """`results.csv`: a row a cell, exact numbers."""
    rows = long_rows(results)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text([columns, *([row.get(name) for name in columns] for row in rows)])


def csv_text(rows: Iterable[Sequence[Scalar]]) -> str:
    """Rows as CSV, their texts harmless. Those that a spreadsheet would run as a formula get a `'` in front."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([csv_cell(value) for value in row] for row in rows)
    return stream.getvalue()


def markdown(results: Sequence[CellResult]) -> str:
    """A table for a message or an issue: the dimensions, the rate with its range, what happened."""
    rate = metric(DEFAULT_METRIC)
    dimensions = list(dict.fromkeys(name for result in results for name in result.coordinates))
    lines = [[*dimensions, rate.unit, "range", "runs", "status", "flags"]]
    for result in results:
        value = value_of(result, rate.name)
        low, high = extent(result, rate.name) if value is not None else (0.0, 0.0)
        where = [(name, result.coordinates.get(name)) for name in dimensions]
        lines.append(
            [
                *(in_word(value) if is_told((name, value)) else "" for name, value in where),
                "" if value is None else rate.text(value),
                f"{rate.text(low)}–{rate.text(high)}" if low != high else "",
                f"{result.metrics.get('runs', 0):.0f}" if value is not None else "",
                "ok" if result.status is Status.OK else failure_label(result.status, result.reason),
                ", ".join(sorted(result.flags)),
            ]
        )
    rule = [*("---:" for _ in dimensions), "---:", "---:", "---:", ":---", ":---"]
    head, *body = [[_markdown_cell(text) for text in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, rule, *body])


def simple_rows(results: Sequence[CellResult]) -> list[Row]:
    """The old form: num_ctx, num_batch, prompt_eval_rate (null on error), timestamp, error; tried cells only."""
    others = {name for result in results for name in result.coordinates} - {X, Y}
    if others:
        raise ConfigError(f"simple holds num_ctx and num_batch only, this sweep also has {', '.join(sorted(others))}",
                          "--layout")  # fmt: skip
    return [
        {
            "num_ctx": result.coordinates.get(X),
            "num_batch": result.coordinates.get(Y),
            "prompt_eval_rate": value_of(result, DEFAULT_METRIC),
            "timestamp": result.row.get("finished_at"),
            "error": _simple_error(result),
        }
        for result in results
        if result.status.counts
    ]


def read_old_results(text: str | bytes, where: str) -> list[Row]:
    """The rows of an old file, checked: all five fields, one row for each num_ctx and num_batch.

    Raises ConfigError that names the item, the field and what is allowed.
    """
    if len(text) > MOST_BYTES:
        raise ConfigError(f"is {len(text) // 2**20} MB; the limit is {MOST_BYTES // 2**20} MB", where)
    items = _parsed(text, where)
    rows: list[Row] = []
    seen: dict[tuple[Scalar, Scalar], int] = {}
    for number, item in enumerate(items, start=1):
        row = _old_row(item, f"{where}: item {number}")
        _check_time(row, text, number, where)
        place = (row[X], row[Y])
        if place in seen:
            raise ConfigError(
                f"num_ctx {place[0]} with num_batch {place[1]} is there twice (first in item {seen[place]})",
                f"{where}: item {number}",
            )
        seen[place] = number
        rows.append(row)
    return rows


def _parsed(text: str | bytes, where: str) -> list[Any]:
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        content = strict_json(decoded)
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8", where) from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"is not JSON: {error.msg} (column {error.colno})", f"{where}:{error.lineno}") from None
    except ValueError as error:
        raise ConfigError(str(error), where) from None
    items = content.get("results") if isinstance(content, dict) else None
    if not isinstance(items, list):
        raise ConfigError('has no results; write {"results": [{"num_ctx": …, "num_batch": …, …}]}', where)
    if not items:
        raise ConfigError("the list of results is empty", where)
    return items


def _old_row(item: object, where: str) -> Row:
    if not isinstance(item, dict):
        raise ConfigError(f"{_kind(item)}; write an object with num_ctx, num_batch and prompt_eval_rate", where)
    for name in (X, Y, DEFAULT_METRIC):
        if name not in item:
            raise ConfigError(f"{name} is missing.{nearest(name, map(str, item))}", where)
    if half := half_in(item):
        raise ConfigError(half, where)
    row: Row = {name: _whole(item[name], name, where) for name in (X, Y)}
    row[DEFAULT_METRIC] = _rate(item[DEFAULT_METRIC], where)
    for name in ("timestamp", "error"):
        value = item.get(name)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{name}: {_kind(value)}; write text or null", where)
        row[name] = value
    if row[DEFAULT_METRIC] is None and not row["error"]:
        raise ConfigError("has neither a prompt_eval_rate nor an error", where)
    if row[DEFAULT_METRIC] is not None and row["error"]:
        raise ConfigError("has a prompt_eval_rate and an error; one of them must be null", where)
    return row


def _check_time(row: Row, text: str | bytes, number: int, where: str) -> None:
    """A time is one, or there is none. Raises ConfigError with its line."""
    given = row["timestamp"]
    if given is None or not str(given).strip():
        row["timestamp"] = None
        return
    try:
        datetime.fromisoformat(str(given))
    except ValueError:
        line = _line_of(text, number, "timestamp")
        message = f"timestamp: {str(given)[:40]!r} is no time; write one like 2025-11-02T10:00:00, or null"
        raise ConfigError(message, f"{where}:{line}: item {number}") from None


def _line_of(text: str | bytes, number: int, name: str) -> int:
    """The line of a field of the n-th result, in a file that is sound JSON."""
    content = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
    decoder, at = json.JSONDecoder(), 0

    def skip(marks: str) -> None:
        nonlocal at
        while content[at] in f"{marks} \t\r\n":
            at += 1

    skip("{")
    key, at = decoder.raw_decode(content, at)
    skip(":")
    while key != "results":
        _, at = decoder.raw_decode(content, at)
        skip(",")
        key, at = decoder.raw_decode(content, at)
        skip(":")
    skip("[")
    for _ in range(number - 1):
        _, at = decoder.raw_decode(content, at)
        skip(",")
    _, end = decoder.raw_decode(content, at)
    found = content.find(f'"{name}"', at, end)
    return content.count("\n", 0, found if found >= 0 else at) + 1


def _whole(value: object, name: str, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name}: {_kind(value)}; write whole numbers like 4096", where)
    if not 1 <= value <= LARGEST:
        raise ConfigError(f"{name}: {value} is outside 1 to {LARGEST}", where)
    return value


def _rate(value: object, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{DEFAULT_METRIC}: {_kind(value)}; write a number above 0, or null", where)
    if not 0 < value < math.inf:
        raise ConfigError(f"{DEFAULT_METRIC}: {value:g} is not a rate; write a number above 0, or null", where)
    return float(value)


def _kind(value: object) -> str:
    """What a value of a JSON file is, for a message."""
    if isinstance(value, str):
        return f"{value[:40]!r} is text"
    if value is None or isinstance(value, bool):
        return f"{json.dumps(value)} is not allowed"
    return {list: "a list", dict: "an object", float: f"{value} is not whole"}.get(type(value), f"{value} is a number")


def _own_row(result: CellResult) -> Row:
    return {
        **result.coordinates,
        "model": result.model,
        "task": result.task,
        "status": str(result.status),
        "flags": ",".join(sorted(result.flags)),
        "attempts": result.attempts,
        **result.metrics,
        "reason": result.reason,
        "error": result.error,
    }


def _simple_error(result: CellResult) -> str | None:
    if value_of(result, DEFAULT_METRIC) is not None:
        return None
    return "No believed number" if result.status is Status.OK else failure_label(result.status, result.reason)


def _check_choice(option: str, given: str, allowed: Sequence[str]) -> None:
    if given not in allowed:
        raise ConfigError(f"{given} is unknown; there is {', '.join(allowed)}.{nearest(given, allowed)}", option)


def finite(value: Scalar) -> Scalar:
    """The value, None for a number that is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def csv_cell(value: Scalar) -> str:
    """A value as it stands in a CSV file."""
    if value is None:
        return ""
    if isinstance(value, str):
        shown = harmless_lines(value)
        return f"'{shown}" if _is_formula(value) or _is_formula(shown) else shown
    return in_word(value) if isinstance(value, bool) else repr(value)


def _is_formula(text: str) -> bool:
    """A spreadsheet passes over blanks and line breaks, and takes full-width signs for the usual ones."""
    rest = text.lstrip()
    blanks = text[: len(text) - len(rest)]
    return "\t" in blanks or "\r" in blanks or unicodedata.normalize("NFKC", rest[:1]) in _FORMULA


def _markdown_cell(text: str) -> str:
    shown = harmless(" ".join(text.split())).replace("\\", "\\\\").replace("|", "\\|")
    return shown.replace("[", "\\[").replace("<", "&lt;")


def _json(content: object) -> str:
    return as_json(content, indent=2, strict=True) + "\n"
