"""What `ollama run --verbose` prints, read by label (docs/ollama.md says what was seen on which version). Pure.

The statistics come on stderr, between escape codes, in any order; the first one does not start at column 0.
The same words on stdout are the model's own text and prove nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ollama_sweep.core.units import parse_duration_s

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-Z\\-_]|[\x00-\x08\x0b-\x1f\x7f]")
_SPINNER = re.compile(r"[⠀-⣿]\s?")
_COUNT = r"^\s*{label}:\s+([0-9]+)(?: token\(s\))?\s*$"
_RATE = r"^\s*{label}:\s+([0-9.]+) tokens/s\s*$"
_DURATION = r"^\s*{label}:\s+([0-9.a-zµμ]+)\s*$"


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
    return _SPINNER.sub("", _ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def statistics(stderr: str) -> Statistics | None:
    """The statistics in a captured stderr; None where there is not a single one. Of repeated lines the last counts."""
    text = clean(stderr)
    found = Statistics(
        prompt_eval_count=_whole(_last(_COUNT, "prompt eval count", text)),
        cached_count=_whole(_last(_COUNT, "prompt eval cached", text)),
        prompt_eval_duration_s=_seconds(_last(_DURATION, "prompt eval duration", text)),
        prompt_eval_rate=_number(_last(_RATE, "prompt eval rate", text)),
        eval_count=_whole(_last(_COUNT, "eval count", text)),
        eval_duration_s=_seconds(_last(_DURATION, "eval duration", text)),
        total_duration_s=_seconds(_last(_DURATION, "total duration", text)),
        load_duration_s=_seconds(_last(_DURATION, "load duration", text)),
    )
    return None if found == Statistics(*[None] * 8) else found


def _last(pattern: str, label: str, text: str) -> str | None:
    matches: list[str] = re.findall(pattern.format(label=label), text, re.MULTILINE)
    return matches[-1] if matches else None


def _whole(text: str | None) -> int | None:
    return None if text is None else int(text)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else parse_duration_s(text)
    except ValueError:
        return None


def error_text(stderr: str) -> str:
    """The engine's own message: from its last `Error:` on, else all it said, cleaned."""
    text = clean(stderr).strip()
    starts = [match.end() for match in re.finditer(r"^\s*Error:", text, re.MULTILINE)]
    return text[starts[-1] if starts else 0 :].strip()
