"""The table of keys as a JSON Schema, by which an editor completes and checks a sweep file. No I/O.

It refuses nothing that `config` takes, and says nothing of what may yet come from the command line: no key and no part
of a range is required. What it cannot say (files, names that are not installed, two keys that exclude each other) is
left to `config`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from ollama_sweep.core.options import SERVER_VARIABLE
from ollama_sweep.plan.exclude import LONGEST
from ollama_sweep.plan.keys import (
    ALIASES,
    DIMENSIONS,
    ENGINE_OPTIONS,
    KEYS,
    LENGTHS,
    OPTIONS,
    OWN_VARIABLES,
    STEP_LIMITS,
    Key,
    Kind,
)
from ollama_sweep.tasks import own
from ollama_sweep.tasks.shared import task_options

Json = dict[str, object]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
FILE = "sweep.schema.json"
COMMENT = f"# yaml-language-server: $schema={FILE}"
"""The first line of a sweep file beside which the schema lies: editors read it."""
_LONGEST_S = 7 * 86400

_NOT_BLANK: Json = {"type": "string", "pattern": r"\S"}
_LINE: Json = {"type": "string", "pattern": r"^(?=.*\S)[^\u0000-\u001f\u007f-\u009f]*$"}
_NAME: Json = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,39}$"}
_HOST_NAME: Json = {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}$"}
_MODEL: Json = {"type": "string", "pattern": r"^[A-Za-z0-9._:/-]*[A-Za-z0-9._/-]$|\.[Gg][Gg][Uu][Ff]$"}
_DURATION: Json = {"type": "string", "pattern": r"^\s*(?:\d+(?:\.\d+)?(?:ns|us|µs|μs|ms|h|m|s))+\s*$"}
_SECONDS: Json = {"type": "number", "exclusiveMinimum": 0, "maximum": _LONGEST_S}
_ADDRESS: Json = {
    "type": "string",
    "pattern": r"^(?:(?![A-Za-z][A-Za-z0-9+.-]*://)|[Hh][Tt][Tt][Pp][Ss]?://)[^@?\u0000-\u0020\u007f-\u009f]+$",
}
_WINDOW = r"\s*(?:[A-Za-z]{3}(?:[-–][A-Za-z]{3})?\s+)?\d\d?:\d\d\s*[-–]\s*\d\d?:\d\d\s*"
_HOURS: Json = {"type": "string", "pattern": f"^{_WINDOW}(?:,{_WINDOW})*$"}
_PERCENT: Json = {"type": "string", "pattern": r"^[0-9]+(?:\.[0-9]+)? ?%$"}
_SHARE: Json = {"type": "string", "pattern": r"^(?!0+(?:\.0+)? ?%)(?:0*100(?:\.0+)?|0*[0-9]{1,2}(?:\.[0-9]+)?) ?%$"}
_AUTO: Json = {"const": "auto"}
_EXCLUSION: Json = {**_NOT_BLANK, "maxLength": LONGEST}
_VARIABLES = f"^(?!(?:{'|'.join(sorted(OWN_VARIABLES))})$){SERVER_VARIABLE}$"
_VARIABLE_VALUE: Json = {"type": ["string", "number", "boolean"]}


def text() -> str:
    """The schema as the file has it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def schema() -> Json:
    """The whole schema."""
    return {
        "$schema": DIALECT,
        "title": "A sweep file of ollama-sweep",
        **_mapping({name: _key(key) for key in KEYS for name in _names(key)}, _variables()),
        "$defs": {
            **{key.name: _described(key, _dimension(key)) for key in DIMENSIONS.values()},
            **{f"{key.name}_value": _described(key, _value(key)) for key in DIMENSIONS.values()},
            "task_options": _task_options(),
        },
    }


def _names(key: Key) -> list[str]:
    return [key.name, *(alias for alias, name in ALIASES.items() if name == key.name)]


def _key(key: Key) -> Json:
    return _ref(key.name) if key.sweeps else _described(key, _value(key))


def _described(key: Key, shape: Json) -> Json:
    default = {} if key.default is None else {"default": key.default}
    return {"description": key.sentence, **default, **shape}


def _ref(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}


def _value(key: Key) -> Json:
    return _SHAPES[key.kind](key)


def _mapping(properties: Mapping[str, Json], patterns: Mapping[str, Json] | None = None) -> Json:
    """An object with these keys and no others."""
    more = {"patternProperties": patterns} if patterns else {}
    return {"type": "object", "properties": properties, **more, "additionalProperties": False}


def _any(*shapes: Json) -> Json:
    return {"anyOf": list(shapes)}


def _list(item: Json, *, unique: bool = False) -> Json:
    return {"type": "array", "items": item, "minItems": 1} | ({"uniqueItems": True} if unique else {})


def _limited(key: Key) -> Json:
    kind = "number" if key.kind is Kind.NUMBER else "integer"
    return {"type": kind, "minimum": key.low, "maximum": key.high}


# -- dimensions ------------------------------------------------------------------------------------------------------


def _dimension(key: Key) -> Json:
    """One value, a list, or for numbers a range."""
    value = _ref(f"{key.name}_value")
    is_number = key.kind in STEP_LIMITS
    return _any(value, _list(value, unique=True), *([_range(key, value)] if is_number else []))


