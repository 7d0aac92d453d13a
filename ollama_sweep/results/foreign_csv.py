"""Answers from another tool's `results_local.csv`: model, prompt_id, output, score, latency_sec, metadata.

`metadata` is JSON (or what Python prints of a dict) with total, prompt_eval and eval durations and counts. Durations
without a unit in their name are seconds, or nanoseconds where they are in the billions: those are converted, and said.
What is no number (NaN, infinity, None), as pandas writes what it does not know, is unknown.

A request that failed stands there like an answer, with its error as output and a latency: it is told by that.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ollama_sweep.core import separated
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.outcome import Answer, AnswerRow
from ollama_sweep.core.text import one_line
from ollama_sweep.machine.files import read_text

COLUMNS = ("model", "prompt_id", "output", "score", "latency_sec", "metadata")
NEEDED = ("model", "latency_sec")
LIMIT_MB = 100
_NANOSECONDS_FROM = 1e6
"""Seconds would be eleven days; of an answer that took a millisecond these are nanoseconds."""
_DURATIONS = {
    "total_duration": "total_duration_s", "total": "total_duration_s",
    "prompt_eval_duration": "prompt_eval_duration_s", "prompt_eval": "prompt_eval_duration_s",
    "prompt_duration": "prompt_eval_duration_s", "eval_duration": "eval_duration_s", "eval": "eval_duration_s",
    "load_duration": "load_duration_s", "load": "load_duration_s", "ttft": "ttft_s",
    "thinking_duration": "thinking_duration_s",
}  # fmt: skip
_COUNTS = {
    "prompt_eval_count": "prompt_eval_count", "prompt_count": "prompt_eval_count",
    "prompt_tokens": "prompt_eval_count", "input_tokens": "prompt_eval_count", "eval_count": "eval_count",
    "output_tokens": "eval_count", "completion_tokens": "eval_count", "output_count": "eval_count",
    "thinking_tokens": "thinking_count", "reasoning_tokens": "thinking_count",
}  # fmt: skip
_UNITS_S = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_WITH_UNIT = re.compile(rf"(.+)_({'|'.join(_UNITS_S)})")
_TRUTH = {"true": 1.0, "false": 0.0}
_UNKNOWN = frozenset(
    {"", "nan", "none", "null", "na", "n/a", "<na>", "nat", "inf", "+inf", "-inf", "infinity", "-infinity"}
)
_ERROR = re.compile(
    r"\W{0,3}(?:(?-i:ERROR\b)|(?:error|exception|\w+(?:Error|Exception|Timeout)|failed|failure|timeout)\b\s*[:(]|"
    r"Traceback \(most recent|HTTPS?ConnectionPool|HTTP (?:status )?[45]\d\d\b|[45]\d\d (?:client |server )?error|"
    r"[45]\d\d:? (?:not found|bad gateway|service unavailable|too many requests|internal server)|"
    r"(?:request )?timed out\W*$|timeout\W*$|connection (?:refused|reset|error|aborted))",
    re.IGNORECASE,
)
"""How the text of an exception begins; of an answer only where nothing was counted."""


@dataclass(frozen=True)
class Foreign:
    """The rows of a file, and what a person should know of how they were read."""

    rows: tuple[AnswerRow, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Line:
    """One row of the file: its fields by column, and where it stands."""

    fields: Mapping[str, str]
    place: str

    def get(self, column: str) -> str:
        return self.fields.get(column, "").strip()

    def error(self, message: str) -> ConfigError:
        return ConfigError(message, self.place)

    def number(self, column: str) -> float | None:
        """A number of 0 or more; None where the field is empty, or says that nothing is known."""
        text = self.get(column)
        if text.lower() in _UNKNOWN:
            return None
        value = _TRUTH.get(text.lower()) if column == "score" else None
        try:
            value = float(text) if value is None else value
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (value < 0 and column != "score"):
            allowed = "a number, true or false" if column == "score" else "a number of 0 or more"
            raise self.error(f"{column}: {one_line(text)!r} is not {allowed}, and it may be empty")
        return value


def read_answers(path: Path) -> Foreign:
    """All rows of a file; one without latency, without any statistic, or with an error, is a failed answer.

    Raises ConfigError with the file's line and what is allowed.
    """
    converted = 0
    rows: list[AnswerRow] = []
    for line in _lines(read_text(path, LIMIT_MB), path):
        row, was_converted = _row(line, path.stem, len(rows) + 1)
        converted += was_converted
        rows.append(row)
    if not rows:
        raise ConfigError("has no rows below its header; a row is one answer", str(path))
    said = f"{path}: durations of {converted} row{'s' if converted > 1 else ''} were nanoseconds; converted to seconds"
    return Foreign(tuple(rows), (said,) if converted else ())


def _lines(text: str, path: Path) -> Iterator[_Line]:
    columns: list[str] | None = None
    try:
        for fields, line in separated.rows(text):
            place = f"{path}:{line}"
            if columns is None:
                columns = _checked_header([field.strip() for field in fields], place)
            elif len(fields) == len(columns):
                yield _Line(dict(zip(columns, fields, strict=True)), place)
            else:
                raise ConfigError(f"has {len(fields)} fields; the header has {len(columns)}", place)
    except separated.NotRows as error:
        raise ConfigError(
            f"is not CSV ({error}); fields with commas or line breaks need quotes", f"{path}:{error.line}"
        ) from None
    if columns is None:
        raise ConfigError(f"is empty; its first line must be {','.join(COLUMNS)}", str(path))


def _checked_header(columns: list[str], place: str) -> list[str]:
    for name in NEEDED:
        if name not in columns:
            hint = nearest(name, columns).replace("Did you mean", "Is it")
            found = one_line(", ".join(columns))
            raise ConfigError(f"has no column {name}; it has {found}.{hint} Known: {', '.join(COLUMNS)}", place)
    for name in columns:
        if columns.count(name) > 1:
            raise ConfigError(f"the column {name} is there {columns.count(name)} times", place)
    return columns


def _row(line: _Line, sweep: str, number: int) -> tuple[AnswerRow, bool]:
    """The row, and whether its durations were nanoseconds."""
    model = line.get("model")
    if not model:
        raise line.error("model: is empty; every row names its model")
    latency_s, score = line.number("latency_sec"), line.number("score")
    said = _mapping(line)
    numbers, was_converted = _metadata(line, said)
    if latency_s is not None and latency_s >= _NANOSECONDS_FROM:
        latency_s, was_converted = latency_s * 1e-9, True
    output = line.fields.get("output", "")
    failure = _failure(line, said, numbers) or ("" if latency_s is not None else "no latency")
    answer = Answer(line.get("prompt_id") or str(number), "", "", output, failure)
    row = AnswerRow(
        sweep=sweep, engine=line.get("engine"), model=model, task=line.get("task"), cell="", coordinates={},
        number=number, answer=answer, latency_s=latency_s or 0.0, scores={} if score is None else {"score": score},
        ttft_s=numbers.get("ttft_s"), load_duration_s=numbers.get("load_duration_s"),
        prompt_eval_count=_whole(numbers.get("prompt_eval_count")), eval_count=_whole(numbers.get("eval_count")),
        prompt_eval_duration_s=numbers.get("prompt_eval_duration_s"),
        eval_duration_s=numbers.get("eval_duration_s"), total_duration_s=numbers.get("total_duration_s"),
        thinking_count=_whole(numbers.get("thinking_count")), thinking_duration_s=numbers.get("thinking_duration_s"),
    )  # fmt: skip
    return row, was_converted


def _failure(line: _Line, said: Mapping[object, object], numbers: Mapping[str, float]) -> str:
    """Why a row is no answer, as far as it says: in `failure`, else by an error as output, or by no statistics."""
    own = line.get("failure") or said.get("failure")
    if own or "failure" in said:
        return one_line(str(own or ""))
    if not numbers.get("eval_count") and _ERROR.match(line.get("output")):
        return one_line(line.get("output"))
    return "no statistics" if not numbers and any(_field_of(str(key)) for key in said) else ""


def _field_of(key: str) -> str:
    """The field of AnswerRow that a key of `metadata` is for; "" for another key."""
    stem, _ = _parted(key)
    return _COUNTS.get(stem) or _DURATIONS.get(stem, "")


def _parted(key: str) -> tuple[str, str]:
    """A key of `metadata` in small letters, without its unit, and the unit."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()
    match = _WITH_UNIT.fullmatch(name)
    return (match[1], match[2]) if match and match[1] in _DURATIONS else (name, "")


