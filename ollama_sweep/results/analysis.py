"""An analysis of the runs by another language model: the question, what is made of its answer, and what without it.

A small model's answer is taken for what it is: the JSON is looked for wherever it stands, mended by
`json_repair`, and kept only as far as it speaks of models that were measured. Pure: the caller gives `ask`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ollama_sweep.core.text import harmless_lines
from ollama_sweep.results.groups import Group
from ollama_sweep.results.words import group_line

Ask = Callable[[str], str]

LONGEST_TABLE = 7000
"""Characters of measurements in the question: about 2,300 tokens, which leaves room for the answer in 4,096."""
MOST_ENTRIES, LONGEST_ENTRY = 12, 400
MOST_STARTS, LONGEST_JSON = 20, 10_000
"""A text of a million braces is no answer."""
KEYS = ("ranking", "strengths_weaknesses", "recommendations", "insights", "winner")
_FENCE = re.compile(r"```[ \t]*(?:json|JSON)?[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_START = re.compile(r'\{(?=\s*["“”„\'/])')
_QUOTE = re.compile(r'(?<!\\)"')
_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"'})
_QUESTION = """You compare language models by measurements of one computer. Use only the numbers below.
success: share of questions answered. latency, ttft: seconds, lower is better. tokens/s: higher is better.
score: quality from 0 to 1, higher is better.

Measurements:
{table}

First write at most 120 words for a person who must choose a model. Then write one JSON object in a ```json block:
{{"ranking": ["best model", "next model"],
"strengths_weaknesses": {{"model": {{"strengths": ["..."], "weaknesses": ["..."]}}}},
"recommendations": ["..."], "insights": ["..."], "winner": "best model"}}
Names of models must be exactly: {models}."""


@dataclass(frozen=True)
class Analysis:
    """`readable` is text for people. `structured` has the keys of `KEYS`, or is None; `note` says why something lacks.

    `model` is "" where none was asked.
    """

    readable: str
    structured: dict[str, object] | None = None
    model: str = ""
    note: str = ""


def plain(groups: Sequence[Group], note: str = "", model: str = "") -> Analysis:
    """The summaries as they are, without any model."""
    return Analysis("\n".join(group_line(group) for group in groups), None, model, note)


def analyse(groups: Sequence[Group], model: str, ask: Ask) -> Analysis:
    """Ask a model. Where its answer is empty, the plain summaries; `ask` raises what it raises."""
    answer = _tidy(ask(question(groups)))
    if not answer:
        return plain(groups, f"{model} gave no answer; these are the plain summaries", model)
    structured = structure(answer, [group.label for group in groups])
    readable = _FENCE.sub("", answer).partition("{")[0].strip() if structured else answer
    if structured and not readable:
        readable = _in_words(structured) or "\n".join(group_line(group) for group in groups)
    if structured is None:
        note = f"{model} gave no usable structure; its text is shown as it came, with the plain summaries"
        summaries = "\n".join(group_line(group) for group in groups)
        return Analysis(f"{readable}\n\n{summaries}", None, model, note)
    return Analysis(readable, structured, model)


def question(groups: Sequence[Group]) -> str:
    """What the model is asked: measured facts only, cut to a length that fits its context."""
    table = "\n".join(f"- {group_line(group)}" for group in groups)
    if len(table) > LONGEST_TABLE:
        table = table[:LONGEST_TABLE].rpartition("\n")[0] + "\n(and more)"
    return _QUESTION.format(table=table, models=", ".join(dict.fromkeys(group.label for group in groups)))


def structure(answer: str, models: Sequence[str]) -> dict[str, object] | None:
    """What an answer says in JSON, with every key of `KEYS`; None where it says nothing usable."""
    for candidate in _objects(answer):
        found = _checked(candidate, list(dict.fromkeys(models)))
        if found is not None:
            return found
    return None


def _tidy(answer: str) -> str:
    """A model's text for a terminal: control characters written out, and what it says again and again only once."""
    kept: list[str] = []
    for line in answer.splitlines():
        plain_line = harmless_lines(line).rstrip()
        recent = [text for text in kept[-4:] if text] if plain_line else kept[-1:]
        if plain_line not in recent or set(plain_line) & set('{}[]"`'):
            kept.append(plain_line)
    return "\n".join(kept).strip()


