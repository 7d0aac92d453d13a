"""How an answer is judged: pure functions of texts. What is found is a number from 0 to 1, or a count.

An item's expectations (`expect`) are a mapping with the names in `EXPECTATIONS`; `judge` turns them into scores.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ollama_sweep.core import thoughts
from ollama_sweep.core.metrics import Kind, Metric
from ollama_sweep.tasks.shared.letters import LETTERS as LETTERS
from ollama_sweep.tasks.shared.letters import letter as letter
from ollama_sweep.tasks.shared.letters import normal

EXPECTATIONS: Mapping[str, str] = {
    "facts": "texts",
    "forbidden": "texts",
    "min_words": "count",
    "max_words": "count",
    "bullets": "count",
    "numbered": "count",
    "lines": "count",
    "starts_with": "text",
    "ends_with": "text",
    "equals": "text",
    "fields": "mapping",
    "json": "truth",
    "keys": "texts",
    "source": "text",
    "allowed": "texts",
}
"""What an item may expect of its answer, and the kind of value: texts (facts: alternatives as lists), count, …"""

METRICS = (
    *(Metric(name, better=1, kind=Kind.SHARE) for name in ("nothing_forbidden", "within_length", "format_followed")),
    Metric("valid_json", "share of valid JSON", "", 1, Kind.SHARE),
    *(Metric(name, better=1, kind=Kind.SHARE) for name in ("no_extra_text", "has_required_keys", "no_hallucination")),
    *(Metric(name, better=1, kind=Kind.MEAN) for name in ("key_facts", "fields_extracted", "reference_f1")),
    Metric("passed", better=1, kind=Kind.SHARE),
    Metric("keys_present", better=1, kind=Kind.COUNT),
    Metric("placeholder_values", better=-1, kind=Kind.COUNT),
    Metric("hallucinated_values", better=-1, kind=Kind.COUNT),
)
"""What `judge` gives beside `score`."""
JSON_VERSION = 2
"""Raised when other JSON is found in the same answer: part of the identity of what is judged by it."""
_FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*[\w+.-]*[ \t]*(?:\r?\n|(?=[\[{]))(.*?)\1", re.DOTALL)
_BULLET = re.compile(r"^[ \t]*(?:[-*•–‣◦]|\*\*[-•])[ \t]+\S", re.MULTILINE)
_NUMBERED = re.compile(r"^[ \t]*(?:\*\*)?\(?\d{1,3}[.):][ \t]*\S", re.MULTILINE)
_JSON_WORD = re.compile(r"\bJSON\b", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_STARTS_TRIED = 200
_PLACEHOLDERS = frozenset({"", "n/a", "na", "n.a.", "none", "null", "nil", "unknown", "unspecified", "undefined",
                           "not specified", "not provided", "not available", "not given", "not found", "not mentioned",
                           "not applicable", "not stated", "tbd", "todo", "to be determined", "...", "…", "-", "?",
                           "--", "missing", "xxx", "string", "placeholder", "your name", "your email", "name here",
                           "email here", "example@example.com", "email@example.com", "lorem ipsum"})  # fmt: skip


def final_answer(text: str) -> str:
    """An answer without what a reasoning model thought aloud."""
    return thoughts.part(text).answer.strip()


def word_count(text: str) -> int:
    """Words, parted by white space."""
    return len(text.split())


def facts_share(text: str, facts: Sequence[object]) -> float:
    """The share of the facts whose words occur in the text; a fact that is a list holds alternatives."""
    seen = normal(text)
    found = [
        any(normal(str(way)) in seen for way in (fact if isinstance(fact, list | tuple) else [fact])) for fact in facts
    ]
    return sum(found) / len(found)


def bullet_count(text: str) -> int:
    """Lines that begin with a bullet."""
    return len(_BULLET.findall(text))


def numbered_count(text: str) -> int:
    """Lines that begin with a number as in `1.` or `2)`."""
    return len(_NUMBERED.findall(text))


def reference_f1(text: str, reference: str) -> float:
    """How much the words of answer and reference have in common: F1 over the multisets of words (as in SQuAD)."""
    given, wanted = (Counter(_WORD.findall(one.casefold())) for one in (text, reference))
    common = sum((given & wanted).values())
    return 2 * common / (given.total() + wanted.total()) if common else 0.0


# -- JSON ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundJson:
    """An object or a list in an answer; `is_alone`: there is no text around it, not even a code fence."""

    value: Any
    is_alone: bool


def asks_for_json(prompt: str) -> bool:
    """The prompt names JSON."""
    return _JSON_WORD.search(prompt) is not None


def find_json(text: str) -> FoundJson | None:
    """The JSON of an answer: all of it, else in a code fence, else the first object or list of such in the text.

    A list of plain values, such as `[1]`, counts only where there is nothing else.
    """
    text = text.strip()
    whole = _decoded(text)
    if whole is not None:
        return FoundJson(whole, is_alone=True)
    fenced = (_decoded(content.strip()) for _, content in _FENCE.findall(text))
    found = [value for value in fenced if value is not None] or list(_inside(text))
    best = next((value for value in found if _is_structure(value)), found[0] if found else None)
    return None if best is None else FoundJson(best, is_alone=False)


def _inside(text: str) -> Iterator[Any]:
    """The objects and lists that stand in a text, none of them part of another one."""
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    tried = end = 0
    for match in re.finditer(r"[{\[]", text):
        if match.start() < end or tried >= _STARTS_TRIED:
            continue
        try:
            value, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            tried += 1
            continue
        yield value


def _is_structure(value: Any) -> bool:
    return isinstance(value, dict) or any(isinstance(one, dict | list) for one in value)


def looks_at_json(expected: Mapping[str, Any]) -> bool:
    """Whether JSON that is found in an answer changes its scores."""
    return any(expected.get(name) for name in ("json", "keys", "fields"))


def _no_constant(word: str) -> None:
    raise ValueError(word)


def _decoded(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def keys_present(value: Any, keys: Sequence[str]) -> int:
    """How many of the keys an object has; of a list of objects, how many all of them have."""
    objects = value if isinstance(value, list) else [value]
    if not objects or not all(isinstance(one, dict) for one in objects):
        return 0
    return sum(all(key in one for one in objects) for key in keys)


def placeholders(value: Any, source: str = "") -> list[str]:
    """Values that stand for nothing: null, "", N/A, Unknown, … unless the source says exactly that word."""
    seen = set(_WORD.findall(normal(source)))
    empty = [leaf for leaf in _leaves(value) if leaf is None or normal(str(leaf)) in _PLACEHOLDERS]
    return ["null" if leaf is None else str(leaf) for leaf in empty if leaf is None or normal(str(leaf)) not in seen]


def unseen_values(value: Any, source: str, allowed: Sequence[object] = ()) -> list[str]:
    """Texts and numbers of a JSON value that neither stand in the source nor are allowed: they were made up.

    A text is seen where it, or each of its words, stands in the source; 12.0 is seen as 12. Placeholders, true and
    false are not looked at.
    """
    text = normal(source)
    words = set(_WORD.findall(text))
    numbers = {number for found in re.findall(r"-?\d[\d,]*(?:\.\d+)?", text) if (number := _number(found)) is not None}
    known = {normal(str(one)) for one in allowed}

    def is_seen(leaf: Any) -> bool:
        if isinstance(leaf, int | float):
            return float(str(leaf)) in numbers or normal(str(leaf)) in known
        wanted = normal(str(leaf))
        found = _WORD.findall(wanted)
        return wanted in known or wanted in text or (bool(found) and all(word in words for word in found))

    leaves = [leaf for leaf in _leaves(value) if leaf is not None and not isinstance(leaf, bool)]
    return [str(leaf) for leaf in leaves if normal(str(leaf)) not in _PLACEHOLDERS and not is_seen(leaf)]


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _leaves(value: Any) -> Iterator[Any]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting.extend(reversed(one.values()))
        elif isinstance(one, list):
            waiting.extend(reversed(one))
        else:
            yield one


def fields_share(text: str, fields: Mapping[str, object], value: Any = None) -> float:
    """The share of the fields that were extracted: equal in the JSON value, or said in the text where there is none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    seen = normal(text)
    found = [
        _same(value.get(name), wanted) if isinstance(value, dict) else normal(str(wanted)) in seen
        for name, wanted in fields.items()
    ]
    return sum(found) / len(found)