def _range(key: Key, value: Json) -> Json:
    low, high = STEP_LIMITS[key.kind]
    step: Json = {"type": _limited(key)["type"], "minimum": low, "maximum": high}
    factor: Json = {"type": "number", "minimum": 1.01, "maximum": 1_000_000}
    parts = _mapping({"start": value, "end": value, "step": step, "factor": factor})
    return parts | {"not": {"required": ["step", "factor"]}}


def _variables() -> dict[str, Json]:
    """Any variable of a server but those the sweep sets itself."""
    return {_VARIABLES: _any(_VARIABLE_VALUE, _list(_VARIABLE_VALUE))}


def _section(key: Key) -> Json:
    if key.name == "options":
        return _mapping({name: _ref(f"{name}_value") for name in OPTIONS})
    return _mapping({name: _key(one) for one in DIMENSIONS.values() for name in _names(one)}, _variables())


# -- keys with parts -------------------------------------------------------------------------------------------------


def _prompt(_: Key) -> Json:
    length = _limited(LENGTHS)
    tokens = _any(length, _list(length, unique=True), _range(LENGTHS, length))
    return _any(_LINE, _mapping({"text": _NOT_BLANK, "tokens": tokens}) | {"maxProperties": 1})


def _repeats(key: Key) -> Json:
    bounds = _mapping({"min": _limited(key), "max": _limited(key), "until": _PERCENT})
    return _any(_limited(key), bounds, _AUTO)


def _goal(key: Key) -> Json:
    names: Json = {"enum": [*key.choices, "off"]}
    parts = _mapping({"ttft_s": {"type": "number", "exclusiveMinimum": 0, "maximum": _LONGEST_S}, "rate": _SHARE})
    largest: Json = {**parts, "type": ["object", "null"]}
    kinds: dict[str, Json] = {name: largest if name == "largest" else {"type": "null"} for name in key.choices}
    return _any(names, _mapping(kinds) | {"minProperties": 1, "maxProperties": 1})


def _tasks(_: Key) -> Json:
    """The tasks here share most of their options; tasks of others may have any."""
    known = dict.fromkeys(sorted(own()), _ref("task_options"))
    return {"type": "object", "properties": known, "additionalProperties": {"type": ["object", "null"]}}


def _task_options() -> Json:
    texts = {"system": _NOT_BLANK, "model": _LINE, "data": _LINE}
    counts: dict[str, Json] = {
        name: {"type": "integer", "minimum": low, "maximum": high} for name, (low, high) in task_options.COUNTS.items()
    }
    request = {name: _ref(f"{name}_value") for name in task_options.REQUEST}
    shared = {**texts, **counts, "max_tokens": request["num_predict"], **request}
    return {"type": ["object", "null"], "properties": shared}


def _pair(_: Key) -> Json:
    """A key, or a part of one such as `prompt.tokens`, with two values."""
    two: Json = {"type": "array", "minItems": 2, "maxItems": 2}
    return {"type": "object", "minProperties": 1, "additionalProperties": two}


_SHAPES: Mapping[Kind, Callable[[Key], Json]] = {
    Kind.WHOLE: _limited,
    Kind.NUMBER: _limited,
    Kind.COUNT: _limited,
    Kind.TRUTH: lambda key: {"type": "boolean"},
    Kind.WORD: lambda key: _NAME,
    Kind.MODEL: lambda key: _MODEL,
    Kind.MODELFILE: lambda key: _LINE,
    Kind.TEXT: lambda key: _LINE,
    Kind.SECONDS: lambda key: _any(_SECONDS, _DURATION),
    Kind.CHOICE: lambda key: {"enum": list(key.choices)},
    Kind.THOUGHT: lambda key: {"enum": [True, False, *key.choices]},
    Kind.ADDRESS: lambda key: _ADDRESS,
    Kind.WORDS: lambda key: _list(_LINE),
    Kind.HOURS: lambda key: _any(_HOURS, _list(_HOURS)),
    Kind.INTERVAL: lambda key: _any(_limited(key), _DURATION, {"const": "off"}),
    Kind.WARMUP: lambda key: _any(_limited(key), _AUTO),
    Kind.REPEATS: _repeats,
    Kind.SHARE: lambda key: _any(_SHARE, {"const": "off"}),
    Kind.COOLDOWN: lambda key: _any(_SECONDS, _DURATION, {"const": "off"}, _mapping({"gpu_c": _limited(key)})),
    Kind.PROMPT: _prompt,
    Kind.EXCLUSIONS: lambda key: _any(_EXCLUSION, {"type": "array", "items": _EXCLUSION}),
    Kind.GOAL: _goal,
    Kind.TASKS: _tasks,
    Kind.ENGINE_OPTIONS: lambda key: _mapping(
        {one.name: _described(one, _value(one)) for one in ENGINE_OPTIONS.values()}
    ),
    Kind.SECTION: _section,
    Kind.PAIR: _pair,
    Kind.GPUS: lambda key: _any({"const": "all"}, _list(_limited(key))),
    Kind.HOSTS: lambda key: _list({**_mapping({"name": _HOST_NAME, "host": _ADDRESS}), "required": ["name", "host"]}),
}