# -- finding the JSON ------------------------------------------------------------------------------------------------


def _objects(answer: str) -> Iterator[dict[str, object]]:
    """JSON objects in a text, the likeliest first: in fences, then wherever one may begin."""
    for text in (*(match[1] for match in _FENCE.finditer(answer)), answer):
        for match in islice(_START.finditer(text), MOST_STARTS):
            found = _mended(text[match.start() :][:LONGEST_JSON])
            yield from (entry for entry in found if isinstance(entry, dict) and any(key in entry for key in KEYS))


def _mended(text: str) -> list[object]:
    """What a text says in JSON that may be faulty; an answer that was cut off keeps what was whole."""
    from json_repair import repair_json

    text = text.translate(_QUOTES)
    if len(_QUOTE.findall(text)) % 2:
        text = text.rpartition('"')[0]
    try:
        found = repair_json(text, return_objects=True)
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else [found]


# -- checking it -----------------------------------------------------------------------------------------------------


def _checked(found: dict[str, object], models: list[str]) -> dict[str, object] | None:
    ranking = [name for entry in _entries(found.get("ranking")) if (name := _model(entry, models))]
    ranking = list(dict.fromkeys(ranking))
    winner = _model(_words(found.get("winner")), models) or None
    sides = _sides(found.get("strengths_weaknesses"), models)
    recommendations, insights = _texts(found.get("recommendations")), _texts(found.get("insights"))
    if not (ranking or winner or sides or recommendations or insights):
        return None
    return {
        "ranking": ranking,
        "strengths_weaknesses": sides,
        "recommendations": recommendations,
        "insights": insights,
        "winner": winner,
    }


def _entries(value: object) -> list[str]:
    """The items of a list in words; an object's keys, where a small model made one of it."""
    if isinstance(value, dict):
        return [str(key) for key in value]
    return [text for entry in value if (text := _words(entry))] if isinstance(value, list) else []


def _words(value: object) -> str:
    if isinstance(value, dict):
        named = value.get("model") or value.get("name")
        return named if isinstance(named, str) else "; ".join(f"{key}: {text}" for key, text in value.items())
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _texts(value: object) -> list[str]:
    """Sentences: of a list, an object, or one text. The placeholders of the question do not count."""
    if isinstance(value, dict):
        value = [f"{key}: {_words(text)}" for key, text in value.items()]
    entries = value if isinstance(value, list) else [value]
    found = [" ".join(text.split())[:LONGEST_ENTRY] for entry in entries if (text := _words(entry)).strip(". …")]
    return list(dict.fromkeys(found))[:MOST_ENTRIES]


def _model(text: str, models: list[str]) -> str:
    """The measured model that a text names; "" for none or several."""
    plain_text = text.strip().strip("`*\"' ").casefold()
    exact = [model for model in models if model.casefold() == plain_text]
    if exact:
        return exact[0]
    named = [model for model in models if re.search(rf"(?<![\w.:-]){re.escape(model)}(?![\w:-])", text, re.IGNORECASE)]
    return named[0] if len(named) == 1 else ""


def _sides(value: object, models: list[str]) -> dict[str, dict[str, list[str]]]:
    """By model its strengths and weaknesses."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, sides in value.items() if isinstance(value, dict) else ():
        model = _model(str(name), models)
        if model and isinstance(sides, dict):
            both = {side: _texts(sides.get(side)) for side in ("strengths", "weaknesses")}
            if both["strengths"] or both["weaknesses"]:
                found[model] = both
    return found


def _in_words(structured: dict[str, object]) -> str:
    """A structure as text, where the model wrote nothing else."""
    lines = [f"Winner: {structured['winner']}"] if structured["winner"] else []
    for name in ("ranking", "recommendations", "insights"):
        entries = structured[name]
        if isinstance(entries, list) and entries:
            lines += [f"{name.capitalize()}:", *(f"- {entry}" for entry in entries)]
    return "\n".join(lines)