def _same(given: Any, wanted: object) -> bool:
    if isinstance(wanted, int | float) and not isinstance(wanted, bool):
        number = _number(given) if isinstance(given, str) else given
        return not isinstance(number, bool) and number == wanted
    if isinstance(wanted, list):
        return isinstance(given, list) and sorted(normal(str(one)) for one in given) == sorted(map(_text, wanted))
    return given is wanted if isinstance(wanted, bool) else normal(str(given)) == _text(wanted)


def _text(value: object) -> str:
    return normal(str(value))


# -- all of it -------------------------------------------------------------------------------------------------------


def judge(text: str, question: str, expected: Mapping[str, Any]) -> dict[str, float]:
    """The scores of one answer: a number for each check, `score` (their mean) and `passed` (all are 1).

    Without anything to check the answer is compared with `reference`; without that too there are no scores.
    """
    answer = final_answer(text)
    found = find_json(answer)
    wants_json = bool(expected.get("json") or (expected.get("keys") and expected.get("json") is not False))
    checks = _content_checks(answer, expected)
    if "fields" in expected:
        checks["fields_extracted"] = fields_share(answer, expected["fields"], found.value if found else None)
    counts: dict[str, float] = {}
    if wants_json:
        of_json, counts = _json_checks(found, question, expected)
        checks |= of_json
    extra = {"reference_f1": reference_f1(answer, expected["reference"])} if expected.get("reference") else {}
    if not checks:
        return extra | ({"score": extra["reference_f1"]} if extra else {})
    passed = float(all(value == 1 for value in checks.values()))
    return checks | counts | extra | {"score": sum(checks.values()) / len(checks), "passed": passed}