def _whole(count: float | None) -> int | None:
    return None if count is None else round(count)


def _metadata(line: _Line, said: Mapping[object, object]) -> tuple[dict[str, float], bool]:
    """The numbers of `metadata` by the names of AnswerRow, and whether some were nanoseconds."""
    found: dict[str, float] = {}
    without_unit: dict[str, float] = {}
    for key, value in said.items():
        stem, unit = _parted(str(key))
        if _is_unknown(value) or not _field_of(str(key)):
            continue
        number = _number(line, str(key), value)
        if stem in _COUNTS:
            if not number.is_integer():
                raise line.error(f"metadata: {key} is {number:g}; a count of tokens is a whole number")
            found[_COUNTS[stem]] = number
        elif unit:
            found[_DURATIONS[stem]] = number * _UNITS_S[unit]
        else:
            without_unit[_DURATIONS[stem]] = number
    is_ns = max(without_unit.values(), default=0.0) >= _NANOSECONDS_FROM
    return {**found, **{name: value * (1e-9 if is_ns else 1.0) for name, value in without_unit.items()}}, is_ns


def _mapping(line: _Line) -> Mapping[object, object]:
    text = line.get("metadata")
    if text.lower() in _UNKNOWN:
        return {}
    try:
        value = json.loads(text, parse_constant=lambda word: None)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(_Printed().visit(ast.parse(text, mode="eval")))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            value = text
    if value is None:
        return {}
    if not isinstance(value, dict):
        wanted = 'JSON such as {"total_duration": 1.5, "eval_count": 20}'
        raise line.error(f"metadata: {one_line(text)!r} is not {wanted}, and it may be empty")
    return value


class _Printed(ast.NodeTransformer):
    """What Python prints of numbers that are none, and of numpy's: `nan`, `-inf`, `np.nan`, `np.float64(1.5)`."""

    _CONSTANTS: Mapping[str, bool | None] = {"true": True, "false": False}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id.lower() in _UNKNOWN or node.id in self._CONSTANTS:
            return ast.Constant(self._CONSTANTS.get(node.id))
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return ast.Constant(None) if node.attr.lower() in _UNKNOWN else node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        return node.operand if isinstance(node.operand, ast.Constant) and node.operand.value is None else node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if len(node.args) != 1 or not isinstance(node.args[0], ast.Constant | ast.UnaryOp):
            return node
        value = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
        return ast.Constant(float(value)) if isinstance(value, str) else node.args[0]


def _is_unknown(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in _UNKNOWN
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _number(line: _Line, key: str, value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:  # type: ignore[arg-type,operator]
        raise line.error(f"metadata: {key} is {one_line(repr(value))}; write a number of 0 or more, or null")
    return float(value)  # type: ignore[arg-type]
