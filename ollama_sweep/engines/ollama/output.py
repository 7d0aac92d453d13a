"""What `ollama run --verbose` prints, read by label (docs/ollama.md says what was seen on which version). Pure.

The statistics come on stderr, between escape codes, in any order; the first one does not start at column 0.
The same words on stdout are the model's own text and prove nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ollama_sweep.core.text import without_escapes
from ollama_sweep.core.units import parse_duration_s
from ollama_sweep.engines.shared import gate

RATE = "prompt eval rate"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_NUMBER = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_SPINNER = re.compile(r"[⠀-⣿]\s?")
_LINE = r"^[ \t]*{label}:[ \t]+([-+]?(?:[0-9.]|nan|inf)\S*)(?: (?:token\(s\)|tokens/s))?[ \t]*$"
"""A value begins like a number; whether it is one is seen after that."""


@dataclass(frozen=True)
class Statistics:
    """The numbers of one run; None where the line is missing. Durations in seconds, the rate in tokens/s."""

    prompt_eval_count: int | None
    cached_count: int | None
    prompt_eval_duration_s: float | None
    prompt_eval_rate: float | None
    eval_count: int | None
    eval_duration_s: float | None
    total_duration_s: float | None
    load_duration_s: float | None


def clean(text: str) -> str:
    """The text without escape codes, control characters and the spinner's frames."""
    return _SPINNER.sub("", _CONTROL.sub("", without_escapes(text.replace("\r\n", "\n").replace("\r", "\n"))))


def statistics(stderr: str) -> Statistics | None:
    """The statistics in a captured stderr; None where there is not a single one. Of repeated lines the last counts.

    The printed rate may be any size: old versions count tokens from a cache as work. Raises Nonsense for a number that
    cannot be.
    """
    text = clean(stderr)
    found = Statistics(
        prompt_eval_count=_count("prompt eval count", text),
        cached_count=_count("prompt eval cached", text),
        prompt_eval_duration_s=_seconds("prompt eval duration", text),
        prompt_eval_rate=_rate(RATE, text),
        eval_count=_count("eval count", text),
        eval_duration_s=_seconds("eval duration", text),
        total_duration_s=_seconds("total duration", text),
        load_duration_s=_seconds("load duration", text),
    )
    return None if found == Statistics(*[None] * 8) else found


def _last(label: str, text: str) -> str | None:
    matches: list[str] = re.findall(_LINE.format(label=label), text, re.MULTILINE | re.IGNORECASE)
    return matches[-1] if matches else None


def _count(label: str, text: str) -> int | None:
    value = _last(label, text)
    return None if value is None else gate.whole(label, _number(value))


def _rate(label: str, text: str) -> float | None:
    value = _last(label, text)
    return None if value is None else gate.rate(label, _number(value), math.inf)


def _number(text: str) -> object:
    """A number as Ollama prints it; anything else stays the text that it is."""
    return gate.loads(text) if _NUMBER.fullmatch(text) else text


def _seconds(label: str, text: str) -> float | None:
    value = _last(label, text)
    try:
        return None if value is None else gate.duration_s(label, parse_duration_s(value))
    except ValueError:
        raise gate.BadValue(label, value, "a duration like 1m2.5s") from None


def error_text(stderr: str) -> str:
    """The engine's own message: from its first `Error:` on, each of them once, else all it said, cleaned."""
    text = clean(stderr).strip()
    _, *messages = re.split(r"^[ \t]*Error:", text, flags=re.MULTILINE)
    said = dict.fromkeys(message.strip() for message in messages if message.strip())
    return "\n".join(said) or text