def _content_checks(answer: str, expected: Mapping[str, Any]) -> dict[str, float]:
    checks: dict[str, float] = {}
    if "facts" in expected:
        checks["key_facts"] = facts_share(answer, expected["facts"])
    if "forbidden" in expected:
        checks["nothing_forbidden"] = float(facts_share(answer, expected["forbidden"]) == 0)
    if "max_words" in expected or "min_words" in expected:
        low, high = expected.get("min_words", 1), expected.get("max_words", float("inf"))
        checks["within_length"] = float(low <= word_count(answer) <= high)
    form = _form(answer, expected)
    if form:
        checks["format_followed"] = float(all(form))
    return checks


def _form(answer: str, expected: Mapping[str, Any]) -> list[bool]:
    plain = normal(answer)
    tests: Mapping[str, Callable[[Any], bool]] = {
        "bullets": lambda wanted: bullet_count(answer) == wanted,
        "numbered": lambda wanted: numbered_count(answer) == wanted,
        "lines": lambda wanted: sum(bool(line.strip()) for line in answer.splitlines()) == wanted,
        "starts_with": lambda wanted: plain.startswith(normal(wanted)),
        "ends_with": lambda wanted: plain.rstrip(" .!").endswith(normal(wanted).rstrip(" .!")),
        "equals": lambda wanted: plain.strip(" .!\"'") == normal(wanted).strip(" .!\"'"),
    }
    return [test(expected[name]) for name, test in tests.items() if name in expected]


def _json_checks(
    found: FoundJson | None, question: str, expected: Mapping[str, Any]
) -> tuple[dict[str, float], dict[str, float]]:
    keys = expected.get("keys", ())
    checks = {"valid_json": float(found is not None), "no_extra_text": float(found is not None and found.is_alone)}
    counts: dict[str, float] = {}
    if keys:
        counts["keys_present"] = keys_present(found.value, keys) if found else 0
        checks["has_required_keys"] = float(counts["keys_present"] == len(keys))
    if found:
        source = expected.get("source") or question
        counts["placeholder_values"] = len(placeholders(found.value, expected.get("source", "")))
        counts["hallucinated_values"] = len(unseen_values(found.value, source, expected.get("allowed", ())))
        checks["no_hallucination"] = float(not counts["placeholder_values"] and not counts["hallucinated_values"])
    return checks, counts
