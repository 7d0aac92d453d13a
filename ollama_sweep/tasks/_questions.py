"""Items of a prompt set become questions, checked; their identity."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ollama_sweep.cells import content_hash
from ollama_sweep.data_files import Record
from ollama_sweep.errors import nearest
from ollama_sweep.scorers import EXPECTATIONS
from ollama_sweep.task import Question
from ollama_sweep.yaml_strict import one_line

FIELDS = ("id", "category", "prompt", "reference", "expect")
WARMUP = Question("warmup", "Say hello in one short sentence.")
_SLUG_LENGTH = 27
"""So that `success_rate_` and a slug make a metric's name of at most 40 characters."""
_TEXTS = ("facts", "forbidden")


def questions(records: Sequence[Record], *, needs_category: bool = False) -> tuple[Question, ...]:
    """The questions of a prompt set. Raises ConfigError with the place of what is missing, wrong or there twice."""
    first: dict[str, Record] = {}
    found = []
    for record in records:
        _refuse_typos(record)
        identity = record.identifier()
        before = first.setdefault(identity, record)
        if before is not record:
            raise record.error(f"id {one_line(identity)} is given twice (first at {before.where})", "id")
        found.append(
            Question(
                id=identity,
                text=record.text("prompt"),
                category=(record.text if needs_category else record.optional_text)("category").strip(),
                expected=_expected(record),
            )
        )
    _refuse_like_categories(found, records)
    return tuple(found)


def identity(asked: Iterable[Question]) -> str:
    """The identity of questions: of all that is asked and all that is expected."""
    content = [
        {"id": one.id, "text": one.text, "category": one.category, "expected": one.expected, "texts": one.texts}
        for one in asked
    ]
    return content_hash(json.dumps(content, sort_keys=True, separators=(",", ":"), default=list))


def slug(category: str) -> str:
    """A category as part of a score's name: `Instruction Following` -> `instruction_following`."""
    return re.sub(r"[^a-z0-9]+", "_", category.casefold()).strip("_")[:_SLUG_LENGTH].strip("_") or "other"


def _refuse_typos(record: Record) -> None:
    """Other fields are the person's own, but `refrence` was meant to be read."""
    for name in record.fields:
        if name not in FIELDS and (hint := nearest(name, [known for known in FIELDS if known not in record.fields])):
            raise record.error(f"unknown field {one_line(name)}.{hint}", name)


def _refuse_like_categories(found: Sequence[Question], records: Sequence[Record]) -> None:
    names: dict[str, str] = {}
    for question, record in zip(found, records, strict=True):
        other = names.setdefault(slug(question.category), question.category)
        if other != question.category:
            one, two = one_line(question.category), one_line(other)
            raise record.error(f'category "{one}" is too like "{two}": both become {slug(other)}', "category")


def _expected(record: Record) -> dict[str, object]:
    expect = record.fields.get("expect")
    if isinstance(expect, str) and expect.strip().startswith("{"):
        expect = _of_text(record, expect)  # a CSV or parquet file has no other way to write it
    if expect is not None and expect != "" and not isinstance(expect, Mapping):
        raise record.error(f"expect: must have names from {', '.join(EXPECTATIONS)}", "expect")
    found: dict[str, object] = {}
    for name, value in (expect or {}).items() if isinstance(expect, Mapping) else ():
        if name not in EXPECTATIONS:
            hint = nearest(str(name), EXPECTATIONS)
            message = f"expect: unknown name {one_line(str(name))}; known are {', '.join(EXPECTATIONS)}.{hint}"
            raise record.error(message, "expect")
        if value is not None:
            found[name] = _checked(record, name, value)
    if found.get("min_words", 0) > found.get("max_words", float("inf")):  # type: ignore[operator]
        raise record.error("expect: min_words is larger than max_words", "expect")
    reference = record.optional_text("reference")
    return found | ({"reference": reference} if reference else {})


def _of_text(record: Record, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise record.error("expect: is not valid JSON", "expect") from None


def _checked(record: Record, name: str, value: Any) -> object:
    kind = EXPECTATIONS[name]
    if kind == "texts":
        value = value if isinstance(value, list) else [value]
        ways = [one if isinstance(one, list) and name in _TEXTS else [one] for one in value]
        is_right = bool(value) and all(way and all(_is_word(one) for one in way) for way in ways)
    else:
        is_right = {
            "count": isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000,
            "text": isinstance(value, str) and bool(value.strip()),
            "truth": isinstance(value, bool),
            "mapping": isinstance(value, Mapping) and bool(value),
        }[kind]
    if not is_right:
        wanted = {
            "texts": "a list of texts",
            "count": "a whole number",
            "text": "a text",
            "truth": "true or false",
            "mapping": "names and values",
        }[kind]
        raise record.error(f"expect.{name}: {one_line(json.dumps(value, default=str))} must be {wanted}", "expect")
    return value


def _is_word(value: object) -> bool:
    return bool(value.strip()) if isinstance(value, str) else isinstance(value, int | float)


def first_of(asked: tuple[Question, ...], limit: int | None) -> tuple[Question, ...]:
    """The first `limit` questions."""
    return asked if limit is None else asked[:limit]
