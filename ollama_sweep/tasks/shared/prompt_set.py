"""Items of a prompt set become questions, checked; their identity."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ollama_sweep.core import summary
from ollama_sweep.core.cell import content_hash
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.generation import GENERATE, Generation
from ollama_sweep.core.metrics import Metric
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Run
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.core.text import one_line
from ollama_sweep.tasks.base import Question, Setup
from ollama_sweep.tasks.shared import scorers, scores, task_options
from ollama_sweep.tasks.shared.data import PromptSet, Record, located, read_set, shipped
from ollama_sweep.tasks.shared.scorers import EXPECTATIONS
from ollama_sweep.tasks.shared.scores import slug

FIELDS = ("id", "category", "prompt", "reference", "expect")
WARMUP = Question("warmup", "Say hello in one short sentence.")
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


METRICS = (*scores.SPEEDS, *scores.LATENCIES, *scores.AVERAGES, *scorers.METRICS, *scores.OF_CATEGORIES,
           *scores.OLD_NAMES)  # fmt: skip
_SPEEDS = frozenset({metric.name for metric in scores.SPEEDS} | {"score"})
"""Numbers of an answer whose value for a cell is a median, or the core's own mean (`score`)."""


def set_up(
    task: str,
    given: Mapping[str, Node],
    *,
    path: Path | None = None,
    found: PromptSet | None = None,
    own: Iterable[str] = (),
    system: str = "",
    defaults: Mapping[str, Scalar] | None = None,
    repeats: int | None = 1,
    is_fresh: bool = False,
    needs_category: bool = False,
    change: Callable[[Question], Question] = lambda question: question,
    has_version: bool = False,
) -> Setup:
    """The setup of a task whose questions lie in a file: the one of `data`, else `path`, else what is shipped.

    `found` are questions that were read already, `own` the options that said where. `system` is the system prompt of
    data that is no prompt set. `change` completes each question. `has_version`: the task's own version says how
    JSON is read; else it is an option where a question is judged by JSON, so that all others stay what they were.
    Raises ConfigError.
    """
    asked = task_options.read(task, given, own, without=("data",) if path else ())
    found = found or read_set(path or data_path(task, asked.data), asked.data)
    all_questions = tuple(change(one) for one in questions(found.records, needs_category=needs_category))
    chosen = first_of(all_questions, asked.limit)
    system = asked.system or found.system or (system if found.version is None else "")
    options: dict[str, Scalar] = {}
    if system:
        options["system"] = system
    if found.version is not None:
        options["prompts_version"] = found.version
    if asked.limit is not None:
        options["limit"] = asked.limit
    if not has_version and any(scorers.looks_at_json(question.expected) for question in chosen):
        options["json_version"] = scorers.JSON_VERSION
    return Setup(
        questions=chosen,
        hash=identity(chosen),
        options=tuple(sorted(options.items())),
        request=asked.request,
        defaults={**(defaults or {}), **_set_defaults(found)},
        model=asked.model,
        system=system,
        warmup=WARMUP,
        repeats=repeats if asked.repeats is None else asked.repeats,
        max_retries=asked.max_retries,
        is_fresh=is_fresh,
    )


def data_path(task: str, asked: Node | None) -> Path:
    """The file a task reads: that of `data`, else the shipped prompt set of its name. Raises ConfigError."""
    if asked is not None:
        return located(asked, f"tasks.{task}.data")
    path = shipped(f"{task}.yaml")
    if path is None:
        raise ConfigError(f"prompts/{task}.yaml was not found; give `data: FILE`", f"tasks.{task}")
    return path


def _set_defaults(found: PromptSet) -> dict[str, Scalar]:
    known = [*task_options.REQUEST, "max_tokens"]
    for name, node in found.options.items():
        if name not in known:
            raise node.error(f"options: unknown option {name}; known are {', '.join(known)}.{nearest(name, known)}")
    return task_options.request("options", found.options)


def score(question: Question, generation: Generation) -> dict[str, float]:
    """The speeds of an answer, and what is found of what its item expects."""
    return unjudged(generation) | scorers.judge(generation.text, question.text, question.expected)


def unjudged(generation: Generation) -> dict[str, float]:
    """The speeds alone."""
    return scores.speed(generation)


def summarize(runs: Sequence[Run]) -> dict[str, float]:
    """Latencies, the mean of every check, mean speeds, and the categories."""
    checks = sorted({name for run in scores.answered(runs) for name in run.scores} - _SPEEDS)
    return (
        scores.latencies(runs)
        | scores.means(runs, checks)
        | scores.average(runs, "tokens_per_s", summary.tokens_per_s)
        | scores.average(runs, "ttft_s", lambda run: run.ttft_s)
        | scores.by_category(runs)
    )


class Task:
    """The prompts of one file, each judged by what it expects of its answer."""

    version: ClassVar[int] = 1
    kind: ClassVar[str] = GENERATE
    metrics: ClassVar[tuple[Metric, ...]] = METRICS
    is_prompt_set: ClassVar[bool] = True

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path

    def setup(self, given: Mapping[str, Node]) -> Setup:
        return set_up(self._name, given, path=self._path, defaults={"num_predict": 100})

    def score(self, question: Question, generation: Generation) -> dict[str, float]:
        return score(question, generation)

    def unjudged(self, generation: Generation) -> dict[str, float]:
        return unjudged(generation)

    def summarize(self, runs: Sequence[Run]) -> dict[str, float]:
        return summarize(runs)
